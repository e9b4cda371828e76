//! Sealing secrets that must be read again: AES-256-GCM under a key beside the signing keys.
//!
//! A copy of the database alone does not hold them. The account's id is bound in, so that a sealed secret that is
//! moved to another account does not open.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::aead::Nonce;
use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use uuid::Uuid;

use crate::AccessError;

pub(crate) struct Seal(RandomizedNonceKey);

impl Seal {
    /// Loads the key `sealing.key`, making it when it is absent. Blocks: runs on a blocking thread.
    pub(crate) fn load_or_create(folder: &Path) -> Result<Self, AccessError> {
        let file = folder.join("sealing.key");
        let failed = |reason: String| AccessError::Keys { path: file.clone(), reason };
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create(&file).map_err(|e| failed(e.to_string()))?
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        let key = hex::decode(text.trim()).map_err(|_| failed("not a key in hex".to_owned()))?;
        let key =
            RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| failed("not a key of 32 bytes".to_owned()))?;
        Ok(Self(key))
    }

    pub(crate) fn seal(&self, owner: Uuid, plain: &[u8]) -> Result<String, AccessError> {
        let mut bytes = plain.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(owner.as_bytes()), &mut bytes);
        let nonce = nonce.map_err(|_| AccessError::Hash("a secret could not be sealed".to_owned()))?;
        Ok(format!("{}{}", hex::encode(nonce.as_ref()), hex::encode(bytes)))
    }

    pub(crate) fn open(&self, owner: Uuid, sealed: &str) -> Result<Vec<u8>, AccessError> {
        let wrong =
            || AccessError::Corrupt { column: "mfa_factors.secret", found: "a secret under another key".to_owned() };
        let mut bytes = hex::decode(sealed).map_err(|_| wrong())?;
        if bytes.len() < 12 {
            return Err(wrong());
        }
        let mut secret = bytes.split_off(12);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| wrong())?;
        let plain = self.0.open_in_place(nonce, Aad::from(owner.as_bytes()), &mut secret).map_err(|_| wrong())?;
        Ok(plain.to_vec())
    }
}

/// Another process may make it at the same time: whoever links its file first has made it.
fn create(file: &Path) -> std::io::Result<String> {
    let failed = || std::io::Error::other("the system's random generator failed");
    let key = crate::secret::random_hex::<32>().map_err(|_| failed())?;
    let beside = file.with_extension(format!("{}.new", Uuid::now_v7()));
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    out.write_all(key.as_bytes())?;
    out.sync_all()?;
    match std::fs::hard_link(&beside, file) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => std::fs::remove_file(&beside)?,
    }
    std::fs::read_to_string(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_for_its_owner_and_under_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let seal = Seal::load_or_create(folder.path()).unwrap();
        let (owner, other) = (Uuid::now_v7(), Uuid::now_v7());
        let sealed = seal.seal(owner, b"a secret").unwrap();
        assert!(!sealed.contains(&hex::encode("a secret")));
        let again = Seal::load_or_create(folder.path()).unwrap();
        assert_eq!(again.open(owner, &sealed).unwrap(), b"a secret");
        assert!(again.open(other, &sealed).is_err());
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(Seal::load_or_create(elsewhere.path()).unwrap().open(owner, &sealed).is_err());
        assert!(seal.open(owner, "00").is_err() && seal.open(owner, "zz").is_err());
    }
}
