//! The tables as the judge sees them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use karat_lake::{
    Lake, Table,
    arrow::{
        array::{Array, AsArray, RecordBatch},
        datatypes::{DataType, Field, Int32Type, Int64Type, Schema},
    },
};

use crate::{Verdict, ledger::Event};

/// Why the judge could not come to a verdict.
pub type Error = karat_lake::Error;

/// The tables that are judged.
pub struct Watched {
    /// Full name of the bronze table.
    pub bronze: String,
    /// Full names of the append tables of silver that inputs feed. Their rows say where they came from.
    pub silver: Vec<String>,
    /// Full name of the quarantine table.
    pub quarantine: String,
}

/// A place in the log: partition and offset.
pub(crate) type Place = (i32, i64);

/// The bronze rows.
pub(crate) struct Bronze {
    events: BTreeMap<Event, Vec<Place>>,
    places: HashMap<Place, u32>,
}

impl Bronze {
    pub(crate) async fn read(lake: &Lake, table: &str) -> Result<Self, Error> {
        let mut bronze = Self { events: BTreeMap::new(), places: HashMap::new() };
        let columns = [
            ("partition", DataType::Int32),
            ("offset", DataType::Int64),
            ("payload", DataType::Binary),
            ("ce_source", DataType::Utf8),
            ("ce_id", DataType::Utf8),
        ];
        for rows in read(lake, table, &columns).await? {
            let (sources, ids) = (rows.column(3).as_string::<i32>(), rows.column(4).as_string::<i32>());
            let payloads = rows.column(2).as_binary::<i32>();
            for (row, place) in places(&rows).into_iter().enumerate() {
                let text = |values: &karat_lake::arrow::array::StringArray| {
                    if values.is_valid(row) { values.value(row).to_owned() } else { String::new() }
                };
                let event = Event::new(&text(sources), &text(ids), payloads.value(row));
                bronze.events.entry(event).or_default().push(place);
                *bronze.places.entry(place).or_default() += 1;
            }
        }
        Ok(bronze)
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.keys()
    }

    pub(crate) fn places_of(&self, event: &Event) -> &[Place] {
        self.events.get(event).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every row: its event and its place.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Event, Place)> {
        self.events.iter().flat_map(|(event, places)| places.iter().map(move |place| (event, *place)))
    }

    pub(crate) fn has(&self, place: Place) -> bool {
        self.places.contains_key(&place)
    }

    /// Each place once, and no gap between the first and the last of a partition.
    pub(crate) fn compare_places(&self, verdict: &mut Verdict) {
        let mut ranges: BTreeMap<i32, (i64, i64, i64)> = BTreeMap::new();
        for ((partition, offset), times) in &self.places {
            if *times > 1 {
                verdict.duplicated.push(format!("partition {partition} offset {offset}: {times} times in bronze"));
            }
            let range = ranges.entry(*partition).or_insert((*offset, *offset, 0));
            *range = (range.0.min(*offset), range.1.max(*offset), range.2 + 1);
        }
        for (partition, (first, last, count)) in ranges {
            let missing = last - first + 1 - count;
            if missing > 0 {
                verdict.lost.push(format!("partition {partition}: {missing} offsets between {first} and {last}"));
            }
        }
    }
}

/// The recorded next offset of a partition never falls from one version to the next.
pub(crate) async fn compare_positions(lake: &Lake, table: &str, verdict: &mut Verdict) -> Result<(), Error> {
    let table = lake.open(table).await?;
    let mut after: BTreeMap<String, i64> = BTreeMap::new();
    for version in (1..=table.version()).rev() {
        // The log of a table is kept for a while only.
        let Ok(commits) = table.commits_between(version - 1, version).await else { break };
        // What has a `#` in its name says something about a position.
        let positions = commits.into_iter().flat_map(|commit| commit.positions);
        for id in positions.filter(|id| !id.application.contains('#')) {
            if after.get(&id.application).is_some_and(|later| *later < id.version) {
                verdict.wrong.push(format!("the position `{}` falls after version {version}", id.application));
            }
            after.insert(id.application, id.version);
        }
    }
    Ok(())
}

/// Of the places of each event exactly one is in silver or in quarantine, and not in both; every row there has a place in
/// bronze. One record may feed several tables of silver.
pub(crate) async fn compare_refined(
    lake: &Lake,
    watched: &Watched,
    bronze: &Bronze,
    verdict: &mut Verdict,
) -> Result<(), Error> {
    let mut refined: BTreeSet<Place> = BTreeSet::new();
    let mut twice = |place: Place, table: &str| {
        verdict.duplicated.push(format!("partition {} offset {}: twice in `{table}`", place.0, place.1));
    };
    for table in &watched.silver {
        let mut of_table = BTreeSet::new();
        for rows in read(lake, table, &[("_partition", DataType::Int32), ("_offset", DataType::Int64)]).await? {
            places(&rows).into_iter().filter(|place| !of_table.insert(*place)).for_each(|place| twice(place, table));
        }
        refined.extend(of_table);
    }
    let mut put_aside = BTreeSet::new();
    let columns = [("partition", DataType::Int32), ("offset", DataType::Int64)];
    for rows in read(lake, &watched.quarantine, &columns).await? {
        let again = places(&rows).into_iter().filter(|place| !put_aside.insert(*place));
        again.for_each(|place| twice(place, &watched.quarantine));
    }
    for (partition, offset) in refined.intersection(&put_aside) {
        verdict.duplicated.push(format!("partition {partition} offset {offset}: in silver and in quarantine"));
    }
    refined.extend(put_aside);
    let strangers = refined.iter().filter(|place| !bronze.places.contains_key(*place));
    verdict.wrong.extend(strangers.map(|place| format!("partition {} offset {}: not in bronze", place.0, place.1)));
    for (event, places) in &bronze.events {
        let there = places.iter().filter(|place| refined.contains(*place)).count();
        match there {
            1 => {}
            0 => verdict.lost.push(format!("{}: neither in silver nor in quarantine", event.name())),
            more => verdict.duplicated.push(format!("{}: {more} times in silver and quarantine", event.name())),
        }
    }
    Ok(())
}

async fn read(lake: &Lake, table: &str, columns: &[(&str, DataType)]) -> Result<Vec<RecordBatch>, Error> {
    let table: Table = match lake.open(table).await {
        Ok(table) => table,
        // Nothing was committed to it yet.
        Err(Error::UnknownTable(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let fields = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true));
    let schema = std::sync::Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let mut batches = Vec::new();
    for file in table.files() {
        batches.extend(table.read(file, Some(&schema)).await?);
    }
    Ok(batches)
}

/// The first two columns: partition and offset.
fn places(rows: &RecordBatch) -> Vec<Place> {
    let partitions = rows.column(0).as_primitive::<Int32Type>().values();
    let offsets = rows.column(1).as_primitive::<Int64Type>().values();
    partitions.iter().copied().zip(offsets.iter().copied()).collect()
}
