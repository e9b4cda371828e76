//! Passwords that are forgotten or changed, addresses that are confirmed.

use crate::factors::code;
use crate::passkeys::add_passkey;
use crate::support::{Instance, PASSWORD, account, secret, settings, tamper, tokens, who, who_by_key};
use karat_access::{
    Access, AccessError, AccessSettings, Actor, AuditFilter, Caller, LoginOutcome, NewAccount, NewApiKey, Origin,
    ProfileChange, Registration, Scopes, SettingsChange, TokenPair,
};
use karat_oracle::passkeys::Page;
use karat_schemas::json::parse;
use secrecy::{ExposeSecret, SecretString};

const NEW: &str = "other-Green-8-cars";

pub async fn with_address(instance: &Instance, name: &str) -> TokenPair {
    let account = NewAccount { email: Some(format!("{name}@example.org")), ..account(name) };
    tokens(instance.access.register(account, &Origin::default()).await.unwrap())
}

async fn reset_token(instance: &Instance, name: &str) -> String {
    instance.access.request_password_reset(&format!("{name}@example.org"), &Origin::default()).await.unwrap();
    instance.mailed_token("Reset your password", &format!("{name}@example.org")).await
}

#[tokio::test]
async fn security_38_a_reset_link_works_once_and_ends_every_session() {
    let instance = Instance::start().await;
    let pair = with_address(&instance, "maria_77").await;
    let token = reset_token(&instance, "maria_77").await;
    let confirm = |token: &str, password: &str| {
        let (token, password) = (secret(token), secret(password));
        let access = instance.access.clone();
        async move { access.confirm_password_reset(&token, password, &Origin::default()).await }
    };
    assert!(matches!(confirm("0000", NEW).await, Err(AccessError::CodeRefused)));
    assert!(matches!(confirm(&token, "short").await, Err(AccessError::Invalid(_))), "and the link stays usable");
    confirm(&token, NEW).await.unwrap();
    assert!(matches!(confirm(&token, NEW).await, Err(AccessError::CodeRefused)));
    assert!(who(&instance.access, &pair).await.is_err() && instance.refresh(&pair).await.is_err());
    assert!(instance.login("maria_77", PASSWORD).await.is_err());
    assert!(instance.login("maria_77", NEW).await.is_ok());
}

#[tokio::test]
async fn security_38_a_new_link_a_new_address_and_a_new_password_void_older_links() {
    let instance = Instance::start().await;
    let pair = with_address(&instance, "maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let confirm = |token: String| {
        let access = instance.access.clone();
        async move { access.confirm_password_reset(&secret(&token), secret(NEW), &Origin::default()).await }
    };
    let first = reset_token(&instance, "maria_77").await;
    let second = reset_token(&instance, "maria_77").await;
    assert_ne!(first, second);
    assert!(matches!(confirm(first).await, Err(AccessError::CodeRefused)));
    let change = ProfileChange {
        email: Some("new@example.org".to_owned()),
        current_password: Some(secret(PASSWORD)),
        version: pair.user.version,
        ..ProfileChange::default()
    };
    instance.access.update_own_account(&caller, change, &Origin::default()).await.unwrap();
    assert!(matches!(confirm(second).await, Err(AccessError::CodeRefused)));
}

/// Every way in beside the password: a second factor, a passkey, an API key, a number and a log-in at another provider.
async fn add_ways_in(instance: &Instance, caller: &Caller) -> SecretString {
    let (access, origin) = (&instance.access, Origin::default());
    let enrolment = access.enroll_totp(caller, Some(secret(PASSWORD)), &origin).await.unwrap();
    access.confirm_totp(caller, &code(enrolment.secret.expose_secret(), 0), &origin).await.unwrap();
    add_passkey(access, caller, &Page::of("karat.example.org")).await;
    let scopes = Scopes::parse(["read"]).unwrap();
    let new =
        NewApiKey { owner: caller.id, name: "loader".to_owned(), scopes, expires_in: None, events_per_second: None };
    let issued = access.create_api_key(new, Actor::User(caller.id), &origin).await.unwrap();
    tamper(&instance.folder, "UPDATE users SET phone = '+34600123456'").await.unwrap();
    let identity = "INSERT INTO identities (id, user_id, provider, issuer, subject, created_at, last_used_at) \
                    SELECT '01900000-0000-7000-8000-000000000001', id, 'test', 'https://id.example.org', 'mallory', 1, 1 \
                    FROM users";
    tamper(&instance.folder, identity).await.unwrap();
    issued.secret
}

#[tokio::test]
async fn security_48_who_registered_an_address_first_keeps_no_way_in_after_its_owner_reset_it() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let squatter = with_address(&instance, "maria_77").await;
    let caller = who(&instance.access, &squatter).await.unwrap();
    let key = add_ways_in(&instance, &caller).await;
    let theme = SettingsChange::merging(&parse(r#"{"theme":"dark"}"#).unwrap()).unwrap();
    let settings = instance.access.change_user_settings(&caller, &theme, None).await.unwrap();
    assert!(who_by_key(&instance.access, &key).await.is_ok() && who_by_key(&other, &key).await.is_ok());

    let token = reset_token(&instance, "maria_77").await;
    instance.access.confirm_password_reset(&secret(&token), secret(NEW), &Origin::default()).await.unwrap();

    assert!(who_by_key(&instance.access, &key).await.is_err());
    other.catch_up().await.unwrap();
    assert!(who_by_key(&other, &key).await.is_err());
    assert!(who(&instance.access, &squatter).await.is_err() && instance.refresh(&squatter).await.is_err());
    assert!(instance.access.list_identities(caller.id).await.unwrap().is_empty());
    assert!(instance.access.list_passkeys(caller.id).await.unwrap().is_empty());
    // No second factor is asked for.
    let owner = instance.login("maria_77", NEW).await.unwrap();
    assert_eq!((owner.user.phone, owner.user.is_verified), (None, true));
    instance.mail_with("whatever else could log in to the account was removed").await;
    // Nobody comes in by them.
    assert_eq!(instance.access.user_settings(caller.id).await.unwrap(), settings);
}

#[tokio::test]
async fn security_38_a_reset_of_a_confirmed_address_skips_no_second_factor_and_keeps_the_other_ways_in() {
    let instance = Instance::start().await;
    let pair = with_address(&instance, "maria_77").await;
    let confirmation = instance.mailed_token("Confirm your e-mail address", "maria_77@example.org").await;
    instance.access.verify_email(&secret(&confirmation), &Origin::default()).await.unwrap();
    let caller = who(&instance.access, &pair).await.unwrap();
    let key = add_ways_in(&instance, &caller).await;

    let token = reset_token(&instance, "maria_77").await;
    instance.access.confirm_password_reset(&secret(&token), secret(NEW), &Origin::default()).await.unwrap();

    let step = instance.access.login("maria_77", secret(NEW), &Origin::default()).await.unwrap();
    assert!(matches!(step, LoginOutcome::MfaRequired { .. }));
    assert!(who_by_key(&instance.access, &key).await.is_ok());
    assert_eq!(instance.access.list_identities(caller.id).await.unwrap().len(), 1);
    assert_eq!(instance.access.list_passkeys(caller.id).await.unwrap().len(), 1);
    let user = instance.access.find_user(caller.id).await.unwrap().unwrap();
    assert_eq!(user.phone.as_deref(), Some("+34600123456"));
}

#[tokio::test]
async fn security_38_parallel_uses_of_a_link_set_one_password() {
    let instance = Instance::start().await;
    with_address(&instance, "maria_77").await;
    let token = reset_token(&instance, "maria_77").await;
    let tasks: Vec<_> = (0..10)
        .map(|n| {
            let (access, token) = (instance.access.clone(), secret(&token));
            let password = secret(&format!("other-Green-8-cars-{n}"));
            tokio::spawn(async move { access.confirm_password_reset(&token, password, &Origin::default()).await })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += usize::from(task.await.unwrap().is_ok());
    }
    assert_eq!(done, 1);
}

#[tokio::test]
async fn security_12_and_39_nothing_is_sent_to_addresses_that_no_account_has() {
    let instance = Instance::start().await;
    with_address(&instance, "maria_77").await;
    for bad in ["mıke@example.org", "maria_77@example.org,evil@example.org", "maria_77@example.org\r\nBcc: e@x.org"] {
        let refused = instance.access.request_password_reset(bad, &Origin::default()).await;
        assert!(matches!(refused, Err(AccessError::Invalid(_))), "{bad}");
    }
    instance.access.request_password_reset("nobody@example.org", &Origin::default()).await.unwrap();
    // A known address afterwards: when its mail is there, the one before would be too.
    reset_token(&instance, "maria_77").await;
    assert!(instance.mails().iter().all(|mail| mail.contains("maria_77@example.org") && !mail.contains("nobody@")));
}

#[tokio::test]
async fn security_40_links_begin_with_the_configured_address() {
    let instance = Instance::start().await;
    with_address(&instance, "maria_77").await;
    reset_token(&instance, "maria_77").await;
    let mail = instance.mails().into_iter().find(|mail| mail.contains("Reset your password")).unwrap();
    assert!(mail.contains("https://karat.example.org/reset-password#token="), "{mail}");
}

#[tokio::test]
async fn security_08_a_change_needs_the_password_and_ends_the_other_sessions() {
    let instance = Instance::start().await;
    let pair = with_address(&instance, "maria_77").await;
    let other = instance.login("maria_77", PASSWORD).await.unwrap();
    let caller = who(&instance.access, &pair).await.unwrap();
    let change = |current: &str, new: &str| {
        let (access, caller, current, new) = (instance.access.clone(), caller.clone(), secret(current), secret(new));
        async move { access.change_password(&caller, Some(current), new, &Origin::default()).await }
    };
    assert!(matches!(change("wrong", NEW).await, Err(AccessError::InvalidCredentials)));
    assert!(matches!(change(PASSWORD, "password").await, Err(AccessError::Invalid(_))));
    change(PASSWORD, NEW).await.unwrap();
    assert!(who(&instance.access, &pair).await.is_ok() && instance.refresh(&pair).await.is_ok());
    assert!(who(&instance.access, &other).await.is_err() && instance.refresh(&other).await.is_err());
    assert!(instance.login("maria_77", NEW).await.is_ok());
    instance.mail_with("Your password was changed").await;
}

#[tokio::test]
async fn an_address_is_confirmed_by_its_link_once() {
    let instance = Instance::start().await;
    let pair = with_address(&instance, "maria_77").await;
    let token = instance.mailed_token("Confirm your e-mail address", "maria_77@example.org").await;
    instance.access.verify_email(&secret(&token), &Origin::default()).await.unwrap();
    assert!(instance.access.find_user(pair.user.id).await.unwrap().unwrap().is_verified);
    let again = instance.access.verify_email(&secret(&token), &Origin::default()).await;
    assert!(matches!(again, Err(AccessError::CodeRefused)));
}

/// Ages every code and link as if it had been sent so many seconds earlier.
async fn let_pass(instance: &Instance, seconds: u64) {
    let sql = format!("UPDATE one_time_codes SET expires_at = expires_at - {seconds}000000");
    tamper(&instance.folder, Box::leak(sql.into_boxed_str())).await.unwrap();
}

#[tokio::test]
async fn links_work_for_fifteen_minutes_and_another_one_is_sent_when_they_are_over() {
    let instance = Instance::start().await;
    let pair = with_address(&instance, "maria_77").await;
    let (access, origin) = (&instance.access, Origin::default());
    let caller = who(access, &pair).await.unwrap();
    let subject = "Confirm your e-mail address";
    let first = instance.mailed_token(subject, "maria_77@example.org").await;
    assert!(instance.mail_with(subject).await.contains("for 15 minutes"));
    let reset = reset_token(&instance, "maria_77").await;
    let_pass(&instance, 15 * 60).await;
    let refused = access.verify_email(&secret(&first), &origin).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    let refused = access.confirm_password_reset(&secret(&reset), secret(NEW), &origin).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    access.request_verification(&caller, &origin).await.unwrap();
    let second = instance.mailed_token(subject, "maria_77@example.org").await;
    // Whatever this test takes is less than the five minutes that are left.
    let_pass(&instance, 10 * 60).await;
    access.verify_email(&secret(&second), &origin).await.unwrap();
    assert!(access.find_user(caller.id).await.unwrap().unwrap().is_verified);
}

#[tokio::test]
async fn who_must_confirm_an_address_and_is_too_late_gets_in_by_a_reset() {
    let mut instance = Instance::start().await;
    let strict = AccessSettings { email_verification: true, ..settings(&instance.folder) };
    instance.access = Access::open(strict).await.unwrap();
    let account = NewAccount { email: Some("maria_77@example.org".to_owned()), ..account("maria_77") };
    let registered = instance.access.register(account, &Origin::default()).await.unwrap();
    assert!(matches!(registered, Registration::VerificationSent));
    let late = instance.mailed_token("Confirm your e-mail address", "maria_77@example.org").await;
    let_pass(&instance, 15 * 60).await;
    let refused = instance.access.verify_email(&secret(&late), &Origin::default()).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    assert!(matches!(instance.login("maria_77", PASSWORD).await, Err(AccessError::InvalidCredentials)));
    let token = reset_token(&instance, "maria_77").await;
    instance.access.confirm_password_reset(&secret(&token), secret(NEW), &Origin::default()).await.unwrap();
    assert!(instance.login("maria_77", NEW).await.unwrap().user.is_verified);
}

#[tokio::test]
async fn security_12_with_confirmation_on_known_and_unknown_addresses_get_one_answer() {
    let mut instance = Instance::start().await;
    let strict = AccessSettings { email_verification: true, ..settings(&instance.folder) };
    instance.access = Access::open(strict).await.unwrap();
    let register = |name: &str| {
        let account = NewAccount { email: Some("maria@example.org".to_owned()), ..account(name) };
        let access = instance.access.clone();
        async move { access.register(account, &Origin::default()).await.unwrap() }
    };
    assert!(matches!(register("maria_77").await, Registration::VerificationSent));
    assert!(matches!(register("maria_78").await, Registration::VerificationSent));
    assert_eq!(instance.access.list_users(None, 10).await.unwrap().len(), 1);
    instance.mail_with("has an account already").await;
    // One row each way: what is written takes as long.
    let registrations = AuditFilter { action: Some("register".to_owned()), ..AuditFilter::default() };
    let rows = instance.access.audit_log(&registrations, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.outcome.as_str()).collect::<Vec<_>>(), ["denied", "success"]);
    // Security 10: not confirmed looks like a wrong password.
    assert!(matches!(instance.login("maria_77", PASSWORD).await, Err(AccessError::InvalidCredentials)));
    let token = instance.mailed_token("Confirm your e-mail address", "maria@example.org").await;
    instance.access.verify_email(&secret(&token), &Origin::default()).await.unwrap();
    assert!(instance.login("maria_77", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn an_imported_bcrypt_password_logs_in_once_and_is_argon2id_then() {
    let instance = Instance::start().await;
    instance.register("maria_77").await;
    // `nine-Blue-7-boats` at cost 4.
    let hash = bcrypt::hash_with_salt(PASSWORD, 4, *b"sixteen bytes ok").unwrap().to_string();
    let sql = format!("UPDATE users SET password_hash = '{hash}'");
    crate::support::tamper(&instance.folder, Box::leak(sql.into_boxed_str())).await.unwrap();
    assert!(instance.login("maria_77", "wrong").await.is_err());
    assert!(instance.login("maria_77", PASSWORD).await.is_ok());
    let moved = "UPDATE users SET nickname = password_hash";
    crate::support::tamper(&instance.folder, moved).await.unwrap();
    let user = instance.access.find_user_by_name("maria_77").await.unwrap().unwrap();
    assert!(user.nickname.unwrap().starts_with("$argon2id$"));
    assert!(instance.login("maria_77", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn security_41_a_new_address_needs_the_password_and_both_addresses_hear_of_it() {
    let instance = Instance::start().await;
    let pair = with_address(&instance, "maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let change = |password: Option<&str>| ProfileChange {
        email: Some("new@example.org".to_owned()),
        current_password: password.map(secret),
        version: pair.user.version,
        ..ProfileChange::default()
    };
    let access = &instance.access;
    let without = access.update_own_account(&caller, change(None), &Origin::default()).await;
    assert!(matches!(without, Err(AccessError::Invalid(_))));
    let wrong = access.update_own_account(&caller, change(Some("wrong")), &Origin::default()).await;
    assert!(matches!(wrong, Err(AccessError::InvalidCredentials)));
    let user = access.update_own_account(&caller, change(Some(PASSWORD)), &Origin::default()).await.unwrap();
    assert_eq!((user.email.as_deref(), user.is_verified), (Some("new@example.org"), false));
    assert!(instance.mail_with("was changed to another one").await.contains("To: maria_77@example.org"));
    instance.mailed_token("Confirm your e-mail address", "new@example.org").await;
}

#[tokio::test]
async fn security_01_a_password_of_more_than_a_kilobyte_is_refused_before_it_is_hashed() {
    let instance = Instance::start().await;
    let long = secret(&"Ab1!x".repeat(300));
    let refused = instance.access.login("maria_77", long.clone(), &Origin::default()).await;
    assert!(matches!(refused, Err(AccessError::Invalid(_))));
    let strength = instance.access.password_strength(&long, &[]);
    assert_eq!((strength.score, strength.broken.len()), (0, 1));
}

#[tokio::test]
async fn security_27_every_log_in_is_a_session_of_its_own() {
    let instance = Instance::start().await;
    let first = instance.register("maria_77").await;
    let second = instance.login("maria_77", PASSWORD).await.unwrap();
    let session = async |pair: &TokenPair| who(&instance.access, pair).await.unwrap().session();
    assert_ne!(session(&first).await, session(&second).await);
    let refreshed = instance.refresh(&second).await.unwrap();
    assert_eq!(session(&refreshed).await, session(&second).await);
}
