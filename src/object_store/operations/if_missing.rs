//! Computing an object once.

use std::io;
use std::sync::Arc;

use ::object_store::ObjectStore;
use ::object_store::path::Path;

use crate::object_store::conditions::Condition;
use crate::object_store::fill::fill;
use crate::object_store::options::ObjectOptions;
use crate::object_store::publish::Refusal;
use crate::object_store::target::Target;
use crate::object_store::writer::Writer;

/// Writes an object unless it exists; the closure runs only if it does not.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::object_store::write_if_missing;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// let path = "cache/1".into();
/// let cached = || write_if_missing(&store, &path, async |w| Ok(w.write_all(b"x").await?));
/// assert_eq!(cached().await?, Some(()));
/// assert_eq!(cached().await?, None);
/// # anyhow::Ok(()) })?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::write_if_missing`].
#[cfg(feature = "anyhow")]
pub async fn write_if_missing<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    fill: impl AsyncFnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    ObjectOptions::new().anyhow().write_if_missing(store, path, fill).await
}

impl<E: From<io::Error>> ObjectOptions<E> {
    /// Writes an object unless it exists; the closure runs only if it does not. `Ok(None)` says that
    /// the object is of another writer.
    ///
    /// Stores have no locks. Of several that find it missing at the same time, all run their closure,
    /// and the first to publish wins; `Ok(None)` for the others.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
    /// use tokio::io::AsyncWriteExt;
    /// use write_atomically::object_store::ObjectOptions;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    /// let once = ObjectOptions::new();
    /// let written = once.write_if_missing(&store, &"a".into(), async |w| w.write_all(b"1").await).await?;
    /// assert_eq!(written, Some(()));
    /// # std::io::Result::Ok(()) })?;
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), except that an object that exists is none.
    pub async fn write_if_missing<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        closure: impl AsyncFnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let target = Target::new(store, path, self.settings()).map_err(io::Error::from)?;
        let found = target.look().await.map_err(io::Error::from)?;
        if found.exists {
            return Ok(None);
        }
        let plan = target.plan(Condition::Missing, &found.offer).await.map_err(io::Error::from)?;
        let (filled, value) = fill(plan, false, closure).await?;
        match filled.publish().await {
            Ok(_) => Ok(Some(value)),
            // Whether it was this write's own could not be found out.
            Err(Refusal::Condition(error)) if error.replaced() => {
                Err(io::Error::from(error).into())
            }
            Err(Refusal::Condition(_)) => Ok(None),
            Err(Refusal::Failed(error)) => Err(io::Error::from(error).into()),
        }
    }
}
