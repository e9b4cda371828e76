//! Passkeys: as a second factor and as a way in, and every lie about them.

mod copies;

use std::sync::Arc;

use crate::factors::{enroll, second_step, ticket};
use crate::support::{Instance, PASSWORD, secret, settings, tamper, who};
use karat_access::{
    Access, AccessError, AccessSettings, AddedPasskey, Assertion, AuditFilter, AuditRow, Caller, LoginOutcome,
    NewPasskey, Origin, TokenPair,
};
use karat_oracle::passkeys::{Authenticator, Made, Page, Signed};
use secrecy::{ExposeSecret, SecretString};

/// What somebody on the way changes of it.
type Change = fn(&mut Assertion);

const HOST: &str = "karat.example.org";

fn page() -> Page {
    Page::of(HOST)
}

/// A page of the same origin whose authenticator knows no PIN.
fn unverified() -> Page {
    Page { is_verified: false, ..page() }
}

fn assertion(signed: Signed) -> Assertion {
    Assertion {
        credential_id: signed.credential_id,
        client_data: signed.client_data,
        authenticator_data: signed.authenticator_data,
        signature: signed.signature,
        user_handle: Some(signed.user_handle),
    }
}

fn new_passkey(made: Made) -> NewPasskey {
    NewPasskey { client_data: made.client_data, attestation: made.attestation, name: Some("laptop".to_owned()) }
}

/// Somebody who has a passkey.
struct Holder {
    pair: TokenPair,
    caller: Arc<Caller>,
    passkey: Authenticator,
    added: AddedPasskey,
}

/// Adds a passkey to an account, by its password.
pub async fn add_passkey(access: &Access, caller: &Caller, page: &Page) -> (Authenticator, AddedPasskey) {
    let options = access.begin_passkey(caller, Some(secret(PASSWORD)), &Origin::default()).await.unwrap();
    assert_eq!(options.relying_party, HOST);
    let (passkey, made) = Authenticator::make(page, &options.challenge, &options.user_handle);
    let added = access.confirm_passkey(caller, &new_passkey(made), &Origin::default()).await.unwrap();
    (passkey, added)
}

async fn holder(instance: &Instance, name: &str, page: &Page) -> Holder {
    let pair = instance.register(name).await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let (passkey, added) = add_passkey(&instance.access, &caller, page).await;
    Holder { pair, caller, passkey, added }
}

/// Logs in by the passkey alone.
pub async fn log_in(access: &Access, passkey: &mut Authenticator, page: &Page) -> Result<TokenPair, AccessError> {
    let (attempt, options) = access.begin_passkey_login().await.unwrap();
    assert!(options.allow.is_empty() && options.needs_verification, "{options:?}");
    let signed = passkey.sign(page, &options.challenge);
    access.login_by_passkey(&attempt, &assertion(signed), &Origin::default()).await
}

/// Answers the second step by the passkey.
async fn second(
    access: &Access,
    ticket: &SecretString,
    passkey: &mut Authenticator,
    page: &Page,
) -> Result<TokenPair, AccessError> {
    let options = access.begin_passkey_factor(ticket, &Origin::default()).await?;
    assert!(!options.allow.is_empty() && !options.needs_verification, "{options:?}");
    let signed = passkey.sign(page, &options.challenge);
    access.login_with_passkey_factor(ticket, &assertion(signed), &Origin::default()).await
}

fn is_refused<T>(result: &Result<T, AccessError>) -> bool {
    matches!(result, Err(AccessError::CodeRefused))
}

/// The newest row about an action.
async fn newest(access: &Access, action: &str) -> AuditRow {
    let filter = AuditFilter { action: Some(action.to_owned()), ..AuditFilter::default() };
    access.audit_log(&filter, 1).await.unwrap().into_iter().next().unwrap()
}

/// Why the newest refusal of an action was one.
async fn reason(access: &Access, action: &str) -> String {
    let row = newest(access, action).await;
    row.details.unwrap()["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_passkey_logs_in_without_a_password_and_every_other_log_in_asks_for_it() {
    let instance = Instance::start().await;
    let mut maria = holder(&instance, "maria_77", &page()).await;
    let access = &instance.access;
    assert!(maria.added.is_way_in);
    assert_eq!(maria.added.recovery_codes.len(), 10);
    let pair = log_in(access, &mut maria.passkey, &page()).await.unwrap();
    assert_eq!(pair.user.id, maria.caller.id);
    assert!(who(access, &pair).await.is_ok());
    assert_eq!(newest(access, "passkey_login").await.outcome, "success");
    let listed = access.list_passkeys(maria.caller.id).await.unwrap();
    assert_eq!((listed.len(), listed[0].id, listed[0].name.as_str()), (1, maria.added.id, "laptop"));
    assert!(listed[0].last_used_at_us.is_some());

    let outcome = access.login("maria_77", secret(PASSWORD), &Origin::default()).await.unwrap();
    let LoginOutcome::MfaRequired { ticket, factors, .. } = outcome else {
        panic!("the second factor must be asked for");
    };
    assert!(factors.has_passkey && !factors.has_totp);
    second(access, &ticket, &mut maria.passkey, &page()).await.unwrap();
    assert!(is_refused(&second(access, &ticket, &mut maria.passkey, &page()).await), "a ticket works once");
    let ticket = crate::factors::ticket(&instance, "maria_77").await;
    second_step(&instance, &ticket, maria.added.recovery_codes[0].expose_secret()).await.unwrap();
    // Another passkey is no first factor.
    let (_, second) = add_passkey(access, &maria.caller, &page()).await;
    assert!(second.recovery_codes.is_empty());
}

#[tokio::test]
async fn security_35_a_passkey_that_checked_nobody_is_one_factor() {
    let instance = Instance::start().await;
    let mut maria = holder(&instance, "maria_77", &unverified()).await;
    let access = &instance.access;
    assert!(!maria.added.is_way_in);
    assert!(is_refused(&log_in(access, &mut maria.passkey, &unverified()).await));
    assert_eq!(reason(access, "passkey_login").await, "verification");
    // Whoever finds the key gives it a PIN, which it has checked from then on: it still is one factor.
    assert!(is_refused(&log_in(access, &mut maria.passkey, &page()).await));
    assert_eq!(reason(access, "passkey_login").await, "verification");
    // With the password it is the second.
    second(access, &ticket(&instance, "maria_77").await, &mut maria.passkey, &unverified()).await.unwrap();
    // What was signed as the second factor logs in to nothing alone, and the other way round.
    let first = ticket(&instance, "maria_77").await;
    let options = access.begin_passkey_factor(&first, &Origin::default()).await.unwrap();
    let (attempt, alone) = access.begin_passkey_login().await.unwrap();
    let origin = Origin::default();
    let signed = maria.passkey.sign(&page(), &options.challenge);
    assert!(is_refused(&access.login_by_passkey(&attempt, &assertion(signed), &origin).await));
    let signed = maria.passkey.sign(&page(), &alone.challenge);
    assert!(is_refused(&access.login_with_passkey_factor(&first, &assertion(signed), &origin).await));
    assert_eq!(reason(access, "login_mfa").await, "challenge");
}

#[tokio::test]
async fn security_35_a_security_key_stays_one_factor_whatever_it_checks() {
    let instance = Instance::start().await;
    let caller = who(&instance.access, &instance.register("maria_77").await).await.unwrap();
    let (access, origin) = (&instance.access, Origin::default());
    let options = access.begin_security_key(&caller, Some(secret(PASSWORD)), &origin).await.unwrap();
    assert!(!options.is_way_in);
    let (mut key, made) = Authenticator::make(&page(), &options.challenge, &options.user_handle);
    let added = access.confirm_passkey(&caller, &new_passkey(made.clone()), &origin).await.unwrap();
    assert!(!added.is_way_in, "it checked who that was, but need not have kept it");
    assert_eq!(added.recovery_codes.len(), 10);
    assert!(is_refused(&access.confirm_passkey(&caller, &new_passkey(made), &origin).await), "used up");
    assert!(is_refused(&log_in(access, &mut key, &page()).await));
    assert_eq!(reason(access, "passkey_login").await, "verification");
    second(access, &ticket(&instance, "maria_77").await, &mut key, &unverified()).await.unwrap();
}

#[tokio::test]
async fn every_lie_at_a_log_in_is_refused_and_its_reason_is_in_the_audit_log() {
    let instance = Instance::start().await;
    let mut maria = holder(&instance, "maria_77", &page()).await;
    let access = &instance.access;
    for (lie, why) in [
        (Page { origin: "https://evil.example.org".to_owned(), ..page() }, "origin"),
        (Page { origin: "https://karat.example.org:8443".to_owned(), ..page() }, "origin"),
        (Page { is_cross_origin: true, ..page() }, "origin"),
        (Page { relying_party: "example.org".to_owned(), ..page() }, "relying_party"),
        (Page { is_present: false, ..page() }, "presence"),
        (Page { is_verified: false, ..page() }, "verification"),
        (Page { kind: Some("webauthn.create"), ..page() }, "malformed"),
    ] {
        // The wait after five has a test of its own.
        tamper(&instance.folder, "DELETE FROM attempts").await.unwrap();
        assert!(is_refused(&log_in(access, &mut maria.passkey, &lie).await), "{lie:?}");
        assert_eq!(reason(access, "passkey_login").await, why, "{lie:?}");
        assert_eq!(newest(access, "passkey_login").await.target_id, Some(maria.caller.id));
    }
    let flipped = |text: &str| {
        let first = if text.starts_with('A') { "B" } else { "A" };
        format!("{first}{}", &text[1..])
    };
    let changes: [(&str, Change, &str); 6] = [
        ("no user", |said| said.user_handle = None, "owner"),
        ("another user", |said| said.user_handle = Some("AAAA".to_owned()), "owner"),
        ("no client data", |said| said.client_data = String::new(), "malformed"),
        ("other letters", |said| said.signature = "*".to_owned(), "malformed"),
        ("no signature", |said| said.signature = String::new(), "signature"),
        ("data that was cut", |said| said.authenticator_data.truncate(40), "malformed"),
    ];
    for (what, change, why) in changes {
        tamper(&instance.folder, "DELETE FROM attempts").await.unwrap();
        let (attempt, options) = access.begin_passkey_login().await.unwrap();
        let mut said = assertion(maria.passkey.sign(&page(), &options.challenge));
        change(&mut said);
        assert!(is_refused(&access.login_by_passkey(&attempt, &said, &Origin::default()).await), "{what}");
        assert_eq!(reason(access, "passkey_login").await, why, "{what}");
    }
    // One bit of the counter's place, and of the signature.
    for is_signature in [true, false] {
        tamper(&instance.folder, "DELETE FROM attempts").await.unwrap();
        let (attempt, options) = access.begin_passkey_login().await.unwrap();
        let mut said = assertion(maria.passkey.sign(&page(), &options.challenge));
        if is_signature {
            said.signature = flipped(&said.signature);
        } else {
            let end = said.authenticator_data.len() - 4;
            let tail = flipped(&said.authenticator_data[end..]);
            said.authenticator_data.replace_range(end.., &tail);
        }
        assert!(is_refused(&access.login_by_passkey(&attempt, &said, &Origin::default()).await), "{is_signature}");
        assert_eq!(reason(access, "passkey_login").await, "signature");
    }
    assert_eq!(access.list_sessions(maria.caller.id).await.unwrap().len(), 1, "only that of the registration");
    tamper(&instance.folder, "DELETE FROM attempts").await.unwrap();
    log_in(access, &mut maria.passkey, &page()).await.unwrap();
}

#[tokio::test]
async fn a_challenge_works_once_for_five_minutes_and_only_for_who_began() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let (mut maria, mut pedro) =
        (holder(&instance, "maria_77", &page()).await, holder(&instance, "pedro_12", &page()).await);
    let (access, origin) = (&instance.access, Origin::default());

    // Once, also at the same time in two processes.
    let (attempt, options) = access.begin_passkey_login().await.unwrap();
    let mut tasks = Vec::new();
    for process in [access, &other, access, &other] {
        let said = assertion(maria.passkey.sign(&page(), &options.challenge));
        let (process, attempt) = (process.clone(), attempt.clone());
        tasks.push(tokio::spawn(async move { process.login_by_passkey(&attempt, &said, &Origin::default()).await }));
    }
    let mut done = 0;
    for task in tasks {
        done += usize::from(task.await.unwrap().is_ok());
    }
    assert_eq!(done, 1);

    tamper(&instance.folder, "DELETE FROM attempts").await.unwrap();
    let (attempt, options) = access.begin_passkey_login().await.unwrap();
    let (elsewhere, _) = access.begin_passkey_login().await.unwrap();
    let said = assertion(maria.passkey.sign(&page(), &options.challenge));
    assert!(is_refused(&access.login_by_passkey(&elsewhere, &said, &origin).await), "of another attempt");
    assert!(is_refused(&access.login_by_passkey(&attempt, &said, &origin).await), "used up by a refusal");

    let (attempt, options) = access.begin_passkey_login().await.unwrap();
    tamper(&instance.folder, "UPDATE one_time_codes SET expires_at = expires_at - 300000000").await.unwrap();
    let said = assertion(maria.passkey.sign(&page(), &options.challenge));
    assert!(is_refused(&access.login_by_passkey(&attempt, &said, &origin).await), "too old");
    assert_eq!(reason(access, "passkey_login").await, "challenge");

    // The second step of one is not done by the passkey of another.
    let of_maria = ticket(&instance, "maria_77").await;
    assert!(is_refused(&second(access, &of_maria, &mut pedro.passkey, &page()).await));
    assert_eq!(reason(access, "login_mfa").await, "owner");
    // A challenge that nobody issued.
    let (attempt, _) = access.begin_passkey_login().await.unwrap();
    let said = assertion(pedro.passkey.sign(&page(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    assert!(is_refused(&access.login_by_passkey(&attempt, &said, &origin).await));
}

#[tokio::test]
async fn every_lie_at_a_registration_is_refused_and_a_challenge_is_for_its_session() {
    let instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let (access, origin) = (&instance.access, Origin::default());
    let begin = async |caller: &Caller| access.begin_passkey(caller, Some(secret(PASSWORD)), &origin).await.unwrap();
    for (lie, why) in [
        (Page { origin: "https://evil.example.org".to_owned(), ..page() }, "origin"),
        (Page { relying_party: "evil.example.org".to_owned(), ..page() }, "relying_party"),
        (Page { is_present: false, ..page() }, "presence"),
        (Page { kind: Some("webauthn.get"), ..page() }, "malformed"),
    ] {
        let options = begin(&caller).await;
        let (_, made) = Authenticator::make(&lie, &options.challenge, &options.user_handle);
        assert!(is_refused(&access.confirm_passkey(&caller, &new_passkey(made), &origin).await), "{lie:?}");
        assert_eq!(reason(access, "passkey_add").await, why, "{lie:?}");
    }
    tamper(&instance.folder, "DELETE FROM attempts").await.unwrap();

    // Of another session of the same account, and once.
    let elsewhere = instance.login("maria_77", PASSWORD).await.unwrap();
    let elsewhere = who(access, &elsewhere).await.unwrap();
    let options = begin(&caller).await;
    let (passkey, made) = Authenticator::make(&page(), &options.challenge, &options.user_handle);
    assert!(is_refused(&access.confirm_passkey(&elsewhere, &new_passkey(made.clone()), &origin).await));
    assert!(is_refused(&access.confirm_passkey(&caller, &new_passkey(made), &origin).await), "used up");
    assert_eq!(reason(access, "passkey_add").await, "challenge");
    assert!(access.list_passkeys(caller.id).await.unwrap().is_empty());
    // Nor is a challenge of a log-in one of a registration.
    let (_, login) = access.begin_passkey_login().await.unwrap();
    let made = passkey.answer(&page(), &login.challenge);
    assert!(is_refused(&access.confirm_passkey(&caller, &new_passkey(made), &origin).await));
    tamper(&instance.folder, "DELETE FROM attempts").await.unwrap();

    // The same credential is not added twice, by whomever.
    let made = passkey.answer(&page(), &begin(&caller).await.challenge);
    access.confirm_passkey(&caller, &new_passkey(made), &origin).await.unwrap();
    let options = begin(&caller).await;
    assert_eq!(options.exclude.len(), 1);
    let pedro = who(access, &instance.register("pedro_12").await).await.unwrap();
    let made = passkey.answer(&page(), &begin(&pedro).await.challenge);
    let taken = access.confirm_passkey(&pedro, &new_passkey(made), &origin).await;
    assert!(matches!(taken, Err(AccessError::Taken { field: "passkey" })), "{taken:?}");
    // A name is text, and not too long.
    for name in ["", "a\u{7}", &"x".repeat(101)] {
        let bad = NewPasskey { client_data: String::new(), attestation: String::new(), name: Some(name.to_owned()) };
        let refused = access.confirm_passkey(&caller, &bad, &origin).await;
        assert!(matches!(refused, Err(AccessError::Invalid(_))), "{name:?}: {refused:?}");
    }
}

#[tokio::test]
async fn security_41_and_51_removing_a_passkey_needs_the_password_and_ends_the_other_sessions() {
    let instance = Instance::start().await;
    let mut maria = holder(&instance, "maria_77", &page()).await;
    let (access, origin) = (&instance.access, Origin::default());
    let refused = access.begin_passkey(&maria.caller, Some(secret("wrong")), &origin).await;
    assert!(matches!(refused, Err(AccessError::InvalidCredentials)));
    for password in [None, Some(secret("wrong"))] {
        let refused = access.remove_passkey(&maria.caller, maria.added.id, password, &origin).await;
        assert!(matches!(refused, Err(AccessError::Invalid(_) | AccessError::InvalidCredentials)), "{refused:?}");
    }
    let elsewhere = log_in(access, &mut maria.passkey, &page()).await.unwrap();
    let under_way = ticket(&instance, "maria_77").await;
    access.remove_passkey(&maria.caller, maria.added.id, Some(secret(PASSWORD)), &origin).await.unwrap();
    assert!(who(access, &elsewhere).await.is_err() && instance.refresh(&elsewhere).await.is_err());
    assert!(who(access, &maria.pair).await.is_ok());
    assert!(is_refused(&log_in(access, &mut maria.passkey, &page()).await));
    // The codes and the second step that stood on it are gone too, and none is asked for.
    let code = maria.added.recovery_codes[1].expose_secret();
    assert!(is_refused(&second_step(&instance, &under_way, code).await));
    assert!(instance.login("maria_77", PASSWORD).await.is_ok());
    let again = access.remove_passkey(&maria.caller, maria.added.id, Some(secret(PASSWORD)), &origin).await;
    assert!(matches!(again, Err(AccessError::NotFound { .. })));
}

#[tokio::test]
async fn security_51_a_passkey_that_is_the_last_way_in_stays() {
    let instance = Instance::start().await;
    let mut maria = holder(&instance, "maria_77", &page()).await;
    let (access, origin) = (&instance.access, Origin::default());
    let (_, key_without_pin) = add_passkey(access, &maria.caller, &unverified()).await;
    // As after a log-in through a provider that is no longer there.
    tamper(&instance.folder, "UPDATE users SET password_hash = NULL").await.unwrap();
    // A key that checks nobody logs in to nothing alone, so it is no way in beside this one.
    let refused = access.remove_passkey(&maria.caller, maria.added.id, None, &origin).await;
    assert!(matches!(refused, Err(AccessError::LastWayIn)), "{refused:?}");
    log_in(access, &mut maria.passkey, &page()).await.unwrap();
    // One that needs another factor is none.
    access.remove_passkey(&maria.caller, key_without_pin.id, None, &origin).await.unwrap();
    // Another way in, and it can go.
    tamper(&instance.folder, "UPDATE users SET phone = '+34600123456'").await.unwrap();
    let refused = access.unlink_phone(&maria.caller, None, &origin).await.map(drop);
    assert!(refused.is_ok(), "the passkey is left: {refused:?}");
    tamper(&instance.folder, "UPDATE users SET phone = '+34600123456'").await.unwrap();
    access.remove_passkey(&maria.caller, maria.added.id, None, &origin).await.unwrap();
    let (_, without_pin) = add_passkey(access, &maria.caller, &unverified()).await;
    assert!(!without_pin.is_way_in);
    let refused = access.unlink_phone(&maria.caller, None, &origin).await;
    assert!(matches!(refused, Err(AccessError::LastWayIn)), "{refused:?}");
}

#[tokio::test]
async fn security_54_a_passkey_of_another_is_not_found() {
    let instance = Instance::start().await;
    let maria = holder(&instance, "maria_77", &page()).await;
    let pedro = who(&instance.access, &instance.register("pedro_12").await).await.unwrap();
    let (access, origin) = (&instance.access, Origin::default());
    assert!(access.list_passkeys(pedro.id).await.unwrap().is_empty());
    let refused = access.remove_passkey(&pedro, maria.added.id, Some(secret(PASSWORD)), &origin).await;
    assert!(matches!(refused, Err(AccessError::NotFound { .. })), "{refused:?}");
    assert_eq!(access.list_passkeys(maria.caller.id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_recovery_codes_stay_while_there_is_a_second_factor() {
    let instance = Instance::start().await;
    let enrolled = enroll(&instance, "maria_77").await;
    let (access, origin) = (&instance.access, Origin::default());
    let (mut passkey, added) = add_passkey(access, &enrolled.caller, &page()).await;
    assert!(added.recovery_codes.is_empty(), "the account has its codes");
    access.remove_totp(&enrolled.caller, Some(secret(PASSWORD)), &origin).await.unwrap();
    let code = enrolled.recovery[0].expose_secret();
    second_step(&instance, &ticket(&instance, "maria_77").await, code).await.unwrap();
    second(access, &ticket(&instance, "maria_77").await, &mut passkey, &page()).await.unwrap();
    access.remove_passkey(&enrolled.caller, added.id, Some(secret(PASSWORD)), &origin).await.unwrap();
    assert!(instance.login("maria_77", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn what_is_sent_for_a_passkey_makes_its_owner_wait_nowhere_else() {
    let instance = Instance::start().await;
    let mut maria = holder(&instance, "maria_77", &page()).await;
    let access = &instance.access;
    let stranger = Origin::new(Some("203.0.113.5".parse().unwrap()), None, None);
    let lie = Page { origin: "https://evil.example.org".to_owned(), ..page() };
    let try_from = async |passkey: &mut Authenticator, page: &Page, origin: &Origin| {
        let (attempt, options) = access.begin_passkey_login().await.unwrap();
        let said = assertion(passkey.sign(page, &options.challenge));
        access.login_by_passkey(&attempt, &said, origin).await
    };
    for _ in 0..5 {
        assert!(is_refused(&try_from(&mut maria.passkey, &lie, &stranger).await));
    }
    let waits = try_from(&mut maria.passkey, &page(), &stranger).await;
    assert!(matches!(waits, Err(AccessError::TooManyAttempts { .. })), "{waits:?}");
    let home = Origin::new(Some("198.51.100.7".parse().unwrap()), None, None);
    try_from(&mut maria.passkey, &page(), &home).await.unwrap();
}

#[tokio::test]
async fn without_a_public_name_passkeys_say_what_is_missing_and_a_disabled_account_is_not_entered() {
    let mut instance = Instance::start().await;
    let mut maria = holder(&instance, "maria_77", &page()).await;
    tamper(&instance.folder, "UPDATE users SET is_active = 0").await.unwrap();
    assert!(is_refused(&log_in(&instance.access, &mut maria.passkey, &page()).await));
    tamper(&instance.folder, "UPDATE users SET is_active = 1").await.unwrap();
    log_in(&instance.access, &mut maria.passkey, &page()).await.unwrap();

    let nameless = AccessSettings { public_url: "http://127.0.0.1:8080".to_owned(), ..settings(&instance.folder) };
    instance.access = Access::open(nameless).await.unwrap();
    let refused = instance.access.begin_passkey_login().await;
    assert!(matches!(&refused, Err(AccessError::Unconfigured { what }) if what.contains("public_url")), "{refused:?}");
    let caller = who(&instance.access, &maria.pair).await.unwrap();
    let refused = instance.access.begin_passkey(&caller, Some(secret(PASSWORD)), &Origin::default()).await;
    assert!(matches!(refused, Err(AccessError::Unconfigured { .. })), "{refused:?}");
    // They are listed and removed all the same.
    assert_eq!(instance.access.list_passkeys(caller.id).await.unwrap().len(), 1);
}
