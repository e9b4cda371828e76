//! What an answer to a log-in costs must not tell whether there is such an account.

use std::time::{Duration, Instant};

use karat_access::{Access, AccessError, AccessSettings, HashSettings, Origin, Role};

use crate::support::{Instance, PASSWORD, secret, set_active, settings};

async fn refused(access: &Access, name: &str) {
    let answer = access.login(name, secret("wrong-Blue-7-boats"), &Origin::default()).await;
    assert!(matches!(answer, Err(AccessError::InvalidCredentials)), "{name}: {answer:?}");
}

/// The steps are counted and not the time, which a busy machine spoils; the test below measures.
#[tokio::test]
async fn security_11_every_refused_log_in_costs_one_hash_whoever_there_is() {
    let instance = Instance::start().await;
    let access = &instance.access;
    instance.user("known_1", Role::User).await;
    let admin = instance.user("the_admin", Role::Admin).await;
    let disabled = instance.user("disabled_1", Role::User).await;
    let caller = instance.login("the_admin", PASSWORD).await.unwrap();
    let caller = crate::support::who(access, &caller).await.unwrap();
    assert_eq!(caller.id, admin.id);
    set_active(access, &caller, disabled.id, false).await.unwrap();
    let rows = async || access.verify_audit_log().await.unwrap().rows;
    for name in ["known_1", "unknown_1", "disabled_1", "nobody@example.org"] {
        let (hashes, written) = (access.hash_load().done, rows().await);
        refused(access, name).await;
        assert_eq!(access.hash_load().done - hashes, 1, "{name}");
        assert_eq!(rows().await - written, 1, "{name}: each leaves one row");
    }
}

/// Medians of 200 tries each, in turn: within a tenth of each other. `--ignored --nocapture`, on a quiet machine.
#[tokio::test]
#[ignore = "measures: needs a quiet machine and half a minute"]
async fn security_11_medians_of_unknown_names_and_wrong_passwords_are_alike() {
    const NAMES: usize = 50;
    const TRIES: usize = 4;
    let mut instance = Instance::start().await;
    let real = AccessSettings { hashing: HashSettings::default(), ..settings(&instance.folder) };
    instance.access = Access::open(real).await.unwrap();
    for number in 0..NAMES {
        instance.user(&format!("known_{number}"), Role::User).await;
    }
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        for number in 0..NAMES {
            for (kind, times) in [("known", &mut known), ("unknown", &mut unknown)] {
                let began = Instant::now();
                refused(&instance.access, &format!("{kind}_{number}")).await;
                times.push(began.elapsed());
            }
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1000.0
    };
    let (known, unknown) = (median(&mut known), median(&mut unknown));
    println!("{} tries each: wrong password {known:.1} ms, unknown name {unknown:.1} ms", NAMES * TRIES);
    assert!((known / unknown - 1.0).abs() < 0.1, "{known} and {unknown} ms");
}
