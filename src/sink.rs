//! The staged file below a writer's buffer.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Step};
use crate::platform::{Os, Platform as _};

/// From which length on an output is long, in bytes.
pub(crate) const LONG: u64 = 4 << 20;

/// How much of a long output the kernel is asked at a time to start writing to the disk, in bytes.
/// Larger windows leave more to the final sync; their beginning may also be clean by the time that
/// they end, and is then dropped from the page cache (measured: `benches/README.md`).
pub(crate) const WRITEBACK_WINDOW: u64 = 1 << 20;

/// Whether the kernel is asked to write a long output to the disk while the closure still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writeback {
    Early,
    WithSync,
}

/// The staged file below the buffer.
pub(crate) struct Sink {
    pub(crate) file: Arc<File>,
    pub(crate) path: PathBuf,
    pub(crate) extent: Extent,
    /// Where the part begins whose writeback has not been started; `None` with
    /// [`Writeback::WithSync`].
    window_start: Option<u64>,
}

/// What is known of the staged file without asking the system.
pub(crate) enum Extent {
    Known {
        position: u64,
        /// How far the file has been written.
        length: u64,
    },
    /// Others may have written to the file.
    Lent,
}

impl Extent {
    pub(crate) fn set_length(&mut self, to: u64) {
        if let Extent::Known { length, .. } = self {
            *length = to;
        }
    }
}

impl Sink {
    pub(crate) fn new(file: Arc<File>, path: &Path, writeback: Writeback) -> Self {
        let window_start = (writeback == Writeback::Early).then_some(0);
        let extent = Extent::Known { position: 0, length: 0 };
        Sink { file, path: path.to_owned(), extent, window_start }
    }

    pub(crate) fn with_path(&self, error: io::Error) -> io::Error {
        match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => Error::new(Step::Write, &self.path, error).into(),
        }
    }

    pub(crate) fn position(&self) -> Option<u64> {
        match self.extent {
            Extent::Known { position, .. } => Some(position),
            Extent::Lent => (&*self.file).stream_position().ok(),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match (&*self.file).write(bytes)? {
            0 if !bytes.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
            written => written,
        };
        if let Extent::Known { position, length } = &mut self.extent {
            *position += written as u64;
            *length = (*length).max(*position);
            let position = *position;
            self.start_writeback(position);
        }
        Ok(written)
    }

    fn start_writeback(&mut self, position: u64) {
        let Some(start) = &mut self.window_start else { return };
        while position >= LONG && position.saturating_sub(*start) >= WRITEBACK_WINDOW {
            Os::start_writeback(&self.file, *start, WRITEBACK_WINDOW);
            *start += WRITEBACK_WINDOW;
        }
    }

    pub(crate) fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let new = (&*self.file).seek(to)?;
        if let Extent::Known { position, .. } = &mut self.extent {
            *position = new;
        }
        self.window_start = self.window_start.map(|_| new);
        Ok(new)
    }
}
