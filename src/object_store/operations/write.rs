//! Replacing or creating an object.

use std::io;
use std::sync::Arc;

use ::object_store::path::Path;
use ::object_store::{ObjectStore, PutPayload};
use bytes::Bytes;

use crate::object_store::conditions::Condition;
use crate::object_store::connector::Offer;
use crate::object_store::fill::fill;
use crate::object_store::options::ObjectOptions;
use crate::object_store::publish::Refusal;
use crate::object_store::target::Target;
use crate::object_store::writer::{Filled, Writer};

/// Writes an object that appears at `path` only when the closure `fill` has returned `Ok`.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::object_store::write_atomically;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// let rows = write_atomically(&store, &"daily/report.csv".into(), async |w| {
///     w.write_all(b"id,total\n1,100\n").await?;
///     Ok(1)
/// }).await?;
/// assert_eq!(rows, 1);
/// # let found = store.get(&"daily/report.csv".into()).await?.bytes().await?;
/// # assert_eq!(found, "id,total\n1,100\n");
/// # anyhow::Ok(()) })?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::write`].
#[cfg(feature = "anyhow")]
pub async fn write_atomically<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    fill: impl AsyncFnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    ObjectOptions::new().anyhow().write(store, path, fill).await
}

/// Writes a whole object from bytes in memory.
///
/// There is no closure whose work could be lost, so the store is not looked at first: up to one part
/// is a single request.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// write_atomically::object_store::write(&store, &"state.json".into(), "{}").await?;
/// # assert_eq!(store.get(&"state.json".into()).await?.bytes().await?, "{}");
/// # std::io::Result::Ok(()) })?;
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
///
/// An [`Error`](crate::Error) inside an [`io::Error`].
pub async fn write(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    bytes: impl Into<Bytes>,
) -> io::Result<()> {
    ObjectOptions::new().write_bytes(store, path, bytes).await
}

impl<E: From<io::Error>> ObjectOptions<E> {
    /// Writes an object that appears at `path` only when the closure `fill` has returned `Ok`.
    ///
    /// What the closure writes goes up in parts while it runs (see [`Writer`]). They are put together
    /// only after `Ok`; after an error or a panic the upload is aborted before this function returns,
    /// and if its future is dropped, by a task of the runtime. Up to one part is a single request at
    /// the end.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
    /// use tokio::io::AsyncWriteExt;
    /// use write_atomically::object_store::ObjectOptions;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    /// let options = ObjectOptions::new().parts_in_flight(8);
    /// options.write(&store, &"a.txt".into(), async |w| w.write_all(b"a").await).await?;
    /// # assert_eq!(store.get(&"a.txt".into()).await?.bytes().await?, "a");
    /// # std::io::Result::Ok(()) })?;
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// * The closure's own error, unchanged. The object is as it was.
    /// * An [`Error`](crate::Error) inside an [`io::Error`]. It says which step failed, with the store's
    ///   own message, and what became of the object. [`Outcome::Unknown`](crate::Outcome::Unknown)
    ///   means that the store's answer was lost, and that it could not be found out afterwards.
    ///
    /// A store that can't be reached, a missing bucket and wrong credentials are errors before the
    /// closure runs, within [`timeout`](Self::timeout).
    pub async fn write<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        fill: impl AsyncFnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let target = Target::new(store, path, self.settings()).map_err(io::Error::from)?;
        let found = target.look().await.map_err(io::Error::from)?;
        self.fill_and_publish(&target, Condition::Anything, &found.offer, fill).await
    }

    pub(crate) async fn fill_and_publish<T>(
        &self,
        target: &Target,
        condition: Condition,
        offer: &Offer,
        closure: impl AsyncFnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let plan = target.plan(condition, offer).await.map_err(io::Error::from)?;
        let (filled, value) = fill(plan, false, closure).await?;
        filled.publish().await.map_err(Refusal::into_error).map_err(io::Error::from)?;
        Ok(value)
    }

    /// Writes a whole object from bytes in memory: [`write()`] with options.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
    /// use write_atomically::object_store::ObjectOptions;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    /// ObjectOptions::new().write_bytes(&store, &"a.txt".into(), "a").await?;
    /// # assert_eq!(store.get(&"a.txt".into()).await?.bytes().await?, "a");
    /// # std::io::Result::Ok(()) })?;
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub async fn write_bytes(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        bytes: impl Into<Bytes>,
    ) -> Result<(), E> {
        let bytes = bytes.into();
        let target = Target::new(store, path, self.settings()).map_err(io::Error::from)?;
        let plan = target.plan(Condition::Anything, &Offer::default()).await;
        let plan = plan.map_err(io::Error::from)?;
        let filled = match bytes.len() as u64 <= plan.sizes.current() {
            true => Filled::Small(PutPayload::from(bytes), plan),
            false => {
                fill::<_, E>(plan, false, async |w: &mut Writer| Ok(w.write_whole(&bytes).await?))
                    .await?
                    .0
            }
        };
        filled.publish().await.map_err(Refusal::into_error).map_err(io::Error::from)?;
        Ok(())
    }
}
