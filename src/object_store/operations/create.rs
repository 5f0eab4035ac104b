//! Creating an object that must not exist.

use std::io;
use std::sync::Arc;

use ::object_store::ObjectStore;
use ::object_store::path::Path;

use crate::error::{Error, Step};
use crate::object_store::conditions::Condition;
use crate::object_store::options::ObjectOptions;
use crate::object_store::target::Target;
use crate::object_store::writer::Writer;

/// Creates an object; one that exists is an error, and is never replaced.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::object_store::create_atomically;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// let path = "lease".into();
/// let create = || create_atomically(&store, &path, async |w| Ok(w.write_all(b"me").await?));
/// assert!(create().await.is_ok());
/// assert!(create().await.is_err());
/// # anyhow::Ok(()) })?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::create`].
#[cfg(feature = "anyhow")]
pub async fn create_atomically<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    fill: impl AsyncFnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    ObjectOptions::new().anyhow().create(store, path, fill).await
}

impl<E: From<io::Error>> ObjectOptions<E> {
    /// Creates an object; one that exists is an error, and is never replaced.
    ///
    /// The store itself checks that nothing is there, in the step in which the object appears: of many
    /// that create the same object, one succeeds.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
    /// use tokio::io::AsyncWriteExt;
    /// use write_atomically::object_store::ObjectOptions;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    /// # store.put(&"a".into(), "old".into()).await?;
    /// let options = ObjectOptions::new();
    /// let created = options.create(&store, &"a".into(), async |w| w.write_all(b"new").await).await;
    /// assert_eq!(created.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    /// # std::io::Result::Ok(()) })?;
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write);
    /// - the object exists: of kind [`AlreadyExists`](io::ErrorKind::AlreadyExists), before the closure
    ///   runs if it did then;
    /// - the store does not honour conditions: of kind [`Unsupported`](io::ErrorKind::Unsupported), before
    ///   the closure runs; and for an output larger than one part, before the second part.
    pub async fn create<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        fill: impl AsyncFnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let target = Target::new(store, path, self.settings()).map_err(io::Error::from)?;
        let found = target.look().await.map_err(io::Error::from)?;
        if found.exists {
            return Err(io::Error::from(exists(&target)).into());
        }
        self.fill_and_publish(&target, Condition::Missing, &found.offer, fill).await
    }
}

pub(crate) fn exists(target: &Target) -> Error {
    let error = io::Error::new(io::ErrorKind::AlreadyExists, "the object exists");
    target.io_error(Step::Resolve, error)
}
