//! The endpoints that the pipelines declare, planned over the gold tables of each: where transform knows the columns and
//! the API the routes.

use std::{collections::HashSet, sync::Arc};

use karat_api::endpoints::PlannedEndpoint;
use karat_schemas::pipelines::{Endpoint, Pipelines, Problem};
use karat_transform::plan::gold_schemas;

/// Those that work, and what is wrong with the others. What only fails because a gold table does, or one of the names that
/// are `left_out`, is not said: that is a problem of its own.
pub async fn planned(pipelines: &Pipelines, left_out: &HashSet<String>) -> (Vec<Arc<PlannedEndpoint>>, Vec<Problem>) {
    let (mut planned, mut problems) = (Vec::new(), Vec::new());
    for pipeline in &pipelines.pipelines {
        let declared: Vec<&Endpoint> =
            pipelines.endpoints.iter().filter(|endpoint| endpoint.pipeline == pipeline.name).collect();
        if declared.is_empty() {
            continue;
        }
        let gold = gold_schemas(pipeline).await;
        let is_planned = |name: &str| gold.iter().any(|(planned, _)| planned == name);
        let unplanned = pipeline.gold.iter().map(|gold| gold.name.as_str()).filter(|name| !is_planned(name));
        let missing: Vec<&str> = unplanned.chain(left_out.iter().map(String::as_str)).collect();
        for endpoint in declared {
            match PlannedEndpoint::new(endpoint.clone(), &gold).await {
                Ok(endpoint) => planned.push(Arc::new(endpoint)),
                Err(_) if missing.iter().any(|table| endpoint.sql.contains(table)) => {}
                Err(found) => problems.extend(found.into_iter().map(|message| Problem {
                    line: endpoint.line,
                    message: format!("endpoint `{}`: {message}", endpoint.name),
                })),
            }
        }
    }
    (planned, problems)
}
