//! What counts as a second factor, and what does not.

use crate::factors::{code, enroll, second_step, ticket};
use crate::sms::with_messages;
use crate::support::{Instance, PASSWORD, secret, tamper, who};
use karat_access::{AccessError, LoginOutcome, Origin};
use secrecy::ExposeSecret;

const PHONE: &str = "+34600123456";

#[tokio::test]
async fn security_32_codes_of_another_time_or_form_are_refused() {
    let instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let (access, origin) = (&instance.access, Origin::default());
    let enrolment = access.enroll_totp(&caller, Some(secret(PASSWORD)), &origin).await.unwrap();
    let base32 = enrolment.secret.expose_secret();
    let right = code(base32, 0);
    let in_arabic_digits = right.chars().map(|digit| char::from_u32(0x660 + digit.to_digit(10).unwrap()).unwrap());
    for (form, wrong) in [
        ("two steps ago", code(base32, -2)),
        // Not two: this step may end before the code is looked at.
        ("three steps ahead", code(base32, 3)),
        ("five digits", right[1..].to_owned()),
        ("seven digits", format!("0{right}")),
        ("digits of another script", in_arabic_digits.collect::<String>()),
        ("a sign", format!("+{}", &right[1..])),
        ("a gap", format!("{} {}", &right[..3], &right[3..])),
        ("a fraction", format!("{right}.0")),
        ("NUL", format!("{right}\0")),
        ("nothing", String::new()),
        ("a long text", right.repeat(1000)),
    ] {
        // The wait after five wrong ones has a test of its own.
        tamper(&instance.folder, "DELETE FROM attempts").await.unwrap();
        let refused = access.confirm_totp(&caller, &wrong, &origin).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "{form}: {refused:?}");
    }
    tamper(&instance.folder, "DELETE FROM attempts").await.unwrap();
    access.confirm_totp(&caller, &right, &origin).await.unwrap();
    // The same at the second step of a log-in, where recovery codes are taken too.
    for wrong in [code(base32, 3), right[1..].to_owned(), String::new(), "-".to_owned()] {
        let refused = second_step(&instance, &ticket(&instance, "maria_77").await, &wrong).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "`{wrong}`: {refused:?}");
    }
}

#[tokio::test]
async fn security_35_two_codes_of_one_kind_are_one_factor() {
    let (instance, service) = with_messages().await;
    let enrolled = enroll(&instance, "maria_77").await;
    let (access, origin) = (&instance.access, Origin::default());
    let request = access.request_phone_code(PHONE, &origin).await.unwrap();
    let to_link = service.code_for(PHONE, 1).await;
    let password = Some(secret(PASSWORD));
    access.link_phone(&enrolled.caller, PHONE, &request, &to_link, password, &origin).await.unwrap();

    let request = access.request_phone_code(PHONE, &origin).await.unwrap();
    let first = service.code_for(PHONE, 2).await;
    let step = access.login_by_phone(PHONE, &request, &first, &origin).await.unwrap();
    let LoginOutcome::MfaRequired { ticket, .. } = step else {
        panic!("the telephone is one factor, and the account has a second");
    };
    access.request_phone_code(PHONE, &origin).await.unwrap();
    let second = service.code_for(PHONE, 3).await;
    for code in [&first, &second] {
        let refused = second_step(&instance, &ticket, code).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    }
    // Nor is the first factor of the account, given again.
    let refused = second_step(&instance, &ticket, PASSWORD).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    second_step(&instance, &ticket, &code(&enrolled.secret, 1)).await.unwrap();
}

#[tokio::test]
async fn security_36_a_code_is_for_its_number_and_for_ten_minutes() {
    let (instance, service) = with_messages().await;
    let (access, origin, other) = (&instance.access, Origin::default(), "+34600999999");
    let for_phone = access.request_phone_code(PHONE, &origin).await.unwrap();
    let of_phone = service.code_for(PHONE, 1).await;
    let for_other = access.request_phone_code(other, &origin).await.unwrap();
    let of_other = service.code_for(other, 2).await;
    assert!(of_phone.len() == 6 && of_phone.bytes().all(|byte| byte.is_ascii_digit()), "{of_phone}");
    if of_phone != of_other {
        let refused = access.login_by_phone(PHONE, &for_phone, &of_other, &origin).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    }
    let refused = access.login_by_phone(PHONE, &for_other, &of_other, &origin).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    assert!(access.login_by_phone(other, &for_other, &of_other, &origin).await.is_ok());
    let later = "UPDATE one_time_codes SET expires_at = expires_at - 600000000 WHERE used_at IS NULL";
    tamper(&instance.folder, later).await.unwrap();
    let refused = access.login_by_phone(PHONE, &for_phone, &of_phone, &origin).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
}

#[tokio::test]
async fn security_36_a_strangers_guesses_do_not_spend_the_owners_code() {
    let (instance, service) = with_messages().await;
    let (access, origin) = (&instance.access, Origin::default());
    let of_owner = access.request_phone_code(PHONE, &origin).await.unwrap();
    let right = service.code_for(PHONE, 1).await;
    let of_stranger = access.request_phone_code("+34600999999", &origin).await.unwrap();
    for id in [&of_owner, &of_stranger] {
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
    assert_ne!(of_owner, of_stranger);
    // Not even the right code works without the id that its owner was answered.
    for n in 0..20 {
        let refused = access.login_by_phone(PHONE, &format!("{n:032x}"), &right, &origin).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    }
    for _ in 0..5 {
        let refused = access.login_by_phone(PHONE, &of_stranger, &right, &origin).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    }
    let refused = access.login_by_phone(PHONE, &of_stranger, &right, &origin).await;
    assert!(matches!(refused, Err(AccessError::TooManyAttempts { .. })), "{refused:?}");
    access.login_by_phone(PHONE, &of_owner, &right, &origin).await.unwrap();
}

#[tokio::test]
async fn security_37_new_recovery_codes_void_the_old_ones() {
    let instance = Instance::start().await;
    let enrolled = enroll(&instance, "maria_77").await;
    let (access, caller, origin) = (&instance.access, &enrolled.caller, Origin::default());
    access.remove_totp(caller, Some(secret(PASSWORD)), &origin).await.unwrap();
    let enrolment = access.enroll_totp(caller, Some(secret(PASSWORD)), &origin).await.unwrap();
    let first_code = code(enrolment.secret.expose_secret(), 0);
    let new = access.confirm_totp(caller, &first_code, &origin).await.unwrap();
    let at_second_step = ticket(&instance, "maria_77").await;
    for old in &enrolled.recovery[..3] {
        let refused = second_step(&instance, &at_second_step, old.expose_secret()).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    }
    // Nor do codes of the authenticator that was removed.
    assert!(second_step(&instance, &at_second_step, &code(&enrolled.secret, 1)).await.is_err());
    second_step(&instance, &at_second_step, new[0].expose_secret()).await.unwrap();
}

#[tokio::test]
async fn security_37_and_41_recovery_codes_are_renewed_by_the_password_and_a_code_and_the_old_ones_are_void() {
    let instance = Instance::start().await;
    let enrolled = enroll(&instance, "maria_77").await;
    let (access, caller, origin) = (&instance.access, &enrolled.caller, Origin::default());
    let renew = async |password: Option<&str>, code: &str| {
        access.renew_recovery_codes(caller, password.map(secret), code, &origin).await
    };
    let right = code(&enrolled.secret, 1);
    assert!(matches!(renew(None, &right).await, Err(AccessError::Invalid(_))));
    assert!(matches!(renew(Some("wrong"), &right).await, Err(AccessError::InvalidCredentials)));
    // The first is the code that set the factor up, the last one of those that are to be replaced.
    for wrong in [code(&enrolled.secret, -2), "000".to_owned(), enrolled.recovery[0].expose_secret().to_owned()] {
        let refused = renew(Some(PASSWORD), &wrong).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "`{wrong}`: {refused:?}");
    }
    let new = renew(Some(PASSWORD), &right).await.unwrap();
    assert_eq!(new.len(), 10);
    // The code was used up.
    assert!(matches!(renew(Some(PASSWORD), &right).await, Err(AccessError::CodeRefused)));
    let at_second_step = ticket(&instance, "maria_77").await;
    let refused = second_step(&instance, &at_second_step, enrolled.recovery[0].expose_secret()).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    second_step(&instance, &at_second_step, new[0].expose_secret()).await.unwrap();

    let without = instance.register("pedro_12").await;
    let without = who(access, &without).await.unwrap();
    let refused = access.renew_recovery_codes(&without, Some(secret(PASSWORD)), &right, &origin).await;
    assert!(matches!(refused, Err(AccessError::NotFound { .. })), "{refused:?}");
    let written = access.audit_log(&Default::default(), 100).await.unwrap();
    let outcomes: Vec<_> = written.iter().filter(|row| row.action == "recovery_codes_renew").collect();
    assert_eq!(outcomes.iter().filter(|row| row.outcome == "success").count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|row| row.outcome == "denied").count(), 5, "{outcomes:?}");
}

#[tokio::test]
async fn security_10_an_account_without_a_password_answers_like_one_with_another() {
    let (instance, service) = with_messages().await;
    let (access, origin) = (&instance.access, Origin::default());
    let request = access.request_phone_code(PHONE, &origin).await.unwrap();
    let code = service.code_for(PHONE, 1).await;
    let LoginOutcome::Tokens(pair) = access.login_by_phone(PHONE, &request, &code, &origin).await.unwrap() else {
        panic!("a new account has no second factor");
    };
    for password in ["", PASSWORD, "no account has this password", &code] {
        let refused = instance.login(&pair.user.username, password).await;
        assert!(matches!(refused, Err(AccessError::InvalidCredentials)), "`{password}`: {refused:?}");
    }
}
