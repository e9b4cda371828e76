//! Leases, and the tickets by which browsers get one.

use karat_access::{Access, AccessError, Credential, Lease, Origin, Role, TokenFault, TokenPair};
use secrecy::ExposeSecret;

use crate::support::{Instance, secret, set_active, tamper, who};

async fn lease(access: &Access, pair: &TokenPair) -> Lease {
    access.lease(Credential::Token(pair.access_token.expose_secret())).await.unwrap()
}

fn is_refused(result: Result<Lease, AccessError>, fault: TokenFault) -> bool {
    matches!(result, Err(AccessError::NotAuthenticated(found)) if found == fault)
}

#[tokio::test]
async fn a_ticket_works_once_for_whoever_asked_for_it_and_in_any_process() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let pair = instance.register("maria_77").await;
    let asked_by = lease(&instance.access, &pair).await;
    let (first, second) = (
        instance.access.issue_ticket(&asked_by).await.unwrap(),
        instance.access.issue_ticket(&asked_by).await.unwrap(),
    );
    let found = other.lease_by_ticket(&first).await.unwrap();
    assert_eq!(found.caller(), asked_by.caller());
    assert!(is_refused(instance.access.lease_by_ticket(&first).await, TokenFault::Invalid), "it was used");
    instance.access.lease_by_ticket(&second).await.unwrap();
    for made_up in ["", "x", &"0".repeat(64), pair.access_token.expose_secret()] {
        assert!(is_refused(instance.access.lease_by_ticket(&secret(made_up)).await, TokenFault::Invalid));
    }
    // It is no credential anywhere else.
    let third = instance.access.issue_ticket(&asked_by).await.unwrap();
    assert!(instance.access.authenticate(Credential::Token(third.expose_secret())).await.is_err());
}

#[tokio::test]
async fn a_ticket_that_is_too_old_or_whose_session_has_ended_is_refused() {
    let instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    let asked_by = lease(&instance.access, &pair).await;
    let (old, unused) = (
        instance.access.issue_ticket(&asked_by).await.unwrap(),
        instance.access.issue_ticket(&asked_by).await.unwrap(),
    );
    tamper(&instance.folder, "UPDATE one_time_codes SET expires_at = 1 WHERE purpose = 'stream'").await.unwrap();
    assert!(is_refused(instance.access.lease_by_ticket(&old).await, TokenFault::Invalid));
    let later = "UPDATE one_time_codes SET expires_at = 9223372036854775807 WHERE purpose = 'stream'";
    tamper(&instance.folder, later).await.unwrap();
    // In another process, which this one has not heard of.
    let other = instance.second_process().await;
    other.logout(&who(&other, &pair).await.unwrap(), &Origin::default()).await.unwrap();
    assert!(is_refused(instance.access.lease_by_ticket(&unused).await, TokenFault::Revoked));
}

#[tokio::test]
async fn a_lease_ends_with_its_session_and_with_its_account() {
    let instance = Instance::start().await;
    let admin = instance.user("the_admin", Role::Admin).await;
    let admin_pair = instance.login("the_admin", crate::support::PASSWORD).await.unwrap();
    let by = who(&instance.access, &admin_pair).await.unwrap();
    assert_eq!(by.id, admin.id);

    let pair = instance.register("maria_77").await;
    let mut held = lease(&instance.access, &pair).await;
    assert_eq!(instance.access.renew(&mut held), Ok(()));
    set_active(&instance.access, &by, held.caller().id, false).await.unwrap();
    assert_eq!(instance.access.renew(&mut held), Err(TokenFault::Revoked));

    let mut own = lease(&instance.access, &admin_pair).await;
    instance.access.logout(&by, &Origin::default()).await.unwrap();
    assert_eq!(instance.access.renew(&mut own), Err(TokenFault::Revoked));
}
