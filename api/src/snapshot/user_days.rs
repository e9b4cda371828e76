//! The rows of `gold.user_days` as profiles and vitals want them: which days a user had runs on, and how many completed.

use std::collections::HashMap;

use karat_lake::arrow::{array::RecordBatch, error::ArrowError};

use super::Columns;

/// The length of a UTC day.
pub(crate) const DAY_US: i64 = 86_400_000_000;

/// The users of one file.
#[derive(Debug, Default, PartialEq)]
pub struct UserDays(HashMap<Box<str>, Vec<UserDay>>);

/// A UTC day on which runs of a user started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserDay {
    /// Days since 1970.
    pub day: i64,
    /// How many of the runs completed.
    pub completed: i64,
}

impl UserDays {
    /// Takes over the rows of a file.
    ///
    /// # Errors
    /// When a column is missing or has another type.
    pub fn from_batches(batches: &[RecordBatch]) -> Result<Self, ArrowError> {
        let mut users: HashMap<Box<str>, Vec<UserDay>> = HashMap::new();
        for batch in batches {
            let columns = Columns::of(batch);
            let (names, days) = (columns.texts("user_id")?, columns.instants("day")?);
            let completed = columns.numbers("completed")?;
            for row in 0..batch.num_rows() {
                let (Some(user), Some(day)) = (names.get(row), days.get(row)) else { continue };
                let day = UserDay { day: day.div_euclid(DAY_US), completed: completed.get_or_0(row) };
                users.entry(user.into()).or_default().push(day);
            }
        }
        Ok(Self(users))
    }

    /// The days of a user, in no order.
    pub fn of(&self, user: &str) -> &[UserDay] {
        self.0.get(user).map_or(&[], Vec::as_slice)
    }
}
