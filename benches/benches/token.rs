//! What it costs to find out who is calling: an access token and an API key, each for the first time and again.
//!
//! Everything goes through [`Access::authenticate`], which the server asks for each request. The median of each way is
//! printed beside the bar of 100 microseconds, as text on standard error and in one line of JSON that ends standard
//! output. Figures are of this machine and decide nothing: a missed bar is said, and is no error.
#![allow(clippy::print_stdout)]

use std::{
    error::Error,
    fs,
    hint::black_box,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use karat_access::{
    Access, AccessSettings, Actor, Credential, NewAccount, NewApiKey, Origin, Registration, Scopes, TokenPair,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

const GROUP: &str = "validation";
/// What a validation may cost, in microseconds.
const BAR_US: f64 = 100.0;
/// Tokens, and keys, that take turns.
const NUM_CREDENTIALS: usize = 64;

/// Credentials of one account, and two views of its accounts folder.
struct Prepared {
    /// As the server has it: what was seen is remembered.
    remembering: Access,
    /// Remembers so little that each credential is new again when its turn comes.
    forgetting: Access,
    tokens: Vec<SecretString>,
    keys: Vec<SecretString>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::new()?;
    let folder = tempfile::tempdir()?;
    let prepared = runtime.block_on(Prepared::make(folder.path()))?;
    let begin = SystemTime::now();
    // Named here, so that the estimates are found again below.
    let results = Path::new(env!("CARGO_TARGET_TMPDIR")).join("criterion");
    let mut criterion = Criterion::default().without_plots().output_directory(&results).configure_from_args();
    let tokens: Vec<_> = prepared.tokens.iter().map(|token| Credential::Token(token.expose_secret())).collect();
    let keys: Vec<_> = prepared.keys.iter().map(|key| Credential::ApiKey(key.expose_secret())).collect();
    let ways = [
        ("token_first", &prepared.forgetting, &tokens),
        ("token_cached", &prepared.remembering, &tokens),
        ("key_first", &prepared.forgetting, &keys),
        ("key_cached", &prepared.remembering, &keys),
    ];
    let mut group = criterion.benchmark_group(GROUP);
    for (name, access, credentials) in ways {
        measure(&mut group, name, &runtime, access, credentials);
    }
    group.finish();
    criterion.final_summary();
    report(ways.map(|(name, ..)| name), |name| median_us(&results.join(GROUP).join(name), begin));
    // The accounts end inside of the runtime that their tasks run on.
    runtime.block_on(async move { drop(prepared) });
    Ok(())
}

impl Prepared {
    async fn make(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let settings = AccessSettings { refreshes_per_hour: None, ..AccessSettings::in_folder(folder) };
        let remembering = Access::open(settings.clone()).await?;
        let forgetful =
            AccessSettings { token_cache_entries: NUM_CREDENTIALS / 2, key_cache_ttl: Duration::ZERO, ..settings };
        let forgetting = Access::open(forgetful).await?;
        let mut pair = register(&remembering).await?;
        let (owner, mut tokens, mut keys) = (pair.user.id, Vec::new(), Vec::new());
        for number in 0..NUM_CREDENTIALS {
            pair = remembering.refresh(&pair.refresh_token, &Origin::default()).await?;
            tokens.push(pair.access_token.clone());
            let scopes = Scopes::parse(["read"]).map_err(|problems| problems.join("; "))?;
            let name = format!("bench {number}");
            let new = NewApiKey { owner, name, scopes, expires_in: None, events_per_second: None };
            keys.push(remembering.create_api_key(new, Actor::Shell, &Origin::default()).await?.secret);
        }
        Ok(Self { remembering, forgetting, tokens, keys })
    }
}

async fn register(access: &Access) -> Result<TokenPair, Box<dyn Error>> {
    let password = SecretString::from("Only 4 one measurement!");
    let account = NewAccount { username: Some("bench".to_owned()), email: None, password, full_name: None };
    match access.register(account, &Origin::default()).await? {
        Registration::Tokens(pair) => Ok(*pair),
        Registration::VerificationSent => Err("an account without an address has nothing to confirm".into()),
    }
}

fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    runtime: &Runtime,
    access: &Access,
    credentials: &[Credential<'_>],
) {
    // Goes on from sample to sample: one that began anew would find the first credentials remembered.
    let mut turns = credentials.iter().cycle();
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            runtime.block_on(async {
                let start = Instant::now();
                for (_, credential) in (0..iterations).zip(&mut turns) {
                    let caller = access.authenticate(black_box(*credential)).await;
                    assert!(black_box(caller).is_ok(), "`{name}` was refused");
                }
                start.elapsed()
            })
        });
    });
}

/// The median of a measurement of this run; none when it was left out, so that no older figure is taken for it.
fn median_us(results: &Path, begin: SystemTime) -> Option<f64> {
    let file = results.join("new").join("estimates.json");
    if fs::metadata(&file).ok()?.modified().ok()? < begin {
        return None;
    }
    let estimates: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    Some(estimates.pointer("/median/point_estimate")?.as_f64()? / 1000.0)
}

fn report<const N: usize>(names: [&str; N], median_us: impl Fn(&str) -> Option<f64>) {
    let mut figures = Map::new();
    for (name, median) in names.into_iter().filter_map(|name| Some((name, median_us(name)?))) {
        let verdict = if median < BAR_US { "met" } else { "missed" };
        eprintln!("{name}: median {median:.2} us; bar {BAR_US} us: {verdict}");
        figures.insert(format!("{name}_us"), json!((median * 100.0).round() / 100.0));
    }
    if !figures.is_empty() {
        figures.insert("bar_us".to_owned(), json!(BAR_US));
        println!("{}", Value::Object(figures));
    }
}
