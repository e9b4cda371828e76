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
    let mut problems = of_secrets(settings)?;
    problems.extend(of_the_server(arguments)?);
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
    if arguments.environment == Environment::Production { refuse(of_secrets(settings)?) } else { Ok(()) }
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
fn of_secrets(settings: &Settings) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for Setting { key, value, origin, .. } in settings.iter().filter(|setting| setting.is_secret) {
        let Some(value) = value else { continue };
        match origin {
            _ if !holds_secret(value) => {}
            Origin::CommandLine => problems.push(format!(
                "`{key}` is on the command line, where every user of the machine can read it: put it into the environment \
                 or into a file, which `@FILE` names"
            )),
            Origin::File { is_plain: true, .. } => problems.push(format!(
                "`{key}` is a secret in plain text at {origin}: write `{{ env = \"NAME\" }}` or `{{ file = \"PATH\" }}` instead"
            )),
            _ => {}
        }
        if is_known(&secret(value)?) {
            problems.push(format!("the password in `{key}` is one that everybody knows: choose another one"));
        }
    }
    Ok(problems)
}

/// Whether a value is more than the name of a file, and than an address without a password.
fn holds_secret(value: &str) -> bool {
    let is_open = |url: Url| url.password().is_none() && !url.query().is_some_and(|query| query.contains("password"));
    !value.starts_with('@') && !Url::parse(value).is_ok_and(is_open)
}

fn is_known(value: &str) -> bool {
    let password = Url::parse(value).ok().and_then(|url| url.password().map(str::to_lowercase));
    KNOWN_PASSWORDS.contains(&password.unwrap_or_else(|| value.to_lowercase()).as_str())
}

fn of_the_server(arguments: &ServeArgs) -> Result<Vec<String>> {
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
    match access.smtp.as_deref().map(secret).transpose()? {
        None => problems.push("`mail.url` is not set: mail, with its secrets, would go into a folder".to_owned()),
        Some(url) if is_open_mail(&url) => problems.push(
            "`mail.url` is `smtp://` to another machine, which carries links with secrets openly: use `smtps://`, or add \
             `?tls=required`"
                .to_owned(),
        ),
        Some(_) => {}
    }
    problems.extend(open_origins(&access.origins()?, &access.allowed_origins));
    if arguments.without_limits {
        problems.push("`--without-limits` lifts the limits on log-in and registration".to_owned());
    }
    Ok(problems)
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
    fn secrets_are_told_from_addresses_and_names_of_files() {
        for open in ["@/run/secrets/x", "postgres://karat@db/karat", "redis://redis:6379", "smtp://mail:25"] {
            assert!(!holds_secret(open), "{open}");
        }
        for held in ["postgres://karat:x@db/karat", "google=id:secret", "https://AC1:token@api.example.org", "abc"] {
            assert!(holds_secret(held), "{held}");
        }
        assert!(is_known("postgres://karat:ChangeMe@db/karat") && is_known("admin"));
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
