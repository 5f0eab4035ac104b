//! How a destination can be written: renamed over, written in place, or not at all.

use std::io;
use std::path::Path;

use crate::error::{Error, Step};
use crate::hint::Hint;
use crate::platform::{Code, Kind, Os, Platform as _, Stat};
use crate::protocol::in_place::InPlace;
use crate::protocol::resolve::{Destination, Links, Lookup};
use crate::settings::Settings;

/// How the content gets to its destination.
pub(crate) enum Route {
    Rename(Destination),
    InPlace(InPlace),
}

impl Route {
    /// Finds out, before the closure does any work, what could be known to fail after it.
    pub(crate) fn find(path: &Path, settings: &Settings) -> Result<Route, Error> {
        Route::of(Destination::resolve(path, settings)?, settings)
    }

    pub(crate) fn of(destination: Destination, settings: &Settings) -> Result<Route, Error> {
        let Some(found) = &destination.at_start else {
            check_creatable(&destination)?;
            return Ok(Route::Rename(destination));
        };
        match found.kind {
            _ if destination.is_magic_link => {
                return InPlace::open(destination).map(Route::InPlace);
            }
            Kind::Directory => return Err(refusal(&destination, Code::IsADirectory)),
            Kind::Other => return InPlace::open(destination).map(Route::InPlace),
            Kind::File | Kind::Symlink => {}
        }
        if found.immutable {
            return Err(refusal(&destination, Code::NotPermitted).with_hint(Hint::Immutable));
        }
        let user = Os::user();
        if found.kind == Kind::File && !is_writable_by_owner(found, user) {
            Os::check_writable(&destination.directory, &destination.name)
                .map_err(Error::at(Step::Resolve, &destination.path))?;
        }
        if settings.keep_hard_links && found.kind == Kind::File && found.links > 1 {
            return InPlace::open(destination).map(Route::InPlace);
        }
        match obstacle(&destination, found, user) {
            None => Ok(Route::Rename(destination)),
            Some(_) if settings.in_place_fallback && found.kind == Kind::File => {
                InPlace::open(destination).map(Route::InPlace)
            }
            Some(error) => Err(error),
        }
    }

    pub(crate) fn destination(&self) -> &Destination {
        match self {
            Route::Rename(destination) => destination,
            Route::InPlace(in_place) => &in_place.destination,
        }
    }
}

/// A destination that must not exist. open(2), `O_EXCL`: a symbolic link exists, wherever it leads.
pub(crate) fn find_nothing(path: &Path, settings: &Settings) -> Result<Destination, Error> {
    let lookup = Lookup { links: Links::Keep, ..Lookup::new(settings) };
    let destination = Destination::look_up(path, lookup)?;
    match destination.at_start {
        None => check_creatable(&destination).map(|()| destination),
        Some(_) => Err(refusal(&destination, Code::AlreadyExists)),
    }
}

/// ioctl_iflags(2): in an immutable directory nothing can be created, and in one that is append-only
/// nothing can be renamed or removed, so that staging would leave its entry behind.
pub(crate) fn check_creatable(destination: &Destination) -> Result<(), Error> {
    match destination.directory_at_start.immutable {
        true => {
            let refusal = refusal(destination, Code::NotPermitted);
            Err(refusal.with_hint(Hint::ImmutableDirectory))
        }
        false => Ok(()),
    }
}

/// Refuses a device, a FIFO or an open file, which only [`write`](crate::WriteOptions::write) writes
/// into.
pub(crate) fn check_replaceable_kind(destination: &Destination, hint: Hint) -> Result<(), Error> {
    let is_other = destination.at_start.as_ref().is_some_and(|found| found.kind == Kind::Other);
    match destination.is_magic_link || is_other {
        true => Err(refusal(destination, Code::Unsupported).with_hint(hint)),
        false => Ok(()),
    }
}

pub(crate) fn refusal(destination: &Destination, code: Code) -> Error {
    Error::new(Step::Resolve, &destination.path, Os::error(code))
}

/// inode_permission() in Linux, fs/namei.c: the owner's bits decide for the owner, in an ACL as well.
/// This spares most callers the question.
fn is_writable_by_owner(found: &Stat, user: u32) -> bool {
    found.uid == user && found.mode & 0o200 != 0
}

/// Why a file can be written but not renamed over.
fn obstacle(destination: &Destination, found: &Stat, user: u32) -> Option<Error> {
    let (code, hint) = match () {
        () if found.mount_root => (Code::Busy, Hint::MountPoint),
        () if destination.directory_at_start.immutable => {
            (Code::NotPermitted, Hint::ImmutableDirectory)
        }
        () if is_anothers_in_sticky(destination, found, user) => {
            (Code::NotPermitted, Hint::StickyDirectory)
        }
        () => return None,
    };
    Some(refusal(destination, code).with_hint(hint))
}

/// rename(2), EPERM: in a sticky directory, only the owner of a file or of the directory may rename
/// over it, or a process that may act for the owner.
fn is_anothers_in_sticky(destination: &Destination, found: &Stat, user: u32) -> bool {
    const STICKY: u32 = 0o1000;
    let directory = &destination.directory_at_start;
    directory.mode & STICKY != 0
        && found.uid != user
        && directory.uid != user
        && !Os::acts_for_owner(found)
}

/// Refuses what is at the destination if it is no directory, or one that can't be moved away.
pub(crate) fn check_directory(
    destination: &Destination,
    found: &Stat,
    step: Step,
) -> Result<(), Error> {
    let at = |code| Error::new(step, &destination.path, Os::error(code));
    match found.kind {
        _ if found.mount_root => return Err(at(Code::Busy).with_hint(Hint::MountedDirectory)),
        _ if found.immutable => return Err(at(Code::NotPermitted).with_hint(Hint::Immutable)),
        Kind::File | Kind::Other => return Err(at(Code::NotADirectory)),
        // rename(2), EACCES: moving a directory changes its `..`.
        Kind::Directory => Os::check_writable(&destination.directory, &destination.name)
            .map_err(Error::at(step, &destination.path))?,
        Kind::Symlink => {}
    }
    match is_anothers_in_sticky(destination, found, Os::user()) {
        true => Err(at(Code::NotPermitted).with_hint(Hint::StickyParent)),
        false => Ok(()),
    }
}

/// Refuses what has appeared at the destination while the closure ran, if it can't be replaced.
pub(crate) fn check_current(current: Option<&Stat>, settings: &Settings) -> io::Result<()> {
    let Some(current) = current else { return Ok(()) };
    match current.kind {
        _ if current.mount_root => Err(Os::error(Code::Busy)),
        Kind::File => Ok(()),
        Kind::Symlink if !settings.follow_symlinks => Ok(()),
        Kind::Directory => Err(Os::error(Code::IsADirectory)),
        Kind::Symlink | Kind::Other => Err(Os::error(Code::AlreadyExists)),
    }
}
