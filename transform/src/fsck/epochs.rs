//! Manifests of epochs: they say which versions of a pipeline's tables belong together.
//!
//! Of an older one nothing is made but answers to a reader that holds on to it: it goes. The newest says how far the tables
//! are that everything goes on from. It cannot be guessed from its predecessor, so the pipeline is rebuilt from bronze, and
//! the swap writes an epoch that names every table again.

use std::sync::Arc;

use karat_lake::{
    Lake, TableSpec,
    arrow::datatypes::Schema,
    epochs::{Epochs, file_name},
    fsck::{Fault, Part},
};

use super::{Finding, Needs, Origin, Target};
use crate::Result;

pub(super) fn target(lake: &Lake, pipeline: &str) -> Result<Target> {
    let spec = TableSpec {
        name: Epochs::of(lake, pipeline)?.location(),
        schema: Arc::new(Schema::empty()),
        partition_by: Vec::new(),
        stats_columns: Vec::new(),
        append_only: true,
    };
    let origin = Origin::Epochs(pipeline.to_owned());
    Ok(Target { spec, origin, needs: Needs::default(), reached: std::collections::BTreeMap::new() })
}

pub(super) async fn faults(lake: &Lake, pipeline: &str) -> Result<Vec<Fault>> {
    let damaged = Epochs::of(lake, pipeline)?.inspect().await?.damaged.into_iter();
    let fault = |epoch, wrong| Fault { part: Part::Manifest, version: epoch, file: file_name(epoch), wrong };
    Ok(damaged.map(|damaged| fault(damaged.epoch, damaged.wrong)).collect())
}

/// Removes damaged manifests; true when the newest is one of them: then the pipeline must be rebuilt.
pub async fn remove(lake: &Lake, pipeline: &str, findings: &[Finding]) -> Result<bool> {
    let epochs = Epochs::of(lake, pipeline)?;
    let newest = epochs.inspect().await?.newest;
    for finding in findings {
        epochs.remove(finding.version).await?;
    }
    Ok(findings.iter().any(|finding| Some(finding.version) == newest))
}
