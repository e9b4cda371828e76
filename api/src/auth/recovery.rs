//! Passwords that are forgotten or changed, and addresses that are confirmed.

use karat_access::{Access, Permission};
use karat_http::{Answer, Authenticated, JsonBody, error_answers, ok, origin};
use poem::Request;
use poem_openapi::{Object, OpenApi};
use serde::Deserialize;

use super::AuthTag;

error_answers! {
    /// Errors of the routes for links.
    pub LinkError: 400, 401, 413, 415, 422, 429, 503;
    /// Errors of `POST /auth/change-password`.
    pub ChangePasswordError: 400, 401, 403, 404, 413, 415, 422, 429, 503;
    /// Errors of `POST /auth/verify-email/request`.
    pub RequestVerificationError: 401, 403, 404, 429;
    /// Errors of `POST /auth/password-strength`.
    pub StrengthError: 400, 413, 415, 422, 429;
}

/// An e-mail address.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailRequest {
    /// The address of the account.
    #[oai(validator(max_length = 254))]
    pub email: String,
}

/// A new password, with the token of a link.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetRequest {
    /// From the link.
    pub token: String,
    /// The new password.
    #[oai(validator(min_length = 8, max_length = 128))]
    pub new_password: String,
}

/// The present password and a new one.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangePasswordRequest {
    /// The present password. An account without one leaves it out, and its log-in must be younger than five minutes.
    #[oai(validator(max_length = 1024))]
    pub current_password: Option<String>,
    /// The new one.
    #[oai(validator(min_length = 8, max_length = 128))]
    pub new_password: String,
}

/// The token of a link.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkRequest {
    /// From the link.
    pub token: String,
}

/// A password to judge, and the names that it should not contain.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrengthRequest {
    /// It is not kept.
    pub password: String,
    /// The username.
    pub username: Option<String>,
    /// The e-mail address.
    pub email: Option<String>,
}

/// How hard a password is to guess.
#[derive(Debug, Object)]
pub struct StrengthView {
    /// 0 for one that may not be used, up to 4.
    pub score: u8,
    /// True when it breaks no rule.
    pub is_allowed: bool,
    /// The broken rules, one line each.
    pub broken_rules: Vec<String>,
}

/// Operations on passwords and addresses.
#[derive(Clone)]
pub struct RecoveryApi {
    access: Access,
}

impl RecoveryApi {
    pub(super) fn new(access: Access) -> Self {
        Self { access }
    }
}

#[OpenApi(prefix_path = "/auth", tag = "AuthTag::Accounts")]
impl RecoveryApi {
    /// Ask for a link to set a new password
    ///
    /// The answer is the same whether the address is known. The link works once, for 15 minutes.
    #[oai(path = "/reset-password", method = "post", operation_id = "request_password_reset")]
    async fn request_reset(&self, request: &Request, body: JsonBody<EmailRequest>) -> Result<Answer<bool>, LinkError> {
        self.access.request_password_reset(&body.email, &origin(request)).await?;
        Ok(ok(true, "if an account has this address, a message is on its way"))
    }

    /// Set a new password by a link
    ///
    /// Ends every session of the account. It does not log in. Where the address was never confirmed before, the second
    /// factor, the API keys, the telephone number and log-ins at other providers are removed.
    #[oai(path = "/reset-password/confirm", method = "post", operation_id = "confirm_password_reset")]
    async fn confirm_reset(&self, request: &Request, body: JsonBody<ResetRequest>) -> Result<Answer<bool>, LinkError> {
        let JsonBody(body) = body;
        let (token, password) = (body.token.into(), body.new_password.into());
        self.access.confirm_password_reset(&token, password, &origin(request)).await?;
        Ok(ok(true, "the password was set: log in with it"))
    }

    /// Change the caller's password
    ///
    /// Ends every other session of the account. An account without a password gets its first one.
    #[oai(path = "/change-password", method = "post", operation_id = "change_password")]
    async fn change_password(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<ChangePasswordRequest>,
    ) -> Result<Answer<bool>, ChangePasswordError> {
        caller.require(Permission::ManageOwnAccount)?;
        let JsonBody(body) = body;
        let (current, new) = (body.current_password.map(Into::into), body.new_password.into());
        self.access.change_password(&caller, current, new, &origin(request)).await?;
        Ok(ok(true, "the password was changed, and every other session ended"))
    }

    /// Confirm an e-mail address by a link
    #[oai(path = "/verify-email", method = "post", operation_id = "verify_email")]
    async fn verify_email(&self, request: &Request, body: JsonBody<LinkRequest>) -> Result<Answer<bool>, LinkError> {
        self.access.verify_email(&body.0.token.into(), &origin(request)).await?;
        Ok(ok(true, "the address is confirmed"))
    }

    /// Ask for a new link to confirm the caller's address
    #[oai(path = "/verify-email/request", method = "post", operation_id = "request_email_verification")]
    async fn request_verification(
        &self,
        request: &Request,
        caller: Authenticated,
    ) -> Result<Answer<bool>, RequestVerificationError> {
        caller.require(Permission::ManageOwnAccount)?;
        self.access.request_verification(&caller, &origin(request)).await?;
        Ok(ok(true, "a message is on its way, unless the address is confirmed already"))
    }

    /// Judge a password
    #[oai(path = "/password-strength", method = "post", operation_id = "password_strength")]
    async fn strength(&self, body: JsonBody<StrengthRequest>) -> Result<Answer<StrengthView>, StrengthError> {
        let JsonBody(body) = body;
        let words = [body.username.as_deref(), body.email.as_deref()];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        let strength = self.access.password_strength(&body.password.into(), &words);
        let is_allowed = strength.broken.is_empty();
        let view = StrengthView { score: strength.score, is_allowed, broken_rules: strength.broken };
        Ok(ok(view, "how hard the password is to guess"))
    }
}
