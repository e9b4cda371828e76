//! Temporary files that a crash left in a local lake: no listing of the store shows them.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

/// Removes temporary files below `folder` that are older than `age`; returns how many.
pub(crate) fn remove(folder: &Path, age: Duration) -> io::Result<u64> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            removed += remove(&entry.path(), age)?;
        } else if kind.is_file() && is_temporary(&entry.file_name().to_string_lossy()) {
            // One that is gone by now was in use.
            let Ok(found) = entry.metadata() else { continue };
            let written = found.modified()?;
            if SystemTime::now().duration_since(written).is_ok_and(|old| old >= age) {
                removed += u64::from(fs::remove_file(entry.path()).is_ok());
            }
        }
    }
    Ok(removed)
}

/// `name#digits`: ours, and those of the stock store.
fn is_temporary(name: &str) -> bool {
    let Some((_, number)) = name.rsplit_once('#') else { return false };
    !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_temporary_files_go_and_everything_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("_delta_log");
        fs::create_dir(&log).unwrap();
        for name in ["00000000000000000001.json", "00000000000000000001.json#1", "a#b.json", "part.parquet#77"] {
            fs::write(log.join(name), "x").unwrap();
        }
        assert_eq!(remove(folder.path(), Duration::from_secs(3600)).unwrap(), 0);
        assert_eq!(remove(folder.path(), Duration::ZERO).unwrap(), 2);
        assert!(log.join("a#b.json").exists() && log.join("00000000000000000001.json").exists());
    }
}
