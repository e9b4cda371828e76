//! The time of this machine, without its jumps.
//!
//! Times that the log and the tables keep, ages at which something is removed, and the day of a partition of bronze all come
//! from here. A clock that is set to another year while a process runs must not open partitions of that year, drop records as too
//! old, or put every event aside as one of the future. So the time goes on as the monotonic clock says:
//! - corrections of up to a day are followed at once: of NTP, of an operator, of a machine that slept;
//! - a larger jump is not followed until the process is started again, or the clock is set back: see [`jump`].
//!
//! What a process finds at its start is taken as it is. Files get their times from the system and not from here: what goes by
//! their age asks whether the clock was [`steady`].

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The largest correction that is followed.
const FOLLOWED: Duration = Duration::from_secs(24 * 3600);

/// Corrections that nothing has to wait for.
const SMALL: Duration = Duration::from_secs(60);

static CLOCK: LazyLock<Mutex<Clock>> = LazyLock::new(|| Mutex::new(Clock::at(system_us(), Instant::now())));

/// Microseconds since 1970 UTC.
pub fn now_us() -> i64 {
    clock(|clock, system_us, now| clock.read(system_us, now))
}

/// Milliseconds since 1970 UTC.
pub fn now_ms() -> i64 {
    now_us() / 1000
}

/// How far the system's clock is from the time that is kept, in seconds; none while it is followed.
pub fn jump() -> Option<i64> {
    clock(|clock, system_us, now| {
        let us = system_us.saturating_sub(clock.read(system_us, now));
        (us != 0).then_some(us / 1_000_000)
    })
}

/// Whether the system's clock is followed, and was not corrected by more than a minute within this time.
pub fn steady(within: Duration) -> bool {
    clock(|clock, system_us, now| {
        clock.read(system_us, now);
        !clock.is_held && clock.corrected.is_none_or(|at| now.saturating_duration_since(at) >= within)
    })
}

fn clock<T>(read: impl FnOnce(&mut Clock, i64, Instant) -> T) -> T {
    // Whoever panicked left a whole clock.
    let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    read(&mut clock, system_us(), Instant::now())
}

fn system_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A time, and when it was that.
struct Clock {
    us: i64,
    at: Instant,
    /// Whether the system's clock is not followed.
    is_held: bool,
    /// When more than a little was corrected.
    corrected: Option<Instant>,
}

impl Clock {
    fn at(us: i64, at: Instant) -> Self {
        Self { us, at, is_held: false, corrected: None }
    }

    fn read(&mut self, system_us: i64, now: Instant) -> i64 {
        let passed = i64::try_from(now.saturating_duration_since(self.at).as_micros()).unwrap_or(i64::MAX);
        let expected = self.us.saturating_add(passed);
        let off = u128::from(system_us.abs_diff(expected));
        let is_held = off > FOLLOWED.as_micros();
        if off > SMALL.as_micros() || is_held != self.is_held {
            self.corrected = Some(now);
        }
        (self.us, self.at, self.is_held) = (if is_held { expected } else { system_us }, now.max(self.at), is_held);
        self.us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    #[test]
    fn small_corrections_are_followed_and_jumps_are_not() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut clock = Clock::at(1_000 * HOUR_US, began);
        assert_eq!(clock.read(1_002 * HOUR_US, after(1)), 1_002 * HOUR_US);
        assert_eq!(clock.read(990 * HOUR_US, after(2)), 990 * HOUR_US);
        // To another year, and to 1970.
        for jumped in [600_000 * HOUR_US, 0] {
            assert_eq!(clock.read(jumped, after(2)), 990 * HOUR_US);
        }
        assert_eq!(clock.read(600_000 * HOUR_US, after(3602)), 991 * HOUR_US);
        // Set right again.
        assert_eq!(clock.read(991 * HOUR_US + 5, after(3602)), 991 * HOUR_US + 5);
    }

    #[test]
    fn the_clock_of_this_machine_is_followed() {
        assert!(system_us().abs_diff(now_us()) < 60_000_000);
        assert_eq!(jump(), None);
        assert!(steady(Duration::from_secs(3600)));
    }
}
