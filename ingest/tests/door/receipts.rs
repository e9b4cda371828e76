//! Receipts: how far a batch has come, for those who may know.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use karat_access::Role;
use karat_ingest::{Layer, Progress, Receipt};

use crate::app::{Answered, App, event};

/// Everything is in bronze, and this many of each batch in quarantine.
struct InBronze(Option<u64>);

#[async_trait]
impl Progress for InBronze {
    async fn reached(&self, layer: Layer, _: &str, _: &BTreeMap<u32, i64>) {
        if layer > Layer::Bronze {
            std::future::pending::<()>().await;
        }
    }

    async fn quarantined(&self, _: &Receipt) -> Option<u64> {
        self.0
    }
}

async fn ask(app: &App, key: &str, receipt: &str) -> Answered {
    let request = poem::Request::builder()
        .uri(format!("/api/v1/receipts/{receipt}").parse().unwrap())
        .header("authorization", format!("Bearer {key}"));
    app.send(request.finish()).await
}

#[tokio::test]
async fn a_receipt_says_how_far_its_batch_has_come() {
    for (quarantined, state) in [(None, "bronze"), (Some(0), "bronze"), (Some(1), "quarantined")] {
        let app = App::start_with(|log| log, Some(Arc::new(InBronze(quarantined)))).await;
        let answered = app.publish("events", "application/json", event("1").to_string()).await;
        let receipt = answered.body["data"]["receipt"].as_str().unwrap().to_owned();
        let answered = ask(&app, &app.key, &receipt).await;
        assert_eq!((answered.status, &answered.body["data"]["state"]), (200, &state.into()));
        assert_eq!(answered.body["data"]["records"], 1);
    }
}

#[tokio::test]
async fn a_receipt_is_only_for_its_publisher_and_those_who_read_all_data() {
    let app = App::start().await;
    let (other, operator) = (app.key_of("other", Role::User).await, app.key_of("boss", Role::Operator).await);
    let answered = app.publish("events", "application/json", event("1").to_string()).await;
    let receipt = answered.body["data"]["receipt"].as_str().unwrap().to_owned();
    assert_eq!(ask(&app, &other, &receipt).await.status, 404);
    assert_eq!(ask(&app, &operator, &receipt).await.status, 200);
    assert_eq!(ask(&app, &app.key, &receipt[1..]).await.status, 404);
    assert_eq!(ask(&app, &app.key, "x").await.status, 404);
}
