//! The second factor, recovery codes, telephone numbers.

use crate::sms::with_messages;
use crate::support::{Instance, PASSWORD, secret, settings, tamper, who};
use karat_access::{
    Access, AccessError, AccessSettings, Caller, LoginOutcome, Origin, ProfileChange, SmsSettings, TokenPair,
};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use totp_rs::{Builder, Secret};

pub struct Enrolled {
    pub caller: Arc<Caller>,
    pub secret: String,
    pub recovery: Vec<SecretString>,
}

/// The code of an authenticator so many steps from now.
pub fn code(base32: &str, steps: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = now.checked_add_signed(steps * 30).unwrap();
    let totp = Builder::new().with_secret(Secret::try_from_base32(base32).unwrap()).build().unwrap();
    totp.generate(at).to_string()
}

pub async fn enroll(instance: &Instance, name: &str) -> Enrolled {
    let pair = instance.register(name).await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let origin = Origin::default();
    let refused = instance.access.enroll_totp(&caller, Some(secret("wrong")), &origin).await;
    assert!(matches!(refused, Err(AccessError::InvalidCredentials)));
    let enrolment = instance.access.enroll_totp(&caller, Some(secret(PASSWORD)), &origin).await.unwrap();
    let base32 = enrolment.secret.expose_secret().to_owned();
    // Not asked for before it is confirmed.
    assert!(instance.login(name, PASSWORD).await.is_ok());
    // The present step: the one after it is still unused. Both are right also when a step ends before they are looked at.
    let recovery = instance.access.confirm_totp(&caller, &code(&base32, 0), &origin).await.unwrap();
    Enrolled { caller, secret: base32, recovery }
}

pub async fn ticket(instance: &Instance, name: &str) -> SecretString {
    match instance.access.login(name, secret(PASSWORD), &Origin::default()).await.unwrap() {
        LoginOutcome::MfaRequired { ticket, .. } => ticket,
        LoginOutcome::Tokens(_) => panic!("the second factor must be asked for"),
    }
}

pub async fn second_step(instance: &Instance, ticket: &SecretString, code: &str) -> Result<TokenPair, AccessError> {
    instance.access.login_with_factor(ticket, code, &Origin::default()).await
}

#[tokio::test]
async fn security_32_a_code_works_once_even_in_parallel_and_in_two_processes() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let enrolled = enroll(&instance, "maria_77").await;
    let right = code(&enrolled.secret, 1);
    let mut tasks = Vec::new();
    for n in 0..4 {
        let ticket = ticket(&instance, "maria_77").await;
        let (access, right) = (if n % 2 == 0 { &instance.access } else { &other }.clone(), right.clone());
        tasks.push(tokio::spawn(async move { access.login_with_factor(&ticket, &right, &Origin::default()).await }));
    }
    let mut done = 0;
    for task in tasks {
        done += usize::from(task.await.unwrap().is_ok());
    }
    assert_eq!(done, 1);
    // Nor does a code of an earlier step, though it is within the window.
    let earlier = ticket(&instance, "maria_77").await;
    let refused = second_step(&instance, &earlier, &code(&enrolled.secret, 0)).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)));
}

#[tokio::test]
async fn security_33_five_wrong_codes_block_the_factor_and_not_the_password() {
    let instance = Instance::start().await;
    let enrolled = enroll(&instance, "maria_77").await;
    let ticket = ticket(&instance, "maria_77").await;
    for _ in 0..5 {
        assert!(matches!(second_step(&instance, &ticket, "000000").await, Err(AccessError::CodeRefused)));
    }
    // Security 16: the count stands although every log-in failed. The right code fails too.
    let refused = second_step(&instance, &ticket, &code(&enrolled.secret, 1)).await;
    assert!(matches!(refused, Err(AccessError::TooManyAttempts { .. })), "{refused:?}");
    // The password step goes on as before.
    let step = instance.access.login("maria_77", secret(PASSWORD), &Origin::default()).await.unwrap();
    assert!(matches!(step, LoginOutcome::MfaRequired { .. }));
}

#[tokio::test]
async fn security_34_the_ticket_is_no_credential_and_works_once() {
    let instance = Instance::start().await;
    let enrolled = enroll(&instance, "maria_77").await;
    let ticket = ticket(&instance, "maria_77").await;
    let as_token = karat_access::Credential::Token(ticket.expose_secret());
    assert!(instance.access.authenticate(as_token).await.is_err());
    assert!(instance.access.refresh(&ticket, &Origin::default()).await.is_err());
    second_step(&instance, &ticket, &code(&enrolled.secret, 1)).await.unwrap();
    let again = second_step(&instance, &ticket, enrolled.recovery[0].expose_secret()).await;
    assert!(matches!(again, Err(AccessError::CodeRefused)));
}

#[tokio::test]
async fn security_37_a_recovery_code_works_once_and_only_for_its_owner() {
    let instance = Instance::start().await;
    let maria = enroll(&instance, "maria_77").await;
    enroll(&instance, "pedro_12").await;
    assert_eq!(maria.recovery.len(), 10);
    let recovery = maria.recovery[0].expose_secret();
    let of_pedro = ticket(&instance, "pedro_12").await;
    assert!(second_step(&instance, &of_pedro, recovery).await.is_err());
    second_step(&instance, &ticket(&instance, "maria_77").await, &recovery.to_uppercase()).await.unwrap();
    assert!(second_step(&instance, &ticket(&instance, "maria_77").await, recovery).await.is_err());
    second_step(&instance, &ticket(&instance, "maria_77").await, maria.recovery[1].expose_secret()).await.unwrap();
}

#[tokio::test]
async fn a_confirmed_factor_is_not_replaced_and_its_removal_needs_the_password() {
    let instance = Instance::start().await;
    let enrolled = enroll(&instance, "maria_77").await;
    let (access, caller, origin) = (&instance.access, &enrolled.caller, Origin::default());
    let again = access.enroll_totp(caller, Some(secret(PASSWORD)), &origin).await;
    assert!(matches!(again, Err(AccessError::Taken { .. })));
    assert!(access.remove_totp(caller, Some(secret("wrong")), &origin).await.is_err());
    access.remove_totp(caller, Some(secret(PASSWORD)), &origin).await.unwrap();
    assert!(instance.login("maria_77", PASSWORD).await.is_ok());
    let again = access.remove_totp(caller, Some(secret(PASSWORD)), &origin).await;
    assert!(matches!(again, Err(AccessError::NotFound { .. })));
}

#[tokio::test]
async fn security_36_a_code_for_a_number_dies_after_five_tries_and_when_another_is_sent() {
    let (instance, service) = with_messages().await;
    let (access, origin) = (&instance.access, Origin::default());
    let phone = "+34 600-123-456";

    let before = access.request_phone_code(phone, &origin).await.unwrap();
    let first = service.code_for("+34600123456", 1).await;
    let request = access.request_phone_code(phone, &origin).await.unwrap();
    let second = service.code_for("+34600123456", 2).await;
    for code in [&first, &second] {
        let refused = access.login_by_phone(phone, &before, code, &origin).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    }
    let LoginOutcome::Tokens(pair) = access.login_by_phone(phone, &request, &second, &origin).await.unwrap() else {
        panic!("a new account has no second factor");
    };
    assert_eq!(pair.user.phone.as_deref(), Some("+34600123456"));
    assert!(access.login_by_phone(phone, &request, &second, &origin).await.is_err(), "it was used");

    let request = access.request_phone_code(phone, &origin).await.unwrap();
    let third = service.code_for("+34600123456", 3).await;
    let wrong = if third == "000000" { "000001" } else { "000000" };
    for _ in 0..5 {
        assert!(access.login_by_phone(phone, &request, wrong, &origin).await.is_err());
    }
    assert!(access.login_by_phone(phone, &request, &third, &origin).await.is_err(), "five tries were spent");
}

#[tokio::test]
async fn a_number_gets_five_messages_an_hour_and_none_without_a_service() {
    let mut instance = Instance::start().await;
    let origin = Origin::default();
    for _ in 0..5 {
        instance.access.request_phone_code("+34600123456", &origin).await.unwrap();
    }
    let refused = instance.access.request_phone_code("+34600123456", &origin).await;
    assert!(matches!(refused, Err(AccessError::TooManyAttempts { .. })));
    let off = AccessSettings { sms: SmsSettings::Off, ..settings(&instance.folder) };
    instance.access = Access::open(off).await.unwrap();
    let refused = instance.access.request_phone_code("+34600999999", &origin).await;
    assert!(matches!(refused, Err(AccessError::Unconfigured { .. })));
}

#[tokio::test]
async fn security_51_the_last_way_in_cannot_be_removed() {
    let (instance, service) = with_messages().await;
    let origin = Origin::default();
    let pair = log_in_by_phone(&instance, &service, 1).await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let refused = instance.access.unlink_phone(&caller, None, &origin).await;
    assert!(matches!(refused, Err(AccessError::LastWayIn)));
}

/// Logs in by a code to a number; a new number gets an account without a password.
async fn log_in_by_phone(instance: &Instance, service: &crate::sms::Service, count: usize) -> TokenPair {
    let origin = Origin::default();
    let request = instance.access.request_phone_code("+34600123456", &origin).await.unwrap();
    let code = service.code_for("+34600123456", count).await;
    match instance.access.login_by_phone("+34600123456", &request, &code, &origin).await.unwrap() {
        LoginOutcome::Tokens(pair) => *pair,
        LoginOutcome::MfaRequired { .. } => panic!("no second factor was set up"),
    }
}

#[tokio::test]
async fn security_41_an_account_without_a_password_proves_itself_by_a_fresh_log_in() {
    let (instance, service) = with_messages().await;
    let (access, origin) = (instance.access.clone(), Origin::default());
    let pair = log_in_by_phone(&instance, &service, 1).await;
    let caller = who(&access, &pair).await.unwrap();
    // Six minutes ago.
    tamper(&instance.folder, "UPDATE sessions SET created_at = created_at - 360000000").await.unwrap();
    let address = || ProfileChange {
        email: Some("maria@example.org".to_owned()),
        version: pair.user.version,
        ..ProfileChange::default()
    };
    let new = || secret("other-Green-8-cars");
    let refusals = [
        access.enroll_totp(&caller, None, &origin).await.map(drop),
        access.update_own_account(&caller, address(), &origin).await.map(drop),
        access.change_password(&caller, None, new(), &origin).await,
        access.unlink_phone(&caller, None, &origin).await.map(drop),
        access.delete_own_account(&caller, Some(secret(PASSWORD)), &origin).await.map(drop),
    ];
    for refused in refusals {
        assert!(matches!(refused, Err(AccessError::FreshLoginNeeded)), "{refused:?}");
    }

    let pair = log_in_by_phone(&instance, &service, 2).await;
    let caller = who(&access, &pair).await.unwrap();
    access.enroll_totp(&caller, None, &origin).await.unwrap();
    access.update_own_account(&caller, address(), &origin).await.unwrap();
    access.change_password(&caller, None, new(), &origin).await.unwrap();
    assert!(instance.login("maria@example.org", "other-Green-8-cars").await.is_ok());
    // There is a password now, so it is asked for.
    let without = access.delete_own_account(&caller, None, &origin).await;
    assert!(matches!(without, Err(AccessError::Invalid(_))));
    access.delete_own_account(&caller, Some(new()), &origin).await.unwrap();
    assert!(who(&access, &pair).await.is_err());
}

#[tokio::test]
async fn security_41_and_51_unlinking_needs_the_password_and_ends_the_other_sessions() {
    let instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let (access, origin) = (&instance.access, Origin::default());
    tamper(&instance.folder, "UPDATE users SET phone = '+34600123456'").await.unwrap();
    let identity = "INSERT INTO identities (id, user_id, provider, issuer, subject, created_at, last_used_at) \
                    SELECT '01900000-0000-7000-8000-000000000001', id, 'test', 'https://id.example.org', 'maria', 1, 1 \
                    FROM users";
    tamper(&instance.folder, identity).await.unwrap();

    let elsewhere = instance.login("maria_77", PASSWORD).await.unwrap();
    for password in [None, Some(secret("wrong"))] {
        let phone = access.unlink_phone(&caller, password.clone(), &origin).await.map(drop);
        let identity = access.unlink_oauth(&caller, "test", password, &origin).await;
        for refused in [phone, identity] {
            assert!(matches!(refused, Err(AccessError::Invalid(_) | AccessError::InvalidCredentials)), "{refused:?}");
        }
    }
    assert!(who(access, &elsewhere).await.is_ok());
    access.unlink_phone(&caller, Some(secret(PASSWORD)), &origin).await.unwrap();
    assert!(who(access, &elsewhere).await.is_err() && instance.refresh(&elsewhere).await.is_err());

    let elsewhere = instance.login("maria_77", PASSWORD).await.unwrap();
    access.unlink_oauth(&caller, "test", Some(secret(PASSWORD)), &origin).await.unwrap();
    assert!(who(access, &elsewhere).await.is_err() && instance.refresh(&elsewhere).await.is_err());
    assert!(who(access, &pair).await.is_ok());
}
