//! The dashboard of the documentation: the page shows the file that is shipped, and what that asks for is there.

use serde_json::Value;

use crate::process::run;

const PAGE: &str = include_str!("../../docs/DASHBOARD.md");
const SCRIPT: &str = include_str!("../../examples/dashboard/dashboard.js");

/// Whether a path is one of the document's, where names in braces stand for anything.
fn is_path(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(&path).all(|(part, found)| part.starts_with('{') || part == found)
}

#[test]
fn the_page_shows_the_script_as_it_is_shipped() {
    let shown = PAGE.split("```js\n").nth(1).and_then(|rest| rest.split("```\n").next()).unwrap();
    assert_eq!(shown, SCRIPT);
}

#[tokio::test]
async fn every_route_of_the_script_is_in_the_document() {
    let document: Value = serde_json::from_str(&run(&["openapi"]).await.ok()).unwrap();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    // Each stands in quotes of its own.
    let asked: Vec<&str> = SCRIPT.split('"').filter(|text| text.starts_with('/') && text.len() > 1).collect();
    assert!(asked.len() >= 5, "{asked:?}");
    for path in asked {
        assert!(paths.iter().any(|template| is_path(template, path)), "{path}");
    }
}
