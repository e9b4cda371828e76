//! The document that is committed is the one that the code gives.

use crate::process::run;

#[tokio::test]
async fn the_committed_document_is_what_the_routes_say() {
    let generated = run(&["openapi"]).await.ok();
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json")).unwrap_or_default();
    assert!(
        committed.trim_end() == generated,
        "openapi.json is not what the routes say: regenerate it with `cargo run -- openapi > openapi.json`"
    );
}
