//! Bronze again, version by version, with the same rows.
//!
//! Everything above bronze counts its versions, so a damaged one is written anew under its number. Which rows it had is
//! known from the positions around it: from where the versions before it end to where the later ones begin. They are
//! in data files that lost their commit, or in the log; what is in neither is lost, and said to be.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use karat_eventlog::{EventLog, PartitionRange};
use karat_lake::{
    DataFile, Lake, TransactionId,
    arrow::{
        array::{AsArray, BooleanArray, RecordBatch},
        compute::filter_record_batch,
        datatypes::Date32Type,
        temporal_conversions::date32_to_datetime,
    },
    fsck::{Part, TableLog, known_files, read_apart, rewrite_commit, stage_apart, unnamed_files},
};

use super::{Finding, Target};
use crate::{
    Result,
    bronze::{
        position_name,
        read::places,
        records::{Ranges, is_in, read_log},
        rows,
    },
    runner::partition_of,
};

/// What a repair did.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Versions that were written anew. What was made from them must be made again.
    pub versions: Vec<u64>,
    /// Rows in them.
    pub rows: usize,
    /// What neither files nor log hold: partition, first and last offset.
    pub lost: Vec<(u32, i64, i64)>,
}

/// Places of rows.
type Places = BTreeSet<(u32, i64)>;

struct Repair<'a> {
    lake: &'a Lake,
    target: &'a Target,
    topic: &'a str,
    files: TableLog,
    /// What the table has, as far as its log can be read.
    known: Vec<DataFile>,
    /// What the log holds; empty when there is none.
    held: Vec<PartitionRange>,
    log: Arc<dyn EventLog>,
    done: Repaired,
}

/// Writes the damaged versions of bronze anew. Whoever calls this has the data folder to himself.
pub async fn repair(
    lake: &Lake,
    target: &Target,
    topic: &str,
    findings: &[Finding],
    log: Arc<dyn EventLog>,
) -> Result<Repaired> {
    let held = match log.topic(topic).await {
        Ok(info) => info.partitions,
        Err(karat_eventlog::Error::UnknownTopic { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let files = TableLog::read(lake, &target.spec.name).await?;
    let known = known_files(lake, &target.spec, &files).await?;
    let mut repair = Repair { lake, target, topic, files, known, held, log, done: Repaired::default() };
    let of = |part: Part| findings.iter().filter(move |finding| finding.fault.part == part);
    let commits: BTreeSet<u64> = of(Part::Commit).map(|finding| finding.version).collect();
    let data: BTreeSet<u64> = of(Part::Data).map(|finding| finding.version).filter(|v| !commits.contains(v)).collect();
    repair.merged(&of(Part::Data).map(|finding| finding.file.as_str()).collect()).await?;
    for version in &data {
        let damaged = of(Part::Data).filter(|finding| finding.version == *version);
        repair.data(*version, &damaged.map(|finding| finding.file.as_str()).collect()).await?;
    }
    repair.files = TableLog::read(lake, &target.spec.name).await?;
    let mut rest: Vec<u64> = commits.into_iter().collect();
    let merged_to = repair.merged_to();
    while let Some(first) = rest.first().copied() {
        let is_merged = first <= merged_to;
        let follows = |(index, version): &(usize, &u64)| {
            **version == first + *index as u64 && (**version <= merged_to) == is_merged
        };
        let run = rest.iter().enumerate().take_while(follows).count();
        let run: Vec<u64> = rest.drain(..run).collect();
        if is_merged {
            repair.merged_commits(&run).await?;
        } else {
            repair.commits(&run).await?;
        }
        // Later runs begin where this one ended.
        repair.files = TableLog::read(lake, &target.spec.name).await?;
    }
    Ok(repair.done)
}

impl Repair<'_> {
    /// Merged files among the damaged ones: another takes the place of each, with the rows between those of its
    /// neighbours.
    async fn merged(&mut self, damaged: &BTreeSet<&str>) -> Result<()> {
        let Ok(mut table) = self.lake.open(&self.target.spec.name).await else { return Ok(()) };
        let merged = |file: &&DataFile| file.merged().is_some() && damaged.contains(file.path());
        let files: Vec<DataFile> = table.files().filter(merged).cloned().collect();
        for file in files {
            let (first, last) = file.merged().unwrap_or_default();
            let (mut begins, mut ends) = (BTreeMap::new(), BTreeMap::new());
            let others: Vec<DataFile> =
                table.files().filter(|other| !damaged.contains(other.path())).cloned().collect();
            for other in others {
                let is_before = other.merged().is_some_and(|(_, end)| end < first);
                for rows in read_apart(self.lake, &self.target.spec, &other).await? {
                    for (partition, offset) in places(&rows) {
                        if is_before {
                            let begin = begins.entry(partition).or_insert(0);
                            *begin = (offset + 1).max(*begin);
                        } else {
                            let end = ends.entry(partition).or_insert(offset);
                            *end = offset.min(*end);
                        }
                    }
                }
            }
            // At the end of the table: what was made from it.
            for (partition, reached) in &self.target.reached {
                ends.entry(*partition).or_insert(*reached);
            }
            let range = |(partition, end)| (partition, (begins.get(&partition).copied().unwrap_or(0), end));
            let wanted: Ranges = ends.into_iter().map(range).collect();
            let mut have = Places::new();
            let again = self.read_from_log(&wanted, &mut have).await?.map(|again| again.with_versions(first, last));
            self.note_lost(&wanted, &have);
            table.merge(vec![file.path().to_owned()], again.into_iter().collect()).await?;
        }
        Ok(())
    }

    /// A version whose commit is whole and whose data is not.
    async fn data(&mut self, version: u64, damaged: &BTreeSet<&str>) -> Result<()> {
        let is_ours = |file: &DataFile| damaged.contains(file.path()) && file.merged().is_none();
        if !self.files.files_of(version).iter().any(is_ours) {
            return Ok(());
        }
        let positions = self.files.positions_of(version);
        let before = self.reached_before(version).await?;
        let mut wanted = Ranges::new();
        for id in &positions {
            let Some(partition) = partition_of(&id.application) else { continue };
            wanted.insert(partition, (before.get(&partition).copied().unwrap_or(0), id.version));
        }
        let (mut kept, mut have) = (Vec::new(), Places::new());
        for file in self.files.files_of(version).into_iter().filter(|file| !damaged.contains(file.path())) {
            for rows in read_apart(self.lake, &self.target.spec, &file).await? {
                have.extend(places(&rows));
            }
            kept.push(file);
        }
        kept.extend(self.read_from_log(&wanted, &mut have).await?);
        self.note_lost(&wanted, &have);
        rewrite_commit(self.lake, &self.target.spec, version, &kept, &positions).await?;
        self.done.versions.push(version);
        Ok(())
    }

    /// Commits one after another that are damaged or missing: the first takes the rows of all.
    async fn commits(&mut self, run: &[u64]) -> Result<()> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let before = self.reached_before(*first).await?;
        let unnamed = unnamed_files(self.lake, &self.target.spec, &self.files, &self.known).await?;
        let wanted = self.wanted(&before, *last, &unnamed).await?;
        let (mut files, mut have) = (Vec::new(), Places::new());
        for rows in unnamed {
            let is_wanted = |place: &(u32, i64)| is_in(&wanted, *place);
            let mask: Vec<bool> = places(&rows).map(|place| is_wanted(&place) && have.insert(place)).collect();
            let rows = filter_record_batch(&rows, &BooleanArray::from(mask))?;
            files.extend(self.stage(&rows, None).await?);
        }
        files.extend(self.read_from_log(&wanted, &mut have).await?);
        self.note_lost(&wanted, &have);
        let positions: Vec<TransactionId> = wanted
            .iter()
            .map(|(partition, (_, end))| TransactionId::new(position_name(self.topic, *partition), *end))
            .collect();
        // The first commit of all creates the table and has no rows.
        let bearer = run.iter().find(|version| **version > 0);
        for version in run {
            let (files, positions) =
                if Some(version) == bearer { (files.as_slice(), positions.as_slice()) } else { (&[][..], &[][..]) };
            rewrite_commit(self.lake, &self.target.spec, *version, files, positions).await?;
            self.done.versions.push(*version);
        }
        Ok(())
    }

    /// The last version whose rows are in merged files.
    fn merged_to(&self) -> u64 {
        self.known.iter().filter_map(DataFile::merged).map(|(_, last)| last).max().unwrap_or(0)
    }

    /// Commits whose rows are in merged files by now: only positions are missing. A partition that moved again has its own in a
    /// later commit; that of another is where its rows end.
    async fn merged_commits(&mut self, run: &[u64]) -> Result<()> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let mut ends = BTreeMap::new();
        let known = self.known.iter();
        let files = known.filter(|file| file.merged().is_some_and(|(from, to)| from <= *last && to >= *first));
        for file in files {
            for rows in read_apart(self.lake, &self.target.spec, file).await? {
                for (partition, offset) in places(&rows) {
                    let end = ends.entry(partition).or_insert(0);
                    *end = (offset + 1).max(*end);
                }
            }
        }
        let later =
            (*last + 1..=self.files.newest().unwrap_or(*last)).flat_map(|version| self.files.positions_of(version));
        let later: BTreeSet<u32> = later.filter_map(|id| partition_of(&id.application)).collect();
        ends.retain(|partition, _| !later.contains(partition));
        let position = |(partition, end)| TransactionId::new(position_name(self.topic, partition), end);
        let positions: Vec<TransactionId> = ends.into_iter().map(position).collect();
        for version in run {
            let positions = if *version > 0 { positions.as_slice() } else { &[] };
            rewrite_commit(self.lake, &self.target.spec, *version, &[], positions).await?;
            self.done.versions.push(*version);
        }
        Ok(())
    }

    /// Next offset of each partition in the versions before one.
    async fn reached_before(&self, version: u64) -> Result<BTreeMap<u32, i64>> {
        let mut reached = BTreeMap::new();
        let base = version.checked_sub(1).and_then(|before| self.files.base_of(before));
        if let Some(base) = base {
            let mut table = self.lake.open_at(&self.target.spec.name, base).await?;
            for partition in (0..).take(self.held.len().max(self.target.reached.len())) {
                let position = table.position(&position_name(self.topic, partition)).await?;
                reached.extend(position.map(|position| (partition, position)));
            }
        }
        for id in (base.unwrap_or(0)..version).flat_map(|version| self.files.positions_of(version)) {
            if let Some(partition) = partition_of(&id.application) {
                reached.insert(partition, id.version);
            }
        }
        Ok(reached)
    }

    /// From where the versions before end to where the later ones begin; at the end of the table, to what was made from it
    /// and what its files hold.
    async fn wanted(&self, before: &BTreeMap<u32, i64>, last: u64, unnamed: &[RecordBatch]) -> Result<Ranges> {
        let mut ends = BTreeMap::new();
        for version in last + 1..=self.files.newest().unwrap_or(last) {
            let positions = self.files.positions_of(version);
            let partitions = positions.iter().filter_map(|id| partition_of(&id.application));
            let unknown: BTreeSet<u32> = partitions.filter(|partition| !ends.contains_key(partition)).collect();
            if unknown.is_empty() {
                continue;
            }
            for file in self.files.files_of(version) {
                for rows in read_apart(self.lake, &self.target.spec, &file).await? {
                    for (partition, offset) in places(&rows).filter(|(partition, _)| unknown.contains(partition)) {
                        let end = ends.entry(partition).or_insert(offset);
                        *end = offset.min(*end);
                    }
                }
            }
        }
        let found: Places = unnamed.iter().flat_map(places).collect();
        let partitions =
            before.keys().chain(self.target.reached.keys()).chain(found.iter().map(|(partition, _)| partition));
        let mut wanted = Ranges::new();
        for partition in partitions.copied().collect::<BTreeSet<_>>() {
            let begin = before.get(&partition).copied().unwrap_or(0);
            let end = ends.get(&partition).copied().unwrap_or_else(|| {
                let mut end = begin;
                while found.contains(&(partition, end)) {
                    end += 1;
                }
                end.max(self.target.reached.get(&partition).copied().unwrap_or(0))
            });
            if begin < end {
                wanted.insert(partition, (begin, end));
            }
        }
        Ok(wanted)
    }

    /// Reads what is wanted and not there yet from the log into a file.
    async fn read_from_log(&mut self, wanted: &Ranges, have: &mut Places) -> Result<Option<DataFile>> {
        let mut missing = Ranges::new();
        for (partition, (begin, end)) in wanted {
            let Some(held) = self.held.get(*partition as usize) else { continue };
            let first = (*begin..*end).find(|offset| !have.contains(&(*partition, *offset)));
            let Some(first) = first.map(|first| first.max(held.begin)) else { continue };
            if first < (*end).min(held.end) {
                missing.insert(*partition, (first, (*end).min(held.end)));
            }
        }
        if missing.is_empty() {
            return Ok(None);
        }
        let mut records = read_log(self.log.as_ref(), self.topic, &missing).await?;
        records.retain(|record| have.insert((record.partition, record.offset)));
        let Some(newest_us) = records.iter().map(|record| record.timestamp_us).max() else { return Ok(None) };
        self.stage(&rows::from_records(&records, newest_us)?, Some(newest_us)).await
    }

    /// Writes rows to a file of the day that they came in: their own, or that of `at_us`.
    async fn stage(&mut self, rows: &RecordBatch, at_us: Option<i64>) -> Result<Option<DataFile>> {
        if rows.num_rows() == 0 {
            return Ok(None);
        }
        let day = match at_us {
            Some(at_us) => chrono::DateTime::from_timestamp_micros(at_us).map(|at| at.naive_utc()),
            None => date32_to_datetime(rows["ingest_date"].as_primitive::<Date32Type>().value(0)),
        };
        let partition = [("ingest_date".to_owned(), day.unwrap_or_default().format("%Y-%m-%d").to_string())];
        self.done.rows += rows.num_rows();
        Ok(Some(stage_apart(self.lake, &self.target.spec, &partition, rows).await?))
    }

    /// Offsets that are nowhere. One that the log passes over, between its begin and its end, never was a record.
    fn note_lost(&mut self, wanted: &Ranges, have: &Places) {
        for (partition, (begin, end)) in wanted {
            let held = self.held.get(*partition as usize);
            let is_lost = |offset: &i64| {
                !have.contains(&(*partition, *offset))
                    && held.is_none_or(|held| *offset < held.begin || *offset >= held.end)
            };
            for offset in (*begin..*end).filter(is_lost) {
                match self.done.lost.last_mut() {
                    Some((of, _, last)) if of == partition && *last + 1 == offset => *last = offset,
                    _ => self.done.lost.push((*partition, offset, offset)),
                }
            }
        }
    }
}
