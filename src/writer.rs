//! What the closure writes to.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Step};
use crate::platform;

/// The size of the buffer to begin with, in bytes: small enough for the allocator not to ask the system
/// for it.
pub(crate) const SMALL_BUFFER: usize = 64 << 10;

/// The size of the buffer of a long stream, and the most that is written at once, in bytes. Less fills
/// the page cache with small pieces, more is more than the processor's cache holds (measured:
/// `benches/README.md`).
const LARGE_BUFFER: usize = 256 << 10;

/// From which length on an output is long, in bytes.
const LONG: u64 = 4 << 20;

/// How much of a long output the kernel is asked at a time to start bringing to the disk, in bytes.
/// Larger windows leave more to the final sync, and their beginning may be clean by the time that
/// they end, and leave the page cache (measured: `benches/README.md`).
pub(crate) const WRITEBACK_WINDOW: u64 = 1 << 20;

/// The file that a closure writes: buffered, and nowhere to be seen until the closure returns `Ok`.
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
/// Errors from writing and seeking name the destination; they are [`Error`]s of the step
/// [`Step::Write`] inside the [`io::Error`].
pub struct Writer {
    buffer: Vec<u8>,
    /// The buffer's size was not asked for, and may become that of a long stream.
    may_grow: bool,
    sink: Sink,
}

impl Writer {
    pub(crate) fn new(
        file: File,
        path: &Path,
        capacity: Option<usize>,
        early_writeback: bool,
    ) -> Self {
        let window_start = early_writeback.then_some(0);
        let path = path.to_owned();
        let sink = Sink { file, path, position: Some(0), length: Some(0), window_start };
        let buffer = Vec::with_capacity(capacity.unwrap_or(SMALL_BUFFER));
        Writer { buffer, may_grow: capacity.is_none(), sink }
    }

    /// Writes out what is buffered and lends the staged file: to set its length, to hand a clone of
    /// it to a child process as standard output, to map it into memory.
    ///
    /// It is open for reading, too, and shares its position with this writer. What a clone of it
    /// writes after the closure has returned is not part of the promise.
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
    /// What was buffered could not be written.
    pub fn file(&mut self) -> io::Result<&File> {
        self.flush()?;
        self.sink.lend();
        Ok(&self.sink.file)
    }

    /// Appends a whole file from its current position on, at this writer's position, and returns
    /// the number of bytes.
    ///
    /// The bytes don't pass through the program where the system can copy between files itself
    /// (copy_file_range(2)), and take no room where the filesystem can share them.
    ///
    /// ```
    /// use std::fs::File;
    /// use write_atomically::write_atomically;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    /// # std::fs::write(&old, "content")?;
    /// let bytes = write_atomically(&new, |w| Ok(w.append_file(&mut File::open(&old)?)?))?;
    /// assert_eq!(bytes, 7);
    /// assert_eq!(std::fs::read(&new)?, b"content");
    /// # anyhow::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// The source could not be read, or what was read could not be written.
    pub fn append_file(&mut self, source: &mut File) -> io::Result<u64> {
        self.flush()?;
        self.sink.lend();
        io::copy(source, &mut self.sink.file).map_err(|error| self.sink.name(error))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.sink.path
    }

    pub(crate) fn staged_file(&self) -> &File {
        &self.sink.file
    }

    /// Writes out what is buffered and gives the file back.
    pub(crate) fn finish(mut self) -> io::Result<File> {
        self.flush()?;
        Ok(self.discard())
    }

    /// Whether something has been written out, and so little that it takes one request to start its
    /// writeback.
    pub(crate) fn is_short(&self) -> bool {
        self.sink.length.is_some_and(|length| (1..=WRITEBACK_WINDOW).contains(&length))
    }

    /// Writes out as much of what is buffered as possible, and gives the file back.
    pub(crate) fn salvage(mut self) -> File {
        let _ = self.flush();
        self.discard()
    }

    /// Gives the file back without what is still buffered.
    pub(crate) fn discard(self) -> File {
        self.sink.file
    }

    #[cold]
    fn write_all_out(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_out(bytes) {
                Ok(0) => return Err(self.sink.name(io::ErrorKind::WriteZero.into())),
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// For what does not fit in the buffer any more. Fills it up first: then what is written begins at
    /// multiples of the buffer's size, as the large pieces of the page cache do.
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
        self.sink.write(&bytes[..length - length % capacity.clamp(1, LARGE_BUFFER)])
    }

    /// The empty buffer becomes that of a long stream; between two multiples of that one's size, what
    /// leads to the next.
    fn grow(&mut self) {
        let Some(position) = self.sink.position.filter(|&at| self.may_grow && at >= LONG) else {
            return;
        };
        let missing = LARGE_BUFFER - (position % LARGE_BUFFER as u64) as usize;
        self.buffer.reserve_exact(missing);
        self.may_grow = missing < LARGE_BUFFER;
    }
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
            // If that fails, what is buffered stays, and the next call meets the same.
            rest => Ok(written + self.write_out(rest).unwrap_or(0)),
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

    fn flush(&mut self) -> io::Result<()> {
        let mut written = 0;
        let result = loop {
            if written == self.buffer.len() {
                break Ok(());
            }
            match self.sink.write(&self.buffer[written..]) {
                Ok(0) => break Err(self.sink.name(io::ErrorKind::WriteZero.into())),
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        // After an error, what is left stays: somebody may make room and try again.
        self.buffer.drain(..written);
        result
    }
}

impl Seek for Writer {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.flush()?;
        self.sink.seek(to)
    }

    /// Known without a system call, and without writing out what is buffered: archive writers ask
    /// for it all the time.
    fn stream_position(&mut self) -> io::Result<u64> {
        match self.sink.position {
            Some(position) => Ok(position + self.buffer.len() as u64),
            None => {
                self.flush()?;
                self.sink.stream_position()
            }
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// The staged file below the buffer.
struct Sink {
    file: File,
    path: PathBuf,
    /// Unknown after the file was lent.
    position: Option<u64>,
    /// How far it has been written. Unknown once the file was lent.
    length: Option<u64>,
    /// Where the part begins whose writeback has not been started; `None` for never.
    window_start: Option<u64>,
}

impl Sink {
    fn name(&self, error: io::Error) -> io::Error {
        match error.kind() {
            // Not a failure: the caller tries again.
            io::ErrorKind::Interrupted => error,
            _ => Error::new(Step::Write, &self.path, error).into(),
        }
    }

    fn lend(&mut self) {
        (self.position, self.length) = (None, None);
    }

    fn advance(&mut self, written: usize) {
        let Some(position) = &mut self.position else { return };
        *position += written as u64;
        self.length = self.length.map(|length| length.max(*position));
        let Some(start) = &mut self.window_start else { return };
        if *position < LONG {
            return;
        }
        while position.saturating_sub(*start) >= WRITEBACK_WINDOW {
            platform::start_writeback(&self.file, *start, WRITEBACK_WINDOW);
            *start += WRITEBACK_WINDOW;
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes).map_err(|error| self.name(error))?;
        self.advance(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Sink {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = self.file.seek(to).map_err(|error| self.name(error))?;
        self.position = Some(position);
        self.window_start = self.window_start.map(|_| position);
        Ok(position)
    }
}
