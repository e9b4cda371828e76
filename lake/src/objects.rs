//! Objects that are no tables, such as pictures of accounts: in a folder or a bucket of their own, kept as those of a lake
//! are ([`crate::durable`], [`crate::s3`]).

use std::sync::Arc;

use object_store::ObjectStore;

use crate::{Lake, Result};

/// The objects at a location as [`Lake::at`] takes it, once they are known to be reached.
///
/// # Errors
/// [`crate::Error::Location`]; [`crate::Error::Unusable`] or [`crate::Error::Unreachable`], with the reason.
pub async fn open(location: &str) -> Result<Arc<dyn ObjectStore>> {
    let place = Lake::at(location)?;
    place.require_usable().await?;
    place.store(location)
}
