//! Signs that there is a copy of a passkey: a count that goes back, and what authenticators say of copies.

use karat_oracle::passkeys::Page;

use super::{add_passkey, is_refused, log_in, page, reason, second};
use crate::factors::ticket;
use crate::recovery::with_address;
use crate::support::{Instance, tamper, who};

#[tokio::test]
async fn a_count_that_goes_back_is_refused_and_its_owner_is_told() {
    let instance = Instance::start().await;
    let pair = with_address(&instance, "maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let access = &instance.access;
    let (mut passkey, _) = add_passkey(access, &caller, &page()).await;
    instance.mail_with("A passkey was added").await;
    passkey.count = 41;
    log_in(access, &mut passkey, &page()).await.unwrap();
    // The next is 42 again, then 1.
    for count in [41, 0] {
        passkey.count = count;
        assert!(is_refused(&log_in(access, &mut passkey, &page()).await), "{count}");
        assert_eq!(reason(access, "passkey_login").await, "counter");
    }
    instance.mail_with("there may be a copy of it").await;
    // As a second factor too.
    let ticket = ticket(&instance, "maria_77").await;
    passkey.count = 3;
    assert!(is_refused(&second(access, &ticket, &mut passkey, &page()).await));
    assert_eq!(reason(access, "login_mfa").await, "counter");
    passkey.count = 42;
    second(access, &ticket, &mut passkey, &page()).await.unwrap();
}

#[tokio::test]
async fn whether_a_passkey_can_be_copied_never_changes_and_whether_it_is_follows_its_log_ins() {
    let instance = Instance::start().await;
    let pair = with_address(&instance, "maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let access = &instance.access;
    let eligible = Page { is_backup_eligible: true, ..page() };
    let copied = Page { is_backed_up: true, ..eligible.clone() };
    let (mut passkey, _) = add_passkey(access, &caller, &eligible).await;
    let is_backed_up = async || access.list_passkeys(caller.id).await.unwrap()[0].is_backed_up;
    assert_eq!(is_backed_up().await, Some(false));
    log_in(access, &mut passkey, &copied).await.unwrap();
    assert_eq!(is_backed_up().await, Some(true));

    // The same key in an authenticator that copies nothing.
    assert!(is_refused(&log_in(access, &mut passkey, &page()).await));
    assert_eq!(reason(access, "passkey_login").await, "backup");
    instance.mail_with("whether it can be copied").await;
    let first = ticket(&instance, "maria_77").await;
    assert!(is_refused(&second(access, &first, &mut passkey, &page()).await));
    assert_eq!(reason(access, "login_mfa").await, "backup");
    assert_eq!(is_backed_up().await, Some(true), "a refusal changes nothing");
    log_in(access, &mut passkey, &eligible).await.unwrap();
    assert_eq!(is_backed_up().await, Some(false));

    // One from before this was kept: its next log-in says it, and from then on it holds.
    tamper(&instance.folder, "UPDATE passkeys SET is_backup_eligible = NULL, is_backed_up = NULL").await.unwrap();
    assert_eq!(is_backed_up().await, None);
    log_in(access, &mut passkey, &page()).await.unwrap();
    assert_eq!(is_backed_up().await, Some(false));
    assert!(is_refused(&log_in(access, &mut passkey, &copied).await));
    assert_eq!(reason(access, "passkey_login").await, "backup");
}
