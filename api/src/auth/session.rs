//! Log-in, refresh, log-out, the caller's sessions.

use karat_access::{Access, Action, LoginOutcome, Permission, TokenPair};
use karat_http::{Answer, ApiError, Authenticated, JsonBody, error_answers, ok, origin};
use poem::Request;
use poem_openapi::payload::Response;
use poem_openapi::{Object, OpenApi, param::Path};
use serde::Deserialize;
use uuid::Uuid;

use super::cookie::{self, Life};
use super::views::{LoggedOut, LoginRequest, LoginView, RefreshRequest, TokensView, rfc3339};
use super::{AuthTag, Origins};

error_answers! {
    /// Errors of `POST /auth/login`.
    pub LoginError: 400, 401, 413, 415, 422, 429, 503;
    /// Errors of `POST /auth/refresh`.
    pub RefreshError: 400, 401, 403, 413, 415, 422, 429, 503;
    /// Errors of the log-out routes.
    pub LogoutError: 401, 403, 404, 503;
    /// Errors of `GET /auth/sessions`.
    pub SessionsError: 401, 403;
}

/// The second step of a log-in.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MfaLoginRequest {
    /// From the first step.
    pub mfa_token: String,
    /// Six digits of the authenticator, or a recovery code.
    pub code: String,
    /// As in the first step.
    pub use_cookie: Option<bool>,
    /// As in the first step.
    pub remember_me: Option<bool>,
}

/// One log-in of the caller.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct SessionView {
    /// UUID v7.
    pub id: String,
    /// RFC 3339 in UTC.
    pub created_at: String,
    /// RFC 3339 in UTC.
    pub last_used_at: String,
    /// RFC 3339 in UTC.
    pub expires_at: String,
    /// Address at log-in.
    pub ip: Option<String>,
    /// Program at log-in.
    pub user_agent: Option<String>,
    /// True for the session of this call.
    pub is_current: bool,
}

/// Operations on sessions.
#[derive(Clone)]
pub struct SessionApi {
    access: Access,
    origins: Origins,
}

impl SessionApi {
    pub(super) fn new(access: Access, origins: Origins) -> Self {
        Self { access, origins }
    }
}

/// What a log-in answers, whatever the way in: tokens, in a cookie where the browser asked for it, or the second step.
pub(super) fn logged_in(
    outcome: LoginOutcome,
    use_cookie: Option<bool>,
    remember: Option<bool>,
) -> Response<Answer<LoginView>> {
    let pair = match outcome {
        LoginOutcome::Tokens(pair) => pair,
        step @ LoginOutcome::MfaRequired { .. } => {
            return Response::new(ok(step.into(), "the second factor is needed"));
        }
    };
    let life = life(remember == Some(true), &pair);
    let mut tokens = TokensView::from(*pair);
    if use_cookie != Some(true) {
        return Response::new(ok(tokens.into(), "logged in"));
    }
    let hidden = cookie::hide(&mut tokens);
    let answer = Response::new(ok(tokens.into(), "logged in"));
    match hidden {
        Some(token) => cookie::put(answer, &token, life),
        None => answer,
    }
}

/// A cookie that is remembered ends with its session.
fn life(is_remembered: bool, pair: &TokenPair) -> Life {
    if is_remembered { Life::Seconds(pair.session_ends_in_s) } else { Life::Browser }
}

#[OpenApi(prefix_path = "/auth", tag = "AuthTag::Accounts")]
impl SessionApi {
    /// Log in
    ///
    /// By username or e-mail address. Unknown names and wrong passwords get the same answer. With a second factor the
    /// answer has `mfa_required` and no tokens, unless a `code` of it comes along.
    #[oai(path = "/login", method = "post", operation_id = "login")]
    async fn login(
        &self,
        request: &Request,
        body: JsonBody<LoginRequest>,
    ) -> Result<Response<Answer<LoginView>>, LoginError> {
        let JsonBody(body) = body;
        let name = match (body.username, body.email) {
            (Some(name), None) | (None, Some(name)) => name,
            _ => Err(ApiError::validation(vec!["give either `username` or `email`".to_owned()]))?,
        };
        let (password, origin) = (body.password.into(), origin(request));
        let outcome = match &body.code {
            Some(code) => self.access.login_with_code(&name, password, code, &origin).await?,
            None => self.access.login(&name, password, &origin).await?,
        };
        Ok(logged_in(outcome, body.use_cookie, body.remember_me))
    }

    /// Log in: the second step
    #[oai(path = "/login/mfa", method = "post", operation_id = "login_with_factor")]
    async fn login_mfa(
        &self,
        request: &Request,
        body: JsonBody<MfaLoginRequest>,
    ) -> Result<Response<Answer<LoginView>>, LoginError> {
        let JsonBody(body) = body;
        let pair = self.access.login_with_factor(&body.mfa_token.into(), &body.code, &origin(request)).await?;
        Ok(logged_in(LoginOutcome::Tokens(Box::new(pair)), body.use_cookie, body.remember_me))
    }

    /// Exchange a refresh token
    ///
    /// The token that was sent is used up. Sending it again ends its session. Without `refresh_token` the cookie of a
    /// browser counts, together with `X-CSRF-Token`.
    #[oai(path = "/refresh", method = "post", operation_id = "refresh")]
    async fn refresh(
        &self,
        request: &Request,
        body: JsonBody<RefreshRequest>,
    ) -> Result<Response<Answer<TokensView>>, RefreshError> {
        let JsonBody(body) = body;
        if let Some(token) = body.refresh_token {
            let pair = self.access.refresh(&token.into(), &origin(request)).await?;
            return Ok(Response::new(ok(pair.into(), "refreshed")));
        }
        let presented = match cookie::take(request, &self.origins) {
            Ok(presented) => presented,
            Err(refused) => {
                self.access.note_refusal(Action::Refresh, &origin(request)).await;
                Err(refused)?
            }
        };
        let pair = self.access.refresh(&presented.token, &origin(request)).await?;
        let life = life(presented.is_remembered, &pair);
        let mut tokens = TokensView::from(pair);
        let hidden = cookie::hide(&mut tokens);
        let answer = Response::new(ok(tokens, "refreshed"));
        Ok(match hidden {
            Some(token) => cookie::put(answer, &token, life),
            None => answer,
        })
    }

    /// End the caller's session
    ///
    /// Its access tokens stop working at once.
    #[oai(path = "/logout", method = "post", operation_id = "logout")]
    async fn logout(
        &self,
        request: &Request,
        caller: Authenticated,
    ) -> Result<Response<Answer<LoggedOut>>, LogoutError> {
        self.access.logout(&caller, &origin(request)).await?;
        Ok(cookie::clear(Response::new(ok(LoggedOut { sessions_ended: 1 }, "logged out"))))
    }

    /// End every session of the caller
    #[oai(path = "/logout-all", method = "post", operation_id = "logout_all")]
    async fn logout_all(
        &self,
        request: &Request,
        caller: Authenticated,
    ) -> Result<Response<Answer<LoggedOut>>, LogoutError> {
        if caller.session().is_none() {
            Err(ApiError::not_found("an API key has no session"))?;
        }
        let ended = self.access.logout_all(&caller, &origin(request)).await?;
        let answer = ok(LoggedOut { sessions_ended: ended as u64 }, "logged out everywhere");
        Ok(cookie::clear(Response::new(answer)))
    }

    /// List the caller's sessions
    ///
    /// Newest first, 1,000 at most. Logging out everywhere ends the others too.
    #[oai(path = "/sessions", method = "get", operation_id = "list_sessions")]
    async fn sessions(&self, caller: Authenticated) -> Result<Answer<Vec<SessionView>>, SessionsError> {
        caller.require(Permission::ManageOwnAccount)?;
        let sessions = self.access.list_sessions(caller.id).await?;
        let views = sessions.into_iter().map(|session| SessionView {
            is_current: caller.session() == Some(session.id),
            id: session.id.to_string(),
            created_at: rfc3339(session.created_at_us),
            last_used_at: rfc3339(session.last_used_at_us),
            expires_at: rfc3339(session.expires_at_us),
            ip: session.ip,
            user_agent: session.user_agent,
        });
        Ok(ok(views.collect(), "the caller's sessions, newest first"))
    }

    /// End one of the caller's sessions
    #[oai(path = "/sessions/:id", method = "delete", operation_id = "end_session")]
    async fn end_session(
        &self,
        request: &Request,
        caller: Authenticated,
        /// From the list of sessions.
        id: Path<String>,
    ) -> Result<Answer<LoggedOut>, LogoutError> {
        caller.require(Permission::ManageOwnAccount)?;
        let session = Uuid::parse_str(&id).map_err(|_| ApiError::not_found("there is no such session"))?;
        self.access.end_session(session, caller.id, &caller, &origin(request)).await?;
        Ok(ok(LoggedOut { sessions_ended: 1 }, "the session was ended"))
    }
}
