//! Replacing or creating a file.

use std::io::{self, Write};
use std::path::Path;

use crate::options::WriteOptions;
use crate::protocol::lock::Owner;
use crate::protocol::output::Output;
use crate::protocol::publish::Replace;
use crate::writer::Writer;

/// Writes a file that appears at `path` only when the closure `fill` has returned `Ok`.
///
/// ```
/// use std::io::Write;
/// use write_atomically::write_atomically;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("primes.txt");
/// let count = write_atomically(&path, |w| {
///     let mut count = 0;
///     for n in (2..100).filter(|n| (2..*n).all(|m| n % m != 0)) {
///         writeln!(w, "{n}")?;
///         count += 1;
///     }
///     Ok(count)
/// })?;
/// assert_eq!(count, 25);
/// # anyhow::Ok(())
/// ```
///
/// See [`WriteOptions::write`] for what is carried over, and for its errors.
#[cfg(feature = "anyhow")]
pub fn write_atomically<T>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().anyhow().write(path, fill)
}

/// Writes a slice as the whole content of a file: [`std::fs::write`], but complete or not at all, and
/// durable.
///
/// The directory must be writable, which `fs::write` needs only for a new file; see
/// [`WriteOptions::in_place_fallback`].
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("config.toml");
/// write_atomically::write(&path, "retries = 3\n")?;
/// assert_eq!(std::fs::read_to_string(&path)?, "retries = 3\n");
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
///
/// As [`WriteOptions::write`].
pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    WriteOptions::new().write(path, |w| w.write_all(contents.as_ref()))
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Writes a file that appears at `path` only when the closure `fill` has returned `Ok`.
    ///
    /// The closure writes to a buffered [`Writer`]. While it runs, the destination is as it was; on
    /// Linux, on filesystems that support it (ext4, XFS, Btrfs, tmpfs, overlayfs and others), the new
    /// content has no name at all. When the closure has returned `Ok`, the content replaces the file
    /// at `path` in one step, and is durable when this function returns. Mode, owner, group, ACL,
    /// `user.*` attributes and security labels of a file that is replaced are carried over; symbolic
    /// links are followed, and stay.
    ///
    /// Relative paths start at the working directory of when the call starts, whatever the closure
    /// does to it.
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("report.csv");
    /// let rows = [("a", 1), ("b", 2)];
    /// let bytes = WriteOptions::new().mode(0o640).write(&path, |w| {
    ///     let mut bytes = 0;
    ///     for (name, total) in rows {
    ///         let line = format!("{name},{total}\n");
    ///         w.write_all(line.as_bytes())?;
    ///         bytes += line.len();
    ///     }
    ///     Ok(bytes)
    /// })?;
    /// assert_eq!(std::fs::read(&path)?.len(), bytes);
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// * The closure's own error, unchanged. The destination is as it was.
    /// * An [`Error`](crate::Error) inside an [`io::Error`] (see [`Error::find`](crate::Error::find)).
    ///   It says which step failed, and what became of the destination
    ///   ([`Error::outcome`](crate::Error::outcome)).
    ///
    /// Errors that can be detected early are reported before the closure runs: a missing or unwritable
    /// directory, a read-only filesystem, a destination that is a directory, a mount point, immutable,
    /// or that the caller may not write.
    ///
    /// # Destinations that are not regular files
    ///
    /// A device, a FIFO, or what `/dev/stdout` leads to is never replaced: the content is staged, and
    /// copied into it once the closure has returned `Ok`. Opening a FIFO waits for a reader, as
    /// [`std::fs::write`] does.
    pub fn write<T>(
        &self,
        path: impl AsRef<Path>,
        fill: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let output = Output::prepare(path.as_ref(), self.settings(), Owner::this_thread());
        let (complete, value) = output.map_err(io::Error::from)?.fill(fill)?;
        complete.publish(Replace::Anything).map_err(io::Error::from)?;
        Ok(value)
    }
}
