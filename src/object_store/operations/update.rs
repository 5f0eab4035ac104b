//! Read, modify, write, with no update lost.

use std::io;
use std::sync::Arc;

use ::object_store::path::Path;
use ::object_store::{GetResult, ObjectStore, UpdateVersion};

use crate::object_store::conditions::Condition;
use crate::object_store::fill::fill;
use crate::object_store::options::ObjectOptions;
use crate::object_store::publish::{Refusal, pause};
use crate::object_store::reader::Reader;
use crate::object_store::target::Target;
use crate::object_store::writer::Writer;

/// Reads an object and writes its new content; the closure runs again if others have written it
/// meanwhile, so that no update is lost.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use write_atomically::object_store::update_atomically;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// # let mut counts = vec![];
/// # for _ in 0..2 {
/// let count = update_atomically(&store, &"counter".into(), async |old, new| {
///     let mut text = String::new();
///     if let Some(old) = old {
///         old.read_to_string(&mut text).await?;
///     }
///     let count = text.parse().unwrap_or(0) + 1;
///     new.write_all(count.to_string().as_bytes()).await?;
///     Ok(count)
/// }).await?;
/// # counts.push(count);
/// # }
/// # assert_eq!(counts, [1, 2]);
/// # anyhow::Ok(()) })?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::update`].
#[cfg(feature = "anyhow")]
pub async fn update_atomically<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    fill: impl AsyncFnMut(Option<&mut Reader>, &mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    ObjectOptions::new().anyhow().update(store, path, fill).await
}

impl<E: From<io::Error>> ObjectOptions<E> {
    /// Reads an object and writes its new content; the closure runs again if others have written it
    /// meanwhile, so that no update is lost.
    ///
    /// The closure gets the old content, or `None` where there is no object, and writes the whole new
    /// content. It is published under the condition that the object is still the one that was read
    /// (`If-Match`). If it is not, the closure runs again on the new one after a random pause, up to
    /// [`update_retries`](Self::update_retries) times.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
    /// use tokio::io::AsyncWriteExt;
    /// use write_atomically::object_store::ObjectOptions;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    /// # store.put(&"log".into(), "a\n".into()).await?;
    /// ObjectOptions::new().update(&store, &"log".into(), async |old, new| {
    ///     if let Some(old) = old {
    ///         tokio::io::copy(old, new).await?;
    ///     }
    ///     new.write_all(b"b\n").await
    /// }).await?;
    /// # assert_eq!(store.get(&"log".into()).await?.bytes().await?, "a\nb\n");
    /// # std::io::Result::Ok(()) })?;
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), except that an object that exists is none;
    /// - the object can't be read: before the closure runs;
    /// - others have written it each time: of kind [`ResourceBusy`](io::ErrorKind::ResourceBusy);
    /// - an output larger than one part, where the store's client can't complete an upload under a
    ///   condition (see [the module](crate::object_store#conditions)): of kind
    ///   [`Unsupported`](io::ErrorKind::Unsupported), before the second part.
    pub async fn update<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        mut closure: impl AsyncFnMut(Option<&mut Reader>, &mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempt = 0;
        loop {
            // Each attempt has an id of its own: an earlier one's answer may be late.
            let target = Target::new(store, path, self.settings()).map_err(io::Error::from)?;
            let (old, offer) = target.open().await.map_err(io::Error::from)?;
            let condition = condition_of(old.as_ref());
            let plan = target.plan(condition, &offer).await.map_err(io::Error::from)?;
            let mut reader = old.map(|old| Reader::new(old, target.name.clone()));
            let run = async |w: &mut Writer| closure(reader.as_mut(), w).await;
            let (filled, value) = fill(plan, false, run).await?;
            match filled.publish().await {
                Ok(_) => return Ok(value),
                Err(Refusal::Condition(error)) => {
                    attempt += 1;
                    if attempt > self.settings().update_retries || error.replaced() {
                        return Err(io::Error::from(error).into());
                    }
                    pause(attempt).await;
                }
                Err(Refusal::Failed(error)) => return Err(io::Error::from(error).into()),
            }
        }
    }
}

fn condition_of(old: Option<&GetResult>) -> Condition {
    match old {
        None => Condition::Missing,
        Some(old) => Condition::Unchanged(UpdateVersion {
            e_tag: old.meta.e_tag.clone(),
            version: old.meta.version.clone(),
        }),
    }
}
