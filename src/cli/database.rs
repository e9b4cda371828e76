//! Where the accounts database and Redis are: one address, or its parts.

use std::time::Duration;

use clap::{Args, ValueEnum};
use karat_access::{DatabaseAddress, DatabaseSettings};
use secrecy::SecretString;
use url::Url;

use super::secret;
use crate::failure::{Failure, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    Postgres,
    Mysql,
    Mariadb,
}

/// How connections to the database are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DatabaseTls {
    /// Not at all.
    Off,
    /// By TLS, with whoever answers.
    Required,
    /// By TLS, with a server whose certificate and name are right.
    Verify,
}

impl DatabaseTls {
    /// `ssl-mode` in an address, as each engine calls it.
    fn mode(self, engine: Engine) -> &'static str {
        match (engine, self) {
            (Engine::Postgres, Self::Off) => "disable",
            (Engine::Postgres, Self::Required) => "require",
            (Engine::Postgres, Self::Verify) => "verify-full",
            (_, Self::Off) => "DISABLED",
            (_, Self::Required) => "REQUIRED",
            (_, Self::Verify) => "VERIFY_IDENTITY",
        }
    }
}

/// The accounts database.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Accounts database")]
pub struct DatabaseArgs {
    /// The accounts database, postgres://, mysql:// or mariadb://; SQLite in the data folder when absent. @FILE reads
    /// the address from a file.
    #[arg(
        long = "database",
        id = "database",
        env = "KARAT__DATABASE__URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub url: Option<String>,
    /// Its engine, when the address is given in parts.
    #[arg(long = "database-engine", id = "database_engine", env = "KARAT__DATABASE__ENGINE", value_enum)]
    pub engine: Option<Engine>,
    /// Its host, when the address is given in parts.
    #[arg(long = "database-host", id = "database_host", env = "KARAT__DATABASE__HOST")]
    pub host: Option<String>,
    /// Its port; the usual one of the engine when absent.
    #[arg(long = "database-port", id = "database_port", env = "KARAT__DATABASE__PORT")]
    pub port: Option<u16>,
    /// The user.
    #[arg(long = "database-user", id = "database_user", env = "KARAT__DATABASE__USER")]
    pub user: Option<String>,
    /// The user's password, or @FILE.
    #[arg(
        long = "database-password",
        id = "database_password",
        env = "KARAT__DATABASE__PASSWORD",
        hide_env_values = true
    )]
    pub password: Option<String>,
    /// Name of the database.
    #[arg(long = "database-name", id = "database_name", env = "KARAT__DATABASE__NAME")]
    pub name: Option<String>,
    /// How connections are protected, when the address is given in parts; as the server likes it when absent.
    #[arg(long = "database-tls", id = "database_tls", env = "KARAT__DATABASE__TLS", value_enum)]
    pub tls: Option<DatabaseTls>,
    /// Who vouches for the server's certificate, PEM, when the address is given in parts; the authorities of the web when
    /// absent.
    #[arg(long = "database-ca", id = "database_ca", env = "KARAT__DATABASE__CA", value_name = "FILE")]
    pub ca: Option<String>,
    /// Connections of this process to the database server.
    #[arg(
        long = "database-connections",
        id = "database_connections",
        env = "KARAT__DATABASE__CONNECTIONS",
        default_value_t = 16
    )]
    pub connections: u32,
    /// How long a request waits for a connection, in seconds.
    #[arg(
        long = "database-wait",
        id = "database_wait",
        env = "KARAT__DATABASE__WAIT",
        value_name = "SECONDS",
        default_value_t = 10
    )]
    pub wait: u64,
    /// After how long a connection that nobody uses is closed, in seconds.
    #[arg(
        long = "database-idle",
        id = "database_idle",
        env = "KARAT__DATABASE__IDLE",
        value_name = "SECONDS",
        default_value_t = 600
    )]
    pub idle: u64,
    /// After how long a connection is replaced by a new one, in seconds.
    #[arg(
        long = "database-lifetime",
        id = "database_lifetime",
        env = "KARAT__DATABASE__LIFETIME",
        value_name = "SECONDS",
        default_value_t = 1800
    )]
    pub lifetime: u64,
}

impl DatabaseArgs {
    /// The settings, where a server is named; none for SQLite in the data folder.
    ///
    /// # Errors
    /// The address does not parse, is given twice, or lacks a part.
    pub fn address(&self) -> Result<Option<DatabaseAddress>> {
        let has_parts = self.engine.is_some()
            || self.host.is_some()
            || self.port.is_some()
            || self.user.is_some()
            || self.password.is_some()
            || self.name.is_some()
            || self.tls.is_some()
            || self.ca.is_some();
        let text = match (&self.url, has_parts) {
            (None, false) => return Ok(None),
            (Some(_), true) => {
                let what =
                    "`database.url` and a part of it, such as `database.host`, are both set: keep one of the two";
                return Err(Failure::configuration(what));
            }
            (Some(url), false) => secret(url)?,
            (None, true) => self.joined_parts()?,
        };
        text.parse().map(Some).map_err(Failure::configuration)
    }

    /// Puts how connections are kept into the settings.
    pub fn pool(&self, settings: &mut DatabaseSettings) {
        settings.max_connections = self.connections.max(1);
        settings.acquire_timeout = Duration::from_secs(self.wait.max(1));
        settings.idle_timeout = Duration::from_secs(self.idle.max(1));
        settings.max_lifetime = Duration::from_secs(self.lifetime.max(1));
    }

    fn joined_parts(&self) -> Result<String> {
        let missing =
            |name: &str| Failure::configuration(format!("`database.{name}` is missing: the address is given in parts"));
        let engine = self.engine.ok_or_else(|| missing("engine"))?;
        let scheme = match engine {
            Engine::Postgres => "postgres",
            Engine::Mysql => "mysql",
            Engine::Mariadb => "mariadb",
        };
        let host = self.host.as_deref().ok_or_else(|| missing("host"))?;
        let name = self.name.as_deref().ok_or_else(|| missing("name"))?;
        let password = self.password.as_deref().map(secret).transpose()?;
        let parts = Parts {
            scheme,
            host,
            port: self.port,
            user: self.user.as_deref(),
            password: password.as_deref(),
            path: name,
            query: [("ssl-mode", self.tls.map(|tls| tls.mode(engine))), ("ssl-ca", self.ca.as_deref())],
        };
        parts.url().ok_or_else(|| Failure::configuration("`database.host` is no host name"))
    }
}

/// Redis, for limits that several processes share.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis")]
pub struct RedisArgs {
    /// A Redis server, redis:// or rediss://, so that several processes share limits; or @FILE.
    #[arg(long = "redis", id = "redis", env = "KARAT__REDIS__URL", hide_env_values = true, value_name = "URL")]
    pub url: Option<String>,
    /// Its host, when the address is given in parts.
    #[arg(long = "redis-host", id = "redis_host", env = "KARAT__REDIS__HOST")]
    pub host: Option<String>,
    /// Its port, 6379 when absent.
    #[arg(long = "redis-port", id = "redis_port", env = "KARAT__REDIS__PORT")]
    pub port: Option<u16>,
    /// The user.
    #[arg(long = "redis-user", id = "redis_user", env = "KARAT__REDIS__USER")]
    pub user: Option<String>,
    /// The password, or @FILE.
    #[arg(long = "redis-password", id = "redis_password", env = "KARAT__REDIS__PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
    /// Number of the database, 0 when absent.
    #[arg(long = "redis-name", id = "redis_name", env = "KARAT__REDIS__NAME", value_name = "NUMBER")]
    pub name: Option<u16>,
    /// TLS to it, when the address is given in parts; an address says so with rediss://.
    #[arg(
        long = "redis-tls",
        id = "redis_tls",
        env = "KARAT__REDIS__TLS",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value_t = false,
        hide_default_value = true,
        action = clap::ArgAction::Set
    )]
    pub tls: bool,
}

impl RedisArgs {
    /// The address, when one is given.
    ///
    /// # Errors
    /// It is given twice, or lacks a part.
    pub fn address(&self) -> Result<Option<SecretString>> {
        let has_parts =
            self.port.is_some() || self.user.is_some() || self.password.is_some() || self.name.is_some() || self.tls;
        match (&self.url, &self.host) {
            (None, None) if has_parts => {
                Err(Failure::configuration("`redis.host` is missing: the address is given in parts"))
            }
            (None, None) => Ok(None),
            (Some(url), None) if !has_parts => Ok(Some(secret(url)?.into())),
            (Some(_), _) => {
                let what = "`redis.url` and a part of it, such as `redis.host`, are both set: keep one of the two";
                Err(Failure::configuration(what))
            }
            (None, Some(host)) => {
                let password = self.password.as_deref().map(secret).transpose()?;
                let path = self.name.map(|name| name.to_string()).unwrap_or_default();
                let (user, password) = (self.user.as_deref(), password.as_deref());
                let scheme = if self.tls { "rediss" } else { "redis" };
                let query = [("", None), ("", None)];
                let parts = Parts { scheme, host, port: self.port, user, password, path: &path, query };
                let url = parts.url().ok_or_else(|| Failure::configuration("`redis.host` is no host name"))?;
                Ok(Some(url.into()))
            }
        }
    }
}

/// An address before it is put together; what has a meaning in addresses is escaped then.
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
    user: Option<&'a str>,
    password: Option<&'a str>,
    path: &'a str,
    /// Those that have a value.
    query: [(&'a str, Option<&'a str>); 2],
}

impl Parts<'_> {
    fn url(&self) -> Option<String> {
        let mut url = Url::parse(&format!("{}://host", self.scheme)).ok()?;
        // Of a name with a port the port would be dropped in silence.
        let is_host = self.host.starts_with('[') || !self.host.contains(':');
        url.set_host(Some(self.host).filter(|_| is_host)).ok().filter(|()| is_host)?;
        url.set_port(self.port).ok()?;
        // The standard leaves a percent sign as it is, and whoever reads the address would decode what follows.
        let escaped = |text: &str| text.replace('%', "%25");
        url.set_username(&escaped(self.user.unwrap_or_default())).ok()?;
        url.set_password(self.password.map(escaped).as_deref()).ok()?;
        url.path_segments_mut().ok()?.push(self.path);
        for (name, value) in self.query {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        Some(url.into())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use secrecy::ExposeSecret;

    use super::*;

    #[derive(Parser)]
    struct Both {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        redis: RedisArgs,
    }

    fn parsed(words: &str) -> Both {
        Both::parse_from(["karat"].into_iter().chain(words.split_whitespace()))
    }

    #[test]
    fn parts_make_the_address_that_one_would_write_escaped() {
        let words = "--database-engine postgres --database-host db --database-port 5433 --database-user a@b \
                     --database-password p:/@?#% --database-name karat";
        let Some(DatabaseAddress::Postgres(url)) = parsed(words).database.address().unwrap() else {
            panic!("PostgreSQL was named");
        };
        let url = Url::parse(url.expose_secret()).unwrap();
        assert_eq!((url.host_str(), url.port(), url.path()), (Some("db"), Some(5433), "/karat"));
        assert_eq!((url.username(), url.password()), ("a%40b", Some("p%3A%2F%40%3F%23%25")));
        let redis = parsed("--redis-host ::1 --redis-password s3:cret --redis-name 4").redis.address();
        assert!(redis.is_err(), "an IPv6 address is in brackets");
        assert!(parsed("--redis-host redis:6380").redis.address().is_err(), "a port is a part of its own");
        let redis = parsed("--redis-host [::1] --redis-password s3:cret --redis-name 4").redis.address().unwrap();
        assert_eq!(redis.unwrap().expose_secret(), "redis://:s3%3Acret@[::1]/4");
        let redis = parsed("--redis-host cache --redis-tls").redis.address().unwrap();
        assert_eq!(redis.unwrap().expose_secret().trim_end_matches('/'), "rediss://cache");
    }

    #[test]
    fn how_connections_are_protected_is_a_part_too_in_the_words_of_each_engine() {
        for (engine, tls, mode) in [
            ("postgres", "off", "disable"),
            ("postgres", "required", "require"),
            ("postgres", "verify", "verify-full"),
            ("mysql", "off", "DISABLED"),
            ("mysql", "required", "REQUIRED"),
            ("mariadb", "verify", "VERIFY_IDENTITY"),
        ] {
            let words = format!(
                "--database-engine {engine} --database-host db --database-name karat --database-tls {tls} \
                 --database-ca /etc/a&b.pem"
            );
            let url = match parsed(&words).database.address().unwrap() {
                Some(DatabaseAddress::Postgres(url) | DatabaseAddress::MySql(url)) => url,
                other => panic!("{other:?}"),
            };
            let url = Url::parse(url.expose_secret()).unwrap();
            let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
            let expected = [("ssl-mode", mode), ("ssl-ca", "/etc/a&b.pem")];
            assert_eq!(query, expected.map(|(name, value)| (name.to_owned(), value.to_owned())), "{engine} {tls}");
        }
    }

    #[test]
    fn an_address_given_twice_or_in_part_is_refused() {
        for words in [
            "--database postgres://u:canary@db/x --database-host db",
            "--database-password canary",
            "--database-engine mysql --database-host db",
            "--redis redis://:canary@h --redis-port 1",
            "--redis-password canary",
            "--database postgres://u:canary@db/x --database-tls verify",
            "--redis redis://:canary@h --redis-tls",
            "--redis-tls",
        ] {
            let both = parsed(words);
            let said = format!("{:?} {:?}", both.database.address(), both.redis.address());
            assert!(said.contains("Err(") && !said.contains("canary"), "{words}: {said}");
        }
        assert!(parsed("").database.address().unwrap().is_none() && parsed("").redis.address().unwrap().is_none());
    }
}
