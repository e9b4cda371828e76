//! Registering, and the caller's own account.

use karat_access::{Access, NewAccount, Permission, ProfileChange, Registration};
use karat_http::{Answer, ApiError, Authenticated, JsonBody, error_answers, ok, origin};
use poem::Request;
use poem_openapi::{ApiResponse, Object, OpenApi, payload::Json};
use secrecy::SecretString;
use serde::Deserialize;

use super::AuthTag;
use super::avatars::Pictures;
use super::experience::Experience;
use super::views::{LoginView, RegisterRequest, UserView};

error_answers! {
    /// Errors of `POST /auth/register`.
    pub RegisterError: 400, 403, 409, 413, 415, 422, 429, 503;
    /// Errors of reading the own account.
    pub ReadAccountError: 401, 403, 404;
    /// Errors of changing the own account.
    pub ChangeAccountError: 400, 401, 403, 404, 409, 413, 415, 422, 429, 503;
}

/// What a person changes about the own account. A field that is left out stays as it is; an empty `nickname` or `full_name` removes it.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileRequest {
    /// 3 to 30 of letters A to Z, digits and `_`; unique without case.
    #[oai(validator(min_length = 3, max_length = 30, pattern = "^[A-Za-z0-9_]+$"))]
    pub username: Option<String>,
    /// A new address has to be confirmed again. It needs `current_password`, where the account has one, else a log-in
    /// younger than five minutes.
    #[oai(validator(max_length = 254))]
    pub email: Option<String>,
    /// What others call this person.
    #[oai(validator(max_length = 100))]
    pub nickname: Option<String>,
    /// The person's name.
    #[oai(validator(max_length = 100))]
    pub full_name: Option<String>,
    /// Needed for a new address.
    #[oai(validator(max_length = 1024))]
    pub current_password: Option<String>,
    /// The version of the account that was read: 409 when it was changed meanwhile.
    pub version: i64,
}

/// The password, for what must not be done with a stolen token.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordRequest {
    /// The present password. An account without one leaves it out, and its log-in must be younger than five minutes.
    #[oai(validator(max_length = 1024))]
    pub password: Option<String>,
}

impl PasswordRequest {
    pub(super) fn secret(self) -> Option<SecretString> {
        self.password.map(Into::into)
    }
}

/// What a registration answers.
#[derive(ApiResponse)]
pub enum Registered {
    /// The account is there and logged in.
    #[oai(status = 201)]
    Created(Json<karat_http::Envelope<LoginView>>),
    /// A message was sent to the address, which has to be confirmed first.
    #[oai(status = 202)]
    Accepted(Json<karat_http::Envelope<LoginView>>),
}

/// Operations on accounts.
#[derive(Clone)]
pub struct AccountApi {
    access: Access,
    pictures: Pictures,
    experience: Experience,
}

impl AccountApi {
    pub(super) fn new(access: Access, pictures: Pictures, experience: Experience) -> Self {
        Self { access, pictures, experience }
    }

    async fn read(&self, caller: &Authenticated) -> Result<Answer<UserView>, ApiError> {
        caller.require(Permission::ManageOwnAccount)?;
        let user = self.access.find_user(caller.id).await?;
        let user = user.ok_or_else(|| ApiError::not_found("the account was deleted"))?;
        Ok(ok(self.experience.profile(user), "the caller's account"))
    }

    async fn change(
        &self,
        request: &Request,
        caller: &Authenticated,
        body: ProfileRequest,
    ) -> Result<Answer<UserView>, ApiError> {
        caller.require(Permission::ManageOwnAccount)?;
        let user = self.access.update_own_account(caller, body.into(), &origin(request)).await?;
        Ok(ok(user.into(), "the account was changed"))
    }
}

#[OpenApi(tag = "AuthTag::Accounts")]
impl AccountApi {
    /// Register an account
    ///
    /// Answers with tokens: the new account is logged in. Where addresses are confirmed first, the answer is 202 and
    /// the same whether the address is known.
    #[oai(path = "/auth/register", method = "post", operation_id = "register")]
    async fn register(&self, request: &Request, body: JsonBody<RegisterRequest>) -> Result<Registered, RegisterError> {
        let JsonBody(body) = body;
        let (username, email, full_name) = (body.username, body.email, body.full_name);
        let account = NewAccount { username, email, password: body.password.into(), full_name };
        let registration = self.access.register(account, &origin(request)).await?;
        Ok(match registration {
            tokens @ Registration::Tokens(_) => Registered::Created(ok(tokens.into(), "the account was created")),
            sent => Registered::Accepted(ok(sent.into(), "look into your mail: a message was sent to the address")),
        })
    }

    /// Read the caller's account
    #[oai(path = "/auth/me", method = "get", operation_id = "read_own_account")]
    async fn me(&self, caller: Authenticated) -> Result<Answer<UserView>, ReadAccountError> {
        Ok(self.read(&caller).await?)
    }

    /// Change the caller's account
    #[oai(path = "/auth/me", method = "put", operation_id = "change_own_account")]
    async fn change_me(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<ProfileRequest>,
    ) -> Result<Answer<UserView>, ChangeAccountError> {
        Ok(self.change(request, &caller, body.0).await?)
    }

    /// Read the caller's account
    #[oai(path = "/users/me", method = "get", operation_id = "read_own_user")]
    async fn user_me(&self, caller: Authenticated) -> Result<Answer<UserView>, ReadAccountError> {
        Ok(self.read(&caller).await?)
    }

    /// Change the caller's account
    #[oai(path = "/users/me", method = "put", operation_id = "change_own_user")]
    async fn change_user_me(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<ProfileRequest>,
    ) -> Result<Answer<UserView>, ChangeAccountError> {
        Ok(self.change(request, &caller, body.0).await?)
    }

    /// Delete the caller's account
    ///
    /// Needs the password. Everything stops working at once, and the picture is removed; the account is removed for good
    /// some weeks later.
    #[oai(path = "/users/me", method = "delete", operation_id = "delete_own_user")]
    async fn delete_user_me(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<PasswordRequest>,
    ) -> Result<Answer<String>, ChangeAccountError> {
        caller.require(Permission::ManageOwnAccount)?;
        let user = self.access.delete_own_account(&caller, body.0.secret(), &origin(request)).await?;
        self.pictures.forget(user.avatar_url.as_deref()).await;
        Ok(ok(caller.id.to_string(), "the account was deleted"))
    }
}

impl From<ProfileRequest> for ProfileChange {
    fn from(body: ProfileRequest) -> Self {
        Self {
            username: body.username,
            email: body.email,
            nickname: body.nickname,
            full_name: body.full_name,
            current_password: body.current_password.map(Into::into),
            version: body.version,
        }
    }
}
