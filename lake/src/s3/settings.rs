//! How buckets are reached: the variables that every program for S3 reads.
//!
//! `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN` may be `@FILE`, as every secret of Karat. Roles of
//! machines, containers and web identities work as `object_store` reads their variables.

use object_store::{
    Error, Result,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    client::ClientConfigKey,
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

const SECRETS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
/// Who asks, without a key: one of these is enough.
const OTHER_CREDENTIALS: [&str; 4] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
];

/// Variables whose names begin with `AWS_`. Their values are never printed.
#[derive(Debug, Clone, Default)]
pub struct S3Settings(Vec<(String, SecretString)>);

impl S3Settings {
    /// What the environment of the process says.
    pub fn from_environment() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::from_variables(std::env::vars_os().filter_map(text))
    }

    /// The same from pairs of a name and a value; names that do not begin with `AWS_` are left out, and so are empty values.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = variables.into_iter().filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty());
        Self(ours.map(|(name, value)| (name, value.into())).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.expose_secret())
    }

    /// Gives the variables to a client.
    ///
    /// # Errors
    /// A file of a secret that does not read, an endpoint without TLS on another machine, or one without a key.
    pub(super) fn apply(&self, mut builder: AmazonS3Builder) -> Result<AmazonS3Builder> {
        for (name, value) in &self.0 {
            // Variables of other programs are none of ours.
            let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
            let value = value.expose_secret();
            let is_secret = SECRETS.contains(&name.as_str());
            builder = match value.strip_prefix('@').filter(|_| is_secret) {
                Some(file) => builder.with_config(key, read(name, file)?),
                None => builder.with_config(key, value),
            };
        }
        let Some((name, endpoint)) = ENDPOINTS.iter().find_map(|name| Some((name, self.get(name)?))) else {
            return Ok(builder);
        };
        let has_key = SECRETS[..2].iter().all(|name| self.get(name).is_some());
        if !has_key && OTHER_CREDENTIALS.iter().all(|name| self.get(name).is_none()) {
            return Err(invalid(format!(
                "{name} names a server, and AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is missing"
            )));
        }
        let parsed = Url::parse(endpoint).map_err(|error| invalid(format!("{name} is no address: {error}")))?;
        match parsed.scheme() {
            "https" => Ok(builder),
            "http" if is_loopback(&parsed) => {
                Ok(builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), "true"))
            }
            "http" if self.get("AWS_ALLOW_HTTP").is_some_and(|value| value == "true") => Ok(builder),
            "http" => Err(invalid(format!(
                "{name} has no TLS, and its server is on another machine: use https://, or set AWS_ALLOW_HTTP=true"
            ))),
            other => Err(invalid(format!("{name} must begin with https://, and begins with {other}://"))),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn read(name: &str, file: &str) -> Result<String> {
    let text = std::fs::read_to_string(file).map_err(|error| invalid(format!("{name} names `{file}`: {error}")))?;
    Ok(text.trim().to_owned())
}

fn invalid(reason: String) -> Error {
    Error::Generic { store: "S3", source: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> S3Settings {
        S3Settings::from_variables(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn refusal(variables: &[(&str, &str)]) -> Option<String> {
        settings(variables).apply(AmazonS3Builder::new()).err().map(|error| error.to_string())
    }

    const KEY: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "canary")];

    #[test]
    fn a_server_without_tls_is_taken_on_this_machine_or_when_it_is_said_so() {
        let with = |endpoint, more: &[(&'static str, &'static str)]| {
            refusal(&[&KEY[..], &[("AWS_ENDPOINT_URL", endpoint)], more].concat())
        };
        for endpoint in ["http://127.0.0.1:9000", "http://localhost", "http://[::1]:9", "https://s3.example.org"] {
            assert_eq!(with(endpoint, &[]), None, "{endpoint}");
        }
        assert!(with("http://s3.example.org", &[]).unwrap().contains("AWS_ALLOW_HTTP=true"));
        assert_eq!(with("http://s3.example.org", &[("AWS_ALLOW_HTTP", "true")]), None);
        assert!(with("ftp://s3.example.org", &[]).unwrap().contains("https://"));
        assert!(with("s3.example.org", &[]).unwrap().contains("AWS_ENDPOINT_URL"));
    }

    #[test]
    fn secrets_may_be_files_and_are_not_printed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "canary\n").unwrap();
        let named = format!("@{}", file.display());
        let variables = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", named.as_str())];
        let builder = settings(&variables).apply(AmazonS3Builder::new()).unwrap();
        let read = builder.get_config_value(&AmazonS3ConfigKey::SecretAccessKey);
        assert_eq!(read.as_deref(), Some("canary"));
        std::fs::remove_file(&file).unwrap();
        assert!(refusal(&variables).unwrap().contains("AWS_SECRET_ACCESS_KEY"));
        assert!(!format!("{:?}", settings(&KEY)).contains("canary"));
    }

    #[test]
    fn a_server_without_a_key_is_refused_before_it_is_asked() {
        let endpoint = ("AWS_ENDPOINT_URL_S3", "https://s3.example.org");
        assert!(refusal(&[endpoint]).unwrap().contains("AWS_ACCESS_KEY_ID"));
        assert!(refusal(&[endpoint, KEY[0]]).unwrap().contains("AWS_SECRET_ACCESS_KEY"));
        assert_eq!(refusal(&[endpoint, ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")]), None);
        assert_eq!(refusal(&[]), None);
    }
}
