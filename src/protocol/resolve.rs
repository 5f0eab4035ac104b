//! A path → a pinned directory, a name in it, and what is there at the start.

use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Step};
use crate::hash;
use crate::platform::{self, Code, Directory, Kind, Os, Platform as _, Stat};
use crate::protocol::guard::{CleanUp, Guard};
use crate::settings::Settings;

/// Where a file is to be published. The steps that follow use the caller's path only in messages:
/// the closure may change the working directory, or rename the destination's.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) directory: Arc<Directory>,
    pub(crate) place: Arc<Place>,
}

/// A place in a directory that need not be open.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// As the caller gave it.
    pub(crate) path: PathBuf,
    /// Below the directory: the last component, after those parents that are still to be made.
    pub(crate) name: PathBuf,
    /// What `create_parents` makes when publishing, outermost first, each below the directory.
    pub(crate) missing_parents: Vec<PathBuf>,
    /// What was there when the call started.
    pub(crate) at_start: Option<Stat>,
    /// The name is a link of the `/proc/self/fd` kind, which leads to an open file, not to a path.
    pub(crate) is_magic_link: bool,
    /// What the directory was when the call started.
    pub(crate) directory_at_start: Stat,
    realm: OnceLock<Option<u64>>,
    newcomer: OnceLock<Option<Stat>>,
}

impl Deref for Destination {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

/// How a path is resolved.
#[derive(Clone, Copy)]
pub(crate) struct Lookup {
    pub(crate) links: Links,
    pub(crate) parents: Parents,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    /// A link at the end of the path is the destination itself.
    Keep,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parents {
    MustExist,
    MayBeMissing,
}

impl Lookup {
    pub(crate) fn new(settings: &Settings) -> Lookup {
        Lookup {
            links: if settings.follow_symlinks { Links::Follow } else { Links::Keep },
            parents: match settings.create_parents {
                true => Parents::MayBeMissing,
                false => Parents::MustExist,
            },
        }
    }
}

/// path_resolution(7): how many links the kernel follows before it says `ELOOP`.
const MAX_LINKS: usize = 40;

impl Destination {
    pub(crate) fn resolve(path: &Path, settings: &Settings) -> Result<Destination, Error> {
        Destination::look_up(path, Lookup::new(settings))
    }

    /// Finds the directory, follows links, and looks at what is there.
    pub(crate) fn look_up(path: &Path, lookup: Lookup) -> Result<Destination, Error> {
        Destination::follow(path, lookup).map_err(Error::at(Step::Resolve, path))
    }

    /// A directory, and no name in it.
    pub(crate) fn inside(directory: &Path) -> Result<Destination, Error> {
        let opened = Os::open_directory(None, directory);
        let found = Unresolved {
            directory: opened.map_err(Error::at(Step::Resolve, directory))?,
            name: PathBuf::new(),
            missing_parents: Vec::new(),
        };
        found.into_destination(directory, None).map_err(Error::at(Step::Resolve, directory))
    }

    fn follow(path: &Path, lookup: Lookup) -> io::Result<Destination> {
        let mut unresolved = Unresolved::find(None, path, lookup.parents)?;
        for _ in 0..=MAX_LINKS {
            let found = match unresolved.missing_parents.is_empty() {
                true => Os::stat(&unresolved.directory, &unresolved.name)?,
                false => None,
            };
            let link = match &found {
                Some(stat) if stat.kind == Kind::Symlink && lookup.links == Links::Follow => stat,
                _ => return unresolved.into_destination(path, found),
            };
            if Os::has_magic_links(&unresolved.directory)? {
                let mut destination = unresolved.into_destination(path, found)?;
                Arc::make_mut(&mut destination.place).is_magic_link = true;
                return Ok(destination);
            }
            check_followable(&unresolved.directory, link)?;
            let link = Os::read_link(&unresolved.directory, &unresolved.name)?;
            unresolved = Unresolved::find(Some(&unresolved.directory), &link, lookup.parents)?;
        }
        Err(Os::error(Code::TooManyLinks))
    }

    /// The same, called by another path in messages.
    pub(crate) fn shown_as(mut self, path: &Path) -> Destination {
        Arc::make_mut(&mut self.place).path = path.to_owned();
        self
    }

    /// The last component of the name: what a staging path ends in.
    pub(crate) fn file_name(&self) -> &Path {
        self.name.file_name().map_or(&self.name, Path::new)
    }

    /// What is there now.
    pub(crate) fn stat(&self) -> io::Result<Option<Stat>> {
        Os::stat(&self.directory, &self.name)
    }

    /// `None` where the filesystem is known to be local: its locks, inode numbers and owners can be
    /// trusted, and staging entries have one name for everybody.
    ///
    /// Elsewhere others may write to the same directory from another machine or by another mount, and
    /// neither sees the other's locks. Then this number is part of the entries' names: it belongs to
    /// this machine, since it was started, and this mount alone.
    pub(crate) fn realm(&self) -> Option<u64> {
        *self.realm.get_or_init(|| {
            let device = self.directory_at_start.dev;
            match Os::is_local(&self.directory, device) {
                true => None,
                false => Some(hash::extend(Os::boot_id(), &device.to_le_bytes())),
            }
        })
    }

    /// What a directory that the caller makes here looks like: some mounts show one owner, or one mode,
    /// for all that is there (CIFS and bindfs with `uid=` or `-u`, FAT, NTFS, a squashed root on NFS,
    /// idmapped mounts). `None` if none can be made.
    pub(crate) fn newcomer(&self) -> Option<&Stat> {
        let look = || {
            let name = PathBuf::from(format!(".{:08x}.write-atomically", platform::random()));
            Os::make_directory(&self.directory, &name, NEWCOMER).ok()?;
            let found = Os::stat(&self.directory, &name);
            let _ = Os::remove_directory(&self.directory, &name);
            found.ok().flatten()
        };
        self.newcomer.get_or_init(look).as_ref()
    }

    /// Makes the parents that were missing when the call started.
    pub(crate) fn make_parents(&self) -> io::Result<MadeParents> {
        let made = Made { directory: self.directory.clone(), names: Vec::new() };
        let mut made = Guard::new(made);
        for name in &self.missing_parents {
            match Os::make_directory(&self.directory, name, 0o777) {
                Ok(()) => made.names.push(name.clone()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }
}

/// The mode with which [`Destination::newcomer`] is made: no umask changes it, and no mount has it for all
/// directories.
pub(crate) const NEWCOMER: u32 = 0o500;

/// Whether a realm is one of this machine's mounts since it was started: in whatever container, and even
/// if nothing is mounted there any more.
pub(crate) fn is_realm_of_this_machine(realm: u64) -> bool {
    let machine = Os::boot_id();
    let of = |device: u64| hash::extend(machine, &device.to_le_bytes());
    Os::anonymous_devices().any(|device| of(device) == realm)
}

/// Parents that are removed again, if they are still empty, unless something was published in them.
pub(crate) type MadeParents = Guard<Made>;

#[derive(Debug)]
pub(crate) struct Made {
    directory: Arc<Directory>,
    names: Vec<PathBuf>,
}

impl CleanUp for Made {
    fn clean_up(self) {
        for name in self.names.iter().rev() {
            let _ = Os::remove_directory(&self.directory, name);
        }
    }
}

/// A directory and a name below it, whose link is not followed yet.
struct Unresolved {
    directory: Directory,
    name: PathBuf,
    missing_parents: Vec<PathBuf>,
}

impl Unresolved {
    fn find(base: Option<&Directory>, path: &Path, parents: Parents) -> io::Result<Unresolved> {
        let (parent, name) = split(path)?;
        let missing = match Os::open_directory(base, parent) {
            Ok(directory) => {
                let (name, missing_parents) = (name.to_owned(), Vec::new());
                return Ok(Unresolved { directory, name, missing_parents });
            }
            Err(error) => error,
        };
        if parents == Parents::MustExist || missing.kind() != io::ErrorKind::NotFound {
            return Err(missing);
        }
        Unresolved::find_below_existing(base, parent, name)
    }

    /// Pins the innermost parent that exists. Staging there shows nothing until the publish, and
    /// gives the same group and default ACL as staging in the parents to be made, which inherit them.
    fn find_below_existing(
        base: Option<&Directory>,
        parent: &Path,
        name: &Path,
    ) -> io::Result<Unresolved> {
        for existing in parent.ancestors().skip(1) {
            let directory = match Os::open_directory(base, existing) {
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
            match Os::stat(&directory, &missing_parents[0])? {
                None => {}
                // `create_dir_all` does not make the directory that a dangling link points to, either.
                Some(found) if found.kind == Kind::Symlink => {
                    return Err(Os::error(Code::NotFound));
                }
                // Another process has just made it.
                Some(_) => {
                    return Unresolved::find(base, &parent.join(name), Parents::MayBeMissing);
                }
            }
            // A component that is too long for its future directory is too long here as well.
            for component in below.components().map(|c| Path::new(c.as_os_str())).chain([name]) {
                Os::stat(&directory, component)?;
            }
            return Ok(Unresolved { directory, name: next.join(name), missing_parents });
        }
        Err(Os::error(Code::NotFound))
    }

    fn into_destination(self, path: &Path, at_start: Option<Stat>) -> io::Result<Destination> {
        let Unresolved { directory, name, missing_parents } = self;
        let (path, is_magic_link) = (path.to_owned(), false);
        let (realm, newcomer) = (OnceLock::new(), OnceLock::new());
        let directory_at_start = Os::stat_directory(&directory)?;
        let place = Place {
            path,
            name,
            missing_parents,
            at_start,
            is_magic_link,
            directory_at_start,
            realm,
            newcomer,
        };
        Ok(Destination { directory: Arc::new(directory), place: Arc::new(place) })
    }
}

/// A path's directory and last component. Refuses a path that can't name a file, as open(2) does.
fn split(path: &Path) -> io::Result<(&Path, &Path)> {
    if path.as_os_str().is_empty() {
        return Err(Os::error(Code::NotFound));
    }
    if Os::is_invalid(path) {
        return Err(Os::error(Code::InvalidName));
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !Os::means_directory(path) => Ok((parent, Path::new(name))),
        _ => Err(Os::error(Code::IsADirectory)),
    }
}

/// proc(5), `protected_symlinks`: in a sticky directory that everyone may write, a link is followed
/// only by its owner or if the directory's owner made it. The kernel's own check does not apply to
/// links that are read and followed by hand, and is not switched on everywhere.
fn check_followable(directory: &Directory, link: &Stat) -> io::Result<()> {
    const STICKY_AND_WRITABLE_BY_ALL: u32 = 0o1002;
    if link.uid == Os::user() {
        return Ok(());
    }
    let parent = Os::stat_directory(directory)?;
    let shared = parent.mode & STICKY_AND_WRITABLE_BY_ALL == STICKY_AND_WRITABLE_BY_ALL;
    match shared && parent.uid != link.uid {
        true => Err(Os::error(Code::NoAccess)),
        false => Ok(()),
    }
}
