//! `up --demo`: the sample data through the real door, and a log-in to look at it with.

use clap::Parser;
use karat_access::{Access, Actor, NewApiKey, NewUser, Origin, Role, Scopes};
use karat_api::routes::PROFITS_PIPELINE;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    commands::publish::{self, PublishArgs},
    failure::{FAILED, Failure, Result},
    instance::Instance,
};

const RUNS: &[u8] = include_bytes!("../../examples/openlineage-airline.ndjson.gz");
const PROFITS: &[u8] = include_bytes!("../../examples/profits.ndjson");
const DEMO_USER: &str = "demo";

#[derive(Parser)]
struct Publish {
    #[command(flatten)]
    arguments: PublishArgs,
}

/// Publishes the sample as a new user of each start would, waits until it is in gold, and prints what to do next.
pub async fn run(instance: &Instance, access: &Access, url: &str) -> Result<()> {
    let (owner, password) = account(access).await?;
    let scopes = Scopes::parse(["publish:*"]).map_err(|problems| Failure::new(FAILED, problems.join("; ")))?;
    let key = NewApiKey { owner, name: "demo".to_owned(), scopes, expires_in: None, events_per_second: None };
    let key = access.create_api_key(key, Actor::Shell, &Origin::default()).await?;
    let secret = key.secret.expose_secret();
    publish_sample(instance, "demo.ndjson.gz", RUNS, url, secret).await?;
    wait_for_gold(url, secret, "lineage/batch", flate2::read::GzDecoder::new(RUNS)).await?;
    if instance.pipeline(PROFITS_PIPELINE).is_ok() {
        publish_sample(instance, "demo-profits.ndjson", PROFITS, url, secret).await?;
        wait_for_gold(url, secret, "events", PROFITS).await?;
    }
    show(url, &password, key.secret.expose_secret());
    Ok(())
}

/// The demo account with a new password. Random text can break a password rule (`abcd`, `1111`): then another is made.
async fn account(access: &Access) -> Result<(uuid::Uuid, SecretString)> {
    let user = access.find_user_by_name(DEMO_USER).await?;
    let mut tries = 0;
    loop {
        let password = SecretString::from(format!("Gold-{}-Q7", hex::encode(rand::random::<[u8; 8]>())));
        let origin = Origin::default();
        let result = match &user {
            Some(user) => {
                access.reset_password(user.id, password.clone(), Actor::Shell, &origin).await.map(|_| user.id)
            }
            None => {
                let (username, password) = (DEMO_USER.to_owned(), password.clone());
                let new = NewUser { username, email: None, password, role: Role::Operator };
                access.create_user(new, Actor::Shell, &origin).await.map(|user| user.id)
            }
        };
        match result {
            Ok(owner) => return Ok((owner, password)),
            Err(karat_access::AccessError::Invalid(_)) if tries < 20 => tries += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a start without the demo prints.
#[allow(clippy::unnecessary_wraps)]
pub fn welcome(url: &str) -> Result<()> {
    tracing::info!("ready at {url}, reference at {url}/docs; make an account with `karat user create`");
    Ok(())
}

async fn publish_sample(instance: &Instance, name: &str, sample: &[u8], url: &str, key: &str) -> Result<()> {
    let path = instance.data.join(name);
    std::fs::write(&path, sample)?;
    let file_name = path.display().to_string();
    let words = ["publish", &file_name, "--url", url, "--key", key];
    let arguments = Publish::try_parse_from(words).map_err(|error| Failure::new(FAILED, error))?.arguments;
    publish::run(arguments).await?;
    Ok(())
}

/// Some events of the sample again, with `wait=gold`: they count nothing, fall into every partition, and the answer
/// comes when gold has everything before them.
async fn wait_for_gold(url: &str, key: &str, route: &str, sample: impl std::io::Read) -> Result<()> {
    let reader = std::io::BufReader::new(sample);
    let lines: Vec<String> = std::io::BufRead::lines(reader).take(100).collect::<std::io::Result<_>>()?;
    let body = format!("[{}]", lines.join(","));
    let client = reqwest::Client::new();
    let request = client.post(format!("{url}/api/v1/{route}?wait=gold")).bearer_auth(key);
    let answer = request.header("content-type", "application/json").body(body).send().await;
    let answer = answer.map_err(Failure::unreachable)?;
    if answer.status() != reqwest::StatusCode::OK {
        tracing::warn!(status = %answer.status(), "the sample data has not reached gold yet");
    }
    Ok(())
}

#[allow(clippy::print_stdout)]
fn show(url: &str, password: &SecretString, key: &str) {
    let password = password.expose_secret();
    println!(
        "
Karat is up, with 84 days of sample runs and two years of profits of five companies.

  reference   {url}/docs
  log in      user `{DEMO_USER}`, password `{password}`
  API key     {key}

  TOKEN=$(curl -s {url}/api/v1/auth/login -H 'content-type: application/json' \\
    -d '{{\"username\":\"{DEMO_USER}\",\"password\":\"{password}\"}}' | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')
  curl -s -H \"authorization: Bearer $TOKEN\" '{url}/api/v1/summary?from=2026-08-24&to=2026-08-30'
  curl -s -H \"authorization: Bearer $TOKEN\" '{url}/api/v1/profits?company=Alder%20Mills&year=2025'

Press Ctrl-C to stop."
    );
}
