//! The name of a lake, by which its processes know each other: `_karat/lake.json`, written put-if-absent.
//!
//! Where a lake is does not name it: processes may reach it by different paths.

use object_store::{ObjectStoreExt, PutMode, PutOptions, path::Path};

use crate::{Error, Lake, Result};

impl Lake {
    /// The name of this lake, the same for ever; given at the first call.
    pub async fn identity(&self) -> Result<String> {
        let (store, path) = (self.store("_karat/lake.json")?, Path::from("_karat").join("lake.json"));
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        let new = serde_json::json!({ "id": uuid::Uuid::new_v4().simple().to_string() }).to_string();
        loop {
            match store.get(&path).await {
                Ok(found) => {
                    let found: serde_json::Value = serde_json::from_slice(&found.bytes().await?)?;
                    let damaged = || Error::Location("_karat/lake.json".to_owned());
                    return found["id"].as_str().map(str::to_owned).ok_or_else(damaged);
                }
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            match store.put_opts(&path, new.clone().into(), options.clone()).await {
                // What is there now is the name, whoever gave it.
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lake_has_one_name_whoever_asks_first() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let again = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let (one, other) = tokio::join!(lake.identity(), again.identity());
        assert_eq!(one.unwrap(), other.unwrap());
        let elsewhere = tempfile::tempdir().unwrap();
        let elsewhere = Lake::at(elsewhere.path().to_str().unwrap()).unwrap();
        assert_ne!(lake.identity().await.unwrap(), elsewhere.identity().await.unwrap());
    }
}
