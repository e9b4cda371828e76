//! Where a request came from, for the session list and the audit log.

use std::net::IpAddr;

/// Facts about the request behind an action. All optional: the command line has none of them.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Address of the client.
    pub ip: Option<IpAddr>,
    /// `User-Agent`, cut to a sensible length.
    pub user_agent: Option<String>,
    /// Id of the request in the log.
    pub request_id: Option<String>,
}

impl Origin {
    /// Longest part of a `User-Agent` that is kept.
    pub const MAX_USER_AGENT_CHARS: usize = 200;

    /// An origin with its texts cut and cleaned of control characters.
    pub fn new(ip: Option<IpAddr>, user_agent: Option<&str>, request_id: Option<&str>) -> Self {
        let clean = |text: &str| -> String {
            text.chars().filter(|c| !c.is_control()).take(Self::MAX_USER_AGENT_CHARS).collect()
        };
        Self { ip, user_agent: user_agent.map(clean), request_id: request_id.map(clean) }
    }

    pub(crate) fn ip_text(&self) -> Option<String> {
        self.ip.map(|ip| ip.to_string())
    }
}
