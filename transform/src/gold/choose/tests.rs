//! Which refresh is chosen, and what is refused.

use std::sync::Arc;

use karat_lake::arrow::{
    array::{ArrayRef, AsArray, Int64Array, StringArray, new_null_array},
    compute::concat_batches,
    datatypes::{DataType, Field, Int64Type, Schema, TimeUnit},
};
use karat_schemas::pipelines::{Bucket, Grain, Latest};

use super::*;
use crate::{silver::fold::WEIGHT, state::StateStore};

fn gold(sql: &str, refresh: Refresh, key: &[&str]) -> Gold {
    Gold {
        name: "g".to_owned(),
        sql: sql.to_owned(),
        refresh,
        key: key.iter().map(|name| (*name).to_owned()).collect(),
        latest: None,
        bucket: None,
        fresh_within: None,
        line: 0,
    }
}

async fn planned(gold: &Gold, is_append_only: bool) -> std::result::Result<GoldPlan, String> {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let fields = [("k", DataType::Utf8), ("x", DataType::Int64), ("f", DataType::Float64), ("t", time)];
    let fields: Vec<Field> = fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect();
    let (schema, key) = (Arc::new(Schema::new(fields)), vec!["k".to_owned()]);
    let sources = [
        Source { table: "t", schema: &schema, key: &key, is_append_only },
        Source { table: "other", schema: &schema, key: &key, is_append_only },
    ];
    GoldPlan::new(gold, &sources, &[]).await.map(|(plan, _)| plan).map_err(|error| error.to_string())
}

/// SQL, refresh, key, whether the silver table is append-only, and what must come out.
type Case<'c> = (&'c str, Refresh, &'c [&'c str], bool, std::result::Result<(&'c str, &'c str), &'c str>);

#[tokio::test]
async fn the_cheapest_right_refresh_is_chosen_and_says_why() {
    let cases: &[Case<'_>] = &[
        ("SELECT k, sum(x) AS s FROM t GROUP BY k", Refresh::Auto, &[], false, Ok(("merge", "subtracted"))),
        ("SELECT k, max(x) AS s FROM t GROUP BY k", Refresh::Auto, &[], true, Ok(("merge", "subtracted"))),
        ("SELECT k, stddev(x) AS s FROM t GROUP BY k", Refresh::Auto, &["k"], true, Ok(("merge", "`stddev`"))),
        (
            "SELECT k, stddev(x) AS s FROM t GROUP BY k",
            Refresh::Auto,
            &["k"],
            false,
            Ok(("keys", "rows of the silver table change")),
        ),
        (
            "SELECT k, max(x) AS s FROM t GROUP BY k",
            Refresh::Auto,
            &["k"],
            false,
            Ok(("keys", "cannot give up a value")),
        ),
        ("SELECT k, sum(f) AS s FROM t GROUP BY k", Refresh::Auto, &["k"], false, Ok(("keys", "adds floats"))),
        ("SELECT k, sum(x) AS s FROM t GROUP BY k", Refresh::Keys, &["k"], false, Ok(("keys", "declared"))),
        ("SELECT k, x FROM t LIMIT 3", Refresh::Full, &[], false, Ok(("full", "declared"))),
        ("SELECT count(*) AS other FROM t", Refresh::Auto, &[], false, Ok(("merge", ""))),
        ("SELECT k, approx_median(x) AS m FROM t GROUP BY k", Refresh::Merge, &[], true, Ok(("merge", "declared"))),
        (
            "SELECT k, approx_median(x) AS m FROM t GROUP BY k",
            Refresh::Auto,
            &["k"],
            true,
            Ok(("keys", "cut into batches")),
        ),
        // Refusals, with each reason.
        (
            "SELECT k, max(x) AS s FROM t GROUP BY k",
            Refresh::Auto,
            &[],
            false,
            Err("`max(t.x)` cannot give up a value"),
        ),
        (
            "SELECT k, max(x) AS s FROM t GROUP BY k",
            Refresh::Auto,
            &[],
            false,
            Err("accumulators cannot give up a value"),
        ),
        ("SELECT k, max(x) AS s FROM t GROUP BY k", Refresh::Auto, &[], false, Err("without `key`")),
        ("SELECT k, max(x) AS s FROM t GROUP BY k", Refresh::Auto, &[], false, Err("`refresh = \"full\"`")),
        ("SELECT k, x FROM t LIMIT 3", Refresh::Auto, &["k"], false, Err("nor refreshed by keys (`Limit")),
        (
            "SELECT k, stddev(x) AS s FROM t GROUP BY k",
            Refresh::Merge,
            &["k"],
            false,
            Err("cannot be merged: `stddev`"),
        ),
        ("SELECT k, x FROM t", Refresh::Keys, &["x", "f"], false, Err("the key `f` as it is")),
        ("SELECT k, x FROM t", Refresh::Keys, &["nothing"], false, Err("no column `nothing`")),
        ("SELECT upper(k) AS k, x FROM t", Refresh::Keys, &["k"], false, Err("the key `k` as it is")),
        ("SELECT k, x FROM t ORDER BY x LIMIT 3", Refresh::Keys, &["k"], false, Err("more than one group")),
        (
            "SELECT k, rank() OVER (ORDER BY x) AS r FROM t",
            Refresh::Keys,
            &["k"],
            false,
            Err("not partitioned by every key column"),
        ),
        ("SELECT x, count(*) AS n FROM t GROUP BY x", Refresh::Keys, &["k"], false, Err("several groups")),
        ("SELECT k, x - (SELECT min(x) FROM t) AS d FROM t", Refresh::Keys, &["k"], false, Err("")),
        ("SELECT a.k, b.x FROM t AS a JOIN t AS b ON a.x = b.x", Refresh::Keys, &["k"], false, Err("different groups")),
        ("SELECT k, x FROM t WHERE k IN (SELECT k FROM t WHERE x = 1)", Refresh::Keys, &["k"], false, Ok(("keys", ""))),
        (
            "SELECT k, x FROM t WHERE x IN (SELECT x FROM t WHERE k = 'a')",
            Refresh::Keys,
            &["k"],
            false,
            Err("different groups"),
        ),
        (
            "SELECT k, count(*) AS n FROM t WHERE t < now() GROUP BY k",
            Refresh::Full,
            &["k"],
            false,
            Err("a replay would not agree"),
        ),
        ("SELECT k, random() AS n FROM t", Refresh::Keys, &["k"], false, Err("a replay would not agree")),
        ("SELECT t.k FROM t JOIN other ON t.k = other.k", Refresh::Full, &["k"], false, Err("one silver table")),
        ("SELECT 1 AS one", Refresh::Full, &[], false, Err("one silver table")),
    ];
    for (sql, refresh, key, is_append_only, expected) in cases {
        let found = planned(&gold(sql, *refresh, key), *is_append_only).await;
        match (&found, expected) {
            (Ok(plan), Ok((refresh, reason))) => {
                assert_eq!(plan.refresh(), *refresh, "{sql}: {}", plan.reason());
                assert!(plan.reason().contains(reason), "{sql}: {}", plan.reason());
            }
            (Err(message), Err(reason)) => {
                assert!(message.contains(reason) && message.contains("`g`"), "{sql}: {message}")
            }
            (Ok(plan), Err(_)) => panic!("{sql}: accepted as {}", plan.refresh()),
            (Err(message), Ok(_)) => panic!("{sql}: {message}"),
        }
    }
}

/// These would give wrong figures from the second batch on.
#[tokio::test]
async fn what_is_not_row_by_row_below_its_groups_is_not_merged() {
    for below in [
        "(SELECT * FROM t ORDER BY x LIMIT 5)",
        "(SELECT DISTINCT * FROM t)",
        "(SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY x) AS r FROM t) AS numbered WHERE r = 1)",
        "(SELECT a.* FROM t AS a JOIN t AS b ON a.k = b.k)",
    ] {
        let sql = format!("SELECT k, sum(x) AS s FROM {below} AS rows_below GROUP BY k");
        for is_append_only in [false, true] {
            let found = planned(&gold(&sql, Refresh::Merge, &[]), is_append_only).await;
            assert!(found.is_err(), "{sql}");
        }
    }
    let sql = "SELECT k, sum(x) AS s FROM t WHERE x > (SELECT avg(x) FROM t) GROUP BY k";
    assert!(planned(&gold(sql, Refresh::Merge, &[]), true).await.is_err());
    let two_arguments = "SELECT k, count(x, f) AS n FROM t GROUP BY k";
    assert!(planned(&gold(two_arguments, Refresh::Merge, &[]), false).await.is_err());
}

#[tokio::test]
async fn a_bucket_is_a_timestamp_among_the_groups_of_a_merge() {
    let bucket = |column: &str| Some(Bucket { column: column.to_owned(), grain: Grain::Day });
    let with = |sql: &str, refresh, column: &str| Gold { bucket: bucket(column), ..gold(sql, refresh, &["k"]) };
    let days = "SELECT date_trunc('day', t) AS day, k, stddev(x) AS s FROM t GROUP BY 1, 2";
    assert!(planned(&with(days, Refresh::Auto, "day"), true).await.is_ok());
    for (gold, reason) in [
        (with(days, Refresh::Auto, "s"), "not one of its groups"),
        (
            with("SELECT CAST(t AS DATE) AS day, count(*) AS n FROM t GROUP BY 1", Refresh::Merge, "day"),
            "not a timestamp",
        ),
        (with("SELECT k, x FROM t", Refresh::Keys, "x"), "needs refresh `merge`"),
        (with("SELECT k, x FROM t", Refresh::Full, "x"), "needs refresh `merge`"),
    ] {
        let Err(message) = planned(&gold, true).await else { panic!("{} is accepted", gold.sql) };
        assert!(message.contains(reason), "{message}");
    }
}

#[tokio::test]
async fn a_table_of_the_newest_rows_is_refreshed_by_keys_and_never_merged() {
    let latest = Some(Latest { by: "t".to_owned(), keep: 3 });
    let sums = gold("SELECT k, sum(x) AS s FROM t GROUP BY k", Refresh::Auto, &["k"]);
    let newest = Gold { latest, ..sums };
    assert_eq!(planned(&newest, false).await.map(|plan| plan.refresh()), Ok("keys"));
    assert!(planned(&Gold { refresh: Refresh::Merge, ..newest }, false).await.is_err());
}

#[tokio::test]
async fn the_pipelines_that_ship_are_refreshed_as_they_were_made() {
    let file = karat_schemas::pipelines::parse(karat_schemas::pipelines::BUILT_IN).unwrap();
    for pipeline in &file.pipelines {
        let plan = crate::plan::PipelinePlan::new(pipeline).await.unwrap();
        for gold in &plan.golds {
            let expected = if ["sync_status", "profits"].contains(&gold.name.as_str()) { "keys" } else { "merge" };
            assert_eq!(gold.plan.refresh(), expected, "{}: {}", gold.name, gold.plan.reason());
        }
    }
}

#[tokio::test]
async fn groups_are_computed_again_from_parts_of_the_table_of_which_only_their_own_rows_are_kept() {
    let declared = gold("SELECT k, count(*) AS n FROM t GROUP BY k", Refresh::Merge, &[]);
    let mut plan = planned(&declared, false).await.unwrap();
    let (schema, keys) = (plan.input().clone(), ["a", "b", "a", "c"]);
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "k" => Arc::new(StringArray::from(keys.to_vec())),
            WEIGHT => Arc::new(Int64Array::from(vec![1_i64; keys.len()])),
            _ => new_null_array(field.data_type(), keys.len()),
        }
    });
    let rows = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
    let groups = [vec![Value::Text("a".into())], vec![Value::Text("of another part".into())]];
    let needed = plan.needed_of(&groups, &rows).await.unwrap();
    assert_eq!(needed.num_rows(), 1, "a group is one row, and the others are not kept");
    let nothing = plan.needed_of(&groups, &rows.slice(1, 1)).await.unwrap();
    assert_eq!(nothing.num_rows(), 0);
    let all = concat_batches(&needed.schema(), [&needed, &nothing, &needed]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = StateStore::open(folder.path(), &[GoldPlan::keyspace("g")]).unwrap();
    let changes = plan.recompute(&mut store.begin(), &groups, &all, 0).await.unwrap();
    let counts = changes.upserts.column_by_name("n").unwrap().as_primitive::<Int64Type>();
    assert_eq!((changes.upserts.num_rows(), counts.value(0)), (1, 4));
}
