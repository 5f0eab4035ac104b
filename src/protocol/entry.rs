//! Staging entries: names in the destination's directory that lead to content that is not published
//! yet.
//!
//! An entry's name is derived from the destination's, so that the next writer finds what a killed
//! one has left without a scan. A writer holds the lock of its entry while it lives. An entry is
//! removed, renamed and judged dead only while its lock is held, and after a look, with the lock,
//! that the name still leads to what is locked; and the lock is let go after the entry.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::platform::{Code, Directory, FileId, Lock, Os, Platform as _};
use crate::protocol::dead::{
    Again, Claim, PRIVATE, Patience, leads_to, leads_to_directory, lock_dead, look_again,
};
use crate::protocol::guard::{CleanUp, Guard};
use crate::protocol::lock::{FileLock, Owner};
use crate::protocol::resolve::Destination;

/// A name that is removed when this is dropped, unless it has been renamed to the destination's.
pub(crate) type Entry = Guard<Name>;

#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) directory: Arc<Directory>,
    pub(crate) name: PathBuf,
    hold: Hold,
}

/// What says that the writer of an entry is alive.
#[derive(Debug)]
enum Hold {
    /// The lock of the file that the name leads to.
    Lock { lock: FileLock },
    /// The file is open. It is locked, too, if it has just been linked; else the filesystem has no
    /// locks, and nobody but its writer removes it.
    Open(Arc<File>),
    /// The lock of the private staging directory that the name is in.
    Directory,
}

impl Name {
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self.hold, Hold::Lock { .. })
    }

    /// Right before the name is renamed: closes the descriptor that can write. A file that is open for
    /// writing can't be executed (execve(2), ETXTBSY), nor leased (fcntl(2), F_SETLEASE).
    pub(crate) fn stop_writing(&self, file: &mut Arc<File>) -> io::Result<()> {
        match &self.hold {
            Hold::Lock { lock } => *file = lock.file.clone(),
            Hold::Open(_) => {}
            Hold::Directory => Os::stop_writing(file, &self.directory, &self.name)?,
        }
        Ok(())
    }

    /// Right before the name is renamed: whether it still leads to this writer's own file. A name that
    /// has just been linked does: it is locked, and was free.
    pub(crate) fn check(&self) -> io::Result<()> {
        let Hold::Lock { lock } = &self.hold else { return Ok(()) };
        let now = Os::stat(&self.directory, &self.name)?;
        match now.is_some_and(|now| now.id() == lock.id) {
            true => Ok(()),
            // SeaweedFS changes the numbers of files that are open.
            false => match look_again(&lock.file, &self.directory, &self.name) {
                Again::ItIs(_) => Ok(()),
                Again::ItIsAnother | Again::Alive => Err(Os::error(Code::NotFound)),
            },
        }
    }
}

impl CleanUp for Name {
    fn clean_up(self) {
        let is_ours = match &self.hold {
            Hold::Lock { lock } => leads_to(&self.directory, &self.name, &lock.file),
            Hold::Open(file) => leads_to(&self.directory, &self.name, file),
            Hold::Directory => Ok(true),
        };
        if !is_ours.unwrap_or(false) {
            return;
        }
        let _ = Os::remove(&self.directory, &self.name);
        let Name { directory, name, hold } = self;
        if let Hold::Lock { lock } = hold {
            drop(lock);
            // Some servers make the file only when it is closed (rclone without a cache), again.
            let device = Os::stat_directory(&directory).map_or(0, |stat| stat.dev);
            if !Os::is_local(&directory, device) {
                remove_dead(&directory, &name);
            }
        }
    }
}

/// Removes a staging file of this caller, unless another writer has it.
fn remove_dead(directory: &Directory, name: &Path) {
    if let Ok((file, Lock::Held)) = lock_dead(directory, name) {
        remove_if_ours(directory, name, &file);
    }
}

/// Removes a staging file whose lock this writer has, if the name still leads to it.
fn remove_if_ours(directory: &Directory, name: &Path, file: &File) {
    if leads_to(directory, name, file).unwrap_or(false) {
        let _ = Os::remove(directory, name);
    }
}

/// A name inside a private staging directory.
pub(crate) fn inside(directory: Arc<Directory>, name: PathBuf) -> Entry {
    Guard::new(Name { directory, name, hold: Hold::Directory })
}

/// Creates a staging file that has a name from the start.
pub(crate) fn create(
    destination: &Destination,
    mode: u32,
    owner: Owner,
) -> io::Result<(Arc<File>, Entry)> {
    let claim = Claim { destination };
    let (file, entry) = claim.try_names(Patience::NONE, |name| {
        match create_at(destination, name, mode, owner)? {
            Some(created) => Ok(created),
            None => Err(io::ErrorKind::AlreadyExists.into()),
        }
    })?;
    claim.sweep_except(&entry.name);
    Ok((file, entry))
}

/// Creates a staging file of this name; `None` if another writer took it for dead between its
/// creation and its lock, and removes it.
pub(crate) fn create_at(
    destination: &Destination,
    name: &Path,
    mode: u32,
    owner: Owner,
) -> io::Result<Option<(Arc<File>, Entry)>> {
    let directory = &destination.directory;
    let file = Arc::new(Os::stage_named(directory, name, mode)?);
    let Some(hold) = hold(directory, name, &file, owner)? else { return Ok(None) };
    let (directory, name) = (directory.clone(), name.to_owned());
    Ok(Some((file, Guard::new(Name { directory, name, hold }))))
}

/// Locks a staging file that has just been created, by a descriptor that can't write: the one that
/// writes is closed before the file is published, and the lock must outlive it.
fn hold(
    directory: &Directory,
    name: &Path,
    file: &Arc<File>,
    owner: Owner,
) -> io::Result<Option<Hold>> {
    let reopened = Os::open_to_hold(directory, name).map(Arc::new);
    // NFS locks only what is open for writing (flock(2)).
    for candidate in [reopened.as_ref().ok(), Some(file)].into_iter().flatten() {
        match Os::try_lock(candidate) {
            Lock::Held => {
                let locked = match locked_as_ours(directory, name, file, candidate) {
                    Ok(locked) => locked,
                    Err(error) => {
                        remove_if_ours(directory, name, file);
                        return Err(error);
                    }
                };
                return Ok(locked
                    .map(|id| Hold::Lock { lock: FileLock::of(candidate.clone(), id, owner) }));
            }
            Lock::Busy => return Ok(None),
            Lock::Unsupported => {}
        }
    }
    Ok(Some(Hold::Open(file.clone())))
}

/// What is locked by `candidate`, if that is the file that was created and the name still leads to it.
fn locked_as_ours(
    directory: &Directory,
    name: &Path,
    file: &File,
    candidate: &File,
) -> io::Result<Option<FileId>> {
    let locked = Os::stat_file(candidate)?;
    let there = Os::stat(directory, name)?;
    let is_ours = there.is_some_and(|there| there.is_same_file(&locked))
        && Os::stat_file(file)?.is_same_file(&locked);
    Ok(is_ours.then(|| locked.id()))
}

/// Creates a directory that only the caller's user can enter, for a producer that wants a path, or
/// for many files. Its writer is alive as long as the descriptor is open.
pub(crate) fn create_directory(destination: &Destination) -> io::Result<(Directory, PathBuf)> {
    if !Os::HAS_PRIVATE_DIRECTORIES {
        return Err(Os::error(Code::Unsupported));
    }
    let claim = Claim { destination };
    let (staged, name) =
        claim.try_names(Patience::NONE, |name| match create_directory_at(destination, name)? {
            Some((directory, _)) => Ok((directory, name.to_owned())),
            None => Err(io::ErrorKind::AlreadyExists.into()),
        })?;
    claim.sweep_except(&name);
    Ok((staged, name))
}

/// Creates a staging directory of this name; `None` if another writer took it for dead between its
/// creation and its lock, and removes it.
pub(crate) fn create_directory_at(
    destination: &Destination,
    name: &Path,
) -> io::Result<Option<(Directory, Lock)>> {
    use io::ErrorKind::{NotADirectory, NotFound, WouldBlock};
    let parent = &destination.directory;
    Os::make_directory(parent, name, PRIVATE)?;
    let (directory, lock) = match Os::hold_directory(parent, name) {
        Ok(held) => held,
        // The other writer may have a file there now.
        Err(error) if matches!(error.kind(), NotFound | WouldBlock | NotADirectory) => {
            return Ok(None);
        }
        Err(error) => {
            let _ = Os::remove_directory(parent, name);
            return Err(error);
        }
    };
    match leads_to_directory(parent, name, &directory) {
        Ok(false) if lock == Lock::Held => return Ok(None),
        Err(error) if lock == Lock::Held => {
            // An empty one, which a writer who took it for dead has just made anew at worst; that one goes on with
            // another name.
            let _ = Os::remove_directory(parent, name);
            return Err(error);
        }
        _ => {}
    }
    mark(&directory);
    Ok(Some((directory, lock)))
}

/// mkdir(2): whether the sticky bit is honoured depends on the system; some BSDs and some FUSE
/// filesystems drop it. Without it the directory serves its writer, but only an empty one is removed when
/// the writer is dead.
fn mark(directory: &Directory) {
    if let Ok(stat) = Os::stat_directory(directory) {
        if stat.mode & 0o1777 != PRIVATE {
            let _ = Os::set_directory_mode(directory, stat.mode & 0o7000 | PRIVATE);
        }
    }
}

/// Gives an unnamed staging file a name, for as long as it takes to rename it. `holder` is the same
/// file by a descriptor that stays open until then.
pub(crate) fn link(
    destination: &Destination,
    file: &File,
    holder: &Arc<File>,
) -> io::Result<Entry> {
    // It was never shared, so that nobody else can have its lock; or there are no locks here.
    Os::try_lock(holder);
    let hold = Hold::Open(holder.clone());
    let directory = &destination.directory;
    let name = Claim { destination }.try_names(Patience::BRIEF, |name| {
        Os::link(file, directory, name).map(|()| name.to_owned())
    })?;
    Ok(Guard::new(Name { directory: directory.clone(), name, hold }))
}

/// Removes what a killed writer may have left of an earlier attempt on this destination.
pub(crate) fn sweep(destination: &Destination) {
    let claim = Claim { destination };
    let _ = claim.clear_dead(&claim.name(0));
}

/// The same, unless the caller itself holds that name.
pub(crate) fn sweep_unless(destination: &Destination, held: &Path) {
    if (Claim { destination }).name(0) != held {
        sweep(destination);
    }
}
