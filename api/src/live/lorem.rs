//! Filler text: what the chat answers while no server is set up for it.

use rand::random_range;

const WORDS: [&str; 60] = [
    "lorem",
    "ipsum",
    "dolor",
    "sit",
    "amet",
    "consectetur",
    "adipiscing",
    "elit",
    "sed",
    "do",
    "eiusmod",
    "tempor",
    "incididunt",
    "ut",
    "labore",
    "et",
    "dolore",
    "magna",
    "aliqua",
    "enim",
    "ad",
    "minim",
    "veniam",
    "quis",
    "nostrud",
    "exercitation",
    "ullamco",
    "laboris",
    "nisi",
    "aliquip",
    "ex",
    "ea",
    "commodo",
    "consequat",
    "duis",
    "aute",
    "irure",
    "in",
    "reprehenderit",
    "voluptate",
    "velit",
    "esse",
    "cillum",
    "eu",
    "fugiat",
    "nulla",
    "pariatur",
    "excepteur",
    "sint",
    "occaecat",
    "cupidatat",
    "non",
    "proident",
    "sunt",
    "culpa",
    "qui",
    "officia",
    "deserunt",
    "mollit",
    "anim",
];
/// How the text begins, and has since the sixteenth century.
const BEGINNING: usize = 8;
const FEWEST_WORDS: usize = 50;
const MOST_WORDS: usize = 120;
const FEWEST_IN_A_SENTENCE: usize = 8;
const MOST_IN_A_SENTENCE: usize = 14;

/// 50 to 120 words in sentences.
pub(super) fn text() -> String {
    let num_words = random_range(FEWEST_WORDS..=MOST_WORDS);
    let (mut text, mut left_in_sentence) = (String::new(), 0);
    let beginning = WORDS.iter().copied().take(BEGINNING);
    let others = std::iter::repeat_with(|| WORDS[random_range(0..WORDS.len())]);
    for word in beginning.chain(others).take(num_words) {
        if left_in_sentence == 0 {
            left_in_sentence = random_range(FEWEST_IN_A_SENTENCE..=MOST_IN_A_SENTENCE);
            text.push_str(if text.is_empty() { "" } else { ". " });
            text.push_str(&word[..1].to_uppercase());
            text.push_str(&word[1..]);
        } else {
            text.push(' ');
            text.push_str(word);
        }
        left_in_sentence -= 1;
    }
    text.push('.');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_50_to_120_words_in_sentences() {
        for _ in 0..500 {
            let text = text();
            let words = text.split_whitespace().count();
            assert!((50..=120).contains(&words), "{words}");
            assert!(text.starts_with("Lorem ipsum dolor sit amet") && text.ends_with('.'), "{text}");
            assert!(text.split(". ").all(|sentence| sentence.chars().next().is_some_and(char::is_uppercase)), "{text}");
        }
    }
}
