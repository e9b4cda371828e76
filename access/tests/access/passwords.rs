//! Which passwords may be chosen, by every way to choose one.

use crate::factors::enroll;
use crate::support::{Instance, PASSWORD, account, secret, settings, tamper, tokens, who};
use karat_access::{
    Access, AccessError, AccessSettings, Actor, HashSettings, NewAccount, NewUser, Origin, PasswordRules, Role,
};
use std::fmt::Debug;

fn must_break<T: Debug>(way: &str, rule: &str, result: Result<T, AccessError>) {
    match result {
        Err(AccessError::Invalid(lines)) => {
            assert!(lines.len() == 1 && lines[0].contains(rule), "{way} should break `{rule}` alone: {lines:?}");
        }
        other => panic!("{way} should break `{rule}`: {other:?}"),
    }
}

#[tokio::test]
async fn security_05_common_passwords_and_names_are_refused_wherever_one_is_chosen() {
    let instance = Instance::start().await;
    let (access, origin) = (&instance.access, Origin::default());
    let with = |password: &str| NewAccount {
        email: Some("m.lopez@example.org".to_owned()),
        password: secret(password),
        ..account("maria_77")
    };
    let bad = [
        ("P@ssw0rd!", "tried first"),
        ("Dragon2024!", "tried first"),
        ("My-Maria_77-K9", "username"),
        ("9!M.Lopez-xyT", "username"),
        ("Gold-18-Karat!", "`karat`"),
    ];
    for (password, rule) in bad {
        must_break("registering", rule, access.register(with(password), &origin).await);
    }
    let pair = tokens(access.register(with(PASSWORD), &origin).await.unwrap());
    let caller = who(access, &pair).await.unwrap();
    access.request_password_reset("m.lopez@example.org", &origin).await.unwrap();
    let token = secret(&instance.mailed_token("Reset your password", "m.lopez@example.org").await);
    for (password, rule) in bad {
        let new = || secret(password);
        must_break("changing", rule, access.change_password(&caller, Some(secret(PASSWORD)), new(), &origin).await);
        must_break("resetting", rule, access.confirm_password_reset(&token, new(), &origin).await);
        let by_shell = access.reset_password(caller.id, new(), Actor::Shell, &origin).await;
        must_break("resetting for another", rule, by_shell);
    }
    let new =
        NewUser { username: "pedro_12".to_owned(), email: None, password: secret("x9-Pedro_12-K4b"), role: Role::User };
    must_break("creating for another", "username", access.create_user(new, Actor::Shell, &origin).await);
    assert!(instance.login("maria_77", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn security_01_lengths_are_counted_in_characters_and_nothing_is_cut_off() {
    let mut instance = Instance::start().await;
    let long = AccessSettings { password_rules: PasswordRules::Long, ..settings(&instance.folder) };
    instance.access = Access::open(long).await.unwrap();
    // Four bytes each, and all of them different.
    let faces = |count: u32| (0..count).map(|n| char::from_u32(0x1F300 + n).unwrap()).collect::<String>();
    for (count, is_allowed) in [(14, false), (15, true), (64, true), (128, true), (129, false)] {
        let name = format!("person_{count}");
        let new = NewAccount { password: secret(&faces(count)), ..account(&name) };
        let registered = instance.access.register(new, &Origin::default()).await;
        if !is_allowed {
            must_break(&name, "15 to 128", registered);
            continue;
        }
        registered.unwrap();
        let shorter = instance.login(&name, &faces(count - 1)).await;
        assert!(matches!(shorter, Err(AccessError::InvalidCredentials)), "{count}: {shorter:?}");
        assert!(instance.login(&name, &faces(count)).await.is_ok(), "{count}");
    }
}

#[tokio::test]
async fn security_01_sixty_four_characters_of_any_script_are_a_password_under_the_composed_rules() {
    let instance = Instance::start().await;
    let faces: String = (0..60).map(|n| char::from_u32(0x1F300 + n).unwrap()).collect();
    let password = format!("Ab1!{faces}");
    assert_eq!(password.chars().count(), 64);
    let new = NewAccount { password: secret(&password), ..account("maria_77") };
    assert!(instance.access.register(new, &Origin::default()).await.is_ok());
    assert!(instance.login("maria_77", &password).await.is_ok());
    must_break("seven", "8 to 128", {
        let new = NewAccount { password: secret("Ab1!xyw"), ..account("pedro_12") };
        instance.access.register(new, &Origin::default()).await
    });
}

#[tokio::test]
async fn security_01_a_shorter_password_beside_a_second_factor_keeps_the_factor() {
    let mut instance = Instance::start().await;
    let long = AccessSettings { password_rules: PasswordRules::Long, ..settings(&instance.folder) };
    instance.access = Access::open(long).await.unwrap();
    let (short, origin) = ("k boats!", Origin::default());
    let caller = enroll(&instance, "maria_77").await.caller;
    let access = &instance.access;
    let change =
        async |old: &str, new: &str| access.change_password(&caller, Some(secret(old)), secret(new), &origin).await;
    must_break("seven beside a factor", "8 to 128", change(PASSWORD, "7 boats").await);
    change(PASSWORD, short).await.unwrap();
    let by_shell = async |new: &str| access.reset_password(caller.id, secret(new), Actor::Shell, &origin).await;
    must_break("seven for another", "8 to 128", by_shell("7 boats").await);

    // Alone it would be too short.
    must_break("removing", "beside a second factor", access.remove_totp(&caller, Some(secret(short)), &origin).await);
    change(short, PASSWORD).await.unwrap();
    access.remove_totp(&caller, Some(secret(PASSWORD)), &origin).await.unwrap();
    must_break("without a factor", "15 to 128", change(PASSWORD, short).await);
    must_break("without a factor for another", "15 to 128", by_shell("fourteen chars").await);
}

#[tokio::test]
async fn security_06_a_hash_of_other_costs_is_made_anew_at_the_next_log_in() {
    const MARK: &str = "UPDATE users SET nickname = 'anew' WHERE password_hash LIKE '$argon2id$v=19$m=128,t=2,p=1$%'";
    let mut instance = Instance::start().await;
    let id = instance.register("maria_77").await.user.id;
    let hashing = HashSettings { memory_kib: 128, passes: 2, ..HashSettings::default() };
    instance.access = Access::open(AccessSettings { hashing, ..settings(&instance.folder) }).await.unwrap();
    let nickname = async || {
        tamper(&instance.folder, MARK).await.unwrap();
        instance.access.find_user(id).await.unwrap().unwrap().nickname
    };
    assert!(instance.login("maria_77", "wrong").await.is_err());
    assert_eq!(nickname().await, None, "a wrong password changes nothing");
    instance.login("maria_77", PASSWORD).await.unwrap();
    assert_eq!(nickname().await.as_deref(), Some("anew"));
    instance.login("maria_77", PASSWORD).await.unwrap();
}
