//! Other people's accounts and the audit log, for those who may manage them.

use chrono::DateTime;
use karat_access::{Access, AuditFilter, NewUser, Permission, ProfileChange, Role, User, UserFilter};
use karat_http::{Answer, ApiError, Authenticated, Created, JsonBody, created, error_answers, ok, origin};
use poem::Request;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use uuid::Uuid;

use super::AuthTag;
use super::avatars::Pictures;
use super::experience::Experience;
use super::people_views::{AuditPage, AuditView, NewUserRequest, RoleRequest, UserChangeRequest, UsersPage};
use super::views::UserView;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 500;

error_answers! {
    /// Errors of listing.
    pub ListPeopleError: 400, 401, 403, 422;
    /// Errors of reading one account.
    pub ReadPersonError: 401, 403, 404;
    /// Errors of removing one account.
    pub DeletePersonError: 401, 403, 404, 409;
    /// Errors of changing one account.
    pub ChangePersonError: 400, 401, 403, 404, 409, 413, 415, 422, 503;
}

/// Operations on other people's accounts.
#[derive(Clone)]
pub struct PeopleApi {
    access: Access,
    pictures: Pictures,
    experience: Experience,
}

/// What a list is narrowed to, as it was asked for.
struct Asked {
    search: Query<Option<String>>,
    role: Query<Option<String>>,
    is_active: Query<Option<bool>>,
    after: Query<Option<String>>,
    limit: Query<Option<u32>>,
}

impl PeopleApi {
    pub(super) fn new(access: Access, pictures: Pictures, experience: Experience) -> Self {
        Self { access, pictures, experience }
    }

    async fn list(&self, caller: &Authenticated, asked: Asked) -> Result<Answer<UsersPage>, ApiError> {
        caller.require(Permission::ReadUsers)?;
        let limit = page_size(asked.limit.0)?;
        let role = asked.role.0.as_deref().map(parse_role).transpose()?;
        let after = asked.after.0.as_deref().map(|text| parse_id(text, "after")).transpose()?;
        let search = asked.search.0.filter(|text| !text.trim().is_empty()).map(|text| text.trim().to_owned());
        if search.as_ref().is_some_and(|text| text.chars().count() > 100) {
            Err(ApiError::validation(vec!["`search`: must be at most 100 characters".to_owned()]))?;
        }
        let filter = UserFilter { search, role, is_active: asked.is_active.0, after };
        let users = self.access.search_users(&filter, limit).await?;
        let is_full = users.len() == usize::try_from(limit).unwrap_or(usize::MAX);
        let next = users.last().filter(|_| is_full).map(|user| user.id.to_string());
        Ok(ok(UsersPage { users: users.into_iter().map(Into::into).collect(), next }, "accounts in order of creation"))
    }

    async fn read(&self, caller: &Authenticated, id: &str) -> Result<Answer<UserView>, ApiError> {
        let id = known_id(id)?;
        // The own account is there for everybody; whether another one is, only for those who may see it.
        if caller.id != id && !caller.has(Permission::ReadUsers) {
            Err(ApiError::not_found("there is no such user"))?;
        }
        caller.require(if caller.id == id { Permission::ManageOwnAccount } else { Permission::ReadUsers })?;
        Ok(ok(self.experience.profile(self.find(id).await?), "the account"))
    }

    async fn change(
        &self,
        request: &Request,
        caller: &Authenticated,
        id: &str,
        body: UserChangeRequest,
    ) -> Result<Answer<UserView>, ApiError> {
        caller.require(Permission::DeactivateUsers)?;
        let id = known_id(id)?;
        let change = ProfileChange {
            username: body.username,
            email: body.email,
            nickname: body.nickname,
            full_name: body.full_name,
            current_password: None,
            version: body.version,
        };
        let user = self.access.update_user_of(caller, id, change, body.is_active, &origin(request)).await?;
        Ok(ok(user.into(), "the account was changed"))
    }

    async fn delete(&self, request: &Request, caller: &Authenticated, id: &str) -> Result<Answer<String>, ApiError> {
        caller.require(Permission::ManageUsers)?;
        let id = known_id(id)?;
        let user = self.access.delete_user(caller, id, &origin(request)).await?;
        self.pictures.forget(user.avatar_url.as_deref()).await;
        Ok(ok(id.to_string(), "the account was deleted"))
    }

    async fn find(&self, id: Uuid) -> Result<User, ApiError> {
        self.access.find_user(id).await?.ok_or_else(|| ApiError::not_found("there is no such user"))
    }
}

#[OpenApi(tag = "AuthTag::People")]
impl PeopleApi {
    /// List accounts
    #[oai(path = "/users", method = "get", operation_id = "list_users")]
    #[allow(clippy::too_many_arguments, reason = "one a parameter of the query")]
    async fn list_users(
        &self,
        caller: Authenticated,
        /// Part of the username or the address, without case.
        search: Query<Option<String>>,
        /// With this role.
        role: Query<Option<String>>,
        /// Enabled or disabled.
        is_active: Query<Option<bool>>,
        /// `next` of the page before.
        after: Query<Option<String>>,
        /// At most 500; 50 when left out.
        limit: Query<Option<u32>>,
    ) -> Result<Answer<UsersPage>, ListPeopleError> {
        Ok(self.list(&caller, Asked { search, role, is_active, after, limit }).await?)
    }

    /// Read an account
    #[oai(path = "/users/:id", method = "get", operation_id = "read_user")]
    async fn read_user(&self, caller: Authenticated, id: Path<String>) -> Result<Answer<UserView>, ReadPersonError> {
        Ok(self.read(&caller, &id).await?)
    }

    /// Change an account
    ///
    /// A moderator may only set `is_active`, and only of accounts with the role `user`.
    #[oai(path = "/users/:id", method = "put", operation_id = "change_user")]
    async fn change_user(
        &self,
        request: &Request,
        caller: Authenticated,
        id: Path<String>,
        body: JsonBody<UserChangeRequest>,
    ) -> Result<Answer<UserView>, ChangePersonError> {
        Ok(self.change(request, &caller, &id, body.0).await?)
    }

    /// Delete an account
    #[oai(path = "/users/:id", method = "delete", operation_id = "delete_user")]
    async fn delete_user(
        &self,
        request: &Request,
        caller: Authenticated,
        id: Path<String>,
    ) -> Result<Answer<String>, DeletePersonError> {
        Ok(self.delete(request, &caller, &id).await?)
    }

    /// List accounts
    #[oai(path = "/admin/users", method = "get", operation_id = "admin_list_users")]
    #[allow(clippy::too_many_arguments, reason = "one a parameter of the query")]
    async fn admin_list(
        &self,
        caller: Authenticated,
        /// Part of the username or the address, without case.
        search: Query<Option<String>>,
        /// With this role.
        role: Query<Option<String>>,
        /// Enabled or disabled.
        is_active: Query<Option<bool>>,
        /// `next` of the page before.
        after: Query<Option<String>>,
        /// At most 500; 50 when left out.
        limit: Query<Option<u32>>,
    ) -> Result<Answer<UsersPage>, ListPeopleError> {
        Ok(self.list(&caller, Asked { search, role, is_active, after, limit }).await?)
    }

    /// Create an account for somebody
    #[oai(path = "/admin/users", method = "post", operation_id = "admin_create_user")]
    async fn admin_create(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<NewUserRequest>,
    ) -> Result<Created<UserView>, ChangePersonError> {
        caller.require(Permission::ManageUsers)?;
        let JsonBody(body) = body;
        let role = body.role.as_deref().map(parse_role).transpose()?.unwrap_or(Role::User);
        let new = NewUser { username: body.username, email: body.email, password: body.password.into(), role };
        let user = self.access.create_user(new, (&*caller.0).into(), &origin(request)).await?;
        Ok(created(user.into(), "the account was created"))
    }

    /// Change an account
    #[oai(path = "/admin/users/:id", method = "put", operation_id = "admin_change_user")]
    async fn admin_change(
        &self,
        request: &Request,
        caller: Authenticated,
        id: Path<String>,
        body: JsonBody<UserChangeRequest>,
    ) -> Result<Answer<UserView>, ChangePersonError> {
        Ok(self.change(request, &caller, &id, body.0).await?)
    }

    /// Delete an account
    #[oai(path = "/admin/users/:id", method = "delete", operation_id = "admin_delete_user")]
    async fn admin_delete(
        &self,
        request: &Request,
        caller: Authenticated,
        id: Path<String>,
    ) -> Result<Answer<String>, DeletePersonError> {
        Ok(self.delete(request, &caller, &id).await?)
    }

    /// Give an account a role
    ///
    /// Nobody changes the own role, gives one above the own, or takes it from the last admin.
    #[oai(path = "/admin/users/:id/role", method = "put", operation_id = "set_user_role")]
    async fn set_role(
        &self,
        request: &Request,
        caller: Authenticated,
        id: Path<String>,
        body: JsonBody<RoleRequest>,
    ) -> Result<Answer<UserView>, ChangePersonError> {
        caller.require(Permission::SetRoles)?;
        let user = self.access.set_role_of(&caller, known_id(&id)?, parse_role(&body.role)?, &origin(request)).await?;
        Ok(ok(user.into(), "the role was given"))
    }

    /// End every session of an account
    #[oai(path = "/admin/users/:id/sessions", method = "delete", operation_id = "admin_end_sessions")]
    async fn end_sessions(
        &self,
        request: &Request,
        caller: Authenticated,
        id: Path<String>,
    ) -> Result<Answer<u64>, ReadPersonError> {
        caller.require(Permission::ManageUsers)?;
        let ended = self.access.end_sessions_of(&caller, known_id(&id)?, &origin(request)).await?;
        Ok(ok(ended as u64, "the sessions were ended"))
    }

    /// Read the audit log
    ///
    /// Newest first. Rows are only ever added, and each holds a hash over itself and the one before.
    #[oai(path = "/admin/audit", method = "get", operation_id = "read_audit_log")]
    #[allow(clippy::too_many_arguments, reason = "one a parameter of the query")]
    async fn audit(
        &self,
        caller: Authenticated,
        /// Done by this user or key.
        actor: Query<Option<String>>,
        /// Done to this.
        target: Query<Option<String>>,
        /// The name of an action, such as `login`.
        action: Query<Option<String>>,
        /// `success` or `denied`.
        outcome: Query<Option<String>>,
        /// From this time on, RFC 3339.
        from: Query<Option<String>>,
        /// Before this time, RFC 3339.
        to: Query<Option<String>>,
        /// `next` of the page before.
        before: Query<Option<i64>>,
        /// At most 500; 50 when left out.
        limit: Query<Option<u32>>,
    ) -> Result<Answer<AuditPage>, ListPeopleError> {
        caller.require(Permission::ReadAudit)?;
        let limit = page_size(limit.0)?;
        let from_us = from.0.as_deref().map(|text| parse_time(text, "from")).transpose()?;
        let to_us = to.0.as_deref().map(|text| parse_time(text, "to")).transpose()?;
        if let (Some(from), Some(to)) = (from_us, to_us)
            && from > to
        {
            Err(ApiError::validation(vec!["`to`: must not be before `from`".to_owned()]))?;
        }
        let filter = AuditFilter {
            actor: actor.0.as_deref().map(|text| parse_id(text, "actor")).transpose()?,
            target: target.0.as_deref().map(|text| parse_id(text, "target")).transpose()?,
            action: action.0,
            outcome: outcome.0,
            from_us,
            to_us,
            before: before.0,
        };
        let rows = self.access.audit_log(&filter, limit).await?;
        let is_full = rows.len() == usize::try_from(limit).unwrap_or(usize::MAX);
        let next = rows.last().filter(|_| is_full).map(|row| row.seq);
        Ok(ok(
            AuditPage { rows: rows.into_iter().map(AuditView::from).collect(), next },
            "security events, newest first",
        ))
    }
}

fn page_size(limit: Option<u32>) -> Result<u32, ApiError> {
    match limit {
        None => Ok(DEFAULT_LIMIT),
        Some(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        Some(_) => Err(ApiError::validation(vec![format!("`limit`: must be 1 to {MAX_LIMIT}")])),
    }
}

fn parse_role(text: &str) -> Result<Role, ApiError> {
    text.parse().map_err(|_| {
        let known: Vec<_> = Role::ALL.iter().map(|role| format!("`{}`", role.name())).collect();
        ApiError::validation(vec![format!("`role`: must be one of {}", known.join(", "))])
    })
}

fn parse_id(text: &str, name: &str) -> Result<Uuid, ApiError> {
    Uuid::parse_str(text).map_err(|_| ApiError::validation(vec![format!("`{name}`: must be a UUID")]))
}

/// Microseconds since 1970, UTC.
fn parse_time(text: &str, name: &str) -> Result<i64, ApiError> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| {
        let line = format!("`{name}`: must be a time such as `2026-01-31T10:00:00Z` (RFC 3339; write `+` as `%2B`)");
        ApiError::validation(vec![line])
    })?;
    Ok(time.timestamp_micros())
}

/// What is no id names nobody.
fn known_id(text: &str) -> Result<Uuid, ApiError> {
    Uuid::parse_str(text).map_err(|_| ApiError::not_found("there is no such user"))
}
