//! The content of one destination, whichever way it gets there.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::error::{Error, Step};
use crate::hint::Hint;
use crate::platform::{Kind, Stat};
use crate::protocol::claim::Claimed;
use crate::protocol::destination::Route;
use crate::protocol::fill::{Filled, Filling, Finished, Staged};
use crate::protocol::in_place::InPlace;
use crate::protocol::lock::Owner;
use crate::protocol::publish::Replace;
use crate::protocol::resolve::Destination;
use crate::settings::Settings;
use crate::sink::Writeback;
use crate::writer::Writer;

/// A staging file that the closure fills.
pub(crate) enum Output {
    Rename(Staged),
    InPlace { in_place: InPlace, settings: Settings, filling: Filling },
}

/// The whole content, on its way to the destination.
pub(crate) enum Complete {
    Rename(Filled),
    InPlace { in_place: InPlace, settings: Settings, finished: Finished },
}

impl Output {
    /// Everything that can be known to fail fails here, before the closure runs.
    pub(crate) fn prepare(path: &Path, settings: &Settings, owner: Owner) -> Result<Output, Error> {
        Output::by(Route::find(path, settings)?, settings, owner)
    }

    pub(crate) fn by(route: Route, settings: &Settings, owner: Owner) -> Result<Output, Error> {
        match route {
            Route::Rename(destination) => Output::replace(destination, settings, owner),
            Route::InPlace(in_place) => {
                let staged = (in_place.stage()?, None);
                let destination = &in_place.destination;
                let filling = Filling::start(destination, settings, staged, Writeback::WithSync)?;
                Ok(Output::InPlace { in_place, settings: settings.clone(), filling })
            }
        }
    }

    /// Where the directory does not let the caller stage a file, a file that can be written in place is.
    pub(crate) fn replace(
        destination: Destination,
        settings: &Settings,
        owner: Owner,
    ) -> Result<Output, Error> {
        match Staged::create(destination.clone(), settings, owner) {
            Err(error) if is_unwritable_directory(&error, &destination) => {
                if !settings.in_place_fallback {
                    return Err(error.with_hint(Hint::UnwritableDirectory));
                }
                let in_place = InPlace::open(destination)?;
                Output::by(Route::InPlace(in_place), settings, owner)
            }
            staged => staged.map(Output::Rename),
        }
    }

    /// For a destination that others are kept from creating.
    pub(crate) fn claimed(
        destination: Destination,
        settings: &Settings,
        owner: Owner,
        claimed: Option<Claimed>,
    ) -> Result<Output, Error> {
        match claimed {
            Some(claimed) => {
                let at = Error::at(Step::Stage, &destination.path);
                let (file, name) = claimed.stage(&destination, settings).map_err(at)?;
                Staged::with(destination, settings, owner, (file, Some(name))).map(Output::Rename)
            }
            None => Output::replace(destination, settings, owner),
        }
    }

    pub(crate) fn writer(&mut self) -> &mut Writer {
        match self {
            Output::Rename(staged) => &mut staged.filling.writer,
            Output::InPlace { filling, .. } => &mut filling.writer,
        }
    }

    pub(crate) fn fill<T, E: From<io::Error>>(
        mut self,
        fill: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<(Complete, T), E> {
        let value = fill(self.writer())?;
        Ok((self.finish()?, value))
    }

    /// The closure has returned `Ok`.
    pub(crate) fn finish(self) -> io::Result<Complete> {
        match self {
            Output::Rename(staged) => staged.finish().map(Complete::Rename),
            Output::InPlace { in_place, settings, filling } => {
                let finished = filling.finish()?;
                Ok(Complete::InPlace { in_place, settings, finished })
            }
        }
    }
}

/// Whether staging failed beside a file that exists, for a reason that is the directory's. proc(5): files
/// can't be created in `/proc`, `/sys` and the like, with ENOENT or EACCES.
fn is_unwritable_directory(error: &Error, destination: &Destination) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied, Unsupported};
    let is_file = |found: &Stat| found.kind == Kind::File;
    error.step() == Step::Stage
        && matches!(error.kind(), NotFound | PermissionDenied | Unsupported)
        && destination.at_start.as_ref().is_some_and(is_file)
}

impl Complete {
    pub(crate) fn destination(&self) -> &Destination {
        match self {
            Complete::Rename(filled) => &filled.written.destination,
            Complete::InPlace { in_place, .. } => &in_place.destination,
        }
    }

    /// The staging file.
    pub(crate) fn file(&self) -> &File {
        match self {
            Complete::Rename(filled) => filled.written.content.file(),
            Complete::InPlace { finished, .. } => &finished.file,
        }
    }

    /// Fails with `exists` if another writer was faster.
    pub(crate) fn publish_new(self, exists: impl FnOnce() -> Error) -> Result<(), Error> {
        match self {
            Complete::Rename(filled) => filled.publish_new(exists)?.sync_name(),
            in_place => in_place.publish(Replace::Nothing).map(drop),
        }
    }

    /// `false` if another writer was faster and nothing may be replaced.
    pub(crate) fn publish(self, replace: Replace) -> Result<bool, Error> {
        match self {
            Complete::Rename(filled) => filled.publish(replace)?.sync_name(),
            Complete::InPlace { in_place, settings, finished } => {
                let copied = in_place.copy(&finished.file, &settings);
                if let (Err(_), Some(failed_output)) = (&copied, finished.failed_output) {
                    failed_output.save(finished.file);
                }
                copied.map(|()| true)
            }
        }
    }
}
