//! Destinations that are written in place: devices, FIFOs, open files behind `/dev/stdout`, and, on
//! request, files that can't be renamed over.

use std::fs::File;
use std::io::{self, Seek};
use std::sync::Arc;

use crate::error::{Error, Outcome, Step};
use crate::platform::{Code, Kind, Os, Platform as _};
use crate::protocol::resolve::Destination;
use crate::settings::{Durability, Settings};

/// A destination that is open, to be written once the closure has returned `Ok`.
pub(crate) struct InPlace {
    pub(crate) destination: Destination,
    file: File,
    rest: Rest,
}

/// What happens to old content beyond the new one's end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    CutOff,
    /// The content of a device has no end, and open files are appended to.
    Stays,
}

impl InPlace {
    /// Opens the destination before the closure runs: that shows whether it can be opened, and
    /// afterwards the process may have no descriptor left.
    pub(crate) fn open(destination: Destination) -> Result<InPlace, Error> {
        let at = |error| Error::new(Step::Resolve, &destination.path, error);
        let (directory, name) = (&destination.directory, &destination.name);
        let file = match destination.is_magic_link {
            true => Os::open_to_append(directory, name),
            false => Os::open_to_overwrite(directory, name),
        }
        .map_err(at)?;
        let rest = match Os::stat_file(&file).map_err(at)?.kind {
            Kind::Directory => return Err(at(Os::error(Code::IsADirectory))),
            Kind::File if !destination.is_magic_link => Rest::CutOff,
            _ => Rest::Stays,
        };
        Ok(InPlace { destination, file, rest })
    }

    /// A file to stage in. There may be no directory to stage in, or none that the caller may write.
    pub(crate) fn stage(&self) -> Result<Arc<File>, Error> {
        let staged = Os::stage_elsewhere();
        Ok(Arc::new(staged.map_err(Error::at(Step::Stage, &self.destination.path))?))
    }

    /// Copies the whole content into the destination.
    pub(crate) fn copy(mut self, staged: &File, settings: &Settings) -> Result<(), Error> {
        let copied = self.copy_content(staged);
        copied.map_err(|error| self.failed(Step::Overwrite, error))?;
        if settings.durability != Durability::Relaxed {
            Os::sync_overwritten(&self.file).map_err(|error| self.failed(Step::Sync, error))?;
        }
        Ok(())
    }

    fn copy_content(&mut self, mut staged: &File) -> io::Result<()> {
        staged.rewind()?;
        let length = io::copy(&mut staged, &mut self.file)?;
        match self.rest {
            Rest::CutOff => self.file.set_len(length),
            Rest::Stays => Ok(()),
        }
    }

    fn failed(&self, step: Step, error: io::Error) -> Error {
        Error::new(step, &self.destination.path, error).with_outcome(Outcome::PartlyOverwritten)
    }
}
