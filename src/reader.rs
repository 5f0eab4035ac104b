//! What the closure of an update reads.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Step};
use crate::writer::SMALL_BUFFER;

/// The old content of a file that is being updated: buffered, from the start, and seekable.
///
/// Other updates with this library wait while the closure runs, so the content does not change.
///
/// ```
/// use std::io::{BufRead, Write};
/// use write_atomically::update_atomically;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("todo.txt");
/// # std::fs::write(&path, "milk\nbread\n")?;
/// update_atomically(&path, |old, new| {
///     if let Some(old) = old {
///         for line in old.lines() {
///             let line = line?;
///             if line != "milk" {
///                 writeln!(new, "{line}")?;
///             }
///         }
///     }
///     Ok(())
/// })?;
/// assert_eq!(std::fs::read_to_string(&path)?, "bread\n");
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// Errors from reading and seeking name the destination; they are [`Error`]s of the step
/// [`Step::Read`] inside the [`io::Error`].
pub struct Reader {
    buffer: BufReader<Source>,
}

impl Reader {
    pub(crate) fn new(file: Arc<File>, path: &Path, capacity: Option<usize>) -> Self {
        let source = Source { file, path: path.to_owned() };
        // With an empty buffer, `fill_buf` would say that the file has ended.
        Reader { buffer: BufReader::with_capacity(capacity.unwrap_or(SMALL_BUFFER).max(1), source) }
    }
}

impl Read for Reader {
    #[inline]
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.buffer.read(bytes)
    }

    fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        self.buffer.read_to_end(bytes)
    }

    fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        self.buffer.read_to_string(text)
    }
}

impl BufRead for Reader {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.buffer.fill_buf()
    }

    #[inline]
    fn consume(&mut self, amount: usize) {
        self.buffer.consume(amount);
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.buffer.seek(to)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        self.buffer.stream_position()
    }

    fn seek_relative(&mut self, offset: i64) -> io::Result<()> {
        self.buffer.seek_relative(offset)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("path", &self.buffer.get_ref().path).finish_non_exhaustive()
    }
}

/// The locked file below the buffer.
struct Source {
    file: Arc<File>,
    path: PathBuf,
}

impl Source {
    fn with_path(&self, error: io::Error) -> io::Error {
        match error.kind() {
            // The caller tries an interrupted call again.
            io::ErrorKind::Interrupted => error,
            _ => Error::new(Step::Read, &self.path, error).into(),
        }
    }
}

impl Read for Source {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&*self.file).read(bytes).map_err(|error| self.with_path(error))
    }

    fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        (&*self.file).read_to_end(bytes).map_err(|error| self.with_path(error))
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self.file).seek(to).map_err(|error| self.with_path(error))
    }
}
