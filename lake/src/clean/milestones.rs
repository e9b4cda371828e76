//! Milestones: single old versions that stay readable for days, of tables that only grow.
//!
//! Each version of a table that is written ten times a second cannot be kept for a week: that is six million log entries, and
//! as many small files that are merged by now. So one version an hour is kept of the last day, and one of six hours before
//! that. The first is made when a table is an hour old: until then every version is there. Each is read from a checkpoint of the log at that version and needs no other part of the log; the files that it has and
//! later versions have not, because they were merged, are kept for it.
//!
//! `_karat/kept/<table>.json` names them. Whoever cleans a table writes it, so there is one writer. Without it there are no
//! milestones, and nothing else is lost.

use std::{collections::HashMap, time::Duration};

use object_store::{ObjectStoreExt, path::Path};
use serde::{Deserialize, Serialize};

use crate::{Lake, Result, Table, table::checkpoint_at};

const HOUR_MS: i64 = 3_600_000;
/// For so long one an hour is kept.
const CLOSE_MS: i64 = 24 * HOUR_MS;
/// Afterwards one of so many hours.
const FAR_MS: i64 = 6 * HOUR_MS;

/// A version that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Milestone {
    version: u64,
    /// When it was the newest, milliseconds since 1970 UTC.
    at_ms: i64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Listed {
    versions: Vec<Milestone>,
}

/// The milestones of one table.
#[derive(Debug, Default)]
pub(super) struct Milestones {
    /// By version: paths of its files.
    files: HashMap<u64, Vec<String>>,
    /// How often in turn a version did not open.
    failures: HashMap<u64, u32>,
}

/// A version that does not open so often in turn is lost: a store may be away for a while.
const FAILURES: u32 = 5;

impl Milestones {
    pub(super) fn has(&self, version: u64) -> bool {
        self.files.contains_key(&version)
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &String> {
        self.files.values().flatten()
    }

    /// Makes the newest version one when the last, or the table, is an hour old, lets go of what is older than `within`, and learns which
    /// files the others have.
    ///
    /// # Errors
    /// The list cannot be read or written, a checkpoint not be written, or a milestone does not open. One that does not open
    /// again and again is none any more.
    pub(super) async fn renew(&mut self, lake: &Lake, table: &Table, within: Duration, now_ms: i64) -> Result<()> {
        let store = lake.store("_karat/kept")?;
        let path = Path::from("_karat").join("kept").join(format!("{}.json", table.name()));
        let listed: Listed = match store.get(&path).await {
            Ok(found) => serde_json::from_slice(&found.bytes().await?).unwrap_or_default(),
            Err(object_store::Error::NotFound { .. }) => Listed::default(),
            Err(error) => return Err(error.into()),
        };
        let before = listed.versions.clone();
        let mut versions = kept(listed.versions, within, now_ms);
        let last_ms = versions.last().map(|last| last.at_ms).or(table.created_ms()).unwrap_or(0);
        let is_newer = versions.last().map_or(0, |last| last.version) < table.version();
        if is_newer && now_ms.abs_diff(last_ms) >= HOUR_MS.unsigned_abs() {
            checkpoint_at(table.url(), table.version()).await?;
            versions.push(Milestone { version: table.version(), at_ms: now_ms });
            self.files.insert(table.version(), paths(table));
        }
        self.files.retain(|version, _| versions.iter().any(|milestone| milestone.version == *version));
        for milestone in versions.clone() {
            if self.has(milestone.version) {
                continue;
            }
            match lake.open_at(table.name(), milestone.version).await {
                Ok(opened) => {
                    self.failures.remove(&milestone.version);
                    self.files.insert(milestone.version, paths(&opened));
                }
                Err(error) => {
                    let failures = self.failures.entry(milestone.version).or_default();
                    *failures += 1;
                    if *failures < FAILURES {
                        return Err(error);
                    }
                    tracing::warn!(table = table.name(), version = milestone.version, %error, "an old version is lost");
                    versions.retain(|other| *other != milestone);
                }
            }
        }
        if versions != before {
            store.put(&path, serde_json::to_vec(&Listed { versions })?.into()).await?;
        }
        Ok(())
    }
}

fn paths(table: &Table) -> Vec<String> {
    table.files().map(|file| file.path().to_owned()).collect()
}

/// Those that stay: all of the last day, the first of each six hours before, none older than `within`.
fn kept(mut versions: Vec<Milestone>, within: Duration, now_ms: i64) -> Vec<Milestone> {
    let within_ms = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
    versions.sort_by_key(|milestone| milestone.version);
    let mut last_span = None;
    versions.retain(|milestone| {
        let age_ms = now_ms.saturating_sub(milestone.at_ms);
        if age_ms <= CLOSE_MS {
            return true;
        }
        let span = milestone.at_ms.div_euclid(FAR_MS);
        age_ms <= within_ms && last_span.replace(span) != Some(span)
    });
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_an_hour_for_a_day_and_one_of_six_for_a_week() {
        let (week, mut versions) = (Duration::from_secs(7 * 24 * 3600), Vec::new());
        for hour in 0..1000_i64 {
            let at_ms = hour * HOUR_MS;
            versions.push(Milestone { version: hour.unsigned_abs(), at_ms });
            versions = kept(versions, week, at_ms);
            assert!(versions.len() <= 25 + 24, "{hour}: {}", versions.len());
        }
        let ages: Vec<i64> = versions.iter().map(|milestone| 999 - milestone.at_ms / HOUR_MS).collect();
        assert_eq!(ages.first(), Some(&165));
        assert_eq!(ages.last(), Some(&0));
        assert!(ages.windows(2).all(|pair| pair[0] - pair[1] <= 6));
        assert_eq!(ages.iter().filter(|age| **age <= 24).count(), 25);
    }
}
