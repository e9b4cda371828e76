//! The signing keys in the data folder.
//!
//! One PKCS#8 PEM file a key, named `<kid>.pem`; a kid is a UUID v7, so names sort by age. All keys verify. The newest signs
//! that was there long enough for every process, and everybody who holds our public keys, to know it. To rotate is to add a key
//! and to remove those whose last token has expired ([`rotate`]); running processes see both within seconds. A lock file
//! keeps two processes from both making a first key.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde_json::{Value, json};
use uuid::Uuid;

use super::signer::Signer;
use crate::AccessError;
use crate::time::{as_us, now_us};

/// Other processes notice within seconds that another key signs, by clocks that differ a little: the last token of a key is
/// that much younger.
const MARGIN: Duration = Duration::from_secs(60);

pub(crate) struct SigningKeys {
    pub kid: String,
    pub signer: Signer,
    pub verifying: HashMap<String, DecodingKey>,
    files: Vec<PathBuf>,
    jwks: Value,
}

/// What a rotation did.
#[derive(Debug)]
pub struct Rotation {
    /// The key that was added.
    pub added: Uuid,
    /// Keys that were removed, because their last token has expired.
    pub removed: Vec<String>,
}

impl SigningKeys {
    /// Loads every key in `folder`, making the first one when there is none. A key signs once it is as old as `activation`.
    /// Blocks: runs on a blocking thread.
    ///
    /// # Errors
    /// [`AccessError::Keys`] naming the file when a key is readable by everybody, unreadable, or not an RSA key.
    pub(crate) fn load_or_create(folder: &Path, activation: Duration) -> Result<Self, AccessError> {
        let _lock = lock(folder)?;
        let mut files = key_files(folder)?;
        if files.is_empty() {
            files.push(create_key(folder)?);
        }
        Self::from_files(files, activation)
    }

    /// The keys as they are now, when that is others than these, or another one signs. Blocks.
    ///
    /// # Errors
    /// As [`SigningKeys::load_or_create`].
    pub(crate) fn changed(&self, folder: &Path, activation: Duration) -> Result<Option<Self>, AccessError> {
        let files = key_files(folder)?;
        let signer = signer(&files, activation).and_then(|file| kid_of(file));
        if files == self.files && signer == Some(self.kid.as_str()) {
            return Ok(None);
        }
        Self::from_files(files, activation).map(Some)
    }

    /// The public keys as a JWK set (RFC 7517).
    pub(crate) fn jwks(&self) -> Value {
        self.jwks.clone()
    }

    fn from_files(files: Vec<PathBuf>, activation: Duration) -> Result<Self, AccessError> {
        let (mut signs, mut verifying, mut public) = (None, HashMap::new(), Vec::new());
        let signer = signer(&files, activation).cloned();
        for file in &files {
            let (kid, pem) = read_key(file)?;
            let bad = |e: &dyn std::fmt::Display| keys_error(file, &format!("not an RSA key in PKCS#8 PEM: {e}"));
            let signing = EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|e| bad(&e))?;
            let pair = KeyPair::from_der(signing.as_bytes()).map_err(|e| bad(&e))?;
            let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
            let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
            verifying.insert(kid.clone(), DecodingKey::from_rsa_raw_components(n, e));
            let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
            public.push(json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e}));
            if Some(file) == signer.as_ref() {
                signs = Some((Signer::new(&kid, pair)?, kid));
            }
        }
        let (signer, kid) = signs.ok_or_else(|| keys_error(Path::new("keys"), "there is no key"))?;
        Ok(Self { kid, signer, verifying, files, jwks: json!({ "keys": public }) })
    }
}

/// Adds a key, and removes those that no living token needs: tokens live for `token_life` from the last one that a key signed,
/// and a key signs until its successor is as old as `activation`. Blocks.
///
/// # Errors
/// [`AccessError::Keys`] naming the folder or the file.
pub(crate) fn rotate(folder: &Path, activation: Duration, token_life: Duration) -> Result<Rotation, AccessError> {
    let _lock = lock(folder)?;
    let files = key_files(folder)?;
    let mut removed = Vec::new();
    let noticed = activation.min(MARGIN);
    for pair in files.windows(2) {
        if age(&pair[1]).is_some_and(|age| age >= activation + token_life + noticed) {
            fs::remove_file(&pair[0]).map_err(|error| keys_error(&pair[0], &error.to_string()))?;
            removed.extend(kid_of(&pair[0]).map(str::to_owned));
        }
    }
    let added = create_key(folder)?;
    let kid = kid_of(&added).and_then(|kid| kid.parse().ok());
    Ok(Rotation { added: kid.ok_or_else(|| keys_error(&added, "its name is no UUID"))?, removed })
}

/// The newest key that is old enough, or else the oldest one. `files` are in order of age.
fn signer(files: &[PathBuf], activation: Duration) -> Option<&PathBuf> {
    // A name that says no age was put there by hand: it is taken for old.
    let is_known = |file: &&PathBuf| age(file).is_none_or(|age| age >= activation);
    files.iter().rfind(is_known).or_else(|| files.first())
}

/// How long ago a key was made, as its name says; nothing of one that is named otherwise.
fn age(file: &Path) -> Option<Duration> {
    let kid: Uuid = kid_of(file)?.parse().ok()?;
    let (seconds, nanos) = kid.get_timestamp()?.to_unix();
    let made = as_us(Duration::new(seconds, nanos));
    Some(Duration::from_micros(u64::try_from(now_us() - made).unwrap_or(0)))
}

fn kid_of(file: &Path) -> Option<&str> {
    file.file_stem()?.to_str()
}

/// Holds the folder, which it makes when it is absent, against other processes.
fn lock(folder: &Path) -> Result<File, AccessError> {
    let in_folder = |error: io::Error| keys_error(folder, &error.to_string());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(in_folder)?;
    let lock = private_file(&folder.join(".lock"), false).map_err(in_folder)?;
    lock.lock().map_err(in_folder)?;
    Ok(lock)
}

/// In order of age.
fn key_files(folder: &Path) -> Result<Vec<PathBuf>, AccessError> {
    let in_folder = |error: io::Error| keys_error(folder, &error.to_string());
    let entries =
        fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>()).map_err(in_folder)?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "pem"));
    files.sort();
    Ok(files)
}

fn read_key(file: &Path) -> Result<(String, String), AccessError> {
    let pem = read_private(file)?;
    let kid = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    Ok((kid, pem))
}

/// The text of a file that only its owner and group may read. Blocks.
///
/// # Errors
/// [`AccessError::Keys`] naming the file when others may read it too, or it cannot be read.
pub(crate) fn read_private(file: &Path) -> Result<String, AccessError> {
    let place = fs::canonicalize(file).map_err(|e| keys_error(file, &e.to_string()))?;
    let mode = fs::metadata(&place).map_err(|e| keys_error(file, &e.to_string()))?.permissions().mode();
    // What a container is given there is seen by nobody else, and is readable by all inside it.
    if mode & 0o007 != 0 && !place.starts_with("/run/secrets") {
        let mode = mode & 0o777;
        return Err(keys_error(
            file,
            &format!("everybody may read or change it (mode {mode:o}): run `chmod 600` on it"),
        ));
    }
    fs::read_to_string(file).map_err(|e| keys_error(file, &e.to_string()))
}

/// Writes beside, syncs, then renames: after a crash there is either no key or a whole one.
fn create_key(folder: &Path) -> Result<PathBuf, AccessError> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|e| keys_error(folder, &format!("no new key: {e}")))?;
    let pem = pem_of(&pair).map_err(|e| keys_error(folder, &format!("no new key: {e}")))?;
    let file = folder.join(format!("{}.pem", Uuid::now_v7()));
    let beside = file.with_extension("new");
    let write = || -> io::Result<()> {
        let mut out = private_file(&beside, true)?;
        out.write_all(pem.as_bytes())?;
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

/// A private key as its file holds it.
pub(super) fn pem_of(pair: &KeyPair) -> Result<String, Unspecified> {
    let der = AsDer::<Pkcs8V1Der>::as_der(pair)?;
    let body = STANDARD.encode(der.as_ref());
    let mut pem = String::with_capacity(body.len() + body.len() / 64 + 64);
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    for (at, c) in body.char_indices() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(c);
    }
    pem.push_str("\n-----END PRIVATE KEY-----\n");
    Ok(pem)
}

pub(crate) fn keys_error(path: &Path, reason: &str) -> AccessError {
    AccessError::Keys { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_makes_one_private_key_and_later_starts_keep_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys");
        let first = SigningKeys::load_or_create(&folder, Duration::ZERO).unwrap();
        let second = SigningKeys::load_or_create(&folder, Duration::ZERO).unwrap();
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
            let start = || SigningKeys::load_or_create(dir.path(), Duration::ZERO).map(|keys| keys.kid);
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|t| t.join().unwrap().unwrap()).collect()
        });
        assert!(kids.iter().all(|kid| *kid == kids[0]), "{kids:?}");
    }

    #[test]
    fn security_31_a_second_key_signs_the_first_still_verifies_and_a_removed_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let first = SigningKeys::load_or_create(dir.path(), Duration::ZERO).unwrap();
        create_key(dir.path()).unwrap();
        let both = SigningKeys::load_or_create(dir.path(), Duration::ZERO).unwrap();
        assert_ne!(first.kid, both.kid);
        assert!(both.verifying.contains_key(&first.kid));
        assert_eq!(both.jwks()["keys"].as_array().unwrap().len(), 2);
        fs::remove_file(dir.path().join(format!("{}.pem", first.kid))).unwrap();
        let after = SigningKeys::load_or_create(dir.path(), Duration::ZERO).unwrap();
        assert!(!after.verifying.contains_key(&first.kid) && after.kid == both.kid);
    }

    #[test]
    fn a_new_key_signs_when_everybody_knows_it_and_an_old_one_goes_when_no_token_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let hour = Duration::from_secs(3600);
        let first = SigningKeys::load_or_create(dir.path(), hour).unwrap();
        assert!(first.changed(dir.path(), hour).unwrap().is_none());
        let rotation = rotate(dir.path(), hour, hour).unwrap();
        assert!(rotation.removed.is_empty());
        let both = first.changed(dir.path(), hour).unwrap().unwrap();
        assert_eq!((&both.kid, both.verifying.len()), (&first.kid, 2));
        // It is old enough for those who know it at once.
        let after = both.changed(dir.path(), Duration::ZERO).unwrap().unwrap();
        assert_eq!(after.kid, rotation.added.to_string());
        // The second is too young for the first to go, and then it is not.
        assert!(rotate(dir.path(), hour, hour).unwrap().removed.is_empty());
        let removed = rotate(dir.path(), Duration::ZERO, Duration::ZERO).unwrap().removed;
        assert!(removed.contains(&first.kid) && removed.len() == 2, "{removed:?}");
    }

    #[test]
    fn a_key_that_everybody_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let kid = SigningKeys::load_or_create(dir.path(), Duration::ZERO).unwrap().kid;
        let file = dir.path().join(format!("{kid}.pem"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let error = SigningKeys::load_or_create(dir.path(), Duration::ZERO).err().unwrap().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
