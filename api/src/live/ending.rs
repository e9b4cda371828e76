//! [`Ending`]: why a connection ends, and what its client is told.

use karat_access::TokenFault;
use tokio_tungstenite::tungstenite::{
    Error,
    error::{CapacityError, ProtocolError},
};

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client left, or its connection broke.
    Gone,
    Expired,
    Revoked,
    /// It does not take what it is sent, or does not say that it is there.
    Slow,
    TooManyConnections,
    TooManyMessages,
    ServerStops,
    TooLarge,
    NotText,
    /// A text that is no UTF-8.
    NotUtf8,
    /// What it sent is no WebSocket.
    Malformed,
    Failed,
}

impl Ending {
    /// The code of the close frame and its reason; none when nobody is there to read it.
    pub(super) fn close(self) -> Option<(u16, &'static str)> {
        Some(match self {
            Self::Gone => return None,
            Self::ServerStops => (1001, "server_stops"),
            Self::Malformed => (1002, "protocol_error"),
            Self::NotText => (1003, "text_only"),
            Self::NotUtf8 => (1007, "not_utf8"),
            Self::TooLarge => (1009, "message_too_large"),
            Self::Failed => (1011, "internal_error"),
            Self::Expired => (4401, "token_expired"),
            Self::Revoked => (4401, "token_revoked"),
            Self::Slow => (4408, "slow_consumer"),
            Self::TooManyConnections => (4429, "too_many_connections"),
            Self::TooManyMessages => (4429, "too_many_messages"),
        })
    }
}

impl From<TokenFault> for Ending {
    fn from(fault: TokenFault) -> Self {
        match fault {
            TokenFault::Expired => Self::Expired,
            TokenFault::Missing | TokenFault::Invalid | TokenFault::Revoked => Self::Revoked,
        }
    }
}

impl From<&Error> for Ending {
    fn from(error: &Error) -> Self {
        match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => Self::TooLarge,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Gone,
            Error::Utf8(_) => Self::NotUtf8,
            Error::Protocol(_) | Error::Capacity(_) | Error::AttackAttempt => Self::Malformed,
            _ => Self::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_utf_8_ends_with_the_code_that_the_standard_has_for_it() {
        let ending = Ending::from(&Error::Utf8("incomplete string".to_owned()));
        assert_eq!(ending.close(), Some((1007, "not_utf8")));
    }
}
