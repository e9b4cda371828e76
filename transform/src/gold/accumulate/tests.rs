//! Every aggregate of DataFusion, batch by batch and at once.

use karat_lake::{
    arrow::{
        array::{Array, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray},
        compute::concat_batches,
        util::display::{ArrayFormatter, FormatOptions},
    },
    datafusion::{datasource::MemTable, prelude::SessionContext},
};

use super::*;
use crate::{
    functions,
    silver::fold::{weighted_schema, with_weight},
    state::StateStore,
};

fn gold(sql: &str) -> Gold {
    Gold {
        name: "g".to_owned(),
        sql: sql.to_owned(),
        refresh: Refresh::Merge,
        key: Vec::new(),
        latest: None,
        bucket: None,
        fresh_within: None,
        line: 0,
    }
}

/// Rows with times in no order; some values are missing.
fn rows(batch: i64, count: i64) -> RecordBatch {
    let number = |row: i64| (batch * 1000 + row).wrapping_mul(2_654_435_761) % 9973;
    let column = |of: fn(i64) -> Option<i64>| (0..count).map(number).map(of).collect::<Int64Array>();
    let at: TimestampMicrosecondArray = (0..count).map(|row| Some(number(row) * 1_000_000 + batch)).collect();
    RecordBatch::try_from_iter_with_nullable([
        (
            "k",
            Arc::new((0..count).map(number).map(|n| Some(format!("k{}", n % 4))).collect::<StringArray>()) as ArrayRef,
            true,
        ),
        ("x", Arc::new(column(|n| (n % 5 > 0).then_some(n % 700 - 200))), true),
        ("y", Arc::new(column(|n| Some(n % 300))), true),
        ("f", Arc::new((0..count).map(number).map(|n| Some(n as f64 / 7.0)).collect::<Float64Array>()), true),
        (
            "b",
            Arc::new((0..count).map(number).map(|n| (n % 6 > 0).then_some(n % 11 > 0)).collect::<BooleanArray>()),
            true,
        ),
        (
            "s",
            Arc::new(
                (0..count)
                    .map(number)
                    .map(|n| (n % 9 > 0).then(|| format!("text {}", n % 50)))
                    .collect::<StringArray>(),
            ),
            true,
        ),
        ("t", Arc::new(at.with_timezone("UTC")), true),
    ])
    .unwrap()
}

/// The table after batches of 0, 1, 5, 40, ... rows, and what the SQL gives over all of them.
async fn both_ways(sql: &str) -> Result<(Vec<Vec<String>>, Vec<Vec<String>>)> {
    let batches: Vec<RecordBatch> =
        [5, 0, 1, 40, 3, 200, 7].into_iter().zip(1..).map(|(count, batch)| rows(batch, count)).collect();
    let schema = batches[0].schema();
    let place: Vec<String> = Vec::new();
    let source = Source { table: "t", schema: &schema, key: &place, is_append_only: true };
    let mut plan = AccumulatePlan::new(&gold(sql), &source).await?;
    let folder = tempfile::tempdir().unwrap();
    let mut store = StateStore::open(folder.path(), &["gold.g".to_owned()])?;
    let mut table: BTreeMap<Vec<u8>, RecordBatch> = BTreeMap::new();
    for batch in &batches {
        let mut step = store.begin();
        let weighted = with_weight(&weighted_schema(&schema), batch, 1)?;
        let changes = plan.apply(&mut step, &weighted, 0).await?.changes;
        store.apply(&step.into_writes())?;
        changes.deleted_keys.iter().for_each(|key| drop(table.remove(key)));
        for (row, key) in changes.upsert_keys.into_iter().enumerate() {
            table.insert(key, changes.upserts.slice(row, 1));
        }
    }
    let found = concat_batches(plan.schema(), table.values())?;
    let context = SessionContext::new();
    functions::register(&context);
    context.register_table("t", Arc::new(MemTable::try_new(schema, vec![batches])?))?;
    let expected = context.sql(sql).await?.collect().await?;
    let all = concat_batches(&expected[0].schema(), &expected)?;
    Ok((sorted(&found), sorted(&with_types(plan.schema(), all.columns(), all.num_rows())?)))
}

/// Rows as text, cells apart, floats with eleven digits; sorted.
fn sorted(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::new().with_null("NULL");
    let cell = |column: &ArrayRef, row: usize| match column.as_any().downcast_ref::<Float64Array>() {
        Some(floats) if floats.is_valid(row) => format!("{:.10e}", floats.value(row)),
        _ => ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string(),
    };
    let row = |row: usize| batch.columns().iter().map(|column| cell(column, row)).collect();
    let mut rows: Vec<Vec<String>> = (0..batch.num_rows()).map(row).collect();
    rows.sort_unstable();
    rows
}

/// Asserts that both ways give the same, and names the first cell that differs.
async fn assert_same(sql: &str) {
    let (found, expected) = both_ways(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(found.len(), expected.len(), "{sql}");
    for (found, expected) in found.iter().zip(&expected) {
        for (column, cells) in found.iter().zip(expected).enumerate() {
            assert_eq!(cells.0, cells.1, "column {column} of {found:?}: {sql}");
        }
    }
}

#[tokio::test]
async fn every_aggregate_is_the_same_batch_by_batch_and_at_once() {
    let aggregates = [
        "count(*)",
        "count(x)",
        "sum(x)",
        "sum(f)",
        "avg(x)",
        "avg(f)",
        "min(s)",
        "max(t)",
        "min(b)",
        "stddev(x)",
        "stddev_pop(f)",
        "var(x)",
        "var_pop(f)",
        "covar_samp(x, y)",
        "covar_pop(f, y)",
        "corr(x, f)",
        "regr_slope(x, y)",
        "regr_intercept(x, y)",
        "regr_r2(x, y)",
        "regr_count(x, y)",
        "bool_and(b)",
        "bool_or(b)",
        "bit_and(y)",
        "bit_or(y)",
        "bit_xor(y)",
        "approx_distinct(s)",
        "approx_distinct(x)",
        "count(DISTINCT s)",
        "count(DISTINCT x)",
        "sum(DISTINCT x)",
        "avg(DISTINCT f)",
        "median(x)",
        "median(f)",
        "percentile_cont(0.9) WITHIN GROUP (ORDER BY f)",
        "first_value(s ORDER BY t)",
        "last_value(s ORDER BY t)",
        "first_value(x ORDER BY t DESC)",
        "nth_value(x, 3 ORDER BY t)",
        "first_value(x IGNORE NULLS ORDER BY t)",
        "array_to_string(array_agg(x ORDER BY t), ',')",
        "array_to_string(array_agg(x ORDER BY t DESC), ',')",
        "array_to_string(array_agg(DISTINCT x ORDER BY x), ',')",
        "string_agg(s, ',' ORDER BY t)",
        "histogram(x)",
        "percentile(y, 0.95)",
        "count(x) FILTER (WHERE b)",
        "stddev(x) FILTER (WHERE y > 100)",
        "count(*) + sum(DISTINCT y) * 2",
    ];
    // Several at once, because planning takes longer than they do.
    for some in aggregates.chunks(9) {
        let columns: Vec<String> = some.iter().enumerate().map(|(index, one)| format!("{one} AS a{index}")).collect();
        for (select, group) in [("k, ", " GROUP BY k"), ("", "")] {
            let sql = format!("SELECT {select}{} FROM t{group}", columns.join(", "));
            assert_same(&sql).await;
        }
    }
}

#[tokio::test]
async fn aggregates_of_other_orders_stand_beside_each_other() {
    let sql = "SELECT k, array_to_string(array_agg(x ORDER BY t), ',') AS a, string_agg(s, ',' ORDER BY t DESC) AS d, \
               first_value(x ORDER BY y, t) AS f, nth_value(x, 2 ORDER BY t) AS n, array_to_string(array_agg(y ORDER BY t DESC), ',') AS g FROM t GROUP BY k";
    assert_same(sql).await;
    // The function that picks reads sorted rows here, and merges states that are not sorted.
    assert_same(
        "SELECT first_value(x ORDER BY t DESC) AS a, array_to_string(array_agg(x ORDER BY t), ',') AS b FROM t",
    )
    .await;
}

#[tokio::test]
async fn digests_are_near_and_do_not_grow() {
    let (found, _) = both_ways("SELECT approx_median(y) BETWEEN 130 AND 170 AS near, approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY y) > 240 AS high FROM t").await.unwrap();
    assert_eq!(found, [["true", "true"]]);
}

#[tokio::test]
async fn what_does_not_merge_is_refused_with_its_reason() {
    for (sql, reason) in [
        ("SELECT k, x FROM t", "no GROUP BY"),
        (
            "SELECT k, sum(n) AS s FROM (SELECT k, y, count(*) AS n FROM t GROUP BY k, y) AS inside GROUP BY k",
            "several groups",
        ),
        ("SELECT count(*) AS n, stddev(x) AS s FROM t GROUP BY k", "does not select it"),
        ("SELECT k, stddev(x) AS s FROM t GROUP BY k ORDER BY s LIMIT 3", "more than one group"),
        ("SELECT k, rank() OVER (ORDER BY stddev(x)) AS r FROM t GROUP BY k", "not partitioned"),
        ("SELECT k, stddev(x) AS s FROM (SELECT * FROM t ORDER BY y LIMIT 9) AS few GROUP BY k", "row by row"),
        ("SELECT k, stddev(x) AS s FROM (SELECT DISTINCT k, x FROM t) AS few GROUP BY k", "several groups"),
        ("SELECT k, stddev(x) AS s FROM t WHERE y > (SELECT avg(y) FROM t) GROUP BY k", ""),
        ("SELECT k, array_agg(x) AS s FROM t GROUP BY k", "give it an ORDER BY"),
        ("SELECT k, bit_xor(DISTINCT y) AS s FROM t GROUP BY k", "cannot merge the state"),
        ("SELECT k, y, stddev(x) AS s FROM t GROUP BY ROLLUP (k, y)", "ROLLUP"),
    ] {
        let Err(error) = both_ways(sql).await else { panic!("{sql} is accepted") };
        assert!(matches!(&error, Error::Declaration(message) if message.contains(reason)), "{sql}: {error}");
    }
}
