//! A path → a pinned directory, a name in it, and what is there now.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Step};
use crate::options::WriteOptions;
use crate::platform::{self, Code, Directory, Kind, Stat};

/// Where a file is to be published. Nothing downstream of this uses the caller's path again, except
/// in messages: the closure may change the working directory or rename ours.
#[derive(Debug)]
pub(crate) struct Target {
    /// As the caller gave it.
    pub(crate) path: PathBuf,
    pub(crate) directory: Arc<Directory>,
    /// Below `directory`: the last component, after those parents that are still to be made.
    pub(crate) name: PathBuf,
    /// What [`WriteOptions::create_parents`] makes when publishing, outermost first, each below
    /// `directory`.
    pub(crate) missing_parents: Vec<PathBuf>,
    /// What was there when the call started.
    pub(crate) found: Option<Stat>,
    /// The name is a link of the `/proc/self/fd` kind, which leads to an open file, not to a path.
    pub(crate) is_magic_link: bool,
}

/// path_resolution(7): how many links the kernel follows before it says `ELOOP`.
const MAX_LINKS: usize = 40;

impl Target {
    /// Finds the directory, follows links as [`WriteOptions::follow_symlinks`] says, and looks at
    /// what is there.
    pub(crate) fn resolve(path: &Path, options: &WriteOptions) -> Result<Target, Error> {
        Target::follow(path, options).map_err(Error::at(Step::Resolve, path))
    }

    fn follow(path: &Path, options: &WriteOptions) -> io::Result<Target> {
        let mut place = Place::find(None, path, options.create_parents)?;
        for _ in 0..=MAX_LINKS {
            let found = match place.missing_parents.is_empty() {
                true => platform::stat(&place.directory, &place.name)?,
                false => None,
            };
            let link = match &found {
                Some(stat) if stat.kind == Kind::Symlink && options.follow_symlinks => stat,
                _ => return Ok(place.into_target(path, found, false)),
            };
            if platform::has_magic_links(&place.directory)? {
                return Ok(place.into_target(path, found, true));
            }
            check_followable(&place.directory, link)?;
            let link = platform::read_link(&place.directory, &place.name)?;
            place = Place::find(Some(&place.directory), &link, options.create_parents)?;
        }
        Err(platform::error(Code::TooManyLinks))
    }

    /// The last component of the name: what staging entries are named after.
    pub(crate) fn file_name(&self) -> &Path {
        self.name.file_name().map_or(&self.name, Path::new)
    }

    /// What is there now.
    pub(crate) fn stat(&self) -> io::Result<Option<Stat>> {
        platform::stat(&self.directory, &self.name)
    }

    /// Makes the parents that were missing when the call started.
    pub(crate) fn make_parents(&self) -> io::Result<MadeParents> {
        let mut made = MadeParents { directory: self.directory.clone(), names: Vec::new() };
        for name in &self.missing_parents {
            match platform::make_directory(&self.directory, name, 0o777) {
                Ok(()) => made.names.push(name.clone()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }
}

/// Parents that go again, if they are still empty, unless something was published in them.
pub(crate) struct MadeParents {
    directory: Arc<Directory>,
    names: Vec<PathBuf>,
}

impl MadeParents {
    pub(crate) fn keep(mut self) {
        self.names.clear();
    }
}

impl Drop for MadeParents {
    fn drop(&mut self) {
        for name in self.names.drain(..).rev() {
            let _ = platform::remove_directory(&self.directory, &name);
        }
    }
}

/// A directory and a name below it, links not yet followed.
struct Place {
    directory: Directory,
    name: PathBuf,
    missing_parents: Vec<PathBuf>,
}

impl Place {
    fn find(base: Option<&Directory>, path: &Path, create_parents: bool) -> io::Result<Place> {
        let (parent, name) = split(path)?;
        let missing = match platform::open_directory(base, parent) {
            Ok(directory) => {
                let (name, missing_parents) = (name.to_owned(), Vec::new());
                return Ok(Place { directory, name, missing_parents });
            }
            Err(error) => error,
        };
        if !create_parents || missing.kind() != io::ErrorKind::NotFound {
            return Err(missing);
        }
        Place::find_below_existing(base, parent, name)
    }

    /// Pins the innermost parent that exists. Staging there shows nothing until the publish, and
    /// gives what staging in the parents to be made would: they inherit group and default ACL.
    fn find_below_existing(
        base: Option<&Directory>,
        parent: &Path,
        name: &Path,
    ) -> io::Result<Place> {
        for existing in parent.ancestors().skip(1) {
            let directory = match platform::open_directory(base, existing) {
                Ok(directory) => directory,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let below = parent.strip_prefix(existing).unwrap_or(parent);
            let mut missing_parents = Vec::new();
            let mut next = PathBuf::new();
            for component in below.components() {
                next.push(component);
                missing_parents.push(next.clone());
            }
            match platform::stat(&directory, &missing_parents[0])? {
                None => {}
                // A link that leads nowhere: `create_dir_all` does not make what it points to.
                Some(found) if found.kind == Kind::Symlink => {
                    return Err(platform::error(Code::NotFound));
                }
                // Somebody has just made it.
                Some(_) => return Place::find(base, &parent.join(name), true),
            }
            // A name that is too long is so anywhere; where it belongs can't be asked yet.
            for component in below.components().map(|c| Path::new(c.as_os_str())).chain([name]) {
                platform::stat(&directory, component)?;
            }
            return Ok(Place { directory, name: next.join(name), missing_parents });
        }
        Err(platform::error(Code::NotFound))
    }

    fn into_target(self, path: &Path, found: Option<Stat>, is_magic_link: bool) -> Target {
        let Place { directory, name, missing_parents } = self;
        let (path, directory) = (path.to_owned(), Arc::new(directory));
        Target { path, directory, name, missing_parents, found, is_magic_link }
    }
}

/// A path's directory and last component, refusing what can't name a file, as open(2) does.
fn split(path: &Path) -> io::Result<(&Path, &Path)> {
    if path.as_os_str().is_empty() {
        return Err(platform::error(Code::NotFound));
    }
    if platform::is_invalid(path) {
        return Err(platform::error(Code::InvalidName));
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !platform::means_directory(path) => {
            Ok((parent, Path::new(name)))
        }
        _ => Err(platform::error(Code::IsADirectory)),
    }
}

/// proc(5), `protected_symlinks`: in a sticky directory that everyone may write, a link is followed
/// only by its owner or if the directory's owner made it. The kernel's own check does not apply to
/// links that are read and followed by hand, and is not switched on everywhere.
fn check_followable(directory: &Directory, link: &Stat) -> io::Result<()> {
    const STICKY_AND_WRITABLE_BY_ALL: u32 = 0o1002;
    if link.uid == platform::user() {
        return Ok(());
    }
    let parent = platform::stat_directory(directory)?;
    let shared = parent.mode & STICKY_AND_WRITABLE_BY_ALL == STICKY_AND_WRITABLE_BY_ALL;
    match shared && parent.uid != link.uid {
        true => Err(platform::error(Code::NoAccess)),
        false => Ok(()),
    }
}
