//! Who an entry at a staging name belongs to: taking names, and removing what dead writers have left.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::platform::{self, Directory, Kind, Lock, Os, Platform as _, Stat};
use crate::protocol::names::staging_name;
use crate::protocol::resolve::{Destination, NEWCOMER};
use crate::protocol::tree;

/// The mode of a staging directory. The sticky bit has no meaning in a directory that only its owner
/// can enter, and so tells ours from a user's own: in a shared directory, others could rename one of
/// those to a staging name, and we would then remove it with all that is in it.
pub(super) const PRIVATE: u32 = 0o1700;

/// The name of a file inside a staging directory whose lock says, as the directory's own does, that
/// the writer is alive: links to one file can stand in more directories than a process can have open.
pub(crate) const ALIVE: &str = "alive";

/// How long to wait for the writer that holds a name.
pub(super) struct Patience {
    tries: u32,
}

impl Patience {
    /// The holder's closure may run for hours.
    pub(super) const NONE: Patience = Patience { tries: 0 };
    /// The holder may be about to rename the name, which takes microseconds, and two names can be
    /// left behind only if two writers are killed at that moment; or it is one whose closure runs.
    /// So this yields the processor a hundred times, and then waits for 5 ms.
    pub(super) const BRIEF: Patience = Patience { tries: 105 };

    fn wait(&mut self) -> bool {
        if self.tries == 0 {
            return false;
        }
        self.tries -= 1;
        match self.tries >= 5 {
            true => thread::yield_now(),
            false => thread::sleep(Duration::from_millis(1)),
        }
        true
    }
}

/// What is known of the entry at a staging name.
#[derive(PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// It was dead.
    Removed,
    AliveFile,
    AliveDirectory,
    /// It belongs to another user, or can't be locked: not ours to judge.
    Foreign,
}

enum Seized {
    It(Directory),
    Not(Found),
}

/// A destination's staging names.
pub(crate) struct Claim<'d> {
    pub(crate) destination: &'d Destination,
}

/// How many names are tried before a random one. Of so many writers of one destination that are
/// killed at the same time, the next one finds everything.
const NAMES: u32 = 4;

/// How often a name is asked for of which all that is known is that its entry has just gone. Others may have been
/// faster each time; but a server that grants every lock lets an entry look as if it went for ever.
pub(super) const ROUNDS: u32 = 1000;

impl Claim<'_> {
    pub(crate) fn name(&self, nth: u32) -> PathBuf {
        staging_name(&self.destination.name, self.destination.realm(), nth)
    }

    /// Takes the first name that is free, or whose entry is dead.
    pub(super) fn try_names<T>(
        &self,
        mut patience: Patience,
        mut take: impl FnMut(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        for nth in 0..NAMES {
            let name = self.name(nth);
            for _ in 0..ROUNDS {
                match take(&name) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    taken => return taken,
                }
                match self.clear_dead(&name)? {
                    Found::Nothing | Found::Removed => {}
                    Found::AliveFile if patience.wait() => {}
                    Found::AliveFile | Found::AliveDirectory | Found::Foreign => break,
                }
            }
        }
        // Living writers have them all, or somebody plants entries: use a name that nobody knows.
        take(&self.name(platform::random()))
    }

    pub(super) fn sweep_except(&self, taken: &Path) {
        for nth in 0..NAMES {
            let name = self.name(nth);
            if name != taken {
                let _ = self.clear_dead(&name);
            }
        }
    }

    /// Removes the entry at a staging name if its writer is dead.
    pub(crate) fn clear_dead(&self, name: &Path) -> io::Result<Found> {
        let directory = &self.destination.directory;
        let Some(stat) = Os::stat(directory, name)? else { return Ok(Found::Nothing) };
        if !self.may_remove(&stat) {
            return match self.is_unmarked_directory(&stat) {
                true => self.clear_unmarked_directory(name),
                false => Ok(Found::Foreign),
            };
        }
        if stat.kind == Kind::Directory {
            return self.clear_dead_directory(name);
        }
        let file = match lock_dead(directory, name) {
            Ok((file, Lock::Held)) => file,
            Ok((_, Lock::Busy)) => return Ok(Found::AliveFile),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Found::AliveFile);
            }
            Ok((_, Lock::Unsupported)) | Err(_) => return Ok(Found::Foreign),
        };
        self.clear_locked(name, &stat, file)
    }

    /// Removes the file at a staging name, of which the caller has the lock, and which it saw before it
    /// had that.
    pub(crate) fn clear_locked(&self, name: &Path, seen: &Stat, file: File) -> io::Result<Found> {
        let directory = &self.destination.directory;
        // It may be another's by now, or even a directory.
        let locked = Os::stat_file(&file)?;
        if !locked.is_same_file(seen) || !leads_to(directory, name, &file)? {
            return Ok(Found::Nothing);
        }
        let _again = match self.destination.realm() {
            None => None,
            Some(_) => match look_again(&file, directory, name) {
                Again::ItIs(file) => Some(file),
                Again::ItIsAnother => return Ok(Found::Nothing),
                Again::Alive => return Ok(Found::AliveFile),
            },
        };
        match Os::remove(directory, name) {
            Ok(()) => Ok(Found::Removed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    fn clear_dead_directory(&self, name: &Path) -> io::Result<Found> {
        let parent = &self.destination.directory;
        let directory = match self.seize(name)? {
            Seized::It(directory) => directory,
            Seized::Not(found) => return Ok(found),
        };
        let alive = Os::open_to_lock(&directory, Path::new(ALIVE));
        if alive.is_ok_and(|file| Os::try_lock(&file) == Lock::Busy) {
            return Ok(Found::AliveDirectory);
        }
        // A killed writer's children may still fill it, or parts can't be removed. Others go on.
        match tree::remove(parent, name, Arc::new(directory)) {
            Ok(()) => Ok(Found::Removed),
            Err(_) => Ok(Found::Foreign),
        }
    }

    /// Removes a directory at a staging name that is not marked (see [`mark`]), if it is empty and its writer
    /// is dead: the writer may have been killed before it could mark it.
    fn clear_unmarked_directory(&self, name: &Path) -> io::Result<Found> {
        let parent = &self.destination.directory;
        let directory = match self.seize(name)? {
            Seized::It(directory) => directory,
            Seized::Not(found) => return Ok(found),
        };
        match Os::remove_held_directory(parent, name, Arc::new(directory)) {
            Ok(None) => Ok(Found::Removed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Ok(Some(_)) | Err(_) => Ok(Found::Foreign),
        }
    }

    /// Takes the lock of a directory at a staging name.
    fn seize(&self, name: &Path) -> io::Result<Seized> {
        use io::ErrorKind::{NotADirectory, NotFound, WouldBlock};
        let parent = &self.destination.directory;
        let directory = match Os::seize_directory(parent, name) {
            Ok((directory, Lock::Held)) => directory,
            Err(error) => {
                return Ok(Seized::Not(match error.kind() {
                    NotFound | NotADirectory => Found::Nothing,
                    WouldBlock => Found::AliveDirectory,
                    _ => Found::Foreign,
                }));
            }
            Ok(_) => return Ok(Seized::Not(Found::Foreign)),
        };
        match leads_to_directory(parent, name, &directory)? {
            true => Ok(Seized::It(directory)),
            false => Ok(Seized::Not(Found::Nothing)),
        }
    }

    fn is_unmarked_directory(&self, entry: &Stat) -> bool {
        let is_private = entry.mode & 0o077 == 0 && !entry.mount_root;
        entry.kind == Kind::Directory && is_private && is_made_by_caller(self.destination, entry)
    }

    /// In a directory that is shared, only one's own. Root gives its staging file to the
    /// destination's owner before it publishes, and may find it again like that.
    pub(crate) fn may_remove(&self, entry: &Stat) -> bool {
        let destinations_owner = self.destination.at_start.as_ref().map(|found| found.uid);
        let user = Os::user();
        let mine = entry.uid == user;
        let handed_over = user == 0 && Some(entry.uid) == destinations_owner;
        match entry.kind {
            Kind::File => mine || handed_over || self.is_made_here(entry),
            Kind::Directory if entry.mount_root => false,
            // The other bits can't change; set-group-ID comes from the directory around it.
            Kind::Directory => {
                let is_marked = entry.mode & 0o1777 == PRIVATE;
                is_marked && (mine || handed_over) || self.is_made_here(entry)
            }
            Kind::Symlink | Kind::Other => false,
        }
    }

    /// Whether an entry looks as this caller's do where the mount shows another owner, or another mode,
    /// than was asked for. A directory's mode says nothing where that is so for every directory; but
    /// then one who can move a user's directory to this name can remove what is in it just as well.
    fn is_made_here(&self, entry: &Stat) -> bool {
        let Some(made) = self.destination.newcomer() else { return false };
        let mode = match made.mode & 0o777 {
            NEWCOMER => PRIVATE,
            shown => made.mode & 0o1000 | shown,
        };
        made.uid == entry.uid && (entry.kind == Kind::File || entry.mode & 0o1777 == mode)
    }
}

/// Whether this caller's files look like that here: its user made them, or the mount shows one owner.
pub(crate) fn is_made_by_caller(destination: &Destination, found: &Stat) -> bool {
    found.uid == Os::user() || destination.newcomer().is_some_and(|made| made.uid == found.uid)
}

pub(super) enum Again {
    ItIs(File),
    ItIsAnother,
    Alive,
}

/// Whether a name still leads to what is locked by `first`, whatever the inode numbers say: where they
/// are made from paths, an entry and the one that has just taken its place have the same.
///
/// A second opening can't have the lock if it is the same file; nor if it is another's that is locked by
/// its writer. With shared locks instead it can if it is the same file, and only then. (Nobody takes
/// a shared lock but one who had the exclusive one, so that the writer has none.)
pub(super) fn look_again(first: &File, directory: &Directory, name: &Path) -> Again {
    let second = match lock_dead(directory, name) {
        Ok((second, Lock::Busy)) => second,
        Ok(_) | Err(_) => return Again::ItIsAnother,
    };
    match (Os::try_share(first), Os::try_share(&second)) {
        (Lock::Held, Lock::Held) => Again::ItIs(second),
        _ => Again::Alive,
    }
}

/// Opens what may be a dead writer's staging file, and asks for its lock.
pub(super) fn lock_dead(directory: &Directory, name: &Path) -> io::Result<(File, Lock)> {
    let file = Os::open_to_lock(directory, name)?;
    let lock = Os::try_lock(&file);
    if lock != Lock::Unsupported {
        return Ok((file, lock));
    }
    // NFS locks only what is open for writing (flock(2)).
    let file = Os::open_to_update(directory, name)?;
    let lock = Os::try_lock(&file);
    Ok((file, lock))
}

pub(crate) fn leads_to(directory: &Directory, name: &Path, file: &File) -> io::Result<bool> {
    let opened = Os::stat_file(file)?;
    let there = Os::stat(directory, name)?;
    Ok(there.is_some_and(|there| there.is_same_file(&opened)))
}

pub(crate) fn leads_to_directory(
    parent: &Directory,
    name: &Path,
    directory: &Directory,
) -> io::Result<bool> {
    let opened = Os::stat_directory(directory)?;
    let there = Os::stat(parent, name)?;
    Ok(there.is_some_and(|there| there.is_same_file(&opened)))
}
