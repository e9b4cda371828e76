//! [`JobSet`]: how many distinct jobs there are, by a bit each.

use super::packed::{read, write};

/// A set of small numbers that grows and is emptied at the cost of what it holds.
#[derive(Debug, Default)]
pub(super) struct JobSet {
    words: Vec<u64>,
    /// Words that are not zero.
    used: Vec<u32>,
    /// Members of the sets before the last [`Self::end`].
    ended: i64,
}

impl JobSet {
    pub(super) fn add(&mut self, job: u32) {
        self.add_word(job / 64, 1 << (job % 64));
    }

    /// Numbers from here on are of another set, which is counted apart.
    pub(super) fn end(&mut self) {
        for at in self.used.drain(..) {
            self.ended += i64::from(std::mem::take(&mut self.words[at as usize]).count_ones());
        }
    }

    /// Members of all sets; empties this.
    pub(super) fn finish(&mut self) -> i64 {
        self.end();
        std::mem::take(&mut self.ended)
    }

    /// Writes the set since the last end, and empties this.
    pub(super) fn pack(&mut self, out: &mut Vec<u8>) {
        self.used.sort_unstable();
        write(out, self.used.len() as u64);
        let mut previous = 0;
        for at in &self.used {
            write(out, u64::from(at - previous));
            out.extend_from_slice(&self.words[*at as usize].to_le_bytes());
            previous = *at;
        }
        self.finish();
    }

    /// Adds what [`Self::pack`] wrote; member n counts as `names[n]`.
    pub(super) fn add_packed(&mut self, bytes: &mut &[u8], names: Option<&[u32]>) {
        let mut at = 0;
        for _ in 0..read(bytes) {
            at += read(bytes) as u32;
            let Some((word, rest)) = bytes.split_first_chunk() else { return };
            *bytes = rest;
            let mut word = u64::from_le_bytes(*word);
            let Some(names) = names else {
                self.add_word(at, word);
                continue;
            };
            while word != 0 {
                let job = at as usize * 64 + word.trailing_zeros() as usize;
                names.get(job).into_iter().for_each(|name| self.add(*name));
                word &= word - 1;
            }
        }
    }

    fn add_word(&mut self, at: u32, bits: u64) {
        let index = at as usize;
        if self.words.len() <= index {
            self.words.resize(index + 1, 0);
        }
        if self.words[index] == 0 {
            self.used.push(at);
        }
        self.words[index] |= bits;
    }
}
