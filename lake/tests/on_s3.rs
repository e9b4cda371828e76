//! Tables, epochs and maintenance in a bucket of a real S3 server, behind a door that lets requests fail:
//! `KARAT_TEST_S3=http://KEY:SECRET@HOST:PORT/BUCKET`.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use futures::future::join_all;
use karat_lake::{
    Cleaner, Committed, Error, Kept, Lake, Table, TableSpec, TransactionId,
    arrow::{
        array::{Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema},
    },
    epochs::Epochs,
    fsck::{Needs, inspect},
    outcomes::Outcomes,
    s3::{S3Settings, configure},
};
use karat_oracle::s3::{Door, S3Server, Weather};
use karat_schemas::{command::Outcome, epoch::Epoch};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    aws::{AmazonS3Builder, S3ConditionalPut},
    path::Path,
};
use tokio::{runtime::Runtime, sync::Mutex};

/// The clients of a process are kept, so all tests share the threads, the door, and its weather.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static WORLD: LazyLock<Option<World>> = LazyLock::new(|| {
    let server = S3Server::named()?;
    let door = RUNTIME.block_on(Door::open(&server.endpoint())).unwrap();
    configure(S3Settings::from_variables(server.variables(&door.address())));
    Some(World { server, door, turn: Mutex::default() })
});

struct World {
    server: S3Server,
    door: Door,
    turn: Mutex<()>,
}

/// Runs a test on a lake of its own, alone.
fn on_s3(test: impl AsyncFnOnce(&World, Lake)) {
    let Some(world) = &*WORLD else { return };
    RUNTIME.block_on(async {
        let _turn = world.turn.lock().await;
        world.door.set(Weather::Fair);
        test(world, Lake::at(&world.server.lake(&uuid::Uuid::new_v4().simple().to_string())).unwrap()).await;
    });
}

fn spec(append_only: bool) -> TableSpec {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let name = if append_only { "bronze.t" } else { "silver.t" };
    TableSpec {
        name: name.to_owned(),
        schema,
        partition_by: Vec::new(),
        stats_columns: vec!["a".to_owned()],
        append_only,
    }
}

fn rows(values: &[i64]) -> RecordBatch {
    RecordBatch::try_new(spec(true).schema, vec![Arc::new(Int64Array::from(values.to_vec()))]).unwrap()
}

async fn values(table: &Table) -> Vec<i64> {
    let rows = table.read_all().await.unwrap();
    let column = |rows: &RecordBatch| rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
    let mut values: Vec<i64> = rows.iter().flat_map(column).collect();
    values.sort_unstable();
    values
}

fn epoch(number: u64, mark: i64) -> Epoch {
    Epoch { pipeline: "p".to_owned(), epoch: number, written_at_us: mark, ..Default::default() }
}

#[test]
fn of_many_puts_of_one_name_at_once_one_wins() {
    on_s3(async |world, _| {
        // Without our store, and a client each: as many processes.
        let client = |_| {
            let mut builder = AmazonS3Builder::new().with_conditional_put(S3ConditionalPut::ETagMatch);
            for (name, value) in world.server.variables(&world.server.endpoint()) {
                builder = builder.with_config(name.to_ascii_lowercase().parse().unwrap(), value);
            }
            let lake = world.server.lake("");
            let bucket = lake.trim_start_matches("s3://").trim_end_matches('/').to_owned();
            builder.with_bucket_name(bucket).with_allow_http(true).build().unwrap()
        };
        let clients: Vec<_> = (0..16).map(client).collect();
        for round in 0..10 {
            let name = Path::from(format!("race/{}/{round}", uuid::Uuid::new_v4()));
            let puts = clients.iter().enumerate().map(|(number, client)| {
                let options = PutOptions { mode: PutMode::Create, ..Default::default() };
                client.put_opts(&name, format!("writer {number}").into(), options)
            });
            let answers = join_all(puts).await;
            let winners: Vec<_> = (0..answers.len()).filter(|number| answers[*number].is_ok()).collect();
            let refused =
                |answer: &&object_store::Result<_>| matches!(answer, Err(object_store::Error::AlreadyExists { .. }));
            assert_eq!((winners.len(), answers.iter().filter(refused).count()), (1, 15), "{answers:?}");
            let found = clients[0].get(&name).await.unwrap().bytes().await.unwrap();
            assert_eq!(found, format!("writer {}", winners[0]));
        }
    });
}

#[test]
fn a_bucket_is_looked_at_before_it_is_used() {
    on_s3(async |_, lake| {
        lake.require_usable().await.unwrap();
        let missing = Lake::at("s3://there-is-no-such-bucket/x").unwrap().require_usable().await;
        assert!(matches!(&missing, Err(Error::Unusable { reason, .. }) if reason.contains("bucket")), "{missing:?}");
        let (one, other) = tokio::join!(lake.identity(), lake.identity());
        assert_eq!(one.unwrap(), other.unwrap());
    });
}

#[test]
fn of_two_writers_of_one_table_one_is_refused_and_appends_follow_each_other() {
    on_s3(async |_, lake| {
        for append_only in [false, true] {
            let spec = spec(append_only);
            let (mut one, mut other) =
                (lake.open_or_create(&spec).await.unwrap(), lake.open_or_create(&spec).await.unwrap());
            let write = async |table: &mut Table, who: &str, value: i64| {
                table.append(&[rows(&[value])], &[TransactionId::new(who, value)]).await
            };
            let (first, second) = tokio::join!(write(&mut one, "one", 1), write(&mut other, "other", 2));
            let landed = [&first, &second].iter().filter(|result| matches!(result, Ok(Committed::Now(_)))).count();
            let fenced = [&first, &second].iter().filter(|result| matches!(result, Err(Error::Fenced { .. }))).count();
            assert_eq!((landed, fenced), if append_only { (2, 0) } else { (1, 1) }, "{first:?} {second:?}");
            let found = values(&lake.open(&spec.name).await.unwrap()).await;
            assert_eq!(found.len(), landed, "{found:?}");
        }
        let epochs = Epochs::of(&lake, "p").unwrap();
        let puts: Vec<_> = (1..=8).map(|mark| epoch(1, mark)).collect();
        let answers = join_all(puts.iter().map(|epoch| epochs.put(epoch))).await;
        let winner: Vec<_> = (0..8).filter(|number| *answers[*number].as_ref().unwrap()).collect();
        assert_eq!(winner.len(), 1, "{answers:?}");
        assert_eq!(epochs.latest().await.unwrap().as_ref(), Some(&puts[winner[0]]));
    });
}

/// Commits the row `value` once, as a worker does: after an error the table is opened again, and says whether it is there.
async fn commit_once(lake: &Lake, table: &mut Option<Table>, spec: &TableSpec, value: i64) {
    loop {
        let mut opened = match table.take() {
            Some(opened) => opened,
            None => match lake.open_or_create(spec).await {
                Ok(opened) => opened,
                Err(_) => continue,
            },
        };
        match opened.position("t").await {
            Ok(Some(position)) if position >= value => return drop(table.replace(opened)),
            Ok(_) => {}
            Err(_) => continue,
        }
        if opened.append(&[rows(&[value])], &[TransactionId::new("t", value)]).await.is_ok() {
            return drop(table.replace(opened));
        }
    }
}

#[test]
fn whatever_becomes_of_requests_each_commit_lands_once() {
    on_s3(async |world, lake| {
        let (epochs, outcomes) = (Epochs::of(&lake, "p").unwrap(), Outcomes::of(&lake).unwrap());
        let mut next = 1;
        for weather in [
            Weather::Unavailable { one_in: 3 },
            Weather::FailsAfterwards { one_in: 2 },
            Weather::LosesAnswers { one_in: 2 },
            Weather::Resets { one_in: 4 },
            Weather::CutsReads { one_in: 4 },
            Weather::CarriesOutLate(Duration::from_millis(250)),
            Weather::Slow(Duration::from_millis(20)),
            Weather::Storm { one_in: 3 },
        ] {
            world.door.set(weather);
            let (before, began) = (world.door.failed(), Instant::now());
            let mut tables: BTreeMap<bool, Option<Table>> = BTreeMap::from([(false, None), (true, None)]);
            for value in next..next + 8 {
                for (append_only, table) in &mut tables {
                    commit_once(&lake, table, &spec(*append_only), value).await;
                }
                let number = u64::try_from(value).unwrap();
                // Its own epoch is never taken for another's, and another's never for its own.
                while !epochs.put(&epoch(number, value)).await.unwrap_or(false) {}
                let id = format!("{value}");
                let outcome =
                    |ended_at_us| Outcome { id: id.clone(), pipeline: "p".to_owned(), ended_at_us, failure: None };
                while outcomes.put(&outcome(value)).await.is_err() {}
                while outcomes.put(&outcome(0)).await.is_err() {}
            }
            next += 8;
            eprintln!("{weather:?}: {} requests suffered, {:?}", world.door.failed() - before, began.elapsed());
            if !matches!(weather, Weather::Slow(_)) {
                assert!(world.door.failed() > before, "{weather:?} did nothing");
            }
            world.door.set(Weather::Fair);
            for append_only in [false, true] {
                let table = lake.open(&spec(append_only).name).await.unwrap();
                assert_eq!(values(&table).await, (1..next).collect::<Vec<_>>(), "{weather:?}");
            }
            let number = u64::try_from(next - 1).unwrap();
            assert_eq!(epochs.latest().await.unwrap(), Some(epoch(number, next - 1)), "{weather:?}");
            for value in next - 8..next {
                let found = outcomes.get(&value.to_string()).await.unwrap().unwrap();
                assert_eq!(found.ended_at_us, value, "{weather:?}");
            }
        }
        assert!(!epochs.put(&epoch(3, 4)).await.unwrap());
    });
}

/// How much later the requests of a writer come to the bucket, which is gone by then.
const LATE: Duration = Duration::from_secs(4);

#[test]
fn a_commit_that_lands_after_its_writer_is_gone_is_found_and_one_that_comes_too_late_changes_nothing() {
    on_s3(async |world, lake| {
        let spec = spec(false);
        for is_waited_for in [true, false] {
            let mut table = lake.open_or_create(&spec).await.unwrap();
            let (version, value) = (table.version(), if is_waited_for { 1 } else { 2 });
            let (first, late) = (world.door.failed(), world.door.came_late());
            world.door.set(Weather::CarriesOutLate(LATE));
            let (batch, positions) = ([rows(&[value])], [TransactionId::new("t", value)]);
            let is_on_its_way = async {
                while world.door.failed() == first {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                ended = table.append(&batch, &positions) => panic!("{ended:?}"),
                () = is_on_its_way => {}
            }
            world.door.set(Weather::Fair);
            let all_came = async || {
                let sent = world.door.failed() - first;
                while world.door.came_late() - late < sent {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            if is_waited_for {
                all_came().await;
            }
            // The worker opens the table again, and commits what is not there.
            commit_once(&lake, &mut None, &spec, value).await;
            all_came().await;
            let table = lake.open(&spec.name).await.unwrap();
            assert_eq!(values(&table).await, (1..=value).collect::<Vec<_>>());
            assert_eq!(table.version(), version + 1);
        }
    });
}

#[test]
fn a_large_file_goes_in_parts_and_is_whole() {
    on_s3(async |world, lake| {
        let mut table = lake.open_or_create(&spec(true)).await.unwrap();
        // Numbers that do not compress.
        let numbers: Vec<i64> =
            (0..3_000_000_i64).map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64)).collect();
        world.door.set(Weather::Storm { one_in: 5 });
        while table.append(&[rows(&numbers)], &[TransactionId::new("t", 1)]).await.is_err() {
            table = lake.open_or_create(&spec(true)).await.unwrap();
        }
        world.door.set(Weather::Fair);
        let table = lake.open("bronze.t").await.unwrap();
        assert!(table.files().all(|file| file.size_bytes() > 20 << 20));
        let needs = Needs { every_commit: true, from: None };
        assert_eq!(inspect(&lake, &spec(true), &needs).await.unwrap().faults, []);
    });
}

#[test]
fn what_no_kept_version_needs_goes_from_a_bucket_too() {
    on_s3(async |_, lake| {
        let mut table = lake.open_or_create(&spec(false)).await.unwrap();
        for value in 1..=20 {
            let removed = table.files().map(|file| file.path().to_owned()).collect();
            let added =
                table.staging().stage("slot-00000", &[], &[rows(&[value])]).await.unwrap().into_iter().collect();
            table.commit(removed, added, &[TransactionId::new("t", value)]).await.unwrap();
        }
        for version in [8, 16] {
            karat_lake::checkpoint_at(table.url(), version).await.unwrap();
        }
        let kept = Kept { age: Duration::ZERO, version: Some(18), commits_after: None, milestones: None };
        let cleaned = Cleaner::new(lake.clone()).clean("silver.t", &kept).await.unwrap();
        assert_eq!((cleaned.files, cleaned.log_entries), (17, 8));
        for version in 18..=20 {
            let opened = lake.open_at("silver.t", version).await.unwrap();
            assert_eq!(values(&opened).await, [i64::try_from(version).unwrap()]);
        }
    });
}
