//! What the asynchronous closure writes to.

use std::fmt;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Seek, SeekFrom};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncSeek, AsyncWrite};

use super::pool::{Job, Pool, shut_down};
use super::request::Request;
use crate::protocol::output::Output;
use crate::writer::{self, LARGE_BUFFER, capacity_at};

/// The file that an asynchronous closure writes: buffered, and invisible at the destination until the
/// closure returns `Ok`.
///
/// A full buffer is written on the blocking pool while the closure fills the next one. An error of that
/// is the error of the next write, flush or seek, or of publishing. What is written is in the file after
/// `flush`; publishing flushes.
///
/// ```
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::tokio::write_atomically;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("squares.csv");
/// write_atomically(&path, async |w| {
///     for n in 1..=3 {
///         w.write_all(format!("{n},{}\n", n * n).as_bytes()).await?;
///     }
///     Ok(())
/// }).await?;
/// assert_eq!(std::fs::read_to_string(&path)?, "1,1\n2,4\n3,9\n");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`write_atomically::Writer`](crate::Writer); it remembers what failed in the same way.
pub struct Writer {
    pub(super) buffer: Vec<u8>,
    /// How full the buffer may get before it is handed to the pool.
    capacity: usize,
    /// Where the next byte goes, if that is known.
    position: Option<u64>,
    seeking: Option<Seeking>,
    /// Bytes that could not be written are still to be written before others.
    is_behind: bool,
    pub(super) staged: Staged,
    /// The answer of the last job.
    answer: u64,
    /// The other buffer.
    spare: Vec<u8>,
    pub(super) request: Arc<Request>,
    pub(super) pool: Pool,
}

/// Where the staging file is.
pub(super) enum Staged {
    Here(Box<Output>),
    Away(Job<Returned>),
    /// Taken, or lost with the runtime.
    Gone,
}

/// What comes back from the pool.
pub(super) struct Returned {
    pub(super) output: Box<Output>,
    /// Empty, unless an earlier buffer could not be written.
    pub(super) buffer: Vec<u8>,
    result: io::Result<u64>,
}

enum Seeking {
    Asked(SeekFrom),
    Started,
}

impl Writer {
    pub(crate) fn new(output: Box<Output>, request: &Arc<Request>, pool: &Pool) -> Writer {
        let capacity = request.settings.buffer_capacity.unwrap_or(capacity_at(0));
        Writer {
            buffer: Vec::with_capacity(capacity),
            capacity,
            position: Some(0),
            seeking: None,
            is_behind: false,
            staged: Staged::Here(output),
            answer: 0,
            spare: Vec::new(),
            request: request.clone(),
            pool: pool.clone(),
        }
    }

    /// Flushes the buffer and lends the staged file: to hand a clone of it to a child process as
    /// standard output, or to map it into memory.
    ///
    /// See [`write_atomically::Writer::file`](crate::Writer::file). Reading and writing it block.
    ///
    /// ```
    /// use tokio::process::Command;
    /// use write_atomically::tokio::write_atomically;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> anyhow::Result<()> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("version.txt");
    /// write_atomically(&path, async |w| {
    ///     let output = w.file().await?.try_clone()?;
    ///     let status = Command::new("cargo").arg("--version").stdout(output).status().await?;
    ///     anyhow::ensure!(status.success(), "cargo failed: {status}");
    ///     Ok(())
    /// }).await?;
    /// assert!(std::fs::read_to_string(&path)?.starts_with("cargo "));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The buffered bytes could not be written.
    pub async fn file(&mut self) -> io::Result<&File> {
        poll_fn(|context| self.poll_all_written(context)).await?;
        self.position = None;
        match &mut self.staged {
            // Its own buffer is empty: it has nothing to write here.
            Staged::Here(output) => output.writer().file(),
            Staged::Away(_) | Staged::Gone => Err(shut_down()),
        }
    }

    /// Copies a file, from its current position to its end, to this writer's position, and returns the
    /// number of bytes. The bytes don't pass through the program where the system can copy between
    /// files itself.
    ///
    /// If this future is dropped, the copying goes on, and the next use of the writer waits for it.
    ///
    /// ```
    /// use std::fs::File;
    /// use write_atomically::tokio::write_atomically;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> anyhow::Result<()> {
    /// # let directory = tempfile::tempdir()?;
    /// # let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    /// # std::fs::write(&old, "content")?;
    /// let old = File::open(&old)?;
    /// let bytes = write_atomically(&new, async |w| Ok(w.copy_from(&old).await?)).await?;
    /// assert_eq!(bytes, 7);
    /// assert_eq!(std::fs::read(&new)?, b"content");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The source could not be read, or its content could not be written.
    pub async fn copy_from(&mut self, source: &File) -> io::Result<u64> {
        // dup(2): both share the position.
        let mut source = source.try_clone()?;
        self.act(move |writer| writer.copy_from(&mut source)).await
    }

    /// Cuts the file off, or extends it with zeros, to `length` bytes. The position stays.
    ///
    /// ```
    /// use tokio::io::AsyncWriteExt;
    /// use write_atomically::tokio::write_atomically;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> anyhow::Result<()> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("disk.img");
    /// write_atomically(&path, async |w| {
    ///     w.write_all(b"boot sector").await?;
    ///     Ok(w.set_len(1 << 20).await?) // the rest is a hole
    /// }).await?;
    /// assert_eq!(std::fs::metadata(&path)?.len(), 1 << 20);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The buffered bytes could not be written, or the length could not be set.
    pub async fn set_len(&mut self, length: u64) -> io::Result<()> {
        let position = self.position;
        self.act(move |writer| writer.set_len(length).map(|()| 0)).await?;
        self.position = position;
        Ok(())
    }

    /// Lets the pool do something that takes one job.
    async fn act(
        &mut self,
        work: impl FnOnce(&mut writer::Writer) -> io::Result<u64> + Send + 'static,
    ) -> io::Result<u64> {
        poll_fn(|context| self.poll_sought(context)).await?;
        poll_fn(|context| self.poll_returned(context)).await?;
        self.position = None;
        self.start(work);
        poll_fn(|context| self.poll_returned(context)).await?;
        Ok(self.answer)
    }

    /// Whether this takes bytes only after something else has been done.
    fn must_wait(&self) -> bool {
        self.is_behind || self.seeking.is_some()
    }

    fn is_full(&self) -> bool {
        !self.buffer.is_empty() && self.buffer.len() >= self.capacity
    }

    /// Hands the buffer to the pool, with what else is to be done there.
    fn start(
        &mut self,
        work: impl FnOnce(&mut writer::Writer) -> io::Result<u64> + Send + 'static,
    ) {
        match mem::replace(&mut self.staged, Staged::Gone) {
            Staged::Here(mut output) => {
                let mut buffer = mem::replace(&mut self.buffer, mem::take(&mut self.spare));
                self.staged = Staged::Away(self.pool.start(move || {
                    let written = output.writer().write_buffer(&mut buffer);
                    let result = written.and_then(|()| work(output.writer()));
                    Returned { output, buffer, result }
                }));
            }
            away => self.staged = away,
        }
    }

    /// The same for the buffer alone.
    fn start_writing(&mut self) {
        self.start(|_| Ok(0));
        if let (None, Some(position)) = (self.request.settings.buffer_capacity, self.position) {
            self.capacity = capacity_at(position);
        }
        self.buffer.reserve_exact(self.capacity);
    }

    /// Waits for the job on the pool, whose error it was not possible to report earlier.
    pub(super) fn poll_returned(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let job = match &mut self.staged {
            Staged::Here(_) => return Poll::Ready(Ok(())),
            Staged::Away(job) => job,
            Staged::Gone => return Poll::Ready(Err(shut_down())),
        };
        let returned = ready!(Pin::new(job).poll(context));
        self.staged = Staged::Gone;
        let Returned { output, mut buffer, result } = returned?;
        self.staged = Staged::Here(output);
        if buffer.is_empty() {
            self.spare = buffer;
        } else {
            buffer.append(&mut self.buffer);
            self.buffer = buffer;
        }
        self.is_behind = result.is_err();
        self.answer = result?;
        Poll::Ready(Ok(()))
    }

    /// Hands the buffer to the pool, as soon as the one before is written.
    fn poll_handed_over(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_returned(context))?;
        match self.is_behind {
            true => {
                self.start_writing();
                self.poll_returned(context)
            }
            false => {
                if !self.buffer.is_empty() {
                    self.start_writing();
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_all_written(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sought(context))?;
        if self.is_behind || !self.buffer.is_empty() {
            ready!(self.poll_handed_over(context))?;
        }
        self.poll_returned(context)
    }

    /// Ends a seek that has been asked for. The position.
    pub(super) fn poll_sought(&mut self, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        if let Some(Seeking::Asked(to)) = self.seeking {
            if let (SeekFrom::Current(0), Some(position)) = (to, self.position) {
                // Known without a job: archive writers ask for it all the time.
                self.seeking = None;
                return Poll::Ready(Ok(position));
            }
            let earlier = ready!(self.poll_returned(context));
            self.seeking = earlier.is_ok().then_some(Seeking::Started);
            earlier?;
            self.start(move |writer| writer.seek(to));
        }
        if let Some(Seeking::Started) = self.seeking {
            let sought = ready!(self.poll_returned(context));
            self.seeking = None;
            self.position = None;
            sought?;
            self.position = Some(self.answer);
        }
        Poll::Ready(Ok(self.position.unwrap_or(0)))
    }

    #[cold]
    fn poll_write_slowly(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_sought(context))?;
        if self.is_behind || self.is_full() || self.capacity == 0 {
            ready!(self.poll_handed_over(context))?;
        }
        if self.capacity == 0 {
            // One write after the other: each is on its way when it returns.
            ready!(self.poll_returned(context))?;
        }
        let taken = self.how_many_of(bytes.len());
        self.accept(&bytes[..taken]);
        if self.is_full() && matches!(self.staged, Staged::Here(_)) {
            self.start_writing();
        }
        Poll::Ready(Ok(taken))
    }

    /// Fills the buffer up first, so that the writes begin at multiples of its size; then takes many
    /// bytes at once.
    fn how_many_of(&self, length: usize) -> usize {
        if self.buffer.is_empty() && length >= self.capacity {
            let length = length.min(LARGE_BUFFER);
            return length - length % self.capacity.clamp(1, LARGE_BUFFER);
        }
        length.min(self.capacity.saturating_sub(self.buffer.len()))
    }

    #[inline]
    fn accept(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.position = self.position.map(|position| position + bytes.len() as u64);
    }
}

impl AsyncWrite for Writer {
    #[inline]
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.buffer.len() + bytes.len() <= self.capacity && !self.must_wait() {
            self.accept(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_write_slowly(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_all_written(context)
    }

    /// Flushes. Publishing is the closure's `Ok`, and closes the file.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

impl AsyncSeek for Writer {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        if self.seeking.is_some() {
            let pending = "another seek is not complete; `poll_complete` ends it";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, pending));
        }
        self.seeking = Some(Seeking::Asked(to));
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        self.poll_sought(context)
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("path", &self.request.path).finish_non_exhaustive()
    }
}
