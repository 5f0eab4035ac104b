//! Many objects: none is published unless all are complete.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;

use ::object_store::ObjectStore;
use ::object_store::path::Path;
use tokio::task::JoinSet;

use crate::error::{Error, Outcome, Step};
use crate::hint::Hint;
use crate::object_store::conditions::Condition;
use crate::object_store::fill::{caught, fill};
use crate::object_store::options::{ObjectOptions, Settings};
use crate::object_store::publish::{Published, Refusal};
use crate::object_store::target::{Plan, Target};
use crate::object_store::writer::{Filled, Writer};

/// Writes many objects, none of which appears before the closure `fill` has returned `Ok`.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::object_store::write_batch;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// write_batch(&store, async |batch| {
///     for n in 1..=3 {
///         let path = format!("{n}.txt").into();
///         batch.write(&path, async |w| Ok(w.write_all(b"content").await?)).await?;
///     }
///     Ok(())
/// }).await?;
/// # assert_eq!(store.get(&"3.txt".into()).await?.bytes().await?, "content");
/// # anyhow::Ok(()) })?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::write_batch`].
#[cfg(feature = "anyhow")]
pub async fn write_batch<T>(
    store: &Arc<dyn ObjectStore>,
    fill: impl AsyncFnOnce(&mut Batch<anyhow::Error>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    ObjectOptions::new().anyhow().write_batch(store, fill).await
}

impl<E: From<io::Error>> ObjectOptions<E> {
    /// Writes many objects, none of which appears before the closure `fill` has returned `Ok`.
    ///
    /// Parts go up while the closure runs. Small objects are kept in memory, one part's size of them
    /// altogether; further ones go up as uploads of one part. In the end all are published, up to 16 at
    /// a time. Each appears whole, but not in the same instant: a set of objects is not one transaction.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
    /// use tokio::io::AsyncWriteExt;
    /// use write_atomically::object_store::ObjectOptions;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    /// ObjectOptions::new().write_batch(&store, async |batch| {
    ///     batch.write(&"a".into(), async |w| w.write_all(b"a").await).await?;
    ///     batch.write(&"b".into(), async |w| w.write_all(b"b").await).await
    /// }).await?;
    /// # assert_eq!(store.get(&"b".into()).await?.bytes().await?, "b");
    /// # std::io::Result::Ok(()) })?;
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// The closure's own error, unchanged; then nothing is published. Otherwise an [`Error`]:
    /// [`published`](Error::published) lists the objects that have been published by then; further ones
    /// are not begun. If the closure returns `Ok` although one of the batch's objects had failed, that
    /// object is not part of the batch.
    pub async fn write_batch<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        fill: impl AsyncFnOnce(&mut Batch<E>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut batch = Batch {
            store: store.clone(),
            settings: self.settings().clone(),
            list: Vec::new(),
            keys: HashSet::new(),
            held: 0,
            error: PhantomData,
        };
        match caught(fill(&mut batch)).await {
            Ok(Ok(value)) => {
                publish(batch.list).await.map_err(io::Error::from)?;
                Ok(value)
            }
            Ok(Err(error)) => {
                abort(batch.list).await;
                Err(error)
            }
            Err(panic) => {
                abort(batch.list).await;
                resume_unwind(panic)
            }
        }
    }
}

/// The objects of one [`write_batch`](ObjectOptions::write_batch): written one after the other,
/// published together.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, memory::InMemory};
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::object_store::{Batch, write_batch};
///
/// async fn add(batch: &mut Batch<anyhow::Error>, n: u32) -> anyhow::Result<()> {
///     batch.write(&format!("{n}").into(), async |w| Ok(w.write_all(b"x").await?)).await
/// }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// write_batch(&store, async |batch| {
///     add(batch, 1).await?;
///     assert_eq!(batch.len(), 1);
///     Ok(())
/// }).await?;
/// # anyhow::Ok(()) })?;
/// # anyhow::Ok(())
/// ```
pub struct Batch<E = io::Error> {
    store: Arc<dyn ObjectStore>,
    settings: Settings,
    list: Vec<Filled>,
    keys: HashSet<Path>,
    /// How many bytes of small objects are kept in memory.
    held: u64,
    error: PhantomData<fn() -> E>,
}

impl<E> fmt::Debug for Batch<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("objects", &self.len()).finish_non_exhaustive()
    }
}

impl<E> Batch<E> {
    /// The number of objects that are complete.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether no object is complete yet.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl<E: From<io::Error>> Batch<E> {
    /// Writes one of the batch's objects, which will appear at `path` with the others.
    ///
    /// If the closure fails, nothing will be published at `path`, and the same path can be written
    /// again.
    ///
    /// # Errors
    ///
    /// The closure's own error, unchanged; otherwise an [`Error`] inside an [`io::Error`]. The object is
    /// as it was. A path that this batch has written already is refused before the closure runs.
    pub async fn write<T>(
        &mut self,
        path: &Path,
        closure: impl AsyncFnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let plan = self.plan(path).await.map_err(io::Error::from)?;
        let (filled, value) = fill(plan, false, closure).await?;
        let filled = self.keep(filled).await.map_err(io::Error::from)?;
        self.keys.insert(path.clone());
        self.list.push(filled);
        Ok(value)
    }

    async fn plan(&self, path: &Path) -> Result<Plan, Error> {
        let target = Target::new(&self.store, path, &self.settings)?;
        if self.keys.contains(path) {
            let error = target.io_error(Step::Resolve, io::ErrorKind::AlreadyExists.into());
            return Err(error.with_hint(Hint::AlreadyInBatch));
        }
        // The first look tells what is wrong with the store; it need not be asked for each object.
        let offer = match self.list.is_empty() {
            true => target.look().await?.offer,
            false => Default::default(),
        };
        target.plan(Condition::Anything, &offer).await
    }

    /// Keeps a small object in memory while there is room, and sends it otherwise.
    async fn keep(&mut self, filled: Filled) -> Result<Filled, Error> {
        let length = filled.length();
        if self.held + length > self.settings.part_size as u64 {
            return filled.into_upload().await;
        }
        self.held += length;
        Ok(filled)
    }
}

/// How many objects are published at the same time.
const AT_ONCE: usize = 16;

async fn publish(list: Vec<Filled>) -> Result<(), Error> {
    let (mut waiting, mut running) = (list.into_iter(), JoinSet::new());
    let (mut published, mut failure) = (Vec::new(), None);
    loop {
        while running.len() < AT_ONCE && failure.is_none() {
            let Some(filled) = waiting.next() else { break };
            running
                .spawn(async move { (filled.plan().target.name.clone(), filled.publish().await) });
        }
        match running.join_next().await {
            None => break,
            Some(Ok((path, result))) => note(path, result, &mut published, &mut failure),
            Some(Err(panic)) => {
                let error = Error::new(Step::Publish, "", io::Error::other(panic));
                failure = failure.or(Some(error.with_outcome(Outcome::Unknown)));
            }
        }
    }
    let Some(error) = failure else { return Ok(()) };
    abort(waiting.collect()).await;
    Err(error.with_published(published))
}

fn note(
    path: PathBuf,
    result: Result<Published, Refusal>,
    published: &mut Vec<PathBuf>,
    failure: &mut Option<Error>,
) {
    match result {
        Ok(_) => published.push(path),
        Err(refusal) if failure.is_none() => *failure = Some(refusal.into_error()),
        Err(_) => {}
    }
}

async fn abort(list: Vec<Filled>) {
    let mut running: JoinSet<()> = list.into_iter().map(Filled::abort).collect();
    while running.join_next().await.is_some() {}
}
