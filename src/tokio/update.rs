//! Read, modify, write, with no update lost.

use std::io;
use std::path::Path;

use super::call::{Call, Turn};
use super::options::WriteOptions;
use super::pool::Held;
use super::reader::Reader;
use super::request::Request;
use super::writer::Writer;
use crate::error::Error;
use crate::operations::update::{Old, Subject, created_meanwhile};
use crate::protocol::output::Output;
use crate::protocol::publish::Replace;

/// Reads a file and writes its new content, while others who update it wait: no update is lost.
///
/// ```
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use write_atomically::tokio::update_atomically;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("counter");
/// # for expected in 1..=2 {
/// let count = update_atomically(&path, async |old, new| {
///     let mut text = String::new();
///     if let Some(old) = old {
///         old.read_to_string(&mut text).await?;
///     }
///     let count = text.parse().unwrap_or(0) + 1;
///     new.write_all(count.to_string().as_bytes()).await?;
///     Ok(count)
/// }).await?;
/// # assert_eq!(count, expected);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// See [`WriteOptions::update`] for how the others wait, and for its errors.
#[cfg(feature = "anyhow")]
pub async fn update_atomically<T>(
    path: impl AsRef<Path>,
    fill: impl AsyncFnOnce(Option<&mut Reader>, &mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    crate::WriteOptions::new().anyhow().tokio().update(path, fill).await
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Reads a file and writes its new content, while others who update it wait.
    ///
    /// As [`write_atomically::WriteOptions::update`](crate::WriteOptions::update); the others wait as
    /// for [`write_if_missing`](Self::write_if_missing).
    pub async fn update<T>(
        &self,
        path: impl AsRef<Path>,
        fill: impl AsyncFnOnce(Option<&mut Reader>, &mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let call = Call::start(path.as_ref(), self.settings());
        match call.turn(find).await? {
            Found::Nothing(output) => {
                let (writer, value) = call.fill(output, async |w| fill(None, w).await).await?;
                let publishing = writer.publish(|complete, request| {
                    match complete.publish(Replace::Nothing)? {
                        true => Ok(()),
                        // It was not there to be read.
                        false => Err(created_meanwhile(&request.path)),
                    }
                });
                publishing.await?;
                Ok(value)
            }
            Found::File(old) => replace_old(&call, *old, fill).await,
        }
    }
}

async fn replace_old<T, E: From<io::Error>>(
    call: &Call,
    old: Old,
    fill: impl AsyncFnOnce(Option<&mut Reader>, &mut Writer) -> Result<T, E>,
) -> Result<T, E> {
    let Old { reader, output, replace, _lock } = old;
    // Held until the file is published or unchanged.
    let lock = Held::new(&call.pool, _lock);
    let mut reader = Reader::new(reader, &call.request, &call.pool);
    let filling = call.fill(Box::new(output), async |w| fill(Some(&mut reader), w).await);
    let filled = filling.await;
    let held = (reader.into_file().await, lock.take());
    match filled {
        Ok((writer, value)) => {
            let publishing = writer.publish(move |complete, _| {
                let (reader, _lock) = held;
                // Not every system replaces a file that is open.
                drop(reader);
                complete.publish(replace)
            });
            publishing.await?;
            Ok(value)
        }
        Err(error) => {
            call.pool.discard(held).await;
            Err(error)
        }
    }
}

enum Found {
    Nothing(Box<Output>),
    File(Box<Old>),
}

fn find(request: &Request) -> Result<Turn<Found>, Error> {
    let (path, settings, asker) = (&request.path, request.unbuffered(), request.asker());
    Ok(match Subject::find(path, &settings, asker)? {
        Subject::Nothing(destination, claimed) => {
            let output = Output::claimed(destination, &settings, request.owner, claimed)?;
            Turn::Mine(Found::Nothing(Box::new(output)))
        }
        Subject::File(route, locked) => {
            let old = Old::open(route, locked, path, &settings, asker)?;
            Turn::Mine(Found::File(Box::new(old)))
        }
        Subject::Busy => Turn::Busy,
    })
}
