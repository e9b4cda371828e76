//! Waits after failed attempts: they hold for every way to make the same attempt, and for no other.

use crate::factors::{code, enroll, second_step, ticket};
use crate::sms::with_messages;
use crate::support::{Instance, PASSWORD, account, secret, tamper, tokens, who};
use karat_access::{AccessError, AuditFilter, LoginOutcome, NewAccount, Origin, ProfileChange};
use secrecy::ExposeSecret;
use std::fmt::Debug;

/// Lets no wait end while a test looks at it: the first ones are seconds, and machines may be slow.
pub async fn hold(instance: &Instance) {
    let longer =
        "UPDATE attempts SET next_at = next_at + 3600000000, expires_at = expires_at + 3600000000 WHERE failures >= 5";
    tamper(&instance.folder, longer).await.unwrap();
}

fn must_wait<T: Debug>(way: &str, result: Result<T, AccessError>) {
    assert!(matches!(result, Err(AccessError::TooManyAttempts { .. })), "{way}: {result:?}");
}

#[tokio::test]
async fn security_15_guesses_at_a_password_make_every_log_in_by_password_wait() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let new = NewAccount { email: Some("maria@example.org".to_owned()), ..account("maria_77") };
    tokens(instance.access.register(new, &Origin::default()).await.unwrap());
    for _ in 0..5 {
        let refused = instance.login("maria_77", "wrong").await;
        assert!(matches!(refused, Err(AccessError::InvalidCredentials)), "{refused:?}");
    }
    hold(&instance).await;
    for name in ["maria_77", "MARIA_77"] {
        must_wait(name, instance.login(name, PASSWORD).await);
    }
    // By the other name too, which does not say that it waits: it would tell that it is the same account's.
    for name in ["maria@example.org", "Maria@Example.org"] {
        for process in [&instance.access, &other] {
            let held = process.login(name, secret(PASSWORD), &Origin::default()).await;
            assert!(matches!(held, Err(AccessError::InvalidCredentials)), "{name}: {held:?}");
        }
    }
    for ip in ["203.0.113.5", "2001:db8::5"] {
        let elsewhere = Origin::new(Some(ip.parse().unwrap()), None, None);
        must_wait(ip, instance.access.login("maria_77", secret(PASSWORD), &elsewhere).await);
    }
    must_wait("another process", other.login("maria_77", secret(PASSWORD), &Origin::default()).await);
    // A name that nobody has waits as well, or waiting would tell which ones are taken.
    for _ in 0..5 {
        let refused = instance.login("nobody_1", "wrong").await;
        assert!(matches!(refused, Err(AccessError::InvalidCredentials)), "{refused:?}");
    }
    hold(&instance).await;
    must_wait("a name that nobody has", instance.login("Nobody_1", PASSWORD).await);
}

#[tokio::test]
async fn security_13_a_code_of_the_second_factor_passes_a_wait() {
    let instance = Instance::start().await;
    let enrolled = enroll(&instance, "maria_77").await;
    let (access, new) = (&instance.access, Origin::new(Some("203.0.113.5".parse().unwrap()), None, None));
    let log_in =
        async |name: &str, password: &str, code: &str| access.login_with_code(name, secret(password), code, &new).await;
    for name in ["maria_77", "nobody_1"] {
        for _ in 0..5 {
            assert!(matches!(instance.login(name, "wrong").await, Err(AccessError::InvalidCredentials)));
        }
    }
    hold(&instance).await;
    must_wait("without a code", access.login("maria_77", secret(PASSWORD), &new).await);
    let recovery = enrolled.recovery[0].expose_secret();
    let right = code(&enrolled.secret, 1);
    let wrong = if right == "000000" { "000001" } else { "000000" };
    must_wait("a wrong code", log_in("maria_77", PASSWORD, wrong).await);
    must_wait("a name that nobody has", log_in("nobody_1", PASSWORD, &right).await);

    // The code is looked at first: it does not save guesses at the password.
    let refused = log_in("maria_77", "wrong", recovery).await;
    assert!(matches!(refused, Err(AccessError::InvalidCredentials)), "{refused:?}");
    must_wait("a code that was used up", log_in("maria_77", PASSWORD, recovery).await);
    let LoginOutcome::Tokens(pair) = log_in("maria_77", PASSWORD, &right).await.unwrap() else {
        panic!("the code was the second step");
    };
    assert!(who(access, &pair).await.is_ok());

    // Who guesses at the code from elsewhere waits for it, and the owner does not.
    for _ in 0..5 {
        assert!(matches!(instance.login("maria_77", "wrong").await, Err(AccessError::InvalidCredentials)));
    }
    hold(&instance).await;
    let elsewhere = Origin::new(Some("203.0.113.9".parse().unwrap()), None, None);
    let recovery = enrolled.recovery[1].expose_secret();
    for _ in 0..5 {
        must_wait("a guess", access.login_with_code("maria_77", secret(PASSWORD), wrong, &elsewhere).await);
    }
    must_wait("after the guesses", access.login_with_code("maria_77", secret(PASSWORD), recovery, &elsewhere).await);
    let owner = Origin::new(Some("203.0.113.7".parse().unwrap()), None, None);
    let passed = access.login_with_code("maria_77", secret(PASSWORD), recovery, &owner).await;
    assert!(matches!(passed, Ok(LoginOutcome::Tokens(_))), "{passed:?}");
}

#[tokio::test]
async fn a_log_in_with_its_code_is_one_step_where_there_is_a_second_factor_and_where_there_is_none() {
    let instance = Instance::start().await;
    let enrolled = enroll(&instance, "maria_77").await;
    instance.register("pedro_12").await;
    let (access, origin) = (&instance.access, Origin::default());
    let refused = access.login_with_code("maria_77", secret(PASSWORD), "000000x", &origin).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    let right = code(&enrolled.secret, 1);
    let refused = access.login_with_code("maria_77", secret("wrong"), &right, &origin).await;
    assert!(matches!(refused, Err(AccessError::InvalidCredentials)), "{refused:?}");
    for (name, code) in [("maria_77", right.as_str()), ("pedro_12", "000000")] {
        let done = access.login_with_code(name, secret(PASSWORD), code, &origin).await;
        assert!(matches!(done, Ok(LoginOutcome::Tokens(_))), "{name}: {done:?}");
    }
}

#[tokio::test]
async fn security_12_waits_do_not_tell_which_address_a_name_has() {
    let instance = Instance::start().await;
    let access = &instance.access;
    let new = NewAccount { email: Some("maria@example.org".to_owned()), ..account("maria_77") };
    tokens(access.register(new, &Origin::default()).await.unwrap());
    let at_home = Origin::new(Some("203.0.113.5".parse().unwrap()), None, None);
    access.login("maria_77", secret(PASSWORD), &at_home).await.unwrap();
    for _ in 0..5 {
        assert!(instance.login("maria_77", "wrong").await.is_err());
    }
    hold(&instance).await;
    // Her address and one that nobody has: the same answers at the same cost, until both wait.
    for name in ["maria@example.org", "nobody@example.org"] {
        for _ in 0..5 {
            let hashes = access.hash_load().done;
            let refused = instance.login(name, "wrong").await;
            assert!(matches!(refused, Err(AccessError::InvalidCredentials)), "{name}: {refused:?}");
            assert_eq!(access.hash_load().done - hashes, 1, "{name}");
        }
    }
    hold(&instance).await;
    for name in ["maria@example.org", "nobody@example.org"] {
        must_wait(name, instance.login(name, PASSWORD).await);
    }
    // She is not held up where she has been before, by either name.
    for name in ["maria_77", "maria@example.org"] {
        access.login(name, secret(PASSWORD), &at_home).await.unwrap();
    }
    // Nor elsewhere, once the waits are over.
    tamper(&instance.folder, "UPDATE attempts SET next_at = 0").await.unwrap();
    instance.login("maria@example.org", PASSWORD).await.unwrap();
}

#[tokio::test]
async fn security_15_guesses_from_within_a_session_make_everything_wait_that_asks_for_the_password() {
    let instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let (access, origin) = (&instance.access, Origin::default());
    let right = || secret(PASSWORD);
    for _ in 0..5 {
        let refused =
            access.change_password(&caller, Some(secret("wrong")), secret("other-Green-8-cars"), &origin).await;
        assert!(matches!(refused, Err(AccessError::InvalidCredentials)), "{refused:?}");
    }
    hold(&instance).await;
    must_wait("change", access.change_password(&caller, Some(right()), secret("other-Green-8-cars"), &origin).await);
    must_wait("delete", access.delete_own_account(&caller, Some(right()), &origin).await);
    must_wait("enroll", access.enroll_totp(&caller, Some(right()), &origin).await);
    must_wait("remove", access.remove_totp(&caller, Some(right()), &origin).await);
    must_wait("telephone", access.link_phone(&caller, "+34600123456", "x", "000000", Some(right()), &origin).await);
    must_wait("provider", access.begin_oauth_link(&caller, "any", Some(right()), &origin).await);
    let change = ProfileChange {
        email: Some("new@example.org".to_owned()),
        current_password: Some(right()),
        version: pair.user.version,
        ..ProfileChange::default()
    };
    must_wait("address", access.update_own_account(&caller, change, &origin).await);
    // Whoever holds a stolen session cannot keep the owner out by it.
    assert!(instance.login("maria_77", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn security_15_guesses_at_the_code_of_a_request_make_every_use_of_it_wait() {
    let (instance, service) = with_messages().await;
    let (access, origin, phone) = (&instance.access, Origin::default(), "+34600123456");
    let request = access.request_phone_code(phone, &origin).await.unwrap();
    let right = service.code_for(phone, 1).await;
    let wrong = if right == "000000" { "000001" } else { "000000" };
    for _ in 0..5 {
        let refused = access.login_by_phone(phone, &request, wrong, &origin).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    }
    must_wait("a log-in", access.login_by_phone("+34 600 123 456", &request, &right, &origin).await);
    let caller = who(access, &instance.register("maria_77").await).await.unwrap();
    must_wait("a link", access.link_phone(&caller, phone, &request, &right, Some(secret(PASSWORD)), &origin).await);
    // Another request has another code and tries of its own; how many there are in an hour is what bounds them.
    let next = access.request_phone_code(phone, &origin).await.unwrap();
    let second = service.code_for(phone, 2).await;
    access.login_by_phone(phone, &next, &second, &origin).await.unwrap();
}

#[tokio::test]
async fn security_16_what_was_counted_stays_counted_though_every_log_in_failed() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let enrolled = enroll(&instance, "maria_77").await;
    let ticket_of_maria = ticket(&instance, "maria_77").await;
    let (mut looked_at, mut told_to_wait) = (0, 0);
    for _ in 0..11 {
        match second_step(&instance, &ticket_of_maria, "000000").await {
            Err(AccessError::CodeRefused) => looked_at += 1,
            Err(AccessError::TooManyAttempts { .. }) => told_to_wait += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((looked_at, told_to_wait), (5, 6));
    let right = code(&enrolled.secret, 1);
    must_wait("the right code", second_step(&instance, &ticket_of_maria, &right).await);
    must_wait("a recovery code", second_step(&instance, &ticket_of_maria, enrolled.recovery[0].expose_secret()).await);
    let fresh = ticket(&instance, "maria_77").await;
    must_wait("another ticket", second_step(&instance, &fresh, &right).await);
    must_wait("another process", other.login_with_factor(&fresh, &right, &Origin::default()).await);
    // The refusals that were looked at are on record, and the waits once a minute in each process.
    let denied = AuditFilter {
        action: Some("login_mfa".to_owned()),
        outcome: Some("denied".to_owned()),
        ..AuditFilter::default()
    };
    let rows = instance.access.audit_log(&denied, 20).await.unwrap();
    assert!(rows.iter().all(|row| row.target_id == Some(enrolled.caller.id)));
    let (waits, looked_at): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.details.is_some());
    assert_eq!(looked_at.len(), 5);
    assert!((2..=4).contains(&waits.len()), "{waits:?}");
}

#[tokio::test]
async fn security_33_wrong_passwords_do_not_block_the_second_step() {
    let instance = Instance::start().await;
    let enrolled = enroll(&instance, "maria_77").await;
    let begun = ticket(&instance, "maria_77").await;
    for _ in 0..5 {
        assert!(instance.login("maria_77", "wrong").await.is_err());
    }
    hold(&instance).await;
    must_wait("the first step", instance.login("maria_77", PASSWORD).await);
    second_step(&instance, &begun, &code(&enrolled.secret, 1)).await.unwrap();
}
