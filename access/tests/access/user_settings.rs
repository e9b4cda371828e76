//! Settings of people, in the database.

use crate::support::{Instance, PASSWORD, secret, settings, who};
use karat_access::{Access, AccessError, AccessSettings, Caller, Origin, SettingsChange, TokenFault, UserSettings};
use karat_schemas::json::parse;
use std::sync::Arc;
use std::time::Duration;

async fn replace(access: &Access, caller: &Caller, text: &str) -> Result<UserSettings, AccessError> {
    let change = SettingsChange::replacing(&parse(text).unwrap())?;
    access.change_user_settings(caller, &change, None).await
}

async fn merge(access: &Access, caller: &Caller, text: &str) -> Result<UserSettings, AccessError> {
    let change = SettingsChange::merging(&parse(text).unwrap())?;
    access.change_user_settings(caller, &change, None).await
}

#[tokio::test]
async fn settings_are_replaced_merged_and_removed_and_are_the_same_in_another_process() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let (pair, stranger) = (instance.register("maria_77").await, instance.register("pedro_12").await);
    let caller = who(&instance.access, &pair).await.unwrap();
    let access = &instance.access;
    assert_eq!(access.user_settings(caller.id).await.unwrap().to_json(), "{}");

    // Everything that a database could take for something else: quotes, NUL, emoji, spaces at an end, a large integer.
    let text =
        r#"{"T.h-e_m":"it's ?\"\\ \u0000 \ud83d\ude00 ","n":123456789012345678901234567890,"t.h-e_m":[null,{}]}"#;
    let set = replace(access, &caller, text).await.unwrap();
    let expected = text.replace(r"\ud83d\ude00", "😀");
    assert_eq!(set.to_json(), expected);
    assert_eq!(other.user_settings(caller.id).await.unwrap(), set);

    let merged = merge(&other, &caller, r#"{"n":null,"t.h-e_m":1,"new":"x"}"#).await.unwrap();
    assert_eq!(access.user_settings(caller.id).await.unwrap(), merged);
    let remove = |key: &str| SettingsChange::Remove(key.to_owned());
    let left = access.change_user_settings(&caller, &remove("T.h-e_m"), None).await.unwrap();
    assert_eq!(left.to_json(), r#"{"new":"x","t.h-e_m":1}"#);
    let again = access.change_user_settings(&caller, &remove("T.h-e_m"), None).await;
    assert!(matches!(again, Err(AccessError::NotFound { what: "setting" })), "{again:?}");

    let replaced = replace(access, &caller, r#"{"only":false}"#).await.unwrap();
    assert_eq!(replaced.to_json(), r#"{"only":false}"#);
    assert_eq!(other.user_settings(caller.id).await.unwrap(), replaced);
    assert_eq!(access.user_settings(stranger.user.id).await.unwrap().to_json(), "{}");
}

#[tokio::test]
async fn parallel_changes_of_different_keys_all_hold_and_never_pass_a_bound_together() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let pair = instance.register("maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let mut sets = tokio::task::JoinSet::new();
    for n in 0..12 {
        let access = if n % 2 == 0 { instance.access.clone() } else { other.clone() };
        let caller = Arc::clone(&caller);
        sets.spawn(async move { merge(&access, &caller, &format!(r#"{{"k{n}":{n}}}"#)).await });
    }
    for done in sets.join_all().await {
        done.unwrap();
    }
    let settings = instance.access.user_settings(caller.id).await.unwrap();
    for n in 0..12 {
        assert!(settings.to_json().contains(&format!("\"k{n}\":{n}")), "{}", settings.to_json());
    }

    // One is still free.
    let many: Vec<String> = (0..99).map(|n| format!("\"m{n}\":0")).collect();
    replace(&instance.access, &caller, &format!("{{{}}}", many.join(","))).await.unwrap();
    let (one, two) = tokio::join!(merge(&instance.access, &caller, r#"{"a":1}"#), merge(&other, &caller, r#"{"b":1}"#));
    let refused: Vec<_> = [one, two].into_iter().filter_map(Result::err).collect();
    assert!(matches!(&refused[..], [AccessError::Invalid(lines)] if lines[0].contains("at most 100")), "{refused:?}");
}

#[tokio::test]
async fn a_change_that_expects_another_revision_changes_nothing() {
    let instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let access = &instance.access;
    let first = replace(access, &caller, r#"{"a":1}"#).await.unwrap();
    let second = replace(access, &caller, r#"{"a":2}"#).await.unwrap();
    let change = change_of("b");
    for expected in [vec![first.revision()], vec![]] {
        let refused = access.change_user_settings(&caller, &change, Some(&expected[..])).await;
        match refused {
            Err(AccessError::SettingsChanged { revision }) => assert_eq!(revision, second.revision()),
            other => panic!("expected a refusal, found {other:?}"),
        }
    }
    assert_eq!(access.user_settings(caller.id).await.unwrap(), second);
    let either = [first.revision(), second.revision()];
    let third = access.change_user_settings(&caller, &change, Some(&either[..])).await.unwrap();
    assert_eq!(third.to_json(), r#"{"a":2,"b":1}"#);
    // Of two who read the same, one is told.
    let seen = [third.revision()];
    let (c, d) = (change_of("c"), change_of("d"));
    let (one, two) = tokio::join!(
        access.change_user_settings(&caller, &c, Some(&seen[..])),
        access.change_user_settings(&caller, &d, Some(&seen[..])),
    );
    let refused: Vec<_> = [one, two].into_iter().filter_map(Result::err).collect();
    assert!(matches!(refused[..], [AccessError::SettingsChanged { .. }]), "{refused:?}");
}

fn change_of(key: &str) -> SettingsChange {
    SettingsChange::merging(&parse(&format!("{{\"{key}\":1}}")).unwrap()).unwrap()
}

#[tokio::test]
async fn security_60_settings_stop_with_the_account_and_go_with_it() {
    let mut instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let set = replace(&instance.access, &caller, r#"{"a":1}"#).await.unwrap();
    instance.access.delete_own_account(&caller, Some(secret(PASSWORD)), &Origin::default()).await.unwrap();
    let refused = replace(&instance.access, &caller, r#"{"a":2}"#).await;
    assert!(matches!(refused, Err(AccessError::NotFound { what: "user" })), "{refused:?}");
    assert_eq!(instance.access.user_settings(caller.id).await.unwrap(), set, "it may be brought back by hand");

    let at_once = AccessSettings { keep_deleted: Duration::ZERO, ..settings(&instance.folder) };
    instance.access = Access::open(at_once).await.unwrap();
    instance.access.purge().await.unwrap();
    assert_eq!(instance.access.user_settings(caller.id).await.unwrap(), UserSettings::default());
}

#[tokio::test]
async fn security_26_settings_and_a_picture_that_are_still_being_sent_when_their_session_ends_are_not_kept() {
    let instance = Instance::start().await;
    let access = &instance.access;
    let caller = who(access, &instance.register("maria_77").await).await.unwrap();
    access.logout(&caller, &Origin::default()).await.unwrap();
    // The caller of requests that were let in before.
    let settings = replace(access, &caller, r#"{"a":1}"#).await.map(drop);
    let picture = access.set_avatar(&caller, Some("/api/v1/avatars/x.png"), &Origin::default()).await.map(drop);
    for refused in [settings, picture] {
        assert!(matches!(refused, Err(AccessError::NotAuthenticated(TokenFault::Revoked))), "{refused:?}");
    }
    assert_eq!(access.user_settings(caller.id).await.unwrap(), UserSettings::default());
    assert_eq!(access.find_user(caller.id).await.unwrap().unwrap().avatar_url, None);
}
