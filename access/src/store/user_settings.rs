//! Settings of people, a row each.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Store;
use super::engine::{Row, Tx, args};
use super::proof::require_session;
use super::users::lock;
use crate::{AccessError, SettingsChange, UserSettings};

const OF_USER: &str = "SELECT name, value FROM user_settings WHERE user_id = ?";

impl Store {
    /// The settings of a user; none of somebody who is not there.
    pub(crate) async fn user_settings(&self, user: Uuid) -> Result<UserSettings, AccessError> {
        settings(&self.database.rows(OF_USER, args![user]).await?)
    }

    /// Changes the settings of a user, in the name of a session of theirs, when they are at one of the expected revisions,
    /// where some are; answers what they are then. [`AccessError::NotAuthenticated`] when the session has ended.
    pub(crate) async fn change_user_settings(
        &self,
        user: Uuid,
        session: Uuid,
        change: &SettingsChange,
        expected: Option<&[String]>,
    ) -> Result<UserSettings, AccessError> {
        let mut tx = self.database.write().await?;
        // Whoever holds the user changes the settings next: the bounds are on all of them.
        lock(&mut tx, user).await?;
        require_session(&mut tx, user, session).await?;
        let before = settings(&tx.rows(OF_USER, args![user]).await?)?;
        let after = change.applied_to(&before)?;
        let revision = before.revision();
        if expected.is_some_and(|revisions| !revisions.contains(&revision)) {
            return Err(AccessError::SettingsChanged { revision });
        }
        write(&mut tx, user, &before, &after).await?;
        tx.commit().await?;
        Ok(after)
    }
}

/// Writes what is otherwise than before.
async fn write(tx: &mut Tx, user: Uuid, before: &UserSettings, after: &UserSettings) -> Result<(), AccessError> {
    for name in before.by_key().keys().filter(|name| !after.by_key().contains_key(*name)) {
        tx.execute("DELETE FROM user_settings WHERE user_id = ? AND name = ?", args![user, name]).await?;
    }
    for (name, value) in after.by_key() {
        let sql = match before.by_key().get(name) {
            Some(same) if same == value => continue,
            Some(_) => "UPDATE user_settings SET value = ? WHERE user_id = ? AND name = ?",
            None => "INSERT INTO user_settings (value, user_id, name) VALUES (?, ?, ?)",
        };
        tx.execute(sql, args![value, user, name]).await?;
    }
    Ok(())
}

fn settings(rows: &[Row]) -> Result<UserSettings, AccessError> {
    let mut by_key = BTreeMap::new();
    for row in rows {
        by_key.insert(row.text("name")?, row.text("value")?);
    }
    Ok(UserSettings::of(by_key))
}
