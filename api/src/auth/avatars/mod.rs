//! Pictures of accounts.
//!
//! What is sent is judged by its content, decoded under limits and written anew, so that nothing but pixels is kept:
//! no position, no other file behind the picture. It is stored under a name that says nothing and cannot be guessed,
//! and is served from there to anybody who has the name, as `<img>` needs it.

mod answer;
mod picture;
mod pictures;
mod scanner;

use std::sync::Arc;

use karat_access::{Access, Permission};
use karat_http::{Answer, ApiError, Authenticated, error_answers, limited_body, ok, origin};
use object_store::ObjectStore;
use poem::Request;
use poem::http::header;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;
use poem_openapi::payload::Response;
use poem_openapi::registry::{MetaMediaType, MetaSchema, MetaSchemaRef};

use self::answer::Picture;
pub(super) use self::pictures::Pictures;
#[cfg(test)]
pub(super) use self::scanner::tests::stand_in as scanner_stand_in;
use super::AuthTag;
use super::views::UserView;

const MAX_BYTES: u64 = 5 * 1024 * 1024;
const MEDIA: [&str; 3] = ["image/png", "image/jpeg", "image/webp"];

error_answers! {
    /// Errors of setting a picture.
    pub SetAvatarError: 400, 401, 403, 404, 413, 415, 422, 501, 503;
    /// Errors of removing a picture.
    pub DeleteAvatarError: 401, 403, 404, 501, 503;
    /// Errors of reading a picture.
    pub ReadAvatarError: 404, 501, 503;
}

/// Where pictures are kept, and who looks at them first.
#[derive(Debug, Clone)]
pub struct AvatarSettings {
    /// Where they are: a folder or a bucket.
    pub store: Arc<dyn ObjectStore>,
    /// `HOST:PORT` of a scanner that speaks clamd's protocol.
    pub scanner: Option<String>,
}

/// Operations on pictures.
#[derive(Clone)]
pub struct AvatarApi {
    access: Access,
    pictures: Pictures,
    /// Decoding takes memory: one picture at a time each.
    room: Arc<tokio::sync::Semaphore>,
}

karat_http::unread_body! {
    /// The body of a picture, not yet read.
    PictureBody: "The picture itself.", MEDIA.map(media).into();
}

fn media(content_type: &'static str) -> MetaMediaType {
    let schema = MetaSchemaRef::Inline(Box::new(MetaSchema::new_with_format("string", "binary")));
    MetaMediaType { content_type, schema }
}

impl AvatarApi {
    pub(super) fn new(access: Access, pictures: Pictures) -> Self {
        Self { access, pictures, room: Arc::new(tokio::sync::Semaphore::new(2)) }
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
        let settings = self.pictures.settings()?;
        let declared =
            request.content_type().map(|media| media.split(';').next().unwrap_or_default().trim().to_owned());
        let Some(declared) = declared.filter(|media| MEDIA.contains(&media.as_str())) else {
            Err(ApiError::unsupported_media_type("send the picture as `image/png`, `image/jpeg` or `image/webp`"))?
        };
        let bytes = limited_body(request.headers(), body.0, MAX_BYTES).await?;
        if let Some(scanner) = &settings.scanner {
            scanner::scan(scanner, &bytes).await?;
        }
        let (picture, extension) = {
            let _room = self.room.acquire().await.map_err(ApiError::internal)?;
            let rewritten = tokio::task::spawn_blocking(move || picture::rewrite(&bytes, &declared)).await;
            rewritten.map_err(ApiError::internal)??
        };
        let url = self.pictures.add(picture, extension).await?;
        match self.access.set_avatar(&caller, Some(&url), &origin(request)).await {
            Ok((user, before)) => {
                self.pictures.forget(before.as_deref()).await;
                Ok(ok(user.into(), "the picture was set"))
            }
            // Deleted or logged out meanwhile: nobody would ever remove the picture.
            Err(error) => {
                self.pictures.forget(Some(&url)).await;
                Err(error.into())
            }
        }
    }

    /// Remove the caller's picture
    #[oai(path = "/users/avatar", method = "delete", operation_id = "delete_avatar")]
    async fn delete(&self, request: &Request, caller: Authenticated) -> Result<Answer<UserView>, DeleteAvatarError> {
        caller.require(Permission::ManageOwnAccount)?;
        let before = self.access.find_user(caller.id).await?.and_then(|user| user.avatar_url);
        // While the account still names it: whoever is told that it failed can ask again.
        self.pictures.remove(before.as_deref()).await?;
        let (user, before) = self.access.set_avatar(&caller, None, &origin(request)).await?;
        self.pictures.forget(before.as_deref()).await;
        Ok(ok(user.into(), "the picture was removed"))
    }

    /// Read a picture
    #[oai(path = "/avatars/:name", method = "get", operation_id = "read_avatar")]
    async fn read(
        &self,
        /// The last part of `avatar_url`.
        name: Path<String>,
    ) -> Result<Response<Picture>, ReadAvatarError> {
        let bytes = self.pictures.read(&name).await?;
        let bytes = bytes.ok_or_else(|| ApiError::not_found("there is no such picture"))?;
        // A name is never used twice, so whoever has the picture may keep it.
        Ok(Response::new(Picture::new(&name, bytes))
            .header(header::CACHE_CONTROL, "public, max-age=31536000, immutable")
            .header(header::CONTENT_DISPOSITION, "inline")
            .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"))
    }
}
