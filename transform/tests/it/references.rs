//! Reference tables in gold SQL: joined, and the figures follow the file.

use std::{path::Path, sync::Arc, time::Duration};

use karat_eventlog::NewRecord;
use karat_transform::reference;
use serde_json::json;

use crate::support::{DEADLINE, Running, World, record};

const SHOP: &str = r#"
version = 1

[[topic]]
name = "shop.events"
partitions = 1

[[event]]
type = "shop.order"
topic = "shop.events"

[[reference]]
name = "countries"
file = "countries.csv"
columns = [{ name = "code", type = "string", required = true }, { name = "region", type = "string" }]

[[reference]]
name = "raw_rates"
file = "rates.ndjson"

[[reference]]
name = "rates"
sql = "SELECT country, max(percent) AS percent FROM raw_rates GROUP BY country"

[[pipeline]]
name = "shop"
topic = "shop.events"

[[pipeline.input]]
name = "placed"
types = ["shop.order"]
into = "orders"
rescue = false
columns = [
  { name = "customer", type = "string", required = true },
  { name = "country", type = "string" },
  { name = "cents", type = "int64", required = true },
]

[[pipeline.silver]]
name = "orders"
mode = "append"

[[pipeline.gold]]
name = "customers"
key = ["customer"]
sql = """
SELECT o.customer, count(*) AS orders, max(c.region) AS region, sum(o.cents * r.percent) AS weighted
FROM orders AS o LEFT JOIN countries AS c ON c.code = o.country LEFT JOIN rates AS r ON r.country = o.country
GROUP BY o.customer
"""

[[pipeline.gold]]
name = "turnover"
sql = "SELECT country, sum(cents) AS cents FROM orders GROUP BY country"
"#;

const COLUMNS: [&str; 4] = ["customer", "orders", "region", "weighted"];

fn order(id: &str, customer: &str, country: &str) -> NewRecord {
    let data = json!({"customer": customer, "country": country, "cents": 10});
    record("shop.order", "/shop", id, customer, data.to_string(), None)
}

/// Writes a file so that nobody reads it half-written.
fn put(folder: &Path, name: &str, content: &str) {
    std::fs::write(folder.join("new"), content).unwrap();
    std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

/// Loads the files again, as a start does.
fn load(world: &mut World, folder: &Path) {
    let mut pipelines = (*world.settings.pipelines).clone();
    let (problems, _) = reference::load(&mut pipelines, folder);
    assert_eq!(problems, []);
    world.settings.pipelines = Arc::new(pipelines);
}

async fn world(folder: &Path) -> World {
    put(folder, "countries.csv", "code,name,region\nde,Germany,europe\njp,Japan,asia\n");
    put(folder, "rates.ndjson", "{\"country\":\"de\",\"percent\":2}\n{\"country\":\"jp\",\"percent\":3}\n");
    let mut world = World::new(SHOP).await;
    load(&mut world, folder);
    world
}

/// Waits until the pipeline has the generation.
async fn generation(world: &World, running: &Running, wanted: u64) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while world.epochs().latest().await.unwrap().is_none_or(|epoch| epoch.generation < wanted) {
        assert!(!running.is_over(), "the worker ended");
        assert!(tokio::time::Instant::now() < deadline, "generation {wanted} did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The number of the declaration that the newest commit says; it covers the content of reference tables.
async fn declaration(world: &World) -> i64 {
    let mut table = world.settings.lake.open("gold.customers").await.unwrap();
    table.position("gold.customers#declaration").await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn gold_joins_reference_tables_and_follows_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = world(folder.path()).await;
    let running = world.start();
    world.publish(vec![order("1", "ada", "de"), order("2", "ada", "de"), order("3", "bob", "jp")]).await;
    world.publish(vec![order("4", "cy", "fr")]).await;
    world.settled(&running).await;
    assert_eq!(world.text("gold.customers", &COLUMNS).await, ["ada|2|europe|40", "bob|1|asia|30", "cy|1|NULL|NULL"]);
    world.assert_verified().await;
    let before = declaration(&world).await;

    // Every group that the file touches changes, also those without a new event.
    put(folder.path(), "countries.csv", "code,region\nde,mitteleuropa\nfr,western\n");
    generation(&world, &running, 1).await;
    let after = declaration(&world).await;
    assert_ne!(before, after, "another content is another declaration");
    load(&mut world, folder.path());
    assert_eq!(
        world.text("gold.customers", &COLUMNS).await,
        ["ada|2|mitteleuropa|40", "bob|1|NULL|30", "cy|1|western|NULL"]
    );
    world.publish(vec![order("5", "bob", "de")]).await;
    world.settled(&running).await;
    assert_eq!(declaration(&world).await, after);
    assert_eq!(
        world.text("gold.customers", &COLUMNS).await,
        ["ada|2|mitteleuropa|40", "bob|2|mitteleuropa|50", "cy|1|western|NULL"]
    );
    world.assert_verified().await;

    // What changes while nothing runs is found by the next start; nothing else makes it rebuild.
    running.stop().await;
    put(folder.path(), "rates.ndjson", "{\"country\":\"de\",\"percent\":1}\n");
    load(&mut world, folder.path());
    let running = world.start();
    generation(&world, &running, 2).await;
    running.stop().await;
    let running = world.start();
    world.publish(vec![order("6", "cy", "de")]).await;
    assert_eq!(world.settled(&running).await.generation, 2);
    assert_eq!(
        world.text("gold.customers", &COLUMNS).await,
        ["ada|2|mitteleuropa|20", "bob|2|mitteleuropa|10", "cy|2|western|10"]
    );
    assert_eq!(world.text("gold.turnover", &["country", "cents"]).await, ["de|40", "fr|10", "jp|10"]);
    world.assert_verified().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gold_that_joins_a_reference_table_and_cannot_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "countries.csv", "code,region\nde,europe\n");
    put(folder.path(), "rates.ndjson", "{\"country\":\"de\",\"percent\":2}\n");
    for (changed, reason) in [
        (SHOP.replace("key = [\"customer\"]\n", ""), "needs refresh `keys`"),
        (SHOP.replace("key = [\"customer\"]", "key = [\"customer\"]\nrefresh = \"merge\""), "needs refresh `keys`"),
        (SHOP.replace("c.region)", "c.regio)"), "regio"),
        (SHOP.replace("max(percent) AS", "max(percents) AS"), "percents"),
        (SHOP.replace("FROM raw_rates", "FROM orders"), "no reference table `orders` above it"),
        (SHOP.replace("max(percent) AS", "random() AS"), "random()"),
    ] {
        let mut read = karat_schemas::pipelines::read(&changed);
        let (problems, _) = reference::load(&mut read.pipelines, folder.path());
        assert_eq!(problems, []);
        let found = karat_transform::plan::problems(&read).await;
        assert!(found.len() == 1 && found[0].message.contains(reason), "{reason}: {found:?}");
    }
    // A file that cannot be used is the one problem, at its own line.
    std::fs::remove_file(folder.path().join("rates.ndjson")).unwrap();
    let mut read = karat_schemas::pipelines::read(SHOP);
    let (problems, left_out) = reference::load(&mut read.pipelines, folder.path());
    read.left_out.extend(left_out);
    assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [17]);
    assert!(problems[0].message.contains("`rates.ndjson`"), "{problems:?}");
    assert_eq!(karat_transform::plan::problems(&read).await, []);
}
