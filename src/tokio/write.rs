//! Replacing or creating a file, or leaving it alone.

use std::io::{self, Write};
use std::path::Path;

use ::tokio::io::AsyncWrite;

use super::call::Call;
use super::options::WriteOptions;
use super::writer::Writer;
use crate::operations::create::exists;
use crate::operations::if_changed::{Change, publish_if_changed};
use crate::protocol::destination::find_nothing;
use crate::protocol::output::Output;
use crate::protocol::publish::Replace;
use crate::writer::LARGE_BUFFER;

/// Writes a file that appears at `path` only when the closure `fill` has returned `Ok`.
///
/// ```
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::tokio::write_atomically;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("report.csv");
/// # async fn rows() -> anyhow::Result<Vec<u32>> { Ok(vec![1, 2]) }
/// write_atomically(&path, async |w| {
///     for row in rows().await? { // any error, of any type
///         w.write_all(format!("{row}\n").as_bytes()).await?;
///     }
///     Ok(())
/// }).await?;
/// assert_eq!(std::fs::read_to_string(&path)?, "1\n2\n");
/// # Ok(())
/// # }
/// ```
///
/// See [`WriteOptions::write`](crate::WriteOptions::write) for what is carried over, and for its errors.
#[cfg(feature = "anyhow")]
pub async fn write_atomically<T>(
    path: impl AsRef<Path>,
    fill: impl AsyncFnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    crate::WriteOptions::new().anyhow().tokio().write(path, fill).await
}

/// Writes a file that must not exist, and appears at `path` only when the closure `fill` has returned
/// `Ok`.
///
/// ```
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::tokio::create_atomically;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("job.lock");
/// create_atomically(&path, async |w| Ok(w.write_all(b"first come").await?)).await?;
/// assert!(create_atomically(&path, async |_| Ok(())).await.is_err());
/// # Ok(())
/// # }
/// ```
///
/// See [`WriteOptions::create`](crate::WriteOptions::create) for its errors.
#[cfg(feature = "anyhow")]
pub async fn create_atomically<T>(
    path: impl AsRef<Path>,
    fill: impl AsyncFnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    crate::WriteOptions::new().anyhow().tokio().create(path, fill).await
}

/// Writes a file, unless the same bytes are there already.
///
/// ```
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::{Change, tokio::write_if_changed};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("generated.rs");
/// # std::fs::write(&path, "// 1\n")?;
/// let change = write_if_changed(&path, async |w| Ok(w.write_all(b"// 1\n").await?)).await?;
/// assert_eq!(change, Change::Unchanged(()));
/// # Ok(())
/// # }
/// ```
///
/// See [`WriteOptions::write_if_changed`](crate::WriteOptions::write_if_changed).
#[cfg(feature = "anyhow")]
pub async fn write_if_changed<T>(
    path: impl AsRef<Path>,
    fill: impl AsyncFnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<Change<T>> {
    crate::WriteOptions::new().anyhow().tokio().write_if_changed(path, fill).await
}

/// Writes a slice as the whole content of a file: `tokio::fs::write`, but complete or not at all, and
/// durable.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("config.toml");
/// write_atomically::tokio::write(&path, "retries = 3\n").await?;
/// assert_eq!(std::fs::read_to_string(&path)?, "retries = 3\n");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`WriteOptions::write`](crate::WriteOptions::write).
pub async fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    let (path, contents) = (path.as_ref(), contents.as_ref());
    let options = crate::WriteOptions::new();
    if contents.len() > LARGE_BUFFER {
        return options.tokio().write(path, async |w| write_all(w, contents).await).await;
    }
    // One job: copying that much takes less time than another one.
    let call = Call::start(path, options.settings());
    let contents = contents.to_owned();
    let job = move || options.write(&call.request.path, |w| w.write_all(&contents));
    call.pool.start(job).await?
}

/// `AsyncWriteExt` is one of tokio's features, which this crate does without.
async fn write_all(writer: &mut Writer, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let writing = std::future::poll_fn(|context| {
            std::pin::Pin::new(&mut *writer).poll_write(context, bytes)
        });
        let written = writing.await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Writes a file that appears at `path` only when the closure `fill` has returned `Ok`.
    ///
    /// As [`write_atomically::WriteOptions::write`](crate::WriteOptions::write). A relative path starts
    /// at the working directory of when the future is polled first.
    pub async fn write<T>(
        &self,
        path: impl AsRef<Path>,
        fill: impl AsyncFnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let call = Call::start(path.as_ref(), self.settings());
        let output = call.run(|request| {
            Output::prepare(&request.path, &request.unbuffered(), request.owner).map(Box::new)
        });
        let (writer, value) = call.fill(output.await?, fill).await?;
        writer.publish(|complete, _| complete.publish(Replace::Anything)).await?;
        Ok(value)
    }

    /// Writes a file that must not exist, and appears at `path` only when the closure `fill` has
    /// returned `Ok`.
    ///
    /// As [`write_atomically::WriteOptions::create`](crate::WriteOptions::create).
    pub async fn create<T>(
        &self,
        path: impl AsRef<Path>,
        fill: impl AsyncFnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let call = Call::start(path.as_ref(), self.settings());
        let output = call.run(|request| {
            let destination = find_nothing(&request.path, &request.settings)?;
            Output::replace(destination, &request.unbuffered(), request.owner).map(Box::new)
        });
        let (writer, value) = call.fill(output.await?, fill).await?;
        let publishing =
            writer.publish(|complete, request| match complete.publish(Replace::Nothing)? {
                true => Ok(()),
                false => Err(exists(&request.path)),
            });
        publishing.await?;
        Ok(value)
    }

    /// Writes a file, unless the same bytes are there already.
    ///
    /// As [`write_atomically::WriteOptions::write_if_changed`](crate::WriteOptions::write_if_changed).
    pub async fn write_if_changed<T>(
        &self,
        path: impl AsRef<Path>,
        fill: impl AsyncFnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<Change<T>, E> {
        let call = Call::start(path.as_ref(), self.settings());
        let output = call.run(|request| {
            Output::prepare(&request.path, &request.unbuffered(), request.owner).map(Box::new)
        });
        let (writer, value) = call.fill(output.await?, fill).await?;
        let publishing =
            writer.publish(|complete, request| publish_if_changed(complete, &request.settings));
        Ok(match publishing.await? {
            true => Change::Written(value),
            false => Change::Unchanged(value),
        })
    }
}
