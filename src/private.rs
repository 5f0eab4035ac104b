//! The private staging directory: for what is written by path, for trees, and for batches.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Step};
use crate::platform::{self, Code, Directory, Lock, Stat};
use crate::staging::{self, StagingEntry};
use crate::target::Target;
use crate::tree;

/// A staging entry that is a directory, next to the destination, which only the caller's user can
/// enter. It goes, with all that is in it, when it is dropped.
#[derive(Debug)]
pub(crate) struct Private {
    parent: Arc<Directory>,
    name: PathBuf,
    pub(crate) directory: Arc<Directory>,
}

impl Private {
    pub(crate) fn create(target: &Target) -> io::Result<Private> {
        let (directory, name) = staging::create_directory(target)?;
        Ok(Private { parent: target.directory.clone(), name, directory: Arc::new(directory) })
    }

    /// Removes it with all that is in it.
    pub(crate) fn remove(mut self) -> io::Result<()> {
        self.clear()
    }

    fn clear(&mut self) -> io::Result<()> {
        if self.name.as_os_str().is_empty() {
            return Ok(());
        }
        let name = std::mem::take(&mut self.name);
        // It may have been closed meanwhile: then somebody may take it for dead already, and remove it.
        if platform::try_lock_directory(&self.directory) == Lock::Busy {
            return Ok(());
        }
        // Closed by now, for all that matters: the parent takes its place here.
        let directory = std::mem::replace(&mut self.directory, self.parent.clone());
        // The closure may have done anything to it.
        match staging::leads_to_directory(&self.parent, &name, &directory)? {
            true => tree::remove(&self.parent, &name, directory),
            false => Ok(()),
        }
    }

    pub(crate) fn parent(&self) -> &Arc<Directory> {
        &self.parent
    }

    pub(crate) fn name(&self) -> &Path {
        &self.name
    }

    /// What is needed to open it again. `parent` is a path of the directory it is in.
    pub(crate) fn asleep(&self, parent: &Path) -> io::Result<Asleep> {
        Ok(Asleep {
            parent: (parent.to_owned(), platform::stat_directory(&self.parent)?),
            directory: platform::stat_directory(&self.directory)?,
            name: self.name.clone(),
        })
    }

    /// Closes its descriptors without removing it.
    pub(crate) fn close(mut self) {
        self.name.clear();
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

/// A private staging directory that nobody has open: something in it has to say that its writer is
/// alive (see [`staging::ALIVE`]).
#[derive(Debug)]
pub(crate) struct Asleep {
    parent: (PathBuf, Stat),
    name: PathBuf,
    directory: Stat,
}

impl Asleep {
    /// Opens it again, and makes sure that it is the same one, in the same directory.
    pub(crate) fn wake(&self) -> io::Result<Private> {
        let (path, stat) = &self.parent;
        let parent = platform::open_directory(None, path)?;
        let directory = platform::open_subdirectory(&parent, &self.name)?;
        let is_same = platform::stat_directory(&parent)?.is_same_file(stat)
            && platform::stat_directory(&directory)?.is_same_file(&self.directory);
        if !is_same {
            let moved = "its directory was moved, and there are too many to keep all of them open";
            return Err(io::Error::new(io::ErrorKind::NotFound, moved));
        }
        let (parent, directory) = (Arc::new(parent), Arc::new(directory));
        Ok(Private { parent, name: self.name.clone(), directory })
    }
}

/// A private staging directory whose one entry is called like the destination: programs look at the
/// extension. The closure gets an absolute path to that entry.
pub(crate) struct Workplace {
    pub(crate) private: Private,
    /// Of the one entry.
    pub(crate) name: PathBuf,
    pub(crate) path: PathBuf,
    /// Publishing needs descriptors, and the closure may leave none.
    reserve: Vec<File>,
}

impl Workplace {
    pub(crate) fn create(target: &Target) -> Result<Workplace, Error> {
        let at = |step| Error::at(step, &target.path);
        let parent = locate(&target.directory, &target.path).map_err(at(Step::Resolve))?;
        let private = Private::create(target).map_err(at(Step::Stage))?;
        let reserve = reserve(&private.directory).map_err(at(Step::Stage))?;
        let name = target.file_name().to_owned();
        let path = platform::plain_path(parent.join(&private.name).join(&name));
        Ok(Workplace { private, name, path, reserve })
    }

    /// What the closure left, to be renamed.
    pub(crate) fn entry(&self) -> StagingEntry {
        StagingEntry { directory: self.private.directory.clone(), name: self.name.clone() }
    }

    /// Opens what the closure left at the path. Whatever it is, it is not followed, and not waited
    /// for.
    pub(crate) fn open(&mut self, destination: &Path) -> Result<(File, Stat), Error> {
        self.reserve.clear();
        let at = |error| Error::new(Step::Publish, destination, error);
        let hint = "the closure returned `Ok`, but left nothing at the path it was given";
        let (directory, name) = (&self.private.directory, &self.name);
        let there = platform::stat(directory, name).map_err(at)?;
        let Some(there) = there else {
            return Err(at(platform::error(Code::NotFound)).hint(hint));
        };
        if !matches!(there.kind, platform::Kind::File | platform::Kind::Directory) {
            return Err(at(platform::error(Code::InvalidName)).hint(WRONG_KIND));
        }
        let file = platform::open_to_finish(directory, name).map_err(at)?;
        let stat = platform::stat_file(&file).map_err(at)?;
        Ok((file, stat))
    }
}

pub(crate) const WRONG_KIND: &str =
    "what the closure left at the path it was given is of another kind";

/// So many descriptors does publishing open at once.
const RESERVE: usize = 8;

pub(crate) fn reserve(directory: &Directory) -> io::Result<Vec<File>> {
    (0..RESERVE).map(|_| platform::open_itself(directory)).collect()
}

/// An absolute path of a pinned directory, for a closure that needs one.
pub(crate) fn locate(directory: &Directory, path: &Path) -> io::Result<PathBuf> {
    let parent = |path: PathBuf| path.parent().map(Path::to_owned);
    let given = || {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        std::fs::canonicalize(directory.unwrap_or(Path::new("."))).ok()
    };
    let candidates: [&dyn Fn() -> Option<PathBuf>; 3] = [
        &|| platform::directory_path(directory).ok(),
        // Where the system does not tell: right unless the destination is a link, or its parents are
        // still to be made.
        &given,
        &|| std::fs::canonicalize(path).ok().and_then(parent),
    ];
    let wanted = platform::stat_directory(directory)?;
    let mut failure = None;
    let mut leads_there = |path: &PathBuf| {
        let found = platform::open_directory(None, path);
        match found.and_then(|found| platform::stat_directory(&found)) {
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
