//! The pipeline of the randomised test: every refresh, over input that is appended to, replaced and folded.

use std::fmt::Write;

pub const TOPIC: &str = "random.events";

const HEAD: &str = r#"
version = 1

[[topic]]
name = "random.events"
partitions = 3

[[event]]
type = "t.reading"
topic = "random.events"

[[event]]
type = "t.order"
topic = "random.events"

[[pipeline]]
name = "random"
topic = "random.events"

[[pipeline.input]]
name = "reading"
types = ["t.reading"]
into = "readings"
rescue = false
columns = [
  { name = "sensor", type = "string", required = true },
  { name = "area", type = "string" },
  { name = "at", type = "timestamp", required = true },
  { name = "value", type = "int64" },
  { name = "ratio", type = "float64" },
  { name = "flag", type = "bool" },
  { name = "price", type = "decimal(12,2)" },
  { name = "day", type = "date" },
]
sql = "SELECT sensor, area, at, value, ratio, flag, price, day, event_hash FROM reading"

[[pipeline.input]]
name = "order_version"
types = ["t.order"]
into = "orders"
rescue = false
columns = [
  { name = "order_id", type = "string", required = true },
  { name = "version", type = "int64", required = true },
  { name = "ordered_at", type = "timestamp", required = true },
  { name = "customer", type = "string", required = true },
  { name = "country", type = "string" },
  { name = "amount", type = "decimal(12,2)" },
  { name = "items", type = "int64" },
  { name = "weight", type = "float64" },
  { name = "state", type = "string", required = true },
]

[[pipeline.silver]]
name = "readings"
mode = "append"

[[pipeline.silver]]
name = "orders"
mode = "upsert"
key = ["order_id"]
sequence = ["version"]
delete_when = "state = 'deleted'"

[[pipeline.silver]]
name = "sensors"
mode = "fold"
from = "readings"
key = ["sensor"]

[pipeline.silver.fold]
readings = { count = "*" }
total = { sum = "value" }
highest = { max = "value" }
flagged = { any_true = "flag" }
last_area = { last = "area", by = ["at", "event_hash"] }
"#;

/// Name, refresh that serves it, further settings, SQL, and the batch SQL where it differs.
pub type Table = (&'static str, &'static str, &'static str, &'static str, Option<&'static str>);

pub const GOLD: &[Table] = &[
    // Over an append table, by parts that could be subtracted.
    (
        "parts",
        "merge",
        "",
        "SELECT area, count(*) AS n, count(value) AS named, sum(value) AS total, avg(value) AS average, min(value) AS least, \
         max(at) AS newest, min(price) AS cheapest, avg(price) AS price, count(DISTINCT sensor) AS sensors, \
         percentile(value, 0.9) AS p90, sum(ratio) AS ratio, max(ratio) AS top FROM readings GROUP BY area",
        None,
    ),
    (
        "parts_filtered",
        "merge",
        "refresh = 'merge'",
        "SELECT day, flag, sum(value) FILTER (WHERE area = 'north') AS north, count(*) FILTER (WHERE value < 0) AS cold, \
         avg(ratio) * 2 + 1 AS ratio, max(area) AS last_area FROM readings WHERE value > -30 GROUP BY 1, 2",
        None,
    ),
    // Of the changes of a finer one; the coarsest comes first.
    (
        "reading_months",
        "merge",
        "bucket = { column = 'month', grain = 'month' }",
        "SELECT date_trunc('month', at) AS month, flag, count(*) AS n, sum(value) AS total, count(DISTINCT area) AS areas, \
         percentile(value, 0.95) AS p95, max(ratio) AS most FROM readings GROUP BY 1, 2",
        None,
    ),
    (
        "reading_days",
        "merge",
        "bucket = { column = 'day', grain = 'day' }",
        "SELECT date_trunc('day', at) AS day, flag, sensor, count(*) AS n, sum(value) AS total, count(DISTINCT area) AS areas, \
         percentile(value, 0.5) AS middle, percentile(value, 0.95) AS p95, max(ratio) AS most FROM readings GROUP BY 1, 2, 3",
        None,
    ),
    (
        "reading_weeks",
        "merge",
        "",
        "SELECT date_trunc('week', at) AS week, upper(sensor) AS name, avg(value) AS mean, count(DISTINCT area) AS areas \
         FROM readings GROUP BY 1, 2",
        None,
    ),
    // By DataFusion's accumulators.
    (
        "spread",
        "merge",
        "",
        "SELECT sensor, stddev(value) AS s, var_pop(ratio) AS v, bool_and(flag) AS every, bool_or(flag) AS some, \
         bit_and(value) AS a, bit_or(value) AS o, bit_xor(value) AS x FROM readings GROUP BY sensor",
        None,
    ),
    (
        "distinct_counts",
        "merge",
        "refresh = 'merge'",
        "SELECT area, flag, approx_distinct(value) AS near, count(DISTINCT value) AS exact, median(value) AS middle, \
         sum(DISTINCT value) AS total, percentile_cont(0.25) WITHIN GROUP (ORDER BY ratio) AS quarter \
         FROM readings GROUP BY area, flag",
        None,
    ),
    (
        "even_groups",
        "merge",
        "",
        "SELECT area, day, count(*) AS n, max(value) AS most FROM readings GROUP BY area, day HAVING count(*) % 2 = 0",
        None,
    ),
    (
        "in_order",
        "merge",
        "",
        "SELECT sensor, first_value(value ORDER BY at) AS first, last_value(value ORDER BY at) AS last, \
         array_to_string(array_agg(value ORDER BY at), ',') AS all, string_agg(area, '|' ORDER BY at DESC) AS areas, \
         nth_value(value, 2 ORDER BY at) AS second FROM readings GROUP BY sensor",
        None,
    ),
    ("pairs", "merge", "", "SELECT DISTINCT area, flag FROM readings WHERE value > 0", None),
    (
        "one_distinct",
        "merge",
        "",
        "SELECT day, count(DISTINCT ratio) + 0 AS n FROM readings GROUP BY day HAVING count(DISTINCT ratio) > 2",
        None,
    ),
    (
        "relations",
        "merge",
        "",
        "SELECT flag, corr(value, ratio) AS c, covar_samp(value, ratio) AS s, regr_slope(ratio, value) AS slope \
         FROM readings GROUP BY flag",
        None,
    ),
    (
        "everything",
        "merge",
        "",
        "SELECT count(*) AS n, stddev(ratio) AS s, bool_or(flag) AS flag, min(at) AS oldest, max(price) AS dearest FROM readings \
         WHERE value <> 5",
        None,
    ),
    (
        "nested",
        "merge",
        "",
        "SELECT a AS place, round(total / n, 3) AS mean FROM (SELECT area AS a, sum(value) AS total, count(*) AS n, \
         var_pop(value) AS v FROM readings WHERE value > 10 GROUP BY area) AS inner_groups WHERE v > 100 OR a IS NULL",
        None,
    ),
    (
        "days",
        "merge",
        "bucket = { column = 'start', grain = 'day' }",
        "SELECT date_trunc('day', at) AS start, sensor, stddev_pop(value) AS s, count(*) AS n FROM readings GROUP BY 1, 2",
        None,
    ),
    (
        "united",
        "merge",
        "",
        "SELECT label, bit_xor(value) AS x FROM (SELECT sensor AS label, value FROM readings UNION ALL \
         SELECT area, value * 2 FROM readings) AS both_kinds GROUP BY label",
        None,
    ),
    (
        "shares",
        "merge",
        "",
        "SELECT sensor, kind, n FROM (SELECT sensor, CASE WHEN value < 0 THEN 'cold' ELSE 'warm' END AS kind, count(*) AS n, \
         stddev(value) AS s, row_number() OVER (PARTITION BY sensor, CASE WHEN value < 0 THEN 'cold' ELSE 'warm' END) AS r \
         FROM readings GROUP BY 1, 2) AS kinds WHERE r = 1",
        None,
    ),
    (
        "bins",
        "merge",
        "",
        "SELECT date_bin(INTERVAL '6 hours', at, TIMESTAMP '1970-01-01T00:00:00Z') AS start, stddev(value) AS s, count(*) AS n \
         FROM readings GROUP BY 1",
        None,
    ),
    (
        "order_bins",
        "merge",
        "",
        "SELECT date_bin(INTERVAL '1 day', ordered_at, TIMESTAMP '1970-01-01T00:00:00Z') AS start, sum(items) AS items FROM orders \
         GROUP BY 1",
        None,
    ),
    // By keys, over an append table.
    (
        "best_three",
        "keys",
        "key = ['sensor']",
        "SELECT sensor, at, value, place FROM (SELECT sensor, at, value, row_number() OVER (PARTITION BY sensor \
         ORDER BY value DESC NULLS LAST, at) AS place FROM readings) AS placed WHERE place <= 3",
        None,
    ),
    (
        "steps",
        "keys",
        "key = ['sensor']",
        "SELECT sensor, at, value - lag(value) OVER (PARTITION BY sensor ORDER BY at) AS change, \
         sum(value) OVER (PARTITION BY sensor ORDER BY at ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS three FROM readings",
        None,
    ),
    (
        "above_average",
        "keys",
        "key = ['area', 'flag']",
        "WITH means AS (SELECT area, flag, avg(value) AS mean FROM readings GROUP BY area, flag) \
         SELECT readings.area, readings.flag, count(*) AS above FROM readings JOIN means ON readings.area = means.area AND \
         readings.flag = means.flag WHERE readings.value > means.mean GROUP BY 1, 2",
        None,
    ),
    // Over rows that change.
    (
        "turnover",
        "merge",
        "",
        "SELECT country, count(*) AS n, sum(amount) AS amount, avg(amount) AS average, count(DISTINCT customer) AS customers, \
         percentile(items, 0.5) AS items, sum(items) AS total, avg(items) AS mean, count(items) FILTER (WHERE state = 'paid') AS paid \
         FROM orders GROUP BY country",
        None,
    ),
    (
        "turnover_days",
        "merge",
        "bucket = { column = 'day', grain = 'day' }",
        "SELECT date_trunc('day', ordered_at) AS day, state, count(*) AS n, sum(amount) AS amount FROM orders GROUP BY 1, 2",
        None,
    ),
    (
        "turnover_weeks",
        "merge",
        "",
        "SELECT date_trunc('week', ordered_at) AS week, sum(amount) AS amount, count(*) AS n FROM orders GROUP BY 1",
        None,
    ),
    (
        "order_totals",
        "merge",
        "",
        "SELECT count(*) AS n, sum(items) AS items, sum(amount) AS amount FROM orders WHERE state = 'sent'",
        None,
    ),
    (
        "customers",
        "keys",
        "key = ['customer']",
        "SELECT customer, min(amount) AS least, max(weight) AS most, stddev(weight) AS s, \
         first_value(order_id ORDER BY ordered_at) AS first FROM orders GROUP BY customer",
        None,
    ),
    (
        "two_newest",
        "keys",
        "key = ['customer']",
        "SELECT customer, order_id, amount FROM (SELECT *, row_number() OVER (PARTITION BY customer ORDER BY ordered_at DESC) AS r \
         FROM orders) AS numbered WHERE r <= 2",
        None,
    ),
    (
        "payers",
        "keys",
        "key = ['customer']",
        "SELECT customer, order_id FROM orders AS o WHERE EXISTS (SELECT 1 FROM orders AS p WHERE p.customer = o.customer \
         AND p.state = 'paid' AND p.items > 4)",
        None,
    ),
    (
        "dear_countries",
        "keys",
        "key = ['country']",
        "SELECT country, max(amount) AS most FROM orders GROUP BY country HAVING count(*) % 3 > 0",
        None,
    ),
    ("states", "keys", "refresh = 'keys'\nkey = ['country']", "SELECT DISTINCT country, state FROM orders", None),
    (
        "newest_three",
        "keys",
        "key = ['customer']\nlatest = { by = 'ordered_at', keep = 3 }",
        "SELECT customer, count(*) AS n, sum(amount) AS amount, min(ordered_at) AS since FROM orders GROUP BY customer",
        Some(
            "SELECT customer, count(*) AS n, sum(amount) AS amount, min(ordered_at) AS since FROM (SELECT *, row_number() OVER \
             (PARTITION BY customer ORDER BY ordered_at DESC) AS r FROM orders) AS numbered WHERE r <= 3 GROUP BY customer",
        ),
    ),
    // Everything, each time.
    (
        "top_ten",
        "full",
        "refresh = 'full'",
        "SELECT sensor, at, value FROM readings ORDER BY value DESC NULLS LAST, at LIMIT 10",
        None,
    ),
    (
        "share_of_all",
        "full",
        "refresh = 'full'\nkey = ['sensor']",
        "SELECT sensor, sum(ratio) AS ratio, round(sum(value) * 1000 / (SELECT sum(abs(value)) FROM readings)) AS share \
         FROM readings GROUP BY sensor",
        None,
    ),
    (
        "ranks",
        "full",
        "refresh = 'full'\nkey = ['customer']",
        "SELECT customer, rank() OVER (ORDER BY sum(amount)) AS place FROM orders GROUP BY customer",
        None,
    ),
    ("middle", "full", "refresh = 'full'", "SELECT median(amount) AS middle, count(*) AS n FROM orders", None),
    ("same_rows", "full", "refresh = 'full'", "SELECT country, items FROM orders", None),
    // Over folded rows.
    (
        "areas",
        "merge",
        "",
        "SELECT last_area, flagged, count(*) AS n, sum(total) AS total FROM sensors GROUP BY 1, 2",
        None,
    ),
    (
        "highest",
        "keys",
        "key = ['last_area']",
        "SELECT last_area, max(highest) AS highest, string_agg(sensor, ',' ORDER BY sensor) AS sensors FROM sensors GROUP BY last_area",
        None,
    ),
];

/// The declaration with some of the gold tables.
pub fn text(tables: &[&Table]) -> String {
    let mut text = HEAD.to_owned();
    for (name, _, settings, sql, _) in tables {
        write!(text, "\n[[pipeline.gold]]\nname = \"{name}\"\n{settings}\nsql = \"\"\"\n{sql}\n\"\"\"\n").unwrap();
    }
    text
}
