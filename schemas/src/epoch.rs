//! Epochs and commit notices.
//!
//! An epoch names one version of each table of a pipeline (spec G5, decision 9). Its manifest is written put-if-absent
//! under its number, so there is one truth about each, and readers switch from one epoch to the next as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One consistent point of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    pub pipeline: String,
    /// Counts up by one from 1.
    pub epoch: u64,
    /// Version of each table, by its full name such as `gold.daily_summary`.
    pub tables: BTreeMap<String, u64>,
    /// Newest event time folded in, microseconds since 1970 UTC.
    pub as_of_us: Option<i64>,
    /// Version of the bronze table that this epoch covers.
    pub bronze_version: u64,
    /// Next offset of each partition of the pipeline's topic that this epoch covers.
    pub positions: BTreeMap<u32, i64>,
    /// When the epoch was written, microseconds since 1970 UTC.
    pub written_at_us: i64,
    /// Changes when a replay swapped the tables.
    #[serde(default)]
    pub generation: u64,
    /// Set when the pipeline paused itself, with the reason.
    #[serde(default)]
    pub paused: Option<String>,
    /// Set from when positions were moved in bronze until the pipeline has taken that commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
}

/// Positions that somebody moved because the log gives offsets again to other records: what an epoch of before covers lies below
/// them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The commit of bronze that moves them. An epoch that covers it has the moved positions itself.
    pub bronze_version: u64,
    /// Next offset of each partition that was moved.
    pub positions: BTreeMap<u32, i64>,
}

impl Epoch {
    /// Next offset of each partition up to which this epoch covers the records that the topic has now. Below
    /// [`Epoch::positions`] where those were moved.
    pub fn covers(&self) -> BTreeMap<u32, i64> {
        let mut covered = self.positions.clone();
        for (partition, next) in self.moved.iter().flat_map(|moved| &moved.positions) {
            covered.entry(*partition).and_modify(|at| *at = (*at).min(*next));
        }
        covered
    }

    /// Positions that are to be moved once those of `next` move, too: of each partition the lowest, until that commit is covered.
    pub fn moved_with(&self, mut next: Moved) -> Moved {
        for (partition, before) in self.moved.iter().flat_map(|moved| &moved.positions) {
            next.positions.entry(*partition).and_modify(|at| *at = (*at).min(*before)).or_insert(*before);
        }
        next
    }

    /// Positions that are still to be moved when bronze is covered up to `bronze_version`.
    pub fn moved_after(&self, bronze_version: u64) -> Option<Moved> {
        self.moved.clone().filter(|moved| moved.bronze_version > bronze_version)
    }
}

/// An announcement on `karat.commits`; the key of the record is `pipeline`, or `table` for bronze.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Notice {
    /// A bronze table has a new version that holds the topic up to `positions`.
    Bronze {
        table: String,
        version: u64,
        #[serde(with = "by_text")]
        positions: BTreeMap<u32, i64>,
    },
    /// A pipeline has a new epoch.
    Epoch { pipeline: String, epoch: u64 },
}

/// Numbers as keys of a JSON object, also inside a tagged enum: there serde reads keys as text and nothing else.
mod by_text {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(positions: &BTreeMap<u32, i64>, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(positions.iter().map(|(partition, next)| (partition.to_string(), next)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<u32, i64>, D::Error> {
        let texts = BTreeMap::<String, i64>::deserialize(from)?;
        texts.into_iter().map(|(partition, next)| Ok((partition.parse().map_err(D::Error::custom)?, next))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_covers_nothing_behind_positions_that_were_moved_since() {
        let mut epoch = Epoch { positions: BTreeMap::from([(0, 50), (1, 40)]), ..Epoch::default() };
        assert_eq!(epoch.covers(), epoch.positions);
        epoch.moved = Some(Moved { bronze_version: 7, positions: BTreeMap::from([(0, 20), (1, 60), (2, 5)]) });
        assert_eq!(epoch.covers(), BTreeMap::from([(0, 20), (1, 40)]));
        assert_eq!((epoch.moved_after(6), epoch.moved_after(7)), (epoch.moved.clone(), None));
    }

    #[test]
    fn positions_that_are_moved_again_before_the_pipeline_took_the_first_commit_stay_moved() {
        let moved = |bronze_version, positions: &[(u32, i64)]| Moved {
            bronze_version,
            positions: positions.iter().copied().collect(),
        };
        let mut epoch = Epoch { positions: BTreeMap::from([(0, 50), (1, 40), (2, 30)]), ..Epoch::default() };
        assert_eq!(epoch.moved_with(moved(7, &[(0, 20), (2, 3)])), moved(7, &[(0, 20), (2, 3)]));
        epoch.moved = Some(moved(7, &[(0, 20), (2, 3)]));
        // What was given again up to 45 of partition 0 is in bronze by then, and still not in this epoch.
        epoch.moved = Some(epoch.moved_with(moved(9, &[(0, 45), (1, 10), (2, 1)])));
        assert_eq!(epoch.moved, Some(moved(9, &[(0, 20), (1, 10), (2, 1)])));
        assert_eq!(epoch.covers(), BTreeMap::from([(0, 20), (1, 10), (2, 1)]));
    }

    #[test]
    fn notices_are_read_as_they_were_written() {
        let positions = BTreeMap::from([(0, 5), (11, 7)]);
        for notice in [
            Notice::Bronze { table: "bronze.t".into(), version: 3, positions },
            Notice::Epoch { pipeline: "p".into(), epoch: 9 },
        ] {
            let text = serde_json::to_string(&notice).unwrap();
            assert_eq!(serde_json::from_str::<Notice>(&text).unwrap(), notice, "{text}");
        }
        assert!(
            serde_json::from_str::<Notice>(r#"{"kind":"bronze","table":"t","version":1,"positions":{"x":1}}"#).is_err()
        );
    }
}
