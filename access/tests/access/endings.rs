//! What ends a session or an account, and that it is the end for every credential, in every process.

use crate::factors::{code, enroll, second_step, ticket};
use crate::sms::with_messages;
use crate::support::{Instance, PASSWORD, secret, set_active, settings, tamper, who, who_by_key};
use karat_access::{
    Access, AccessError, AccessSettings, Actor, HashSettings, NewApiKey, NewPasskey, Origin, ProfileChange, Role,
    Scopes, TokenFault,
};
use karat_oracle::passkeys::{Authenticator, Page};
use secrecy::ExposeSecret;

const NEW: &str = "other-Green-8-cars";

#[tokio::test]
async fn security_26_each_way_to_end_a_session_or_an_account_holds_at_once_and_everywhere() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let (access, origin) = (&instance.access, Origin::default());
    instance.user("admin_a", Role::Admin).await;
    let admin = who(access, &instance.login("admin_a", PASSWORD).await.unwrap()).await.unwrap();
    // The way, and whether it ends the account with its keys.
    let ways = [
        ("log-out", false),
        ("log-out everywhere", false),
        ("the list of sessions", false),
        ("another password", false),
        ("a password by the shell", false),
        ("an admin", false),
        ("disabled", true),
        ("deleted", true),
        ("deleted by an admin", true),
    ];
    for (n, (way, is_whole_account)) in ways.into_iter().enumerate() {
        let name = format!("person_{n}");
        let first = instance.register(&name).await;
        let held = instance.login(&name, PASSWORD).await.unwrap();
        let (owner, caller) = (who(access, &first).await.unwrap(), who(access, &held).await.unwrap());
        let scopes = Scopes::parse(["read"]).unwrap();
        let key =
            NewApiKey { owner: owner.id, name: "loader".to_owned(), scopes, expires_in: None, events_per_second: None };
        let key = access.create_api_key(key, Actor::Shell, &origin).await.unwrap().secret;
        // Both processes know the credentials from now on.
        for process in [access, &other] {
            assert!(who(process, &held).await.is_ok() && who_by_key(process, &key).await.is_ok(), "{way}");
        }

        let session = caller.session().unwrap();
        let done = match way {
            "log-out" => access.logout(&caller, &origin).await,
            "log-out everywhere" => access.logout_all(&caller, &origin).await.map(drop),
            "the list of sessions" => access.end_session(session, owner.id, &owner, &origin).await,
            "another password" => access.change_password(&owner, Some(secret(PASSWORD)), secret(NEW), &origin).await,
            "a password by the shell" => access.reset_password(owner.id, secret(NEW), Actor::Shell, &origin).await,
            "an admin" => access.end_sessions_of(&admin, owner.id, &origin).await.map(drop),
            "disabled" => set_active(access, &admin, owner.id, false).await.map(drop),
            "deleted" => access.delete_own_account(&owner, Some(secret(PASSWORD)), &origin).await.map(drop),
            _ => access.delete_user(&admin, owner.id, &origin).await.map(drop),
        };
        done.unwrap();

        // Refreshing asks the database: it is over at once in both.
        assert!(other.refresh(&held.refresh_token, &origin).await.is_err(), "{way}");
        assert!(instance.refresh(&held).await.is_err(), "{way}");
        assert!(who(access, &held).await.is_err(), "{way}");
        assert_eq!(who_by_key(access, &key).await.is_err(), is_whole_account, "{way}");
        other.catch_up().await.unwrap();
        assert!(who(&other, &held).await.is_err(), "{way}");
        assert_eq!(who_by_key(&other, &key).await.is_err(), is_whole_account, "{way}");
    }
}

#[tokio::test]
async fn security_26_a_log_in_under_way_does_not_outlive_a_new_password() {
    let mut instance = Instance::start().await;
    // Slow enough to do something while a password is checked.
    let hashing = HashSettings { memory_kib: 19 * 1024, passes: 40, ..HashSettings::default() };
    instance.access = Access::open(AccessSettings { hashing, ..settings(&instance.folder) }).await.unwrap();
    let pair = instance.register("maria_77").await;
    let access = instance.access.clone();
    let before = access.hash_load().done;
    let under_way = tokio::spawn(async move { access.login("maria_77", secret(PASSWORD), &Origin::default()).await });
    while instance.access.hash_load().running == 0 {
        assert_eq!(instance.access.hash_load().done, before, "it was checked too fast to be caught");
        tokio::task::yield_now().await;
    }
    tamper(&instance.folder, "UPDATE users SET password_hash = 'another' WHERE username_key = 'maria_77'")
        .await
        .unwrap();
    let refused = under_way.await.unwrap();
    assert!(matches!(refused, Err(AccessError::InvalidCredentials)), "{refused:?}");
    let caller = who(&instance.access, &pair).await.unwrap();
    assert_eq!(instance.access.list_sessions(caller.id).await.unwrap().len(), 1, "only that of the registration");
}

#[tokio::test]
async fn security_48_a_request_under_way_leaves_no_way_in_when_its_session_has_ended() {
    let (instance, service) = with_messages().await;
    let (access, origin) = (&instance.access, Origin::default());
    // The caller of a request that was let in before its session ended.
    let pair = instance.register("maria_77").await;
    let caller = who(access, &pair).await.unwrap();
    let password = || Some(secret(PASSWORD));
    let enrolment = access.enroll_totp(&caller, password(), &origin).await.unwrap();
    let request = access.request_phone_code("+34600123456", &origin).await.unwrap();
    let sms = service.code_for("+34600123456", 1).await;
    let options = access.begin_passkey(&caller, password(), &origin).await.unwrap();
    let (_, made) = Authenticator::make(&Page::of("karat.example.org"), &options.challenge, &options.user_handle);
    let passkey = NewPasskey { client_data: made.client_data, attestation: made.attestation, name: None };
    access.logout(&caller, &origin).await.unwrap();

    let base32 = enrolment.secret.expose_secret();
    let confirmed = access.confirm_totp(&caller, &code(base32, 0), &origin).await.map(drop);
    let enrolled = access.enroll_totp(&caller, password(), &origin).await.map(drop);
    let linked = access.link_phone(&caller, "+34600123456", &request, &sms, password(), &origin).await.map(drop);
    let added = access.confirm_passkey(&caller, &passkey, &origin).await.map(drop);
    let scopes = Scopes::parse(["read"]).unwrap();
    let new =
        NewApiKey { owner: caller.id, name: "loader".to_owned(), scopes, expires_in: None, events_per_second: None };
    let made = access.create_own_api_key(&caller, new, &origin).await.map(drop);
    let changed = access.change_password(&caller, password(), secret(NEW), &origin).await;
    let (version, email) = (pair.user.version, Some("mallory@example.org".to_owned()));
    let change = ProfileChange { version, email, current_password: password(), ..ProfileChange::default() };
    let moved = access.update_own_account(&caller, change, &origin).await.map(drop);
    let removed = access.remove_totp(&caller, password(), &origin).await;
    let deleted = access.delete_own_account(&caller, password(), &origin).await.map(drop);
    for refused in [confirmed, enrolled, linked, added, made, changed, moved, removed, deleted] {
        let is_revoked = matches!(refused, Err(AccessError::NotAuthenticated(TokenFault::Revoked)));
        assert!(is_revoked, "{refused:?}");
    }
    assert!(access.list_api_keys(caller.id).await.unwrap().is_empty());
    // No second factor is asked for, and there is no number.
    assert_eq!(instance.login("maria_77", PASSWORD).await.unwrap().user.phone, None);
}

#[tokio::test]
async fn security_26_and_34_a_second_step_under_way_ends_with_every_session() {
    let instance = Instance::start().await;
    let enrolled = enroll(&instance, "maria_77").await;
    let (access, origin) = (&instance.access, Origin::default());
    for way in ["another password", "log-out everywhere"] {
        let ticket = ticket(&instance, "maria_77").await;
        match way {
            "another password" => {
                access.reset_password(enrolled.caller.id, secret(PASSWORD), Actor::Shell, &origin).await
            }
            _ => access.logout_all(&enrolled.caller, &origin).await.map(drop),
        }
        .unwrap();
        let refused = second_step(&instance, &ticket, &code(&enrolled.secret, 1)).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "{way}: {refused:?}");
    }
}
