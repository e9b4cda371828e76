//! The secret of the instance, which signs receipts and cursors.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use secrecy::SecretBox;

use crate::failure::{Failure, Result};

/// As many as the hash behind the signatures has: shorter ones are what is guessed first.
const MIN_BYTES: usize = 32;

/// Reads `instance.secret` of the folder of keys, and makes it at the first start.
///
/// One that is too short is refused and not replaced: it was cut or typed in, and a new one would make every receipt
/// and cursor void without a word.
pub fn load_or_create(folder: &Path) -> Result<SecretBox<[u8]>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join("instance.secret");
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => create(folder, &path)?,
        bytes => bytes.map_err(|error| Failure::configuration(format!("cannot read `{}`: {error}", path.display())))?,
    };
    if bytes.len() < MIN_BYTES {
        return Err(Failure::configuration(format!(
            "`{}` has {} bytes, and a secret has at least {MIN_BYTES}: put the whole file back, or remove it for a new \
             one, which voids receipts and cursors",
            path.display(),
            bytes.len()
        )));
    }
    Ok(SecretBox::new(bytes.into_boxed_slice()))
}

/// Written beside and then linked: after a crash there is none or a whole one, and of two processes that start together
/// one makes it.
fn create(folder: &Path, path: &Path) -> std::io::Result<Vec<u8>> {
    let bytes: [u8; MIN_BYTES] = rand::random();
    let beside = folder.join(format!("instance.secret.{}", hex::encode(rand::random::<[u8; 8]>())));
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    match fs::hard_link(&beside, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => fs::remove_file(&beside)?,
    }
    fs::read(path)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_first_start_makes_a_secret_and_later_ones_keep_it() {
        let data = tempfile::tempdir().unwrap();
        let keys = data.path().join("keys");
        let first = load_or_create(&keys).unwrap();
        let second = load_or_create(&keys).unwrap();
        assert_eq!(first.expose_secret().len(), MIN_BYTES);
        assert_eq!(first.expose_secret(), second.expose_secret());
        assert_eq!(fs::read_dir(keys).unwrap().count(), 1);
    }

    #[test]
    fn security_09_a_short_secret_is_refused_and_left_as_it_is() {
        let keys = tempfile::tempdir().unwrap();
        let path = keys.path().join("instance.secret");
        for short in ["", "changeme", &"x".repeat(MIN_BYTES - 1)] {
            fs::write(&path, short).unwrap();
            assert!(load_or_create(keys.path()).is_err(), "{short:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), short);
        }
    }
}
