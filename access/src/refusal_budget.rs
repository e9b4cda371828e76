//! How many refusals of callers whom nobody knows get rows of their own. Each network is bounded by itself, but whoever
//! has a /48 of IPv6 has 65,536 of them: over all networks, a process writes so many a minute of each action, and then
//! one row with how many more there were.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use crate::{Action, Actor, AuditEvent, Origin, Outcome};

/// Rows of one action in one window.
const MOST_ROWS: u32 = 120;
/// How long a window is, and how long what is left out waits for its row.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// The windows of each action. Whether there is an account that was guessed at makes no difference to them: writing a row
/// takes time, and would tell.
#[derive(Default)]
pub(crate) struct RefusalBudget {
    windows: Mutex<HashMap<Action, Window>>,
}

struct Window {
    began: Instant,
    written: u32,
    left_out: Option<Count>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    since: Instant,
    rows: u64,
    /// Those of them that concerned an account, a session or a key that there is.
    of_known: u64,
}

/// Refusals of one action that got no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeftOut {
    action: Action,
    count: Count,
}

impl RefusalBudget {
    /// Whether this gets a row of its own; else it is counted. What was done, or refused to somebody who is known, always
    /// gets one.
    pub(crate) fn has_row_for(&self, event: &AuditEvent) -> bool {
        self.has_row_at(event, Instant::now())
    }

    fn has_row_at(&self, event: &AuditEvent, now: Instant) -> bool {
        if event.actor != Actor::Anonymous || event.outcome != Outcome::Denied {
            return true;
        }
        let mut windows = self.windows.lock();
        let window = windows.entry(event.action).or_insert_with(|| Window::at(now));
        if now.saturating_duration_since(window.began) >= WINDOW {
            (window.began, window.written) = (now, 0);
        }
        let has_row = window.written < MOST_ROWS;
        if has_row {
            window.written += 1;
        } else {
            window.leave_out(Count { since: now, rows: 1, of_known: u64::from(event.target.is_some()) });
        }
        has_row
    }

    /// Takes what was left out since so long ago.
    pub(crate) fn take_left_out(&self, age: Duration) -> Vec<LeftOut> {
        self.take_left_out_at(age, Instant::now())
    }

    fn take_left_out_at(&self, age: Duration, now: Instant) -> Vec<LeftOut> {
        let mut windows = self.windows.lock();
        let due = windows.iter_mut().filter_map(|(action, window)| {
            let count = window.left_out.take_if(|count| now.saturating_duration_since(count.since) >= age)?;
            Some(LeftOut { action: *action, count })
        });
        due.collect()
    }

    /// Counts again what was taken and could not be written.
    pub(crate) fn put_back(&self, left_out: impl IntoIterator<Item = LeftOut>) {
        let mut windows = self.windows.lock();
        for LeftOut { action, count } in left_out {
            windows.entry(action).or_insert_with(|| Window::at(count.since)).leave_out(count);
        }
    }
}

impl Window {
    fn at(began: Instant) -> Self {
        Self { began, written: 0, left_out: None }
    }

    fn leave_out(&mut self, more: Count) {
        let sum = self.left_out.map_or(more, |held| Count {
            since: held.since.min(more.since),
            rows: held.rows.saturating_add(more.rows),
            of_known: held.of_known.saturating_add(more.of_known),
        });
        self.left_out = Some(sum);
    }
}

impl LeftOut {
    /// The row that stands for them.
    pub(crate) fn event(&self) -> AuditEvent {
        let Count { rows, of_known, .. } = self.count;
        AuditEvent::denied(self.action, None, &Origin::default())
            .with_details(json!({"left_out": rows, "left_out_of_known": of_known}))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn refusal(target: Option<Uuid>) -> AuditEvent {
        AuditEvent::denied(Action::Login, target, &Origin::default())
    }

    /// How many of so many refusals get a row.
    fn written(budget: &RefusalBudget, event: &AuditEvent, times: u32, now: Instant) -> u32 {
        (0..times).map(|_| u32::from(budget.has_row_at(event, now))).sum()
    }

    #[test]
    fn beyond_the_rows_of_a_minute_refusals_are_counted_for_one_row() {
        let (budget, now, nobody) = (RefusalBudget::default(), Instant::now(), refusal(None));
        assert_eq!(written(&budget, &nobody, MOST_ROWS + 7, now), MOST_ROWS);
        let almost = now + WINDOW - Duration::from_millis(1);
        assert!(budget.take_left_out_at(WINDOW, almost).is_empty());
        // The next window has rows again, and what the last one left out is not forgotten.
        assert_eq!(written(&budget, &nobody, MOST_ROWS + 2, now + WINDOW), MOST_ROWS);
        let left_out = budget.take_left_out_at(WINDOW, now + WINDOW);
        let row = left_out[0].event();
        assert_eq!((left_out.len(), row.action, row.outcome), (1, Action::Login, Outcome::Denied));
        assert_eq!(row.details, Some(json!({"left_out": 9, "left_out_of_known": 0})));
        assert!(budget.take_left_out_at(Duration::ZERO, now + WINDOW).is_empty(), "it was taken");

        // What could not be written is added to what came since.
        let maria = refusal(Some(Uuid::nil()));
        assert_eq!(written(&budget, &maria, 1, now + WINDOW), 0, "who is known and who is not take as long");
        budget.put_back(left_out);
        let again = budget.take_left_out_at(WINDOW, now + WINDOW);
        assert_eq!(again[0].event().details, Some(json!({"left_out": 10, "left_out_of_known": 1})));
    }

    #[test]
    fn one_action_takes_no_rows_from_another_and_callers_who_are_known_are_not_bounded() {
        let (budget, now) = (RefusalBudget::default(), Instant::now());
        assert_eq!(written(&budget, &refusal(None), MOST_ROWS * 2, now), MOST_ROWS);
        let other = AuditEvent::denied(Action::Refresh, None, &Origin::default());
        assert_eq!(written(&budget, &other, 3, now), 3);
        let user = Actor::User(Uuid::nil());
        let known = AuditEvent::refused(user, Action::Login, None, &Origin::default());
        assert_eq!(written(&budget, &known, MOST_ROWS * 2, now), MOST_ROWS * 2);
        let done = AuditEvent { outcome: Outcome::Success, ..refusal(None) };
        assert_eq!(written(&budget, &done, 3, now), 3);
    }
}
