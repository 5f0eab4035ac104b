//! What the closure writes to.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Step};
use crate::platform;

/// How much is written before the kernel is asked to start bringing it to the disk, in bytes.
/// Smaller windows make for more and smaller requests; larger ones leave more to the final sync,
/// and some of it would be dropped from the page cache (measured: `benches/README.md`).
const WRITEBACK_WINDOW: u64 = 8 << 20;

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
    buffer: BufWriter<Sink>,
}

impl Writer {
    pub(crate) fn new(file: File, path: &Path, capacity: usize, early_writeback: bool) -> Self {
        let window_start = early_writeback.then_some(0);
        let sink = Sink { file, path: path.to_owned(), position: Some(0), window_start };
        Writer { buffer: BufWriter::with_capacity(capacity, sink) }
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
        let sink = self.buffer.get_mut();
        sink.position = None;
        Ok(&sink.file)
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
        let sink = self.buffer.get_mut();
        sink.position = None;
        io::copy(source, &mut sink.file).map_err(|error| sink.name(error))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.buffer.get_ref().path
    }

    pub(crate) fn staged_file(&self) -> &File {
        &self.buffer.get_ref().file
    }

    /// Writes out what is buffered and gives the file back.
    pub(crate) fn finish(mut self) -> io::Result<File> {
        self.flush()?;
        Ok(self.discard())
    }

    /// Writes out as much of what is buffered as possible, and gives the file back.
    pub(crate) fn salvage(mut self) -> File {
        let _ = self.flush();
        self.discard()
    }

    /// Gives the file back without what is still buffered.
    pub(crate) fn discard(self) -> File {
        self.buffer.into_parts().0.file
    }
}

impl Write for Writer {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.write(bytes)
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.buffer.flush()
    }
}

impl Seek for Writer {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.buffer.seek(to)
    }

    /// Known without a system call, and without writing out what is buffered: archive writers ask
    /// for it all the time.
    fn stream_position(&mut self) -> io::Result<u64> {
        match self.buffer.get_ref().position {
            Some(position) => Ok(position + self.buffer.buffer().len() as u64),
            None => self.buffer.stream_position(),
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

    fn advance(&mut self, written: usize) {
        let Some(position) = &mut self.position else { return };
        *position += written as u64;
        let Some(start) = &mut self.window_start else { return };
        let length = position.saturating_sub(*start);
        if length >= WRITEBACK_WINDOW {
            platform::start_writeback(&self.file, *start, length);
            *start = *position;
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
