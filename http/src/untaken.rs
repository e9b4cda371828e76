//! [`Untaken`]: parts of the answers of one connection that were handed out, and whether their client gets on with taking them.
//!
//! A part has the deadline of answers from the moment that it was handed out, and longer while what was handed out before it is
//! being written: each byte that is written moves the clocks of the parts behind it, at the pace that a part alone must have.
//! So many answers on one slow line all get on for as long as the line does, and a stream whose own window is full is noticed
//! although the others flow, for what was before it is written soon.

use std::time::Duration;

use tokio::time::Instant;

use crate::streams::End;

/// What counts as handed out and not written is at most this: more than the streams of a connection hold. What a stream
/// had not sent when it was reset is never written, and does not add up to more.
const MOST_UNSENT_BYTES: u64 = 16 << 20;

/// Parts by the numbers of their requests: one on HTTP/1, and on HTTP/2 as many as run, so a list is quicker than a map.
#[derive(Default)]
pub(crate) struct Untaken {
    parts: Vec<Part>,
    /// What was written on the connection so far, in bytes.
    written: u64,
    /// What was handed out and not written yet, in bytes.
    unsent: u64,
}

struct Part {
    number: u64,
    since: Instant,
    /// Once so much is written, what was handed out before this part is.
    behind: u64,
    end: Option<End>,
}

impl Untaken {
    /// A part of the answer to a request was handed out. It replaces the one before it.
    pub(crate) fn hand_out(&mut self, number: u64, bytes: usize, end: Option<&End>) {
        let (since, behind) = (Instant::now(), self.written + self.unsent);
        self.unsent = (self.unsent + bytes as u64).min(MOST_UNSENT_BYTES);
        match self.parts.iter_mut().find(|part| part.number == number) {
            Some(part) => (part.since, part.behind) = (since, behind),
            None => self.parts.push(Part { number, since, behind, end: end.cloned() }),
        }
    }

    /// The next part was asked for, or there is none.
    pub(crate) fn take(&mut self, number: u64) {
        if let Some(place) = self.parts.iter().position(|part| part.number == number) {
            self.parts.swap_remove(place);
        }
    }

    /// So much was written, which may take the time `earned`. Whether it was of an answer.
    pub(crate) fn note_written(&mut self, bytes: usize, earned: Duration) -> bool {
        let (before, is_answer) = (self.written, self.unsent > 0);
        self.written += bytes as u64;
        self.unsent = self.unsent.saturating_sub(bytes as u64);
        if !self.parts.is_empty() {
            let now = Instant::now();
            for part in self.parts.iter_mut().filter(|part| part.behind > before) {
                part.since = (part.since + earned).min(now);
            }
        }
        is_answer
    }

    /// Since when the part is not taken that was handed out first.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.parts.iter().map(|part| part.since).min()
    }

    /// How many parts are not taken since then or longer.
    pub(crate) fn count(&self, since: Instant) -> usize {
        self.parts.iter().filter(|part| part.since <= since).count()
    }

    /// Ends the streams of those, and forgets them.
    pub(crate) fn end(&mut self, since: Instant) {
        self.parts.retain(|part| {
            let goes_on = part.since > since;
            if let (false, Some(end)) = (goes_on, &part.end) {
                end.notify_one();
            }
            goes_on
        });
    }

    /// Moves the clock of a part back.
    #[cfg(test)]
    pub(crate) fn age(&mut self, number: u64, by: Duration) {
        for part in self.parts.iter_mut().filter(|part| part.number == number) {
            part.since -= by;
        }
    }
}
