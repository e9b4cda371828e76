//! Experience and level of a user: figures of gold, computed from the epoch that is served. Nothing stores them, and no request
//! can set them.

use std::sync::Arc;

use karat_access::User;

use super::views::UserView;
use crate::snapshot::{Snapshots, UserDay};

/// What gives experience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExperienceRules {
    /// For each completed run.
    pub completed_run: u32,
    /// For each UTC day with a completed run whose day before had one too.
    pub streak_day: u32,
    /// The experience of level 2. Level n begins at (n - 1)² times as much.
    pub level: u32,
}

impl Default for ExperienceRules {
    fn default() -> Self {
        Self { completed_run: 10, streak_day: 5, level: 100 }
    }
}

/// Where experience is read; without snapshots nobody has any.
#[derive(Clone, Default)]
pub struct Experience {
    snapshots: Option<Arc<Snapshots>>,
    rules: ExperienceRules,
}

impl Experience {
    pub fn of_gold(snapshots: Arc<Snapshots>, rules: ExperienceRules) -> Self {
        Self { snapshots: Some(snapshots), rules }
    }

    /// The account with its experience and level.
    pub(super) fn profile(&self, user: User) -> UserView {
        let days = self.snapshots.as_ref().map(|snapshots| snapshots.current().days_of(&user.id.to_string()));
        let exp = self.rules.experience(&days.unwrap_or_default());
        UserView { exp: Some(exp), level: Some(self.rules.level_of(exp)), ..user.into() }
    }
}

impl ExperienceRules {
    /// Of the days of a user, oldest first.
    pub(crate) fn experience(&self, days: &[UserDay]) -> u64 {
        let runs = days.iter().map(|day| day.completed.unsigned_abs()).fold(0, u64::saturating_add);
        let is_streak = |pair: &&[UserDay]| pair.iter().all(|day| day.completed > 0) && pair[0].day + 1 == pair[1].day;
        let streak = days.windows(2).filter(is_streak).count() as u64;
        let of = |count: u64, each: u32| count.saturating_mul(each.into());
        of(runs, self.completed_run).saturating_add(of(streak, self.streak_day))
    }

    pub(crate) fn level_of(&self, exp: u64) -> u64 {
        (exp / u64::from(self.level.max(1))).isqrt() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(days: &[(i64, i64)]) -> Vec<UserDay> {
        days.iter().map(|(day, completed)| UserDay { day: *day, completed: *completed }).collect()
    }

    #[test]
    fn runs_and_days_in_a_row_give_experience() {
        let rules = ExperienceRules::default();
        for (list, expected) in [
            (&[][..], 0),
            (&[(100, 3)], 30),
            (&[(100, 3), (101, 1)], 45),
            // A day without a run between them.
            (&[(100, 1), (102, 1)], 20),
            (&[(100, 1), (101, 1), (102, 1), (105, 1)], 50),
            // A day between them on which nothing completed.
            (&[(100, 1), (101, 0), (102, 1)], 20),
            (&[(-1, 1), (0, 1)], 25),
        ] {
            assert_eq!(rules.experience(&days(list)), expected, "{list:?}");
        }
    }

    #[test]
    fn levels_begin_at_squares() {
        let rules = ExperienceRules::default();
        for (exp, level) in [(0, 1), (99, 1), (100, 2), (399, 2), (400, 3), (900, 4), (u64::MAX, 429_496_730)] {
            assert_eq!(rules.level_of(exp), level, "{exp}");
        }
    }
}
