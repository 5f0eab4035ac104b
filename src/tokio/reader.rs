//! What the asynchronous closure of an update reads.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncBufRead, AsyncRead, AsyncSeek, ReadBuf};

use super::pool::{Held, Job, Pool, shut_down};
use super::request::Request;
use crate::reader;
use crate::writer::capacity_at;

/// The old content of a file that is being updated: buffered, from the start, and seekable.
///
/// Other updates with this library wait while the closure runs, so the content does not change.
///
/// ```
/// use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
/// use write_atomically::tokio::update_atomically;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("todo.txt");
/// # std::fs::write(&path, "milk\nbread\n")?;
/// update_atomically(&path, async |old, new| {
///     if let Some(old) = old {
///         let mut lines = old.lines();
///         while let Some(line) = lines.next_line().await? {
///             if line != "milk" {
///                 new.write_all(format!("{line}\n").as_bytes()).await?;
///             }
///         }
///     }
///     Ok(())
/// }).await?;
/// assert_eq!(std::fs::read_to_string(&path)?, "bread\n");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`write_atomically::Reader`](crate::Reader).
pub struct Reader {
    buffer: Vec<u8>,
    /// How much of the buffer has been read.
    read: usize,
    /// Where the byte after the buffer is in the file.
    position: u64,
    capacity: usize,
    seek: Option<SeekFrom>,
    /// The job on the pool reads.
    is_filling: bool,
    file: Place,
    path: PathBuf,
    pool: Pool,
}

/// The size of a page: what the system reads at least.
const SMALLEST: usize = 4 << 10;

enum Place {
    Here(Held<reader::Reader>),
    Away(Job<Returned>),
    /// Lost with the runtime.
    Gone,
}

/// What comes back from the pool.
struct Returned {
    file: reader::Reader,
    buffer: Vec<u8>,
    /// The new position.
    result: io::Result<u64>,
}

impl Reader {
    pub(crate) fn new(file: reader::Reader, request: &Request, pool: &Pool) -> Reader {
        let capacity = request.settings.buffer_capacity.unwrap_or(capacity_at(0));
        Reader {
            buffer: Vec::new(),
            read: 0,
            position: 0,
            // With an empty buffer, `poll_fill_buf` would say that the file has ended; and a job for each
            // few bytes takes longer than what it reads.
            capacity: capacity.max(SMALLEST),
            seek: None,
            is_filling: false,
            file: Place::Here(Held::new(pool, file)),
            path: request.path.clone(),
            pool: pool.clone(),
        }
    }

    /// Ends what the pool does with the file, and gives it back.
    pub(crate) async fn into_file(mut self) -> Option<reader::Reader> {
        // An error that the closure has not seen is of bytes that it has not read.
        let _ = poll_fn(|context| self.poll_returned(context)).await;
        match self.file {
            Place::Here(held) => held.take(),
            Place::Away(_) | Place::Gone => None,
        }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.read..]
    }

    /// Lets the pool do something that moves the position, for which the buffer is of no use any more.
    fn start(
        &mut self,
        work: impl FnOnce(&mut reader::Reader, &mut Vec<u8>) -> io::Result<u64> + Send + 'static,
    ) {
        match mem::replace(&mut self.file, Place::Gone) {
            Place::Here(held) => {
                let Some(mut file) = held.take() else { return };
                let mut buffer = mem::take(&mut self.buffer);
                self.read = 0;
                self.file = Place::Away(self.pool.start(move || {
                    let result = work(&mut file, &mut buffer);
                    Returned { file, buffer, result }
                }));
            }
            away => self.file = away,
        }
    }

    fn poll_returned(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let job = match &mut self.file {
            Place::Here(_) => return Poll::Ready(Ok(())),
            Place::Away(job) => job,
            Place::Gone => return Poll::Ready(Err(shut_down())),
        };
        let returned = ready!(Pin::new(job).poll(context));
        self.file = Place::Gone;
        let Returned { file, buffer, result } = returned?;
        (self.file, self.buffer) = (Place::Here(Held::new(&self.pool, file)), buffer);
        self.position = result?;
        Poll::Ready(Ok(()))
    }

    /// Ends a seek that has been asked for. The position.
    fn poll_sought(&mut self, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        ready!(self.poll_returned(context))?;
        let position = self.position - self.rest().len() as u64;
        let to = match self.seek.take() {
            None | Some(SeekFrom::Current(0)) => return Poll::Ready(Ok(position)),
            // The buffer has been read ahead of it.
            Some(SeekFrom::Current(offset)) => SeekFrom::Current(offset - self.rest().len() as i64),
            Some(to) => to,
        };
        self.start(move |file, buffer| {
            buffer.clear();
            file.seek(to)
        });
        self.poll_returned(context).map_ok(|()| self.position)
    }

    fn poll_filled(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.seek.is_some() || !self.is_filling {
            self.is_filling = false;
            ready!(self.poll_sought(context))?;
            if !self.rest().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let (position, capacity) = (self.position, self.capacity);
            self.start(move |file, buffer| {
                buffer.resize(capacity, 0);
                let length = retry(|| file.read(buffer));
                buffer.truncate(*length.as_ref().unwrap_or(&0));
                length.map(|length| position + length as u64)
            });
            self.is_filling = true;
        }
        let filled = ready!(self.poll_returned(context));
        self.is_filling = false;
        Poll::Ready(filled)
    }
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl AsyncBufRead for Reader {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let reader = self.get_mut();
        if reader.rest().is_empty() || reader.seek.is_some() {
            ready!(reader.poll_filled(context))?;
        }
        Poll::Ready(Ok(reader.rest()))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.read = self.buffer.len().min(self.read + amount);
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if into.remaining() > 0 {
            let bytes = ready!(self.as_mut().poll_fill_buf(context))?;
            let length = bytes.len().min(into.remaining());
            into.put_slice(&bytes[..length]);
            self.consume(length);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for Reader {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        if self.seek.is_some() {
            let pending = "another seek is not complete; `poll_complete` ends it";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, pending));
        }
        self.seek = Some(to);
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        self.poll_sought(context)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("path", &self.path).finish_non_exhaustive()
    }
}
