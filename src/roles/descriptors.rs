//! Open files of this process: how many connections they allow.
//!
//! Systems often start programs with a limit of 1,024 open files and let them raise it. Without that, tables, the accounts
//! database and the log would compete with connections for them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than this is not of use here.
const MOST_FILES: u64 = 65_536;
/// Connections of a server, when there are files enough.
const MOST_CONNECTIONS: u64 = 10_000;

/// Raises the limit of open files where the system allows it, and gives half of them to connections.
pub fn room_for_connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = wanted(limit);
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    let files = match limit.current {
        Some(current) if current < wanted => match setrlimit(Resource::Nofile, raised) {
            Ok(()) => wanted,
            Err(error) => {
                tracing::warn!(%error, limit = current, wanted, "the limit of open files cannot be raised");
                current
            }
        },
        _ => wanted,
    };
    let connections = connections(files);
    tracing::debug!(files, connections, "room for connections");
    usize::try_from(connections).unwrap_or(usize::MAX)
}

/// What the limit should be: what the system allows, as far as that is of use.
fn wanted(limit: Rlimit) -> u64 {
    limit.maximum.map_or(MOST_FILES, |most| most.min(MOST_FILES))
}

fn connections(files: u64) -> u64 {
    (files / 2).clamp(1, MOST_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_files_are_for_connections() {
        assert_eq!(connections(1_024), 512);
        assert_eq!(connections(MOST_FILES), MOST_CONNECTIONS);
        assert_eq!(connections(0), 1, "a server without room for one connection would wait for ever");
    }

    #[test]
    fn the_limit_is_raised_to_what_the_system_allows_and_is_of_use() {
        assert_eq!(wanted(Rlimit { current: Some(1_024), maximum: Some(4_096) }), 4_096);
        assert_eq!(wanted(Rlimit { current: Some(1_024), maximum: Some(1 << 30) }), MOST_FILES);
        assert_eq!(wanted(Rlimit { current: Some(1_024), maximum: None }), MOST_FILES);
        assert!(room_for_connections() >= 1);
    }
}
