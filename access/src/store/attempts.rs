//! Attempts that may fail, counted before they are made: parallel ones cannot pass together, and a log-in that is
//! refused later does not take its count back.

use super::engine::{Tx, args};
use super::{Attempt, Store};
use crate::AccessError;
use crate::time::now_us;

/// Of first attempts under one name at the same time all but one find the row of that one at their next look, and of
/// transactions that wait for each other one goes on at a time.
const TRIES: usize = 5;

/// How many failures are free, and how long the waits after them are. The first wait doubles with each failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptPolicy {
    pub free: u32,
    pub first_wait_us: i64,
    pub longest_wait_us: i64,
    /// Without an attempt for so long, the count begins anew.
    pub forget_after_us: i64,
}

impl AttemptPolicy {
    /// The wait after this many failures.
    fn wait_us(&self, failures: i64) -> i64 {
        let beyond = failures - i64::from(self.free);
        if beyond < 0 {
            return 0;
        }
        let doubled = 1_i64.checked_shl(u32::try_from(beyond.min(40)).unwrap_or(40)).unwrap_or(i64::MAX);
        self.first_wait_us.saturating_mul(doubled).min(self.longest_wait_us)
    }

    /// The count and the end of the wait when one of the attempts was not made after all. What the others ask for
    /// stays: one of them may have failed meanwhile.
    fn without_one(&self, failures: i64, next_at: i64, now: i64) -> (i64, i64) {
        let failures = (failures - 1).max(0);
        (failures, next_at.min(now + self.wait_us(failures)))
    }
}

impl Store {
    /// Counts one attempt as failed and says whether it may be made. One that succeeds is taken back with
    /// [`Store::clear_attempts`].
    pub(crate) async fn begin_attempt(&self, name: &str, policy: AttemptPolicy) -> Result<Attempt, AccessError> {
        let [attempt] = self.begin_attempts([name], policy).await?;
        Ok(attempt)
    }

    /// Counts one attempt under several names, in their order and as of one moment: equal counts wait until the same
    /// moment. Once one of them must wait, those behind it are not counted and answer the same.
    pub(crate) async fn begin_attempts<const N: usize>(
        &self,
        names: [&str; N],
        policy: AttemptPolicy,
    ) -> Result<[Attempt; N], AccessError> {
        for _ in 1..TRIES {
            match self.try_attempts(names, policy).await {
                Err(error) if error.is_deadlock() || is_second(&error) => {}
                result => return result,
            }
        }
        self.try_attempts(names, policy).await
    }

    async fn try_attempts<const N: usize>(
        &self,
        names: [&str; N],
        policy: AttemptPolicy,
    ) -> Result<[Attempt; N], AccessError> {
        let mut tx = self.database.write().await?;
        let now = now_us();
        let mut attempts = [Attempt::Allowed; N];
        for (n, name) in names.into_iter().enumerate() {
            if let wait @ Attempt::Wait { .. } = count(&mut tx, name, policy, now).await? {
                attempts[n..].fill(wait);
                break;
            }
        }
        tx.commit().await?;
        Ok(attempts)
    }

    /// Takes one attempt back that was not made after all. The others stay counted, with their wait.
    pub(crate) async fn return_attempt(&self, name: &str, policy: AttemptPolicy) -> Result<(), AccessError> {
        let mut tx = self.database.write().await?;
        let sql = "SELECT failures, next_at FROM attempts WHERE name = ?";
        let Some(row) = tx.row_locked(sql, args![name]).await? else { return Ok(()) };
        let (failures, next_at) = policy.without_one(row.int("failures")?, row.int("next_at")?, now_us());
        tx.execute("UPDATE attempts SET failures = ?, next_at = ? WHERE name = ?", args![failures, next_at, name])
            .await?;
        tx.commit().await
    }

    /// Forgets the attempts under some names: one of them succeeded.
    pub(crate) async fn clear_attempts(&self, names: &[&str]) -> Result<(), AccessError> {
        let mut tx = self.database.write().await?;
        for name in names {
            tx.later("DELETE FROM attempts WHERE name = ?", args![*name]);
        }
        tx.commit().await
    }
}

/// Counts one attempt under a name; the caller commits.
async fn count(tx: &mut Tx, name: &str, policy: AttemptPolicy, now: i64) -> Result<Attempt, AccessError> {
    let sql = "SELECT failures, next_at, expires_at FROM attempts WHERE name = ?";
    let Some(row) = tx.row_locked(sql, args![name]).await? else {
        let sql = "INSERT INTO attempts (name, failures, next_at, expires_at) VALUES (?, 1, ?, ?)";
        tx.execute(sql, args![name, now + policy.wait_us(1), now + policy.forget_after_us]).await?;
        return Ok(Attempt::Allowed);
    };
    let is_old = row.int("expires_at")? <= now;
    let next_at = row.int("next_at")?;
    if next_at > now && !is_old {
        return Ok(Attempt::Wait { micros: next_at - now });
    }
    let failures = if is_old { 1 } else { row.int("failures")? + 1 };
    let sql = "UPDATE attempts SET failures = ?, next_at = ?, expires_at = ? WHERE name = ?";
    let wait = policy.wait_us(failures);
    tx.execute(sql, args![failures, now + wait, now + policy.forget_after_us.max(wait), name]).await?;
    Ok(Attempt::Allowed)
}

/// Another request added the row first: the next try finds it.
fn is_second(error: &AccessError) -> bool {
    let AccessError::Store(error) = error else { return false };
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_begin_after_the_free_failures_double_and_end_at_the_longest() {
        let policy = AttemptPolicy { free: 3, first_wait_us: 10, longest_wait_us: 100, forget_after_us: 1000 };
        let waits: Vec<_> = (1..=8).map(|failures| policy.wait_us(failures)).collect();
        assert_eq!(waits, [0, 0, 10, 20, 40, 80, 100, 100]);
        assert_eq!(policy.wait_us(i64::MAX), 100);
    }

    #[test]
    fn an_attempt_that_was_not_made_takes_its_own_wait_back_and_no_other() {
        let policy = AttemptPolicy { free: 3, first_wait_us: 10, longest_wait_us: 100, forget_after_us: 1000 };
        // The third of three set the first wait; two are free.
        assert_eq!(policy.without_one(3, 1010, 1000), (2, 1000));
        // A parallel one failed: of four, three stay, and their wait.
        assert_eq!(policy.without_one(4, 1020, 1000), (3, 1010));
        assert_eq!(policy.without_one(0, 0, 1000), (0, 0));
    }
}
