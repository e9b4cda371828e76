//! The copy of everything that the accounts hold of one person.

use crate::factors::enroll;
use crate::support::{Instance, PASSWORD, secret, who, who_by_key};
use karat_access::{AccessError, Actor, NewApiKey, Origin, Role, Scopes, SettingsChange};
use karat_schemas::json::parse;
use secrecy::ExposeSecret;

fn at(ip: &str, agent: &str) -> Origin {
    Origin::new(Some(ip.parse().unwrap()), Some(agent), None)
}

fn key_of(owner: uuid::Uuid, name: &str) -> NewApiKey {
    let scopes = Scopes::parse(["read"]).unwrap();
    NewApiKey { owner, events_per_second: None, name: name.to_owned(), scopes, expires_in: None }
}

#[tokio::test]
async fn security_84_an_export_holds_own_data_only_and_no_secret() {
    let instance = Instance::start().await;
    let access = &instance.access;
    let (hers, his) = (at("203.0.113.7", "her browser"), at("198.51.100.9", "his browser"));
    let admins = at("192.0.2.1", "an admin's browser");
    let maria = enroll(&instance, "maria_77").await;
    let pedro = enroll(&instance, "pedro_12").await;
    instance.user("admin_a", Role::Admin).await;
    let admin = who(access, &instance.login("admin_a", PASSWORD).await.unwrap()).await.unwrap();
    let mut secrets = vec![maria.secret.clone(), pedro.secret.clone(), PASSWORD.to_owned(), "$argon2id$".to_owned()];
    for (person, origin, name) in [(&maria, &hers, "her key"), (&pedro, &his, "his key")] {
        access.grant_consent(&person.caller, "2026-11", name, origin).await.unwrap();
        let text = format!(r#"{{"page":"of {name}","n":123456789012345678901234567890}}"#);
        let settings = SettingsChange::replacing(&parse(&text).unwrap()).unwrap();
        access.change_user_settings(&person.caller, &settings, None).await.unwrap();
        let made = access.create_own_api_key(&person.caller, key_of(person.caller.id, name), origin).await.unwrap();
        secrets.push(made.secret.expose_secret().to_owned());
        secrets.push(made.secret.expose_secret().rsplit('_').next().unwrap().to_owned());
        secrets.extend(person.recovery.iter().map(|code| code.expose_secret().to_owned()));
    }
    // Somebody guesses at her password, and an admin ends her sessions and makes her a moderator.
    access.login("maria_77", secret("wrong"), &his).await.unwrap_err();
    access.set_role_of(&admin, maria.caller.id, Role::Moderator, &admins).await.unwrap();

    let data = access.export_own_data(&maria.caller, None).await.unwrap();
    assert_eq!((data.user.id, data.user.username.as_str(), data.has_password), (maria.caller.id, "maria_77", true));
    assert!(data.sessions.iter().any(|own| Some(own.session.id) == maria.caller.session()));
    assert_eq!(data.api_keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["her key"]);
    assert_eq!(data.factors.iter().map(|factor| factor.kind.as_str()).collect::<Vec<_>>(), ["totp"]);
    assert_eq!(data.recovery_codes_left, maria.recovery.len() as u64);
    let consent = &data.consents[..];
    assert_eq!((consent.len(), consent[0].ip.as_deref()), (1, Some("203.0.113.7")));
    let members: Vec<_> = data.settings.members().collect();
    assert_eq!(members, [("n", "123456789012345678901234567890"), ("page", "\"of her key\"")]);
    let actions: Vec<_> = data.events.iter().map(|event| (event.action.as_str(), event.is_own_act)).collect();
    for expected in [("register", true), ("mfa_confirm", true), ("consent_grant", true), ("role_set", false)] {
        assert!(actions.contains(&expected), "{expected:?} in {actions:?}");
    }
    assert!(data.events.iter().any(|event| event.action == "login" && event.outcome == "denied"), "{actions:?}");
    assert_eq!((data.next_before, data.cut.len()), (None, 0));

    let text = format!("{data:?}");
    for own in ["her key", "203.0.113.7", "her browser"] {
        assert!(text.contains(own), "{own}");
    }
    let others = ["pedro_12", "his key", "198.51.100.9", "his browser", "admin_a", "192.0.2.1", "an admin's browser"];
    let ids = [pedro.caller.id.to_string(), admin.id.to_string()];
    for other in others.into_iter().chain(ids.iter().map(String::as_str)).chain(secrets.iter().map(String::as_str)) {
        assert!(!text.contains(other), "{other} is in the copy");
    }
    // The one who did it sees that it was done, and not to whom.
    let text = format!("{:?}", access.export_own_data(&admin, None).await.unwrap());
    assert!(text.contains("role_set") && !text.contains(&maria.caller.id.to_string()), "{text}");
}

#[tokio::test]
async fn an_export_has_what_is_past_too_and_none_is_given_to_a_key() {
    let instance = Instance::start().await;
    let (access, origin) = (&instance.access, Origin::default());
    let first = instance.register("maria_77").await;
    let caller = who(access, &first).await.unwrap();
    let over = who(access, &instance.login("maria_77", PASSWORD).await.unwrap()).await.unwrap();
    access.logout(&over, &origin).await.unwrap();
    let key = access.create_api_key(key_of(caller.id, "old"), Actor::Shell, &origin).await.unwrap();
    let by_key = who_by_key(access, &key.secret).await.unwrap();
    let refused = access.export_own_data(&by_key, None).await;
    assert!(matches!(refused, Err(AccessError::Forbidden { .. })), "{refused:?}");
    access.revoke_api_key(key.key.id, Some(caller.id), Actor::Shell, &origin).await.unwrap();

    let data = access.export_own_data(&caller, None).await.unwrap();
    let ended = data.sessions.iter().find(|own| Some(own.session.id) == over.session()).unwrap();
    assert_eq!(ended.revoked_reason.as_deref(), Some("logout"));
    assert!(data.api_keys[0].revoked_at_us.is_some());
    // What was done at the shell to her key is about her.
    let at_shell: Vec<_> = data.events.iter().filter(|event| event.actor_kind == "shell").collect();
    assert!(at_shell.iter().any(|event| event.target_id == Some(key.key.id) && event.action == "api_key_revoke"));

    // Before the oldest row there is none.
    assert!(access.export_own_data(&caller, Some(1)).await.unwrap().events.is_empty());
}
