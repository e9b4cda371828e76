//! A local file system that keeps what it acknowledged through a power cut.
//!
//! Neither delta-rs nor object_store 0.13 calls `fsync`: a commit that was answered can vanish, or come back with
//! length zero and no error. This store writes to a temporary name, syncs the file, then makes it visible by a link
//! (put-if-absent) or a rename, and syncs the folder, all before it answers. Reads go to the stock implementation.
//!
//! It is behind every `file://` table of the process.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use deltalake::{
    DeltaResult,
    logstore::{ObjectStoreFactory, ObjectStoreRef, StorageConfig, object_store_factories},
};
use futures::{FutureExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart, local::LocalFileSystem,
    path::Path,
};
use url::Url;

use crate::faulty::{self, Stage};

/// Makes every `file://` table of this process durable. Idempotent.
pub(crate) fn register() {
    if let Ok(scheme) = Url::parse("file://") {
        object_store_factories().insert(scheme, Arc::new(DurableFactory));
    }
}

struct DurableFactory;

impl ObjectStoreFactory for DurableFactory {
    fn parse_url_opts(&self, url: &Url, _config: &StorageConfig) -> DeltaResult<(ObjectStoreRef, Path)> {
        let path = Path::from_url_path(url.path()).map_err(Error::from)?;
        Ok((Arc::new(DurableFileSystem::new()), path))
    }
}

/// See the module.
#[derive(Debug)]
pub struct DurableFileSystem {
    inner: LocalFileSystem,
}

impl DurableFileSystem {
    pub fn new() -> Self {
        Self { inner: LocalFileSystem::new() }
    }
}

impl Default for DurableFileSystem {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for DurableFileSystem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DurableFileSystem")
    }
}

#[async_trait]
impl ObjectStore for DurableFileSystem {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let target = self.inner.path_to_filesystem(location)?;
        let is_create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotSupported { source: "conditional updates of local files".into() });
            }
        };
        let name = location.to_string();
        blocking(move || {
            faulty::at(Stage::Write, &target).map_err(|error| failed(&name, error))?;
            let temporary = Temporary::create(&target).map_err(|error| failed(&name, error))?;
            let mut offset = 0;
            for chunk in &payload {
                temporary.file.write_all_at(chunk, offset).map_err(|error| failed(&name, error))?;
                offset += chunk.len() as u64;
            }
            temporary.publish(&target, is_create).map_err(|error| failed(&name, error))
        })
        .await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let target = self.inner.path_to_filesystem(location)?;
        let name = location.to_string();
        let error_name = name.clone();
        let (temporary, target) = blocking(move || {
            faulty::at(Stage::Write, &target).map_err(|error| failed(&error_name, error))?;
            let temporary = Temporary::create(&target).map_err(|error| failed(&error_name, error))?;
            Ok((Arc::new(temporary), target))
        })
        .await?;
        Ok(Box::new(DurableUpload { name, target, temporary: Some(temporary), offset: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// A file under a name that listings ignore (`#` and digits), removed unless it is published.
#[derive(Debug)]
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn create(target: &FilePath) -> io::Result<Self> {
        let path = PathBuf::from(format!("{}#{}", target.display(), rand::random::<u32>()));
        match File::create_new(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_folders(target.parent().unwrap_or(FilePath::new("/")))?;
                Ok(Self { file: File::create_new(&path)?, path })
            }
            Err(error) => Err(error),
        }
    }

    fn publish(&self, target: &FilePath, is_create: bool) -> io::Result<()> {
        faulty::at(Stage::Sync, target)?;
        self.file.sync_all()?;
        if is_create {
            fs::hard_link(&self.path, target)?;
        } else {
            fs::rename(&self.path, target)?;
        }
        faulty::at(Stage::Folder, target)?;
        sync_folder(target.parent().unwrap_or(FilePath::new("/")))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already after a rename; a leftover of a crash is ignored by listings and removed by vacuum.
        let _ = fs::remove_file(&self.path);
    }
}

/// Creates a folder and its missing parents, each durable in its own parent.
fn create_folders(folder: &FilePath) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(FilePath::new("/"));
    create_folders(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(parent)
}

/// Makes the names in a folder below `root` durable, where it is a local one: after a write that failed once its file had
/// its name.
pub(crate) async fn keep_names(root: &Url, folder: &str) -> Result<()> {
    let Ok(path) = root.to_file_path().map(|root| root.join(folder)) else { return Ok(()) };
    let name = path.display().to_string();
    blocking(move || {
        faulty::at(Stage::Folder, &path.join(""))
            .and_then(|()| sync_folder(&path))
            .map_err(|error| failed(&name, error))
    })
    .await
}

fn sync_folder(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[derive(Debug)]
struct DurableUpload {
    name: String,
    target: PathBuf,
    temporary: Option<Arc<Temporary>>,
    offset: u64,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        let start = self.offset;
        self.offset += payload.content_length() as u64;
        let (temporary, name) = (self.temporary.clone(), self.name.clone());
        async move {
            let Some(temporary) = temporary else { return Err(ended(&name)) };
            blocking(move || {
                let mut offset = start;
                for chunk in &payload {
                    temporary.file.write_all_at(chunk, offset).map_err(|error| failed(&name, error))?;
                    offset += chunk.len() as u64;
                }
                Ok(())
            })
            .await
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let Some(temporary) = self.temporary.take() else { return Err(ended(&self.name)) };
        let (target, name) = (self.target.clone(), self.name.clone());
        blocking(move || temporary.publish(&target, false).map_err(|error| failed(&name, error))).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        self.temporary = None;
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| Error::JoinError { source })?
}

fn failed(name: &str, error: io::Error) -> Error {
    let path = name.to_owned();
    match error.kind() {
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: error.into() },
        io::ErrorKind::NotFound => Error::NotFound { path, source: error.into() },
        _ => Error::Generic { store: "DurableFileSystem", source: format!("`{path}`: {error}").into() },
    }
}

fn ended(name: &str) -> Error {
    Error::Generic { store: "DurableFileSystem", source: format!("upload of `{name}` has ended").into() }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    fn location(folder: &tempfile::TempDir, name: &str) -> Path {
        Path::from_filesystem_path(folder.path()).unwrap().join(name)
    }

    #[tokio::test]
    async fn a_second_create_of_one_name_is_refused_and_leaves_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableFileSystem::new();
        let name = Path::from(format!("{}/deep/er/0.json", location(&folder, "x")));
        let create = || PutOptions { mode: PutMode::Create, ..Default::default() };
        store.put_opts(&name, "first".into(), create()).await.unwrap();
        let second = store.put_opts(&name, "second".into(), create()).await;
        assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
        assert_eq!(store.get(&name).await.unwrap().bytes().await.unwrap(), "first");
    }

    #[tokio::test]
    async fn an_upload_in_parts_is_whole_and_an_aborted_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableFileSystem::new();
        let name = location(&folder, "data.parquet");
        let mut upload = store.put_multipart(&name).await.unwrap();
        let parts = [upload.put_part("one,".into()), upload.put_part("two".into())];
        for part in parts {
            part.await.unwrap();
        }
        upload.complete().await.unwrap();
        assert_eq!(store.get(&name).await.unwrap().bytes().await.unwrap(), "one,two");
        let mut aborted = store.put_multipart(&location(&folder, "other")).await.unwrap();
        aborted.put_part("lost".into()).await.unwrap();
        aborted.abort().await.unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
