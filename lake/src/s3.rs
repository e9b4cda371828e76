//! Lakes in buckets of S3, and of servers that speak its protocol.
//!
//! Guarantees:
//! - Put-if-absent is `If-None-Match: *`, and its outcome is what is there afterwards, not what an answer said
//!   (`store`): a put whose answer is lost, late or wrong is told from somebody else's.
//! - A server that ignores the condition, or takes it without holding it against two at once, is refused by name
//!   ([`crate::Lake::require_usable`]).
//! - Requests run on threads of their own: neither steps that keep a thread busy nor the end of another runtime cuts
//!   them off.
//!
//! Only `object_store` is used; it is in the tree for its other stores anyway.

mod check;
mod settings;
mod store;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, OnceLock},
    time::Duration,
};

use deltalake::{
    DeltaResult,
    logstore::{
        LogStore, LogStoreFactory, ObjectStoreFactory, ObjectStoreRef, StorageConfig, default_logstore,
        logstore_factories, object_store_factories,
    },
};
use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut},
    client::SpawnedReqwestConnector,
    path::Path,
};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use url::Url;

pub(crate) use self::check::{Wrong, require_put_if_absent};
pub use self::settings::S3Settings;
use self::store::S3Store;

/// How long a request may take; large files go in parts, and a read that is cut off goes on where it was.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long one request is tried again, before the error is the caller's: who then waits, says so, and begins anew.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// More than fit into that time, whatever the pauses.
const RETRIES: usize = 1_000;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Threads for requests: they wait, and copy and sign what goes over the wire.
const THREADS: usize = 2;

/// Makes `s3://` known to deltalake. Idempotent.
pub(crate) fn register() {
    if let Ok(scheme) = Url::parse("s3://") {
        object_store_factories().insert(scheme.clone(), Arc::new(S3Factory));
        logstore_factories().insert(scheme, Arc::new(S3Factory));
    }
}

static SETTINGS: OnceLock<S3Settings> = OnceLock::new();
/// One client a bucket: connections are kept, and certificates are read once.
static STORES: LazyLock<Mutex<HashMap<String, Arc<S3Store>>>> = LazyLock::new(Mutex::default);

/// Says how this process reaches its buckets; without it, and before the first use, the environment does
/// ([`S3Settings::from_environment`]). The first call counts.
pub fn configure(settings: S3Settings) {
    // Whoever came first has decided.
    drop(SETTINGS.set(settings));
}

struct S3Factory;

impl ObjectStoreFactory for S3Factory {
    fn parse_url_opts(&self, url: &Url, _config: &StorageConfig) -> DeltaResult<(ObjectStoreRef, Path)> {
        let path = Path::from_url_path(url.path()).map_err(object_store::Error::from)?;
        Ok((store_of(url)?, path))
    }
}

impl LogStoreFactory for S3Factory {
    fn with_options(
        &self,
        prefixed: ObjectStoreRef,
        root: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(prefixed, root, location, options))
    }
}

/// The whole bucket of an `s3://` address.
pub(crate) fn store_of(url: &Url) -> object_store::Result<ObjectStoreRef> {
    let bucket = url.host_str().unwrap_or_default();
    let mut stores = STORES.lock();
    if let Some(store) = stores.get(bucket) {
        return Ok(Arc::clone(store) as ObjectStoreRef);
    }
    let settings = SETTINGS.get_or_init(S3Settings::from_environment);
    let store = Arc::new(S3Store::new(client(settings, bucket, RETRIES)?, client(settings, bucket, 0)?, bucket));
    stores.insert(bucket.to_owned(), Arc::clone(&store));
    Ok(store)
}

fn client(settings: &S3Settings, bucket: &str, max_retries: usize) -> object_store::Result<AmazonS3> {
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: LONGEST_PAUSE, ..Default::default() },
        max_retries,
        retry_timeout: LONGEST_RETRY,
    };
    let options = ClientOptions::new().with_timeout(TIMEOUT).with_connect_timeout(Duration::from_secs(5));
    let builder = AmazonS3Builder::new().with_client_options(options);
    settings
        .apply(builder)?
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(retry)
        .with_http_connector(SpawnedReqwestConnector::new(threads()?.handle().clone()))
        .build()
}

/// The threads that requests run on, for as long as the process lives.
fn threads() -> object_store::Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let built = Builder::new_multi_thread().worker_threads(THREADS).thread_name("lake-io").enable_all().build();
    let runtime = built.map_err(|source| object_store::Error::Generic { store: "S3", source: source.into() })?;
    // Callers hold the lock of the stores, so nobody else has set it.
    Ok(RUNTIME.get_or_init(|| runtime))
}
