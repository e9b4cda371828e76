//! Accounts, keys and exit codes, from the shell.

use reqwest::StatusCode;
use serde_json::Value;

use crate::{
    client::{Client, run_event},
    process::{Folder, PASSWORD, run, run_with},
};

#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_keys_made_in_the_shell_count_at_once() {
    let folder = Folder::new();
    let mut karat = folder.start("karat", &["up", "--listen", "127.0.0.1:0"]);
    let url = karat.url().await;
    let key = folder.account("ada", "user").await;
    let ada = Client::log_in(&url, "ada", PASSWORD).await;
    ada.ready().await;
    let publisher = Client::new(&url, &key);
    publisher.arrive(&[run_event(1)], "gold").await;

    // A user may not replay; an operator may.
    let replay = || ada.post("/api/v1/admin/replays").json(&serde_json::json!({"pipeline": "etl_runs"})).send();
    assert_eq!(replay().await.unwrap().status(), StatusCode::FORBIDDEN);
    folder.run(&["user", "set-role", "ada", "operator"]).await.ok();
    let users = folder.run(&["user", "list", "--format", "json"]).await.json();
    assert_eq!((&users[0]["username"], &users[0]["role"]), (&"ada".into(), &"operator".into()));
    let ada = Client::log_in(&url, "ada", PASSWORD).await;
    let ordered =
        ada.post("/api/v1/admin/replays").json(&serde_json::json!({"pipeline": "etl_runs"})).send().await.unwrap();
    let (status, text) = (ordered.status(), ordered.text().await.unwrap());
    assert!(status.is_success(), "{text}");
    let ordered: Value = serde_json::from_str(&text).unwrap();

    // Who ordered it is on record.
    folder.run(&["user", "set-role", "ada", "admin"]).await.ok();
    let ada = Client::log_in(&url, "ada", PASSWORD).await;
    let audit = ada.data("/api/v1/admin/audit?action=replay_order").await;
    let rows = audit["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{audit}");
    let details = r#"{"pipeline":"etl_runs"}"#;
    assert_eq!((&rows[0]["target_id"], &rows[0]["details"]), (&ordered["data"]["id"], &details.into()), "{audit}");
    assert_eq!((&rows[0]["actor_kind"], &rows[0]["actor_id"]), (&"user".into(), &users[0]["id"]), "{audit}");

    // A revoked key is refused from then on.
    let keys = ada.data("/api/v1/api-keys").await;
    let id = find_id(&keys).unwrap_or_else(|| panic!("no key in {keys}"));
    folder.run(&["key", "revoke", &id]).await.ok();
    crate::wait::until("the revoked key is refused", async || {
        let answer = publisher.publish(&[run_event(2)], "").await.unwrap();
        (answer.status() == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    karat.stop().await;
}

/// The id of the first key in an answer.
fn find_id(keys: &Value) -> Option<String> {
    let list = keys.as_array().or_else(|| keys.as_object()?.values().find_map(Value::as_array))?;
    Some(list.first()?["id"].as_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_has_its_exit_code() {
    let folder = Folder::new();
    let usage = [
        &["frobnicate"][..],
        &["user", "create", "--username", "ada", "--role", "emperor", "--password-stdin"],
        &["user", "set-role", "nobody", "admin"],
        &["key", "create", "--owner", "nobody"],
        &["key", "revoke", "not-an-id"],
        &["replay", "start", "nothing", "--all"],
        &["replay", "start", "etl_runs"],
        &["replay", "plan", "etl_runs"],
        &["replay", "plan", "etl_runs", "--from", "2026-01-01"],
        &["replay", "plan", "etl_runs", "--to", "2026-01-01"],
        &["replay", "plan", "etl_runs", "--all", "--from", "2026-01-01", "--to", "2026-01-02"],
        &["replay", "start", "etl_runs", "--from", "2026-01-02", "--to", "2026-01-02"],
        &["replay", "start", "etl_runs", "--from", "yesterday", "--to", "2026-01-02"],
        &["table", "show", "gold.nothing"],
        &["query", "SELEC 1"],
    ];
    for words in usage {
        let said = folder.run(words).await;
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{words:?}: {said:?}");
        assert!(!said.err.is_empty(), "{words:?}");
    }
    for role in ["ingest", "transform", "api"] {
        let said = folder.run(&[role]).await;
        assert_eq!(said.code, 78, "{said:?}");
        assert!(said.err.contains("--kafka"), "{said:?}");
    }
    let words = ["publish", "-", "--url", "http://127.0.0.1:1", "--key", "kk_none"];
    let said = run_with(&words, &run_event(1).to_string()).await;
    assert_eq!(said.code, 69, "{said:?}");
    assert_eq!(run(&["version"]).await.ok(), format!("karat {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_on_one_folder_is_refused() {
    let folder = Folder::new();
    let mut karat = folder.start("karat", &["up", "--listen", "127.0.0.1:0"]);
    karat.url().await;
    let said = folder.run(&["up", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(said.code, 78, "{said:?}");
    assert!(said.err.contains("in use"), "{said:?}");
    karat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_09_nobody_is_an_admin_at_first_and_short_or_open_secrets_end_the_start() {
    use std::{fs, os::unix::fs::PermissionsExt};
    let folder = Folder::new();
    assert_eq!(folder.run(&["user", "list", "--format", "json"]).await.json(), serde_json::json!([]));
    let mut karat = folder.start("karat", &["up", "--listen", "127.0.0.1:0"]);
    let register = format!("{}/api/v1/auth/register", karat.url().await);
    let body = serde_json::json!({"username": "admin", "password": PASSWORD});
    let answer = crate::client::http().post(register).json(&body).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["data"]["user"]["role"], "user", "{answer}");
    karat.stop().await;

    let keys = folder.path("data/keys");
    let refused = async |name: &str| {
        let said = folder.run(&["up", "--listen", "127.0.0.1:0"]).await;
        assert_eq!(said.code, 78, "{name}: {said:?}");
        assert!(said.err.contains(name), "{name}: {said:?}");
    };
    for name in ["instance.secret", "sealing.key"] {
        let whole = fs::read(keys.join(name)).unwrap();
        fs::write(keys.join(name), "00").unwrap();
        refused(name).await;
        fs::write(keys.join(name), whole).unwrap();
    }
    let files = fs::read_dir(&keys).unwrap().map(|entry| entry.unwrap().path());
    let pem = files.into_iter().find(|path| path.extension().is_some_and(|ext| ext == "pem")).unwrap();
    fs::set_permissions(&pem, fs::Permissions::from_mode(0o644)).unwrap();
    refused("chmod 600").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_of_a_pipelines_file_is_named_with_file_and_line() {
    let folder = Folder::new();
    let path = folder.text("pipelines.toml");
    let text = "version = 1\n\n[[topic]]\nname = \"shop\"\npartitoins = 3\n\n[[event]]\ntype = \"order\"\ntopic = \"nowhere\"\n\n\
                [[pipeline]]\nname = \"Shop\"\ntopic = \"shop\"\n\n[[pipeline.silver]]\nname = \"orders\"\nmode = \"upsurt\"\n";
    std::fs::write(&path, text).unwrap();
    for words in [
        &["validate", &path][..],
        &["up", "--pipelines", &path, "--data-dir", &folder.data(), "--listen", "127.0.0.1:0"],
    ] {
        let said = run(words).await;
        assert_eq!((said.code, said.out.as_str()), (78, ""), "{said:?}");
        for line in [5, 8, 11, 17] {
            assert!(said.err.contains(&format!("{path}:{line}: ")), "line {line} is missing: {}", said.err);
        }
    }
    assert_eq!(run(&["validate"]).await.code, 0);

    // Names and types hold, and the SQL does not.
    let text = "version = 1\n[[topic]]\nname = \"shop\"\n[[event]]\ntype = \"order\"\ntopic = \"shop\"\n[[pipeline]]\nname = \"shop\"\n\
                topic = \"shop\"\n[[pipeline.input]]\nname = \"changes\"\ntypes = [\"order\"]\ninto = \"orders\"\n\
                columns = [{ name = \"id\", type = \"string\" }]\nsql = \"SELECT idd FROM changes\"\n\
                [[pipeline.silver]]\nname = \"orders\"\nmode = \"append\"\n";
    std::fs::write(&path, text).unwrap();
    let said = run(&["validate", &path]).await;
    assert_eq!(said.code, 78, "{said:?}");
    assert!(said.err.contains(&format!("{path}:10: ")) && said.err.contains("idd"), "{said:?}");

    // A problem of names does not hide one of SQL.
    std::fs::write(&path, text.replace("[[topic]]", "[[topic]]\npartitoins = 3")).unwrap();
    let said = run(&["validate", &path]).await;
    assert_eq!(said.code, 78, "{said:?}");
    assert!(said.err.contains(&format!("2 problems\n{path}:3: ")), "{said:?}");
    assert!(said.err.contains(&format!("{path}:11: ")) && said.err.contains("idd"), "{said:?}");

    // A file of a reference table that is missing, or is not what it should be.
    let reference =
        "[[reference]]\nname = \"rates\"\nfile = \"rates.csv\"\ncolumns = [{ name = \"rate\", type = \"float64\" }]\n";
    std::fs::write(&path, format!("{}{reference}", text.replace("idd", "id"))).unwrap();
    for (content, reason) in [(None, "No such file"), (Some("rat\n1.5\n"), "`rate`"), (Some("rate\nmuch\n"), "much")] {
        if let Some(content) = content {
            std::fs::write(folder.text("rates.csv"), content).unwrap();
        }
        for words in [
            &["validate", &path][..],
            &["up", "--pipelines", &path, "--data-dir", &folder.data(), "--listen", "127.0.0.1:0"],
        ] {
            let said = run(words).await;
            assert_eq!(said.code, 78, "{said:?}");
            assert!(said.err.contains(&format!("{path}:19: ")) && said.err.contains(reason), "{said:?}");
        }
    }
    std::fs::write(folder.text("rates.csv"), "rate\n1.5\n").unwrap();
    assert_eq!(run(&["validate", &path]).await.code, 0);

    // An endpoint that would answer the rows of others.
    let endpoint = "[[pipeline.gold]]\nname = \"counts\"\nsql = \"SELECT id, count(*) AS orders FROM orders GROUP BY id\"\n\
                    [[pipeline.endpoint]]\nname = \"all_orders\"\nsql = \"SELECT id, orders FROM counts\"\n";
    std::fs::write(&path, format!("{}{endpoint}", text.replace("idd", "id"))).unwrap();
    for words in [
        &["validate", &path][..],
        &["up", "--pipelines", &path, "--data-dir", &folder.data(), "--listen", "127.0.0.1:0"],
    ] {
        let said = run(words).await;
        let problem = format!("{path}:22: endpoint `all_orders`: its SQL reads `counts` without `user_id = :caller`");
        assert!(said.code == 78 && said.err.contains(&problem), "{said:?}");
    }

    // A type that goes nowhere is allowed and said.
    let good = text
        .replace("idd", "id")
        .replace("[[pipeline]]", "[[event]]\ntype = \"refund\"\ntopic = \"shop\"\n[[pipeline]]");
    std::fs::write(&path, good).unwrap();
    let said = run(&["validate", &path]).await;
    assert_eq!((said.code, said.out.as_str()), (0, format!("{path}: no problems\n").as_str()), "{said:?}");
    assert!(said.err.contains(&format!("{path}:7: warning: event type `refund`")), "{said:?}");
}
