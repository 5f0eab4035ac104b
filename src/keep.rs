//! What a failed closure had written, kept for a look at it.

use std::fs::File;
use std::io;

use crate::error::{Error, Step};
use crate::metadata;
use crate::options::{Durability, WriteOptions};
use crate::platform::{self, Code, Kind};
use crate::staged::{self, Clobber, Written};
use crate::target::Target;
use crate::writer::Writer;

/// Where to keep it, and how.
pub(crate) struct Keep {
    target: Target,
    options: WriteOptions,
}

impl Keep {
    /// Looks at the path of [`WriteOptions::keep_failed`] while nothing has failed yet.
    pub(crate) fn open(
        destination: &Target,
        options: &WriteOptions,
    ) -> Result<Option<Keep>, Error> {
        let Some(path) = &options.keep_failed else { return Ok(None) };
        let plain = WriteOptions::new()
            .durability(Durability::Relaxed)
            .create_parents(options.create_parents)
            .preserve_metadata(false);
        let target = Target::resolve(path, &plain)?;
        check(&target, destination).map_err(Error::at(Step::Resolve, path))?;
        let mode =
            mode(&target, &plain, destination, options).map_err(Error::at(Step::Stage, path))?;
        Ok(Some(Keep { target, options: plain.mode(mode) }))
    }

    /// Publishes what was written. That it could not is no reason to hide why the closure failed.
    pub(crate) fn take(self, writer: Writer) {
        self.take_file(writer.salvage());
    }

    /// The same for what was written by path. The file may still have a name of its own.
    pub(crate) fn take_file(self, file: File) {
        let Keep { target, options } = self;
        let mut written = Written::new(target, &options, file, None);
        written.is_synced = true;
        let _ = written.publish(Clobber::Yes);
    }
}

fn check(target: &Target, destination: &Target) -> io::Result<()> {
    let directory = platform::stat_directory(&target.directory)?;
    let other = platform::stat_directory(&destination.directory)?;
    if directory.is_same_file(&other) && target.name == destination.name {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is the destination itself"));
    }
    match target.found.as_ref().map(|found| found.kind) {
        None | Some(Kind::File) => Ok(()),
        Some(Kind::Directory) => Err(platform::error(Code::IsADirectory)),
        Some(_) => Err(platform::error(Code::AlreadyExists)),
    }
}

/// A new file's mode, which only a new file shows, less what the destination does not allow.
fn mode(
    target: &Target,
    plain: &WriteOptions,
    destination: &Target,
    options: &WriteOptions,
) -> io::Result<u32> {
    let (file, _entry) = staged::stage(target, plain)?;
    let new = platform::stat_file(&file)?;
    let allowed = match &destination.found {
        Some(old) if old.kind == Kind::File => metadata::common_mode(&new, old),
        _ => new.mode & 0o777,
    };
    Ok(options.mode.map_or(allowed, |exact| allowed & (exact | 0o600)))
}
