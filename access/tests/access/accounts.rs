//! Registering, logging in, roles.

use crate::support::{Instance, PASSWORD, account, secret, tokens, who};
use karat_access::{AccessError, Actor, NewAccount, Origin, Permission, Role};

#[tokio::test]
async fn fifty_parallel_registrations_of_one_address_give_one_account() {
    let instance = Instance::start().await;
    let tries = (0..50).map(|n| {
        let access = instance.access.clone();
        let account = NewAccount { email: Some("Maria@Example.org".to_owned()), ..account(&format!("maria_{n}")) };
        tokio::spawn(async move { access.register(account, &Origin::default()).await })
    });
    let (mut made, mut taken) = (0, 0);
    for task in tries.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(AccessError::Taken { field: "email" }) => taken += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((made, taken), (1, 49));
    assert_eq!(instance.access.list_users(None, 100).await.unwrap().len(), 1);
}

#[tokio::test]
async fn unknown_names_wrong_passwords_and_other_spellings_fail_alike() {
    let instance = Instance::start().await;
    instance.register("maria_77").await;
    let spaced = format!("{PASSWORD} ");
    let tries = [("nobody", PASSWORD), ("maria_77", "wrong"), ("maria_77", &spaced), ("maria_77", "Nine-Blue-7-boats")];
    for (name, password) in tries {
        let error = instance.login(name, password).await.unwrap_err();
        assert!(matches!(error, AccessError::InvalidCredentials), "{name}: {error}");
    }
    assert!(instance.login("MARIA_77", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn names_and_addresses_are_unique_without_case() {
    let instance = Instance::start().await;
    instance.register("maria_77").await;
    let again = instance.access.register(account("Maria_77"), &Origin::default()).await;
    assert!(matches!(again, Err(AccessError::Taken { field: "username" })));
}

#[tokio::test]
async fn an_address_alone_is_enough_and_logs_in() {
    let instance = Instance::start().await;
    let account = NewAccount { username: None, email: Some("maria@example.org".to_owned()), ..account("") };
    let pair = tokens(instance.access.register(account, &Origin::default()).await.unwrap());
    assert!(pair.user.username.starts_with("user_"));
    assert_eq!(instance.login("MARIA@example.org", PASSWORD).await.unwrap().user.id, pair.user.id);
}

#[tokio::test]
async fn every_broken_rule_of_every_field_is_told_at_once() {
    let instance = Instance::start().await;
    let account = NewAccount {
        username: Some("a b".to_owned()),
        email: Some("nowhere".to_owned()),
        password: secret("short"),
        full_name: Some(String::new()),
    };
    let Err(AccessError::Invalid(lines)) = instance.access.register(account, &Origin::default()).await else {
        panic!("must be refused");
    };
    for field in ["`username`", "`email`", "`full_name`", "`password`: must be 8"] {
        assert!(lines.iter().any(|line| line.starts_with(field)), "{field}: {lines:?}");
    }
    assert!(lines.iter().filter(|line| line.starts_with("`password`")).count() >= 4, "{lines:?}");
}

#[tokio::test]
async fn a_new_role_holds_without_a_new_log_in_and_in_other_processes_after_they_catch_up() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let pair = instance.register("maria_77").await;
    assert!(!who(&other, &pair).await.unwrap().has(Permission::Query));
    let id = pair.user.id;
    instance.access.set_role(id, Role::Operator, Actor::Shell, &Origin::default()).await.unwrap();
    assert!(who(&instance.access, &pair).await.unwrap().has(Permission::Query));
    other.catch_up().await.unwrap();
    assert!(who(&other, &pair).await.unwrap().has(Permission::Query));
}

#[tokio::test]
async fn security_57_two_parallel_demotions_leave_one_admin() {
    let instance = Instance::start().await;
    let (a, b) = (instance.user("admin_a", Role::Admin).await, instance.user("admin_b", Role::Admin).await);
    let origin = Origin::default();
    let demote = |id| instance.access.set_role(id, Role::User, Actor::Shell, &origin);
    let (first, second) = tokio::join!(demote(a.id), demote(b.id));
    let refused = [first, second].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert!(matches!(refused[..], [AccessError::LastAdmin]), "{refused:?}");
}

#[tokio::test]
async fn a_reset_password_ends_all_sessions() {
    let instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    let (new, origin) = (secret("other-Green-8-cars"), Origin::default());
    instance.access.reset_password(pair.user.id, new, Actor::Shell, &origin).await.unwrap();
    assert!(who(&instance.access, &pair).await.is_err());
    assert!(instance.refresh(&pair).await.is_err());
    assert!(instance.login("maria_77", PASSWORD).await.is_err());
    assert!(instance.login("maria_77", "other-Green-8-cars").await.is_ok());
}

#[tokio::test]
async fn security_81_secrets_stand_nowhere_in_the_database_files() {
    use secrecy::ExposeSecret;
    if karat_oracle::databases::server().is_some() {
        return; // Its files are the server's.
    }
    let instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    let files = std::fs::read_dir(instance.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut bytes_seen = 0;
    for file in files.filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).unwrap();
        bytes_seen += bytes.len();
        for secret in [PASSWORD, pair.refresh_token.expose_secret(), pair.access_token.expose_secret()] {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{}", file.display());
        }
    }
    assert!(bytes_seen > 0);
}
