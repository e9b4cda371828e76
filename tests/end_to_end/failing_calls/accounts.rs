//! The accounts database: an account that was answered is there, and after any failure it opens, is whole, and takes more.

use std::path::Path;

use karat_access::{Access, AccessError, AccessSettings, Actor, HashSettings, NewUser, Origin, Role};

use super::{Shim, child_folder, tell};

const ACCOUNTS: u64 = 4;

async fn open(folder: &Path) -> Result<Access, AccessError> {
    // Passwords are not what is tested here.
    let hashing = HashSettings { memory_kib: 8, passes: 1, ..HashSettings::default() };
    Access::open(AccessSettings { hashing, ..AccessSettings::in_folder(folder) }).await
}

fn name(number: u64) -> String {
    format!("user_{number}")
}

async fn create(access: &Access, number: u64) -> Result<(), AccessError> {
    let password = crate::process::PASSWORD.into();
    let new = NewUser { username: name(number), email: None, password, role: Role::User };
    access.create_user(new, Actor::Shell, &Origin::default()).await.map(drop)
}

/// Creates accounts, and notes those that were answered.
#[tokio::test]
#[ignore = "run by calls_that_fail_under_the_accounts_cost_no_account_that_was_answered"]
async fn child() {
    let Some(folder) = child_folder() else { return };
    let Ok(access) = open(&folder.join("data")).await else { return };
    for number in 0..ACCOUNTS {
        if create(&access, number).await.is_ok() {
            tell(&folder, &name(number));
        }
    }
    let _ = access.flush().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_under_the_accounts_cost_no_account_that_was_answered() {
    let Some(shim) = Shim::compile() else { return };
    let hit = shim
        .each("failing_calls::accounts::child", async |fault, left| {
            let access = open(&left.data).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            for name in &left.told {
                let user = access.find_user_by_name(name).await.unwrap();
                assert!(user.is_some(), "{fault:?}: {name} is gone of {:?}", left.told);
            }
            create(&access, ACCOUNTS).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            let chain = access.verify_audit_log().await.unwrap();
            assert!(chain.broken.is_none(), "{fault:?}: {:?}", chain.broken);
            assert!(chain.rows > u64::try_from(left.told.len()).unwrap(), "{fault:?}: {} rows", chain.rows);
        })
        .await;
    assert!(hit > 20, "only {hit} calls failed");
}
