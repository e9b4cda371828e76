//! The S3 server that tests may use, and a [`Door`] in front of it behind which requests fail.

mod door;

use karat_lake::s3::S3Settings;
use url::Url;

pub use self::door::{Door, Weather};

/// Where it is: `http://KEY:SECRET@HOST:PORT/BUCKET`.
const VARIABLE: &str = "KARAT_TEST_S3";

/// A server for tests, and a bucket of it.
#[derive(Debug, Clone)]
pub struct S3Server {
    address: Url,
}

impl S3Server {
    /// The server that the environment names; says so when there is none.
    pub fn named() -> Option<Self> {
        let found = std::env::var(VARIABLE).ok().and_then(|text| Url::parse(&text).ok());
        if found.is_none() {
            eprintln!("left out, because {VARIABLE} names no server: `make test-services` starts one");
        }
        Some(Self { address: found? })
    }

    /// The same, which this process reaches from then on itself, whatever stands in front of it for others.
    pub fn reached() -> Option<Self> {
        let server = Self::named()?;
        karat_lake::s3::configure(S3Settings::from_variables(server.variables(&server.endpoint())));
        Some(server)
    }

    /// `HOST:PORT`.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.address.host_str().unwrap_or_default(), self.address.port().unwrap_or(80))
    }

    /// What a process needs in its environment to reach the server at `endpoint`: its own, or that of a door.
    pub fn variables(&self, endpoint: &str) -> Vec<(String, String)> {
        let key = self.address.username().to_owned();
        let secret = self.address.password().unwrap_or_default().to_owned();
        let pairs = [
            ("AWS_ENDPOINT_URL", format!("http://{endpoint}")),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", key),
            ("AWS_SECRET_ACCESS_KEY", secret),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// The address of the lake `name` in the bucket.
    pub fn lake(&self, name: &str) -> String {
        format!("s3://{}/{name}", self.address.path().trim_matches('/'))
    }
}
