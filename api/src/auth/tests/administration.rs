//! Accounts and the audit log as those see them who manage others.

use super::outbox::mail_with;
use super::people::admin;
use super::*;

const USERS: &str = "/api/v1/admin/users";

async fn create(app: &App, root: &Reply, body: Value) -> Reply {
    app.call(Method::POST, USERS, Some(root.access_token()), Some(body)).await
}

async fn get(app: &App, caller: &Reply, path: &str) -> Reply {
    app.call(Method::GET, path, Some(caller.access_token()), None).await
}

/// The texts under a name in each element of a list.
fn each<'a>(reply: &'a Reply, list: &str, name: &str) -> Vec<&'a str> {
    let found = reply.body["data"][list].as_array().unwrap_or_else(|| panic!("{list} in {}", reply.body));
    found.iter().map(|element| element[name].as_str().unwrap()).collect()
}

#[tokio::test]
async fn accounts_are_listed_page_by_page_and_narrowed() {
    let app = App::start().await;
    let root = admin(&app, "root_1", Role::Admin).await;
    for (name, role) in [("anna_1", "moderator"), ("berta_2", "user"), ("clara_3", "user"), ("dora_4", "operator")] {
        let email = format!("{name}@Example.org");
        let body = json!({"username": name, "email": email, "password": PASSWORD, "role": role});
        assert_eq!(create(&app, &root, body).await.status, 201);
    }
    let berta = app.access.find_user_by_name("berta_2").await.unwrap().unwrap();
    let disable = json!({"is_active": false, "version": berta.version});
    let path = format!("{USERS}/{}", berta.id);
    assert_eq!(app.call(Method::PUT, &path, Some(root.access_token()), Some(disable)).await.status, 200);

    let everybody = ["root_1", "anna_1", "berta_2", "clara_3", "dora_4"];
    for list in ["/api/v1/users", USERS] {
        let (mut found, mut sizes, mut after) = (Vec::new(), Vec::new(), String::new());
        loop {
            let page = get(&app, &root, &format!("{list}?limit=2{after}")).await;
            assert_eq!(page.status, 200, "{}", page.body);
            let names = each(&page, "users", "username");
            sizes.push(names.len());
            found.extend(names.into_iter().map(str::to_owned));
            let Some(next) = page.body["data"]["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!((found, sizes), (everybody.map(str::to_owned).to_vec(), vec![2, 2, 1]), "{list}");
        for (query, expected) in [
            ("", &everybody[..]),
            ("search=%20", &everybody[..]),
            ("search=ERTA", &["berta_2"]),
            ("search=%20clara_3%40example.ORG", &["clara_3"]),
            ("search=_", &everybody[..]),
            ("search=%25", &[]),
            ("role=user", &["berta_2", "clara_3"]),
            ("role=user&is_active=true", &["clara_3"]),
            ("is_active=false", &["berta_2"]),
            ("limit=500&role=operator&search=dora", &["dora_4"]),
        ] {
            let reply = get(&app, &root, &format!("{list}?{query}")).await;
            assert_eq!(each(&reply, "users", "username"), expected, "{list}?{query}");
            assert_eq!(reply.body["data"].get("next"), None, "{list}?{query}");
        }
    }
}

#[tokio::test]
async fn what_a_list_cannot_be_narrowed_by_is_named() {
    let app = App::start().await;
    let root = admin(&app, "root_1", Role::Admin).await;
    let long = format!("search={}", "x".repeat(101));
    let of_users = [("role=emperor", "`role`: must be one of"), ("after=x", "`after`"), (long.as_str(), "`search`")];
    let of_audit = [("actor=x", "`actor`: must be a UUID"), ("target=1", "`target`")];
    let of_both = [("limit=0", "`limit`: must be 1 to 500"), ("limit=501", "`limit`")];
    for (list, own) in [("/api/v1/users", &of_users[..]), (USERS, &of_users), ("/api/v1/admin/audit", &of_audit)] {
        for (query, line) in own.iter().chain(&of_both) {
            let reply = get(&app, &root, &format!("{list}?{query}")).await;
            assert_eq!(reply.refusal(), (422, "validation_error"), "{list}?{query}");
            assert!(reply.text("/details/0").starts_with(line), "{list}?{query}: {}", reply.body);
        }
        let unreadable = get(&app, &root, &format!("{list}?limit=many")).await;
        assert_eq!(unreadable.refusal(), (400, "invalid_parameter"), "{list}");
    }
}

#[tokio::test]
async fn an_admin_makes_an_account_for_somebody_who_can_log_in() {
    let app = App::start().await;
    let root = admin(&app, "root_1", Role::Admin).await;
    let moderator = admin(&app, "mod_1", Role::Moderator).await;
    let full = json!({"username": "maria_77", "email": "maria@example.org", "password": PASSWORD, "role": "operator"});
    let made = create(&app, &root, full.clone()).await;
    assert_eq!((made.status, made.text("/data/role")), (201, "operator"), "{}", made.body);
    assert_eq!((made.text("/data/email"), &made.body["data"]["is_verified"]), ("maria@example.org", &json!(false)));
    let login = app.post("/api/v1/auth/login", json!({"email": "maria@example.org", "password": PASSWORD})).await;
    assert_eq!((login.status, login.text("/data/user/id")), (200, made.text("/data/id")), "{}", login.body);
    let plain = create(&app, &root, json!({"username": "pedro_12", "password": PASSWORD})).await;
    assert_eq!((plain.status, plain.text("/data/role")), (201, "user"), "{}", plain.body);

    let with = |field: &str, value: &str| {
        let mut body = json!({"username": "another_1", "email": "another@example.org", "password": PASSWORD});
        body[field] = value.into();
        body
    };
    for (body, expected, line) in [
        (with("username", "MARIA_77"), (409, "already_taken"), "`username`: is taken"),
        (with("email", "Maria@example.org"), (409, "already_taken"), "`email`: is taken"),
        (with("role", "emperor"), (422, "validation_error"), "`role`: must be one of `user`, `moderator`"),
        (with("username", "a b"), (422, "validation_error"), "`username`"),
        (with("email", "nowhere"), (422, "validation_error"), "`email`"),
        (with("password", "password"), (422, "validation_error"), "`password`"),
    ] {
        let refused = create(&app, &root, body.clone()).await;
        assert_eq!(refused.refusal(), expected, "{body}");
        assert!(refused.text("/details/0").starts_with(line), "{body}: {}", refused.body);
    }
    for caller in [&moderator, &login] {
        assert_eq!(create(&app, caller, with("role", "user")).await.refusal(), (403, "forbidden"));
    }
}

#[tokio::test]
async fn an_admin_changes_disables_and_deletes_an_account() {
    let app = App::start().await;
    let root = admin(&app, "root_1", Role::Admin).await;
    let moderator = admin(&app, "mod_1", Role::Moderator).await;
    let maria = app.register("maria_77").await;
    let path = format!("{USERS}/{}", maria.text("/data/user/id"));
    let put =
        async |caller: &Reply, body: Value| app.call(Method::PUT, &path, Some(caller.access_token()), Some(body)).await;

    let mut change = json!({"username": "maria_78", "nickname": "Mari", "full_name": "Maria Lopez", "version": 1});
    change["email"] = "maria@example.org".into();
    assert_eq!(put(&moderator, change.clone()).await.refusal(), (403, "forbidden"), "only whether it is enabled");
    let changed = put(&root, change.clone()).await;
    let names = (changed.text("/data/username"), changed.text("/data/nickname"), changed.text("/data/full_name"));
    assert_eq!((changed.status, names), (200, ("maria_78", "Mari", "Maria Lopez")), "{}", changed.body);
    let mail = mail_with(&app, "Confirm your e-mail address", 1).await;
    assert!(mail.contains("To: maria@example.org"), "{mail}");
    assert_eq!(put(&root, change).await.refusal(), (409, "outdated_version"));
    let version = changed.body["data"]["version"].clone();
    let unnamed = put(&root, json!({"nickname": "", "version": version})).await;
    assert_eq!((unnamed.status, unnamed.body["data"].get("nickname")), (200, None), "{}", unnamed.body);
    assert_eq!(app.me(maria.access_token()).await.text("/data/username"), "maria_78");

    let log_in = async || app.post("/api/v1/auth/login", json!({"username": "maria_78", "password": PASSWORD})).await;
    let switch = async |caller: &Reply, is_active: bool| {
        let version = get(&app, &root, &path.replace("/admin", "")).await.body["data"]["version"].clone();
        put(caller, json!({"is_active": is_active, "version": version})).await
    };
    assert_eq!(switch(&moderator, false).await.body["data"]["is_active"], false);
    assert_eq!(app.me(maria.access_token()).await.status, 401);
    assert_eq!(log_in().await.refusal(), (401, "invalid_credentials"));
    assert_eq!(switch(&root, true).await.body["data"]["is_active"], true);
    let back = log_in().await;
    assert_eq!(back.status, 200, "{}", back.body);

    let delete =
        async |caller: &Reply, path: &str| app.call(Method::DELETE, path, Some(caller.access_token()), None).await;
    assert_eq!(delete(&moderator, &path).await.refusal(), (403, "forbidden"));
    let deleted = delete(&root, &path).await;
    assert_eq!((deleted.status, deleted.text("/data")), (200, maria.text("/data/user/id")), "{}", deleted.body);
    assert_eq!(app.me(back.access_token()).await.status, 401);
    assert_eq!(delete(&root, &path).await.refusal(), (404, "not_found"));
    let own = format!("{USERS}/{}", root.text("/data/user/id"));
    assert_eq!(delete(&root, &own).await.refusal(), (403, "forbidden"), "the own one needs the password");
    let body = Some(json!({"password": PASSWORD}));
    let last = app.call(Method::DELETE, "/api/v1/users/me", Some(root.access_token()), body).await;
    assert_eq!(last.refusal(), (409, "last_admin"), "{}", last.body);
}

#[tokio::test]
async fn whoever_is_nobody_is_not_found_by_any_route() {
    let app = App::start().await;
    let root = admin(&app, "root_1", Role::Admin).await;
    let change = || Some(json!({"is_active": false, "version": 1}));
    for id in ["01900000-0000-7000-8000-000000000000", "x", "0190"] {
        for (method, path, body) in [
            (Method::GET, format!("/api/v1/users/{id}"), None),
            (Method::PUT, format!("/api/v1/users/{id}"), change()),
            (Method::DELETE, format!("/api/v1/users/{id}"), None),
            (Method::PUT, format!("{USERS}/{id}"), change()),
            (Method::DELETE, format!("{USERS}/{id}"), None),
            (Method::PUT, format!("{USERS}/{id}/role"), Some(json!({"role": "user"}))),
            (Method::DELETE, format!("{USERS}/{id}/sessions"), None),
        ] {
            let reply = app.call(method.clone(), &path, Some(root.access_token()), body).await;
            assert_eq!(reply.refusal(), (404, "not_found"), "{method} {path}");
        }
    }
    let maria = app.register("maria_77").await;
    let path = format!("{USERS}/{}/role", maria.text("/data/user/id"));
    let unknown = app.call(Method::PUT, &path, Some(root.access_token()), Some(json!({"role": "emperor"}))).await;
    assert_eq!(unknown.refusal(), (422, "validation_error"));
    let sessions = format!("{USERS}/{}/sessions", maria.text("/data/user/id"));
    let ended = app.call(Method::DELETE, &sessions, Some(root.access_token()), None).await;
    assert_eq!((ended.status, &ended.body["data"]), (200, &json!(1)), "{}", ended.body);
}

#[tokio::test]
async fn the_audit_log_is_read_page_by_page_and_narrowed() {
    let app = App::start().await;
    let root = admin(&app, "root_1", Role::Admin).await;
    let maria = app.register("maria_77").await;
    let id = maria.text("/data/user/id");
    app.post("/api/v1/auth/login", json!({"username": "maria_77", "password": "wrong"})).await;
    let body = Some(json!({"role": "operator"}));
    let path = format!("{USERS}/{id}/role");
    assert_eq!(app.call(Method::PUT, &path, Some(root.access_token()), body).await.status, 200);

    let read = async |query: &str| get(&app, &root, &format!("/api/v1/admin/audit?{query}")).await;
    let whole = read("").await;
    let rows = whole.body["data"]["rows"].as_array().unwrap().clone();
    assert_eq!(whole.body["data"].get("next"), None);
    let numbers: Vec<_> = rows.iter().map(|row| row["seq"].as_i64().unwrap()).collect();
    let expected: Vec<i64> = (1..=i64::try_from(rows.len()).unwrap()).rev().collect();
    assert_eq!(numbers, expected, "newest first, without gaps");
    let (mut found, mut before) = (Vec::new(), String::new());
    loop {
        let page = read(&format!("limit=2{before}")).await;
        let part = page.body["data"]["rows"].as_array().unwrap();
        assert!(part.len() <= 2, "{}", page.body);
        found.extend(part.iter().cloned());
        let Some(next) = page.body["data"]["next"].as_i64() else { break };
        before = format!("&before={next}");
    }
    assert_eq!(found, rows);

    let newest = &rows[0];
    assert_eq!((&newest["action"], &newest["target_id"]), (&json!("role_set"), &json!(id)));
    assert_eq!(
        (&newest["actor_kind"], &newest["actor_id"], &newest["outcome"]),
        (&json!("user"), &root.body["data"]["user"]["id"], &json!("success"))
    );
    let details: Value = serde_json::from_str(newest["details"].as_str().unwrap()).unwrap();
    assert_eq!(details, json!({"role": "operator"}));
    assert_eq!(newest["hash"].as_str().map(str::len), Some(64));
    assert!(newest["request_id"].is_string() && newest["at"].as_str().unwrap().ends_with('Z'), "{newest}");

    for (query, expected) in [
        (format!("actor={id}"), &["login", "register"][..]),
        (format!("target={id}&actor={}", root.text("/data/user/id")), &["role_set"]),
        ("outcome=denied".to_owned(), &["login"]),
        ("outcome=denied&action=register".to_owned(), &[]),
        ("action=nothing".to_owned(), &[]),
    ] {
        assert_eq!(each(&read(&query).await, "rows", "action"), expected, "{query}");
    }
}
