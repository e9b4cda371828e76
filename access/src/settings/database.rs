//! Where the accounts database is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

/// Address and pool of the accounts database.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// Where it is.
    pub address: DatabaseAddress,
    /// Connections of one process to a server. SQLite has one writer and four readers whatever this says.
    pub max_connections: u32,
    /// How long a request waits for a connection before it is told that the server is busy.
    pub acquire_timeout: Duration,
    /// After how long a connection to a server that nobody uses is closed.
    pub idle_timeout: Duration,
    /// After how long a connection to a server is replaced by a new one.
    pub max_lifetime: Duration,
}

impl DatabaseSettings {
    /// The defaults for an address.
    pub fn at(address: DatabaseAddress) -> Self {
        Self {
            address,
            max_connections: 16,
            acquire_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(1800),
        }
    }
}

/// One of the three engines, with what is needed to reach it. Shown without its password.
#[derive(Debug, Clone)]
pub enum DatabaseAddress {
    /// A file; created when absent.
    Sqlite(PathBuf),
    /// A PostgreSQL URL; TLS by `?sslmode=verify-full&sslrootcert=FILE`.
    Postgres(SecretString),
    /// A MySQL or MariaDB URL; TLS by `?ssl-mode=VERIFY_IDENTITY&ssl-ca=FILE`.
    MySql(SecretString),
}

impl FromStr for DatabaseAddress {
    type Err = String;

    /// `postgres://`, `mysql://`, `mariadb://` or `sqlite:FILE`. The error never holds the text: it may be a secret.
    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or(("", ""));
        match scheme {
            "sqlite" if !rest.is_empty() => Ok(Self::Sqlite(rest.trim_start_matches("//").into())),
            "postgres" | "postgresql" if url::Url::parse(text).is_ok() => Ok(Self::Postgres(text.into())),
            "mysql" | "mariadb" if url::Url::parse(text).is_ok() => Ok(Self::MySql(text.into())),
            _ => {
                Err("the database address must be `postgres://USER:PASSWORD@HOST:PORT/NAME`, the same with `mysql://` \
                      or `mariadb://`, or `sqlite:FILE`"
                    .to_owned())
            }
        }
    }
}

impl fmt::Display for DatabaseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = match self {
            Self::Sqlite(file) => return write!(f, "sqlite:{}", file.display()),
            Self::Postgres(url) | Self::MySql(url) => url,
        };
        // Host, port and name only: parameters may hold secrets too.
        match url::Url::parse(url.expose_secret()) {
            Ok(url) => {
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                write!(f, "{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
            }
            Err(_) => f.write_str("unreadable address"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart_and_shown_without_their_secrets() {
        let shown = |text: &str| text.parse::<DatabaseAddress>().map(|address| address.to_string());
        let postgres = shown("postgres://ada:canary@db:5433/karat?sslpassword=canary");
        assert_eq!(postgres.as_deref(), Ok("postgres://db:5433/karat"));
        assert_eq!(shown("mariadb://ada:canary@db/karat").as_deref(), Ok("mariadb://db/karat"));
        assert_eq!(shown("sqlite:///srv/a.db").as_deref(), Ok("sqlite:/srv/a.db"));
        for bad in ["", "oracle://ada:canary@db/x", "postgres", "sqlite:", "postgres:// ada:canary@"] {
            let problem = shown(bad).unwrap_err();
            assert!(!problem.contains("canary"), "{problem}");
        }
        let address: DatabaseAddress = "postgres://ada:canary@db/karat".parse().unwrap();
        assert!(!format!("{address:?}").contains("canary"));
    }
}
