//! Files whose producers insist on a path.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Step};
use crate::keep::Keep;
use crate::options::WriteOptions;
use crate::overwrite::Filled;
use crate::platform::{self, Code, Kind, Stat};
use crate::private::{WRONG_KIND, Workplace};
use crate::staged::{self, Clobber, Destination, Written};
use crate::staging::{self, StagingEntry};
use crate::target::Target;

/// Replaces or creates a file that the closure writes at a path of its own.
pub(crate) fn write<T, E: From<io::Error>>(
    path: &Path,
    options: &WriteOptions,
    write: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let mut production = Production::prepare(path, options).map_err(io::Error::from)?;
    let value = write(&production.workplace.path)?;
    production.keep = None;
    production.publish().map_err(io::Error::from)?;
    Ok(value)
}

/// A path at which the closure is to leave a file.
struct Production<'o> {
    options: &'o WriteOptions,
    destination: Option<Destination>,
    workplace: Workplace,
    keep: Option<Keep>,
}

impl<'o> Production<'o> {
    fn prepare(path: &Path, options: &'o WriteOptions) -> Result<Self, Error> {
        let destination = find(path, options)?;
        let target = match &destination {
            Destination::Replaceable(target) => target,
            Destination::InPlace(overwrite) => &overwrite.target,
        };
        let keep = Keep::open(target, options)?;
        let workplace = Workplace::create(target)?;
        Ok(Production { options, destination: Some(destination), workplace, keep })
    }

    fn publish(mut self) -> Result<(), Error> {
        match self.destination.take() {
            None => Ok(()),
            Some(Destination::Replaceable(target)) => {
                let (file, entry) = self.take(&target.path)?;
                let at = |step| Error::at(step, &target.path);
                if staged::staging_mode(&target, self.options) == 0o600 {
                    // Writing `user.*` attributes needs write access (xattr(7)). Nobody else gets at
                    // it where it is, until it has the destination's own mode.
                    platform::set_mode(&file, 0o600).map_err(at(Step::Metadata))?;
                }
                let written = Written::new(target, self.options, file, Some(entry));
                written.publish(Clobber::Yes)?.settle()
            }
            Some(Destination::InPlace(overwrite)) => {
                let (file, _entry) = self.take(&overwrite.target.path)?;
                Filled { overwrite, staged: file }.copy(self.options)
            }
        }
    }

    /// What the closure left: a regular file with no other name.
    fn take(&mut self, path: &Path) -> Result<(File, StagingEntry), Error> {
        let at = |step| Error::at(step, path);
        let (file, stat) = self.workplace.open(path)?;
        let wrong = |code| Err(at(Step::Publish)(platform::error(code)).hint(WRONG_KIND));
        match stat.kind {
            Kind::File => {}
            Kind::Directory => return wrong(Code::IsADirectory),
            Kind::Symlink | Kind::Other => return wrong(Code::InvalidName),
        }
        let staged = self.workplace.entry();
        match platform::count_links(&file).map_err(at(Step::Publish))? {
            1 => Ok((file, staged)),
            _ => copy(file, &stat, &staged).map_err(at(Step::Stage)),
        }
    }
}

/// A producer that links from its cache instead of writing would have the destination's metadata put
/// on the file there, and have it change along with the destination: that is published as a copy.
fn copy(mut file: File, stat: &Stat, linked: &StagingEntry) -> io::Result<(File, StagingEntry)> {
    let directory = linked.directory.clone();
    let name = PathBuf::from(format!("{:08x}", staging::random()));
    let mut copy = platform::stage_named(&directory, &name, 0o600)?;
    let entry = StagingEntry { directory, name };
    io::copy(&mut file, &mut copy)?;
    platform::set_mode(&copy, stat.mode & 0o777)?;
    Ok((copy, entry))
}

/// What can be known to fail is refused before the closure runs, and so is what is no file: the
/// content can't be written into a device or FIFO by path.
fn find(path: &Path, options: &WriteOptions) -> Result<Destination, Error> {
    let target = Target::resolve(path, options)?;
    let is_other = target.found.as_ref().is_some_and(|found| found.kind == Kind::Other);
    if target.is_magic_link || is_other {
        return Err(staged::refusal(&target, Code::Unsupported).hint(
            "it is a device, a FIFO, a socket or an open file, which are written into instead of \
             being replaced; `write_atomically` does that",
        ));
    }
    Destination::of(target, options)
}

impl Drop for Production<'_> {
    /// The closure has failed or panicked.
    fn drop(&mut self) {
        let Some(keep) = self.keep.take() else { return };
        if let Ok((file, stat)) = self.workplace.open(&self.workplace.path.clone()) {
            if stat.kind == Kind::File {
                keep.take_file(file);
            }
        }
    }
}
