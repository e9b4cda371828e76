//! Who may publish what.

use karat_access::Role;
use serde_json::{Value, json};

use crate::app::{App, event, header, run_event};

#[tokio::test]
async fn without_a_valid_credential_nothing_is_read() {
    let app = App::start().await;
    for path in ["events", "lineage", "lineage/batch"] {
        for credential in [None, Some("Bearer kk_00_00"), Some("Basic eDp5")] {
            let mut request = poem::Request::builder()
                .method(poem::http::Method::POST)
                .uri(format!("/api/v1/{path}").parse().unwrap())
                .content_type("application/json");
            if let Some(credential) = credential {
                request = request.header("authorization", credential);
            }
            assert_eq!(app.send(request.body("{}")).await.status, 401, "{path} {credential:?}");
        }
    }
}

#[tokio::test]
async fn security_26_events_that_are_still_being_sent_when_their_key_is_revoked_are_refused() {
    let mut app = App::start().await;
    let requests = [("events", event("1")), ("lineage", run_event("r1")), ("lineage/batch", json!([run_event("r1")]))];
    for (path, sent) in requests {
        app.key = app.key_with(&["publish:*"]).await;
        let body = app.after_revoking(&app.key, sent.to_string());
        let answered = app.publish(path, "application/json", body).await;
        assert_eq!((answered.status, &answered.body["code"]), (401, &json!("token_revoked")), "{path}");
    }
    assert_eq!(app.records().await.len(), 0);
}

#[tokio::test]
async fn a_key_publishes_the_types_of_its_scopes_and_no_others() {
    let mut app = App::start().await;
    app.key = app.key_with(&["publish:io.openlineage.event"]).await;
    assert_eq!(app.publish("lineage", "application/json", run_event("r").to_string()).await.status, 202);
    let answered = app.publish("events", "application/json", event("1").to_string()).await;
    assert_eq!((answered.status, &answered.body["code"]), (403, &json!("forbidden")));

    app.key = app.key_with(&["publish:etl.*"]).await;
    let mixed = json!([event("1"), {"specversion": "1.0", "id": "2", "source": "/s", "type": "any"}]);
    let answered = app.publish("events", "application/json", mixed.to_string()).await;
    assert_eq!(answered.status, 207);
    assert_eq!(answered.body["data"]["errors"][0]["code"], "type_not_allowed");
    assert_eq!(app.records().await.len(), 2);

    app.key = app.key_with(&["read"]).await;
    assert_eq!(app.publish("events", "application/json", event("1").to_string()).await.status, 403);
}

#[tokio::test]
async fn security_58_a_batch_gives_no_right_that_a_single_event_lacks() {
    let mut app = App::start().await;
    app.key = app.key_with(&["publish:etl.*"]).await;
    let foreign = |id: &str| json!({"specversion": "1.0", "id": id, "source": "/s", "type": "any"});
    for (path, content_type, body) in [
        ("events", "application/cloudevents+json", foreign("1").to_string()),
        ("events", "application/cloudevents-batch+json", json!([foreign("1"), foreign("2")]).to_string()),
        ("events", "application/json", json!([foreign("1"), foreign("2")]).to_string()),
        ("events", "application/x-ndjson", format!("{}\n{}", foreign("1"), foreign("2"))),
        ("lineage", "application/json", run_event("r1").to_string()),
        ("lineage/batch", "application/json", json!([run_event("r1"), run_event("r2")]).to_string()),
        ("lineage/batch", "application/x-ndjson", format!("{}\n{}", run_event("r1"), run_event("r2"))),
    ] {
        let answered = app.publish(path, content_type, body).await;
        assert_eq!((answered.status, &answered.body["code"]), (403, &json!("forbidden")), "{path} {content_type}");
    }

    // Among events that the key may publish, the foreign one is refused and nothing else.
    for (n, content_type) in
        ["application/cloudevents-batch+json", "application/json", "application/x-ndjson"].iter().enumerate()
    {
        let (first, last) = (event(&format!("a{n}")), event(&format!("b{n}")));
        let body = match *content_type {
            "application/x-ndjson" => format!("{first}\n{}\n{last}", foreign("3")),
            _ => json!([first, foreign("3"), last]).to_string(),
        };
        let answered = app.publish("events", content_type, body).await;
        let data = &answered.body["data"];
        assert_eq!((answered.status, &data["accepted"], &data["rejected"]), (207, &json!(2), &json!(1)), "{data}");
        assert_eq!((&data["errors"][0]["code"], &data["errors"][0]["index"]), (&json!("type_not_allowed"), &json!(1)));
    }
    let records = app.records().await;
    assert_eq!(records.len(), 6);
    assert!(records.iter().all(|record| header(record, "ce_type").as_deref() == Some("etl.run.finished")));
}

#[tokio::test]
async fn security_81_events_of_types_that_a_key_may_not_publish_leave_one_row() {
    let mut app = App::start().await;
    let foreign = json!({"specversion": "1.0", "id": "2", "source": "/s", "type": "any"});
    let mixed = json!([event("1"), foreign, foreign]).to_string();
    let lineage = run_event("r1").to_string();
    let requests = [("events", mixed, 207), ("events", foreign.to_string(), 403), ("lineage", lineage, 403)];
    for (n, (path, body, status)) in requests.into_iter().enumerate() {
        app.key = app.key_with(&["publish:etl.*"]).await;
        assert_eq!(app.publish("events", "application/json", event("0").to_string()).await.status, 202);
        assert_eq!(app.denied().await.len(), n, "what the key may do leaves none");
        // The second request is one of the same minute.
        for _ in 0..2 {
            assert_eq!(app.publish(path, "application/json", body.clone()).await.status, status);
        }
        let rows = app.denied().await;
        assert_eq!(rows.len(), n + 1, "{path} {body}");
        let details = rows[0].details.clone().unwrap();
        assert_eq!((&*rows[0].actor_kind, &details["permission"]), ("api_key", &json!("publish")));
        assert!(rows[0].request_id.is_some());
    }
}

#[tokio::test]
async fn a_key_is_held_at_every_door_to_the_events_in_a_second_that_were_declared_for_it() {
    let mut app = App::start().await;
    let slow = app.key_at(1).await;
    let free = std::mem::replace(&mut app.key, slow);
    // More than the bucket ever holds: taken while it is full, and owed.
    let lines: Vec<String> = (0..100).map(|n| event(&n.to_string()).to_string()).collect();
    assert_eq!(app.publish("events", "application/x-ndjson", lines.join("\n")).await.status, 202);
    for (path, content_type, body) in [
        ("events", "application/json", event("x").to_string()),
        ("events", "application/cloudevents+json", json!({}).to_string()),
        ("events", "application/cloudevents-batch+json", json!([event("x"), event("y")]).to_string()),
        ("lineage", "application/json", run_event("r1").to_string()),
        ("lineage/batch", "application/json", json!([run_event("r1"), run_event("r2")]).to_string()),
        // Large, and too many: nobody looked.
        ("events", "application/x-ndjson", "{\n".repeat(50_000)),
    ] {
        let answered = app.publish(path, content_type, body).await;
        assert_eq!((answered.status, &answered.body["code"]), (429, &json!("too_many_requests")), "{path}");
        assert_eq!(answered.quota.as_deref(), Some("\"events\";q=1;w=1"), "{path}");
        assert!((1..=102).contains(&answered.retry_after.unwrap().parse::<u64>().unwrap()), "{path}");
        assert!(answered.body["details"][0].as_str().unwrap().contains("1 events a second"), "{}", answered.body);
    }
    assert_eq!(app.records().await.len(), 100, "nothing of a refused request is in the log");
    app.key = free;
    assert_eq!(app.publish("events", "application/json", event("x").to_string()).await.status, 202);
}

#[tokio::test]
async fn the_owner_of_the_key_is_the_publisher_whatever_the_payload_says() {
    let mut app = App::start().await;
    let mut sent = event("1");
    sent["data"]["user_id"] = json!("somebody else");
    sent["karatpublisher"] = json!("somebody else");
    assert_eq!(app.publish("events", "application/json", sent.to_string()).await.status, 202);
    app.key = app.key_with(&["publish:*", "publish_for_others"]).await;
    assert_eq!(app.publish("events", "application/json", sent.to_string()).await.status, 202);
    let mut rights: Vec<Option<String>> = Vec::new();
    for record in app.records().await {
        assert_eq!(header(&record, "karat_publisher"), Some(app.owner()));
        rights.push(header(&record, "karat_publish_for_others"));
    }
    rights.sort();
    assert_eq!(rights, [None, Some("1".to_owned())]);
}

#[tokio::test]
async fn any_user_may_publish_with_a_key_of_their_own() {
    let mut app = App::start().await;
    app.key = app.key_of("someone", Role::User).await;
    assert_eq!(app.publish("events", "application/json", event("1").to_string()).await.status, 202);
}

#[tokio::test]
async fn the_openapi_document_names_the_operations_their_forms_and_their_errors() {
    let spec: Value = serde_json::from_str(&App::start().await.spec).unwrap();
    for (path, method, id) in [
        ("/events", "post", "publish_events"),
        ("/lineage", "post", "publish_lineage"),
        ("/lineage/batch", "post", "publish_lineage_batch"),
        ("/receipts/{id}", "get", "get_receipt"),
    ] {
        let operation = &spec["paths"][path][method];
        assert_eq!(operation["operationId"], id);
        assert!(!operation["security"].as_array().unwrap().is_empty());
        if method == "post" {
            for status in ["200", "202", "207", "400", "401", "403", "413", "415", "422", "429", "500", "503"] {
                assert!(operation["responses"].get(status).is_some(), "{id} {status}");
            }
            for (content_type, media) in operation["requestBody"]["content"].as_object().unwrap() {
                assert!(media["schema"]["example"] != Value::Null, "{id} {content_type}");
            }
        }
    }
}
