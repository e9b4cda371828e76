//! Signals at times when there is something to wait for: while a process still starts, and while it already stops.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    client::{Client, run_event},
    judged::{BATCH, Judged},
    process::Folder,
    wait::{DEADLINE, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_a_process_still_starts_ends_it_in_order() {
    let folder = Folder::new();
    for role in ["up", "transform", "ingest", "api"] {
        // A broker that takes connections and says nothing.
        let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = broker.local_addr().unwrap().to_string();
        let listen = if role == "transform" { &[][..] } else { &["--listen", "127.0.0.1:0"] };
        let karat = folder.start(role, &[&[role, "--kafka", &address][..], listen].concat());
        let _asked = tokio::time::timeout(DEADLINE, broker.accept()).await.unwrap().unwrap();
        // Had it waited for the broker to the end, it would say that there is none, and end with 69.
        karat.stop().await;
    }
}

/// A request whose body never ends: the process waits for it when it is told to stop.
async fn unfinished_request(address: &str, key: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\nexpect: 100-continue\r\n\
         content-type: application/x-ndjson\r\ncontent-length: 1000\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_process_that_still_waits_and_costs_nothing() {
    let mut judged = Judged::new().await;
    let mut karat = judged.folder.start("waits", &["up", "--listen", "127.0.0.1:0"]);
    let url = karat.url().await;
    let client = Client::new(&url, &judged.key);
    let events: Vec<Value> = (0..BATCH).map(run_event).collect();
    assert_eq!(client.publish(&events, "").await.unwrap().status(), 202);
    judged.note_all((0..BATCH).map(|number| (number, karat_oracle::Outcome::Acknowledged)).collect());
    let _open = unfinished_request(url.trim_start_matches("http://"), &judged.key).await;
    karat.signal("TERM");
    until("it stops", async || karat.err().contains("stopping").then_some(())).await;
    karat.assert_alive();
    karat.signal("INT");
    assert_eq!(karat.ended().await.code(), Some(130));
    judged.end().await;
}
