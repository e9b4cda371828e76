//! What is wrong with declarations: everything at once, each with the line of its entry.

use std::collections::HashSet;

use karat_lake::arrow::datatypes::SchemaRef;
use karat_schemas::pipelines::{Pipeline, Problem, Read};

use super::PipelinePlan;
use crate::{Error, Result};

/// Plans every pipeline that could be read and gives what cannot work. What the file has problems with already, and
/// what only fails because of another problem, is not said again.
pub async fn problems(read: &Read) -> Vec<Problem> {
    let mut problems = Vec::new();
    for pipeline in &read.pipelines.pipelines {
        let (_, flaws) = PipelinePlan::attempt(pipeline, &read.left_out).await;
        let own = flaws.0.into_iter().filter(|flaw| !flaw.is_follow_up);
        problems.extend(own.map(|flaw| Problem { line: flaw.line, message: flaw.error.to_string() }));
    }
    problems
}

/// The columns of the gold tables of a pipeline by the name that SQL has for them; those that cannot be planned are left
/// out.
pub async fn gold_schemas(pipeline: &Pipeline) -> Vec<(String, SchemaRef)> {
    let (plan, _) = PipelinePlan::attempt(pipeline, &HashSet::new()).await;
    plan.golds.iter().map(|gold| (gold.name.clone(), gold.plan.schema().clone())).collect()
}

/// What is wrong with one pipeline, in the order in which its parts need each other.
#[derive(Default)]
pub(crate) struct Flaws(Vec<Flaw>);

struct Flaw {
    line: usize,
    error: Error,
    /// Something that it needs is missing, which is a problem of its own elsewhere.
    is_follow_up: bool,
}

impl Flaws {
    /// The value, or none after taking the error of the entry at `line`.
    pub(crate) fn take<T>(&mut self, line: usize, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.add(line, error)).ok()
    }

    pub(crate) fn add(&mut self, line: usize, error: Error) {
        self.0.push(Flaw { line, error, is_follow_up: false });
    }

    pub(crate) fn follow_up(&mut self, line: usize, message: String) {
        self.0.push(Flaw { line, error: Error::Declaration(message), is_follow_up: true });
    }

    /// The first flaw as an error.
    pub(crate) fn none(self) -> Result<()> {
        self.0.into_iter().next().map_or(Ok(()), |flaw| Err(flaw.error))
    }
}

#[cfg(test)]
mod tests {
    use karat_schemas::pipelines::{BUILT_IN, read};

    use super::*;

    /// A pipeline from its parts, with the lines and messages of its problems.
    async fn found(silver: &str, gold: &str) -> Vec<(usize, String)> {
        let text = format!(
            "version = 1\n[[topic]]\nname = \"t\"\n[[event]]\ntype = \"a\"\ntopic = \"t\"\n[[pipeline]]\nname = \"p\"\n\
             topic = \"t\"\n[[pipeline.input]]\nname = \"i\"\ntypes = [\"a\"]\ninto = \"s\"\n\
             columns = [{{ name = \"k\", type = \"string\" }}, {{ name = \"v\", type = \"int64\" }}]\n{silver}\n{gold}\n"
        );
        let read = read(&text);
        let all = read.problems.iter().cloned().chain(problems(&read).await);
        all.map(|problem| (problem.line, problem.message)).collect()
    }

    const APPEND: &str = "[[pipeline.silver]]\nname = \"s\"\nmode = \"append\"";

    #[tokio::test]
    async fn the_built_in_pipelines_have_no_problems() {
        assert_eq!(problems(&read(BUILT_IN)).await, []);
    }

    #[tokio::test]
    async fn a_keyed_table_whose_sql_changes_its_key_is_refused() {
        let fold = "[[pipeline.silver]]\nname = \"f\"\nmode = \"fold\"\nfrom = \"s\"\nkey = [\"k\"]\n\
                    fold = { n = { count = \"*\" } }\nsql = \"SELECT lower(k) AS k, n FROM f\"";
        let upsert = "[[pipeline.silver]]\nname = \"s\"\nmode = \"upsert\"\nkey = [\"k\"]\nsequence = [\"v\"]\n\
                      sql = \"SELECT k || '!' AS k, v FROM s\"";
        let gold = |table: &str, sql: &str| {
            format!(
                "[[pipeline.gold]]\nname = \"g\"\nrefresh = \"keys\"\nkey = [\"k\"]\nsql = \"SELECT {sql} FROM {table} GROUP BY k\""
            )
        };
        for (line, silver, gold) in [
            (18, format!("{APPEND}\n{fold}"), String::new()),
            (15, upsert.to_owned(), String::new()),
            (18, APPEND.to_owned(), gold("s", "lower(k) AS k, count(*) AS n")),
        ] {
            let found = found(&silver, &gold).await;
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, line, "{found:?}");
            assert!(found[0].1.contains("key `k`"), "{found:?}");
        }
        assert_eq!(found(APPEND, &gold("s", "k, count(*) AS n")).await, []);
        assert_eq!(found(&format!("{APPEND}\n{}", fold.replace("lower(k) AS k", "k")), "").await, []);
    }

    #[tokio::test]
    async fn a_column_that_no_table_can_hold_is_refused() {
        let gold = "[[pipeline.gold]]\nname = \"g\"\nsql = \"SELECT k, max(to_timestamp(v)) - min(to_timestamp(v)) AS span FROM s GROUP BY k\"";
        let found = found(APPEND, gold).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].1.contains("`span`") && found[0].1.contains("cast it"), "{found:?}");
    }

    #[tokio::test]
    async fn a_column_that_state_cannot_keep_is_refused() {
        let input = format!("sql = \"SELECT k, v, make_array(v) AS vs FROM i\"\n{APPEND}");
        let gold = |refresh: &str| {
            format!(
                "[[pipeline.gold]]\nname = \"g\"\nrefresh = \"{refresh}\"\nkey = [\"k\"]\n\
                 sql = \"SELECT k, count(*) AS n FROM s GROUP BY k\""
            )
        };
        let found_by_keys = found(&input, &gold("keys")).await;
        assert_eq!(found_by_keys.len(), 1, "{found_by_keys:?}");
        assert!(found_by_keys[0].1.contains("column `vs`"), "{found_by_keys:?}");
        assert_eq!(found(&input, &gold("merge")).await, []);
    }

    #[tokio::test]
    async fn every_part_is_looked_at_whatever_is_wrong_with_the_others() {
        let silver = format!(
            "{APPEND}\nexpect = [\n{{ name = \"one\", check = \"nope > 0\", action = \"warn\" }},\n\
             {{ name = \"two\", check = \"v > 0\", action = \"warn\" }},\n{{ name = \"three\", check = \"v\", action = \"warn\" }}]\n\
             [[pipeline.silver]]\nname = \"f\"\nmode = \"fold\"\nfrom = \"s\"\nkey = [\"kk\"]\nfold = {{ n = {{ sum = \"vv\" }} }}\n\
             [[pipeline.silver]]\nname = \"typo\"\nmode = \"apend\""
        );
        let gold = |name: &str, sql: &str| format!("[[pipeline.gold]]\nname = \"{name}\"\nsql = \"{sql}\"\n");
        let golds = [
            gold("bad", "SELECT nope, count(*) AS n FROM s GROUP BY nope"),
            gold("good", "SELECT k, count(*) AS n FROM s GROUP BY k"),
            // What they read is a problem already.
            gold("folded", "SELECT k, count(*) AS n FROM f GROUP BY k"),
            gold("unread", "SELECT k, count(*) AS n FROM typo GROUP BY k"),
            gold("lost", "SELECT k, count(*) AS n FROM nowhere GROUP BY k"),
        ];
        let found = found(&silver, &golds.concat()).await;
        let mut lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        lines.sort_unstable();
        assert_eq!(lines, [15, 15, 22, 30, 31, 43], "{found:?}");
        for named in ["`one`", "`three`", "`kk`", "`vv`", "`bad`", "`lost`"] {
            assert!(found.iter().any(|(_, message)| message.contains(named)), "{named}: {found:?}");
        }
    }

    #[tokio::test]
    async fn an_input_that_cannot_be_planned_is_the_only_problem_of_what_needs_it() {
        let bad = format!("sql = \"SELECT nope FROM i\"\n{APPEND}");
        let gold = "[[pipeline.gold]]\nname = \"g\"\nsql = \"SELECT k, count(*) AS n FROM s GROUP BY k\"";
        let found = found(&bad, gold).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0 == 10 && found[0].1.contains("nope"), "{found:?}");
    }
}
