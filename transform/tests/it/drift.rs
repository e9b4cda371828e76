//! Schema drift: publishers and declarations of an older and a newer version beside and after each other, and back again.
//! No value becomes null in silence: an unknown field is rescued, a value of another type is put aside.

use karat_eventlog::NewRecord;
use serde_json::{Value, json};

use crate::{judged::Judged, support::record};

const FIRST: &str = r#"
version = 1

[[topic]]
name = "shop.events"
partitions = 2

[[event]]
type = "shop.order"
topic = "shop.events"

[[pipeline]]
name = "shop"
topic = "shop.events"

[[pipeline.input]]
name = "ordered"
types = ["shop.order"]
into = "orders"
columns = [
  { name = "item", type = "string", required = true },
  { name = "count", type = "int64", required = true },
]

[[pipeline.silver]]
name = "orders"
mode = "append"

[[pipeline.gold]]
name = "sold"
sql = "SELECT item, sum(count) AS count FROM orders GROUP BY item"
"#;

/// What the second version of an event has in addition is declared.
fn second() -> String {
    FIRST
        .replace("  { name = \"count\"", "  { name = \"colour\", type = \"string\" },\n  { name = \"count\"")
        .replace("sum(count) AS count", "sum(count) AS count, count(colour) AS coloured")
}

fn order(id: &str, version: u32, data: Value) -> NewRecord {
    record("shop.order", "/shop", &format!("{id}-v{version}"), id, data.to_string(), None)
}

/// An order of each version, and one whose count is a text.
fn orders(round: &str) -> Vec<NewRecord> {
    vec![
        order(round, 1, json!({"item": "tea", "count": 1})),
        order(round, 2, json!({"item": "tea", "count": 2, "colour": "green"})),
        order(round, 3, json!({"item": "tea", "count": "3"})),
        order(round, 1, json!({"item": "tea", "count": 1})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_events_and_of_declarations_come_and_go_and_no_value_is_lost() {
    let mut judged = Judged::new(FIRST).await;
    let second = second();
    let mut rounds: Vec<&str> = Vec::new();
    for (round, declaration) in [("a", FIRST), ("b", &second), ("c", FIRST)] {
        rounds.push(round);
        judged.world.redeclare(declaration);
        let life = judged.live();
        // In the order of arrival, one request each: versions are neighbours in one partition.
        judged.publish(orders(round)).await;
        judged.settled(&life, round).await;
        life.stop().await;
        judged.verified(round).await;

        let is_second = declaration != FIRST;
        let columns: &[&str] =
            if is_second { &["item", "count", "colour", "_rescued"] } else { &["item", "count", "_rescued"] };
        let (old, new) = if is_second {
            ("tea|1|NULL|NULL", "tea|2|green|NULL")
        } else {
            ("tea|1|NULL", r#"tea|2|{"colour":"green"}"#)
        };
        let expected: Vec<&str> = rounds.iter().map(|_| old).chain(rounds.iter().map(|_| new)).collect();
        assert_eq!(judged.world.text("silver.orders", columns).await, expected, "{round}");
        let put_aside = judged.world.text("quarantine.shop", &["ce_id", "rules"]).await;
        let expected: Vec<String> = rounds.iter().map(|round| format!("{round}-v3|wrong_type")).collect();
        assert_eq!(put_aside, expected, "{round}");
        let sold = format!("tea|{}", 3 * rounds.len());
        assert_eq!(judged.world.text("gold.sold", &["item", "count"]).await, [sold], "{round}");
        if is_second {
            assert_eq!(judged.world.text("gold.sold", &["coloured"]).await, [rounds.len().to_string()]);
        }
    }
}
