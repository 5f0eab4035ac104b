//! Read, modify, write, with no update lost.

use std::io;
use std::path::Path;

use crate::error::{Error, Step};
use crate::lock::{self, Asked, LockEntry, LockedFile};
use crate::options::WriteOptions;
use crate::overwrite::Overwrite;
use crate::platform::{self, Code, Kind, Stat};
use crate::reader::Reader;
use crate::staged::{Clobber, Destination, Staged};
use crate::target::Target;
use crate::writer::Writer;

pub(crate) fn update<T, E: From<io::Error>>(
    path: &Path,
    options: &WriteOptions,
    update: impl FnOnce(Option<&mut Reader>, &mut Writer) -> Result<T, E>,
) -> Result<T, E> {
    // Whatever ends this function, the lock goes last: publishing happens before, and what was
    // staged is gone.
    match Locked::find(path, options).map_err(io::Error::from)? {
        Locked::Nothing { target, _lock } => {
            let staged = Staged::new(target, options).map_err(io::Error::from)?;
            let (written, value) = staged.fill(|w| update(None, w))?;
            // What has come from elsewhere was not there to be read, and is not replaced.
            written.publish(Clobber::No).map_err(io::Error::from)?;
            Ok(value)
        }
        Locked::File { target, file: LockedFile { file, id, lock: _lock } } => {
            let mut reader = Reader::new(file, path, options.buffer_capacity);
            let staged = Staged::new(target, options).map_err(io::Error::from)?;
            let (written, value) = staged.fill(|w| update(Some(&mut reader), w))?;
            // Not every system replaces a file that is open.
            drop(reader);
            written.publish(Clobber::Only(id)).map_err(io::Error::from)?;
            Ok(value)
        }
        Locked::InPlace { overwrite, file: LockedFile { file, lock: _lock, .. } } => {
            let mut reader = Reader::new(file, path, options.buffer_capacity);
            overwrite.write(options, |w| update(Some(&mut reader), w))
        }
    }
}

/// A destination that nobody else updates.
enum Locked {
    Nothing { target: Target, _lock: Option<LockEntry> },
    File { target: Target, file: LockedFile },
    InPlace { overwrite: Overwrite, file: LockedFile },
}

impl Locked {
    fn find(path: &Path, options: &WriteOptions) -> Result<Locked, Error> {
        loop {
            let target = Target::resolve(path, options)?;
            let locked = match target.found.clone() {
                Some(found) => Locked::existing(target, &found, options)?,
                None => Locked::missing(target, options)?,
            };
            if let Some(locked) = locked {
                return Ok(locked);
            }
        }
    }

    fn missing(target: Target, options: &WriteOptions) -> Result<Option<Locked>, Error> {
        let lock = match lock::missing(&target, options)? {
            Asked::Held(entry) => Some(entry),
            // Publishing decides, then: it never replaces anything.
            Asked::Impossible => None,
            Asked::LookAgain => return Ok(None),
        };
        Ok(Some(Locked::Nothing { target, _lock: lock }))
    }

    fn existing(
        target: Target,
        found: &Stat,
        options: &WriteOptions,
    ) -> Result<Option<Locked>, Error> {
        check_readable(&target, found)?;
        let file = match lock::existing(&target, found)? {
            Asked::Held(file) => file,
            Asked::Impossible => return Err(no_locks(&target)),
            Asked::LookAgain => return Ok(None),
        };
        lock::sweep(&target);
        Ok(Some(match Destination::of(target, options)? {
            Destination::Replaceable(target) => Locked::File { target, file },
            Destination::InPlace(overwrite) => Locked::InPlace { overwrite, file },
        }))
    }
}

/// Only a regular file has an old content that can be read and replaced.
fn check_readable(target: &Target, found: &Stat) -> Result<(), Error> {
    let (code, hint) = match found.kind {
        Kind::File => return Ok(()),
        Kind::Directory => (Code::IsADirectory, "only a file can be updated"),
        Kind::Symlink if !target.is_magic_link => {
            (Code::TooManyLinks, "it is a symbolic link, and links are not to be followed")
        }
        Kind::Symlink | Kind::Other => {
            (Code::InvalidName, "it is no regular file, and has no content that can be updated")
        }
    };
    Err(Error::new(Step::Resolve, &target.path, platform::error(code)).hint(hint))
}

fn no_locks(target: &Target) -> Error {
    let error = io::Error::from(io::ErrorKind::Unsupported);
    Error::new(Step::Lock, &target.path, error)
        .hint("without locks, which this filesystem does not have, updates could be lost")
}
