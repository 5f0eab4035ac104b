//! The private staging directory: for what is written by path, for trees, and for batches.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Step};
use crate::hint::Hint;
use crate::platform::{Code, Directory, Kind, Lock, Os, Platform as _, Stat};
use crate::protocol::dead;
use crate::protocol::entry::{self, Entry};
use crate::protocol::guard::{CleanUp, Guard};
use crate::protocol::lock::{Holder, Owner};
use crate::protocol::resolve::Destination;
use crate::protocol::tree;

/// A staging entry that is a directory, next to the destination, which only the caller's user can
/// enter. It is removed, with all that is in it, when this is dropped.
pub(crate) type PrivateDir = Guard<Private>;

#[derive(Debug)]
pub(crate) struct Private {
    pub(crate) parent: Arc<Directory>,
    pub(crate) name: PathBuf,
    pub(crate) directory: Arc<Directory>,
    holder: Arc<Holder>,
}

impl PrivateDir {
    pub(crate) fn create(destination: &Destination, owner: Owner) -> io::Result<PrivateDir> {
        let (directory, name) = entry::create_directory(destination)?;
        PrivateDir::own(destination, directory, name, owner)
    }

    /// For a directory that has just been created.
    pub(crate) fn own(
        destination: &Destination,
        directory: Directory,
        name: PathBuf,
        owner: Owner,
    ) -> io::Result<PrivateDir> {
        let id = Os::stat_directory(&directory)?.id();
        let (parent, directory) = (destination.directory.clone(), Arc::new(directory));
        let holder = Arc::new(Holder::register(id, owner));
        Ok(Guard::new(Private { parent, name, directory, holder }))
    }

    /// Removes it with all that is in it.
    pub(crate) fn remove(self) -> io::Result<()> {
        self.disarm().remove()
    }

    /// Closes its descriptors without removing it. `path` is a path of the directory around it.
    pub(crate) fn park(self, path: &Path) -> io::Result<ParkedDir> {
        let parent = (path.to_owned(), Os::stat_directory(&self.parent)?);
        let directory = Os::stat_directory(&self.directory)?;
        let Private { name, holder, .. } = self.disarm();
        Ok(ParkedDir { parent, name, directory, holder })
    }
}

impl Private {
    fn remove(self) -> io::Result<()> {
        let Private { parent, name, directory, .. } = self;
        // If it was parked, others may have taken it for dead already, and remove it.
        if Os::try_lock_directory(&directory) == Lock::Busy {
            return Ok(());
        }
        // The closure may have done anything to it.
        match dead::leads_to_directory(&parent, &name, &directory)? {
            true => tree::remove(&parent, &name, directory),
            false => Ok(()),
        }
    }
}

impl CleanUp for Private {
    fn clean_up(self) {
        let _ = self.remove();
    }
}

/// A private staging directory that is closed: a locked file in it has to say that its writer is alive
/// (see [`dead::ALIVE`]).
#[derive(Debug)]
pub(crate) struct ParkedDir {
    parent: (PathBuf, Stat),
    name: PathBuf,
    directory: Stat,
    holder: Arc<Holder>,
}

impl ParkedDir {
    /// Opens it again, and makes sure that it is the same one, in the same directory.
    pub(crate) fn reopen(&self) -> io::Result<PrivateDir> {
        let (path, stat) = &self.parent;
        let parent = Os::open_directory(None, path)?;
        let directory = Os::open_subdirectory(&parent, &self.name)?;
        let is_same = Os::stat_directory(&parent)?.is_same_file(stat)
            && Os::stat_directory(&directory)?.is_same_file(&self.directory);
        if !is_same {
            let moved = "its directory was moved, and there are too many to keep all of them open";
            return Err(io::Error::new(io::ErrorKind::NotFound, moved));
        }
        let (parent, directory) = (Arc::new(parent), Arc::new(directory));
        let (name, holder) = (self.name.clone(), self.holder.clone());
        Ok(Guard::new(Private { parent, name, directory, holder }))
    }
}

/// A private staging directory whose one entry is called like the destination, because programs look
/// at the extension. The closure gets an absolute path to that entry.
pub(crate) struct StagedPath {
    pub(crate) private: PrivateDir,
    /// Of the one entry.
    pub(crate) name: PathBuf,
    pub(crate) path: PathBuf,
    /// Publishing needs descriptors, and the closure may leave none.
    reserve: Vec<File>,
}

impl StagedPath {
    pub(crate) fn create(destination: &Destination, owner: Owner) -> Result<StagedPath, Error> {
        let private = PrivateDir::create(destination, owner);
        StagedPath::inside(destination, private.map_err(Error::at(Step::Stage, &destination.path))?)
    }

    pub(crate) fn inside(
        destination: &Destination,
        private: PrivateDir,
    ) -> Result<StagedPath, Error> {
        let at = |step| Error::at(step, &destination.path);
        let parent =
            directory_of(&destination.directory, &destination.path).map_err(at(Step::Resolve))?;
        let reserve = reserve(&private.directory).map_err(at(Step::Stage))?;
        let name = destination.file_name().to_owned();
        let path = Os::plain_path(parent.join(&private.name).join(&name));
        Ok(StagedPath { private, name, path, reserve })
    }

    /// The name of the file that the closure left.
    pub(crate) fn entry(&self) -> Entry {
        entry::inside(self.private.directory.clone(), self.name.clone())
    }

    /// Opens what the closure left at the path, without following a link or waiting for a FIFO.
    pub(crate) fn open(&mut self, destination: &Path) -> Result<(File, Stat), Error> {
        self.reserve.clear();
        let at = |error| Error::new(Step::Publish, destination, error);
        let (directory, name) = (&self.private.directory, &self.name);
        let there = Os::stat(directory, name).map_err(at)?;
        let Some(there) = there else {
            return Err(at(Os::error(Code::NotFound)).with_hint(Hint::NothingWritten));
        };
        if !matches!(there.kind, Kind::File | Kind::Directory) {
            return Err(at(Os::error(Code::InvalidName)).with_hint(Hint::WrongKind));
        }
        let file = Os::open_to_finish(directory, name).map_err(at)?;
        let stat = Os::stat_file(&file).map_err(at)?;
        Ok((file, stat))
    }
}

/// The most descriptors that publishing has open at once: a directory and its parent, the staged
/// file, and what walking a tree to sync or remove it takes (five).
const RESERVE: usize = 8;

pub(crate) fn reserve(directory: &Directory) -> io::Result<Vec<File>> {
    (0..RESERVE).map(|_| Os::open_itself(directory)).collect()
}

/// An absolute path of a pinned directory, for a closure that needs one.
pub(crate) fn directory_of(directory: &Directory, path: &Path) -> io::Result<PathBuf> {
    let parent = |path: PathBuf| path.parent().map(Path::to_owned);
    let given = || {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        std::fs::canonicalize(directory.unwrap_or(Path::new("."))).ok()
    };
    let candidates: [&dyn Fn() -> Option<PathBuf>; 3] = [
        &|| Os::directory_path(directory).ok(),
        // Where the system does not tell: right unless the destination is a link, or its parents are
        // still to be made.
        &given,
        &|| std::fs::canonicalize(path).ok().and_then(parent),
    ];
    let wanted = Os::stat_directory(directory)?;
    let mut failure = None;
    let mut leads_there = |path: &PathBuf| {
        let found = Os::open_directory(None, path);
        match found.and_then(|found| Os::stat_directory(&found)) {
            Ok(found) => found.is_same_file(&wanted),
            Err(error) => {
                failure.get_or_insert(error);
                false
            }
        }
    };
    let found = candidates.iter().filter_map(|candidate| candidate()).find(&mut leads_there);
    found.ok_or_else(|| match failure {
        // No descriptors, no memory: the path may well be right.
        Some(error) if error.kind() != io::ErrorKind::NotFound => error,
        _ => io::Error::new(io::ErrorKind::NotFound, "no absolute path leads to its directory"),
    })
}
