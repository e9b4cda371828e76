//! [`Places`]: how many connections stay open, of each user and in all, and how much a user may send.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use uuid::Uuid;

use super::LiveSettings;

const MINUTE: Duration = Duration::from_secs(60);

/// The places of all connections. What is known of a user is forgotten a minute after the last connection.
pub(super) struct Places {
    connections: usize,
    connections_per_user: usize,
    messages_per_minute: u32,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    connections: usize,
    by_user: HashMap<Uuid, OfUser>,
}

struct OfUser {
    connections: usize,
    messages: u32,
    minute_began: Instant,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    All,
    OfUser,
}

/// One connection; dropping it gives the place back.
pub(super) struct Place {
    places: Arc<Places>,
    user: Uuid,
}

impl Places {
    pub(super) fn new(settings: &LiveSettings) -> Arc<Self> {
        Arc::new(Self {
            connections: settings.connections,
            connections_per_user: settings.connections_per_user,
            messages_per_minute: settings.messages_per_minute,
            taken: Mutex::default(),
        })
    }

    pub(super) fn take(self: &Arc<Self>, user: Uuid) -> Result<Place, Full> {
        let mut taken = self.taken.lock();
        taken.by_user.retain(|_, of| of.connections > 0 || of.minute_began.elapsed() < MINUTE);
        if taken.connections >= self.connections {
            return Err(Full::All);
        }
        let of = taken.by_user.entry(user).or_insert_with(|| OfUser {
            connections: 0,
            messages: 0,
            minute_began: Instant::now(),
        });
        if of.connections >= self.connections_per_user {
            return Err(Full::OfUser);
        }
        of.connections += 1;
        taken.connections += 1;
        drop(taken);
        Ok(Place { places: Arc::clone(self), user })
    }
}

impl Place {
    /// Counts a message of the user; false when it is one too many.
    pub(super) fn count_message(&self) -> bool {
        let mut taken = self.places.taken.lock();
        let Some(of) = taken.by_user.get_mut(&self.user) else { return false };
        if of.minute_began.elapsed() >= MINUTE {
            (of.messages, of.minute_began) = (0, Instant::now());
        }
        of.messages = of.messages.saturating_add(1);
        of.messages <= self.places.messages_per_minute
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.connections = taken.connections.saturating_sub(1);
        if let Some(of) = taken.by_user.get_mut(&self.user) {
            of.connections = of.connections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(connections: usize) -> Arc<Places> {
        let settings =
            LiveSettings { connections, connections_per_user: 2, messages_per_minute: 3, ..Default::default() };
        Places::new(&settings)
    }

    #[test]
    fn places_are_bounded_for_each_user_and_for_all_and_come_back() {
        let places = places(3);
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        let first = places.take(one).unwrap();
        let _second = places.take(one).unwrap();
        assert_eq!(places.take(one).err(), Some(Full::OfUser));
        let _third = places.take(other).unwrap();
        assert_eq!(places.take(other).err(), Some(Full::All));
        drop(first);
        let _again = places.take(one).unwrap();
    }

    #[test]
    fn messages_of_a_user_are_counted_over_all_connections_and_new_ones() {
        let places = places(9);
        let user = Uuid::now_v7();
        let (first, second) = (places.take(user).unwrap(), places.take(user).unwrap());
        assert!(first.count_message() && second.count_message() && first.count_message());
        drop((first, second));
        let again = places.take(user).unwrap();
        assert!(!again.count_message(), "to connect again gives no new minute");
        assert!(places.take(Uuid::now_v7()).unwrap().count_message(), "it is another user");
        places.taken.lock().by_user.get_mut(&user).unwrap().minute_began -= MINUTE;
        assert!(again.count_message());
    }
}
