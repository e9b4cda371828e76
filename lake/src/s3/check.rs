//! Whether a bucket can hold a lake: everything that Karat promises of one rests on put-if-absent.

use std::{sync::Arc, time::Duration};

use futures::{future::join_all, stream};
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, Result, path::Path};

/// Puts of one name at once, and names: a server that looks first and writes then lets two through soon.
const AT_ONCE: usize = 8;
const ROUNDS: usize = 3;

/// Every step must be done so soon; a start does not wait out an outage.
const DEADLINE: Duration = Duration::from_secs(20);

/// What is wrong with a bucket.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// It does not answer, or not in time: it may later.
    Unreachable(String),
    /// It answers, and cannot be used as it is.
    Unusable(String),
}

/// Tries put-if-absent on names of its own below `_karat/check`.
pub(crate) async fn require_put_if_absent(store: &Arc<dyn ObjectStore>) -> std::result::Result<(), Wrong> {
    let folder = Path::from("_karat").join("check").join(uuid::Uuid::new_v4().simple().to_string());
    let names: Vec<Path> = (0..=ROUNDS).map(|round| folder.clone().join(format!("{round}"))).collect();
    let checked = check(store, &names).await;
    // Some bytes that a crash leaves there do no harm.
    let delete = store.delete_stream(Box::pin(stream::iter(names.into_iter().map(Ok))));
    let delete = futures::StreamExt::for_each(delete, |_| std::future::ready(()));
    drop(tokio::time::timeout(DEADLINE, delete).await);
    checked
}

async fn check(store: &Arc<dyn ObjectStore>, names: &[Path]) -> std::result::Result<(), Wrong> {
    let Some((plain, conditional)) = names.split_first() else { return Ok(()) };
    match tokio::time::timeout(DEADLINE, store.put(plain, "plain".into())).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(refused(&error)),
        Err(_) => return Err(Wrong::Unreachable(format!("no answer within {} s", DEADLINE.as_secs()))),
    }
    for name in conditional {
        match tokio::time::timeout(DEADLINE, race(store, name)).await {
            Ok(raced) => raced?,
            Err(_) => {
                let reason = "writes pass, and conditional ones (If-None-Match: *) are not answered in time";
                return Err(Wrong::Unreachable(reason.to_owned()));
            }
        }
    }
    Ok(())
}

/// Puts one name several times at once: one must win, and be what is read afterwards.
async fn race(store: &Arc<dyn ObjectStore>, name: &Path) -> std::result::Result<(), Wrong> {
    let puts = (0..AT_ONCE).map(|number| {
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        store.put_opts(name, body(number).into(), options)
    });
    let answers: Vec<Result<_>> = join_all(puts).await;
    let failed = |error: &Error| !matches!(error, Error::AlreadyExists { .. });
    if let Some(error) = answers.iter().filter_map(|answer| answer.as_ref().err()).find(|error| failed(error)) {
        let text = error.to_string();
        let reason = format!("writes pass, and conditional ones (If-None-Match: *) fail: {text}");
        // A server that has them not says so; anything else may pass.
        let is_missing = matches!(error, Error::NotImplemented { .. }) || text.contains("NotImplemented");
        return Err(if is_missing { Wrong::Unusable(reason) } else { Wrong::Unreachable(reason) });
    }
    let winners: Vec<usize> =
        answers.iter().enumerate().filter(|(_, answer)| answer.is_ok()).map(|(number, _)| number).collect();
    let [winner] = winners[..] else {
        return Err(Wrong::Unusable(format!(
            "its server does not keep conditional writes (If-None-Match: *) apart: of {AT_ONCE} at once on one name, {} \
             were told that they were first. Two processes would overwrite each other's commits; use a server that \
             has them, such as Amazon S3",
            winners.len()
        )));
    };
    let found = match store.get(name).await {
        Ok(found) => found.bytes().await,
        Err(error) => Err(error),
    };
    match found {
        Ok(found) if found == body(winner) => Ok(()),
        Ok(_) => Err(Wrong::Unusable("a conditional write that came second took the place of the first".to_owned())),
        Err(error) => Err(refused(&error)),
    }
}

fn body(number: usize) -> String {
    format!("writer {number}")
}

fn refused(error: &Error) -> Wrong {
    match error {
        Error::NotFound { .. } => Wrong::Unusable("there is no such bucket".to_owned()),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            Wrong::Unusable(format!("its server refuses the key, or the key may not write there: {error}"))
        }
        error => Wrong::Unreachable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use futures::stream::BoxStream;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutPayload,
        PutResult, memory::InMemory,
    };

    use super::*;

    /// A server that knows nothing of conditions.
    #[derive(Debug, Default)]
    struct Unconditional(InMemory);

    impl std::fmt::Display for Unconditional {
        fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(out, "Unconditional")
        }
    }

    #[async_trait]
    impl ObjectStore for Unconditional {
        async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
            self.0.put_opts(location, payload, PutOptions { mode: PutMode::Overwrite, ..options }).await
        }

        async fn put_multipart_opts(&self, to: &Path, with: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
            self.0.put_multipart_opts(to, with).await
        }

        async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
            self.0.get_opts(location, options).await
        }

        fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            self.0.delete_stream(locations)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.0.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.0.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }

    #[tokio::test]
    async fn a_store_that_ignores_the_condition_is_refused_and_one_that_keeps_it_is_not() {
        let good: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        require_put_if_absent(&good).await.unwrap();
        let left: Vec<_> = futures::TryStreamExt::try_collect(good.list(None)).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
        let bad: Arc<dyn ObjectStore> = Arc::new(Unconditional::default());
        let Err(Wrong::Unusable(reason)) = require_put_if_absent(&bad).await else { panic!("not refused") };
        assert!(reason.contains("of 8 at once on one name, 8"), "{reason}");
    }
}
