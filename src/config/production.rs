//! What keeps a process from starting in production: every problem at once, each with what to do.

use karat_http::Origins;
use url::{Host, Url};

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

/// Whether a value is more than the name of a file, than an address without a password, and than a property of the Kafka client
/// that is none.
fn holds_secret(key: &str, value: &str) -> bool {
    if value.starts_with('@') && !value.starts_with("@@") {
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
    match access.smtp.as_deref().map(secret) {
        None => problems.push("`mail.url` is not set: mail, with its secrets, would go into a folder".to_owned()),
        Some(Ok(url)) if is_open_mail(&url) => problems.push(
            "`mail.url` is `smtp://` to another machine, which carries links with secrets openly: use `smtps://`, or add \
             `?tls=required`"
                .to_owned(),
        ),
        Some(_) => {}
    }
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

/// Whether mail goes openly over a network.
fn is_open_mail(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let is_local = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        // An address of a scheme that the standard does not name has its host as text.
        Some(Host::Domain(name)) => matches!(name, "localhost" | "127.0.0.1"),
        None => false,
    };
    url.scheme() == "smtp" && !is_local && !url.query().is_some_and(|query| query.contains("tls=required"))
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
    fn mail_over_a_network_must_be_closed() {
        for open in ["smtp://mail.example.org", "smtp://u:p@10.0.0.7:25"] {
            assert!(is_open_mail(open), "{open}");
        }
        for closed in ["smtps://mail.example.org", "smtp://127.0.0.1:25", "smtp://mail.example.org?tls=required"] {
            assert!(!is_open_mail(closed), "{closed}");
        }
    }
}
