//! What `pipelines.toml` says of a table, for those who ask about it.

use karat_schemas::pipelines::{Action, Gold, NullMeans, Pipeline, Refresh, Silver, SilverMode};
use poem_openapi::Object;
use serde::Serialize;

/// What is declared of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Object)]
pub struct DeclaredTable {
    /// Full name, such as `gold.daily_summary`.
    pub table: String,
    pub pipeline: String,
    /// How rows come into it: `append`, `fold` or `upsert` in silver, `auto`, `merge`, `keys` or `full` in gold.
    pub refresh: String,
    /// The columns that tell its rows apart, where they are declared.
    pub key: Vec<String>,
    /// The column with the time of a row, where one is declared.
    #[oai(nullable)]
    pub time: Option<String>,
    /// The rules that its rows keep.
    pub expectations: Vec<DeclaredRule>,
}

/// A rule on rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Object)]
pub struct DeclaredRule {
    pub name: String,
    /// The condition, in SQL.
    pub check: String,
    /// What happens to a row that breaks it: `warn`, `drop`, `quarantine` or `fail`.
    pub action: String,
    /// What it means that the condition is neither true nor false: `pass` or `fail`.
    pub null: String,
}

impl DeclaredTable {
    /// The silver and gold tables of a pipeline.
    pub fn of(pipeline: &Pipeline) -> Vec<Self> {
        let silver = pipeline.silver.iter().map(|silver| Self::silver(&pipeline.name, silver));
        silver.chain(pipeline.gold.iter().map(|gold| Self::gold(&pipeline.name, gold))).collect()
    }

    fn silver(pipeline: &str, silver: &Silver) -> Self {
        let rules = silver.expect.iter().map(|rule| DeclaredRule {
            name: rule.name.clone(),
            check: rule.check.clone(),
            action: action(rule.action).to_owned(),
            null: null(rule.null).to_owned(),
        });
        Self {
            table: format!("silver.{}", silver.name),
            pipeline: pipeline.to_owned(),
            refresh: mode(silver.mode).to_owned(),
            key: silver.key.clone(),
            time: silver.time.clone(),
            expectations: rules.collect(),
        }
    }

    fn gold(pipeline: &str, gold: &Gold) -> Self {
        Self {
            table: format!("gold.{}", gold.name),
            pipeline: pipeline.to_owned(),
            refresh: refresh(gold.refresh).to_owned(),
            key: gold.key.clone(),
            time: gold.bucket.as_ref().map(|bucket| bucket.column.clone()),
            expectations: Vec::new(),
        }
    }
}

fn mode(mode: SilverMode) -> &'static str {
    match mode {
        SilverMode::Append => "append",
        SilverMode::Fold => "fold",
        SilverMode::Upsert => "upsert",
    }
}

fn refresh(refresh: Refresh) -> &'static str {
    match refresh {
        Refresh::Auto => "auto",
        Refresh::Merge => "merge",
        Refresh::Keys => "keys",
        Refresh::Full => "full",
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Warn => "warn",
        Action::Drop => "drop",
        Action::Quarantine => "quarantine",
        Action::Fail => "fail",
    }
}

fn null(means: NullMeans) -> &'static str {
    match means {
        NullMeans::Pass => "pass",
        NullMeans::Fail => "fail",
    }
}

#[cfg(test)]
mod tests {
    use karat_schemas::pipelines::{BUILT_IN, parse};

    use super::*;

    #[test]
    fn every_table_of_the_pipelines_that_ship_says_how_it_is_kept() {
        let pipelines = parse(BUILT_IN).unwrap();
        let declared: Vec<_> = pipelines.pipelines.iter().flat_map(DeclaredTable::of).collect();
        let of = |table: &str| declared.iter().find(|declared| declared.table == table).unwrap();
        let events = of("silver.run_events");
        assert_eq!((events.refresh.as_str(), events.expectations[0].name.as_str()), ("append", "source_is_named"));
        assert_eq!(events.expectations[0].action, "quarantine");
        assert_eq!((of("silver.runs").refresh.as_str(), of("silver.runs").key.len()), ("fold", 2));
        assert_eq!(of("gold.daily_summary").time.as_deref(), Some("bucket_start"));
        assert_eq!(of("gold.sync_status").refresh, "keys");
    }
}
