//! Whole directory trees, published in one step.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Step};
use crate::metadata;
use crate::options::{Durability, WriteOptions};
use crate::platform::{self, Code, Kind, Stat};
use crate::private::{WRONG_KIND, Workplace};
use crate::staged;
use crate::staging;
use crate::target::Target;
use crate::tree;

/// Replaces or creates a directory by the tree that the closure builds at a path of its own.
pub(crate) fn write<T, E: From<io::Error>>(
    path: &Path,
    options: &WriteOptions,
    write: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let construction = Construction::prepare(path, options).map_err(io::Error::from)?;
    let value = write(&construction.workplace.path)?;
    construction.publish().map_err(io::Error::from)?;
    Ok(value)
}

/// A directory that the closure is to fill.
struct Construction<'o> {
    target: Target,
    options: &'o WriteOptions,
    workplace: Workplace,
    /// Open since before the closure, so that syncing its filesystem reports what the closure's
    /// writes have lost.
    filesystem: File,
}

impl<'o> Construction<'o> {
    fn prepare(path: &Path, options: &'o WriteOptions) -> Result<Self, Error> {
        let target = find(path, options)?;
        let workplace = Workplace::create(&target)?;
        let directory = &workplace.private.directory;
        let at = |error| Error::new(Step::Stage, path, error);
        platform::make_directory(directory, &workplace.name, 0o777).map_err(at)?;
        if target.found.is_some() {
            check_exchange(&workplace, &target)?;
        }
        let filesystem = platform::open_itself(directory).map_err(at)?;
        Ok(Construction { target, options, workplace, filesystem })
    }

    fn publish(mut self) -> Result<(), Error> {
        let path = self.target.path.clone();
        let at = |step| Error::at(step, &path);
        let (top, stat) = self.workplace.open(&path)?;
        if stat.kind != Kind::Directory {
            let error = platform::error(Code::NotADirectory);
            return Err(at(Step::Publish)(error).hint(WRONG_KIND));
        }
        let parents = self.target.make_parents().map_err(at(Step::Publish))?;
        let mut now = self.look()?;
        loop {
            self.take_metadata(now.as_ref(), &top).map_err(at(Step::Metadata))?;
            let mode = keep_accessible(&top).map_err(at(Step::Metadata))?;
            self.sync().map_err(at(Step::Sync))?;
            let placed = self.take_place(now.is_some());
            match placed {
                Ok(()) => {
                    restore(&top, mode).map_err(|e| at(Step::Metadata)(e).after_replacing())?;
                    break;
                }
                // It has come or gone while the closure ran.
                Err(error) if changed(&error, now.is_some()) => now = self.look()?,
                Err(error) => return Err(at(Step::Publish)(error)),
            }
        }
        parents.keep();
        staged::settle(&self.target, self.options, &self.filesystem)
            .map_err(|error| at(Step::SyncDirectory)(error).after_replacing())?;
        let removed = self.workplace.private.remove();
        removed.map_err(|error| at(Step::Remove)(error).after_replacing())
    }

    fn look(&self) -> Result<Option<Stat>, Error> {
        let now = self.target.stat().map_err(Error::at(Step::Publish, &self.target.path))?;
        if let Some(now) = &now {
            check(&self.target, now, Step::Publish)?;
        }
        Ok(now)
    }

    fn take_metadata(&self, now: Option<&Stat>, top: &File) -> io::Result<()> {
        let is_directory =
            |stat: &&Stat| stat.kind == Kind::Directory && self.options.preserve_metadata;
        if let Some(old) = now.filter(is_directory) {
            return metadata::carry_over_directory(&self.target, old, top, self.options.mode);
        }
        if let Some(mode) = self.options.mode {
            return metadata::set_exact_mode(top, &platform::stat_file(top)?, mode);
        }
        match self.target.found.as_ref().filter(is_directory) {
            Some(gone) => metadata::carry_mode_over(gone, top),
            None => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        if self.options.durability == Durability::Relaxed {
            return Ok(());
        }
        let (directory, name) = (&self.workplace.private.directory, &self.workplace.name);
        tree::sync(&platform::open_subdirectory(directory, name)?, &self.filesystem)
    }

    /// Moves the tree to the destination's name, and what was there to where the tree was, in one
    /// step.
    fn take_place(&self, replaces: bool) -> io::Result<()> {
        let (from, name) = (&self.workplace.private.directory, &self.workplace.name);
        let (to, new_name) = (&self.target.directory, &self.target.name);
        match replaces {
            true => platform::exchange(from, name, to, new_name),
            false => platform::rename_new_directory(from, name, to, new_name),
        }
    }
}

/// What can be known to fail is refused before the closure runs.
fn find(path: &Path, options: &WriteOptions) -> Result<Target, Error> {
    let at = |code| Error::new(Step::Resolve, path, platform::error(code));
    if options.keep_failed.is_some() {
        let hint = "`WriteOptions::keep_failed` keeps files, not directories";
        return Err(at(Code::Unsupported).hint(hint));
    }
    // `out/` is `out`.
    let plain: PathBuf = path.components().collect();
    if plain.file_name().is_none() && plain != Path::new("") {
        return Err(at(Code::Busy).hint("`.`, `..` and `/` can't be replaced"));
    }
    let mut target = Target::resolve(&plain, options)?;
    target.path = path.to_owned();
    if target.is_magic_link {
        return Err(at(Code::Unsupported).hint("it is a link to an open file, not to a path"));
    }
    if let Some(found) = &target.found {
        check(&target, found, Step::Resolve)?;
    }
    Ok(target)
}

/// Refuses what is there if it is no directory, or one that can't be moved away.
fn check(target: &Target, found: &Stat, step: Step) -> Result<(), Error> {
    let at = |code| Error::new(step, &target.path, platform::error(code));
    match found.kind {
        _ if found.mount_root => {
            return Err(at(Code::Busy).hint("it is a mount point, which can't be moved away"));
        }
        _ if found.immutable => {
            let hint = "it is immutable or append-only (lsattr shows it)";
            return Err(at(Code::NotPermitted).hint(hint));
        }
        Kind::File | Kind::Other => return Err(at(Code::NotADirectory)),
        // rename(2), EACCES: moving a directory changes its `..`.
        Kind::Directory => platform::check_writable(&target.directory, &target.name)
            .map_err(Error::at(step, &target.path))?,
        Kind::Symlink => {}
    }
    let user = platform::user();
    if found.uid == user || user == 0 {
        return Ok(());
    }
    let parent =
        platform::stat_directory(&target.directory).map_err(Error::at(step, &target.path))?;
    match parent.mode & 0o1000 != 0 && parent.uid != user {
        true => Err(at(Code::NotPermitted).hint("it is somebody else's in a sticky directory")),
        false => Ok(()),
    }
}

/// Whether two directories can be swapped here is not known before it is tried: it is, with two that
/// nobody can see.
fn check_exchange(workplace: &Workplace, target: &Target) -> Result<(), Error> {
    let at = |error| Error::new(Step::Stage, &target.path, error);
    let (directory, name) = (&workplace.private.directory, &workplace.name);
    let scratch = PathBuf::from(format!("{:08x}", staging::random()));
    platform::make_directory(directory, &scratch, 0o777).map_err(at)?;
    match platform::exchange(directory, name, directory, &scratch) {
        Ok(()) => {}
        Err(error) if platform::is_unsupported(&error) => {
            return Err(at(platform::error(Code::Unsupported)).hint(
                "there is no way here to swap two directories in one step (on Linux, renameat2(2) with \
                 RENAME_EXCHANGE), so that an existing one can't be replaced",
            ));
        }
        Err(error) => return Err(at(error)),
    }
    if platform::has_immovable_directories(&target.directory).map_err(at)? {
        check_movable(workplace, target, &scratch)?;
    }
    platform::remove_directory(directory, &scratch).map_err(at)
}

/// An overlay does not move a directory that comes from a lower layer (the kernel's documentation,
/// filesystems/overlayfs, "Renaming directories"). It says so before it looks whether the new name is
/// taken by a directory that is not empty, over which nothing can be renamed (rename(2), ENOTEMPTY).
fn check_movable(workplace: &Workplace, target: &Target, scratch: &Path) -> Result<(), Error> {
    let at = |error| Error::new(Step::Stage, &target.path, error);
    let directory = &workplace.private.directory;
    let inside = scratch.join("full");
    platform::make_directory(directory, &inside, 0o777).map_err(at)?;
    let moved = platform::rename_to(&target.directory, &target.name, directory, scratch);
    match moved {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Err(at(platform::error(
            Code::Unsupported,
        ))
        .hint(
            "it comes from a lower layer of an overlay (a container's image), which does not let \
                 it be replaced unless mounted with redirect_dir=on",
        )),
        Err(_) => platform::remove_directory(directory, &inside).map_err(at),
        // No filesystem does that.
        Ok(()) => {
            let back = platform::rename_to(directory, scratch, &target.directory, &target.name);
            back.and_then(|()| platform::make_directory(directory, scratch, 0o777)).map_err(at)
        }
    }
}

/// Only who may write a directory may move it, and only who may search it can sync what is in it. The
/// bits that the owner lacks in the end are taken away when it is published.
fn keep_accessible(top: &File) -> io::Result<u32> {
    const OWNER: u32 = 0o700;
    let mode = platform::stat_file(top)?.mode;
    if mode & OWNER != OWNER {
        platform::set_mode(top, mode | OWNER)?;
    }
    Ok(mode)
}

fn restore(top: &File, mode: u32) -> io::Result<()> {
    match platform::stat_file(top)?.mode == mode {
        true => Ok(()),
        false => platform::set_mode(top, mode),
    }
}

fn changed(error: &io::Error, replaces: bool) -> bool {
    match error.kind() {
        io::ErrorKind::AlreadyExists => !replaces,
        io::ErrorKind::NotFound => replaces,
        _ => false,
    }
}
