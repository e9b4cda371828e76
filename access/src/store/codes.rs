//! Codes and tokens that work once.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use uuid::Uuid;

use super::engine::{Tx, args};
use super::proof::admit;
use super::{CodeUse, NewCodeRow, Proof, Store};
use crate::AccessError;
use crate::time::now_us;

impl Store {
    /// Adds a code; older ones for the same purpose and address die.
    pub(crate) async fn create_code(&self, row: &NewCodeRow) -> Result<(), AccessError> {
        let mut tx = self.database.write().await?;
        let sql = "UPDATE one_time_codes SET used_at = ? WHERE purpose = ? AND address = ? AND used_at IS NULL";
        tx.execute(sql, args![row.at, row.purpose, &row.address]).await?;
        insert(&mut tx, row).await?;
        tx.commit().await
    }

    /// Adds the ticket of a second step, if what the first one rested on still holds; [`AccessError::InvalidCredentials`]
    /// or [`AccessError::CodeRefused`] when it does not.
    pub(crate) async fn create_ticket(&self, row: &NewCodeRow, user: Uuid, proof: &Proof) -> Result<(), AccessError> {
        let mut tx = self.database.write().await?;
        admit(&mut tx, user, proof).await?;
        insert(&mut tx, row).await?;
        tx.commit().await
    }

    /// Presents a short code for an address, in its row: a wrong one costs a try, which stays spent. Another row costs
    /// nothing, whatever is open for the address.
    pub(crate) async fn use_code(
        &self,
        purpose: &'static str,
        address: &str,
        id: Uuid,
        code_hash: &str,
    ) -> Result<CodeUse, AccessError> {
        let mut tx = self.database.write().await?;
        let sql = "SELECT user_id, code_hash, tries_left FROM one_time_codes \
                   WHERE id = ? AND purpose = ? AND address = ? AND used_at IS NULL AND expires_at > ?";
        let Some(row) = tx.row_locked(sql, args![id, purpose, address, now_us()]).await? else {
            return Ok(CodeUse::Refused);
        };
        let tries_left = row.int("tries_left")?;
        let is_right = verify_slices_are_equal(row.text("code_hash")?.as_bytes(), code_hash.as_bytes()).is_ok();
        if is_right && tries_left > 0 {
            let user = row.id_or_null("user_id")?;
            tx.execute("UPDATE one_time_codes SET used_at = ? WHERE id = ?", args![now_us(), id]).await?;
            tx.commit().await?;
            return Ok(CodeUse::Accepted { user, address: address.to_owned() });
        }
        tx.execute("UPDATE one_time_codes SET tries_left = ? WHERE id = ?", args![(tries_left - 1).max(0), id]).await?;
        tx.commit().await?;
        Ok(CodeUse::Refused)
    }

    /// Presents a long token, which is found by itself.
    pub(crate) async fn use_token(&self, purpose: &'static str, token_hash: &str) -> Result<CodeUse, AccessError> {
        let mut tx = self.database.write().await?;
        let sql = "SELECT id, user_id, address FROM one_time_codes \
                   WHERE code_hash = ? AND purpose = ? AND used_at IS NULL AND expires_at > ?";
        let Some(row) = tx.row_locked(sql, args![token_hash, purpose, now_us()]).await? else {
            return Ok(CodeUse::Refused);
        };
        tx.execute("UPDATE one_time_codes SET used_at = ? WHERE id = ?", args![now_us(), row.id("id")?]).await?;
        let accepted = CodeUse::Accepted { user: row.id_or_null("user_id")?, address: row.text("address")? };
        tx.commit().await?;
        Ok(accepted)
    }

    /// Whether a long token would be accepted, without using it; answers its user.
    pub(crate) async fn find_token(
        &self,
        purpose: &'static str,
        token_hash: &str,
    ) -> Result<Option<Uuid>, AccessError> {
        let sql = "SELECT user_id FROM one_time_codes \
                   WHERE code_hash = ? AND purpose = ? AND used_at IS NULL AND expires_at > ?";
        let row = self.database.row(sql, args![token_hash, purpose, now_us()]).await?;
        Ok(row.map(|row| row.id_or_null("user_id")).transpose()?.flatten())
    }
}

async fn insert(tx: &mut Tx, row: &NewCodeRow) -> Result<(), AccessError> {
    let sql = "INSERT INTO one_time_codes (id, purpose, user_id, address, code_hash, tries_left, created_at, \
               expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let values = args![row.id, row.purpose, row.user, &row.address, &row.code_hash, row.tries, row.at, row.expires_at];
    tx.execute(sql, values).await?;
    Ok(())
}
