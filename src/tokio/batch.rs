//! Many files: none is published unless all are complete, and they are synced together.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::path::Path;
use std::pin::Pin;
use std::task::ready;

use super::call::Call;
use super::options::WriteOptions;
use super::pool::{Held, Job, Pool, shut_down};
use super::writer::Writer;
use crate::operations::batch::{Files, Key};
use crate::protocol::output::{Complete, Output};
use crate::settings::Settings;

/// Writes many files, none of which appears before the closure `fill` has returned `Ok`, and syncs
/// them together: much faster than one by one.
///
/// ```
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::tokio::write_batch;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// write_batch(async |batch| {
///     for n in 1..=100 {
///         let path = directory.join(format!("{n}.txt"));
///         batch.write(&path, async |w| Ok(w.write_all(b"content").await?)).await?;
///     }
///     Ok(())
/// }).await?;
/// assert_eq!(std::fs::read_to_string(directory.join("100.txt"))?, "content");
/// # Ok(())
/// # }
/// ```
///
/// See [`WriteOptions::write_batch`](crate::WriteOptions::write_batch) for its promises and its errors.
#[cfg(feature = "anyhow")]
pub async fn write_batch<T>(
    fill: impl AsyncFnOnce(&mut Batch<anyhow::Error>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    crate::WriteOptions::new().anyhow().tokio().write_batch(fill).await
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Writes many files, none of which appears before the closure `fill` has returned `Ok`.
    ///
    /// As [`write_atomically::WriteOptions::write_batch`](crate::WriteOptions::write_batch). The files
    /// are written one after the other.
    pub async fn write_batch<T>(
        &self,
        fill: impl AsyncFnOnce(&mut Batch<E>) -> Result<T, E>,
    ) -> Result<T, E> {
        let settings = self.settings().clone();
        let call = Call::start(Path::new(""), &settings);
        let files = Files::new(
            &Settings { buffer_capacity: Some(0), ..settings.clone() },
            call.request.owner,
        )?;
        let (pool, place) =
            (call.pool.clone(), Place::Here(Held::new(&call.pool, Box::new(files))));
        let mut batch = Batch { settings, pool, place, complete: 0, error: PhantomData };
        let filled = call.inside(fill(&mut batch)).await;
        let files = batch.take().await;
        match filled {
            Ok(Ok(value)) => {
                let files = files?;
                call.run(move |_| files.publish()).await?;
                Ok(value)
            }
            Ok(Err(error)) => {
                call.pool.discard(files).await;
                Err(error)
            }
            Err(panic) => {
                call.pool.discard(files).await;
                std::panic::resume_unwind(panic)
            }
        }
    }
}

/// The files of one [`write_batch`](WriteOptions::write_batch): written one after the other, published
/// together.
///
/// `E` is the error type of the closures, that of the [`WriteOptions`].
pub struct Batch<E = io::Error> {
    settings: Settings,
    pool: Pool,
    place: Place,
    complete: usize,
    error: PhantomData<fn() -> E>,
}

/// Where the files are that are complete.
enum Place {
    Here(Held<Box<Files>>),
    Away(Job<Returned>),
    /// Lost with the runtime.
    Gone,
}

/// What comes back from the pool.
struct Returned {
    files: Box<Files>,
    result: io::Result<Step>,
}

/// What has been done for one file.
enum Step {
    Staged(Box<Output>, Key),
    Added(Key),
}

impl<E> fmt::Debug for Batch<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("files", &self.complete).finish_non_exhaustive()
    }
}

impl<E> Batch<E> {
    /// The number of files that are complete.
    pub fn len(&self) -> usize {
        self.complete
    }

    /// Whether no file is complete yet.
    pub fn is_empty(&self) -> bool {
        self.complete == 0
    }

    /// Waits until the files are here. If a call on them was cancelled, its file is not one of them.
    async fn take(&mut self) -> io::Result<Box<Files>> {
        let Place::Away(job) = &mut self.place else { return self.take_here() };
        let returned = poll_fn(|context| Pin::new(&mut *job).poll(context)).await;
        self.place = Place::Gone;
        let Returned { mut files, result } = returned?;
        match result {
            Ok(Step::Added(key)) => files.forget_last(&key),
            Ok(Step::Staged(output, _)) => self.pool.discard(output).await,
            Err(_) => {}
        }
        Ok(files)
    }

    fn take_here(&mut self) -> io::Result<Box<Files>> {
        match mem::replace(&mut self.place, Place::Gone) {
            Place::Here(held) => held.take().ok_or_else(shut_down),
            Place::Away(_) | Place::Gone => Err(shut_down()),
        }
    }

    /// Lets the pool do something with the files. If this is cancelled, [`take`](Self::take) undoes it.
    async fn run(
        &mut self,
        step: impl FnOnce(&mut Files) -> io::Result<Step> + Send + 'static,
    ) -> io::Result<Step> {
        let mut files = self.take().await?;
        self.place = Place::Away(self.pool.start(move || {
            let result = step(&mut files);
            Returned { files, result }
        }));
        let returned = poll_fn(|context| {
            let Place::Away(job) = &mut self.place else { return Err(shut_down()).into() };
            let returned = ready!(Pin::new(job).poll(context));
            self.place = Place::Gone;
            returned.into()
        });
        let Returned { files, result } = returned.await?;
        self.place = Place::Here(Held::new(&self.pool, files));
        result
    }
}

impl<E: From<io::Error>> Batch<E> {
    /// Writes one of the batch's files, which will appear at `path` together with the others.
    ///
    /// As [`write_atomically::Batch::write`](crate::Batch::write). If this future is dropped, nothing
    /// will be published at `path`; the batch can go on.
    ///
    /// ```
    /// use tokio::io::AsyncWriteExt;
    /// use write_atomically::tokio::write_batch;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> anyhow::Result<()> {
    /// # let directory = tempfile::tempdir()?;
    /// # let (data, index) = (directory.path().join("data"), directory.path().join("index"));
    /// write_batch(async |batch| {
    ///     let length = batch.write(&data, async |w| {
    ///         w.write_all(b"content").await?;
    ///         Ok(7)
    ///     }).await?;
    ///     assert!(!data.exists());
    ///     let line = format!("data {length}\n");
    ///     batch.write(&index, async |w| Ok(w.write_all(line.as_bytes()).await?)).await
    /// }).await?;
    /// assert_eq!(std::fs::read_to_string(&index)?, "data 7\n");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn write<T>(
        &mut self,
        path: impl AsRef<Path>,
        fill: impl AsyncFnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let call = Call::start(path.as_ref(), &self.settings);
        let request = call.request.clone();
        let staging = self.run(move |files| {
            let (staged, key) = files.stage(&request.path)?;
            Ok(Step::Staged(Box::new(Output::Rename(staged)), key))
        });
        let Step::Staged(output, key) = staging.await? else { return Err(shut_down().into()) };
        let (writer, value) = call.fill(output, fill).await?;
        let rest = writer.complete().await?;
        let adding = self.run(move |files| {
            if let Complete::Rename(filled) = rest.finish()? {
                files.add(filled, key.clone())?;
            }
            Ok(Step::Added(key))
        });
        adding.await?;
        self.complete += 1;
        Ok(value)
    }
}
