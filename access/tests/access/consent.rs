//! Where consent is required: who has it, in which process, for which version.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::{Instance, settings, tamper, who, who_by_key};
use karat_access::{
    Access, AccessError, AccessSettings, Actor, AuditFilter, Caller, ConsentRule, NewApiKey, Origin, ProfileChange,
    Role, Scopes,
};

const IN_FORCE: &str = "2026-11";

/// An instance that asks for consent, and how it is set up.
async fn asking() -> (Instance, AccessSettings) {
    let mut instance = Instance::start().await;
    let consent = ConsentRule::new(true, Some(IN_FORCE)).unwrap();
    let strict = AccessSettings { consent, ..settings(&instance.folder) };
    instance.access = Access::open(strict.clone()).await.unwrap();
    (instance, strict)
}

async fn grant(access: &Access, caller: &Caller, version: &str) {
    access.grant_consent(caller, version, "web", &Origin::default()).await.unwrap();
}

async fn revoke(access: &Access, caller: &Caller) {
    access.revoke_consent(caller, "web", &Origin::default()).await.unwrap();
}

#[tokio::test]
async fn security_84_consent_to_the_version_in_force_counts_at_once_here_and_elsewhere_after_catching_up() {
    let (instance, strict) = asking().await;
    let (access, other) = (&instance.access, Access::open(strict).await.unwrap());
    let caller = who(access, &instance.register("maria_77").await).await.unwrap();
    let scopes = Scopes::parse(["publish:*"]).unwrap();
    let key =
        NewApiKey { owner: caller.id, name: "loader".to_owned(), scopes, events_per_second: None, expires_in: None };
    let key = access.create_api_key(key, Actor::Shell, &Origin::default()).await.unwrap().secret;
    assert_eq!(who_by_key(access, &key).await.unwrap().id, caller.id, "a key is judged by its owner");
    let stranger = who(access, &instance.register("pedro_12").await).await.unwrap();
    grant(access, &stranger, IN_FORCE).await;

    // What was done, whether it counts after it.
    let steps: [(&str, Option<&str>, bool); 5] = [
        ("an older version", Some("2026-10"), false),
        ("the version in force", Some(IN_FORCE), true),
        ("an older one again", Some("2026-10"), false),
        ("the version in force again", Some(IN_FORCE), true),
        ("taken back", None, false),
    ];
    // Both processes have it in memory.
    assert!(!access.has_consented(caller.id).await.unwrap() && !other.has_consented(caller.id).await.unwrap());
    for (step, version, counts) in steps {
        match version {
            Some(version) => grant(access, &caller, version).await,
            None => revoke(access, &caller).await,
        }
        assert_eq!(access.has_consented(caller.id).await.unwrap(), counts, "{step}");
        other.catch_up().await.unwrap();
        assert_eq!(other.has_consented(caller.id).await.unwrap(), counts, "{step}, in the other process");
    }
    assert!(access.has_consented(stranger.id).await.unwrap(), "that of another is another");
}

#[tokio::test]
async fn security_84_of_people_who_are_named_those_with_an_account_and_without_consent_are_found() {
    let (instance, strict) = asking().await;
    let (access, other) = (&instance.access, Access::open(strict.clone()).await.unwrap());
    let mut people = vec![uuid::Uuid::now_v7()];
    for n in 0..25 {
        people.push(instance.user(&format!("person_{n}"), Role::User).await.id);
    }
    let maria = who(access, &instance.register("maria_77").await).await.unwrap();
    grant(access, &maria, IN_FORCE).await;
    people.push(maria.id);
    // From the database, and then from memory.
    for process in [access, &other, &other] {
        let without = process.without_consent(&people).await.unwrap();
        assert_eq!(without.len(), 25, "all but who has no account and who consented");
        assert!(people[1..26].iter().all(|person| without.contains(person)));
    }
    revoke(access, &maria).await;
    other.catch_up().await.unwrap();
    for process in [access, &other] {
        assert!(process.without_consent(&[maria.id]).await.unwrap().contains(&maria.id));
    }
    // An account that waits for its purge still says no, whatever it said before.
    grant(access, &maria, IN_FORCE).await;
    tamper(&instance.folder, "UPDATE users SET deleted_at = 1").await.unwrap();
    let fresh = Access::open(strict).await.unwrap();
    assert_eq!(fresh.without_consent(&people).await.unwrap().len(), 26);
    assert!(fresh.without_consent(&[]).await.unwrap().is_empty());

    let optional = Access::open(settings(&instance.folder)).await.unwrap();
    assert!(optional.without_consent(&people).await.unwrap().is_empty());
}

#[tokio::test]
async fn security_84_of_people_who_are_named_those_without_an_account_or_a_living_one_are_remembered_too() {
    const GIVEN: &str = "UPDATE users SET deleted_at = NULL, consent_status = 'granted', consent_version = '2026-11'";
    const MADE: &str = "INSERT INTO users (id, username, username_key, role, created_at, updated_at) VALUES \
                        ('01900000-0000-7000-8000-000000000009', 'late', 'late', 'user', 1, 1)";
    let late: uuid::Uuid = "01900000-0000-7000-8000-000000000009".parse().unwrap();
    let (instance, strict) = asking().await;
    let maria = who(&instance.access, &instance.register("maria_77").await).await.unwrap();
    tamper(&instance.folder, "UPDATE users SET deleted_at = 1").await.unwrap();
    // These begin when the feed has nothing of anybody.
    tamper(&instance.folder, "DELETE FROM access_changes").await.unwrap();
    let open = async |key_cache_ttl| Access::open(AccessSettings { key_cache_ttl, ..strict.clone() }).await.unwrap();
    let (short, long) = (open(Duration::ZERO).await, open(Duration::from_secs(3600)).await);
    let people = [maria.id, late];
    let refused = async |process: &Access| process.without_consent(&people).await.unwrap();
    for process in [&short, &long] {
        assert_eq!(refused(process).await, HashSet::from([maria.id]));
    }
    // Behind the back of every process: only what is asked again is heard of.
    tamper(&instance.folder, GIVEN).await.unwrap();
    tamper(&instance.folder, MADE).await.unwrap();
    assert_eq!(refused(&long).await, HashSet::from([maria.id]), "it is from memory");
    assert_eq!(refused(&short).await, HashSet::from([late]));
    // Of who acts it is not believed that there is no account, and what is found replaces it.
    assert!(!long.has_consented(late).await.unwrap());
    assert_eq!(refused(&long).await, HashSet::from([maria.id, late]));
}

#[tokio::test]
async fn security_84_without_the_feed_a_consent_is_believed_no_longer_than_its_time() {
    let (instance, strict) = asking().await;
    let caller = who(&instance.access, &instance.register("maria_77").await).await.unwrap();
    grant(&instance.access, &caller, IN_FORCE).await;
    // These began when the feed had nothing of this user any more.
    let past = AccessSettings { access_token_ttl: Duration::ZERO, ..strict };
    tamper(&instance.folder, "DELETE FROM access_changes").await.unwrap();
    let short = Access::open(AccessSettings { key_cache_ttl: Duration::ZERO, ..past.clone() }).await.unwrap();
    let long = Access::open(AccessSettings { key_cache_ttl: Duration::from_secs(3600), ..past }).await.unwrap();
    for process in [&short, &long] {
        assert!(process.has_consented(caller.id).await.unwrap());
    }
    revoke(&instance.access, &caller).await;
    assert!(!short.has_consented(caller.id).await.unwrap());
    assert!(long.has_consented(caller.id).await.unwrap(), "it is from memory");
    long.catch_up().await.unwrap();
    assert!(!long.has_consented(caller.id).await.unwrap());
}

#[tokio::test]
async fn security_84_another_change_of_the_account_does_not_bring_a_consent_back() {
    let (instance, _) = asking().await;
    let access = &instance.access;
    let caller = who(access, &instance.register("maria_77").await).await.unwrap();
    grant(access, &caller, IN_FORCE).await;
    revoke(access, &caller).await;
    let version = access.find_user(caller.id).await.unwrap().unwrap().version;
    let change = ProfileChange { nickname: Some("Mari".to_owned()), version, ..ProfileChange::default() };
    access.update_own_account(&caller, change, &Origin::default()).await.unwrap();
    assert!(!access.has_consented(caller.id).await.unwrap());
    access.catch_up().await.unwrap();
    assert!(!access.has_consented(caller.id).await.unwrap());
}

#[tokio::test]
async fn security_84_a_refusal_names_the_version_and_leaves_one_row_a_minute() {
    let (instance, _) = asking().await;
    let access = &instance.access;
    let caller = who(access, &instance.register("maria_77").await).await.unwrap();
    for _ in 0..3 {
        let error = access.refuse_without_consent(&caller, &Origin::default()).await;
        assert!(matches!(&error, AccessError::ConsentNeeded { version } if version == IN_FORCE), "{error:?}");
    }
    let filter = AuditFilter { action: Some("access_denied".to_owned()), ..AuditFilter::default() };
    let rows = access.audit_log(&filter, 10).await.unwrap();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.actor_id, row.outcome.as_str()), (Some(caller.id), "denied"));
    assert_eq!(row.details.as_ref().unwrap()["consent"], IN_FORCE);
}

#[tokio::test]
async fn where_consent_is_optional_nobody_is_asked() {
    let instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    assert!(instance.access.has_consented(pair.user.id).await.unwrap());
}
