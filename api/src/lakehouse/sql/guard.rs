//! Looks at the text of a question before anything reads it: its length, and how deep what it says can become.
//!
//! Parsing, planning and running an expression descend into it, and so does forgetting it. A stack that ends there ends the
//! process, so depth has a bound that is found without descending: by walking over the tokens.

use karat_http::ApiError;
use karat_lake::datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    keywords::Keyword,
    tokenizer::{Token, Tokenizer},
};

/// Characters of a question.
pub(crate) const MAX_CHARS: usize = 20_000;
/// Brackets inside of each other.
const MAX_NESTING: usize = 32;
/// Operators between two commas, with those in brackets between them: the most that one expression can be deep by.
const MAX_OPERATORS: usize = 256;

/// Refuses what is too long, too deep, or no single question.
///
/// # Errors
/// 400 `sql_too_large`, or 400 `sql_refused`.
pub(super) fn check(sql: &str) -> Result<(), ApiError> {
    if sql.chars().count() > MAX_CHARS {
        return Err(too_large(&format!("at most {MAX_CHARS} characters")));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let tokens = tokens.map_err(|error| unreadable(error.location.line, error.location.column))?;
    let tokens: Vec<Token> = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let begins_well = match tokens.iter().find(|token| **token != Token::LParen) {
        Some(Token::Word(word)) => matches!(word.keyword, Keyword::SELECT | Keyword::WITH),
        _ => false,
    };
    if !begins_well {
        return Err(refused("begin with `SELECT` or `WITH`: nothing else is answered"));
    }
    let mut after = tokens.iter().skip_while(|token| **token != Token::SemiColon);
    if after.any(|token| !matches!(token, Token::SemiColon | Token::EOF)) {
        return Err(refused("one statement at a time"));
    }
    depth(&tokens)
}

/// The operators since the last comma on one level of brackets, and the most there were.
#[derive(Default)]
struct Level {
    now: usize,
    most: usize,
}

fn depth(tokens: &[Token]) -> Result<(), ApiError> {
    let (mut outer, mut level) = (Vec::new(), Level::default());
    for token in tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                if outer.len() == MAX_NESTING {
                    return Err(too_large(&format!("at most {MAX_NESTING} brackets inside of each other")));
                }
                if *token != Token::LParen {
                    // Each of `a[1][2]` is around the ones before it.
                    level.now += 1;
                }
                level.most = level.most.max(level.now);
                outer.push(std::mem::take(&mut level));
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                let inner = std::mem::replace(&mut level, outer.pop().unwrap_or_default());
                level.now += inner.most;
            }
            Token::Comma => level.now = 0,
            token if deepens(token) => level.now += 1,
            _ => {}
        }
        level.most = level.most.max(level.now);
        if level.now > MAX_OPERATORS {
            return Err(too_large(&format!("at most {MAX_OPERATORS} operators in one expression")));
        }
    }
    Ok(())
}

/// Whether a token can put one part of an expression or a query into another.
fn deepens(token: &Token) -> bool {
    use Keyword as K;
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            K::AND
                | K::OR
                | K::XOR
                | K::OVERLAPS
                | K::OPERATOR
                | K::MEMBER
                | K::NOT
                | K::IS
                | K::IN
                | K::LIKE
                | K::ILIKE
                | K::RLIKE
                | K::REGEXP
                | K::SIMILAR
                | K::BETWEEN
                | K::DIV
                | K::AT
                | K::COLLATE
                | K::CASE
                | K::INTERVAL
                | K::PRIOR
                | K::UNION
                | K::EXCEPT
                | K::INTERSECT
                | K::MINUS
                | K::JOIN
                | K::APPLY
        ),
        Token::EOF
        | Token::Number(..)
        | Token::Char(_)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::NationalStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::Period
        | Token::SemiColon
        | Token::Placeholder(_) => false,
        _ => true,
    }
}

/// 400: too long or too deep.
pub(super) fn too_large(expected: &str) -> ApiError {
    ApiError::bad_request("sql_too_large", format!("`sql`: expected {expected}, found more"))
}

/// 400: something that is not answered.
pub(super) fn refused(why: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request("sql_refused", format!("`sql`: {why}"))
}

/// 400: no SQL from here on.
pub(super) fn unreadable(line: u64, column: u64) -> ApiError {
    let message = format!("`sql`: cannot be read at line {line}, column {column}");
    ApiError::bad_request("sql_unreadable", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(sql: &str) -> Option<&'static str> {
        check(sql).err().map(|error| error.code())
    }

    #[test]
    fn security_63_what_could_exhaust_a_stack_is_refused_before_it_is_read() {
        let nested = |count: usize| format!("SELECT {}1{}", "(".repeat(count), ")".repeat(count));
        for (name, sql) in [
            ("a sum of 2,000", format!("SELECT 1{}", "+1".repeat(2_000))),
            ("2,000 alternatives", format!("SELECT 1 WHERE true{}", " OR true".repeat(2_000))),
            ("2,000 denials", format!("SELECT {} true", "NOT ".repeat(2_000))),
            ("2,000 signs", format!("SELECT {}1", "- ".repeat(2_000))),
            ("500 brackets", nested(500)),
            ("500 lists", format!("SELECT {}1{}", "[".repeat(500), "]".repeat(500))),
            ("2,000 subscripts", format!("SELECT a{}", "[1]".repeat(2_000))),
            ("1,000 overlaps", format!("SELECT a{}", " OVERLAPS a".repeat(1_000))),
            ("900 named operators", format!("SELECT a{}", " OPERATOR(x) a".repeat(900))),
            ("900 members", format!("SELECT a{}", " MEMBER OF (a)".repeat(900))),
            ("2,000 unions", format!("SELECT 1{}", " UNION SELECT 1".repeat(1_000))),
            ("many sums in brackets", format!("SELECT {}", vec!["(1+1+1)"; 300].join("*"))),
            ("1,000 cases", format!("SELECT {} 1", "CASE WHEN true THEN ".repeat(900))),
            ("a long text", format!("SELECT '{}'", "x".repeat(MAX_CHARS))),
        ] {
            assert_eq!(code(&sql), Some("sql_too_large"), "{name}");
        }
        assert_eq!(code(&nested(20)), None);
        let list = vec!["1"; 5_000].join(",");
        assert_eq!(code(&format!("SELECT 1 WHERE 1 IN ({list})")), None, "a list is not deep");
        assert_eq!(code(&format!("SELECT {}", vec!["a + b * c"; 300].join(", "))), None, "nor are many columns");
    }

    #[test]
    fn security_62_only_one_question_is_looked_at() {
        for sql in [
            "",
            ";",
            "-- SELECT 1",
            "DROP TABLE gold.t",
            "EXPLAIN ANALYZE SELECT 1",
            "COPY (SELECT 1) TO '/tmp/x'",
            "SET x = 1",
            "INSERT INTO gold.t SELECT 1",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "/* SELECT */ DELETE FROM gold.t",
            "SELECT 1; SELECT 2",
            "SELECT 1; DROP TABLE gold.t",
            "SELECT 1;;DELETE FROM gold.t",
        ] {
            assert_eq!(code(sql), Some("sql_refused"), "{sql}");
        }
        for sql in ["SELECT ';'", "SELECT 1;", " (SELECT 1) ", "with a as (select 1) select * from a", "SELECT 1 -- ;x"]
        {
            assert_eq!(code(sql), None, "{sql}");
        }
        assert_eq!(code("SELECT 'open"), Some("sql_unreadable"));
    }
}
