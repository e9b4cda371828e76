//! The signing keys in the data folder.
//!
//! One PKCS#8 PEM file a key, named `<kid>.pem`; a kid is a UUID v7, so names sort by age. The newest key signs, all of
//! them verify: to rotate, add a key, and remove the old one when its last token has expired. A lock file keeps two
//! processes from both making a first key.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::AccessError;

pub(crate) struct SigningKeys {
    pub kid: String,
    pub signing: EncodingKey,
    pub verifying: HashMap<String, DecodingKey>,
    jwks: Value,
}

impl SigningKeys {
    /// Loads every key in `folder`, making the first one when there is none. Blocks: runs on a blocking thread.
    ///
    /// # Errors
    /// [`AccessError::Keys`] naming the file when a key is readable by everybody, unreadable, or not an RSA key.
    pub(crate) fn load_or_create(folder: &Path) -> Result<Self, AccessError> {
        let in_folder = |e: io::Error| keys_error(folder, &e.to_string());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(in_folder)?;
        let lock = private_file(&folder.join(".lock"), false).map_err(in_folder)?;
        lock.lock().map_err(in_folder)?;
        let mut files = key_files(folder).map_err(in_folder)?;
        if files.is_empty() {
            files.push(create_key(folder)?);
        }
        Self::from_files(&files)
    }

    /// The public keys as a JWK set (RFC 7517).
    pub(crate) fn jwks(&self) -> Value {
        self.jwks.clone()
    }

    fn from_files(files: &[PathBuf]) -> Result<Self, AccessError> {
        let (mut newest, mut verifying, mut public) = (None, HashMap::new(), Vec::new());
        for file in files {
            let (kid, pem) = read_key(file)?;
            let bad = |e: &dyn std::fmt::Display| keys_error(file, &format!("not an RSA key in PKCS#8 PEM: {e}"));
            let signing = EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|e| bad(&e))?;
            let pair = KeyPair::from_der(signing.as_bytes()).map_err(|e| bad(&e))?;
            let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
            let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
            verifying.insert(kid.clone(), DecodingKey::from_rsa_raw_components(n, e));
            let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
            public.push(json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e}));
            // Files come in order of age.
            newest = Some((kid, signing));
        }
        let (kid, signing) = newest.ok_or_else(|| keys_error(Path::new("keys"), "there is no key"))?;
        Ok(Self { kid, signing, verifying, jwks: json!({ "keys": public }) })
    }
}

fn key_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "pem"));
    files.sort();
    Ok(files)
}

fn read_key(file: &Path) -> Result<(String, String), AccessError> {
    let mode = fs::metadata(file).map_err(|e| keys_error(file, &e.to_string()))?.permissions().mode();
    if mode & 0o007 != 0 {
        let mode = mode & 0o777;
        return Err(keys_error(
            file,
            &format!("everybody may read or change it (mode {mode:o}): run `chmod 600` on it"),
        ));
    }
    let kid = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    let pem = fs::read_to_string(file).map_err(|e| keys_error(file, &e.to_string()))?;
    Ok((kid, pem))
}

/// Writes beside, syncs, then renames: after a crash there is either no key or a whole one.
fn create_key(folder: &Path) -> Result<PathBuf, AccessError> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|e| keys_error(folder, &format!("no new key: {e}")))?;
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der>::as_der(&pair)
        .map_err(|e| keys_error(folder, &format!("no new key: {e}")))?;
    let file = folder.join(format!("{}.pem", Uuid::now_v7()));
    let beside = file.with_extension("new");
    let write = || -> io::Result<()> {
        let mut out = private_file(&beside, true)?;
        out.write_all(to_pem(der.as_ref()).as_bytes())?;
        out.sync_all()?;
        fs::rename(&beside, &file)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| keys_error(&file, &e.to_string()))?;
    tracing::info!(file = %file.display(), "made a signing key");
    Ok(file)
}

fn private_file(path: &Path, is_new: bool) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).create_new(is_new).truncate(false).mode(0o600).open(path)
}

fn to_pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut pem = String::with_capacity(body.len() + body.len() / 64 + 64);
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    for (at, c) in body.char_indices() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(c);
    }
    pem.push_str("\n-----END PRIVATE KEY-----\n");
    pem
}

fn keys_error(path: &Path, reason: &str) -> AccessError {
    AccessError::Keys { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_makes_one_private_key_and_later_starts_keep_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys");
        let first = SigningKeys::load_or_create(&folder).unwrap();
        let second = SigningKeys::load_or_create(&folder).unwrap();
        assert_eq!((&first.kid, first.jwks()), (&second.kid, second.jwks()));
        let file = folder.join(format!("{}.pem", first.kid));
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(first.jwks()["keys"][0]["alg"], "RS256");
        assert!(first.jwks()["keys"][0].get("d").is_none());
    }

    #[test]
    fn processes_that_start_together_agree_on_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let kids: Vec<String> = std::thread::scope(|scope| {
            let start = || SigningKeys::load_or_create(dir.path()).map(|keys| keys.kid);
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|t| t.join().unwrap().unwrap()).collect()
        });
        assert!(kids.iter().all(|kid| *kid == kids[0]), "{kids:?}");
    }

    #[test]
    fn security_31_a_second_key_signs_the_first_still_verifies_and_a_removed_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let first = SigningKeys::load_or_create(dir.path()).unwrap();
        create_key(dir.path()).unwrap();
        let both = SigningKeys::load_or_create(dir.path()).unwrap();
        assert_ne!(first.kid, both.kid);
        assert!(both.verifying.contains_key(&first.kid));
        assert_eq!(both.jwks()["keys"].as_array().unwrap().len(), 2);
        fs::remove_file(dir.path().join(format!("{}.pem", first.kid))).unwrap();
        let after = SigningKeys::load_or_create(dir.path()).unwrap();
        assert!(!after.verifying.contains_key(&first.kid) && after.kid == both.kid);
    }

    #[test]
    fn a_key_that_everybody_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let kid = SigningKeys::load_or_create(dir.path()).unwrap().kid;
        let file = dir.path().join(format!("{kid}.pem"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let error = SigningKeys::load_or_create(dir.path()).err().unwrap().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
