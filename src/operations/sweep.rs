//! Removing what machines that died have left in a shared directory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Step};
use crate::platform::{Directory, Kind, Lock, Os, Platform as _, Stat};
use crate::protocol::dead::{Claim, Found, leads_to, leads_to_directory};
use crate::protocol::names::realm_of;
use crate::protocol::resolve::{Destination, is_realm_of_this_machine};
use crate::protocol::tree;

/// Removes the staging entries that nobody will publish any more from one directory, and returns their
/// paths.
///
/// An ordinary write removes what a killed one has left of the same destination, on the same machine.
/// On a filesystem that may be shared with other machines (NFS, SMB, FUSE) a staging entry has a name of
/// its own for each machine and mount, and no other ever touches it: what a *machine* leaves that dies
/// stays. This function looks through the directory, not below it, and removes
///
/// * entries of this machine, by this mount, whose writers are dead; their locks tell, not their age;
/// * entries of other machines that were last changed longer than `older_than` ago, by the clock that
///   the filesystem has for its files, unless their locks are known to be held.
///
/// **`older_than` must be longer than any closure pauses between two writes**, on any machine: whether a
/// writer on another machine is alive can't be known in general. A day is a good choice. Entries
/// that this machine made by another mount, since it was started, stay: they may be alive, and it is
/// for that mount to tell. So do those that look like another user's, except for root.
///
/// ```
/// use std::time::Duration;
/// use write_atomically::sweep;
///
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// std::fs::write(directory.join(".out.csv.write-atomically"), "of a writer that was killed")?;
/// let removed = sweep(directory, Duration::from_secs(24 * 60 * 60))?;
/// assert_eq!(removed, [directory.join(".out.csv.write-atomically")]);
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
///
/// An [`Error`] inside an [`io::Error`] if the directory can't be read, or an entry can't be removed:
/// then the others have been nevertheless.
pub fn sweep(directory: impl AsRef<Path>, older_than: Duration) -> io::Result<Vec<PathBuf>> {
    let path = directory.as_ref();
    let sweeping = Sweeping { inside: Destination::inside(path)?, older_than };
    let (mut removed, mut failure) = (Vec::new(), None);
    let list = |error| Error::new(Step::Resolve, path, error);
    for name in names(&sweeping.inside.directory).map_err(list)? {
        let Some(realm) = realm_of(&name) else { continue };
        match sweeping.clear(&name, realm) {
            Ok(true) => removed.push(path.join(name)),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                failure.get_or_insert(Error::new(Step::Sweep, path.join(name), error));
            }
        }
    }
    match failure {
        Some(failure) => Err(failure.into()),
        None => Ok(removed),
    }
}

/// All of them before the first is removed: what a listing shows of a directory that changes is not
/// defined (readdir(3)).
fn names(directory: &Directory) -> io::Result<Vec<PathBuf>> {
    Os::entries(directory)?.map(|entry| Ok(entry?.0)).collect()
}

struct Sweeping {
    inside: Destination,
    older_than: Duration,
}

impl Sweeping {
    /// Whether there was something to be removed.
    fn clear(&self, name: &Path, realm: Option<u64>) -> io::Result<bool> {
        let claim = Claim { destination: &self.inside };
        match realm {
            own if own == self.inside.realm() => Ok(claim.clear_dead(name)? == Found::Removed),
            Some(realm) if !is_realm_of_this_machine(realm) => self.clear_old(name),
            // Of this machine by another mount, or of one to which this filesystem is local.
            _ => Ok(false),
        }
    }

    fn clear_old(&self, name: &Path) -> io::Result<bool> {
        let directory = &self.inside.directory;
        let Some(stat) = Os::stat(directory, name)? else { return Ok(false) };
        if !self.may_remove(&stat) {
            return Ok(false);
        }
        match stat.kind {
            Kind::File => self.clear_old_file(name),
            Kind::Directory => self.clear_old_directory(name),
            Kind::Symlink | Kind::Other => Ok(false),
        }
    }

    fn may_remove(&self, entry: &Stat) -> bool {
        let is_root = Os::user() == 0;
        let is_safe = entry.kind == Kind::File || entry.mode & 0o1777 == 0o1700;
        Claim { destination: &self.inside }.may_remove(entry)
            || is_root && is_safe && !entry.mount_root
    }

    fn clear_old_file(&self, name: &Path) -> io::Result<bool> {
        let directory = &self.inside.directory;
        let file = Os::open_to_lock(directory, name)?;
        let is_held = Os::try_lock(&file) == Lock::Busy;
        if is_held || !self.is_old(&file)? || !leads_to(directory, name, &file)? {
            return Ok(false);
        }
        Os::remove(directory, name).map(|()| true)
    }

    fn clear_old_directory(&self, name: &Path) -> io::Result<bool> {
        let parent = &self.inside.directory;
        let directory = match Os::seize_directory(parent, name) {
            Ok((directory, _)) => directory,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        if !self.is_all_old(&directory)? || !leads_to_directory(parent, name, &directory)? {
            return Ok(false);
        }
        tree::remove(parent, name, Arc::new(directory)).map(|()| true)
    }

    /// A writer may be filling a file that is deep inside.
    fn is_all_old(&self, directory: &Directory) -> io::Result<bool> {
        if !self.is_old(&Os::open_itself(directory)?)? {
            return Ok(false);
        }
        for name in names(directory)? {
            let is_old = match Os::stat(directory, &name)?.map(|stat| stat.kind) {
                Some(Kind::Directory) => {
                    self.is_all_old(&Os::open_subdirectory(directory, &name)?)?
                }
                Some(Kind::File) => self.is_old(&Os::open_to_lock(directory, &name)?)?,
                _ => true,
            };
            if !is_old {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_old(&self, file: &File) -> io::Result<bool> {
        let changed = file.metadata()?.modified()?;
        let age = SystemTime::now().duration_since(changed).unwrap_or_default();
        Ok(age > self.older_than)
    }
}
