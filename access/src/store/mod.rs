//! The accounts database, behind one [`Store`].
//!
//! Every change but that of [user settings](user_settings), on which no right rests, writes its audit row and, where others
//! must hear of it, its `access_changes` row in the same transaction: either all of it happened or nothing. The engines
//! differ only inside [`engine`].

mod api_keys;
mod attempts;
mod audit;
mod changes;
mod codes;
mod consents;
pub(crate) mod engine;
mod export;
mod factors;
mod identities;
mod passkeys;
mod profiles;
mod proof;
mod reset;
mod rows;
mod sessions;
#[cfg(test)]
mod testing;
mod user_settings;
mod users;

pub(crate) use attempts::AttemptPolicy;
pub use consents::ConsentPlace;
use engine::Database;
pub use engine::Schema;
pub use export::{OwnCode, OwnFactor, OwnSession};
pub use factors::Factors;
pub(crate) use identities::UsableWays;
pub use passkeys::Passkey;
pub(crate) use passkeys::{NewPasskeyRow, Said, StoredPasskey};
pub(crate) use proof::Proof;
pub(crate) use rows::{
    Attempt, Change, ChangeKind, CodeUse, Factor, Granted, KeyOwner, NewCodeRow, NewKeyRow, NewPassword, NewSessionRow,
    NewUserRow, Rotation, RotationRequest, StoredKey, StoredLogin, UserChange,
};
pub use rows::{Consent, Identity, Session, User, UserFilter};

use crate::{AccessError, AccessSettings};

/// The database of one instance, whichever engine it is.
pub(crate) struct Store {
    database: Database,
}

impl Store {
    /// Opens the database of the settings and brings its schema up to date.
    pub(crate) async fn open(settings: &AccessSettings) -> Result<Self, AccessError> {
        Ok(Self { database: Database::open(&settings.database).await? })
    }

    /// Keeps commits from having to do more than their own part; asked for every few seconds.
    pub(crate) async fn checkpoint(&self) -> Result<(), AccessError> {
        self.database.checkpoint().await
    }

    /// What the database holds.
    pub(crate) async fn schema(&self) -> Result<Schema, AccessError> {
        self.database.schema().await
    }
}
