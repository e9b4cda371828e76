//! Settings: files, the environment and flags above each other, shown with where they came from, and what production refuses.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};

use crate::{
    client::http,
    process::{Folder, run},
};

/// A password that may be nowhere in what is printed.
const CANARY: &str = "canary-4711";

#[tokio::test(flavor = "multi_thread")]
async fn each_setting_is_shown_with_where_it_came_from_and_secrets_are_hidden() {
    let folder = Folder::with(vec![("KARAT__DATABASE__CONNECTIONS".to_owned(), "7".to_owned())]);
    fs::write(folder.path("redis"), format!("redis://:{CANARY}@cache:6379\n")).unwrap();
    let file = folder.text("karat.toml");
    let text = format!(
        "environment = \"staging\"\n[server]\nallowed_hosts = [\"a.example.org\", \"b.example.org\"]\n\
         listen = \"127.0.0.1:9000\"\n[database]\nconnections = 5\nwait = 3\n[redis]\nurl = {{ file = \"redis\" }}\n\
         [access]\nproviders = [\"google=id:{CANARY}\"]\n[kafka]\nproperties = [\"sasl.password={CANARY}\"]\n"
    );
    fs::write(&file, text).unwrap();
    let words = ["config", "show", "--origin", "--config", &file, "--format", "json"];
    let flags = ["--listen", "127.0.0.1:9001", "--avatars", "s3://bucket/avatars"];
    let settings = folder.run(&[&words[..], &flags].concat()).await.ok();
    assert!(!settings.contains(CANARY), "{settings}");
    let settings: Vec<Value> = serde_json::from_str(&settings).unwrap();
    let one = |key: &str| settings.iter().find(|setting| setting["setting"] == key).unwrap();
    for (key, value, origin) in [
        ("server.listen", json!("127.0.0.1:9001"), "command line".to_owned()),
        ("database.connections", json!("7"), "environment KARAT__DATABASE__CONNECTIONS".to_owned()),
        ("database.wait", json!("3"), format!("{file}:7")),
        ("server.allowed_hosts", json!("a.example.org, b.example.org"), format!("{file}:3")),
        ("environment", json!("staging"), format!("{file}:1")),
        ("redis.url", json!("(hidden)"), format!("{file}:9")),
        ("access.providers", json!("(hidden)"), format!("{file}:11")),
        ("kafka.properties", json!("(hidden)"), format!("{file}:13")),
        ("database.idle", json!("600"), "default".to_owned()),
        ("database.url", Value::Null, "default".to_owned()),
        ("access.avatars", json!("s3://bucket/avatars"), "command line".to_owned()),
    ] {
        let setting = one(key);
        assert_eq!((&setting["value"], &setting["origin"]), (&value, &json!(origin)), "{setting}");
    }
    let help = run(&["up", "--config", &file, "--help"]).await.ok();
    assert!(!help.contains(CANARY) && help.contains("127.0.0.1:9000"), "{help}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_of_a_file_of_settings_is_named_with_its_line() {
    let folder = Folder::new();
    let file = folder.text("karat.toml");
    fs::write(&file, "[server]\nlisten = \"nowhere\"\nport = 1\n[mail]\nurl = { env = \"NOT_THERE\" }\n").unwrap();
    let said = folder.run(&["up", "--config", &file]).await;
    assert_eq!((said.code, said.out.as_str()), (78, ""), "{said:?}");
    for line in [2, 3, 5] {
        assert!(said.err.contains(&format!("{file}:{line}: ")), "line {line}: {}", said.err);
    }
    let said = folder.run(&["up", "--config", &folder.text("none.toml")]).await;
    assert!(said.code == 78 && said.err.contains("none.toml"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn production_names_everything_that_is_not_fit_for_it_and_does_not_start() {
    let folder = Folder::new();
    let file = folder.text("karat.toml");
    let providers = format!("\"google=id:{CANARY}\", \"own=id:{CANARY}@http://id.example.org\"");
    fs::write(&file, format!("[access]\nproviders = [{providers}]\n[sms]\nurl = {{ file = \"sms\" }}\n")).unwrap();
    // Secrets that everybody may read, one of them empty.
    let redis = format!("redis://:{CANARY}@cache.example.org");
    for (name, secret) in [("redis", redis.as_str()), ("sms", "https://AC1:@sms.example.org"), ("key.pem", "x")] {
        fs::write(folder.path(name), secret).unwrap();
        fs::set_permissions(folder.path(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let redis = format!("@{}", folder.text("redis"));
    let said = folder
        .run(&[
            "up",
            "--demo",
            "--without-limits",
            "--config",
            &file,
            "--environment",
            "production",
            "--public-url",
            "http://karat.example.org",
            "--allowed-origins",
            "http://app.example.org",
            "--kafka-property",
            "sasl.password=canary-4711",
            "--redis",
            &redis,
            "--tls-key",
            &folder.text("key.pem"),
            "--database",
            "postgres://karat:changeme@db.example.org:1/karat",
        ])
        .await;
    assert_eq!((said.code, said.out.as_str()), (78, ""), "{said:?}");
    for expected in [
        "`database.url` is on the command line",
        "`kafka.properties` is on the command line",
        "the password in `database.url` is one that everybody knows",
        &format!("`access.providers` is a secret in plain text at {file}:2"),
        "`server.public_url` must begin with `https://`",
        "`mail.url` is not set",
        "`http://app.example.org`",
        "`--without-limits`",
        "`--demo`",
        "the accounts database is on another machine",
        "Redis is on another machine",
        "`server.allowed_hosts` is not set",
        "`server.tls_certificate`",
        "`own` of `access.providers` is at `http://`",
        "the password in `sms.url` is empty",
        &format!("`sms.url`: everybody on the machine may read or change `{}`", folder.text("sms")),
        &format!("`server.tls_key`: everybody on the machine may read or change `{}`", folder.text("key.pem")),
        &format!("`redis.url`: everybody on the machine may read or change `{}`", folder.text("redis")),
    ] {
        assert!(said.err.contains(expected), "{expected}: {}", said.err);
    }
    assert!(!said.err.contains(CANARY) && !said.err.contains("changeme"), "{}", said.err);
    assert!(!folder.path("data").exists(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_makes_every_connection_tls_and_commands_still_find_the_instance() {
    let folder = Folder::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.text("chain.pem"), folder.text("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let words = ["up", "--listen", "127.0.0.1:0", "--tls-certificate", &certificate];
    let said = folder.run(&words).await;
    assert!(said.code == 78 && said.err.contains("server.tls_key"), "{said:?}");
    let mut karat = folder.start("karat", &[&words[..], &["--tls-key", &key]].concat());
    let plain = karat.url().await;
    let port = plain.rsplit(':').next().unwrap();
    // Names the cryptography of this process, which the client below takes.
    drop(http());
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().add_root_certificate(root).build().unwrap();
    let answer = client.get(format!("https://localhost:{port}/livez")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("strict-transport-security"));
    assert!(client.get(format!("{plain}/livez")).send().await.is_err(), "nothing is answered in the open");
    // It goes through the running instance, at the address that it left.
    folder.run(&["replay", "start", "etl_runs", "--all"]).await.ok();
    karat.stop().await;
}

#[cfg(not(feature = "postgres-wire"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_binary_without_a_port_for_postgresql_clients_refuses_the_setting_that_asks_for_one() {
    let folder = Folder::new();
    let said = folder.run(&["up", "--listen", "127.0.0.1:0", "--postgres-listen", "127.0.0.1:0"]).await;
    assert!(said.code == 78 && said.err.contains("`server.postgres_listen`"), "{said:?}");
    assert!(said.err.contains("`--features postgres-wire`"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_find_an_instance_that_answers_under_another_name_only() {
    let folder = Folder::new();
    let mut karat = folder.start("karat", &["up", "--listen", "127.0.0.1:0", "--allowed-host", "karat.example.org"]);
    let url = karat.url().await;
    assert_eq!(http().get(format!("{url}/livez")).send().await.unwrap().status(), 421);
    folder.run(&["replay", "start", "etl_runs", "--all"]).await.ok();
    karat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fit_for_production_starts_with_its_documents_closed_and_addresses_confirmed() {
    let folder = Folder::new();
    let file = folder.text("karat.toml");
    let text = "environment = \"production\"\n[server]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://karat.example.org\"\n\
                allowed_hosts = [\"karat.example.org\", \"127.0.0.1\"]\nbehind_tls = true\n\
                [mail]\nurl = \"smtps://mail.invalid\"\nfrom = \"Karat <karat@example.org>\"\n";
    fs::write(&file, text).unwrap();
    let secrets = ["one", "two"].map(|name| {
        fs::write(folder.path(name), format!("{name}=id:{CANARY}@https://{name}.example.org")).unwrap();
        fs::set_permissions(folder.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        format!("@{}", folder.text(name))
    });
    let variables = [("KARAT__ACCESS__PROVIDERS", secrets.join(";"))];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut karat = folder.start_with("karat", &["up", "--config", &file], &variables);
    let url = karat.url().await;
    for path in ["/docs", "/openapi.json"] {
        let status = http().get(format!("{url}{path}")).send().await.unwrap().status();
        assert_eq!(status, 401, "{path}");
    }
    let account = json!({"username": "ada", "email": "ada@example.org", "password": crate::process::PASSWORD});
    let answer = http().post(format!("{url}/api/v1/auth/register")).json(&account).send().await.unwrap();
    assert_eq!(answer.status(), 202, "an address is confirmed first");
    karat.stop().await;
}
