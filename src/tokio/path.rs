//! Files whose producers insist on a path.

use std::io;
use std::path::Path;

use super::call::{Call, Turn};
use super::options::WriteOptions;
use super::request::Request;
use crate::error::Error;
use crate::operations::path::{PathWrite, to_create};
use crate::protocol::claim::Creation;
use crate::protocol::publish::Replace;

/// Publishes the file that the closure `produce` leaves at the path it is given: for producers that
/// insist on a path, like most programs.
///
/// ```
/// use tokio::process::Command;
/// use write_atomically::tokio::write_path_atomically;
///
/// # #[cfg(unix)]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let (list, sorted) = (directory.path().join("list"), directory.path().join("sorted"));
/// # std::fs::write(&list, "b\na\n")?;
/// write_path_atomically(&sorted, async |staged| {
///     let status = Command::new("sort").arg("-o").arg(staged).arg(&list).status().await?;
///     anyhow::ensure!(status.success(), "sort failed: {status}");
///     Ok(())
/// }).await?;
/// assert_eq!(std::fs::read_to_string(&sorted)?, "a\nb\n");
/// # Ok(())
/// # }
/// # #[cfg(not(unix))]
/// # fn main() {}
/// ```
///
/// See [`WriteOptions::write_path`](crate::WriteOptions::write_path) for the staging path, and for its
/// errors.
#[cfg(feature = "anyhow")]
pub async fn write_path_atomically<T>(
    path: impl AsRef<Path>,
    produce: impl AsyncFnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    crate::WriteOptions::new().anyhow().tokio().write_path(path, produce).await
}

/// Publishes the file that the closure `produce` leaves at the path it is given, if nothing is at
/// `path`; `None` if something is. Of many callers, one computes it.
///
/// ```
/// use write_atomically::tokio::write_path_if_missing;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.bin");
/// # async fn convert(to: &std::path::Path) -> std::io::Result<()> { std::fs::write(to, "model") }
/// for expected in [Some(()), None] {
///     let converted = write_path_if_missing(&path, async |staged| Ok(convert(staged).await?));
///     assert_eq!(converted.await?, expected);
/// }
/// # Ok(())
/// # }
/// ```
///
/// See [`WriteOptions::write_path_if_missing`](crate::WriteOptions::write_path_if_missing) for its
/// errors.
#[cfg(feature = "anyhow")]
pub async fn write_path_if_missing<T>(
    path: impl AsRef<Path>,
    produce: impl AsyncFnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    crate::WriteOptions::new().anyhow().tokio().write_path_if_missing(path, produce).await
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Publishes the file that the closure `produce` leaves at the path it is given.
    ///
    /// As [`write_atomically::WriteOptions::write_path`](crate::WriteOptions::write_path). A child
    /// process that writes there outlives the future if that is dropped, unless it is killed then:
    /// `tokio::process::Command::kill_on_drop`.
    pub async fn write_path<T>(
        &self,
        path: impl AsRef<Path>,
        produce: impl AsyncFnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let call = Call::start(path.as_ref(), self.settings());
        let write = call.run(|request| {
            PathWrite::prepare(&request.path, &request.settings, request.owner).map(Box::new)
        });
        let write = write.await?;
        let staged = write.path().to_owned();
        let (write, value) = call.produce(write, staged, produce).await?;
        call.run(move |_| write.publish(Replace::Anything)).await?;
        Ok(value)
    }

    /// Publishes the file that the closure `produce` leaves at the path it is given, if nothing is at
    /// `path`; `None` if something is.
    ///
    /// As [`write_atomically::WriteOptions::write_path_if_missing`](crate::WriteOptions::write_path_if_missing);
    /// the others wait as for [`write_if_missing`](Self::write_if_missing).
    pub async fn write_path_if_missing<T>(
        &self,
        path: impl AsRef<Path>,
        produce: impl AsyncFnOnce(&Path) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let call = Call::start(path.as_ref(), self.settings());
        let Some(write) = call.turn(claim).await? else { return Ok(None) };
        let staged = write.path().to_owned();
        let (write, value) = call.produce(write, staged, produce).await?;
        let published = call.run(move |_| write.publish(Replace::Nothing)).await?;
        Ok(published.then_some(value))
    }
}

/// `None` if something is there.
fn claim(request: &Request) -> Result<Turn<Option<Box<PathWrite>>>, Error> {
    let settings = &request.settings;
    Ok(match to_create(&request.path, settings, request.asker())? {
        Creation::Exists => Turn::Mine(None),
        Creation::Mine(destination, private) => {
            let write = PathWrite::claimed(destination, private, settings, request.owner)?;
            Turn::Mine(Some(Box::new(write)))
        }
        Creation::Busy => Turn::Busy,
    })
}
