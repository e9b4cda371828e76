//! Where consent is required, events of those who have not given it are refused.

use karat_access::{ConsentRule, Role};
use serde_json::json;

use crate::app::{App, event, run_event};

#[tokio::test]
async fn security_84_events_are_taken_with_consent_to_the_version_in_force_and_refused_again_without() {
    let app = App::start_asking(ConsentRule::new(true, Some("2026-11")).unwrap()).await;
    let one = event("1").to_string();
    let requests = [
        ("events", "application/json", one.clone()),
        ("events", "application/cloudevents-batch+json", json!([event("1"), event("2")]).to_string()),
        ("events", "application/x-ndjson", one.clone()),
        ("lineage", "application/json", run_event("r1").to_string()),
        ("lineage/batch", "application/json", json!([run_event("r1")]).to_string()),
    ];
    let refuse_all = async |why: &str| {
        for (path, content_type, body) in &requests {
            let answered = app.publish(path, content_type, body.clone()).await;
            let code = &answered.body["code"];
            assert_eq!((answered.status, code), (403, &json!("consent_needed")), "{why}: {path} {content_type}");
            assert!(answered.body["message"].as_str().unwrap().contains("2026-11"), "{}", answered.body);
        }
    };
    refuse_all("never given").await;
    app.consent(Some("2026-10")).await;
    refuse_all("to an older version").await;
    // One row stands for all of the minute.
    let rows = app.denied().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&*rows[0].actor_kind, &rows[0].details.as_ref().unwrap()["consent"]), ("api_key", &json!("2026-11")));

    app.consent(Some("2026-11")).await;
    for (path, content_type, body) in &requests {
        assert_eq!(app.publish(path, content_type, body.clone()).await.status, 202, "{path} {content_type}");
    }
    let taken = app.records().await.len();
    assert_eq!(taken, 6);

    app.consent(None).await;
    refuse_all("taken back").await;
    assert_eq!(app.records().await.len(), taken, "nothing more was written");
}

#[tokio::test]
async fn security_84_events_that_are_still_being_sent_when_consent_is_taken_back_are_refused() {
    let app = App::start_asking(ConsentRule::new(true, Some("2026-11")).unwrap()).await;
    app.consent(Some("2026-11")).await;
    let answered = app.publish("events", "application/json", app.after_withdrawal(event("1").to_string())).await;
    assert_eq!((answered.status, &answered.body["code"]), (403, &json!("consent_needed")), "{}", answered.body);
    assert_eq!(app.records().await.len(), 0);
}

#[tokio::test]
async fn security_84_what_a_program_publishes_for_somebody_with_an_account_needs_the_consent_of_that_person() {
    let mut app = App::start_asking(ConsentRule::new(true, Some("2026-11")).unwrap()).await;
    app.consent(Some("2026-11")).await;
    let key_of_maria = app.key_of("maria_77", Role::User).await;
    let maria = app.owner_of(&key_of_maria).await.id.to_string();
    let about = |id: &str, person: &str| {
        let mut sent = event(id);
        sent["data"]["user_id"] = json!(person);
        sent
    };
    let many = [about("1", &maria), about("2", "not of here"), event("3"), about("4", &maria.to_uppercase())];
    let many = serde_json::Value::from(many.to_vec()).to_string();
    let one = about("5", &maria).to_string();
    let batch = "application/cloudevents-batch+json";
    // Whom a key names that may not publish for others decides nothing: what it sends is its owner's.
    assert_eq!(app.publish("events", batch, many.clone()).await.status, 202);

    app.key = app.key_with(&["publish:*", "publish_for_others"]).await;
    let answered = app.publish("events", batch, many.clone()).await;
    let data = &answered.body["data"];
    assert_eq!((answered.status, &data["accepted"], &data["rejected"]), (207, &json!(2), &json!(2)), "{data}");
    for (place, index) in [(0, 0), (1, 3)] {
        let error = &data["errors"][place];
        let told = (&error["code"], &error["index"], &error["path"]);
        assert_eq!(told, (&json!("consent_needed"), &json!(index), &json!("/data/user_id")), "{error}");
    }
    let refused = app.publish("events", "application/json", one.clone()).await;
    assert_eq!((refused.status, &refused.body["code"]), (403, &json!("consent_needed")), "{}", refused.body);
    let rows = app.denied().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].details.as_ref().unwrap()["consent"], "2026-11");

    app.consent_of(&key_of_maria, Some("2026-11")).await;
    assert_eq!(app.publish("events", batch, many).await.status, 202);
    let taken = app.records().await.len();
    assert_eq!(taken, 4 + 2 + 4);
    app.consent_of(&key_of_maria, None).await;
    assert_eq!(app.publish("events", "application/json", one).await.status, 403);
    assert_eq!(app.records().await.len(), taken, "nothing more was written");
}

#[tokio::test]
async fn security_84_a_body_that_names_too_many_people_is_refused_whole() {
    let mut app = App::start_asking(ConsentRule::new(true, Some("2026-11")).unwrap()).await;
    app.consent(Some("2026-11")).await;
    let naming = |people: u32| {
        let lines = (0..people).map(|n| {
            let mut sent = event(&n.to_string());
            sent["data"]["user_id"] = json!(format!("01900000-0000-7000-8000-{n:012}"));
            // Twice: people are counted, and not events.
            let first = sent.to_string();
            sent["id"] = json!(format!("{n} again"));
            format!("{first}\n{sent}\n")
        });
        lines.collect::<String>()
    };
    let ndjson = "application/x-ndjson";
    assert_eq!(app.publish("events", ndjson, naming(1_001)).await.status, 202, "for nobody else it names none");
    let taken = app.records().await.len();

    app.key = app.key_with(&["publish:*", "publish_for_others"]).await;
    let refused = app.publish("events", ndjson, naming(1_001)).await;
    assert_eq!((refused.status, &refused.body["code"]), (413, &json!("too_many_people")), "{}", refused.body);
    assert!(refused.body["message"].as_str().unwrap().contains("1000"), "{}", refused.body);
    assert_eq!(app.records().await.len(), taken, "nothing of it was written");
    assert_eq!(app.publish("events", ndjson, naming(1_000)).await.status, 202);
}
