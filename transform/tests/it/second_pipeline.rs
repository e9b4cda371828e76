//! A pipeline of another shape than the one that ships, from its declaration alone: orders that change and are deleted,
//! decimals, payments with rules of every kind, and figures that are merged or computed by key.

use karat_eventlog::NewRecord;
use serde_json::{Value, json};

use crate::support::{World, record};

const SHOP: &str = r#"
version = 1

[[topic]]
name = "shop.events"
partitions = 3

[[event]]
type = "shop.order.changed"
topic = "shop.events"

[[event]]
type = "shop.payment.taken"
topic = "shop.events"

[[pipeline]]
name = "shop"
topic = "shop.events"

[[pipeline.input]]
name = "changes"
types = ["shop.order.changed"]
into = "orders"
columns = [
  { name = "order_id", type = "string", required = true },
  { name = "version", type = "int64", required = true },
  { name = "ordered_at", type = "timestamp", required = true },
  { name = "customer", path = "customer.name", type = "string", required = true },
  { name = "country", path = "customer.country", type = "string" },
  { name = "amount", type = "decimal(16,2)", required = true },
  { name = "state", type = "string", required = true },
]

[[pipeline.input]]
name = "taken"
types = ["shop.payment.taken"]
into = "payments"
rescue = false
columns = [
  { name = "paid_at", type = "timestamp", required = true },
  { name = "method", type = "string" },
  { name = "payer", type = "string" },
  { name = "cents", type = "int64" },
  { name = "note", type = "string" },
]
sql = "SELECT ce_id AS payment_id, paid_at, method, payer, cents, note FROM taken"

[[pipeline.silver]]
name = "orders"
mode = "upsert"
key = ["order_id"]
sequence = ["version"]
delete_when = "state = 'deleted'"

[[pipeline.silver]]
name = "payments"
mode = "append"
time = "paid_at"
expect = [
  { name = "note_is_short", check = "length(note) <= 5", action = "warn", null = "pass" },
  { name = "payer_is_named", check = "payer <> ''", action = "warn" },
  { name = "is_no_test", check = "method <> 'test'", action = "drop", null = "pass" },
  { name = "cents_are_positive", check = "cents > 0", action = "quarantine" },
  { name = "method_is_known", check = "method IN ('card', 'cash', 'test')", action = "quarantine", null = "fail" },
  { name = "cents_are_credible", check = "cents < 1000000", action = "fail", null = "pass" },
]

[[pipeline.gold]]
name = "turnover"
bucket = { column = "day", grain = "day" }
sql = """
SELECT date_trunc('day', ordered_at) AS day, country, count(*) AS orders, sum(amount) AS amount, avg(amount) AS average,
       percentile(version, 0.5) AS median_version
FROM orders
GROUP BY 1, 2
"""

[[pipeline.gold]]
name = "payment_figures"
refresh = "merge"
sql = """
SELECT method, count(*) AS payments, count(payer) AS named, min(cents) AS least, max(cents) AS most, avg(cents) AS average,
       sum(cents) AS cents, count(DISTINCT payer) AS payers, percentile(cents, 0.95) AS p95
FROM payments
GROUP BY method
"""

[[pipeline.gold]]
name = "customers"
refresh = "keys"
key = ["customer"]
sql = """
SELECT customer, count(*) AS orders, max(amount) AS largest,
       first_value(order_id ORDER BY ordered_at DESC, order_id) AS newest
FROM orders
GROUP BY customer
"""

[[pipeline.gold]]
name = "payers"
refresh = "keys"
key = ["payer"]
sql = "SELECT payer, count(*) AS payments, max(cents) - min(cents) AS spread FROM payments GROUP BY payer"
"#;

fn order(order_id: &str, version: i64, day: u32, customer: Value, amount: &str, state: &str) -> NewRecord {
    // The amount is written as given: a number in JSON has as many digits as it needs.
    let rest = json!({"order_id": order_id, "version": version, "ordered_at": format!("2026-03-{day:02}T08:00:00Z"),
                      "customer": customer, "state": state});
    let data = format!(r#"{{"amount":{amount},{}"#, &rest.to_string()[1..]);
    record("shop.order.changed", "/shop", &format!("{order_id}-{version}"), order_id, &data, None)
}

fn payment(id: &str, data: Value) -> NewRecord {
    let mut data = data;
    data["paid_at"] = json!("2026-03-01T09:30:00Z");
    record("shop.payment.taken", "/till", id, id, data.to_string(), None)
}

fn orders() -> Vec<NewRecord> {
    let ada = |country: &str| json!({"name": "ada", "country": country});
    let bob = || json!({"name": "bob", "country": "de"});
    vec![
        // Moves to another country and becomes dearer.
        order("o1", 1, 1, ada("de"), "10.00", "open"),
        order("o1", 2, 1, ada("fr"), "12.5", "paid"),
        // Deleted by version 3; version 2 must not bring it back, whenever it comes.
        order("o2", 1, 1, bob(), "5.25", "open"),
        order("o2", 3, 1, bob(), "5.25", "deleted"),
        order("o2", 2, 1, bob(), "7.75", "open"),
        // No country is a group of its own; text is as exact as a number; a field that no column reads is kept.
        order("o3", 1, 2, json!({"name": "cy", "tier": "gold"}), "\"0.10\"", "open"),
        // Deleted before anybody saw it.
        order("o4", 1, 2, bob(), "1.00", "deleted"),
        // The largest amount that the column holds.
        order("o5", 1, 2, json!({"name": "cy"}), "99999999999999.99", "open"),
        // Deleted, then there again.
        order("o6", 1, 1, bob(), "3.00", "open"),
        order("o6", 2, 1, bob(), "3.00", "deleted"),
        order("o6", 3, 1, bob(), "4.00", "open"),
        // Half a cent is not an amount.
        order("o7", 1, 1, bob(), "1.005", "open"),
    ]
}

async fn assert_orders(world: &World) {
    assert_eq!(
        world
            .text("silver.orders", &["order_id", "version", "customer", "country", "amount", "state", "_rescued"])
            .await,
        [
            "o1|2|ada|fr|12.50|paid|NULL",
            r#"o3|1|cy|NULL|0.10|open|{"customer.tier":"gold"}"#,
            "o5|1|cy|NULL|99999999999999.99|open|NULL",
            "o6|3|bob|de|4.00|open|NULL",
        ]
    );
    assert_eq!(
        world.text("gold.turnover", &["day", "country", "orders", "amount", "average", "median_version"]).await,
        [
            "2026-03-01T00:00:00Z|de|1|4.00|4.000000|3.0",
            "2026-03-01T00:00:00Z|fr|1|12.50|12.500000|2.0",
            "2026-03-02T00:00:00Z|NULL|2|100000000000000.09|50000000000000.045000|1.0",
        ]
    );
    assert_eq!(
        world.text("gold.customers", &["customer", "orders", "largest", "newest"]).await,
        ["ada|1|12.50|o1", "bob|1|4.00|o6", "cy|2|99999999999999.99|o3"]
    );
    world.assert_verified().await;
}

async fn assert_quarantined(world: &World, expected: &[&str]) {
    assert_eq!(world.text("quarantine.shop", &["ce_id", "stage", "rules"]).await, expected);
}

/// Publishes in parts, each settled before the next.
async fn arrive(events: Vec<NewRecord>, part: usize) {
    let world = World::new(SHOP).await;
    let running = world.start();
    for part in events.chunks(part) {
        world.publish(part.to_vec()).await;
        world.settled(&running).await;
    }
    assert_orders(&world).await;
    assert_quarantined(&world, &["o7-1|decode|inexact_value"]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_right_when_they_arrive_together() {
    arrive(orders(), 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_right_when_each_arrives_alone() {
    arrive(orders(), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_right_when_they_arrive_backwards() {
    arrive(orders().into_iter().rev().collect(), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_right_when_they_arrive_mixed_and_twice() {
    let events = orders();
    // 5 and 12 share no factor, so the stride visits every event once; the second round repeats each.
    let mixed = (0..2 * events.len()).map(|index| events[index * 5 % events.len()].clone()).collect();
    let world = World::new(SHOP).await;
    let running = world.start();
    world.publish(mixed).await;
    world.settled(&running).await;
    assert_orders(&world).await;
    assert_quarantined(&world, &["o7-1|decode|inexact_value"]).await;
    let counts = world.recount().await;
    assert_eq!((counts.events, counts.silver, counts.duplicates, counts.quarantined), (24, 11, 12, 1));
    running.stop().await;
}

fn payments() -> Vec<NewRecord> {
    vec![
        payment("p1", json!({"method": "card", "payer": "ada", "cents": 250, "note": "fine"})),
        payment("p2", json!({"method": "card", "payer": "bob", "cents": 1000, "note": "far too long"})),
        payment("p3", json!({"method": "card", "payer": "ada", "cents": 100})),
        payment("p4", json!({"method": "cash", "cents": 75})),
        payment("p5", json!({"method": "test", "payer": "eve", "cents": 1})),
        payment("p6", json!({"method": "card", "payer": "eve", "cents": -5})),
        payment("p7", json!({"method": "barter", "payer": "eve", "cents": 0})),
        payment("p8", json!({"payer": "eve", "cents": 10})),
        payment("p9", json!({"method": "cash", "payer": "eve"})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_warn_drop_quarantine_and_fail_and_count() {
    let world = World::new(SHOP).await;
    let running = world.start();
    world.publish(payments()).await;
    let epoch = world.settled(&running).await;
    assert_eq!(epoch.paused, None);
    world.publish(vec![payment("p10", json!({"method": "cash", "payer": "zoe", "cents": 2_000_000}))]).await;
    let epoch = world.settled(&running).await;
    assert_eq!(epoch.paused.as_deref(), Some("rule `cents_are_credible` was broken"));
    assert_eq!(
        world.text("silver.payments", &["payment_id", "method", "payer", "cents", "note"]).await,
        ["p1|card|ada|250|fine", "p2|card|bob|1000|far too long", "p3|card|ada|100|NULL", "p4|cash|NULL|75|NULL"]
    );
    assert_eq!(
        world.text("quarantine.shop", &["ce_id", "stage", "rules", "state"]).await,
        [
            "p10|expectation|cents_are_credible|open",
            "p6|expectation|cents_are_positive|open",
            "p7|expectation|cents_are_positive,method_is_known|open",
            "p8|expectation|method_is_known|open",
            "p9|expectation|cents_are_positive|open",
        ]
    );
    let counts = world.recount().await;
    assert_eq!((counts.events, counts.silver, counts.dropped, counts.quarantined), (10, 4, 1, 5));
    let rules: Vec<(&str, u64)> = counts.rules.iter().map(|((_, rule), count)| (rule.as_str(), *count)).collect();
    assert_eq!(
        rules,
        [
            ("cents_are_credible", 1),
            ("cents_are_positive", 3),
            ("is_no_test", 1),
            ("method_is_known", 2),
            ("note_is_short", 1),
            ("payer_is_named", 1),
        ]
    );
    world.assert_verified().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_over_an_append_table_are_merged_batch_by_batch() {
    let world = World::new(SHOP).await;
    let running = world.start();
    for event in payments() {
        world.publish(vec![event]).await;
        world.settled(&running).await;
    }
    let columns = ["method", "payments", "named", "least", "most", "average", "cents", "payers", "p95"];
    assert_eq!(
        world.text("gold.payment_figures", &columns).await,
        ["card|3|3|100|1000|450.0|1350|2|1000.0", "cash|1|0|75|75|75.0|75|0|75.0"]
    );
    assert_eq!(world.text("gold.payers", &["payer", "payments", "spread"]).await, ["NULL|1|0", "ada|2|150", "bob|1|0"]);
    world.assert_verified().await;
    running.stop().await;
}
