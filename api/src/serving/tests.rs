//! Keys of answers, deadlines, and work that nobody waits for.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
};

use karat_lake::Lake;
use karat_schemas::epoch::Epoch;
use poem::{Endpoint, IntoResponse};

use super::{scans::query_error, *};
use crate::{health, lag::NoLag};

struct Fixture {
    serving: Arc<Serving>,
    counters: Arc<ServingCounters>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn with_deadline(query_deadline: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let snapshots = Snapshots::new(lake.clone(), "etl_runs").unwrap();
        let counters = Arc::<ServingCounters>::default();
        let settings = ServingSettings { query_deadline, ..ServingSettings::default() };
        let serving = Serving::new(settings, snapshots, lake, Arc::new(NoLag), None, Arc::clone(&counters)).unwrap();
        Self { serving: Arc::new(serving), counters, _folder: folder }
    }

    /// Asks for what never gets done unless it is told to end.
    async fn ask_endlessly(&self) -> Result<DataAnswer<String>, ApiError> {
        let request = Request::builder().finish();
        let question = question(Epoch::default(), DataState::Complete, 0, 1);
        self.serving.answer(&request, question, Arc::clone(&self.serving).compute(endless)).await
    }

    /// Scans far more rows than there is time for.
    async fn scan_endlessly(&self) -> Result<(), ApiError> {
        let session = self.serving.tables.scans.session_over(&[]).unwrap();
        let scan = async move {
            let values = vec!["(1)"; 100].join(", ");
            let nest = |inner: String, _| {
                format!("SELECT a.x + b.x AS x FROM (VALUES {values}) a(x), ({inner} LIMIT 9000000000000) b")
            };
            let inner = (0..6).fold(format!("SELECT x FROM (VALUES {values}) c(x)"), nest);
            let frame = session.sql(&format!("SELECT sum(x) AS s FROM ({inner})")).await.map_err(query_error)?;
            frame.collect().await.map(drop).map_err(query_error)
        };
        self.serving.tables.scans.run(scan).await
    }

    async fn until(&self, holds: impl Fn(ServingLoad) -> bool) {
        let wait = async {
            while !holds(self.counters.load()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("it does not come to hold");
    }
}

fn endless(_: &Serving, work: &Work) -> Result<Vec<u8>, ApiError> {
    loop {
        work.check()?;
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn question(epoch: Epoch, data_state: DataState, clock: i64, limit: u64) -> Question {
    let mut page = KeyParts::of("page");
    page.number("limit", limit);
    Question {
        id: KeyParts::of("question").key(),
        page,
        snapshot: Arc::new(Snapshot { epoch, ..Snapshot::default() }),
        freshness: Freshness { data_state, lag_records: None, lag_bytes: None, lag: Duration::ZERO },
        clock,
    }
}

#[tokio::test]
async fn an_answer_is_rendered_then_kept_then_known_with_the_same_headers() {
    let fixture = Fixture::with_deadline(Duration::from_secs(3600));
    let epoch = Epoch { epoch: 1, written_at_us: 1, as_of_us: Some(0), ..Epoch::default() };
    let ask = async |tag: &str| {
        let request = Request::builder().header("if-none-match", tag).finish();
        let asked = question(epoch.clone(), DataState::Complete, 0, 1);
        let render = async { Ok(b"{}".to_vec()) };
        let answer: DataAnswer<String> = fixture.serving.answer(&request, asked, render).await.unwrap();
        answer.into_response()
    };
    let (rendered, kept) = (ask("\"other\"").await, ask("\"other\"").await);
    let known = ask(rendered.headers()["etag"].to_str().unwrap()).await;
    assert_eq!([rendered.status(), kept.status(), known.status()].map(|status| status.as_u16()), [200, 200, 304]);
    for name in ["etag", "last-modified", "karat-as-of", "cache-control", "vary"] {
        let value = &rendered.headers()[name];
        assert_eq!((&kept.headers()[name], &known.headers()[name]), (value, value), "{name}");
    }
    assert!(!known.headers().contains_key("content-type"));
    let load = fixture.counters.load();
    assert_eq!((load.misses, load.hits, load.not_modified), (1, 1, 1));
}

#[tokio::test]
async fn security_64_an_answer_that_takes_too_long_is_given_up_and_its_work_ends() {
    let fixture = Fixture::with_deadline(Duration::from_millis(50));
    let failed = fixture.ask_endlessly().await.err().unwrap();
    assert_eq!((failed.status().as_u16(), failed.code()), (504, "deadline_exceeded"));
    fixture.until(|load| load.running == 0).await;
    assert_eq!(fixture.counters.load().answers, 0);
}

#[tokio::test]
async fn security_64_work_ends_when_nobody_waits_for_it_any_more() {
    let fixture = Fixture::with_deadline(Duration::from_secs(3600));
    tokio::select! {
        _ = fixture.ask_endlessly() => panic!("it has no end"),
        () = fixture.until(|load| load.running == 1) => {}
    }
    fixture.until(|load| load.running == 0).await;
}

#[tokio::test]
async fn security_64_a_scan_without_an_end_ends_when_its_asker_leaves_and_gives_its_turn_back() {
    let fixture = Fixture::with_deadline(Duration::from_secs(3600));
    tokio::select! {
        ended = fixture.scan_endlessly() => panic!("it has no end: {ended:?}"),
        () = fixture.until(|load| load.running == 1) => {}
    }
    fixture.until(|load| load.running == 0).await;
    let late = in_time(Duration::from_millis(50), fixture.scan_endlessly()).await.unwrap_err();
    assert_eq!((late.status().as_u16(), late.code()), (504, "deadline_exceeded"));
    fixture.until(|load| load.running == 0).await;
}

#[tokio::test]
async fn a_scan_that_holds_its_thread_holds_none_of_those_that_answer_requests() {
    let fixture = Fixture::with_deadline(Duration::from_secs(3600));
    let may_end = Arc::<AtomicBool>::default();
    let is_ending = Arc::clone(&may_end);
    let holds_its_thread = async move {
        while !is_ending.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    let mut scan = pin!(fixture.serving.tables.scans.run(holds_its_thread));
    let others = async {
        fixture.until(|load| load.running == 1).await;
        // On the one thread of this test: it would wait for the scan if that ran here.
        health::live().call(Request::builder().finish()).await.unwrap().status().as_u16()
    };
    let status = tokio::select! {
        biased;
        _ = &mut scan => panic!("it has not been told to end"),
        status = others => status,
    };
    may_end.store(true, Ordering::Relaxed);
    assert_eq!(status, 200);
    scan.await.unwrap();
    assert_eq!(fixture.counters.load().running, 0);
}

#[tokio::test]
async fn a_panic_of_some_work_is_an_error_and_gives_its_turn_back() {
    let fixture = Fixture::with_deadline(Duration::from_secs(3600));
    let work = |_: &Serving, _: &Work| -> Result<(), ApiError> { panic!("as this test wants it") };
    let failed = Arc::clone(&fixture.serving).compute(work).await.unwrap_err();
    assert_eq!(failed.status().as_u16(), 500);
    fixture.until(|load| load.running == 0).await;
}

#[test]
fn an_answer_is_of_its_epoch_its_page_and_its_moment() {
    let epoch = |epoch, generation, written_at_us| Epoch {
        pipeline: "p".to_owned(),
        epoch,
        generation,
        written_at_us,
        ..Epoch::default()
    };
    let other_pipeline = Epoch { pipeline: "q".to_owned(), ..epoch(1, 1, 1) };
    let ask = || {
        [
            question(epoch(1, 1, 1), DataState::Complete, 0, 1),
            question(epoch(2, 1, 1), DataState::Complete, 0, 1),
            question(epoch(1, 2, 1), DataState::Complete, 0, 1),
            question(epoch(1, 1, 2), DataState::Complete, 0, 1),
            question(other_pipeline.clone(), DataState::Complete, 0, 1),
            question(epoch(1, 1, 1), DataState::Late, 0, 1),
            question(epoch(1, 1, 1), DataState::Complete, 1, 1),
            question(epoch(1, 1, 1), DataState::Complete, 0, 2),
        ]
        .map(|question| question.key().0)
    };
    let keys = ask();
    assert_eq!(keys, ask());
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(key), "{at}");
    }
}

#[test]
fn security_79_callers_of_another_scope_never_share_an_answer() {
    let own = |user: &str, granted: &[&str]| Visible::Own {
        user: user.to_owned(),
        granted: granted.iter().map(|source| (*source).to_owned()).collect(),
    };
    let scopes = [
        (Visible::All, Role::Admin),
        (Visible::All, Role::Operator),
        (Visible::All, Role::Moderator),
        (own("a", &[]), Role::User),
        (own("b", &[]), Role::User),
        (own("a", &[]), Role::Moderator),
        (own("a", &["x"]), Role::User),
        (own("a", &["x", "y"]), Role::User),
        (own("a", &["xy"]), Role::User),
        (own("ax", &[]), Role::User),
    ];
    let keys = scopes.map(|(visible, role)| Scope { visible, role }.asks("summary").key());
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(key), "{at}");
    }
}
