//! Serving a producer that insists on the path of a file.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use ::object_store::ObjectStore;
use ::object_store::path::Path;
use tokio::task::spawn_blocking;

use crate::error::{Error, Step};
use crate::hint::Hint;
use crate::object_store::conditions::Condition;
use crate::object_store::fill::fill;
use crate::object_store::options::ObjectOptions;
use crate::object_store::publish::Refusal;
use crate::object_store::sizes::Sizes;
use crate::object_store::target::{Plan, Target};
use crate::object_store::writer::{Filled, Writer};

/// Lets a producer write a local file at a path, and uploads it when the closure has returned `Ok`.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
/// use write_atomically::object_store::write_path_atomically;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// write_path_atomically(&store, &"model.onnx".into(), async |staged| {
///     std::fs::write(staged, "weights")?; // or a program that is given the path
///     Ok(())
/// }).await?;
/// # assert_eq!(store.get(&"model.onnx".into()).await?.bytes().await?, "weights");
/// # anyhow::Ok(()) })?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::write_path`].
#[cfg(feature = "anyhow")]
pub async fn write_path_atomically<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    produce: impl AsyncFnOnce(&FilePath) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    ObjectOptions::new().anyhow().write_path(store, path, produce).await
}

/// The same, unless the object exists; see [`ObjectOptions::write_path_if_missing`].
///
/// # Errors
///
/// As [`ObjectOptions::write_path_if_missing`].
#[cfg(feature = "anyhow")]
pub async fn write_path_if_missing<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    produce: impl AsyncFnOnce(&FilePath) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    ObjectOptions::new().anyhow().write_path_if_missing(store, path, produce).await
}

impl<E: From<io::Error>> ObjectOptions<E> {
    /// Lets a producer write a local file at a path, and uploads it when the closure has returned `Ok`.
    ///
    /// The path is in a new directory that only this user can open, below
    /// [`staging_directory`](Self::staging_directory); it has the object's name. The directory is removed
    /// in any case; only SIGKILL and power cuts leave it behind.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
    /// use write_atomically::object_store::ObjectOptions;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    /// let options = ObjectOptions::new();
    /// options.write_path(&store, &"a.txt".into(), async |staged| std::fs::write(staged, "a")).await?;
    /// # assert_eq!(store.get(&"a.txt".into()).await?.bytes().await?, "a");
    /// # std::io::Result::Ok(()) })?;
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write); and if the closure has left no regular file at the path.
    pub async fn write_path<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        produce: impl AsyncFnOnce(&FilePath) -> Result<T, E>,
    ) -> Result<T, E> {
        let target = Target::new(store, path, self.settings()).map_err(io::Error::from)?;
        let found = target.look().await.map_err(io::Error::from)?;
        let plan = target.plan(Condition::Anything, &found.offer).await.map_err(io::Error::from)?;
        let (filled, value) = produce_file(plan, produce).await?;
        filled.publish().await.map_err(Refusal::into_error).map_err(io::Error::from)?;
        Ok(value)
    }

    /// As [`write_path`](Self::write_path), unless the object exists: then the closure does not run.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
    /// use write_atomically::object_store::ObjectOptions;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    /// # store.put(&"a.txt".into(), "old".into()).await?;
    /// let options = ObjectOptions::new();
    /// let written = options
    ///     .write_path_if_missing(&store, &"a.txt".into(), async |staged| std::fs::write(staged, "a"))
    ///     .await?;
    /// assert_eq!(written, None);
    /// # std::io::Result::Ok(()) })?;
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write_if_missing`](Self::write_if_missing) and [`write_path`](Self::write_path).
    pub async fn write_path_if_missing<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        produce: impl AsyncFnOnce(&FilePath) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let target = Target::new(store, path, self.settings()).map_err(io::Error::from)?;
        let found = target.look().await.map_err(io::Error::from)?;
        if found.exists {
            return Ok(None);
        }
        let plan = target.plan(Condition::Missing, &found.offer).await.map_err(io::Error::from)?;
        let (filled, value) = produce_file(plan, produce).await?;
        match filled.publish().await {
            Ok(_) => Ok(Some(value)),
            Err(Refusal::Condition(error)) if !error.replaced() => Ok(None),
            Err(refusal) => Err(io::Error::from(refusal.into_error()).into()),
        }
    }
}

/// Runs the producer and sends its file.
async fn produce_file<T, E: From<io::Error>>(
    mut plan: Plan,
    produce: impl AsyncFnOnce(&FilePath) -> Result<T, E>,
) -> Result<(Filled, T), E> {
    let target = plan.target.clone();
    let staging = Staging::create(&target).await.map_err(io::Error::from)?;
    let value = produce(&staging.file).await?;
    let (file, length) = staging.open(&target).await.map_err(io::Error::from)?;
    let settings = &target.settings;
    plan.sizes = Sizes::new(settings.part_size, settings.uniform_parts, Some(length))
        .map_err(|error| io::Error::from(target.io_error(Step::Write, error)))?;
    let (filled, ()) =
        fill(plan, false, async |w: &mut Writer| send(file, w).await).await.map_err(E::from)?;
    Ok((filled, value))
}

async fn send(mut file: File, writer: &mut Writer) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let read = move || {
            buffer.clear();
            file.by_ref().take(1 << 20).read_to_end(&mut buffer).map(|_| (file, buffer))
        };
        (file, buffer) = spawn_blocking(read).await.map_err(io::Error::other)??;
        if buffer.is_empty() {
            return Ok(());
        }
        writer.write_whole(&buffer).await?;
    }
}

/// A private directory for one file, removed when it is dropped.
struct Staging {
    directory: PathBuf,
    file: PathBuf,
}

impl Staging {
    async fn create(target: &Target) -> Result<Staging, Error> {
        let parent = target.settings.staging_directory.clone().unwrap_or_else(std::env::temp_dir);
        let directory = parent.join(format!("write-atomically-{}", target.id));
        let file = directory.join(target.key.filename().unwrap_or("object"));
        let staging = Staging { directory, file };
        let made = in_background(move || make_private(&staging.directory).map(|()| staging)).await;
        made.map_err(|error| target.io_error(Step::Stage, error))
    }

    async fn open(&self, target: &Target) -> Result<(File, u64), Error> {
        let file = self.file.clone();
        let opened = in_background(move || {
            let kind = fs::symlink_metadata(&file)?;
            let file = kind.is_file().then(|| File::open(&file)).transpose()?;
            Ok(file.map(|file| (file, kind.len())))
        });
        match opened.await {
            Ok(Some(opened)) => Ok(opened),
            Ok(None) => {
                let error = io::Error::from(io::ErrorKind::InvalidInput);
                Err(target.io_error(Step::Read, error).with_hint(Hint::WrongKind))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(target.io_error(Step::Read, error).with_hint(Hint::NothingWritten))
            }
            Err(error) => Err(target.io_error(Step::Read, error)),
        }
    }
}

impl Drop for Staging {
    /// The program may be about to end: a task would not run any more. Removing one directory is quick.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

fn make_private(directory: &FilePath) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}
