//! Passwords that are tried first.
//!
//! `data/common-passwords.txt` was written for this project: words, names and keyboard patterns that people are known
//! to choose, combined with the usual endings by the rule in its header. It is no copy of a leaked list.

use std::collections::HashSet;
use std::sync::LazyLock;

static COMMON: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let list = include_str!("../../data/common-passwords.txt");
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
});

/// Whether a lower-case password is in the list, as it is, without what is stuck to its ends, or with the usual
/// letter substitutions undone.
pub(crate) fn is_common(lower: &str) -> bool {
    let inner = lower.trim_matches(|c: char| !c.is_alphabetic());
    // Decorations stand at the end and are cut first: undone, a trailing `1!` would become letters.
    let core = lower.trim_end_matches(|c: char| !c.is_alphabetic());
    let candidates = [lower.to_owned(), inner.to_owned(), undo_substitutions(lower), undo_substitutions(core)];
    candidates.iter().any(|candidate| COMMON.contains(candidate.as_str()))
}

fn undo_substitutions(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '@' | '4' => 'a',
            '3' => 'e',
            '1' | '!' => 'i',
            '0' => 'o',
            '$' | '5' => 's',
            '7' | '+' => 't',
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_thousands_of_entries_all_lower_case() {
        assert!(COMMON.len() > 4000, "{}", COMMON.len());
        assert!(COMMON.iter().all(|entry| *entry == entry.to_lowercase()));
    }

    #[test]
    fn a_long_phrase_that_holds_a_common_word_is_not_common() {
        assert!(!is_common("dragon flies over nine hills"));
    }
}
