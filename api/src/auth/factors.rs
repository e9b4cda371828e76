//! The second factor, telephone numbers.

use karat_access::{Access, Permission};
use karat_http::{Answer, Authenticated, JsonBody, error_answers, ok, origin};
use poem::Request;
use poem_openapi::payload::Response;
use poem_openapi::{Object, OpenApi};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::AuthTag;
use super::account::PasswordRequest;
use super::session;
use super::views::{LoginView, UserView};

error_answers! {
    /// Errors of the routes on factors.
    pub FactorError: 400, 401, 403, 404, 409, 413, 415, 422, 429, 503;
    /// Errors of the routes for codes to telephones.
    pub PhoneError: 400, 401, 403, 409, 413, 415, 422, 429, 501, 503;
}

/// A code.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeRequest {
    /// Six digits of the authenticator.
    pub code: String,
}

/// A code, and the password of the account.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryCodesRequest {
    /// Six digits of the authenticator.
    pub code: String,
    /// The present password. An account without one leaves it out, and its log-in must be younger than five minutes.
    #[oai(validator(max_length = 1024))]
    pub password: Option<String>,
}

/// A factor that is being set up. It is shown this once.
#[derive(Debug, Object)]
pub struct EnrolmentView {
    /// In base 32, to type in.
    pub secret: String,
    /// `otpauth://` address for a QR code.
    pub uri: String,
}

/// Recovery codes. They are shown this once; each works once.
#[derive(Debug, Object)]
pub struct RecoveryCodesView {
    /// Ten codes.
    pub recovery_codes: Vec<String>,
}

/// A telephone number.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhoneRequest {
    /// International, such as `+34600123456`.
    pub phone: String,
}

/// A request for a code.
#[derive(Debug, Object)]
pub struct PhoneRequestView {
    /// To be sent with the code, which works with it alone.
    pub code_request: String,
}

/// A telephone number and the code that was sent to it.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhoneCodeRequest {
    /// International, such as `+34600123456`.
    pub phone: String,
    /// As it was answered when the code was asked for.
    pub code_request: String,
    /// Six digits.
    pub code: String,
    /// For browsers: the refresh token is put into a cookie that scripts cannot read, and is left out of the answer.
    pub use_cookie: Option<bool>,
    /// With `use_cookie`: the cookie outlives the browser's session.
    pub remember_me: Option<bool>,
}

/// A telephone number, the code that was sent to it, and the password of the account.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkPhoneRequest {
    /// International, such as `+34600123456`.
    pub phone: String,
    /// As it was answered when the code was asked for.
    pub code_request: String,
    /// Six digits.
    pub code: String,
    /// The present password. An account without one leaves it out, and its log-in must be younger than five minutes.
    #[oai(validator(max_length = 1024))]
    pub password: Option<String>,
}

/// Operations on factors and numbers.
#[derive(Clone)]
pub struct FactorApi {
    access: Access,
}

impl FactorApi {
    pub(super) fn new(access: Access) -> Self {
        Self { access }
    }
}

#[OpenApi(tag = "AuthTag::Accounts")]
impl FactorApi {
    /// Begin to set up a second factor
    ///
    /// Needs the password. The factor is not asked for until it is confirmed by a first code.
    #[oai(path = "/auth/mfa/totp", method = "post", operation_id = "enroll_totp")]
    async fn enroll(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<PasswordRequest>,
    ) -> Result<Answer<EnrolmentView>, FactorError> {
        caller.require(Permission::ManageOwnAccount)?;
        let enrolment = self.access.enroll_totp(&caller, body.0.secret(), &origin(request)).await?;
        let secret = enrolment.secret.expose_secret().to_owned();
        let view = EnrolmentView { secret, uri: enrolment.uri.expose_secret().to_owned() };
        Ok(ok(view, "add this to an authenticator, then confirm it by a code"))
    }

    /// Confirm the second factor
    #[oai(path = "/auth/mfa/totp/confirm", method = "post", operation_id = "confirm_totp")]
    async fn confirm(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<CodeRequest>,
    ) -> Result<Answer<RecoveryCodesView>, FactorError> {
        caller.require(Permission::ManageOwnAccount)?;
        let codes = self.access.confirm_totp(&caller, &body.0.code, &origin(request)).await?;
        Ok(shown_once(&codes))
    }

    /// Get new recovery codes
    ///
    /// Needs the password and a code of the authenticator. The old ones stop working.
    #[oai(path = "/auth/mfa/recovery-codes", method = "post", operation_id = "renew_recovery_codes")]
    async fn renew_recovery_codes(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<RecoveryCodesRequest>,
    ) -> Result<Answer<RecoveryCodesView>, FactorError> {
        caller.require(Permission::ManageOwnAccount)?;
        let JsonBody(body) = body;
        let password = body.password.map(Into::into);
        let codes = self.access.renew_recovery_codes(&caller, password, &body.code, &origin(request)).await?;
        Ok(shown_once(&codes))
    }

    /// Remove the second factor
    ///
    /// Needs the password.
    #[oai(path = "/auth/mfa/totp", method = "delete", operation_id = "remove_totp")]
    async fn remove(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<PasswordRequest>,
    ) -> Result<Answer<bool>, FactorError> {
        caller.require(Permission::ManageOwnAccount)?;
        self.access.remove_totp(&caller, body.0.secret(), &origin(request)).await?;
        Ok(ok(true, "the second factor was removed"))
    }

    /// Ask for a code to a telephone
    ///
    /// The answer is the same whether an account has the number.
    #[oai(path = "/auth/phone/request", method = "post", operation_id = "request_phone_code")]
    async fn request_code(
        &self,
        request: &Request,
        body: JsonBody<PhoneRequest>,
    ) -> Result<Answer<PhoneRequestView>, PhoneError> {
        let code_request = self.access.request_phone_code(&body.0.phone, &origin(request)).await?;
        Ok(ok(PhoneRequestView { code_request }, "a code is on its way"))
    }

    /// Log in by the code
    ///
    /// A number that no account has gets a new account, where registration is open.
    #[oai(path = "/auth/phone/verify", method = "post", operation_id = "login_by_phone")]
    async fn verify_code(
        &self,
        request: &Request,
        body: JsonBody<PhoneCodeRequest>,
    ) -> Result<Response<Answer<LoginView>>, PhoneError> {
        let outcome = self.access.login_by_phone(&body.phone, &body.code_request, &body.code, &origin(request)).await?;
        Ok(session::logged_in(outcome, body.use_cookie, body.remember_me))
    }

    /// Add a telephone number to the caller's account
    #[oai(path = "/auth/phone/link", method = "post", operation_id = "link_phone")]
    async fn link_phone(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<LinkPhoneRequest>,
    ) -> Result<Answer<UserView>, FactorError> {
        caller.require(Permission::ManageOwnAccount)?;
        let JsonBody(body) = body;
        let (password, origin) = (body.password.map(Into::into), origin(request));
        let user =
            self.access.link_phone(&caller, &body.phone, &body.code_request, &body.code, password, &origin).await?;
        Ok(ok(user.into(), "the number was added"))
    }

    /// Remove the telephone number from the caller's account
    ///
    /// Needs the password. Ends every other session of the account. The last way in cannot be removed.
    #[oai(path = "/auth/phone/unlink", method = "delete", operation_id = "unlink_phone")]
    async fn unlink_phone(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<PasswordRequest>,
    ) -> Result<Answer<UserView>, FactorError> {
        caller.require(Permission::ManageOwnAccount)?;
        let user = self.access.unlink_phone(&caller, body.0.secret(), &origin(request)).await?;
        Ok(ok(user.into(), "the number was removed"))
    }
}

fn shown_once(codes: &[SecretString]) -> Answer<RecoveryCodesView> {
    let recovery_codes = codes.iter().map(|code| code.expose_secret().to_owned()).collect();
    ok(RecoveryCodesView { recovery_codes }, "the recovery codes are shown this once: store them now")
}
