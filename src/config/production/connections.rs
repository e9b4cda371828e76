//! What goes openly over a network to the services that an instance uses.

use karat_access::DatabaseAddress;
use secrecy::ExposeSecret;
use url::{Host, Url};

use crate::cli::{AccessArgs, DatabaseArgs, LiveArgs, secret};

/// Every connection that others on the way could read, or answer in the place of whom it is for. An address that cannot be
/// read is not judged here: nothing starts with it.
pub(super) fn problems(access: &AccessArgs, database: &DatabaseArgs, live: &LiveArgs) -> Vec<String> {
    let mut problems = Vec::new();
    if database.address().ok().flatten().is_some_and(|address| is_open_database(&address)) {
        problems.push(
            "the accounts database is on another machine, and nobody looks who answers there: add `ssl-mode=verify-full` \
             (PostgreSQL) or `ssl-mode=VERIFY_IDENTITY` (MySQL, MariaDB) to `database.url`, or set `database.tls` to \
             `verify`"
                .to_owned(),
        );
    }
    if access.redis.address().ok().flatten().is_some_and(|url| is_open_redis(url.expose_secret())) {
        problems.push(
            "Redis is on another machine, and its password goes there openly: use `rediss://` in `redis.url`, or set \
             `redis.tls`"
                .to_owned(),
        );
    }
    match access.smtp.as_deref().map(secret) {
        None => problems.push("`mail.url` is not set: mail, with its secrets, would go into a folder".to_owned()),
        Some(Ok(url)) if is_open_mail(&url) => problems.push(
            "`mail.url` is `smtp://` to another machine, which carries links with secrets openly: use `smtps://`, or add \
             `?tls=required`"
                .to_owned(),
        ),
        Some(_) => {}
    }
    if live.chat_url.as_deref().is_some_and(is_open_chat) {
        problems.push(
            "`chat.url` is `http://` to another machine: what people write and the key go there openly; use `https://`"
                .to_owned(),
        );
    }
    let open = access.providers.iter().filter_map(|text| secret(text).ok()).filter(|text| has_open_issuer(text));
    problems.extend(open.map(|text| {
        let name = text.split_once('=').map_or("", |(name, _)| name);
        format!(
            "the provider `{name}` of `access.providers` is at `http://`, where anybody on the way can log in as anybody: \
             use `https://`"
        )
    }));
    problems
}

fn is_open_database(address: &DatabaseAddress) -> bool {
    let (url, verified) = match address {
        DatabaseAddress::Sqlite(_) => return false,
        DatabaseAddress::Postgres(url) => (url, "verify-full"),
        DatabaseAddress::MySql(url) => (url, "verify_identity"),
    };
    let Ok(url) = Url::parse(url.expose_secret()) else { return false };
    // The drivers take these from the query, the last of several.
    let of_query = |names: &[&str]| {
        url.query_pairs().filter(|(name, _)| names.contains(&name.as_ref())).last().map(|(_, value)| value.into_owned())
    };
    let has_socket = match address {
        DatabaseAddress::MySql(_) => of_query(&["socket"]).is_some(),
        _ => url.host_str().is_some_and(|host| host.to_ascii_lowercase().starts_with("%2f")),
    };
    let is_postgres = matches!(address, DatabaseAddress::Postgres(_));
    // Where the address names no host, that of PostgreSQL takes the one of its own variables.
    let elsewhere = is_postgres && ["PGHOST", "PGHOSTADDR"].iter().any(|name| std::env::var_os(name).is_some());
    let is_here = match of_query(&["host", "hostaddr"]).filter(|_| is_postgres) {
        Some(host) => host.starts_with('/') || is_this_machine(&host),
        None if url.host_str().unwrap_or_default().is_empty() => !elsewhere,
        None => has_socket || is_local(&url),
    };
    let mode = of_query(&["sslmode", "ssl-mode"]).unwrap_or_default();
    !is_here && !mode.eq_ignore_ascii_case(verified)
}

/// Without a password, nothing but counts goes there.
fn is_open_redis(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.scheme() == "redis" && url.password().is_some() && !is_local(&url))
}

/// Whether mail goes openly over a network.
fn is_open_mail(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    url.scheme() == "smtp" && !is_local(&url) && !url.query().is_some_and(|query| query.contains("tls=required"))
}

/// Whether a chat goes openly over a network.
fn is_open_chat(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.scheme() == "http" && !is_local(&url))
}

/// Whether `NAME=CLIENT_ID:CLIENT_SECRET@ISSUER` names an issuer without TLS.
fn has_open_issuer(text: &str) -> bool {
    text.rsplit_once("@http").is_some_and(|(_, issuer)| issuer.starts_with("://"))
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        // An address of a scheme that the standard does not name has its host as text.
        Some(Host::Domain(name)) => is_this_machine(name),
        None => false,
    }
}

fn is_this_machine(name: &str) -> bool {
    matches!(name, "localhost" | "127.0.0.1" | "::1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_over_a_network_must_be_closed() {
        for open in ["smtp://mail.example.org", "smtp://u:p@10.0.0.7:25"] {
            assert!(is_open_mail(open), "{open}");
        }
        for closed in ["smtps://mail.example.org", "smtp://127.0.0.1:25", "smtp://mail.example.org?tls=required"] {
            assert!(!is_open_mail(closed), "{closed}");
        }
    }

    #[test]
    fn a_database_on_another_machine_must_be_asked_who_it_is() {
        for open in [
            "postgres://karat:x@db/karat",
            "postgres://karat:x@10.0.0.7/karat?sslmode=require",
            "postgres://karat:x@db/karat?sslmode=verify-ca",
            "postgres://karat:x@db/karat?sslmode=verify-full&sslmode=disable",
            "postgres://karat:x@localhost/karat?host=db",
            "postgres://karat:x@localhost/karat?hostaddr=10.0.0.7",
            "mysql://karat:x@db/karat?ssl-mode=REQUIRED",
            "mariadb://karat:x@db/karat",
        ] {
            assert!(is_open_database(&open.parse().unwrap()), "{open}");
        }
        for closed in [
            "sqlite:/var/lib/karat/accounts.db",
            "postgres://karat:x@db/karat?sslmode=verify-full",
            "postgres://karat:x@db/karat?ssl-mode=VERIFY-FULL&ssl-ca=/etc/ca.pem",
            "postgres:///karat",
            "postgres://karat:x@localhost/karat",
            "postgres://karat:x@[::1]:5433/karat",
            "postgres://karat@%2Fvar%2Frun%2Fpostgresql/karat",
            "postgres://karat@db/karat?host=/var/run/postgresql",
            "mysql://karat:x@127.0.0.1/karat",
            "mysql://karat:x@db/karat?socket=/run/mysqld.sock",
            "mariadb://karat:x@db/karat?ssl-mode=VERIFY_IDENTITY",
        ] {
            assert!(!is_open_database(&closed.parse().unwrap()), "{closed}");
        }
    }

    #[test]
    fn the_password_of_redis_and_log_ins_elsewhere_do_not_travel_openly() {
        assert!(is_open_redis("redis://:x@cache:6379"));
        for closed in ["rediss://:x@cache:6379", "redis://cache:6379", "redis://:x@127.0.0.1"] {
            assert!(!is_open_redis(closed), "{closed}");
        }
        assert!(is_open_chat("http://10.0.0.7:8000"));
        for closed in ["https://api.example.org", "http://127.0.0.1:8000", "http://localhost:8000"] {
            assert!(!is_open_chat(closed), "{closed}");
        }
        assert!(has_open_issuer("own=id:secret@http://id.example.org"));
        for closed in ["own=id:secret@https://id.example.org", "google=id:se@http", "google=id:secret"] {
            assert!(!has_open_issuer(closed), "{closed}");
        }
    }
}
