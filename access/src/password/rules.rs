//! The rules for choosing a password. Each broken rule is its own line, so that a form can show them all at once.

use super::common::is_common;

/// A longer password is refused before anything looks at it.
pub(crate) const MAX_PASSWORD_BYTES: usize = 1024;

const MIN_CHARS: usize = 8;
const MAX_CHARS: usize = 128;
/// Neighbours on a keyboard row or in the alphabet, in either direction, that count as a sequence.
const SEQUENCE_CHARS: usize = 4;
/// Equal characters in a row that count as a repeat.
const REPEAT_CHARS: usize = 3;
/// Shorter names are parts of too many words to be looked for.
const MIN_CONTEXT_CHARS: usize = 3;

const ROWS: [&str; 5] = ["abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm"];

/// The rules that a password breaks, one line each; empty when it may be used. `context` holds the words that it
/// must not contain: the username, the address, the address's local part.
pub(crate) fn broken_rules(password: &str, context: &[&str]) -> Vec<String> {
    let chars = password.chars().count();
    let lower = password.to_lowercase();
    let rules = [
        ((MIN_CHARS..=MAX_CHARS).contains(&chars), "must be 8 to 128 characters long"),
        (password.chars().any(char::is_uppercase), "must contain an upper-case letter"),
        (password.chars().any(char::is_lowercase), "must contain a lower-case letter"),
        (password.chars().any(|c| c.is_ascii_digit()), "must contain a digit"),
        (password.chars().any(|c| !c.is_alphanumeric()), "must contain a special character"),
        (!is_common(&lower), "is one of the passwords that are tried first, or a simple variation of one"),
        (!has_sequence(&lower), "must not contain a sequence such as `abcd`, `4321` or `qwer`"),
        (!has_repeat(&lower), "must not repeat a character three times in a row, or one group throughout"),
        (!contains_context(&lower, context), "must not contain the username, the e-mail address or `karat`"),
    ];
    let broken = rules.into_iter().filter(|(kept, _)| !kept);
    broken.map(|(_, text)| format!("`password`: {text}")).collect()
}

fn has_sequence(lower: &str) -> bool {
    let chars: Vec<char> = lower.chars().collect();
    chars.windows(SEQUENCE_CHARS).any(|window| {
        let forward: String = window.iter().collect();
        let backward: String = window.iter().rev().collect();
        ROWS.iter().any(|row| row.contains(&forward) || row.contains(&backward))
    })
}

fn has_repeat(lower: &str) -> bool {
    let chars: Vec<char> = lower.chars().collect();
    let in_a_row = chars.windows(REPEAT_CHARS).any(|w| w.iter().all(|c| *c == w[0]));
    let is_block =
        |length: usize| chars.len().is_multiple_of(length) && chars.chunks(length).all(|c| c == &chars[..length]);
    in_a_row || (1..=chars.len() / 2).any(is_block)
}

fn contains_context(lower: &str, context: &[&str]) -> bool {
    let words = context.iter().map(|word| word.to_lowercase()).chain(["karat".to_owned()]);
    words.filter(|word| word.chars().count() >= MIN_CONTEXT_CHARS).any(|word| lower.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(password: &str) -> Vec<String> {
        broken_rules(password, &["maria_77", "m.lopez@example.org", "m.lopez"])
    }

    fn breaks(password: &str, part: &str) {
        let lines = rules(password);
        assert!(lines.iter().any(|line| line.contains(part)), "`{password}` should break `{part}`: {lines:?}");
    }

    #[test]
    fn good_passwords_break_no_rule() {
        for good in ["Tr0ub4dor&3x", "correct Horse 7 battery", "ünïcödE-9-Wörter", "x9$Kfw2!pQ"] {
            assert_eq!(rules(good), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn each_broken_rule_has_its_own_line() {
        breaks("Ab1!xyw", "8 to 128");
        breaks(&"Ab1!xyw8".repeat(20), "8 to 128");
        breaks("lower-case-9", "upper-case");
        breaks("UPPER-CASE-9", "lower-case letter");
        breaks("No-Digits-Here", "digit");
        breaks("NoSpecial99x", "special");
        breaks("Xy-abcd-17-K", "sequence");
        breaks("Xy-4321-ab-K", "sequence");
        breaks("Xy-Rewq-17-K", "sequence");
        breaks("Xy-77-aaA-Kp", "repeat");
        breaks("Ab1!Ab1!Ab1!", "repeat");
        breaks("My-Maria_77-K9", "username");
        breaks("9!M.Lopez-xyT", "username");
        breaks("Gold-18-Karat!", "karat");
        assert_eq!(rules("").len(), 5);
    }

    #[test]
    fn common_passwords_are_refused_with_their_usual_decorations() {
        for common in ["password", "Password1!", "P@ssw0rd123", "Dragon2024!", "Letmein#1", "iloveyou", "Football99!"] {
            breaks(common, "tried first");
        }
    }
}
