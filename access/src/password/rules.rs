//! The rules for choosing a password. Each broken rule is its own line, so that a form can show them all at once.

use super::common::is_common;
use super::hasher::normal_text;

/// A longer password is refused before anything looks at it.
pub(crate) const MAX_PASSWORD_BYTES: usize = 1024;

/// Which rules passwords keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PasswordRules {
    /// 8 to 128 characters with upper and lower case, a digit and a special character; no common ones, sequences,
    /// repeats or names.
    #[default]
    Composed,
    /// As NIST SP 800-63B-4 has it: 15 to 128 characters of any kind, or 8 to 128 beside a second factor; no common ones and
    /// no names.
    Long,
}

impl PasswordRules {
    /// Whether a password that these rules allow is long enough to be the only factor.
    pub(crate) fn let_stand_alone(self, password: &str) -> bool {
        match self {
            Self::Composed => true,
            Self::Long => normal_text(password).chars().count() >= MIN_LONG_CHARS,
        }
    }
}

/// Why the second factor beside a password may not be removed.
pub(crate) const NEEDS_FACTOR: &str =
    "`password`: has fewer than 15 characters, which do beside a second factor only: change it to a longer one first";

/// Why such a password may not be set where the second factor was removed meanwhile.
pub(crate) const SHORT_ALONE: &str = "`password`: must be 15 to 128 characters long";

/// Also what 800-63B-4 asks for where the password is one of two factors.
const MIN_CHARS: usize = 8;
/// 800-63B-4, 3.1.1.2, for passwords that are the only factor.
const MIN_LONG_CHARS: usize = 15;
const MAX_CHARS: usize = 128;
/// Neighbours on a keyboard row or in the alphabet, in either direction, that count as a sequence.
const SEQUENCE_CHARS: usize = 4;
/// Equal characters in a row that count as a repeat.
const REPEAT_CHARS: usize = 3;
/// Shorter names are parts of too many words to be looked for.
const MIN_CONTEXT_CHARS: usize = 3;

const ROWS: [&str; 5] = ["abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm"];

/// The rules that a password breaks, one line each; empty when it may be used. `context` holds the words that it
/// must not contain: the username, the address, the address's local part. `has_factor` says whether the account has a second
/// factor beside it.
pub(crate) fn broken_rules(rules: PasswordRules, has_factor: bool, password: &str, context: &[&str]) -> Vec<String> {
    // As it is kept: one that is written in parts is not longer for that.
    let password = normal_text(password);
    let broken = match rules {
        PasswordRules::Composed => broken_composed(&password, context),
        PasswordRules::Long => broken_long(has_factor, &password, context),
    };
    broken.into_iter().map(|text| format!("`password`: {text}")).collect()
}

const LENGTH: &str = "must be 8 to 128 characters long";
const LONG_LENGTH: &str = "must be 15 to 128 characters long";
const COMMON: &str = "is one of the passwords that are tried first, or a simple variation of one";
const CONTEXT: &str = "must not contain the username, the e-mail address or `karat`";

fn broken_long(has_factor: bool, password: &str, context: &[&str]) -> Vec<&'static str> {
    let lower = password.to_lowercase();
    let (least, length) = if has_factor { (MIN_CHARS, LENGTH) } else { (MIN_LONG_CHARS, LONG_LENGTH) };
    let rules = [
        ((least..=MAX_CHARS).contains(&password.chars().count()), length),
        (!is_common(&lower), COMMON),
        (!contains_context(&lower, context), CONTEXT),
    ];
    rules.into_iter().filter(|(kept, _)| !kept).map(|(_, text)| text).collect()
}

/// How hard a password is to guess: 0 for one that may not be used, up to 4.
pub(crate) fn strength(password: &str, has_broken_rules: bool) -> u8 {
    if has_broken_rules {
        return 0;
    }
    let kinds: [fn(char) -> bool; 4] =
        [char::is_uppercase, char::is_lowercase, |c| c.is_ascii_digit(), |c| !c.is_alphanumeric()];
    let pool: f64 =
        kinds.iter().zip([26.0, 26.0, 10.0, 33.0]).filter(|(is, _)| password.chars().any(**is)).map(|(_, n)| n).sum();
    let mut different: Vec<char> = password.chars().collect();
    different.sort_unstable();
    different.dedup();
    // What repeats adds little to what has to be guessed.
    let chars = (password.chars().count() + different.len()) / 2;
    let bits = pool.max(1.0).log2() * f64::from(u32::try_from(chars).unwrap_or(u32::MAX));
    match bits {
        bits if bits < 55.0 => 1,
        bits if bits < 70.0 => 2,
        bits if bits < 90.0 => 3,
        _ => 4,
    }
}

fn broken_composed(password: &str, context: &[&str]) -> Vec<&'static str> {
    let chars = password.chars().count();
    let lower = password.to_lowercase();
    let rules = [
        ((MIN_CHARS..=MAX_CHARS).contains(&chars), LENGTH),
        (password.chars().any(char::is_uppercase), "must contain an upper-case letter"),
        (password.chars().any(char::is_lowercase), "must contain a lower-case letter"),
        (password.chars().any(|c| c.is_ascii_digit()), "must contain a digit"),
        (password.chars().any(|c| !c.is_alphanumeric()), "must contain a special character"),
        (!is_common(&lower), COMMON),
        (!has_sequence(&lower), "must not contain a sequence such as `abcd`, `4321` or `qwer`"),
        (!has_repeat(&lower), "must not repeat a character three times in a row, or one group throughout"),
        (!contains_context(&lower, context), CONTEXT),
    ];
    rules.into_iter().filter(|(kept, _)| !kept).map(|(_, text)| text).collect()
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
        broken_rules(PasswordRules::Composed, false, password, &["maria_77", "m.lopez@example.org", "m.lopez"])
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
    fn security_05_common_passwords_are_refused_with_their_usual_decorations() {
        for common in ["password", "Password1!", "P@ssw0rd123", "Dragon2024!", "Letmein#1", "iloveyou", "Football99!"] {
            breaks(common, "tried first");
        }
    }

    #[test]
    fn security_02_long_rules_ask_for_no_kinds_of_characters() {
        let long = |password: &str| broken_rules(PasswordRules::Long, false, password, &["maria_77"]);
        for good in ["fifteenletterss", "many boats on a river", "🐙🐙🐳🐳🐋🐋🐠🐠🐡🐡🦈🦈🦀🦀🦞"]
        {
            assert_eq!(long(good), Vec::<String>::new(), "{good}");
        }
        assert!(long("fourteen chars")[0].contains("15 to 128"));
        assert!(long("maria_77 has many boats")[0].contains("username"));
    }

    #[test]
    fn security_01_eight_characters_do_beside_a_second_factor_under_the_long_rules_only() {
        let beside = |rules, password: &str| broken_rules(rules, true, password, &["maria_77"]);
        assert_eq!(beside(PasswordRules::Long, "k boats!"), Vec::<String>::new());
        for bad in ["7 boats", "password", "maria_77 k"] {
            assert_eq!(beside(PasswordRules::Long, bad).len(), 1, "{bad}");
        }
        assert!(!beside(PasswordRules::Composed, "k boats!").is_empty());
        assert!(!PasswordRules::Long.let_stand_alone("fourteen chars") && PasswordRules::Composed.let_stand_alone("x"));
        assert!(PasswordRules::Long.let_stand_alone("fifteen letters"));
    }

    #[test]
    fn security_01_characters_that_are_written_in_parts_count_once() {
        let in_parts = "e\u{301}a\u{301}o\u{301}i\u{301}u\u{301}n\u{303}u\u{308}k\u{301}";
        assert_eq!(in_parts.chars().count(), 16);
        let broken = broken_rules(PasswordRules::Long, false, in_parts, &[]);
        assert!(broken.len() == 1 && broken[0].contains("15 to 128"), "{broken:?}");
        assert!(!PasswordRules::Long.let_stand_alone(in_parts));
    }

    #[test]
    fn strength_grows_with_what_has_to_be_guessed() {
        assert_eq!(strength("abc", true), 0);
        let scores = ["Ab1!xyw8", "nine-Blue-7", "nine-Blue-7-boats-river"].map(|password| strength(password, false));
        assert!(scores[0] < scores[1] && scores[1] < scores[2], "{scores:?}");
    }
}
