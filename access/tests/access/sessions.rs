//! Refresh-token families, log-out, revocation.

use crate::support::{Instance, PASSWORD, secret, settings, tamper, who};
use karat_access::{Access, AccessError, AccessSettings, Origin, TokenFault};

fn is_revoked<T>(result: Result<T, AccessError>) -> bool {
    matches!(result, Err(AccessError::NotAuthenticated(TokenFault::Revoked)))
}

#[tokio::test]
async fn security_23_a_refresh_token_works_once_and_using_it_again_ends_the_family() {
    let instance = Instance::start().await;
    let first = instance.register("maria_77").await;
    let second = instance.refresh(&first).await.unwrap();
    assert!(who(&instance.access, &second).await.is_ok());

    assert!(matches!(instance.refresh(&first).await, Err(AccessError::RefreshRefused { reused: true })));

    assert!(is_revoked(who(&instance.access, &first).await));
    assert!(is_revoked(who(&instance.access, &second).await));
    assert!(matches!(instance.refresh(&second).await, Err(AccessError::RefreshRefused { reused: false })));
}

#[tokio::test]
async fn other_log_ins_of_the_same_person_survive_a_reuse() {
    let instance = Instance::start().await;
    let first = instance.register("maria_77").await;
    let elsewhere = instance.login("maria_77", PASSWORD).await.unwrap();
    instance.refresh(&first).await.unwrap();
    let _ = instance.refresh(&first).await;
    assert!(who(&instance.access, &elsewhere).await.is_ok());
    assert!(instance.refresh(&elsewhere).await.is_ok());
}

#[tokio::test]
async fn security_24_of_many_parallel_refreshes_exactly_one_gets_a_child() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let pair = instance.register("maria_77").await;
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let access = if n % 2 == 0 { instance.access.clone() } else { other.clone() };
            let token = pair.refresh_token.clone();
            tokio::spawn(async move { access.refresh(&token, &Origin::default()).await })
        })
        .collect();
    let mut children = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => children += 1,
            Err(AccessError::RefreshRefused { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(children, 1);
}

#[tokio::test]
async fn security_26_log_out_stops_the_access_token_at_once_and_elsewhere_after_catching_up() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let pair = instance.register("maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    assert!(who(&other, &pair).await.is_ok());

    instance.access.logout(&caller, &Origin::default()).await.unwrap();

    assert!(is_revoked(who(&instance.access, &pair).await));
    assert!(instance.refresh(&pair).await.is_err());
    other.catch_up().await.unwrap();
    assert!(is_revoked(who(&other, &pair).await));
}

#[tokio::test]
async fn other_processes_hear_of_a_revocation_by_themselves() {
    let instance = Instance::start().await;
    let upkeep_interval = std::time::Duration::from_millis(20);
    let quick = AccessSettings { upkeep_interval, ..settings(&instance.folder) };
    let other = Access::open(quick).await.unwrap();
    let pair = instance.register("maria_77").await;
    let caller = who(&other, &pair).await.unwrap();
    instance.access.logout(&caller, &Origin::default()).await.unwrap();
    let heard = async {
        while !is_revoked(who(&other, &pair).await) {
            tokio::time::sleep(upkeep_interval).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), heard).await.unwrap();
}

#[tokio::test]
async fn security_26_a_row_of_a_newer_version_does_not_keep_a_process_from_hearing_what_comes_after_it() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let (pair, stranger) = (instance.register("maria_77").await, instance.register("pedro_12").await);
    for process in [&instance.access, &other] {
        assert!(who(process, &pair).await.is_ok() && who(process, &stranger).await.is_ok());
    }
    let rows = "INSERT INTO access_changes (at, kind, subject_id) VALUES (1, 'of_tomorrow', 'x'), (1, 'session', 'x')";
    tamper(&instance.folder, rows).await.unwrap();
    // A role that this version does not know, and the news of it.
    tamper(&instance.folder, "UPDATE users SET role = 'of_tomorrow' WHERE username_key = 'pedro_12'").await.unwrap();
    let news = "INSERT INTO access_changes (at, kind, subject_id) SELECT 1, 'user', id FROM users \
                WHERE username_key = 'pedro_12'";
    tamper(&instance.folder, news).await.unwrap();
    let caller = who(&instance.access, &pair).await.unwrap();
    instance.access.logout(&caller, &Origin::default()).await.unwrap();

    other.catch_up().await.unwrap();
    assert!(is_revoked(who(&other, &pair).await));
    assert!(is_revoked(who(&other, &stranger).await), "who cannot be judged is let in to nothing");
    // Nor does it keep one from starting.
    tamper(&instance.folder, "UPDATE access_changes SET at = 9223372036854775807").await.unwrap();
    let third = instance.second_process().await;
    assert!(is_revoked(who(&third, &pair).await) && is_revoked(who(&third, &stranger).await));
}

#[tokio::test]
async fn a_restart_keeps_good_tokens_good_and_revoked_ones_revoked() {
    let instance = Instance::start().await;
    let good = instance.register("maria_77").await;
    let bad = instance.login("maria_77", PASSWORD).await.unwrap();
    let caller = who(&instance.access, &bad).await.unwrap();
    instance.access.logout(&caller, &Origin::default()).await.unwrap();
    let restarted = instance.second_process().await;
    assert!(who(&restarted, &good).await.is_ok());
    assert!(is_revoked(who(&restarted, &bad).await));
}

#[tokio::test]
async fn log_out_everywhere_ends_every_session() {
    let instance = Instance::start().await;
    let pairs = [instance.register("maria_77").await, instance.login("maria_77", PASSWORD).await.unwrap()];
    let stranger = instance.register("pedro_12").await;
    let caller = who(&instance.access, &pairs[0]).await.unwrap();
    assert_eq!(instance.access.logout_all(&caller, &Origin::default()).await.unwrap(), 2);
    for pair in &pairs {
        assert!(is_revoked(who(&instance.access, pair).await));
    }
    assert!(who(&instance.access, &stranger).await.is_ok());
}

#[tokio::test]
async fn a_session_refreshes_only_so_often_in_an_hour() {
    let mut instance = Instance::start().await;
    let limited = AccessSettings { refreshes_per_hour: Some(2), ..settings(&instance.folder) };
    instance.access = Access::open(limited).await.unwrap();
    let mut pair = instance.register("maria_77").await;
    for _ in 0..2 {
        pair = instance.refresh(&pair).await.unwrap();
    }
    let Err(AccessError::TooManyRefreshes { retry_after }) = instance.refresh(&pair).await else {
        panic!("the third refresh must wait");
    };
    assert!(retry_after.as_secs() > 3500, "{retry_after:?}");
    // The token was not used up by the refusal.
    assert!(who(&instance.access, &pair).await.is_ok());
}

#[tokio::test]
async fn security_25_rotation_moves_no_end() {
    let mut instance = Instance::start().await;
    let session_ttl = std::time::Duration::from_secs(1_000);
    instance.access = Access::open(AccessSettings { session_ttl, ..settings(&instance.folder) }).await.unwrap();
    let first = instance.register("maria_77").await;
    let end = async || instance.access.list_sessions(first.user.id).await.unwrap()[0].expires_at_us;
    let before = end().await;
    let second = instance.refresh(&first).await.unwrap();
    assert_eq!(end().await, before);
    // Nor does a token outlive its session, though it could live an hour.
    for pair in [&first, &second] {
        assert!((900..=1_000).contains(&pair.expires_in_s), "{}", pair.expires_in_s);
        assert!((900..=1_000).contains(&pair.session_ends_in_s), "{}", pair.session_ends_in_s);
    }
}

#[tokio::test]
async fn expired_sessions_cannot_be_refreshed_and_expired_tokens_are_refused() {
    let mut instance = Instance::start().await;
    let zero = std::time::Duration::ZERO;
    let short = AccessSettings { session_ttl: zero, access_token_ttl: zero, ..settings(&instance.folder) };
    instance.access = Access::open(short).await.unwrap();
    let pair = instance.register("maria_77").await;
    assert!(matches!(instance.refresh(&pair).await, Err(AccessError::RefreshRefused { reused: false })));
    let refused = who(&instance.access, &pair).await;
    assert!(matches!(refused, Err(AccessError::NotAuthenticated(TokenFault::Expired))));
}

#[tokio::test]
async fn made_up_refresh_tokens_are_refused() {
    let instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    for made_up in [String::new(), "0".repeat(64), who_token(&pair)] {
        let refused = instance.access.refresh(&secret(&made_up), &Origin::default()).await;
        assert!(matches!(refused, Err(AccessError::RefreshRefused { reused: false })));
    }
}

fn who_token(pair: &karat_access::TokenPair) -> String {
    use secrecy::ExposeSecret;
    pair.access_token.expose_secret().to_owned()
}
