//! The pictures themselves: files under names of our own making in one folder.

use karat_access::AccessError;
use karat_http::ApiError;
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use uuid::Uuid;

use super::AvatarSettings;

/// Where addresses of pictures point.
const ROUTE: &str = "/api/v1/avatars/";

/// The folder of the pictures, where one is set.
#[derive(Clone)]
pub(in crate::auth) struct Pictures {
    settings: Option<AvatarSettings>,
}

impl Pictures {
    pub(in crate::auth) fn new(settings: Option<AvatarSettings>) -> Self {
        Self { settings }
    }

    /// # Errors
    /// 501 when there is no place for pictures.
    pub(super) fn settings(&self) -> Result<&AvatarSettings, ApiError> {
        let missing = AccessError::Unconfigured { what: "a place for pictures" };
        self.settings.as_ref().ok_or_else(|| missing.into())
    }

    /// Stores a picture under a name that was never used; answers its address.
    pub(super) async fn add(&self, picture: Vec<u8>, extension: &str) -> Result<String, ApiError> {
        let name = format!("{}.{extension}", Uuid::new_v4().simple());
        let folder = self.folder().await?;
        folder.put(&Key::from(name.as_str()), picture.into()).await.map_err(ApiError::internal)?;
        Ok(format!("{ROUTE}{name}"))
    }

    /// The picture of this name; none when there is none.
    pub(super) async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, ApiError> {
        let Some(key) = known_name(name) else { return Ok(None) };
        let found = match self.folder().await?.get(&key).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(ApiError::internal)?,
        };
        let bytes = found.bytes().await.map_err(ApiError::internal)?;
        Ok(Some(bytes.to_vec()))
    }

    /// Removes the picture that an address of ours names. One that is gone already is no failure.
    pub(super) async fn remove(&self, url: Option<&str>) -> Result<(), ApiError> {
        let Some(key) = url.and_then(|url| url.rsplit('/').next()).and_then(known_name) else { return Ok(()) };
        match self.folder().await?.delete(&key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(ApiError::internal(error)),
        }
    }

    /// Removes the picture of an account that is gone. What was done to the account stands, so a failure is for the
    /// log, with the name that somebody has to remove by hand.
    pub(in crate::auth) async fn forget(&self, url: Option<&str>) {
        if let Err(error) = self.remove(url).await {
            tracing::error!(?error, url, "the picture of a deleted account could not be removed: remove the file");
        }
    }

    async fn folder(&self) -> Result<LocalFileSystem, ApiError> {
        let folder = self.settings()?.folder.clone();
        let open = move || {
            std::fs::create_dir_all(&folder).map_err(ApiError::internal)?;
            LocalFileSystem::new_with_prefix(&folder).map_err(ApiError::internal)
        };
        tokio::task::spawn_blocking(open).await.map_err(ApiError::internal)?
    }
}

/// A name of our own making; anything else names nothing.
fn known_name(name: &str) -> Option<Key> {
    let (stem, extension) = name.split_once('.')?;
    let is_ours = stem.len() == 32 && stem.bytes().all(|b| b.is_ascii_hexdigit()) && matches!(extension, "png" | "jpg");
    is_ours.then(|| Key::from(name))
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
