//! How accounts work and who may reach the server, on the command line and in the environment.

use std::{path::PathBuf, sync::Arc};

use clap::{Args, ValueEnum};
use karat_access::{
    AccessSettings, ConsentRule, MailSettings, PasswordRules, ProviderKind, ProviderSettings, SmsCaps, SmsSettings,
};
use karat_api::auth::ExperienceRules;
use karat_http::{HardenSettings, Origins, ServeSettings, Tls, TrustedProxies};

use super::{Environment, RedisArgs};
use crate::failure::{Failure, Result};

/// What consent decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ConsentNeed {
    /// Nothing: it is kept.
    #[default]
    Optional,
    /// Events are taken only of those who have given it.
    Required,
}

/// Values that are secret may be `@FILE`, which reads them from a file.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Accounts and access")]
pub struct AccessArgs {
    /// Where people reach this instance: what links in messages begin with. The address it listens on when absent.
    #[arg(long, env = "KARAT__SERVER__PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Asks for a confirmed e-mail address before the first log-in; so it is in staging and production when absent.
    #[arg(
        long,
        env = "KARAT__ACCESS__EMAIL_VERIFICATION",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub email_verification: Option<bool>,
    /// Nobody registers by themselves.
    #[arg(
        long,
        env = "KARAT__ACCESS__REGISTRATION_CLOSED",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value_t = false,
        hide_default_value = true,
        action = clap::ArgAction::Set
    )]
    pub registration_closed: bool,
    /// Whether events are taken without the consent of the credential's owner.
    #[arg(long, env = "KARAT__ACCESS__CONSENT", value_enum, default_value_t)]
    pub consent: ConsentNeed,
    /// The version of the text of consent that is in force; needed where consent is required.
    #[arg(long, env = "KARAT__ACCESS__CONSENT_VERSION", value_name = "VERSION")]
    pub consent_version: Option<String>,
    /// Passwords of 15 characters of any kind, or 8 beside a second factor (NIST SP 800-63B-4), instead of 8 of four kinds.
    #[arg(
        long,
        env = "KARAT__ACCESS__LONG_PASSWORDS",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value_t = false,
        hide_default_value = true,
        action = clap::ArgAction::Set
    )]
    pub long_passwords: bool,
    /// The mail server, smtp:// or smtps://, or @FILE; mail goes into `outbox` of the data folder when absent.
    #[arg(long, env = "KARAT__MAIL__URL", hide_env_values = true, value_name = "URL")]
    pub smtp: Option<String>,
    /// The sender of mail, such as `Karat <karat@example.org>`.
    #[arg(long, env = "KARAT__MAIL__FROM", value_name = "ADDRESS")]
    pub mail_from: Option<String>,
    /// A service for text messages, https://ACCOUNT:TOKEN@HOST, or @FILE; the log when absent.
    #[arg(long, env = "KARAT__SMS__URL", hide_env_values = true, value_name = "URL")]
    pub sms: Option<String>,
    /// The sender of text messages, in E.164.
    #[arg(long, env = "KARAT__SMS__FROM", value_name = "NUMBER")]
    pub sms_from: Option<String>,
    /// Text messages that leave in an hour, to all numbers together.
    #[arg(long, env = "KARAT__SMS__PER_HOUR", value_name = "NUMBER", default_value_t = SmsCaps::default().per_hour, value_parser = clap::value_parser!(u32).range(1..))]
    pub sms_per_hour: u32,
    /// Text messages that leave in an hour, to the numbers of one country.
    #[arg(long, env = "KARAT__SMS__PER_COUNTRY_HOUR", value_name = "NUMBER", default_value_t = SmsCaps::default().per_country_hour, value_parser = clap::value_parser!(u32).range(1..))]
    pub sms_per_country_hour: u32,
    /// A provider to log in through, NAME=CLIENT_ID:CLIENT_SECRET or @FILE; google, facebook and github are known, Apple
    /// is apple=CLIENT_ID:TEAM_ID:KEY_ID:KEY_FILE, any other NAME=CLIENT_ID:CLIENT_SECRET@ISSUER. May be repeated.
    #[arg(long = "provider", env = "KARAT__ACCESS__PROVIDERS", hide_env_values = true, value_delimiter = ';')]
    pub providers: Vec<String>,
    /// Proxies whose X-Forwarded-For is believed: addresses and networks with commas between.
    #[arg(long, env = "KARAT__SERVER__TRUSTED_PROXIES", default_value = "", hide_default_value = true)]
    pub trusted_proxies: String,
    /// Open connections of one client network (an IPv4 address, a /64 of IPv6) at a time; those of trusted proxies are not
    /// counted.
    #[arg(
        long,
        env = "KARAT__SERVER__CONNECTIONS_PER_NETWORK",
        value_name = "NUMBER",
        default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub connections_per_network: u32,
    /// Origins of pages on other hosts that may call, with commas between.
    #[arg(long, env = "KARAT__SERVER__ALLOWED_ORIGINS", default_value = "", hide_default_value = true)]
    pub allowed_origins: String,
    /// Host names that are answered; all when absent. May be repeated.
    #[arg(long = "allowed-host", env = "KARAT__SERVER__ALLOWED_HOSTS", value_delimiter = ',')]
    pub allowed_hosts: Vec<String>,
    /// Where pictures of accounts are when it is not `avatars` in the data folder: a folder, or s3://BUCKET/PREFIX, which is
    /// reached as the lake.
    #[arg(long, env = "KARAT__ACCESS__AVATARS", value_name = "LOCATION")]
    pub avatars: Option<String>,
    /// A scanner for uploaded pictures that speaks clamd's protocol.
    #[arg(long, env = "KARAT__ACCESS__SCANNER", value_name = "HOST:PORT")]
    pub scanner: Option<String>,
    /// The certificate of this server with those that vouch for it, PEM: connections are then TLS 1.3. Read again when it
    /// changes.
    #[arg(long, env = "KARAT__SERVER__TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// The key of the certificate, PEM.
    #[arg(long, env = "KARAT__SERVER__TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Experience that a completed run gives its user.
    #[arg(long, env = "KARAT__ACCESS__EXP_COMPLETED_RUN", value_name = "POINTS", default_value_t = 10)]
    pub exp_completed_run: u32,
    /// Experience that each day after a day gives, both with a completed run.
    #[arg(long, env = "KARAT__ACCESS__EXP_STREAK_DAY", value_name = "POINTS", default_value_t = 5)]
    pub exp_streak_day: u32,
    /// Experience at which level 2 begins; level n begins at (n - 1)² times as much.
    #[arg(long, env = "KARAT__ACCESS__EXP_LEVEL", value_name = "POINTS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub exp_level: u32,
    /// TLS ends in front of this process: answers tell browsers to stay with it.
    #[arg(
        long,
        env = "KARAT__SERVER__BEHIND_TLS",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value_t = false,
        hide_default_value = true,
        action = clap::ArgAction::Set
    )]
    pub behind_tls: bool,
    #[command(flatten)]
    pub redis: RedisArgs,
}

impl AccessArgs {
    /// Puts the arguments into the settings of the accounts. `url` is where the server listens.
    pub fn apply(&self, settings: &mut AccessSettings, environment: Environment, url: &str) -> Result<()> {
        let is_for_people = matches!(environment, Environment::Staging | Environment::Production);
        settings.public_url = self.public_url.clone().unwrap_or_else(|| url.to_owned());
        settings.email_verification = self.email_verification.unwrap_or(is_for_people);
        settings.registration_open = !self.registration_closed;
        settings.consent = ConsentRule::new(self.requires_consent(), self.consent_version.as_deref())
            .map_err(|problem| Failure::configuration(format!("`access.consent_version` {problem}")))?;
        if self.long_passwords {
            settings.password_rules = PasswordRules::Long;
        }
        match (&self.smtp, &self.mail_from) {
            (Some(url), Some(from)) => {
                settings.mail = MailSettings::Smtp { url: secret(url)?.into(), from: from.clone() };
            }
            (Some(_), None) => return Err(Failure::configuration("`mail.url` needs `mail.from`, the sender of mail")),
            (None, _) => {}
        }
        match (&self.sms, &self.sms_from) {
            (Some(url), Some(from)) => settings.sms = sms(&secret(url)?, from)?,
            (Some(_), None) => return Err(Failure::configuration("`sms.url` needs `sms.from`, the sender's number")),
            // Codes in a log are for development.
            (None, _) if is_for_people => settings.sms = SmsSettings::Off,
            (None, _) => {}
        }
        settings.sms_caps = SmsCaps { per_hour: self.sms_per_hour, per_country_hour: self.sms_per_country_hour };
        settings.providers = self.providers.iter().map(|text| provider(&secret(text)?)).collect::<Result<_>>()?;
        Ok(())
    }

    /// Whether events are refused without consent.
    pub fn requires_consent(&self) -> bool {
        self.consent == ConsentNeed::Required
    }

    /// Puts the arguments into the settings of the server.
    pub fn harden(&self, settings: &mut HardenSettings) -> Result<()> {
        settings.behind_tls = self.behind_tls;
        settings.trusted_proxies = self.trusted()?;
        settings.origins = self.origins()?;
        settings.allowed_hosts.clone_from(&self.allowed_hosts);
        Ok(())
    }

    /// How connections are taken, of which there may be `max_connections`.
    pub fn serving(&self, max_connections: usize) -> Result<ServeSettings> {
        Ok(ServeSettings {
            tls: self.tls()?,
            trusted_proxies: self.trusted()?,
            max_connections,
            max_connections_per_network: usize::try_from(self.connections_per_network).unwrap_or(usize::MAX),
            ..ServeSettings::default()
        })
    }

    fn trusted(&self) -> Result<TrustedProxies> {
        self.trusted_proxies.parse().map_err(|e| Failure::configuration(format!("--trusted-proxies: {e}")))
    }

    /// What gives experience.
    pub fn experience(&self) -> ExperienceRules {
        ExperienceRules {
            completed_run: self.exp_completed_run,
            streak_day: self.exp_streak_day,
            level: self.exp_level,
        }
    }

    /// The certificate to serve with, when one is named.
    fn tls(&self) -> Result<Option<Arc<Tls>>> {
        match (&self.tls_certificate, &self.tls_key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let read = Tls::from_files(certificate, key);
                Ok(Some(Arc::new(read.map_err(|error| Failure::configuration(format!("TLS: {error}")))?)))
            }
            _ => Err(Failure::configuration("`server.tls_certificate` and `server.tls_key` go together")),
        }
    }

    pub fn origins(&self) -> Result<Origins> {
        self.allowed_origins.parse().map_err(|e| Failure::configuration(format!("--allowed-origins: {e}")))
    }
}

/// The value, or what the file holds that it names. `@@` stands for an `@` with which the value itself begins.
pub fn secret(text: &str) -> Result<String> {
    if let Some(rest) = text.strip_prefix("@@") {
        return Ok(format!("@{rest}"));
    }
    let Some(file) = text.strip_prefix('@') else { return Ok(text.to_owned()) };
    let read = std::fs::read_to_string(file).map_err(|error| Failure::configuration(format!("`{file}`: {error}")))?;
    Ok(read.trim().to_owned())
}

fn sms(text: &str, from: &str) -> Result<SmsSettings> {
    let wrong = || Failure::configuration("--sms must be `https://ACCOUNT:TOKEN@HOST`");
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let (account, rest) = rest.split_once(':').ok_or_else(wrong)?;
    let (token, host) = rest.rsplit_once('@').ok_or_else(wrong)?;
    Ok(SmsSettings::Http {
        base_url: format!("{scheme}://{host}"),
        account: account.to_owned(),
        token: token.to_owned().into(),
        from: from.to_owned(),
    })
}

fn provider(text: &str) -> Result<ProviderSettings> {
    // Not the text itself: it holds a secret.
    let wrong = || {
        Failure::configuration(
            "--provider must be `NAME=CLIENT_ID:CLIENT_SECRET`, with `@ISSUER` for one that is not known by name, or \
             `apple=CLIENT_ID:TEAM_ID:KEY_ID:KEY_FILE`",
        )
    };
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    if name == "apple" {
        return apple(rest).ok_or_else(wrong);
    }
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let (client, issuer) = match rest.rsplit_once("@http") {
        Some((client, issuer)) => (client, Some(format!("http{issuer}"))),
        None => (rest, None),
    };
    let (id, client_secret) = client.split_once(':').ok_or_else(wrong)?;
    let kind = issuer.map(|issuer| ProviderKind::Oidc { issuer }).or_else(|| ProviderKind::named(name));
    let kind = kind.filter(|_| is_name).ok_or_else(wrong)?;
    Ok(ProviderSettings {
        name: name.to_owned(),
        kind,
        client_id: id.to_owned(),
        client_secret: client_secret.to_owned().into(),
    })
}

/// Apple has no secret: a key in a file signs for us.
fn apple(text: &str) -> Option<ProviderSettings> {
    let parts: Vec<&str> = text.splitn(4, ':').collect();
    let [client_id, team_id, key_id, file] = parts[..] else { return None };
    let is_whole = parts.iter().all(|part| !part.is_empty());
    is_whole.then(|| ProviderSettings {
        name: "apple".to_owned(),
        kind: ProviderKind::apple(team_id, key_id, file.into()),
        client_id: client_id.to_owned(),
        client_secret: String::new().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_known_by_name_or_by_issuer_and_errors_keep_the_secret() {
        let google = provider("google=id:secret").unwrap();
        assert_eq!(google.kind, ProviderKind::named("google").unwrap());
        let own = provider("own=id:se@cret@https://id.example.org").unwrap();
        assert_eq!(own.kind, ProviderKind::Oidc { issuer: "https://id.example.org".to_owned() });
        assert_eq!(provider("facebook=id:secret").unwrap().kind, ProviderKind::named("facebook").unwrap());
        let apple = provider("apple=org.example.web:TEAM:KEY:/keys/a:b.p8").unwrap();
        assert_eq!(apple.kind, ProviderKind::apple("TEAM", "KEY", "/keys/a:b.p8".into()));
        assert_eq!((apple.name.as_str(), apple.client_id.as_str()), ("apple", "org.example.web"));
        for bad in [
            "canary",
            "own=id:canary",
            "=id:canary@https://x.org",
            "a/b=id:canary@https://x.org",
            "apple=id:canary",
            "apple=id:canary@https://x.org",
            "apple=id:TEAM:canary:",
        ] {
            let failure = format!("{:?}", provider(bad).unwrap_err());
            assert!(!failure.contains("canary"), "{failure}");
        }
    }

    #[test]
    fn the_example_of_the_environment_names_every_setting_of_a_server() {
        let example = include_str!("../../.env.example");
        let command = <crate::cli::Cli as clap::CommandFactory>::command();
        let up = command.find_subcommand("up").unwrap();
        let names: Vec<_> = up.get_arguments().filter_map(|argument| argument.get_env()).collect();
        assert!(names.len() > 15, "{names:?}");
        for name in names {
            let line = format!("\n#{}=", name.to_str().unwrap());
            assert!(example.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_service_for_text_messages_is_one_address() {
        let SmsSettings::Http { base_url, account, .. } = sms("https://AC1:to:ken@api.example.org", "+1").unwrap()
        else {
            panic!("an HTTP service was named");
        };
        assert_eq!((base_url.as_str(), account.as_str()), ("https://api.example.org", "AC1"));
        assert!(sms("https://api.example.org", "+1").is_err());
    }
}
