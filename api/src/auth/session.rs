//! Log-in, refresh, log-out.

use std::sync::Arc;

use karat_access::Access;
use karat_http::{Answer, ApiError, Authenticated, JsonBody, WindowLimiter, client_ip, error_answers, ok, origin};
use poem::Request;
use poem_openapi::OpenApi;

use super::AuthTag;
use super::views::{LoggedOut, LoginRequest, RefreshRequest, TokensView};

error_answers! {
    /// Errors of `POST /auth/login`.
    pub LoginError: 400, 401, 413, 415, 422, 429, 503;
    /// Errors of `POST /auth/refresh`.
    pub RefreshError: 400, 401, 413, 415, 422, 429, 503;
    /// Errors of the log-out routes.
    pub LogoutError: 401, 404, 503;
}

/// Operations on sessions.
#[derive(Clone)]
pub struct SessionApi {
    access: Access,
    logins: Arc<WindowLimiter>,
}

impl SessionApi {
    pub(super) fn new(access: Access, logins: Arc<WindowLimiter>) -> Self {
        Self { access, logins }
    }
}

#[OpenApi(prefix_path = "/auth", tag = "AuthTag::Accounts")]
impl SessionApi {
    /// Log in
    ///
    /// By username or e-mail address. Unknown names and wrong passwords get the same answer.
    #[oai(path = "/login", method = "post", operation_id = "login")]
    async fn login(&self, request: &Request, body: JsonBody<LoginRequest>) -> Result<Answer<TokensView>, LoginError> {
        self.logins.check(client_ip(request))?;
        let JsonBody(body) = body;
        let name = match (body.username, body.email) {
            (Some(name), None) | (None, Some(name)) => name,
            _ => Err(ApiError::validation(vec!["give either `username` or `email`".to_owned()]))?,
        };
        let pair = self.access.login(&name, body.password.into(), &origin(request)).await?;
        Ok(ok(pair.into(), "logged in"))
    }

    /// Exchange a refresh token
    ///
    /// The token that was sent is used up. Sending it again ends its session.
    #[oai(path = "/refresh", method = "post", operation_id = "refresh")]
    async fn refresh(
        &self,
        request: &Request,
        body: JsonBody<RefreshRequest>,
    ) -> Result<Answer<TokensView>, RefreshError> {
        let JsonBody(body) = body;
        let pair = self.access.refresh(&body.refresh_token.into(), &origin(request)).await?;
        Ok(ok(pair.into(), "refreshed"))
    }

    /// End the caller's session
    ///
    /// Its access tokens stop working at once.
    #[oai(path = "/logout", method = "post", operation_id = "logout")]
    async fn logout(&self, request: &Request, caller: Authenticated) -> Result<Answer<LoggedOut>, LogoutError> {
        self.access.logout(&caller, &origin(request)).await?;
        Ok(ok(LoggedOut { sessions_ended: 1 }, "logged out"))
    }

    /// End every session of the caller
    #[oai(path = "/logout-all", method = "post", operation_id = "logout_all")]
    async fn logout_all(&self, request: &Request, caller: Authenticated) -> Result<Answer<LoggedOut>, LogoutError> {
        if caller.session().is_none() {
            Err(ApiError::not_found("an API key has no session"))?;
        }
        let ended = self.access.logout_all(&caller, &origin(request)).await?;
        Ok(ok(LoggedOut { sessions_ended: ended as u64 }, "logged out everywhere"))
    }
}
