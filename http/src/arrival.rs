//! [`Arrival`]: what a connection owes, and by when.
//!
//! hyper has one timer, for heads on HTTP/1: it begins with the first byte, and knows no difference between a head that does
//! not get on and a connection that is kept. So each connection has a clock of its own from the moment it is accepted,
//! whatever is spoken on it:
//!
//! * The first head must be whole within the deadline of heads, the handshake of TLS included.
//! * Between requests a connection may be silent for the idle limit. On HTTP/1 a further head that has begun has the deadline
//!   of heads; on HTTP/2 bytes tell nothing, since pings and settings are answered between requests too.
//! * While requests run, each part of an answer must be taken within the deadline of answers. On HTTP/2 the others that run on
//!   the connection may be those of other people, behind a proxy: it takes no further ones, and they have that time once more.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// What a client that is told to go has to say that it heard.
const FAREWELL: Duration = Duration::from_secs(1);

/// Deadlines of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub head: Duration,
    pub idle: Duration,
    pub answer: Duration,
}

/// What did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// The head of a request.
    Head,
    /// A further request.
    Idle,
    /// A client that takes what it asked for.
    Answer,
}

impl Overdue {
    /// In metrics and the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Answer => "answer",
        }
    }
}

/// The clock of one connection.
pub(crate) struct Arrival {
    deadlines: Deadlines,
    state: Mutex<State>,
}

struct State {
    running: usize,
    has_begun: bool,
    is_multiplexed: bool,
    /// When the connection was accepted, or its last request was answered.
    waiting_since: Instant,
    /// When the first byte after that was read.
    head_since: Option<Instant>,
    /// Answers, by the numbers of their requests, of which a part was handed out and nobody asked for the next one yet, and
    /// since when: one on HTTP/1, and on HTTP/2 as many as run, so a list is quicker than a map.
    untaken: Vec<(u64, Instant)>,
    requests: u64,
}

impl State {
    fn forget(&mut self, number: u64) {
        if let Some(place) = self.untaken.iter().position(|(of, _)| *of == number) {
            self.untaken.swap_remove(place);
        }
    }
}

impl Arrival {
    /// Of a connection that was accepted just now.
    pub(crate) fn new(deadlines: Deadlines) -> Arc<Self> {
        let state = State {
            running: 0,
            has_begun: false,
            is_multiplexed: false,
            waiting_since: Instant::now(),
            head_since: None,
            untaken: Vec::new(),
            requests: 0,
        };
        Arc::new(Self { deadlines, state: Mutex::new(state) })
    }

    /// Something was read.
    pub(crate) fn note_bytes(&self) {
        let mut state = self.state.lock();
        if state.running == 0 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// A head is whole. `is_multiplexed` on HTTP/2.
    pub(crate) fn begin(self: &Arc<Self>, is_multiplexed: bool) -> Running {
        let mut state = self.state.lock();
        state.running += 1;
        state.requests += 1;
        state.has_begun = true;
        state.is_multiplexed = is_multiplexed;
        Running { arrival: Arc::clone(self), number: state.requests }
    }

    /// Waits until a deadline has passed, at least for `grace`.
    pub(crate) async fn overdue(&self, grace: Duration) -> Overdue {
        if !grace.is_zero() {
            tokio::time::sleep(grace).await;
        }
        // A deadline that begins later is at least so far away: looking again after this time misses none, and nobody has to
        // be woken.
        let step = self.deadlines.head.min(self.deadlines.idle).min(self.deadlines.answer);
        loop {
            let (now, next) = (Instant::now(), self.next());
            if let Some((at, overdue)) = next
                && at <= now
            {
                return overdue;
            }
            let look = now + step;
            tokio::time::sleep_until(next.map_or(look, |(at, _)| at.min(look))).await;
        }
    }

    /// How long a connection goes on of which this is overdue, once its client is told to go; none when it ends at once.
    pub(crate) fn grace(&self, overdue: Overdue) -> Option<Duration> {
        let (state, deadlines, now) = (self.state.lock(), self.deadlines, Instant::now());
        let stuck = state.untaken.iter().filter(|(_, since)| *since + deadlines.answer <= now).count();
        let has_others = state.is_multiplexed && state.running > stuck;
        match overdue {
            Overdue::Head => None,
            Overdue::Idle => Some(FAREWELL),
            Overdue::Answer => has_others.then_some(deadlines.answer),
        }
    }

    /// The next deadline, as things are.
    fn next(&self) -> Option<(Instant, Overdue)> {
        let (state, deadlines) = (self.state.lock(), self.deadlines);
        if state.running > 0 {
            let first = state.untaken.iter().map(|(_, since)| *since).min();
            return first.map(|since| (since + deadlines.answer, Overdue::Answer));
        }
        if !state.has_begun {
            return Some((state.waiting_since + deadlines.head, Overdue::Head));
        }
        match state.head_since {
            Some(since) if !state.is_multiplexed => Some((since + deadlines.head, Overdue::Head)),
            _ => Some((state.waiting_since + deadlines.idle, Overdue::Idle)),
        }
    }
}

/// A request, from its head to the end of its answer. Dropping it is the end.
pub(crate) struct Running {
    arrival: Arc<Arrival>,
    number: u64,
}

impl Running {
    /// A part of the answer was handed out: the client has to take it.
    pub(crate) fn hand_out(&self) {
        let now = Instant::now();
        let mut state = self.arrival.state.lock();
        match state.untaken.iter_mut().find(|(number, _)| *number == self.number) {
            Some((_, since)) => *since = now,
            None => state.untaken.push((self.number, now)),
        }
    }

    /// The client took what was handed out: the next part is asked for.
    pub(crate) fn take(&self) {
        self.arrival.state.lock().forget(self.number);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.arrival.state.lock();
        state.forget(self.number);
        state.running = state.running.saturating_sub(1);
        if state.running == 0 {
            state.waiting_since = Instant::now();
            state.head_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;

    const DEADLINES: Deadlines =
        Deadlines { head: Duration::from_secs(15), idle: Duration::from_secs(60), answer: Duration::from_secs(20) };

    /// Does something; the moments of which one is that of what was done, however slow the machine is.
    fn during<T>(work: impl FnOnce() -> T) -> (T, RangeInclusive<Instant>) {
        let begin = Instant::now();
        (work(), begin..=Instant::now())
    }

    /// That this is overdue next, so long after one of these moments.
    fn assert_next(arrival: &Arrival, since: &RangeInclusive<Instant>, after: Duration, overdue: Overdue) {
        let (at, next) = arrival.next().unwrap();
        assert_eq!(next, overdue);
        let expected = *since.start() + after..=*since.end() + after;
        assert!(expected.contains(&at), "{overdue:?} at {at:?}, expected {expected:?}");
    }

    #[test]
    fn the_first_head_has_one_deadline_whatever_arrives() {
        let (arrival, accepted) = during(|| Arrival::new(DEADLINES));
        assert_next(&arrival, &accepted, Duration::from_secs(15), Overdue::Head);
        arrival.state.lock().waiting_since -= Duration::from_secs(10);
        arrival.note_bytes();
        assert_next(&arrival, &accepted, Duration::from_secs(5), Overdue::Head);
    }

    #[test]
    fn between_requests_silence_has_the_idle_limit_and_a_head_its_own() {
        let arrival = Arrival::new(DEADLINES);
        let running = arrival.begin(false);
        arrival.note_bytes();
        assert_eq!(arrival.next(), None, "the server is at work");
        let ((), ended) = during(|| drop(running));
        assert_next(&arrival, &ended, Duration::from_secs(60), Overdue::Idle);
        let ((), read) = during(|| arrival.note_bytes());
        assert_next(&arrival, &read, Duration::from_secs(15), Overdue::Head);
        // On HTTP/2 bytes are no head.
        let ((), ended) = during(|| drop(arrival.begin(true)));
        arrival.note_bytes();
        assert_next(&arrival, &ended, Duration::from_secs(60), Overdue::Idle);
    }

    #[test]
    fn an_answer_is_overdue_while_a_part_of_it_is_not_taken() {
        let arrival = Arrival::new(DEADLINES);
        let (one, other) = (arrival.begin(true), arrival.begin(true));
        let ((), handed_out) = during(|| one.hand_out());
        other.hand_out();
        arrival.state.lock().untaken[0].1 -= Duration::from_secs(5);
        assert_next(&arrival, &handed_out, Duration::from_secs(15), Overdue::Answer);
        one.take();
        let ((), handed_out) = during(|| other.hand_out());
        assert_eq!(arrival.state.lock().untaken.len(), 1, "an answer is in the list once");
        assert_next(&arrival, &handed_out, Duration::from_secs(20), Overdue::Answer);
        drop(other);
        assert_eq!(arrival.next(), None);
        let ((), ended) = during(|| drop(one));
        assert_next(&arrival, &ended, Duration::from_secs(60), Overdue::Idle);
    }

    #[test]
    fn other_requests_of_a_connection_have_time_to_end_when_an_answer_is_not_taken() {
        let arrival = Arrival::new(DEADLINES);
        let (stuck, other) = (arrival.begin(true), arrival.begin(true));
        stuck.hand_out();
        arrival.state.lock().untaken[0].1 -= DEADLINES.answer;
        assert_eq!(arrival.grace(Overdue::Answer), Some(DEADLINES.answer), "the other one is at work");
        other.hand_out();
        assert_eq!(arrival.grace(Overdue::Answer), Some(DEADLINES.answer), "or its answer is being taken");
        assert_eq!((arrival.grace(Overdue::Head), arrival.grace(Overdue::Idle)), (None, Some(FAREWELL)));
        drop(other);
        assert_eq!(arrival.grace(Overdue::Answer), None, "nobody else is there");
        drop(stuck);
        let only = arrival.begin(false);
        only.hand_out();
        arrival.state.lock().untaken[0].1 -= DEADLINES.answer;
        assert_eq!(arrival.grace(Overdue::Answer), None, "on HTTP/1 there are no others");
    }
}
