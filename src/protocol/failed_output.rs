//! The content of a write that failed, saved for a look at it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Step};
use crate::hint::Hint;
use crate::platform::{Code, Kind, Os, Platform as _};
use crate::protocol::lock::Owner;
use crate::protocol::metadata;
use crate::protocol::publish::{Replace, Written};
use crate::protocol::resolve::Destination;
use crate::protocol::stage::{Content, stage};
use crate::settings::{Durability, Settings};

/// Where to save it, and how.
pub(crate) struct FailedOutput {
    destination: Destination,
    settings: Settings,
}

impl FailedOutput {
    /// Looks at the path of [`keep_failed`](crate::WriteOptions::keep_failed) while nothing has failed
    /// yet.
    pub(crate) fn prepare(
        of: &Destination,
        settings: &Settings,
    ) -> Result<Option<FailedOutput>, Error> {
        let Some(path) = &settings.keep_failed else { return Ok(None) };
        let plain = Settings {
            durability: Durability::Relaxed,
            create_parents: settings.create_parents,
            preserve_metadata: false,
            ..Settings::default()
        };
        let destination = Destination::resolve(path, &plain)?;
        check(&destination, of, path)?;
        let mode =
            mode(&destination, &plain, of, settings).map_err(Error::at(Step::Stage, path))?;
        Ok(Some(FailedOutput { destination, settings: Settings { mode: Some(mode), ..plain } }))
    }

    /// A failure to save the content must not hide the error that comes first.
    pub(crate) fn save(self, file: Arc<File>) {
        let FailedOutput { destination, settings } = self;
        // The file may have a name of its own, too: here it gets another.
        let content = Content::Unnamed(file);
        let written = Written::new(destination, settings, content, Owner::this_thread());
        let _ = written.without_sync().publish(Replace::Anything);
    }
}

fn check(destination: &Destination, of: &Destination, path: &Path) -> Result<(), Error> {
    let at = |error| Error::new(Step::Resolve, path, error);
    let directory = Os::stat_directory(&destination.directory).map_err(at)?;
    let other = Os::stat_directory(&of.directory).map_err(at)?;
    if directory.is_same_file(&other) && destination.name == of.name {
        let error = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(at(error).with_hint(Hint::KeptAtDestination));
    }
    match destination.at_start.as_ref().map(|found| found.kind) {
        None | Some(Kind::File) => Ok(()),
        Some(Kind::Directory) => Err(at(Os::error(Code::IsADirectory))),
        Some(_) => Err(at(Os::error(Code::AlreadyExists))),
    }
}

/// A new file's mode, less the bits that the destination does not allow. Only a new file shows what
/// umask and default ACL make of its mode.
fn mode(
    destination: &Destination,
    plain: &Settings,
    of: &Destination,
    settings: &Settings,
) -> io::Result<u32> {
    let scratch = stage(destination, plain, Owner::this_thread())?;
    let new = Os::stat_file(scratch.file())?;
    let allowed = match &of.at_start {
        Some(old) if old.kind == Kind::File => metadata::common_mode(&new, old),
        _ => new.mode & 0o777,
    };
    Ok(settings.mode.map_or(allowed, |exact| allowed & (exact | 0o600)))
}
