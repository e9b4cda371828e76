//! Registering, and the caller's own account.

use std::sync::Arc;

use karat_access::{Access, NewAccount, Permission};
use karat_http::{
    Answer, ApiError, Authenticated, Created, JsonBody, WindowLimiter, client_ip, created, error_answers, ok, origin,
};
use poem::Request;
use poem_openapi::OpenApi;

use super::AuthTag;
use super::views::{RegisterRequest, TokensView, UserView};

error_answers! {
    /// Errors of `POST /auth/register`.
    pub RegisterError: 400, 403, 409, 413, 415, 422, 429, 503;
    /// Errors of `GET /auth/me`.
    pub ReadAccountError: 401, 403, 404;
}

/// Operations on accounts.
#[derive(Clone)]
pub struct AccountApi {
    access: Access,
    registrations: Arc<WindowLimiter>,
}

impl AccountApi {
    pub(super) fn new(access: Access, registrations: Arc<WindowLimiter>) -> Self {
        Self { access, registrations }
    }
}

#[OpenApi(prefix_path = "/auth", tag = "AuthTag::Accounts")]
impl AccountApi {
    /// Register an account
    ///
    /// Answers with tokens: the new account is logged in.
    #[oai(path = "/register", method = "post", operation_id = "register")]
    async fn register(
        &self,
        request: &Request,
        body: JsonBody<RegisterRequest>,
    ) -> Result<Created<TokensView>, RegisterError> {
        self.registrations.check(client_ip(request))?;
        let JsonBody(body) = body;
        let (username, email, full_name) = (body.username, body.email, body.full_name);
        let account = NewAccount { username, email, password: body.password.into(), full_name };
        let pair = self.access.register(account, &origin(request)).await?;
        Ok(created(pair.into(), "the account was created"))
    }

    /// Read the caller's account
    #[oai(path = "/me", method = "get", operation_id = "read_own_account")]
    async fn me(&self, caller: Authenticated) -> Result<Answer<UserView>, ReadAccountError> {
        caller.require(Permission::ManageOwnAccount)?;
        let user = self.access.find_user(caller.id).await?;
        let user = user.ok_or_else(|| ApiError::not_found("the account was deleted"))?;
        Ok(ok(user.into(), "the caller's account"))
    }
}
