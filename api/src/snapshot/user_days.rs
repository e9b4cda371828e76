//! The rows of `gold.user_days` that experience is counted from: which days a user completed runs on, and how many.

use std::collections::HashMap;

use karat_lake::arrow::{array::RecordBatch, error::ArrowError};

use super::Columns;

const DAY_US: i64 = 86_400_000_000;

/// The users of one file.
#[derive(Debug, Default, PartialEq)]
pub struct UserDays(HashMap<Box<str>, Vec<CompletedDay>>);

/// A UTC day on which a user completed runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CompletedDay {
    /// Days since 1970.
    pub day: i64,
    pub completed: i64,
}

impl UserDays {
    /// Takes over the rows of a file.
    ///
    /// # Errors
    /// When a column is missing or has another type.
    pub fn from_batches(batches: &[RecordBatch]) -> Result<Self, ArrowError> {
        let mut users: HashMap<Box<str>, Vec<CompletedDay>> = HashMap::new();
        for batch in batches {
            let columns = Columns::of(batch);
            let (names, days) = (columns.texts("user_id")?, columns.instants("day")?);
            let completed = columns.numbers("completed")?;
            for row in 0..batch.num_rows() {
                let (Some(user), Some(day)) = (names.get(row), days.get(row)) else { continue };
                let day = CompletedDay { day: day.div_euclid(DAY_US), completed: completed.get_or_0(row) };
                if day.completed > 0 {
                    users.entry(user.into()).or_default().push(day);
                }
            }
        }
        Ok(Self(users))
    }

    /// The days of a user, in no order.
    pub fn of(&self, user: &str) -> &[CompletedDay] {
        self.0.get(user).map_or(&[], Vec::as_slice)
    }
}
