//! Rotation of the signing keys, while several processes run.

use std::time::Duration;

use karat_access::{Access, Actor, AuditFilter, Origin};

use crate::support::{Instance, PASSWORD, settings, who};

async fn rotate(access: &Access) -> karat_access::Rotation {
    access.rotate_signing_keys(Actor::Shell, &Origin::default()).await.unwrap()
}

fn known(access: &Access) -> Vec<String> {
    let jwks = access.jwks();
    let keys = jwks["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn security_31_key_rotation_keeps_tokens_until_they_expire_and_needs_no_restart() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let before = instance.register("maria_77").await;
    let rotation = rotate(&instance.access).await;
    assert!(rotation.removed.is_empty(), "its last token lives for an hour: {rotation:?}");
    other.catch_up().await.unwrap();
    for access in [&instance.access, &other] {
        assert_eq!(known(access).len(), 2);
        assert_eq!(known(access)[1], rotation.added.to_string());
        assert!(who(access, &before).await.is_ok(), "a token of the old key");
    }
    // Known for too short a time to sign: whoever reads the public keys every few minutes would not know it.
    let first = known(&other)[0].clone();
    let now = instance.login("maria_77", PASSWORD).await.unwrap();
    assert!(who(&other, &now).await.is_ok());

    // Where that time is none, the new key signs at once, and the old one goes when its tokens have expired.
    let mut impatient = settings(&instance.folder);
    (impatient.key_activation, impatient.access_token_ttl) = (Duration::ZERO, Duration::ZERO);
    let later = Access::open(impatient).await.unwrap();
    let removed = rotate(&later).await.removed;
    assert!(removed.contains(&first), "{removed:?}");
    other.catch_up().await.unwrap();
    instance.access.catch_up().await.unwrap();
    for access in [&instance.access, &other] {
        assert!(who(access, &before).await.is_err(), "a token of a key that is gone");
        assert!(!known(access).contains(&first));
    }
    let filter = AuditFilter { action: Some("signing_key_rotate".to_owned()), ..AuditFilter::default() };
    assert_eq!(instance.access.audit_log(&filter, 10).await.unwrap().len(), 2);
}
