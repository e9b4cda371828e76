//! Pictures of accounts.
//!
//! What is sent is judged by its content, decoded under limits and written anew, so that nothing but pixels is kept:
//! no position, no other file behind the picture. It is stored under a name that says nothing and cannot be guessed,
//! and is served from there to anybody who has the name, as `<img>` needs it.

mod picture;
mod scanner;

use std::path::PathBuf;
use std::sync::Arc;

use karat_access::{Access, Permission};
use karat_http::{Answer, ApiError, Authenticated, error_answers, limited_body, ok, origin};
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use poem::http::header;
use poem::{Body, Request, RequestBody};
use poem_openapi::param::Path;
use poem_openapi::payload::{Binary, Response};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, OpenApi};
use uuid::Uuid;

use super::AuthTag;
use super::views::UserView;

const MAX_BYTES: u64 = 5 * 1024 * 1024;
const MEDIA: [&str; 3] = ["image/png", "image/jpeg", "image/webp"];

error_answers! {
    /// Errors of setting a picture.
    pub SetAvatarError: 401, 403, 404, 413, 415, 422, 501, 503;
    /// Errors of removing a picture.
    pub DeleteAvatarError: 401, 403, 404, 501;
    /// Errors of reading a picture.
    pub ReadAvatarError: 404, 501;
}

/// Where pictures are kept, and who looks at them first.
#[derive(Debug, Clone)]
pub struct AvatarSettings {
    /// The folder; created when absent.
    pub folder: PathBuf,
    /// `HOST:PORT` of a scanner that speaks clamd's protocol.
    pub scanner: Option<String>,
}

/// Operations on pictures.
#[derive(Clone)]
pub struct AvatarApi {
    access: Access,
    settings: Option<AvatarSettings>,
    /// Decoding takes memory: one picture at a time each.
    room: Arc<tokio::sync::Semaphore>,
}

/// The body of a picture, not yet read.
struct PictureBody(Body);

impl AvatarApi {
    pub(super) fn new(access: Access, settings: Option<AvatarSettings>) -> Self {
        Self { access, settings, room: Arc::new(tokio::sync::Semaphore::new(2)) }
    }

    fn settings(&self) -> Result<&AvatarSettings, ApiError> {
        let missing = karat_access::AccessError::Unconfigured { what: "a place for pictures" };
        self.settings.as_ref().ok_or_else(|| missing.into())
    }

    async fn store(&self) -> Result<LocalFileSystem, ApiError> {
        let folder = self.settings()?.folder.clone();
        let open = move || {
            std::fs::create_dir_all(&folder).map_err(ApiError::internal)?;
            LocalFileSystem::new_with_prefix(&folder).map_err(ApiError::internal)
        };
        tokio::task::spawn_blocking(open).await.map_err(ApiError::internal)?
    }

    /// Removes the picture that an address of ours names. One that is gone already is no failure.
    async fn remove(&self, url: Option<&str>) -> Result<(), ApiError> {
        let Some(key) = url.and_then(|url| url.rsplit('/').next()).and_then(known_name) else { return Ok(()) };
        match self.store().await?.delete(&key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(ApiError::internal(error)),
        }
    }

    async fn old_url(&self, user: Uuid) -> Result<Option<String>, ApiError> {
        let user = self.access.find_user(user).await?;
        Ok(user.ok_or_else(|| ApiError::not_found("the account was deleted"))?.avatar_url)
    }
}

#[OpenApi(tag = "AuthTag::Accounts")]
impl AvatarApi {
    /// Set the caller's picture
    ///
    /// PNG, JPEG or WebP of at most 5 MiB and 25 million pixels. It is made smaller where needed, and written anew:
    /// what the file said beside the picture is not kept.
    #[oai(path = "/users/avatar", method = "post", operation_id = "set_avatar")]
    async fn set(
        &self,
        request: &Request,
        caller: Authenticated,
        body: PictureBody,
    ) -> Result<Answer<UserView>, SetAvatarError> {
        caller.require(Permission::ManageOwnAccount)?;
        let settings = self.settings()?;
        let declared =
            request.content_type().map(|media| media.split(';').next().unwrap_or_default().trim().to_owned());
        let Some(declared) = declared.filter(|media| MEDIA.contains(&media.as_str())) else {
            Err(ApiError::unsupported_media_type("send the picture as `image/png`, `image/jpeg` or `image/webp`"))?
        };
        let bytes = limited_body(request.headers(), body.0, MAX_BYTES).await?;
        if let Some(scanner) = &settings.scanner {
            scanner::scan(scanner, &bytes).await?;
        }
        let _room = self.room.acquire().await.map_err(ApiError::internal)?;
        let (picture, extension) = tokio::task::spawn_blocking(move || picture::rewrite(&bytes, &declared))
            .await
            .map_err(ApiError::internal)??;
        let before = self.old_url(caller.id).await?;
        let name = format!("{}.{extension}", Uuid::new_v4().simple());
        self.store().await?.put(&Key::from(name.as_str()), picture.into()).await.map_err(ApiError::internal)?;
        let user = self.access.set_avatar(&caller, Some(&format!("/api/v1/avatars/{name}")), &origin(request)).await?;
        self.remove(before.as_deref()).await?;
        Ok(ok(user.into(), "the picture was set"))
    }

    /// Remove the caller's picture
    #[oai(path = "/users/avatar", method = "delete", operation_id = "delete_avatar")]
    async fn delete(&self, request: &Request, caller: Authenticated) -> Result<Answer<UserView>, DeleteAvatarError> {
        caller.require(Permission::ManageOwnAccount)?;
        let before = self.old_url(caller.id).await?;
        let user = self.access.set_avatar(&caller, None, &origin(request)).await?;
        if before.is_some() {
            self.remove(before.as_deref()).await?;
        }
        Ok(ok(user.into(), "the picture was removed"))
    }

    /// Read a picture
    #[oai(path = "/avatars/:name", method = "get", operation_id = "read_avatar")]
    async fn read(
        &self,
        /// The last part of `avatar_url`.
        name: Path<String>,
    ) -> Result<Response<Binary<Vec<u8>>>, ReadAvatarError> {
        let missing = || ApiError::not_found("there is no such picture");
        let key = known_name(&name).ok_or_else(missing)?;
        let found = match self.store().await?.get(&key).await {
            Err(object_store::Error::NotFound { .. }) => Err(missing())?,
            found => found.map_err(ApiError::internal)?,
        };
        let bytes = found.bytes().await.map_err(ApiError::internal)?;
        let media = if name.ends_with(".png") { "image/png" } else { "image/jpeg" };
        // A name is never used twice, so whoever has the picture may keep it.
        Ok(Response::new(Binary(bytes.to_vec()))
            .header(header::CONTENT_TYPE, media)
            .header(header::CACHE_CONTROL, "public, max-age=31536000, immutable")
            .header(header::CONTENT_DISPOSITION, "inline")
            .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"))
    }
}

/// A name of our own making; anything else names nothing.
fn known_name(name: &str) -> Option<Key> {
    let (stem, extension) = name.split_once('.')?;
    let is_ours = stem.len() == 32 && stem.bytes().all(|b| b.is_ascii_hexdigit()) && matches!(extension, "png" | "jpg");
    is_ours.then(|| Key::from(name))
}

impl<'a> ApiExtractor<'a> for PictureBody {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn request_meta() -> Option<MetaRequest> {
        let schema = || MetaSchemaRef::Inline(Box::new(MetaSchema::new_with_format("string", "binary")));
        let media = |content_type| MetaMediaType { content_type, schema: schema() };
        Some(MetaRequest { description: Some("The picture itself."), content: MEDIA.map(media).into(), required: true })
    }

    async fn from_request(
        _request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        Ok(Self(body.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_72_only_names_of_our_own_making_are_looked_for() {
        assert!(known_name("0123456789abcdef0123456789abcdef.png").is_some());
        for bad in [
            "",
            "../accounts.db",
            "0123456789abcdef0123456789abcdef",
            "x.png",
            "0123456789abcdef0123456789abcdef.svg",
            "0123456789abcdef0123456789abcde%.png",
            "0123456789abcdef0123456789abcdef.png/..",
            "/0123456789abcdef0123456789abcde.png",
        ] {
            assert!(known_name(bad).is_none(), "{bad}");
        }
    }
}
