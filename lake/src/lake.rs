//! The root of all tables.

use std::sync::Arc;

use object_store::ObjectStore;
use url::Url;

use crate::{Error, Result, Table, TableSpec};

/// A folder or bucket that holds the tables of one Karat.
#[derive(Debug, Clone)]
pub struct Lake {
    /// Ends with a slash.
    root: Url,
}

impl Lake {
    /// A lake in a local folder, created when missing, or at a `file://` or `s3://` address. Nothing is asked yet.
    pub fn at(location: &str) -> Result<Self> {
        let wrong = || Error::Location(location.to_owned());
        let folder = match Url::parse(location) {
            Ok(url) if url.scheme() == "s3" => return Ok(Self { root: bucket(url).ok_or_else(wrong)? }),
            Ok(url) if url.scheme() == "file" => url.to_file_path().map_err(|()| wrong())?,
            Ok(url) if location.starts_with(&format!("{}://", url.scheme())) => return Err(wrong()),
            _ => location.into(),
        };
        std::fs::create_dir_all(&folder).map_err(|_| wrong())?;
        let folder = std::fs::canonicalize(folder).map_err(|_| wrong())?;
        Ok(Self { root: Url::from_directory_path(folder).map_err(|()| wrong())? })
    }

    /// Looks whether the store behind the lake can be reached and has what Karat rests on. Writes nothing that stays.
    ///
    /// # Errors
    /// [`Error::Unusable`] or [`Error::Unreachable`], with the reason.
    pub async fn require_usable(&self) -> Result<()> {
        if self.root.scheme() != "s3" {
            return Ok(());
        }
        let location = self.root.to_string();
        // Settings that no client can be made of are found here first.
        if let Err(error) = crate::s3::store_of(&self.root) {
            return Err(Error::Unusable { location, reason: error.to_string() });
        }
        match crate::s3::require_put_if_absent(&self.store("_karat/check")?).await {
            Ok(()) => Ok(()),
            Err(crate::s3::Wrong::Unusable(reason)) => Err(Error::Unusable { location, reason }),
            Err(crate::s3::Wrong::Unreachable(reason)) => Err(Error::Unreachable { location, reason }),
        }
    }

    /// Whether it is a folder of this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.root.scheme() == "file"
    }

    /// The URL of the table with the full name `layer.table`.
    pub fn table_url(&self, name: &str) -> Result<Url> {
        let folder = format!("{}/", name.replacen('.', "/", 1));
        self.root.join(&folder).map_err(|_| Error::Location(folder))
    }

    pub async fn open_or_create(&self, spec: &TableSpec) -> Result<Table> {
        Table::open_or_create(&self.table_url(&spec.name)?, spec).await
    }

    pub async fn open(&self, name: &str) -> Result<Table> {
        Table::open(&self.table_url(name)?, name).await
    }

    pub async fn open_at(&self, name: &str, version: u64) -> Result<Table> {
        Table::open_at(&self.table_url(name)?, name, Some(version)).await
    }

    /// The files of the lake, rooted at it. `what` is read or written, for the error.
    pub(crate) fn store(&self, what: &str) -> Result<Arc<dyn ObjectStore>> {
        crate::stores::register();
        let no_options: [(String, String); 0] = [];
        deltalake::logstore::store_for(&self.root, no_options).map_err(|source| Error::storage(what, source))
    }

    /// The files of one table, rooted at its folder.
    pub(crate) fn store_of(&self, table: &str) -> Result<Arc<dyn ObjectStore>> {
        crate::stores::register();
        let no_options: [(String, String); 0] = [];
        let url = self.table_url(table)?;
        deltalake::logstore::store_for(&url, no_options).map_err(|source| Error::storage(table, source))
    }

    pub fn root(&self) -> &Url {
        &self.root
    }
}

/// `s3://BUCKET/PREFIX/`: keys and settings are not part of an address, which is printed.
fn bucket(mut url: Url) -> Option<Url> {
    let is_plain = url.username().is_empty() && url.password().is_none() && url.port().is_none();
    if !is_plain || url.query().is_some() || url.fragment().is_some() || url.host_str().is_none_or(str::is_empty) {
        return None;
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_folder_or_a_bucket_and_nothing_secret() {
        let root = |location: &str| Lake::at(location).map(|lake| lake.root().to_string()).ok();
        assert_eq!(root("s3://lake/karat/one").as_deref(), Some("s3://lake/karat/one/"));
        assert_eq!(root("s3://lake").as_deref(), Some("s3://lake/"));
        let table = Lake::at("s3://lake/one").unwrap().table_url("gold.t").unwrap();
        assert_eq!(table.as_str(), "s3://lake/one/gold/t/");
        for wrong in ["s3://", "s3:///one", "s3://id:key@lake/one", "s3://lake/one?secret=1", "gs://lake/one"] {
            assert_eq!(root(wrong), None, "{wrong}");
        }
        let folder = tempfile::tempdir().unwrap();
        let url = Url::from_file_path(folder.path().canonicalize().unwrap().join("lake")).unwrap();
        // With and without the slash.
        assert_eq!(root(url.as_str()), Some(format!("{url}/")));
        assert_eq!(root(&format!("{url}/")), Some(format!("{url}/")));
    }
}
