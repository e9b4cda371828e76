//! `GET /user-vitals`: what the runs of one user come to over the last days, and how the user stands.
//!
//! Figures are of `gold.summary_state` and days of `gold.user_days`, both of one epoch; a run counts on the UTC day on which it
//! started. The windows end today, so an answer holds until the next UTC midnight.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate};
use karat_access::Permission;
use karat_http::{ApiError, Authenticated, error_answers};
use poem::Request;
use poem_openapi::{OpenApi, param::Query};

use super::{
    DataTag,
    cover::Cover,
    vitals_views::{UserVitals, VitalsWindow},
};
use crate::{
    auth::ExperienceRules,
    serving::{
        DataAnswer, KeyParts, Question, Serving, envelope, now_us,
        params::Params,
        raw::{Raw, UserText},
    },
    snapshot::{DAY_US, Snapshot, SummaryState, UserDay},
    summary::{Figures, GroupBy, Selection, Stopped, Visible, Work, calendar::Span, fold},
};

error_answers! {
    /// Errors of `GET /user-vitals`.
    pub UserVitalsError: 400, 401, 403, 422, 429, 503, 504;
}

/// Lengths of the windows, in UTC days; today is the last of each.
const WINDOWS: [i64; 3] = [7, 30, 90];

/// Operations on the figures of one user.
pub struct VitalsApi {
    serving: Arc<Serving>,
    rules: ExperienceRules,
}

impl VitalsApi {
    pub(super) fn new(serving: Arc<Serving>, rules: ExperienceRules) -> Self {
        Self { serving, rules }
    }
}

#[OpenApi(tag = "DataTag::Vitals")]
impl VitalsApi {
    /// Figures of one user
    ///
    /// The runs of the caller over the last 7, 30 and 90 UTC days, today included; active days, the current streak, level and
    /// experience. Who has no runs gets zeros and nulls.
    #[oai(path = "/user-vitals", method = "get", operation_id = "read_user_vitals")]
    async fn read(
        &self,
        request: &Request,
        caller: Authenticated,
        /// Of this user, by id; another one than the caller needs the permission `read_all_data`.
        user_id: Query<Option<Raw<UserText>>>,
    ) -> Result<DataAnswer<UserVitals>, UserVitalsError> {
        let mut params = Params::of(request, &["user_id"]);
        if user_id.as_deref().is_some_and(str::is_empty) {
            params.add("user_id", "the id of a user", "an empty value");
        }
        params.finish()?;
        Ok(self.answer(request, &caller, user_id.as_deref()).await?)
    }
}

impl VitalsApi {
    async fn answer(
        &self,
        request: &Request,
        caller: &Authenticated,
        user_id: Option<&str>,
    ) -> Result<DataAnswer<UserVitals>, ApiError> {
        let scope = self.serving.scope_of(caller)?;
        let own = caller.id.to_string();
        let user = user_id.map_or_else(|| own.clone(), str::to_owned);
        if user != own {
            caller.require(Permission::ReadAllData)?;
        }
        let snapshot = self.serving.snapshots.current();
        let now = now_us();
        let today = now.div_euclid(DAY_US);
        let cover = Cover::of(&snapshot, self.serving.freshness(&snapshot, now));
        let rules = self.rules;
        let mut parts = scope.asks("user-vitals");
        parts.text("user_id", &user).text("rules", &format!("{rules:?}"));
        let question = Question {
            id: parts.key(),
            page: KeyParts::of("page"),
            snapshot: Arc::clone(&snapshot),
            freshness: cover.freshness,
            clock: (today + 1) * DAY_US,
        };
        let render = Arc::clone(&self.serving).compute(move |_, work| {
            let vitals = vitals(&snapshot, user, today, rules, cover, work)?;
            envelope(&vitals, "the user's figures")
        });
        self.serving.answer(request, question, render).await
    }
}

/// `today` is counted in days since 1970.
fn vitals(
    snapshot: &Snapshot,
    user: String,
    today: i64,
    rules: ExperienceRules,
    cover: Cover,
    work: &Work,
) -> Result<UserVitals, Stopped> {
    // Whoever asks: the answer is of this user's runs, and of no source that is granted to a role.
    let visible = Visible::Own { user: user.clone(), granted: Vec::new() };
    let days = snapshot.days_of(&user);
    let exp = rules.experience(&days);
    let window = |num_days: i64| {
        let first = today - (num_days - 1);
        Ok(VitalsWindow {
            days: num_days,
            from: date_of(first).to_string(),
            to: date_of(today).to_string(),
            active_days: days.iter().filter(|day| (first..=today).contains(&day.day)).count() as u64,
            figures: figures(&snapshot.summary, &visible, first, today, work)?,
        })
    };
    Ok(UserVitals {
        epoch: cover.epoch,
        as_of: cover.as_of(),
        data_state: cover.freshness.data_state,
        windows: WINDOWS.into_iter().map(window).collect::<Result<_, Stopped>>()?,
        streak_days: streak(&days, today),
        last_activity: days.last().map(|day| date_of(day.day).to_string()),
        exp,
        level: rules.level_of(exp),
        user_id: user,
    })
}

/// Of the runs that started on the days `first` to `last`, both included.
fn figures(state: &SummaryState, visible: &Visible, first: i64, last: i64, work: &Work) -> Result<Figures, Stopped> {
    let (from_us, to_us) = (first * DAY_US, (last + 1) * DAY_US);
    let span = Span { first: date_of(first), start_us: from_us, end_us: to_us, from_us, to_us };
    let selection = Selection {
        spans: vec![span],
        source: None,
        job: None,
        top_level_only: false,
        group_by: GroupBy::Nothing,
        fill: false,
        visible: visible.clone(),
        page: 0..0,
    };
    Ok(fold(state, &selection, work)?.totals)
}

/// Days in a row with a completed run, up to today, or up to yesterday while today has none yet. `days` is oldest first.
fn streak(days: &[UserDay], today: i64) -> u64 {
    let (mut streak, mut next) = (0, today);
    for day in days.iter().rev().filter(|day| day.completed > 0 && day.day <= today) {
        let is_yesterday = streak == 0 && day.day == today - 1;
        if day.day != next && !is_yesterday {
            break;
        }
        (streak, next) = (streak + 1, day.day - 1);
    }
    streak
}

fn date_of(day: i64) -> NaiveDate {
    DateTime::from_timestamp_micros(day.saturating_mul(DAY_US)).unwrap_or_default().date_naive()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streak_ends_today_or_yesterday_and_counts_days_with_a_completed_run() {
        for (completed, expected) in [
            (&[][..], 0),
            (&[(100, 1)], 1),
            (&[(99, 1)], 1),
            (&[(98, 9)], 0),
            (&[(96, 1), (98, 1), (99, 1), (100, 2)], 3),
            (&[(97, 1), (98, 1), (99, 1), (100, 0)], 3),
            (&[(98, 1), (99, 0), (100, 1)], 1),
            // A clock that runs ahead of ours.
            (&[(99, 1), (100, 1), (101, 1), (103, 1)], 2),
        ] {
            let day = |(day, completed): &(i64, i64)| UserDay { day: *day, completed: *completed };
            let days: Vec<_> = completed.iter().map(day).collect();
            assert_eq!(streak(&days, 100), expected, "{completed:?}");
        }
    }
}
