//! What the text of a statement asks for. Clients open a session with statements of their own (`BEGIN`, `SET`, `SHOW`), which
//! are answered here without effect: a session has no settings, and every question reads one epoch. All else is a question.

use super::refusal::Refusal;

/// What a statement asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    Empty,
    Begin,
    Commit,
    Rollback,
    /// Has no effect; the word with which it is answered.
    Ignored(&'static str),
    /// Forgets a prepared statement, or all.
    Deallocate(Option<String>),
    /// Forgets all that a session keeps, which is what it has prepared.
    Discard,
    /// One fact about the session, by its name in small letters.
    Tell(String),
    /// Goes to the tables.
    Question,
}

impl Statement {
    /// # Errors
    /// Several statements at a time, of which one would be answered here.
    pub(super) fn of(sql: &str) -> Result<Self, Refusal> {
        let sql = sql.trim_matches(|c: char| c.is_whitespace() || c == ';');
        if sql.is_empty() {
            return Ok(Self::Empty);
        }
        let words = sql.split(|c: char| c.is_whitespace() || c == ';').filter(|word| !word.is_empty());
        let words: Vec<String> = words.take(5).map(str::to_lowercase).collect();
        let rest = words.get(1..).unwrap_or_default().join(" ");
        let statement = match words.first().map_or("", String::as_str) {
            "begin" => Self::Begin,
            "start" if rest.starts_with("transaction") => Self::Begin,
            "commit" | "end" => Self::Commit,
            // To a savepoint, which there is none of.
            "rollback" if rest.split(' ').any(|word| word == "to") => Self::Question,
            "rollback" | "abort" => Self::Rollback,
            "set" => Self::Ignored("SET"),
            "reset" => Self::Ignored("RESET"),
            "discard" if rest == "all" => Self::Discard,
            "discard" => Self::Ignored("DISCARD"),
            "deallocate" => Self::Deallocate(deallocated(sql)),
            "show" => Self::Tell(rest.trim_matches('"').to_owned()),
            "select" => fact(&rest).map_or(Self::Question, |name| Self::Tell(name.to_owned())),
            _ => Self::Question,
        };
        // Questions are looked at where they are answered.
        if statement != Self::Question && sql.contains(';') {
            return Err(Refusal::new("42601", "one statement at a time"));
        }
        Ok(statement)
    }

    /// Whether rows come of it.
    pub(super) fn has_rows(&self) -> bool {
        matches!(self, Self::Tell(_) | Self::Question)
    }
}

/// The name behind `DEALLOCATE`, as it was written; none for all.
fn deallocated(sql: &str) -> Option<String> {
    let name = sql.split_whitespace().last()?.trim_matches('"');
    (!name.eq_ignore_ascii_case("all")).then(|| name.to_owned())
}

/// The fact that a `SELECT` of nothing else asks for.
fn fact(selected: &str) -> Option<&'static str> {
    let selected = selected.strip_prefix("pg_catalog.").unwrap_or(selected);
    Some(match selected {
        "version()" => "version",
        "current_schema" | "current_schema()" => "current_schema",
        "current_database()" | "current_catalog" => "current_database",
        "current_user" | "session_user" | "user" => "current_user",
        _ => return None,
    })
}

/// Whether a text has a parameter (`$1`) outside of quotes.
pub(super) fn has_parameter(sql: &str) -> bool {
    let mut quote = None;
    let mut before = ' ';
    for sign in sql.chars() {
        match quote {
            Some(open) if sign == open => quote = None,
            Some(_) => {}
            None if sign == '\'' || sign == '"' => quote = Some(sign),
            None if before == '$' && sign.is_ascii_digit() => return true,
            None => {}
        }
        before = sign;
    }
    false
}

/// What a session tells of itself.
pub(super) struct Facts {
    pub(super) username: String,
    pub(super) application: String,
}

/// What clients are told to be speaking with: a version whose protocol and syntax they know.
const SERVER_VERSION: &str = "16.0";

impl Facts {
    /// The facts that every client is told when it has logged in.
    pub(super) const AT_ONCE: [&'static str; 11] = [
        "server_version",
        "server_encoding",
        "client_encoding",
        "application_name",
        "is_superuser",
        "session_authorization",
        "DateStyle",
        "IntervalStyle",
        "TimeZone",
        "integer_datetimes",
        "standard_conforming_strings",
    ];

    /// A fact by its name, in any case.
    pub(super) fn tell(&self, name: &str) -> Option<String> {
        Some(match name.to_lowercase().as_str() {
            "version" => format!("PostgreSQL {SERVER_VERSION} (Karat {}, read-only)", env!("CARGO_PKG_VERSION")),
            "server_version" => SERVER_VERSION.to_owned(),
            "server_version_num" => "160000".to_owned(),
            "server_encoding" | "client_encoding" => "UTF8".to_owned(),
            "application_name" => self.application.clone(),
            "is_superuser" => "off".to_owned(),
            "session_authorization" | "current_user" => self.username.clone(),
            "datestyle" => "ISO, MDY".to_owned(),
            "intervalstyle" => "postgres".to_owned(),
            "timezone" | "time zone" => "UTC".to_owned(),
            "integer_datetimes" | "standard_conforming_strings" => "on".to_owned(),
            "transaction_read_only" | "default_transaction_read_only" => "on".to_owned(),
            "transaction isolation level" | "transaction_isolation" | "default_transaction_isolation" => {
                "read committed".to_owned()
            }
            "extra_float_digits" => "1".to_owned(),
            "max_identifier_length" => "63".to_owned(),
            "current_schema" | "search_path" => "gold".to_owned(),
            "current_database" => "karat".to_owned(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_clients_are_told_from_questions() {
        for (sql, expected) in [
            (" ; ", Statement::Empty),
            ("BEGIN", Statement::Begin),
            ("begin isolation level serializable;", Statement::Begin),
            ("START TRANSACTION READ ONLY", Statement::Begin),
            ("COMMIT;", Statement::Commit),
            ("rollback", Statement::Rollback),
            ("ROLLBACK TO SAVEPOINT a", Statement::Question),
            ("SET extra_float_digits = 3", Statement::Ignored("SET")),
            ("DISCARD ALL;", Statement::Discard),
            ("DISCARD TEMP", Statement::Ignored("DISCARD")),
            ("DEALLOCATE \"_pg3_0\"", Statement::Deallocate(Some("_pg3_0".to_owned()))),
            ("DEALLOCATE ALL", Statement::Deallocate(None)),
            ("SHOW TRANSACTION ISOLATION LEVEL", Statement::Tell("transaction isolation level".to_owned())),
            ("select pg_catalog.version()", Statement::Tell("version".to_owned())),
            ("SELECT 1", Statement::Question),
            ("SELECT version(), 1", Statement::Question),
            ("INSERT INTO gold.t SELECT 1", Statement::Question),
            ("SELECT 1; SELECT 2", Statement::Question),
        ] {
            assert_eq!(Statement::of(sql), Ok(expected), "{sql}");
        }
        assert_eq!(Statement::of("BEGIN; SELECT 1").unwrap_err().sqlstate, "42601");
    }

    #[test]
    fn a_parameter_is_one_outside_of_quotes() {
        assert!(has_parameter("SELECT $1") && has_parameter("SELECT 'a' || $12"));
        for sql in ["SELECT '$1'", "SELECT \"$1\"", "SELECT 1", "SELECT $x", "SELECT 'it''s $1'"] {
            assert!(!has_parameter(sql), "{sql}");
        }
    }

    #[test]
    fn every_fact_that_is_told_at_once_is_known() {
        let facts = Facts { username: "ada".to_owned(), application: "psql".to_owned() };
        for name in Facts::AT_ONCE {
            assert!(facts.tell(name).is_some(), "{name}");
        }
        assert_eq!(facts.tell("current_user").as_deref(), Some("ada"));
        assert_eq!(facts.tell("nothing"), None);
    }
}
