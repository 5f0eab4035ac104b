//! Whole directory trees, published in one step.

use std::io;
use std::path::Path;

use super::call::{Call, Turn};
use super::options::WriteOptions;
use super::request::Request;
use crate::error::Error;
use crate::operations::dir::{DirWrite, to_create};
use crate::protocol::claim::Creation;
use crate::protocol::publish::Replace;

/// Publishes the directory tree that the closure `build` makes at the path it is given, in one step.
///
/// ```
/// use write_atomically::tokio::write_dir_atomically;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("site");
/// # async fn render(page: &str) -> anyhow::Result<String> { Ok(page.to_owned()) }
/// write_dir_atomically(&path, async |site| {
///     for page in ["index.html", "about.html"] {
///         std::fs::write(site.join(page), render(page).await?)?; // or `tokio::fs::write`
///     }
///     Ok(())
/// }).await?;
/// assert!(path.join("about.html").exists());
/// # Ok(())
/// # }
/// ```
///
/// See [`WriteOptions::write_dir`](crate::WriteOptions::write_dir) for what is carried over, and for its
/// errors.
#[cfg(feature = "anyhow")]
pub async fn write_dir_atomically<T>(
    path: impl AsRef<Path>,
    build: impl AsyncFnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    crate::WriteOptions::new().anyhow().tokio().write_dir(path, build).await
}

/// Publishes the directory tree that the closure `build` makes at the path it is given, if nothing is
/// at `path`; `None` if something is. Of many callers, one builds it.
///
/// ```
/// use write_atomically::tokio::write_dir_if_missing;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("dataset");
/// # async fn download(to: &std::path::Path) -> std::io::Result<()> { std::fs::write(to.join("0"), "") }
/// for expected in [Some(()), None] {
///     let downloaded = write_dir_if_missing(&path, async |staged| Ok(download(staged).await?));
///     assert_eq!(downloaded.await?, expected);
/// }
/// # Ok(())
/// # }
/// ```
///
/// See [`WriteOptions::write_dir_if_missing`](crate::WriteOptions::write_dir_if_missing) for its errors.
#[cfg(feature = "anyhow")]
pub async fn write_dir_if_missing<T>(
    path: impl AsRef<Path>,
    build: impl AsyncFnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    crate::WriteOptions::new().anyhow().tokio().write_dir_if_missing(path, build).await
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Publishes the directory tree that the closure `build` makes at the path it is given, in one
    /// step.
    ///
    /// As [`write_atomically::WriteOptions::write_dir`](crate::WriteOptions::write_dir). If the
    /// future is dropped, what the closure has started and goes on (a child process, `tokio::fs`) may
    /// find its directory gone.
    pub async fn write_dir<T>(
        &self,
        path: impl AsRef<Path>,
        build: impl AsyncFnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let call = Call::start(path.as_ref(), self.settings());
        let write = call.run(|request| {
            DirWrite::prepare(&request.path, &request.settings, request.owner).map(Box::new)
        });
        let write = write.await?;
        let staged = write.path().to_owned();
        let (write, value) = call.produce(write, staged, build).await?;
        call.run(move |_| write.publish(Replace::Anything)).await?;
        Ok(value)
    }

    /// Publishes the directory tree that the closure `build` makes at the path it is given, if nothing
    /// is at `path`; `None` if something is.
    ///
    /// As [`write_atomically::WriteOptions::write_dir_if_missing`](crate::WriteOptions::write_dir_if_missing);
    /// the others wait as for [`write_if_missing`](Self::write_if_missing).
    pub async fn write_dir_if_missing<T>(
        &self,
        path: impl AsRef<Path>,
        build: impl AsyncFnOnce(&Path) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let call = Call::start(path.as_ref(), self.settings());
        let Some(write) = call.turn(claim).await? else { return Ok(None) };
        let staged = write.path().to_owned();
        let (write, value) = call.produce(write, staged, build).await?;
        let published = call.run(move |_| write.publish(Replace::Nothing)).await?;
        Ok(published.then_some(value))
    }
}

/// `None` if something is there.
fn claim(request: &Request) -> Result<Turn<Option<Box<DirWrite>>>, Error> {
    let settings = &request.settings;
    Ok(match to_create(&request.path, settings, request.asker())? {
        Creation::Exists => Turn::Mine(None),
        Creation::Mine(destination, private) => {
            let write = DirWrite::claimed(destination, private, settings, request.owner)?;
            Turn::Mine(Some(Box::new(write)))
        }
        Creation::Busy => Turn::Busy,
    })
}
