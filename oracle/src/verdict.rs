//! What came of a comparison.

use std::fmt;

/// Sentences shown of each kind.
const SHOWN: usize = 10;

/// What was found, and every sentence about what should not be.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Sendings that were acknowledged.
    pub acknowledged: u64,
    /// Bronze rows of events in the ledger.
    pub found: u64,
    /// Events that should be there and are not.
    pub lost: Vec<String>,
    /// Events that are there too often.
    pub duplicated: Vec<String>,
    /// Everything else that breaks a promise.
    pub wrong: Vec<String>,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.duplicated.is_empty() && self.wrong.is_empty()
    }

    /// Takes in that `table` differs from its recomputation in `rows` rows; none is fine.
    pub fn differs(&mut self, table: &str, rows: usize) {
        if rows > 0 {
            self.wrong.push(format!("table `{table}` differs from its recomputation in {rows} rows"));
        }
    }

    /// Panics with the whole verdict unless it is clean.
    pub fn assert_clean(&self, context: &str) {
        assert!(self.is_clean(), "{context}: {self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (acknowledged, found) = (self.acknowledged, self.found);
        write!(f, "{acknowledged} acknowledged, {found} found")?;
        for (word, sentences) in [("lost", &self.lost), ("duplicated", &self.duplicated), ("wrong", &self.wrong)] {
            write!(f, ", {} {word}", sentences.len())?;
            sentences.iter().take(SHOWN).try_for_each(|sentence| write!(f, "\n  {word}: {sentence}"))?;
        }
        Ok(())
    }
}
