//! What an access token says.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `typ` of access tokens. Nothing else that this product signs may carry it.
pub(crate) const ACCESS: &str = "access";

/// The claims of an access token (RFC 7519). Times are whole seconds since 1970.
///
/// Typed strictly: a time that is a string, a fraction or negative makes the token invalid.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub iss: String,
    pub aud: String,
    /// The user.
    pub sub: Uuid,
    /// The session.
    pub sid: Uuid,
    pub role: String,
    pub iat: u64,
    pub exp: u64,
    pub jti: Uuid,
    pub typ: String,
    /// The user's name (OpenID Connect Core, 5.1), so that checking a token needs no database.
    pub preferred_username: String,
}
