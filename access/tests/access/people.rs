//! Other people's accounts, attempts, deletion, consent.

use crate::lockout::hold;
use crate::passkeys::{add_passkey, log_in};
use crate::support::{Instance, PASSWORD, secret, set_active, settings, tamper, who};
use karat_access::{
    Access, AccessError, AccessSettings, Actor, AuditFilter, Caller, CallerKind, ConsentPlace, Origin, ProfileChange,
    Role, User, UserFilter,
};
use karat_oracle::passkeys::Page;
use std::time::{Duration, Instant};

fn caller(user: &User) -> Caller {
    let kind = CallerKind::User { session: uuid::Uuid::now_v7() };
    Caller { id: user.id, username: user.username.as_str().into(), role: user.role, kind }
}

#[tokio::test]
async fn security_57_nobody_changes_the_own_role_or_goes_past_the_own() {
    let instance = Instance::start().await;
    let (admin, moderator) =
        (instance.user("admin_a", Role::Admin).await, instance.user("mod_a", Role::Moderator).await);
    let (user, operator) = (instance.user("user_a", Role::User).await, instance.user("op_a", Role::Operator).await);
    let (access, origin) = (&instance.access, Origin::default());
    let own = access.set_role_of(&caller(&admin), admin.id, Role::User, &origin).await;
    assert!(matches!(own, Err(AccessError::Forbidden { .. })));
    for who in [&moderator, &operator, &user] {
        for target in [&user, who] {
            for role in Role::ALL {
                let refused = access.set_role_of(&caller(who), target.id, role, &origin).await;
                assert!(matches!(refused, Err(AccessError::Forbidden { .. })), "{who:?} {role}");
            }
        }
    }
    assert_eq!(
        access.set_role_of(&caller(&admin), user.id, Role::Operator, &origin).await.unwrap().role,
        Role::Operator
    );
    let denied = AuditFilter { outcome: Some("denied".to_owned()), ..AuditFilter::default() };
    assert_eq!(access.audit_log(&denied, 10).await.unwrap()[0].actor_id, Some(admin.id));
    // A role like the own one is given by admins alone, or there could be no second one.
    assert_eq!(access.set_role_of(&caller(&admin), user.id, Role::Admin, &origin).await.unwrap().role, Role::Admin);
}

#[tokio::test]
async fn a_moderator_disables_users_only_and_their_sessions_end_at_once() {
    let instance = Instance::start().await;
    let (moderator, admin) =
        (instance.user("mod_a", Role::Moderator).await, instance.user("admin_a", Role::Admin).await);
    let access = &instance.access;
    let pair = instance.register("maria_77").await;
    let disabled = set_active(access, &caller(&moderator), pair.user.id, false).await.unwrap();
    assert!(!disabled.is_active);
    assert!(who(access, &pair).await.is_err() && instance.refresh(&pair).await.is_err());
    assert!(matches!(instance.login("maria_77", PASSWORD).await, Err(AccessError::InvalidCredentials)));
    for target in [&admin, &moderator] {
        let refused = set_active(access, &caller(&moderator), target.id, false).await;
        assert!(matches!(refused, Err(AccessError::Forbidden { .. })));
    }
    assert!(set_active(access, &caller(&moderator), pair.user.id, true).await.unwrap().is_active);
    assert!(instance.login("maria_77", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn security_57_two_admins_who_end_each_other_leave_one() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let (a, b) = (instance.user("admin_a", Role::Admin).await, instance.user("admin_b", Role::Admin).await);
    let (ca, cb, origin) = (caller(&a), caller(&b), Origin::default());
    let (first, second) =
        tokio::join!(set_active(&instance.access, &ca, b.id, false), other.delete_user(&cb, a.id, &origin),);
    let failures = [first.map(drop), second.map(drop)].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert!(matches!(failures[..], [AccessError::LastAdmin]), "{failures:?}");
}

#[tokio::test]
async fn security_57_a_change_of_an_account_is_made_whole_or_not_at_all() {
    let instance = Instance::start().await;
    let (a, b) = (instance.user("admin_a", Role::Admin).await, instance.user("admin_b", Role::Admin).await);
    let moderator = instance.user("mod_a", Role::Moderator).await;
    let (access, origin) = (&instance.access, Origin::default());
    let disable = async |by: &User, target: &User, version: i64| {
        let change = ProfileChange { nickname: Some("Mari".to_owned()), version, ..ProfileChange::default() };
        access.update_user_of(&caller(by), target.id, change, Some(false), &origin).await
    };
    let outdated = disable(&a, &b, 7).await;
    assert!(matches!(outdated, Err(AccessError::Outdated { version: 1 })), "{outdated:?}");
    // Oneself; somebody whom a moderator may not touch; below, the last admin, by one who is none any more.
    for (by, target) in [(&a, &a), (&moderator, &b)] {
        let refused = disable(by, target, 1).await;
        assert!(matches!(refused, Err(AccessError::Forbidden { .. })), "{refused:?}");
    }
    tamper(&instance.folder, "UPDATE users SET is_active = 0 WHERE username_key = 'admin_a'").await.unwrap();
    let refused = disable(&a, &b, 1).await;
    assert!(matches!(refused, Err(AccessError::LastAdmin)), "{refused:?}");
    for user in [&a, &b] {
        let now = access.find_user(user.id).await.unwrap().unwrap();
        assert_eq!((now.version, now.nickname), (1, None));
    }
    tamper(&instance.folder, "UPDATE users SET is_active = 1 WHERE username_key = 'admin_a'").await.unwrap();
    let pair = instance.login("admin_b", PASSWORD).await.unwrap();
    let changed = disable(&a, &b, 1).await.unwrap();
    assert_eq!((changed.nickname.as_deref(), changed.is_active), (Some("Mari"), false));
    assert!(who(access, &pair).await.is_err() && instance.refresh(&pair).await.is_err());
    for action in ["user_update", "user_deactivate"] {
        let done = AuditFilter {
            action: Some(action.to_owned()),
            outcome: Some("success".to_owned()),
            ..AuditFilter::default()
        };
        assert_eq!(access.audit_log(&done, 10).await.unwrap().len(), 1, "{action}");
    }
}

#[tokio::test]
async fn users_are_found_by_part_role_and_state_in_pages() {
    let instance = Instance::start().await;
    for name in ["maria_77", "marius_1", "pedro_12", "100_percent"] {
        instance.user(name, Role::User).await;
    }
    let admin = instance.user("mariana", Role::Admin).await;
    let list = async |filter: UserFilter, limit| {
        let users = instance.access.search_users(&filter, limit).await.unwrap();
        users.into_iter().map(|user| user.username).collect::<Vec<_>>()
    };
    let by = |search: &str| UserFilter { search: Some(search.to_owned()), ..UserFilter::default() };
    assert_eq!(list(by("MARI"), 10).await, ["maria_77", "marius_1", "mariana"]);
    assert_eq!(list(by("%"), 10).await, Vec::<String>::new());
    assert_eq!(list(by("a_7"), 10).await, ["maria_77"]);
    assert_eq!(list(UserFilter { role: Some(Role::Admin), ..by("mari") }, 10).await, ["mariana"]);
    assert_eq!(list(UserFilter { is_active: Some(false), ..UserFilter::default() }, 10).await, Vec::<String>::new());
    let first = instance.access.search_users(&by("mari"), 2).await.unwrap();
    assert_eq!(list(UserFilter { after: Some(first[1].id), ..by("mari") }, 2).await, ["mariana"]);
    assert_eq!(list(by("' OR 1=1 --"), 10).await, Vec::<String>::new());
    assert_eq!(admin.role, Role::Admin);
}

/// PostgreSQL refuses a statement with a NUL in a value: none may reach it.
#[tokio::test]
async fn names_with_nul_find_nobody() {
    let instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let (access, origin) = (&instance.access, Origin::default());
    for text in ["\0", "maria_77\0", "maria_77\u{1b}"] {
        assert!(matches!(instance.login(text, PASSWORD).await, Err(AccessError::InvalidCredentials)), "{text:?}");
        assert!(access.find_user_by_name(text).await.unwrap().is_none(), "{text:?}");
        let search = UserFilter { search: Some(text.to_owned()), ..UserFilter::default() };
        assert!(access.search_users(&search, 10).await.unwrap().is_empty(), "{text:?}");
        let action = AuditFilter { action: Some(text.to_owned()), ..AuditFilter::default() };
        let outcome = AuditFilter { outcome: Some(text.to_owned()), ..AuditFilter::default() };
        for filter in [action, outcome] {
            assert!(access.audit_log(&filter, 10).await.unwrap().is_empty(), "{text:?}");
        }
        let unlinked = access.unlink_oauth(&caller, text, Some(secret(PASSWORD)), &origin).await;
        assert!(matches!(unlinked, Err(AccessError::NotFound { .. })), "{text:?}");
    }
}

#[tokio::test]
async fn a_profile_change_to_an_older_version_is_refused() {
    let instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let change = |nickname: &str, version| {
        let change = ProfileChange { nickname: Some(nickname.to_owned()), version, ..ProfileChange::default() };
        let (access, caller) = (instance.access.clone(), caller.clone());
        async move { access.update_own_account(&caller, change, &Origin::default()).await }
    };
    let (first, second) = tokio::join!(change("mari", pair.user.version), change("ria", pair.user.version));
    let outdated = [&first, &second].into_iter().filter(|r| matches!(r, Err(AccessError::Outdated { .. }))).count();
    assert_eq!(outdated, 1, "{first:?} {second:?}");
    let user = first.or(second).unwrap();
    let cleared = change("", user.version).await.unwrap();
    assert_eq!(cleared.nickname, None);
}

#[tokio::test]
async fn security_60_a_deleted_account_stops_at_once_and_a_purge_leaves_nothing_of_it() {
    let mut instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let origin = Origin::default();
    assert!(instance.access.delete_own_account(&caller, Some(secret("wrong")), &origin).await.is_err());
    instance.access.grant_consent(&caller, "1", "web", &origin).await.unwrap();
    let page = Page::of("karat.example.org");
    let (mut passkey, _) = add_passkey(&instance.access, &caller, &page).await;
    instance.access.delete_own_account(&caller, Some(secret(PASSWORD)), &origin).await.unwrap();
    assert!(who(&instance.access, &pair).await.is_err() && instance.login("maria_77", PASSWORD).await.is_err());
    assert!(log_in(&instance.access, &mut passkey, &page).await.is_err());
    // The name stays taken until the account is gone for good.
    let again = instance.access.register(crate::support::account("maria_77"), &origin).await;
    assert!(matches!(again, Err(AccessError::Taken { .. })), "{again:?}");
    let at_once = AccessSettings { keep_deleted: Duration::ZERO, ..settings(&instance.folder) };
    instance.access = Access::open(at_once).await.unwrap();
    instance.access.purge().await.unwrap();
    let second = instance.register("maria_77").await;
    assert_ne!(second.user.id, pair.user.id);
    assert!(instance.access.list_consents(pair.user.id, None).await.unwrap().0.is_empty());
    assert!(instance.access.list_passkeys(pair.user.id).await.unwrap().is_empty());
    assert!(who(&instance.access, &pair).await.is_err());
}

#[tokio::test]
async fn security_60_a_purge_removes_everybody_whose_time_is_over_however_many_they_are() {
    let instance = Instance::start().await;
    for n in 0..101 {
        instance.user(&format!("person_{n}"), Role::User).await;
    }
    let stays = instance.register("maria_77").await;
    let gone = "UPDATE users SET deleted_at = 1, is_active = 0 WHERE username_key LIKE 'person%'";
    tamper(&instance.folder, gone).await.unwrap();
    instance.access.purge().await.unwrap();
    let filter = AuditFilter { action: Some("user_purge".to_owned()), ..AuditFilter::default() };
    assert_eq!(instance.access.audit_log(&filter, 200).await.unwrap().len(), 101);
    assert!(who(&instance.access, &stays).await.is_ok());
    // The names are free again.
    instance.register("person_100").await;
}

#[tokio::test]
async fn security_84_consent_keeps_every_step_with_its_version() {
    let instance = Instance::start().await;
    let pair = instance.register("maria_77").await;
    let caller = who(&instance.access, &pair).await.unwrap();
    let (access, origin) = (&instance.access, Origin::default());
    assert!(matches!(access.revoke_consent(&caller, "web", &origin).await, Err(AccessError::NotFound { .. })));
    access.grant_consent(&caller, "2026-01", "web", &origin).await.unwrap();
    access.grant_consent(&caller, "2026-02", "web", &origin).await.unwrap();
    let user = access.revoke_consent(&caller, "api", &origin).await.unwrap();
    assert_eq!((user.consent_status.as_str(), user.consent_version.as_deref()), ("revoked", Some("2026-02")));
    let (steps, next) = access.list_consents(caller.id, None).await.unwrap();
    assert_eq!(next, None);
    let steps: Vec<_> = steps.iter().map(|step| (step.status.as_str(), step.version.as_str())).collect();
    assert_eq!(steps, [("revoked", "2026-02"), ("granted", "2026-02"), ("granted", "2026-01")]);
}

#[tokio::test]
async fn steps_of_consent_are_read_a_page_at_a_time_and_none_is_left_out() {
    // Two at each time, so that the edge of the page is between two of the same.
    const OLD: &str = "INSERT INTO consents (id, user_id, status, version, source, at) \
                       WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
                       SELECT replace('00000000-0000-7000-8000-x', 'x', CAST(100000000000 + i AS CHAR(12))), \
                       (SELECT max(id) FROM users), 'granted', 'old', 'api', i + i % 2 FROM n";
    let instance = Instance::start().await;
    let caller = who(&instance.access, &instance.register("maria_77").await).await.unwrap();
    tamper(&instance.folder, OLD).await.unwrap();
    instance.access.grant_consent(&caller, "2026-01", "web", &Origin::default()).await.unwrap();
    let (newest, next) = instance.access.list_consents(caller.id, None).await.unwrap();
    assert_eq!((newest.len(), newest[0].version.as_str()), (1_000, "2026-01"));
    assert_eq!((newest[999].at_us, next), (2, Some(ConsentPlace::from(&newest[999]))));
    let (oldest, next) = instance.access.list_consents(caller.id, next).await.unwrap();
    assert_eq!((oldest.len(), oldest[0].at_us, next), (1, 2, None));
    assert!(oldest[0].id < newest[999].id, "the other of that time");
    let data = instance.access.export_own_data(&caller, None).await.unwrap();
    assert_eq!((data.consents.len(), data.cut), (1_000, vec!["consents"]));
}

#[tokio::test]
async fn security_14_fifty_parallel_guesses_are_five_guesses() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    instance.user("maria_77", Role::User).await;
    let began = Instant::now();
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let access = if n % 2 == 0 { instance.access.clone() } else { other.clone() };
            tokio::spawn(async move { access.login("maria_77", secret("wrong"), &Origin::default()).await })
        })
        .collect();
    let (mut looked_at, mut told_to_wait) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Err(AccessError::InvalidCredentials) => looked_at += 1,
            Err(AccessError::TooManyAttempts { .. }) => told_to_wait += 1,
            other => panic!("{other:?}"),
        }
    }
    // The first wait is two seconds, each further one twice as long: on a slow machine some are over meanwhile.
    let (took, waits) = (began.elapsed(), |count: u32| Duration::from_secs(2 * (2_u64.pow(count) - 1)));
    let over = (1..10).filter(|count| waits(*count) <= took).count();
    assert!((5..=5 + over).contains(&looked_at), "{looked_at} guesses in {took:?}");
    assert_eq!(looked_at + told_to_wait, 50);
}

#[tokio::test]
async fn security_13_an_address_that_the_account_knows_is_not_held_up_by_guesses_from_elsewhere() {
    let instance = Instance::start().await;
    let at = |ip: &str| Origin::new(Some(ip.parse().unwrap()), None, None);
    let access = &instance.access;
    access
        .create_user(
            karat_access::NewUser {
                username: "maria_77".to_owned(),
                email: None,
                password: secret(PASSWORD),
                role: Role::User,
            },
            Actor::Shell,
            &Origin::default(),
        )
        .await
        .unwrap();
    access.login("maria_77", secret(PASSWORD), &at("10.0.0.1")).await.unwrap();
    for n in 0..6 {
        let _ = access.login("maria_77", secret("wrong"), &at(&format!("10.9.0.{n}"))).await;
    }
    hold(&instance).await;
    let elsewhere = access.login("maria_77", secret(PASSWORD), &at("10.9.0.7")).await;
    assert!(matches!(elsewhere, Err(AccessError::TooManyAttempts { .. })));
    assert!(access.login("maria_77", secret(PASSWORD), &at("10.0.0.1")).await.is_ok());
}
