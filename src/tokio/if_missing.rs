//! Writing a file that is missing, once, however many tasks and processes ask for it.

use std::io;
use std::path::Path;

use super::call::{Call, Turn};
use super::options::WriteOptions;
use super::request::Request;
use super::writer::Writer;
use crate::error::Error;
use crate::operations::if_missing::to_create;
use crate::protocol::claim::Creation;
use crate::protocol::output::Output;
use crate::protocol::publish::Replace;

/// Writes a file if nothing is at `path`; `None` if something is. Of many callers, one computes it.
///
/// ```
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::tokio::write_if_missing;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("cached");
/// # async fn fetch() -> anyhow::Result<Vec<u8>> { Ok(b"body".to_vec()) }
/// for expected in [Some(4), None] {
///     let bytes = write_if_missing(&path, async |w| {
///         let body = fetch().await?;
///         w.write_all(&body).await?;
///         Ok(body.len())
///     }).await?;
///     assert_eq!(bytes, expected);
/// }
/// # Ok(())
/// # }
/// ```
///
/// See [`WriteOptions::write_if_missing`] for how the others wait, and for its errors.
#[cfg(feature = "anyhow")]
pub async fn write_if_missing<T>(
    path: impl AsRef<Path>,
    fill: impl AsyncFnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    crate::WriteOptions::new().anyhow().tokio().write_if_missing(path, fill).await
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Writes a file if nothing is at `path`; `None` if something is.
    ///
    /// As [`write_atomically::WriteOptions::write_if_missing`](crate::WriteOptions::write_if_missing),
    /// except that those who wait ask again from time to time (after 1 to 32 milliseconds; when more
    /// than 320 tasks wait, each of them less often), so that no thread waits with them.
    ///
    /// # Errors
    ///
    /// As there. The same path inside the closure is an error of kind
    /// [`Deadlock`](io::ErrorKind::Deadlock) if the call is part of the closure's own future; in a task
    /// that the closure has spawned, it waits, for ever if the closure waits for that task.
    pub async fn write_if_missing<T>(
        &self,
        path: impl AsRef<Path>,
        fill: impl AsyncFnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let call = Call::start(path.as_ref(), self.settings());
        let Some(output) = call.turn(claim).await? else { return Ok(None) };
        let (writer, value) = call.fill(output, fill).await?;
        let published = writer.publish(|complete, _| complete.publish(Replace::Nothing)).await?;
        Ok(published.then_some(value))
    }
}

/// `None` if something is there.
fn claim(request: &Request) -> Result<Turn<Option<Box<Output>>>, Error> {
    Ok(match to_create(&request.path, &request.settings, request.asker())? {
        Creation::Exists => Turn::Mine(None),
        Creation::Mine(destination, claimed) => {
            let settings = request.unbuffered();
            let output = Output::claimed(destination, &settings, request.owner, claimed)?;
            Turn::Mine(Some(Box::new(output)))
        }
        Creation::Busy => Turn::Busy,
    })
}
