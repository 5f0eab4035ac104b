//! What the closure writes to.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use crate::failure::Failure;
use crate::sink::{Extent, LONG, Sink, WRITEBACK_WINDOW, Writeback};
use crate::sparse;

/// The size of the buffer to begin with, in bytes: below the threshold from which on the allocator
/// asks the system for memory (mallopt(3), `M_MMAP_THRESHOLD`: 128 KiB).
pub(crate) const SMALL_BUFFER: usize = 64 << 10;

/// The size of the buffer of a long stream, and the most that is written at once, in bytes. Smaller
/// writes fill the page cache with small folios, larger ones do not fit in the processor's cache
/// (measured: `benches/README.md`).
pub(crate) const LARGE_BUFFER: usize = 256 << 10;

/// The file that a closure writes: buffered, and invisible at the destination until the closure
/// returns `Ok`.
///
/// ```
/// use std::io::Write;
/// use write_atomically::write_atomically;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("squares.csv");
/// write_atomically(&path, |w| {
///     for n in 1..=3 {
///         writeln!(w, "{n},{}", n * n)?;
///     }
///     Ok(())
/// })?;
/// assert_eq!(std::fs::read_to_string(&path)?, "1,1\n2,4\n3,9\n");
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// Errors from writing and seeking name the destination; they are [`Error`](crate::Error)s of the
/// step [`Step::Write`](crate::Step::Write) inside the [`io::Error`].
///
/// The writer remembers a write, flush, seek or `set_len` that failed, for any reason other than
/// [`Interrupted`](io::ErrorKind::Interrupted), until a later attempt has written the same bytes at
/// the same place (or has sought, or set a length). If the closure returns `Ok` nevertheless, because
/// a wrapper's `Drop` ignored the error, the file is not published: the call returns that error.
pub struct Writer {
    buffer: Vec<u8>,
    buffering: Buffering,
    sink: Sink,
    failure: Option<Failure>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Buffering {
    /// The caller has chosen the capacity, or it is that of a long stream.
    Fixed,
    /// The capacity becomes that of a long stream once the output is long.
    Grows,
}

impl Writer {
    pub(crate) fn new(
        file: Arc<File>,
        path: &Path,
        capacity: Option<usize>,
        writeback: Writeback,
    ) -> Self {
        let buffering = if capacity.is_some() { Buffering::Fixed } else { Buffering::Grows };
        let buffer = Vec::with_capacity(capacity.unwrap_or(SMALL_BUFFER));
        Writer { buffer, buffering, sink: Sink::new(file, path, writeback), failure: None }
    }

    /// Flushes the buffer and lends the staged file: to hand a clone of it to a child process as
    /// standard output, or to map it into memory.
    ///
    /// The file is open for reading, too, and shares its position with this writer. What a clone
    /// of it writes after the closure has returned is not part of the promise.
    ///
    /// ```
    /// use std::process::Command;
    /// use write_atomically::write_atomically;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("version.txt");
    /// write_atomically(&path, |w| {
    ///     let status = Command::new("cargo").arg("--version").stdout(w.file()?.try_clone()?).status()?;
    ///     anyhow::ensure!(status.success(), "cargo failed: {status}");
    ///     Ok(())
    /// })?;
    /// assert!(std::fs::read_to_string(&path)?.starts_with("cargo "));
    /// # anyhow::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// The buffered bytes could not be written.
    pub fn file(&mut self) -> io::Result<&File> {
        self.flush()?;
        self.sink.extent = Extent::Lent;
        Ok(&self.sink.file)
    }

    /// Copies a file, from its current position to its end, to this writer's position, and returns
    /// the number of bytes.
    ///
    /// The bytes don't pass through the program where the system can copy between files itself
    /// (copy_file_range(2)), and take no room where the filesystem can share them (reflinks). Holes stay
    /// holes on Linux, if the copy is at the end of what has been written (lseek(2), `SEEK_DATA`).
    ///
    /// ```
    /// use std::fs::File;
    /// use write_atomically::write_atomically;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    /// # std::fs::write(&old, "content")?;
    /// let bytes = write_atomically(&new, |w| Ok(w.copy_from(&mut File::open(&old)?)?))?;
    /// assert_eq!(bytes, 7);
    /// assert_eq!(std::fs::read(&new)?, b"content");
    /// # anyhow::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// The source could not be read, or its content could not be written.
    pub fn copy_from(&mut self, source: &mut File) -> io::Result<u64> {
        self.flush()?;
        self.sink.extent = Extent::Lent;
        let copied = sparse::copy(source, &self.sink.file);
        copied.map_err(|error| self.fail(error, Failure::for_good))
    }

    /// Cuts the file off, or extends it with zeros, to `length` bytes. The position stays.
    ///
    /// ```
    /// use std::io::Write;
    /// use write_atomically::write_atomically;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("disk.img");
    /// write_atomically(&path, |w| {
    ///     w.write_all(b"boot sector")?;
    ///     Ok(w.set_len(1 << 20)?) // the rest is a hole
    /// })?;
    /// assert_eq!(std::fs::metadata(&path)?.len(), 1 << 20);
    /// # anyhow::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// The buffered bytes could not be written, or the length could not be set.
    pub fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.flush()?;
        match self.sink.file.set_len(length) {
            Ok(()) => {
                self.sink.extent.set_length(length);
                self.forget(Failure::is_of_set_len);
                Ok(())
            }
            Err(error) => Err(self.fail(error, Failure::of_set_len)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.sink.path
    }

    /// Writes out a buffer that somebody else has filled, and empties it. After an error, the bytes
    /// that are left are in this writer's own buffer, or still in that one.
    #[cfg(feature = "tokio")]
    pub(crate) fn write_buffer(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.flush()?;
        std::mem::swap(&mut self.buffer, buffer);
        self.flush()?;
        std::mem::swap(&mut self.buffer, buffer);
        Ok(())
    }

    /// Flushes the buffer. The error that was remembered, if the closure has ignored one.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        match self.failure.take() {
            Some(failure) => Err(self.sink.with_path(failure.into_error())),
            None => Ok(()),
        }
    }

    /// Whether something has been written out, and so little that it takes one request to start its
    /// writeback.
    pub(crate) fn is_short(&self) -> bool {
        match self.sink.extent {
            Extent::Known { length, .. } => (1..=WRITEBACK_WINDOW).contains(&length),
            Extent::Lent => false,
        }
    }

    /// Writes out as much of the buffer as possible, and gives the file back.
    pub(crate) fn salvage(mut self) -> Arc<File> {
        let _ = self.flush();
        self.into_file()
    }

    /// Gives the file back without what is still buffered.
    pub(crate) fn into_file(self) -> Arc<File> {
        self.sink.file
    }

    /// Remembers an error, and names the path in it.
    #[cold]
    fn fail(
        &mut self,
        error: io::Error,
        remember: impl FnOnce(&io::Error) -> Failure,
    ) -> io::Error {
        // The caller tries an interrupted call again.
        if error.kind() != io::ErrorKind::Interrupted {
            let failure = remember(&error);
            self.failure = Some(match self.failure.take() {
                Some(earlier) => earlier.and(failure),
                None => failure,
            });
        }
        self.sink.with_path(error)
    }

    fn forget(&mut self, is_mended: impl FnOnce(&Failure) -> bool) {
        if self.failure.as_ref().is_some_and(is_mended) {
            self.failure = None;
        }
    }

    /// Writes a part of these bytes to the file.
    fn write_part(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let position = self.failure.as_ref().and_then(|_| self.sink.position());
        let written = self.sink.write(bytes)?;
        if let Some(failure) = &mut self.failure {
            failure.note_written(position, &bytes[..written]);
            self.forget(Failure::is_mended);
        }
        Ok(written)
    }

    /// The same past the buffer: bytes that could not be written are nowhere else.
    fn write_through(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_part(bytes).map_err(|error| {
            let position = self.sink.position();
            self.fail(error, |error| Failure::of_write(error, position, bytes))
        })
    }

    #[cold]
    fn write_all_out(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_out(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// For bytes that do not fit in the buffer. Fills it up first: then the writes begin at
    /// multiples of the buffer's size, as the large folios of the page cache do.
    #[cold]
    fn write_out(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.buffer.capacity() - self.buffer.len();
        if room > 0 && !self.buffer.is_empty() {
            let fitting = room.min(bytes.len());
            self.buffer.extend_from_slice(&bytes[..fitting]);
            return Ok(fitting);
        }
        self.flush()?;
        self.grow();
        let capacity = self.buffer.capacity();
        if bytes.len() < capacity {
            self.buffer.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        let length = bytes.len().min(LARGE_BUFFER);
        self.write_through(&bytes[..length - length % capacity.clamp(1, LARGE_BUFFER)])
    }

    /// The empty buffer becomes that of a long stream; between two multiples of that one's size, it
    /// takes just what leads to the next.
    fn grow(&mut self) {
        let Extent::Known { position, .. } = self.sink.extent else { return };
        if self.buffering == Buffering::Fixed || position < LONG {
            return;
        }
        let missing = up_to_next_multiple(position);
        self.buffer.reserve_exact(missing);
        if missing == LARGE_BUFFER {
            self.buffering = Buffering::Fixed;
        }
    }
}

fn up_to_next_multiple(position: u64) -> usize {
    LARGE_BUFFER - (position % LARGE_BUFFER as u64) as usize
}

/// The size of the buffer that begins at a position, for one who changes buffers.
#[cfg(feature = "tokio")]
pub(crate) fn capacity_at(position: u64) -> usize {
    if position < LONG { SMALL_BUFFER } else { up_to_next_multiple(position) }
}

impl Write for Writer {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() <= self.buffer.capacity() - self.buffer.len() {
            self.buffer.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        let written = self.write_out(bytes)?;
        match &bytes[written..] {
            [] => Ok(written),
            rest => {
                let has_failed = self.failure.is_some();
                let more = self.write_out(rest).unwrap_or_else(|_| {
                    // The caller's next write meets this failure: these bytes do not count as written.
                    self.failure = self.failure.take().filter(|_| has_failed);
                    0
                });
                Ok(written + more)
            }
        }
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() <= self.buffer.capacity() - self.buffer.len() {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_all_out(bytes)
    }

    /// After an error, the bytes that are left stay in the buffer: the closure may make room and try
    /// again, and publishing does.
    fn flush(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut written = 0;
        let result = loop {
            if written == buffer.len() {
                break Ok(());
            }
            match self.write_part(&buffer[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(self.sink.with_path(error)),
            }
        };
        self.buffer = buffer;
        self.buffer.drain(..written);
        result
    }
}

impl Seek for Writer {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.flush()?;
        match self.sink.seek(to) {
            Ok(position) => {
                self.forget(Failure::is_of_seek);
                Ok(position)
            }
            Err(error) => Err(self.fail(error, Failure::of_seek)),
        }
    }

    /// Known without a system call, and without writing out the buffer: archive writers ask for it
    /// all the time.
    fn stream_position(&mut self) -> io::Result<u64> {
        if let Extent::Known { position, .. } = self.sink.extent {
            return Ok(position + self.buffer.len() as u64);
        }
        self.flush()?;
        self.sink.seek(SeekFrom::Current(0)).map_err(|error| self.sink.with_path(error))
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("path", &self.path()).finish_non_exhaustive()
    }
}
