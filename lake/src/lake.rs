//! The root of all tables.

use std::sync::Arc;

use object_store::ObjectStore;
use url::Url;

use crate::{Error, Result, Table, TableSpec};

/// A folder or bucket that holds the tables of one Karat.
#[derive(Debug, Clone)]
pub struct Lake {
    root: Url,
}

impl Lake {
    /// A lake in a local folder, created when missing, or at a URL.
    pub fn at(location: &str) -> Result<Self> {
        let root = match Url::parse(location) {
            Ok(url) if !url.cannot_be_a_base() && url.scheme().len() > 1 => url,
            _ => {
                std::fs::create_dir_all(location).map_err(|_| Error::Location(location.to_owned()))?;
                let folder = std::fs::canonicalize(location).map_err(|_| Error::Location(location.to_owned()))?;
                Url::from_directory_path(folder).map_err(|()| Error::Location(location.to_owned()))?
            }
        };
        Ok(Self { root })
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
        crate::durable::register();
        let no_options: [(String, String); 0] = [];
        deltalake::logstore::store_for(&self.root, no_options).map_err(|source| Error::storage(what, source))
    }

    /// The files of one table, rooted at its folder.
    pub(crate) fn store_of(&self, table: &str) -> Result<Arc<dyn ObjectStore>> {
        crate::durable::register();
        let no_options: [(String, String); 0] = [];
        let url = self.table_url(table)?;
        deltalake::logstore::store_for(&url, no_options).map_err(|source| Error::storage(table, source))
    }

    pub fn root(&self) -> &Url {
        &self.root
    }
}
