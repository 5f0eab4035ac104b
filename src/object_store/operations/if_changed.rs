//! Writing an object only if its content differs from the old one.

use std::io;
use std::sync::Arc;

use ::object_store::ObjectStore;
use ::object_store::path::Path;

use crate::Change;
use crate::object_store::compare::Comparison;
use crate::object_store::conditions::Condition;
use crate::object_store::fill::fill;
use crate::object_store::options::ObjectOptions;
use crate::object_store::publish::{Published, Refusal};
use crate::object_store::target::Target;
use crate::object_store::writer::{Filled, Writer};

/// Writes an object unless the same bytes are there already.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::{Change, object_store::write_if_changed};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// let path = "index".into();
/// let publish = || write_if_changed(&store, &path, async |w| Ok(w.write_all(b"1").await?));
/// assert_eq!(publish().await?, Change::Written(()));
/// assert_eq!(publish().await?, Change::Unchanged(()));
/// # anyhow::Ok(()) })?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::write_if_changed`].
#[cfg(feature = "anyhow")]
pub async fn write_if_changed<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    fill: impl AsyncFnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<Change<T>> {
    ObjectOptions::new().anyhow().write_if_changed(store, path, fill).await
}

impl<E: From<io::Error>> ObjectOptions<E> {
    /// Writes an object unless the same bytes are there already; then it is not touched, and keeps its
    /// time and its version.
    ///
    /// The old object is read and compared piece by piece, in constant memory, until it differs. Parts
    /// of a large output go up nevertheless, and are discarded if it does not. Only the bytes count;
    /// attributes apply to an object that is written. An object that can't be read counts as different.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
    /// use tokio::io::AsyncWriteExt;
    /// use write_atomically::{Change, object_store::ObjectOptions};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    /// # store.put(&"a".into(), "old".into()).await?;
    /// let options = ObjectOptions::new();
    /// let path = "a".into();
    /// let change = options.write_if_changed(&store, &path, async |w| w.write_all(b"old").await);
    /// assert_eq!(change.await?, Change::Unchanged(()));
    /// # std::io::Result::Ok(()) })?;
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub async fn write_if_changed<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        closure: impl AsyncFnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<Change<T>, E> {
        let target = Target::new(store, path, self.settings()).map_err(io::Error::from)?;
        let found = target.look().await.map_err(io::Error::from)?;
        let plan = target.plan(Condition::Anything, &found.offer).await.map_err(io::Error::from)?;
        let (filled, value) = fill(plan, true, closure).await?;
        if is_same(&target, &filled).await {
            return Ok(Change::Unchanged(value));
        }
        match filled.publish().await.map_err(Refusal::into_error).map_err(io::Error::from)? {
            Published::Written => Ok(Change::Written(value)),
            Published::Same => Ok(Change::Unchanged(value)),
        }
    }
}

/// A large output is compared on its way up.
async fn is_same(target: &Target, filled: &Filled) -> bool {
    let Filled::Small(content, _) = filled else { return false };
    let (target, content) = (target.clone(), content.clone());
    let compare = async move {
        match Comparison::open(&target).await {
            Some(mut old) => old.continues_with(&content).await && old.ends_equal(&target).await,
            None => false,
        }
    };
    tokio::spawn(compare).await.unwrap_or(false)
}
