//! `?wait=`: the answer comes when the layer has the events, or says which one has.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use karat_ingest::{Layer, Progress};
use tokio::sync::watch;

use crate::app::{App, event};

/// Has come as far as it is told.
struct Told(watch::Receiver<Layer>);

#[async_trait]
impl Progress for Told {
    async fn reached(&self, layer: Layer, topic: &str, positions: &BTreeMap<u32, i64>) {
        assert!(topic == "karat.events" && positions.values().all(|next| *next > 0));
        if self.0.clone().wait_for(|now| *now >= layer).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[tokio::test]
async fn waiting_for_a_layer_answers_200_when_it_has_committed() {
    let (layer, now) = watch::channel(Layer::Logged);
    let app = App::start_with(|log| log, Some(Arc::new(Told(now)))).await;
    let sent = event("1").to_string();
    let waiting = app.publish("events?wait=silver", "application/json", sent.clone());
    let (answered, _) = tokio::join!(waiting, async { layer.send(Layer::Gold) });
    assert_eq!((answered.status, &answered.body["data"]["layer"]), (200, &"silver".into()));
    let answered = app.publish("events", "application/json", sent.clone()).await;
    assert_eq!((answered.status, &answered.body["data"]["layer"]), (202, &"logged".into()));
    let answered = app.publish("events?wait=platinum", "application/json", sent).await;
    assert_eq!((answered.status, &answered.body["code"]), (400, &"invalid_parameter".into()));
}

#[tokio::test]
async fn without_anyone_to_ask_waiting_answers_202_at_once() {
    let app = App::start().await;
    let answered = app.publish("events?wait=gold", "application/json", event("1").to_string()).await;
    assert_eq!((answered.status, &answered.body["data"]["layer"]), (202, &"logged".into()));
}
