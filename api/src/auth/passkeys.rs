//! Passkeys: adding them, and logging in by them.

use karat_access::{Access, LoginOutcome, Permission};
use karat_http::{Answer, ApiError, Authenticated, JsonBody, error_answers, ok, origin};
use poem::Request;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;
use poem_openapi::payload::Response;
use secrecy::SecretString;
use uuid::Uuid;

use super::AuthTag;
use super::account::PasswordRequest;
use super::passkey_views::{
    AddedPasskeyView, AssertionRequest, BeginPasskeyRequest, NewPasskeyRequest, PasskeyCreationView,
    PasskeyLoginRequest, PasskeyRequestView, PasskeyView,
};
use super::session;
use super::views::LoginView;

error_answers! {
    /// Errors of adding a passkey.
    pub PasskeyError: 400, 401, 403, 404, 409, 413, 415, 422, 429, 501, 503;
    /// Errors of listing passkeys.
    pub PasskeysError: 401, 403;
    /// Errors of removing a passkey.
    pub RemovePasskeyError: 400, 401, 403, 404, 409, 413, 415, 422, 429, 503;
    /// Errors of logging in by a passkey.
    pub PasskeyLoginError: 400, 401, 404, 413, 415, 422, 429, 501, 503;
}

/// Operations on passkeys.
#[derive(Clone)]
pub struct PasskeyApi {
    access: Access,
}

impl PasskeyApi {
    pub(super) fn new(access: Access) -> Self {
        Self { access }
    }
}

#[OpenApi(prefix_path = "/auth/mfa/passkeys", tag = "AuthTag::Accounts")]
impl PasskeyApi {
    /// Begin to add a passkey
    ///
    /// Needs the password. The answer is for `navigator.credentials.create` of the browser; what that answers goes to
    /// `/auth/mfa/passkeys/confirm` within five minutes, in the same session. With `"is_way_in": false` it will be a second
    /// factor alone, as which a security key without a PIN will do.
    #[oai(path = "/", method = "post", operation_id = "begin_passkey")]
    async fn begin(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<BeginPasskeyRequest>,
    ) -> Result<Answer<PasskeyCreationView>, PasskeyError> {
        caller.require(Permission::ManageOwnAccount)?;
        let JsonBody(BeginPasskeyRequest { password, is_way_in }) = body;
        let (password, origin) = (password.map(SecretString::from), origin(request));
        let options = if is_way_in.unwrap_or(true) {
            self.access.begin_passkey(&caller, password, &origin).await?
        } else {
            self.access.begin_security_key(&caller, password, &origin).await?
        };
        Ok(ok(options.into(), "make a passkey with these options, then confirm it"))
    }

    /// Add the passkey that was made
    ///
    /// With the first second factor of an account come recovery codes, and every other log-in asks for the second factor
    /// from then on. A passkey whose authenticator checks who its user is logs in without a password.
    #[oai(path = "/confirm", method = "post", operation_id = "confirm_passkey")]
    async fn confirm(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<NewPasskeyRequest>,
    ) -> Result<Answer<AddedPasskeyView>, PasskeyError> {
        caller.require(Permission::ManageOwnAccount)?;
        let added = self.access.confirm_passkey(&caller, &body.0.into(), &origin(request)).await?;
        Ok(ok(added.into(), "the passkey was added; recovery codes are shown this once"))
    }

    /// List the caller's passkeys
    #[oai(path = "/", method = "get", operation_id = "list_passkeys")]
    async fn list(&self, caller: Authenticated) -> Result<Answer<Vec<PasskeyView>>, PasskeysError> {
        caller.require(Permission::ManageOwnAccount)?;
        let passkeys = self.access.list_passkeys(caller.id).await?;
        Ok(ok(passkeys.into_iter().map(PasskeyView::from).collect(), "the caller's passkeys, oldest first"))
    }

    /// Remove one of the caller's passkeys
    ///
    /// Needs the password. Ends every other session of the account. The last way in cannot be removed.
    #[oai(path = "/:id", method = "delete", operation_id = "remove_passkey")]
    async fn remove(
        &self,
        request: &Request,
        caller: Authenticated,
        /// From the list of passkeys.
        id: Path<String>,
        body: JsonBody<PasswordRequest>,
    ) -> Result<Answer<bool>, RemovePasskeyError> {
        caller.require(Permission::ManageOwnAccount)?;
        let passkey = Uuid::parse_str(&id).map_err(|_| ApiError::not_found("there is no such passkey"))?;
        self.access.remove_passkey(&caller, passkey, body.0.secret(), &origin(request)).await?;
        Ok(ok(true, "the passkey was removed"))
    }

    /// Begin to log in by a passkey
    ///
    /// Alone, or with `mfa_token` as the second step. The answer is for `navigator.credentials.get` of the browser; what that
    /// answers goes to `/auth/mfa/passkeys/login/confirm` within five minutes.
    #[oai(path = "/login", method = "post", operation_id = "begin_passkey_login")]
    async fn begin_login(
        &self,
        request: &Request,
        body: JsonBody<PasskeyLoginRequest>,
    ) -> Result<Answer<PasskeyRequestView>, PasskeyLoginError> {
        let JsonBody(body) = body;
        let view = match body.mfa_token {
            Some(ticket) => {
                let options = self.access.begin_passkey_factor(&ticket.into(), &origin(request)).await?;
                PasskeyRequestView::new(options, None)
            }
            None => {
                let (attempt, options) = self.access.begin_passkey_login().await?;
                PasskeyRequestView::new(options, Some(&attempt))
            }
        };
        Ok(ok(view, "ask a passkey with these options, then confirm"))
    }

    /// Log in by a passkey
    ///
    /// With `login_request` alone: its authenticator must have checked who its user is, and no second factor is asked for.
    /// With `mfa_token` as the second step.
    #[oai(path = "/login/confirm", method = "post", operation_id = "login_by_passkey")]
    async fn login(
        &self,
        request: &Request,
        body: JsonBody<AssertionRequest>,
    ) -> Result<Response<Answer<LoginView>>, PasskeyLoginError> {
        let JsonBody(mut body) = body;
        let (use_cookie, remember_me, origin) = (body.use_cookie, body.remember_me, origin(request));
        let pair = match (body.login_request.take(), body.mfa_token.take()) {
            (Some(attempt), None) => self.access.login_by_passkey(&attempt.into(), &body.assertion(), &origin).await?,
            (None, Some(ticket)) => {
                self.access.login_with_passkey_factor(&ticket.into(), &body.assertion(), &origin).await?
            }
            _ => Err(ApiError::validation(vec!["give either `login_request` or `mfa_token`".to_owned()]))?,
        };
        Ok(session::logged_in(LoginOutcome::Tokens(Box::new(pair)), use_cookie, remember_me))
    }
}
