//! Codes and links that work once: making them and their messages.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use crate::secret::{random_digits, random_hex, sha256, sha256_hex};
use crate::send::Mail;
use crate::store::{NewCodeRow, User};
use crate::time::{as_us, now_us};
use crate::{Access, AccessError};

/// How long links and numbers in messages work.
const LINK_LIFE: Duration = Duration::from_secs(15 * 60);
pub(crate) const NUMBER_LIFE: Duration = Duration::from_secs(10 * 60);
/// Wrong tries that a short code survives, the right one included.
const NUMBER_TRIES: i64 = 5;

pub(crate) const RESET: &str = "reset";
pub(crate) const VERIFY: &str = "verify";
pub(crate) const MFA: &str = "mfa";
pub(crate) const PHONE: &str = "phone";
pub(crate) const PASSKEY: &str = "passkey";
pub(crate) const SECURITY_KEY: &str = "security_key";
pub(crate) const PASSKEY_LOGIN: &str = "passkey_login";
pub(crate) const STREAM: &str = "stream";

impl Access {
    /// The token of a link for a purpose; older ones for the same address die.
    pub(crate) async fn issue_token(
        &self,
        purpose: &'static str,
        user: Uuid,
        address: &str,
    ) -> Result<SecretString, AccessError> {
        let (token, row) = new_token(purpose, user, address, LINK_LIFE)?;
        self.inner.store.create_code(&row).await?;
        Ok(token)
    }

    /// A code of six digits, bound to a purpose, a number and the request for it; older ones for the number die.
    pub(crate) async fn issue_number(
        &self,
        purpose: &'static str,
        address: &str,
        code_request: &str,
    ) -> Result<String, AccessError> {
        let code = random_digits(6)?;
        let at = now_us();
        let row = NewCodeRow {
            id: row_of_request(code_request),
            purpose,
            user: None,
            address: address.to_owned(),
            code_hash: number_hash(purpose, address, code_request, &code),
            tries: NUMBER_TRIES,
            at,
            expires_at: at + as_us(NUMBER_LIFE),
        };
        self.inner.store.create_code(&row).await?;
        Ok(code)
    }

    /// Sends the link that shows that an address is the account's own.
    pub(crate) async fn send_verification(&self, user: &User) -> Result<(), AccessError> {
        let Some(email) = &user.email else { return Ok(()) };
        let key = email.to_ascii_lowercase();
        let token = self.issue_token(VERIFY, user.id, &key).await?;
        let link = self.link("verify-email", &token);
        self.mail(
            email,
            "Confirm your e-mail address",
            &format!(
                "Hello {},\n\nplease confirm that this address is yours:\n\n{link}\n\nThe link works once, for {} \
                 minutes. When they are over, ask for another one, or reset your password: that confirms the address \
                 too. If you did not ask for it, do nothing.\n",
                user.username,
                link_minutes()
            ),
        );
        Ok(())
    }

    /// Tells the owner of an account, at its stored address, that something about it changed.
    pub(crate) fn notify(&self, user: &User, what: &str) {
        if let Some(email) = &user.email {
            let text = format!(
                "Hello {},\n\n{what}\n\nIf it was not you, reset your password at {} and end your sessions.\n",
                user.username, self.inner.settings.public_url
            );
            self.mail(email, "Your account was changed", &text);
        }
    }

    pub(crate) fn mail(&self, to: &str, subject: &'static str, text: &str) {
        self.inner.post.mail(Mail { to: to.to_owned(), subject, text: text.to_owned().into() });
    }

    /// A link to this instance, whatever the request called it. The token stands behind `#`, which browsers keep to
    /// themselves: it reaches no log and no `Referer`.
    pub(crate) fn link(&self, page: &str, token: &SecretString) -> String {
        use secrecy::ExposeSecret;
        let base = self.inner.settings.public_url.trim_end_matches('/');
        format!("{base}/{page}#token={}", token.expose_secret())
    }
}

/// How long links work, for the texts that say so.
pub(crate) fn link_minutes() -> u64 {
    LINK_LIFE.as_secs() / 60
}

/// A long token and the row that it is known by.
pub(crate) fn new_token(
    purpose: &'static str,
    user: Uuid,
    address: &str,
    life: Duration,
) -> Result<(SecretString, NewCodeRow), AccessError> {
    let token = random_hex::<32>()?;
    let at = now_us();
    let row = NewCodeRow {
        id: Uuid::now_v7(),
        purpose,
        user: Some(user),
        address: address.to_owned(),
        code_hash: sha256_hex(&token),
        tries: 1,
        at,
        expires_at: at + as_us(life),
    };
    Ok((token.into(), row))
}

/// The row of the code that a request asked for. The request itself is kept nowhere: whoever reads the database knows
/// the row and cannot ask for it.
pub(crate) fn row_of_request(code_request: &str) -> Uuid {
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&sha256(code_request)[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// Six digits could be tried out against a plain hash. With the request, which only who asked for the code knows, they
/// cannot; and they live for minutes and die after five tries.
pub(crate) fn number_hash(purpose: &str, address: &str, code_request: &str, code: &str) -> String {
    sha256_hex(&json!([purpose, address, code_request, code]).to_string())
}
