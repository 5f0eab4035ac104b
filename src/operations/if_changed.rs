//! Writing a file only if its content differs from the old one.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use crate::error::{Error, Outcome, Step};
use crate::options::WriteOptions;
use crate::platform::{Kind, Os, Platform as _};
use crate::protocol::entry;
use crate::protocol::lock::Owner;
use crate::protocol::output::{Complete, Output};
use crate::protocol::publish::{Replace, sync_parent};
use crate::protocol::resolve::Destination;
use crate::settings::{Durability, Settings};
use crate::writer::Writer;

/// Writes a file unless the same bytes are there already, so that nothing that depends on it is
/// built again.
///
/// ```
/// use std::io::Write;
/// use write_atomically::{Change, write_if_changed};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("version.rs");
/// # let generate = || {
/// write_if_changed(&path, |w| {
///     writeln!(w, "pub const VERSION: &str = {:?};", "1.2.3")?;
///     Ok(())
/// })
/// # };
/// # assert_eq!(generate()?, Change::Written(()));
/// # assert_eq!(generate()?, Change::Unchanged(()));
/// # anyhow::Ok(())
/// ```
///
/// See [`WriteOptions::write_if_changed`] for its errors.
#[cfg(feature = "anyhow")]
pub fn write_if_changed<T>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<Change<T>> {
    WriteOptions::new().anyhow().write_if_changed(path, fill)
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Writes a file unless the same bytes are there already.
    ///
    /// The closure runs in either case, and its output is staged. If a regular file with the same
    /// length and the same bytes is at `path` then, the output is removed, and the file is not touched:
    /// it stays the same file, with its times, mode, owner and attributes. Only the bytes count; the
    /// options on the mode apply to a file that is written. A file that can't be read counts as
    /// different. Both are read piece by piece, in constant memory.
    ///
    /// `Ok` is as durable for [`Change::Unchanged`] as for [`Change::Written`]: the program that wrote
    /// the file may not have synced it, so it is synced now (see [`Durability`]).
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use write_atomically::{Change, WriteOptions};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("generated.rs");
    /// let options = WriteOptions::new();
    /// assert_eq!(options.write_if_changed(&path, |w| writeln!(w, "// 1"))?, Change::Written(()));
    /// assert_eq!(options.write_if_changed(&path, |w| writeln!(w, "// 1"))?, Change::Unchanged(()));
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_if_changed<T>(
        &self,
        path: impl AsRef<Path>,
        fill: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<Change<T>, E> {
        let output = Output::prepare(path.as_ref(), self.settings(), Owner::this_thread());
        let (complete, value) = output.map_err(io::Error::from)?.fill(fill)?;
        match publish_if_changed(complete, self.settings()).map_err(io::Error::from)? {
            true => Ok(Change::Written(value)),
            false => Ok(Change::Unchanged(value)),
        }
    }
}

/// `false` if the content was there already.
pub(crate) fn publish_if_changed(complete: Complete, settings: &Settings) -> Result<bool, Error> {
    match find_same(complete.destination(), complete.file())? {
        Some(existing) => {
            sync_existing(complete.destination(), settings, &existing)?;
            Ok(false)
        }
        None => complete.publish(Replace::Anything),
    }
}

/// What became of a destination that is written only if its content changes, with the value that the
/// closure returned.
///
/// ```
/// use write_atomically::{Change, write_if_changed};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("generated.rs");
/// # let generate = |_: &mut write_atomically::Writer| Ok(42);
/// match write_if_changed(&path, generate)? {
///     Change::Written(items) => println!("{items} items, written"),
///     Change::Unchanged(items) => println!("{items} items, as before"),
/// }
/// # anyhow::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change<T> {
    /// Nothing was there, or different bytes: the file has been published.
    Written(T),
    /// The same bytes were there already: the destination was not touched.
    Unchanged(T),
}

impl<T> Change<T> {
    /// The value that the closure returned.
    ///
    /// ```
    /// use write_atomically::Change;
    ///
    /// assert_eq!(Change::Written(42).into_inner(), 42);
    /// assert_eq!(Change::Unchanged(42).into_inner(), 42);
    /// ```
    pub fn into_inner(self) -> T {
        match self {
            Change::Written(value) | Change::Unchanged(value) => value,
        }
    }
}

/// Opens the regular file at the destination if its content is that of the staging file. A file that
/// can't be read counts as different.
pub(crate) fn find_same(destination: &Destination, staged: &File) -> Result<Option<File>, Error> {
    let is_file = destination.at_start.as_ref().is_some_and(|found| found.kind == Kind::File);
    if !is_file {
        return Ok(None);
    }
    let Ok(existing) = Os::open_to_compare(&destination.directory, &destination.name) else {
        return Ok(None);
    };
    match is_same(&existing, staged).map_err(Error::at(Step::Read, &destination.path))? {
        true => Ok(Some(existing)),
        false => Ok(None),
    }
}

fn is_same(existing: &File, mut staged: &File) -> io::Result<bool> {
    let (old, new) = (Os::stat_file(existing)?, Os::stat_file(staged)?);
    if old.kind != Kind::File || old.len != new.len {
        return Ok(false);
    }
    staged.rewind()?;
    let (mut old, mut new) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let length = read_full(staged, &mut new)?;
        match read_full(existing, &mut old) {
            Ok(other) if old[..other] == new[..length] => {}
            Ok(_) | Err(_) => return Ok(false),
        }
        if length < new.len() {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The program that wrote the file may not have synced it; `Ok` promises the same nevertheless.
pub(crate) fn sync_existing(
    destination: &Destination,
    settings: &Settings,
    existing: &File,
) -> Result<(), Error> {
    // Publishing would have come across it.
    entry::sweep(destination);
    if settings.durability != Durability::Relaxed {
        Os::sync_file(existing).map_err(Error::at(Step::Sync, &destination.path))?;
    }
    sync_parent(destination, settings, existing, Outcome::Unchanged)
}
