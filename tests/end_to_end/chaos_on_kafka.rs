//! Faults at random on a real broker, with several processes: `make chaos LOG=kafka` (MINUTES, SEED, and ONLY for one fault by its name here).

use std::{
    process::Command,
    time::{Duration, Instant},
};

use karat_oracle::{Proxy, Weather};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    fleet::{Fleet, SESSION},
    owners::storm,
    report::{Report, minutes, seed},
};

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Terminate,
    StaleOwner,
    Storm,
    LostAnswers,
    CutConnections,
    SlowAnswers,
    Stall,
    BrokerKilled,
    BrokerFrozen,
    DoorKilled,
}

const FAULTS: [Fault; 11] = [
    Fault::Kill,
    Fault::DoorKilled,
    Fault::Terminate,
    Fault::StaleOwner,
    Fault::LostAnswers,
    Fault::CutConnections,
    Fault::SlowAnswers,
    Fault::Stall,
    Fault::BrokerKilled,
    Fault::BrokerFrozen,
    Fault::Storm,
];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "`kill -9` of the owner",
            Self::DoorKilled => "`kill -9` of the door",
            Self::Terminate => "the owner stops under load",
            Self::StaleOwner => "the owner frozen past its session, another one takes over",
            Self::Storm => "30 changes of the group a minute, for 3 minutes",
            Self::LostAnswers => "a third of the broker's answers to writes lost",
            Self::CutConnections => "connections to the broker cut",
            Self::SlowAnswers => "each answer of the broker 300 ms late",
            Self::Stall => "nothing passes to the broker for up to 12 s",
            Self::BrokerKilled => "`kill -9` of the broker, started again",
            Self::BrokerFrozen => "the broker frozen for up to 12 s",
        }
    }

    /// Does it, and heals it.
    async fn inject(self, fleet: &mut Fleet, proxy: &Proxy, random: &mut StdRng) {
        let while_it_is = |weather: Weather, time: Duration| async move {
            proxy.set(weather);
            tokio::time::sleep(time).await;
            proxy.set(Weather::Fair);
        };
        let seconds = Duration::from_millis(random.random_range(3_000..12_000));
        match self {
            Self::Kill => {
                let owner = fleet.owner().await;
                fleet.kill(owner);
                fleet.start(owner);
            }
            Self::DoorKilled => fleet.replace_door().await,
            Self::Terminate => {
                let owner = fleet.owner().await;
                fleet.stop(owner).await;
                fleet.start(owner);
            }
            Self::StaleOwner => {
                let owner = fleet.owner().await;
                fleet.transforms[&owner].signal("STOP");
                tokio::time::sleep(SESSION + seconds).await;
                fleet.transforms[&owner].signal("CONT");
            }
            Self::Storm => {
                let changes = storm(fleet, random, Duration::from_secs(180), Duration::from_secs(2)).await;
                assert!(changes >= 85, "{changes} changes in three minutes");
            }
            Self::LostAnswers => while_it_is(Weather::LosesAnswers { one_in: 3 }, seconds).await,
            Self::CutConnections => while_it_is(Weather::Resets { one_in: 30 }, seconds).await,
            Self::SlowAnswers => while_it_is(Weather::Slow(Duration::from_millis(300)), seconds).await,
            Self::Stall => while_it_is(Weather::Stalled, seconds).await,
            Self::BrokerKilled => {
                broker("kill").await;
                tokio::time::sleep(seconds / 4).await;
                broker("again").await;
            }
            Self::BrokerFrozen => {
                broker("freeze").await;
                tokio::time::sleep(seconds).await;
                broker("thaw").await;
            }
        }
    }
}

/// Does something to the broker; gives what the script says.
async fn broker(what: &'static str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/dev/kafka.sh");
    let done = tokio::task::spawn_blocking(move || Command::new(script).arg(what).output());
    let done = done.await.unwrap().unwrap();
    assert!(done.status.success(), "{what}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and a broker of its own: make chaos LOG=kafka"]
async fn chaos_on_kafka() {
    let (minutes, seed) = (minutes(), seed(rand::random::<u32>().into()));
    let mut random = StdRng::seed_from_u64(seed);
    let started = broker("start").await;
    let address = started.trim().strip_prefix("KARAT_TEST_KAFKA=").unwrap();
    let proxy = Proxy::open(address).await.unwrap();
    let mut fleet = Fleet::new(&proxy.address(), &proxy.address()).await;
    (0..3).for_each(|number| fleet.start(number));
    fleet.drain("at first").await;
    let mut report = Report::default();
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let only = std::env::var("KARAT_CHAOS_ONLY").ok();
    let is_meant = |fault: &Fault| only.as_ref().is_none_or(|only| *only == format!("{fault:?}"));
    let faults: Vec<Fault> = FAULTS.into_iter().filter(is_meant).collect();
    let mut rounds = 0;
    while Instant::now() < until || rounds < faults.len() {
        // Each once, and then any.
        let fault = faults.get(rounds).copied().unwrap_or_else(|| *faults.choose(&mut random).unwrap());
        eprintln!("round {rounds}: {}", fault.name());
        let load = fleet.load();
        tokio::time::sleep(Duration::from_millis(random.random_range(300..2_000))).await;
        fault.inject(&mut fleet, &proxy, &mut random).await;
        let told = load.end().await;
        fleet.judged.note_all(told);
        let (verdict, drained) = fleet.drain(&format!("seed {seed}, after {fault:?}")).await;
        eprintln!("        {} acknowledged, drained in {:.1} s", verdict.acknowledged, drained.as_secs_f64());
        report.note(fault.name(), &verdict, drained);
        rounds += 1;
    }
    fleet.end().await;
    println!("seed {seed}, {minutes} min, Kafka; every table then equals its recomputation\n\n{}", report.table());
}
