//! API keys.

use std::time::Duration;

use crate::support::{Instance, settings, tamper, who_by_key};
use karat_access::{
    Access, AccessError, AccessSettings, Actor, CallerKind, Credential, IssuedKey, NewApiKey, Origin, Permission, Role,
    Scopes, TokenFault, User,
};
use secrecy::ExposeSecret;

async fn issue(instance: &Instance, owner: &User, scopes: &[&str]) -> IssuedKey {
    let scopes = Scopes::parse(scopes).unwrap();
    let new =
        NewApiKey { owner: owner.id, name: "loader".to_owned(), scopes, expires_in: None, events_per_second: None };
    instance.access.create_api_key(new, Actor::Shell, &Origin::default()).await.unwrap()
}

async fn revoke(access: &Access, key: &IssuedKey) -> Result<(), AccessError> {
    access.revoke_api_key(key.key.id, None, Actor::Shell, &Origin::default()).await
}

#[tokio::test]
async fn a_key_acts_for_its_owner_within_its_scopes() {
    let instance = Instance::start().await;
    let owner = instance.user("loader_1", Role::Operator).await;
    let issued = issue(&instance, &owner, &["publish:etl.run.*", "read"]).await;
    assert!(issued.secret.expose_secret().starts_with(&format!("kk_{}_", issued.key.prefix)));
    let caller = who_by_key(&instance.access, &issued.secret).await.unwrap();
    assert_eq!((caller.id, &*caller.username), (owner.id, "loader_1"));
    assert!(caller.may_publish("etl.run.started") && !caller.may_publish("billing.invoice"));
    assert!(caller.has(Permission::ReadAllData) && !caller.has(Permission::OperatePipelines));
}

#[tokio::test]
async fn a_wrong_secret_behind_a_right_prefix_is_refused() {
    let instance = Instance::start().await;
    let owner = instance.user("loader_1", Role::User).await;
    let issued = issue(&instance, &owner, &["read"]).await;
    let forged = format!("kk_{}_{}", issued.key.prefix, "0".repeat(48));
    let refused = instance.access.authenticate(Credential::ApiKey(&forged)).await;
    assert!(matches!(refused, Err(AccessError::NotAuthenticated(TokenFault::Invalid))));
}

#[tokio::test]
async fn a_revoked_key_stops_at_once_here_and_elsewhere_after_catching_up() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let owner = instance.user("loader_1", Role::User).await;
    let issued = issue(&instance, &owner, &["publish:*"]).await;
    for access in [&instance.access, &other] {
        who_by_key(access, &issued.secret).await.unwrap();
    }
    revoke(&instance.access, &issued).await.unwrap();
    assert!(who_by_key(&instance.access, &issued.secret).await.is_err());
    other.catch_up().await.unwrap();
    assert!(who_by_key(&other, &issued.secret).await.is_err());
    assert!(matches!(revoke(&other, &issued).await, Err(AccessError::NotFound { .. })));
}

#[tokio::test]
async fn without_the_feed_a_cached_key_is_believed_no_longer_than_its_time() {
    let instance = Instance::start().await;
    let short = AccessSettings { key_cache_ttl: Duration::ZERO, ..settings(&instance.folder) };
    let other = Access::open(short).await.unwrap();
    let owner = instance.user("loader_1", Role::User).await;
    let issued = issue(&instance, &owner, &["publish:*"]).await;
    who_by_key(&other, &issued.secret).await.unwrap();
    revoke(&instance.access, &issued).await.unwrap();
    assert!(who_by_key(&other, &issued.secret).await.is_err());
}

#[tokio::test]
async fn an_owner_can_only_revoke_own_keys() {
    let instance = Instance::start().await;
    let (owner, stranger) = (instance.user("loader_1", Role::User).await, instance.user("stranger", Role::User).await);
    let issued = issue(&instance, &owner, &["read"]).await;
    let (actor, origin) = (Actor::User(stranger.id), Origin::default());
    let refused = instance.access.revoke_api_key(issued.key.id, Some(stranger.id), actor, &origin).await;
    assert!(matches!(refused, Err(AccessError::NotFound { .. })));
    assert!(who_by_key(&instance.access, &issued.secret).await.is_ok());
}

#[tokio::test]
async fn security_59_keys_of_an_owner_who_loses_a_role_lose_it_too() {
    let instance = Instance::start().await;
    let owner = instance.user("loader_1", Role::Operator).await;
    let issued = issue(&instance, &owner, &["publish:*", "publish_for_others", "read"]).await;
    assert!(who_by_key(&instance.access, &issued.secret).await.unwrap().may_publish_for_others());
    instance.access.set_role(owner.id, Role::User, Actor::Shell, &Origin::default()).await.unwrap();
    let caller = who_by_key(&instance.access, &issued.secret).await.unwrap();
    assert!(!caller.may_publish_for_others() && !caller.has(Permission::ReadAllData));
}

#[tokio::test]
async fn a_user_cannot_make_a_key_that_publishes_for_others() {
    let instance = Instance::start().await;
    let owner = instance.user("loader_1", Role::User).await;
    let scopes = Scopes::parse(["publish_for_others"]).unwrap();
    let new =
        NewApiKey { owner: owner.id, name: "loader".to_owned(), scopes, expires_in: None, events_per_second: None };
    let refused = instance.access.create_api_key(new, Actor::User(owner.id), &Origin::default()).await;
    assert!(matches!(refused, Err(AccessError::Invalid(_))));
}

#[tokio::test]
async fn an_expired_key_is_refused() {
    let instance = Instance::start().await;
    let owner = instance.user("loader_1", Role::User).await;
    let scopes = Scopes::parse(["read"]).unwrap();
    let expires_in = Some(Duration::ZERO);
    let new = NewApiKey { owner: owner.id, name: "loader".to_owned(), scopes, expires_in, events_per_second: None };
    let issued = instance.access.create_api_key(new, Actor::Shell, &Origin::default()).await.unwrap();
    let refused = who_by_key(&instance.access, &issued.secret).await;
    assert!(matches!(refused, Err(AccessError::NotAuthenticated(TokenFault::Expired))));
}

#[tokio::test]
async fn the_last_use_is_written_when_flushed_and_the_secret_never() {
    let instance = Instance::start().await;
    let owner = instance.user("loader_1", Role::User).await;
    let issued = issue(&instance, &owner, &["read"]).await;
    who_by_key(&instance.access, &issued.secret).await.unwrap();
    instance.access.flush().await.unwrap();
    let listed = instance.access.list_api_keys(owner.id).await.unwrap();
    assert!(listed[0].last_used_at_us.is_some());
    let secret = issued.secret.expose_secret();
    for file in std::fs::read_dir(instance.folder.path()).unwrap().map(|entry| entry.unwrap().path()) {
        let bytes = if file.is_file() { std::fs::read(&file).unwrap() } else { Vec::new() };
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{}", file.display());
    }
}

#[tokio::test]
async fn an_owner_has_at_most_a_hundred_live_keys() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let (owner, stranger) = (instance.user("loader_1", Role::User).await, instance.user("loader_2", Role::User).await);
    let (first, origin) = (issue(&instance, &owner, &["read"]).await, Origin::default());
    for _ in 1..99 {
        issue(&instance, &owner, &["read"]).await;
    }
    let new = || {
        let scopes = Scopes::parse(["read"]).unwrap();
        NewApiKey { owner: owner.id, name: "loader".to_owned(), scopes, expires_in: None, events_per_second: None }
    };
    // Of two at the same time, one is the hundredth.
    let (one, two) = tokio::join!(
        instance.access.create_api_key(new(), Actor::Shell, &origin),
        other.create_api_key(new(), Actor::Shell, &origin),
    );
    let refused: Vec<_> = [one, two].into_iter().filter_map(Result::err).collect();
    assert!(matches!(refused[..], [AccessError::TooManyKeys { most: 100 }]), "{refused:?}");
    issue(&instance, &stranger, &["read"]).await;
    // Those that are revoked or over do not count.
    revoke(&instance.access, &first).await.unwrap();
    issue(&instance, &owner, &["read"]).await;
    assert!(instance.access.create_api_key(new(), Actor::Shell, &origin).await.is_err());
    tamper(&instance.folder, "UPDATE api_keys SET expires_at = 1").await.unwrap();
    issue(&instance, &owner, &["read"]).await;
}

#[tokio::test]
async fn live_keys_are_listed_before_those_that_ended() {
    let instance = Instance::start().await;
    let owner = instance.user("loader_1", Role::User).await;
    let live = issue(&instance, &owner, &["read"]).await;
    let revoked = issue(&instance, &owner, &["read"]).await;
    revoke(&instance.access, &revoked).await.unwrap();
    let scopes = Scopes::parse(["read"]).unwrap();
    let expires_in = Some(Duration::ZERO);
    let over = NewApiKey { owner: owner.id, name: "over".to_owned(), scopes, expires_in, events_per_second: None };
    let over = instance.access.create_api_key(over, Actor::Shell, &Origin::default()).await.unwrap();
    let newest = issue(&instance, &owner, &["read"]).await;
    let listed = instance.access.list_api_keys(owner.id).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|key| key.id).collect();
    assert_eq!(listed, [newest.key.id, live.key.id, over.key.id, revoked.key.id]);
}

#[tokio::test]
async fn a_rate_and_routes_of_a_key_are_kept_and_known_to_every_process() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let owner = instance.user("loader_1", Role::User).await;
    let make = async |rate: u32| {
        let scopes = Scopes::parse(["publish:*", "route:/events"]).unwrap();
        let events_per_second = Some(rate);
        let new = NewApiKey { owner: owner.id, name: "loader".to_owned(), scopes, expires_in: None, events_per_second };
        instance.access.create_api_key(new, Actor::Shell, &Origin::default()).await
    };
    for rate in [0, 1_000_001] {
        assert!(matches!(make(rate).await, Err(AccessError::Invalid(_))), "{rate}");
    }
    let issued = make(500).await.unwrap();
    let caller = who_by_key(&other, &issued.secret).await.unwrap();
    assert!(matches!(caller.kind, CallerKind::ApiKey { events_per_second: Some(500), .. }), "{caller:?}");
    assert!(caller.may_call("/events") && !caller.may_call("/lineage"));
    let listed = other.list_api_keys(owner.id).await.unwrap();
    assert_eq!((listed[0].events_per_second, &listed[0].scopes), (Some(500), &issued.key.scopes));
}
