//! Secrets of settings stand in no line of the log either, where they are used and where they do not work.

use serde_json::json;

use super::{LEVELS, PASSWORD, Person, answer, log_without, others::MailServer};
use crate::process::Folder;

const MAIL: &str = "canary-mail-password";
const REDIS: &str = "canary-redis-password";
const DATABASE: &str = "canary-database-password";

#[tokio::test(flavor = "multi_thread")]
async fn security_29_no_secret_of_a_setting_is_in_the_log() {
    let folder = Folder::new();
    let server = MailServer::start().await;
    let mail = format!("smtp://karat:{MAIL}@127.0.0.1:{}", server.port);
    // Nobody listens there.
    let redis = format!("redis://:{REDIS}@127.0.0.1:1");
    let variables = [("KARAT__MAIL__URL", mail.as_str()), ("KARAT__REDIS__URL", redis.as_str())];
    let words = ["up", "--listen", "127.0.0.1:0", "--log-levels", LEVELS, "--mail-from", "karat@example.org"];
    let mut karat = folder.start_with("karat", &words, &variables);
    let mut person = Person { url: karat.url().await, secrets: Vec::new(), codes: Vec::new() };
    person.keep("password of the mail server", MAIL);
    person.keep("password of Redis", REDIS);
    let account = json!({"username": "ada", "email": "ada@example.org", "password": PASSWORD});
    assert_eq!(answer(person.post("/auth/register", &account)).await.0, 201);
    let reset = json!({"email": "ada@example.org"});
    assert_eq!(answer(person.post("/auth/reset-password", &reset)).await.0, 200);
    person.keep("credentials at the mail server", &server.line("AUTH PLAIN ").await);
    karat.stop().await;
    let log = log_without(&folder, &person.secrets);
    assert!(log.contains("redis is away"), "the one that does not answer was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_29_a_database_that_does_not_answer_is_named_without_its_password() {
    for engine in ["postgres", "mysql"] {
        let whole = [("KARAT__DATABASE__URL", format!("{engine}://karat:{DATABASE}@127.0.0.1:1/karat"))];
        let parts = [
            ("KARAT__DATABASE__ENGINE", engine),
            ("KARAT__DATABASE__HOST", "127.0.0.1"),
            ("KARAT__DATABASE__PORT", "1"),
            ("KARAT__DATABASE__USER", "karat"),
            ("KARAT__DATABASE__PASSWORD", DATABASE),
            ("KARAT__DATABASE__NAME", "karat"),
        ];
        let parts = parts.map(|(name, value)| (name, value.to_owned()));
        for variables in [&whole[..], &parts] {
            let wait = ("KARAT__DATABASE__WAIT", "1".to_owned());
            let variables = variables.iter().cloned().chain([wait]);
            let folder = Folder::with(variables.map(|(name, value)| (name.to_owned(), value)).collect());
            let said = folder.run(&["doctor", "--log-levels", LEVELS]).await;
            assert!(said.code == 69 && said.err.contains("127.0.0.1:1/karat"), "{said:?}");
            assert!(!said.err.contains(DATABASE) && !said.out.contains(DATABASE), "{said:?}");
        }
    }
}
