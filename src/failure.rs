//! Why a command ended, and with which exit code.

use std::fmt::Display;

pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const UNREACHABLE: u8 = 69;
pub const CONFIGURATION: u8 = 78;

/// How a command begins in a message that works on what this process works on.
const COMMAND: &str = "`karat topic accept ";

/// The message for the person at the terminal, and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    message: String,
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn new(code: u8, message: impl Display) -> Self {
        Self { code, message: message.to_string() }
    }

    pub fn usage(message: impl Display) -> Self {
        Self::new(USAGE, message)
    }

    pub fn unreachable(message: impl Display) -> Self {
        Self::new(UNREACHABLE, message)
    }

    pub fn configuration(message: impl Display) -> Self {
        Self::new(CONFIGURATION, message)
    }

    /// Gives the command that the message names the settings of this process, so that it can be run as it is printed.
    #[must_use]
    pub fn with_settings(mut self, settings: &str) -> Self {
        let end = self.message.find(COMMAND).and_then(|begin| Some(begin + 1 + self.message[begin + 1..].find('`')?));
        if let Some(end) = end {
            self.message.insert_str(end, settings);
        }
        self
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    #[allow(clippy::print_stderr)]
    pub fn print(&self) {
        eprintln!("karat: {}", self.message);
    }
}

macro_rules! failed_by {
    ($($error:ty),+) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(FAILED, error)
            }
        }
    )+};
}

failed_by!(
    karat_lake::datafusion::error::DataFusionError,
    karat_lake::arrow::error::ArrowError,
    karat_http::ApiError,
    serde_json::Error,
    std::io::Error,
    tokio::task::JoinError
);

impl From<karat_lake::Error> for Failure {
    fn from(error: karat_lake::Error) -> Self {
        let code = match &error {
            karat_lake::Error::Unreachable { .. } => UNREACHABLE,
            karat_lake::Error::Location(_) | karat_lake::Error::Unusable { .. } => CONFIGURATION,
            _ => FAILED,
        };
        Self::new(code, error)
    }
}

impl From<karat_eventlog::Error> for Failure {
    fn from(error: karat_eventlog::Error) -> Self {
        let code = match &error {
            karat_eventlog::Error::Unavailable { .. } => UNREACHABLE,
            karat_eventlog::Error::Setting { .. } => CONFIGURATION,
            _ => FAILED,
        };
        Self::new(code, error)
    }
}

impl From<karat_access::AccessError> for Failure {
    fn from(error: karat_access::AccessError) -> Self {
        let code = match &error {
            karat_access::AccessError::Unreachable { .. } => UNREACHABLE,
            karat_access::AccessError::Keys { .. } => CONFIGURATION,
            _ => FAILED,
        };
        Self::new(code, error)
    }
}

impl From<karat_transform::Error> for Failure {
    fn from(error: karat_transform::Error) -> Self {
        match error {
            karat_transform::Error::Log(error) => error.into(),
            karat_transform::Error::Declaration(message) => Self::configuration(message),
            karat_transform::Error::UnknownPipeline(_) => Self::usage(error),
            other => Self::new(FAILED, other),
        }
    }
}

impl From<crate::commands::publish::Failure> for Failure {
    fn from(failure: crate::commands::publish::Failure) -> Self {
        Self::new(failure.exit_code(), failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_in_a_message_gets_the_settings_and_other_messages_stay() {
        let message = "refused: run `karat topic accept a.b`, which goes on";
        let with = |message: &str| Failure::new(FAILED, message).with_settings(" --kafka h:1").message;
        assert_eq!(with(message), "refused: run `karat topic accept a.b --kafka h:1`, which goes on");
        assert_eq!(with("no `command` here"), "no `command` here");
    }
}
