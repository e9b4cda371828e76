//! Logging in through other providers.

use std::sync::Arc;

use karat_access::{Access, Action, Callback, CallbackOutcome, Permission};
use karat_http::{Answer, ApiError, Authenticated, Envelope, FormBody, JsonBody, error_answers, ok, origin};
use poem::Request;
use poem::http::header;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::{Json, Response};
use poem_openapi::{ApiResponse, Object, OpenApi};
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::AuthTag;
use super::account::PasswordRequest;
use super::views::{LoginView, rfc3339};
use super::{cookie, session};

/// Not `Strict`: the browser comes back from another site, and must bring it.
const FLOW: &str = "__Host-karat-oauth";
/// Behind the sealed attempt, which has no dot: the browser asked for its token in a cookie. Whoever changes the mark only
/// changes where the own browser keeps it.
const IN_COOKIE: &str = ".c";
/// The same, for a cookie that outlives the browser's session.
const REMEMBERED: &str = ".r";

error_answers! {
    /// Errors of beginning at a provider.
    pub BeginError: 400, 401, 404, 429, 503;
    /// Errors of beginning to link.
    pub LinkOauthError: 400, 401, 403, 404, 413, 415, 422, 429, 503;
    /// Errors of coming back from a provider.
    pub CallbackError: 400, 401, 403, 404, 409, 429, 503;
    /// Errors of coming back with a form.
    pub PostedError: 400, 404, 413, 415, 429, 503;
    /// Errors of listing.
    pub IdentitiesError: 401, 403;
    /// Errors of unlinking.
    pub UnlinkError: 400, 401, 403, 404, 409, 413, 415, 422, 429, 503;
}

/// Which provider to link, and the password of the account.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkOauthRequest {
    /// The provider's name.
    pub provider: String,
    /// The present password. An account without one leaves it out, and its log-in must be younger than five minutes.
    #[oai(validator(max_length = 1024))]
    pub password: Option<String>,
}

/// Where to send the browser.
#[derive(Debug, Object)]
pub struct RedirectView {
    /// The provider's page.
    pub authorize_url: String,
}

/// A log-in at another provider.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct IdentityView {
    /// The provider's name.
    pub provider: String,
    /// The address that the provider named.
    pub email: Option<String>,
    /// RFC 3339 in UTC.
    pub linked_at: String,
}

/// What a provider sends with the browser when it posts. It may send more, such as a name: that is not looked at.
#[derive(Object, Deserialize)]
pub struct PostedCallback {
    /// From the provider.
    pub code: Option<String>,
    /// From the provider.
    pub state: Option<String>,
    /// From the provider: who it is.
    pub iss: Option<String>,
    /// From the provider: why it refused.
    pub error: Option<String>,
}

/// Sends the browser on.
#[derive(ApiResponse)]
pub enum ToCallback {
    /// To the same address by GET.
    #[oai(status = 303)]
    SeeOther(Json<Envelope<bool>>, #[oai(header = "Location")] String),
}

/// Sends the browser to the provider.
#[derive(ApiResponse)]
pub enum ToProvider {
    /// To the provider's page.
    #[oai(status = 302)]
    Found(Json<Envelope<RedirectView>>, #[oai(header = "Location")] String, #[oai(header = "Set-Cookie")] String),
}

/// Operations on log-ins at other providers.
#[derive(Clone)]
pub struct OauthApi {
    access: Arc<Access>,
}

impl OauthApi {
    pub(super) fn new(access: Access) -> Self {
        Self { access: Arc::new(access) }
    }
}

#[OpenApi(prefix_path = "/auth/oauth", tag = "AuthTag::Accounts")]
impl OauthApi {
    /// Go to a provider to log in
    #[oai(path = "/:provider/authorize", method = "get", operation_id = "oauth_authorize")]
    async fn authorize(
        &self,
        /// The provider's name: `google`, `github`, `facebook`, `apple`, or one of the settings.
        provider: Path<String>,
        /// For browsers: the callback puts the refresh token into a cookie that scripts cannot read.
        use_cookie: Query<Option<bool>>,
        /// With `use_cookie`: the cookie outlives the browser's session.
        remember_me: Query<Option<bool>>,
    ) -> Result<ToProvider, BeginError> {
        let redirect = self.access.begin_oauth_login(&provider).await?;
        let mark = match (use_cookie.0, remember_me.0) {
            (Some(true), Some(true)) => REMEMBERED,
            (Some(true), _) => IN_COOKIE,
            _ => "",
        };
        let cookie = flow_cookie(redirect.cookie.expose_secret(), mark);
        let view = RedirectView { authorize_url: redirect.url.clone() };
        Ok(ToProvider::Found(ok(view, "go to the provider"), redirect.url, cookie))
    }

    /// Come back from a provider
    ///
    /// Only in the browser that began, and once. An account with the same address is not joined: log in to it and link.
    #[oai(path = "/:provider/callback", method = "get", operation_id = "oauth_callback")]
    #[allow(clippy::too_many_arguments, reason = "one a parameter of the query")]
    async fn callback(
        &self,
        request: &Request,
        /// The provider's name.
        provider: Path<String>,
        /// From the provider.
        code: Query<Option<String>>,
        /// From the provider.
        state: Query<Option<String>>,
        /// From the provider: who it is.
        iss: Query<Option<String>>,
        /// From the provider: why it refused.
        error: Query<Option<String>>,
    ) -> Result<Response<Answer<LoginView>>, CallbackError> {
        let brought = (error.0, code.0, state.0, cookie::find(request, FLOW));
        let (None, Some(code), Some(state), Some(cookie)) = brought else {
            self.access.note_refusal(Action::OauthLogin, &origin(request)).await;
            let message = "the provider refused, or the log-in was not begun here";
            Err(ApiError::unauthorized("oauth_refused", message))?
        };
        let remembered = cookie.strip_suffix(REMEMBERED);
        let in_cookie = remembered.or_else(|| cookie.strip_suffix(IN_COOKIE));
        let (use_cookie, remember) = (Some(in_cookie.is_some()), Some(remembered.is_some()));
        let cookie = in_cookie.unwrap_or(&cookie).to_owned().into();
        let callback = Callback { provider: provider.0, code: code.into(), state, iss: iss.0, cookie };
        let answer = match self.access.finish_oauth(callback, &origin(request)).await? {
            CallbackOutcome::Login(outcome) => session::logged_in(*outcome, use_cookie, remember),
            CallbackOutcome::Linked => Response::new(ok(LoginView::default(), "the log-in was added to the account")),
        };
        Ok(answer.header(header::SET_COOKIE, format!("{FLOW}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")))
    }

    /// Come back from a provider that posts
    ///
    /// As Apple does. Nothing is decided here: the browser goes on to the same address by GET.
    #[oai(path = "/:provider/callback", method = "post", operation_id = "oauth_posted_callback")]
    async fn posted_callback(
        &self,
        /// The provider's name.
        provider: Path<String>,
        body: FormBody<PostedCallback>,
    ) -> Result<ToCallback, PostedError> {
        if !self.access.provider_names().contains(&provider.0) {
            Err(ApiError::not_found("there is no such provider"))?;
        }
        // A browser does not bring our cookie to a POST from another site, but it does to the GET that follows. A cookie
        // that came with every request from anywhere would be the other way.
        let FormBody(form) = body;
        let fields = [("code", form.code), ("state", form.state), ("iss", form.iss), ("error", form.error)];
        let given = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
        Ok(ToCallback::SeeOther(ok(true, "go on to the address in `Location`"), format!("callback?{query}")))
    }

    /// Begin to add a log-in at a provider to the caller's account
    ///
    /// Send the browser to the address in the answer; the callback finishes it.
    #[oai(path = "/link", method = "post", operation_id = "oauth_link")]
    async fn link(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<LinkOauthRequest>,
    ) -> Result<Response<Answer<RedirectView>>, LinkOauthError> {
        caller.require(Permission::ManageOwnAccount)?;
        let JsonBody(body) = body;
        let password = body.password.map(Into::into);
        let redirect = self.access.begin_oauth_link(&caller, &body.provider, password, &origin(request)).await?;
        let cookie = flow_cookie(redirect.cookie.expose_secret(), "");
        let view = RedirectView { authorize_url: redirect.url };
        Ok(Response::new(ok(view, "go to the provider")).header(header::SET_COOKIE, cookie))
    }

    /// List the caller's log-ins at other providers
    #[oai(path = "/identities", method = "get", operation_id = "list_identities")]
    async fn identities(&self, caller: Authenticated) -> Result<Answer<Vec<IdentityView>>, IdentitiesError> {
        caller.require(Permission::ManageOwnAccount)?;
        let identities = self.access.list_identities(caller.id).await?.into_iter();
        let views = identities.map(|identity| IdentityView {
            provider: identity.provider,
            email: identity.email,
            linked_at: rfc3339(identity.created_at_us),
        });
        Ok(ok(views.collect(), "the caller's log-ins at other providers"))
    }

    /// Remove the caller's log-ins at a provider
    ///
    /// Needs the password. Ends every other session of the account. The last way in cannot be removed.
    #[oai(path = "/unlink/:provider", method = "delete", operation_id = "oauth_unlink")]
    async fn unlink(
        &self,
        request: &Request,
        caller: Authenticated,
        /// The provider's name.
        provider: Path<String>,
        body: JsonBody<PasswordRequest>,
    ) -> Result<Answer<String>, UnlinkError> {
        caller.require(Permission::ManageOwnAccount)?;
        self.access.unlink_oauth(&caller, &provider, body.0.secret(), &origin(request)).await?;
        Ok(ok(provider.0, "the log-in was removed"))
    }
}

fn flow_cookie(sealed: &str, mark: &str) -> String {
    let seconds = karat_access::FLOW_LIFE.as_secs();
    format!("{FLOW}={sealed}{mark}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}")
}
