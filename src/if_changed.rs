//! Writing only what differs from what is there.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use crate::error::{Error, Step};
use crate::options::{Durability, WriteOptions};
use crate::platform::{self, Kind};
use crate::staged::{Clobber, Destination, Staged};
use crate::staging;
use crate::target::Target;
use crate::writer::Writer;

/// What became of a destination that is written only if its content changes, and what the closure
/// returned.
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
    /// There was nothing, or something else: the file has been published.
    Written(T),
    /// The same bytes were there already: the destination was not touched.
    Unchanged(T),
}

impl<T> Change<T> {
    /// What the closure returned.
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

pub(crate) fn write_if_changed<T, E: From<io::Error>>(
    path: &Path,
    options: &WriteOptions,
    write: impl FnOnce(&mut Writer) -> Result<T, E>,
) -> Result<Change<T>, E> {
    match Destination::find(path, options).map_err(io::Error::from)? {
        Destination::Replaceable(target) => {
            let staged = Staged::new(target, options).map_err(io::Error::from)?;
            let (mut written, value) = staged.fill(write)?;
            let same = find_same(&written.target, &mut written.file).map_err(io::Error::from)?;
            if let Some(existing) = same {
                settle(&written.target, options, &existing).map_err(io::Error::from)?;
                return Ok(Change::Unchanged(value));
            }
            written.publish(Clobber::Yes).map_err(io::Error::from)?;
            Ok(Change::Written(value))
        }
        Destination::InPlace(overwrite) => {
            let (mut filled, value) = overwrite.fill(options, write)?;
            let same =
                find_same(&filled.overwrite.target, &mut filled.staged).map_err(io::Error::from)?;
            if let Some(existing) = same {
                settle(&filled.overwrite.target, options, &existing).map_err(io::Error::from)?;
                return Ok(Change::Unchanged(value));
            }
            filled.copy(options).map_err(io::Error::from)?;
            Ok(Change::Written(value))
        }
    }
}

/// Opens the regular file at the destination if its content is that of the staging file. One that
/// can't be read counts as another.
fn find_same(target: &Target, staged: &mut File) -> Result<Option<File>, Error> {
    let is_file = target.found.as_ref().is_some_and(|found| found.kind == Kind::File);
    if !is_file {
        return Ok(None);
    }
    let Ok(mut existing) = platform::open_to_compare(&target.directory, &target.name) else {
        return Ok(None);
    };
    match is_same(&mut existing, staged).map_err(Error::at(Step::Read, &target.path))? {
        true => Ok(Some(existing)),
        false => Ok(None),
    }
}

fn is_same(existing: &mut File, staged: &mut File) -> io::Result<bool> {
    let (old, new) = (platform::stat_file(existing)?, platform::stat_file(staged)?);
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
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
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

/// Whoever wrote what is there may not have synced it; what `Ok` says holds all the same.
fn settle(target: &Target, options: &WriteOptions, existing: &File) -> Result<(), Error> {
    // Publishing would have come across it.
    staging::sweep(target);
    if options.durability != Durability::Relaxed {
        platform::sync_file(existing).map_err(Error::at(Step::Sync, &target.path))?;
    }
    if options.durability == Durability::Durable {
        platform::sync_directory(&target.directory, existing)
            .map_err(Error::at(Step::SyncDirectory, &target.path))?;
    }
    Ok(())
}
