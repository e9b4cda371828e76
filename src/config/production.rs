//! What keeps a process from starting in production: every problem at once, each with what to do.

mod connections;

use std::{os::unix::fs::PermissionsExt, path::Path};

use karat_http::Origins;
use url::Url;

use super::{Origin, Setting, Settings};
use crate::{
    cli::{Environment, InstanceArgs, ServeArgs, secret},
    failure::{Failure, Result},
};

/// Passwords of examples and of fresh installations.
const KNOWN_PASSWORDS: [&str; 12] = [
    "secret",
    "password",
    "passw0rd",
    "changeme",
    "change-me",
    "karat",
    "postgres",
    "mysql",
    "mariadb",
    "root",
    "admin",
    "example",
];

/// Refuses to run a role that serves people while something is not fit for production.
///
/// # Errors
/// Every problem.
pub fn require_fit(arguments: &ServeArgs, is_demo: bool, settings: &Settings) -> Result<()> {
    if arguments.instance.environment != Environment::Production {
        return Ok(());
    }
    let mut problems = of_secrets(settings);
    problems.extend(of_the_server(arguments));
    if is_demo {
        problems.push("`--demo` makes an account whose password it prints".to_owned());
    }
    refuse(problems)
}

/// The same for the role that serves nobody.
///
/// # Errors
/// Every problem.
pub fn require_fit_without_server(arguments: &InstanceArgs, settings: &Settings) -> Result<()> {
    if arguments.environment == Environment::Production { refuse(of_secrets(settings)) } else { Ok(()) }
}

fn refuse(problems: Vec<String>) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let many = if problems.len() == 1 { "one thing is" } else { "some things are" };
    let lines: Vec<String> = problems.iter().map(|problem| format!("- {problem}")).collect();
    Err(Failure::configuration(format!("{many} not fit for `environment = production`:\n{}", lines.join("\n"))))
}

/// Secrets where others can read them, and those that everybody knows.
fn of_secrets(settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    for Setting { key, values, origin, .. } in settings.iter().filter(|setting| setting.is_secret) {
        problems.extend(files_of(values, origin).into_iter().filter_map(|file| open_file(key, file)));
        let is_shown = values.iter().any(|value| holds_secret(key, value));
        match origin {
            Origin::CommandLine if is_shown => problems.push(format!(
                "`{key}` is on the command line, where every user of the machine can read it: put it into the environment \
                 or into a file, which `@FILE` names"
            )),
            Origin::File { is_plain: true, .. } if is_shown => problems.push(format!(
                "`{key}` is a secret in plain text at {origin}: write `{{ env = \"NAME\" }}` or `{{ file = \"PATH\" }}` instead"
            )),
            _ => {}
        }
        for value in values {
            match secret(value) {
                Ok(value) if is_empty(key, &value) => problems.push(format!("the password in `{key}` is empty")),
                Ok(value) if is_known(&value) => {
                    problems.push(format!("the password in `{key}` is one that everybody knows: choose another one"));
                }
                Ok(_) => {}
                Err(failure) => problems.push(format!("`{key}`: {}", failure.message())),
            }
        }
    }
    problems
}

/// The files that the values of a setting were, or will be, read from.
fn files_of<'a>(values: &'a [String], origin: &'a Origin) -> Vec<&'a Path> {
    let named = values.iter().filter(|value| !value.starts_with("@@")).filter_map(|value| value.strip_prefix('@'));
    let mut files: Vec<&Path> = named.map(Path::new).collect();
    if let Origin::File { files: read, .. } = origin {
        files.extend(read.iter().map(|file| file.as_path()));
    }
    files
}

/// Whether there is nothing where the secret of a setting should be.
fn is_empty(key: &str, value: &str) -> bool {
    let end = match key {
        "kafka.properties" => {
            return holds_secret(key, value) && value.split_once('=').is_some_and(|(_, end)| end.is_empty());
        }
        // `NAME=CLIENT_ID:CLIENT_SECRET`, and perhaps an issuer.
        "access.providers" => value.rsplit_once("@http").map_or(value, |(client, _)| client),
        // The standard drops a colon with nothing behind it, and the address would look as if it had none.
        _ if key.ends_with(".url") => value.split_once('@').map_or("x", |(user, _)| user),
        _ => return value.is_empty(),
    };
    end.ends_with(':')
}

/// Whether a value is more than the name of a file, than an address without a password, and than a property of the Kafka client
/// that is none.
fn holds_secret(key: &str, value: &str) -> bool {
    if value.starts_with('@') && !value.starts_with("@@") {
        return false;
    }
    // A key in a file signs there.
    if key == "access.providers" && value.starts_with("apple=") {
        return false;
    }
    if key == "kafka.properties" {
        let name = value.split('=').next().unwrap_or_default();
        return ["password", "secret", "jaas", "key.pem"].iter().any(|part| name.contains(part));
    }
    let is_open = |url: Url| url.password().is_none() && !url.query().is_some_and(|query| query.contains("password"));
    !(key.ends_with(".url") && Url::parse(value).is_ok_and(is_open))
}

/// Whether the password of an address, or what stands last behind a colon or an equals sign, is a known one.
fn is_known(value: &str) -> bool {
    let of_address = Url::parse(value).ok().and_then(|url| url.password().map(str::to_owned));
    let last = || value.rsplit([':', '=']).next().unwrap_or_default().to_owned();
    KNOWN_PASSWORDS.contains(&of_address.unwrap_or_else(last).to_lowercase().as_str())
}

fn of_the_server(arguments: &ServeArgs) -> Vec<String> {
    let access = &arguments.access;
    let mut problems = Vec::new();
    match access.public_url.as_deref().map(Url::parse) {
        Some(Ok(url)) if url.scheme() == "https" => {}
        Some(_) => {
            problems.push("`server.public_url` must begin with `https://`: links in messages carry secrets".to_owned())
        }
        None => problems.push(
            "`server.public_url` is not set: links in messages would lead to the address that this process listens on"
                .to_owned(),
        ),
    }
    if access.allowed_hosts.is_empty() {
        let what = "`server.allowed_hosts` is not set: requests are answered whatever host they name, so that a page of \
                    anybody could call through a name of its own";
        problems.push(what.to_owned());
    }
    if access.tls_certificate.is_none() && !access.behind_tls {
        let what = "passwords and tokens would travel openly: name a certificate with `server.tls_certificate`, or set \
                    `server.behind_tls` where TLS ends in front of this process";
        problems.push(what.to_owned());
    }
    problems.extend(access.tls_key.as_deref().and_then(|file| open_file("server.tls_key", file)));
    problems.extend(connections::problems(access, &arguments.instance.database, &arguments.live));
    match access.origins() {
        Ok(origins) => problems.extend(open_origins(&origins, &access.allowed_origins)),
        Err(_) => problems.push("`server.allowed_origins` has an entry that is no origin; `*` is none".to_owned()),
    }
    if arguments.without_limits {
        problems.push("`--without-limits` lifts the limits on log-in and registration".to_owned());
    }
    problems
}

fn open_origins(origins: &Origins, text: &str) -> Vec<String> {
    let open =
        text.split(',').map(str::trim).filter(|origin| origins.contains(origin) && origin.starts_with("http://"));
    let open = open.map(|origin| {
        format!("`server.allowed_origins` has `{origin}`, which anybody on the way can speak for: use https")
    });
    open.collect()
}

/// A file with a secret that every user of the machine can read or change. What a container is given in `/run/secrets` is
/// seen by nobody else, and is readable by all inside it.
fn open_file(key: &str, file: &Path) -> Option<String> {
    // One that is not there is named where it is read.
    let place = std::fs::canonicalize(file).ok()?;
    let mode = std::fs::metadata(&place).ok()?.permissions().mode();
    let is_open = mode & 0o007 != 0 && !place.starts_with("/run/secrets");
    is_open.then(|| {
        let (file, mode) = (file.display(), mode & 0o777);
        format!("`{key}`: everybody on the machine may read or change `{file}` (mode {mode:o}): run `chmod 600` on it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_from_addresses_names_of_files_and_other_properties() {
        for (key, open) in [
            ("database.url", "@/run/secrets/x"),
            ("database.url", "postgres://karat@db/karat"),
            ("redis.url", "redis://redis:6379"),
            ("mail.url", "smtp://mail:25"),
            ("access.providers", "apple=org.example.web:TEAM:KEY:/run/secrets/apple.p8"),
            ("kafka.properties", "sasl.mechanism=PLAIN"),
        ] {
            assert!(!holds_secret(key, open), "{key} {open}");
        }
        for (key, held) in [
            ("database.url", "postgres://karat:x@db/karat"),
            ("access.providers", "google=id:secret"),
            ("sms.url", "https://AC1:token@api.example.org"),
            ("database.password", "abc"),
            ("database.password", "hunter2:x"),
            ("database.password", "@@at first"),
            ("kafka.properties", "sasl.password=x"),
        ] {
            assert!(holds_secret(key, held), "{key} {held}");
        }
        for known in ["postgres://karat:ChangeMe@db/karat", "admin", "google=id:changeme", "sasl.password=admin"] {
            assert!(is_known(known), "{known}");
        }
        assert!(!is_known("postgres://karat:Rather-Long-41-Phrase@db/karat"));
    }

    #[test]
    fn a_password_that_is_none_is_told_from_one_with_the_same_signs() {
        for (key, empty) in [
            ("database.password", ""),
            ("database.url", "postgres://karat:@db/karat"),
            ("redis.url", "redis://:@cache"),
            ("access.providers", "google=id:"),
            ("access.providers", "own=id:@https://id.example.org"),
            ("kafka.properties", "sasl.password="),
        ] {
            assert!(is_empty(key, empty), "{key} {empty}");
        }
        for (key, given) in [
            ("database.password", ":@"),
            ("database.url", "postgres://karat@db/karat"),
            ("database.url", "postgres://karat:x@db/karat"),
            ("redis.url", "redis://cache:6379"),
            ("access.providers", "own=id:se:@cret@https://id.example.org"),
            ("kafka.properties", "sasl.password=YWI="),
            ("kafka.properties", "sasl.mechanism=PLAIN"),
        ] {
            assert!(!is_empty(key, given), "{key} {given}");
        }
    }

    #[test]
    fn files_that_everybody_may_read_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "x").unwrap();
        for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(open_file("database.password", &file).is_some(), is_open, "{mode:o}");
        }
        assert_eq!(open_file("database.password", &folder.path().join("none")), None);
    }
}
