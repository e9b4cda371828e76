//! The pictures themselves: objects under names of our own making.

use std::time::Duration;

use karat_access::AccessError;
use karat_http::ApiError;
use object_store::path::Path as Key;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use uuid::Uuid;

use super::AvatarSettings;

/// Where addresses of pictures point.
const ROUTE: &str = "/api/v1/avatars/";

/// The place of the pictures, where one is set.
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
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let store = &self.settings()?.store;
        store.put_opts(&Key::from(name.as_str()), picture.into(), options).await.map_err(away)?;
        Ok(format!("{ROUTE}{name}"))
    }

    /// The picture of this name; none when there is none.
    pub(super) async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, ApiError> {
        let Some(key) = known_name(name) else { return Ok(None) };
        let found = match self.settings()?.store.get(&key).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(away)?,
        };
        let bytes = found.bytes().await.map_err(away)?;
        Ok(Some(bytes.to_vec()))
    }

    /// Removes the picture that an address of ours names. One that is gone already is no failure.
    pub(super) async fn remove(&self, url: Option<&str>) -> Result<(), ApiError> {
        let Some(key) = url.and_then(|url| url.rsplit('/').next()).and_then(known_name) else { return Ok(()) };
        match self.settings()?.store.delete(&key).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(away(error)),
        }
    }

    /// Removes a picture that no account names any more. What was done to the account stands, so a failure is for the
    /// log, with the name that somebody has to remove by hand.
    pub(in crate::auth) async fn forget(&self, url: Option<&str>) {
        if let Err(error) = self.remove(url).await {
            tracing::error!(
                ?error,
                url,
                "a picture that no account has any more could not be removed: remove it by hand"
            );
        }
    }
}

/// A store that fails may do better soon: a bucket that does not answer, a disk that is full.
fn away(error: Error) -> ApiError {
    ApiError::unavailable("pictures_unavailable", "pictures are not available now; try again soon")
        .retry_after(Duration::from_secs(30))
        .caused_by(error)
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
