//! Locks: who may create or update a destination while others wait.
//!
//! What is locked is the destination itself where there is one, and else an entry beside it, named
//! after it. flock(2): the lock goes with the last descriptor of an open file, however its process
//! ends, so a killed holder blocks nobody.
//!
//! A lock means something only as long as the name leads to what is locked. Hence the rule on both
//! sides: who has waited looks whether it still does, and starts again if not; who holds the lock of
//! an entry removes the entry before letting go. Staging files are locked, too, by those who made
//! them, and stay so for an instant after they have become the destination: who asks for the lock
//! then waits for it like anybody else.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::error::{Error, Step};
use crate::options::WriteOptions;
use crate::platform::{self, Code, Directory, FileId, Kind, Lock, Stat};
use crate::staging;
use crate::target::Target;

/// What became of asking for a lock.
pub(crate) enum Asked<L> {
    Held(L),
    /// There are no locks here, or none that is worth anything.
    Impossible,
    /// While we waited, the destination has changed: look again what it is.
    LookAgain,
}

/// Waits for the lock of the file that was found at a destination, open for reading.
pub(crate) fn existing(target: &Target, found: &Stat) -> Result<Asked<LockedFile>, Error> {
    if !platform::LOCKS_DESTINATIONS {
        return lock_beside(target, found).map_err(|error| name(target, error));
    }
    match platform::open_to_update(&target.directory, &target.name) {
        Ok(file) => lock_existing(target, found, file).map_err(|error| name(target, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Asked::LookAgain),
        Err(error) => Err(Error::new(Step::Read, &target.path, error)),
    }
}

fn lock_existing(target: &Target, found: &Stat, file: File) -> io::Result<Asked<LockedFile>> {
    let Some(lock) = FileLock::wait_for(file)? else { return Ok(Asked::Impossible) };
    // Another update that we waited for has put another file in its place, and made this one nobody's.
    Ok(match lock.id == found.id() && is_there(target, lock.id)? {
        true => Asked::Held(LockedFile {
            file: lock.file.clone(),
            id: lock.id,
            lock: ExistingLock::Itself(lock),
        }),
        false => Asked::LookAgain,
    })
}

/// Locks an entry beside the destination, as if that were missing.
fn lock_beside(target: &Target, found: &Stat) -> io::Result<Asked<LockedFile>> {
    let entry = match LockEntry::take(target.directory.clone(), entry_name(&target.name))? {
        Asked::Held(entry) => entry,
        Asked::Impossible => return Ok(Asked::Impossible),
        Asked::LookAgain => return Ok(Asked::LookAgain),
    };
    let file = match platform::open_to_compare(&target.directory, &target.name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Asked::LookAgain),
        file => file?,
    };
    let id = platform::stat_file(&file)?.id();
    Ok(match id == found.id() && is_there(target, id)? {
        true => {
            Asked::Held(LockedFile { file: Arc::new(file), id, lock: ExistingLock::Beside(entry) })
        }
        false => Asked::LookAgain,
    })
}

fn is_there(target: &Target, id: FileId) -> io::Result<bool> {
    Ok(target.stat()?.is_some_and(|now| now.kind == Kind::File && now.id() == id))
}

/// A destination that nobody else updates, open for reading.
pub(crate) struct LockedFile {
    pub(crate) file: Arc<File>,
    pub(crate) id: FileId,
    pub(crate) lock: ExistingLock,
}

/// The lock of a destination that exists, held until this is dropped.
#[allow(dead_code)] // They are held, not looked at.
pub(crate) enum ExistingLock {
    Itself(FileLock),
    /// Leaves the destination free to be closed, as some systems want it before they replace it.
    Beside(LockEntry),
}

/// Waits until nobody else creates this destination, where nothing was found.
pub(crate) fn missing(target: &Target, options: &WriteOptions) -> Result<Asked<LockEntry>, Error> {
    lock_missing(target, options).map_err(|error| name(target, error))
}

fn lock_missing(target: &Target, options: &WriteOptions) -> io::Result<Asked<LockEntry>> {
    let asked = LockEntry::take(target.directory.clone(), entry_name(&target.name))?;
    if let Asked::Held(_) = asked {
        let parents_appeared = match target.missing_parents.first() {
            Some(parent) => platform::stat(&target.directory, parent)?.is_some(),
            None => false,
        };
        let waited = options.create_parents && !parents_appeared && waited_above(target)?;
        if parents_appeared || waited || target.stat()?.is_some() {
            return Ok(Asked::LookAgain);
        }
    }
    Ok(asked)
}

/// Waits for those who started to create this destination when its parents were missing: their
/// entries lie above these. They look, locked, whether the parents are still missing; we look for
/// their entries, locked, above the parents that are there, which may be some of them. So one of both
/// sees the other.
fn waited_above(target: &Target) -> io::Result<bool> {
    let parent = target.path.parent().unwrap_or(Path::new(""));
    for above in parent.ancestors().skip(target.missing_parents.len() + 1) {
        let below: PathBuf = match target.path.strip_prefix(above) {
            Ok(below) => below.components().collect(),
            Err(_) => continue,
        };
        let Ok(directory) = platform::open_directory(None, above) else { continue };
        let entry = entry_name(&below);
        if !platform::stat(&directory, &entry).is_ok_and(|found| found.is_some()) {
            continue;
        }
        match LockEntry::take(Arc::new(directory), entry)? {
            Asked::Held(_) | Asked::LookAgain => return Ok(true),
            Asked::Impossible => {}
        }
    }
    Ok(false)
}

/// Removes the entry of one who was killed after publishing, before removing it.
pub(crate) fn sweep(target: &Target) {
    staging::remove_dead(target, &entry_name(&target.name));
}

fn name(target: &Target, error: io::Error) -> Error {
    let is_deadlock = error.kind() == platform::error(Code::Deadlock).kind();
    let error = Error::new(Step::Lock, &target.path, error);
    match is_deadlock {
        true => error.hint(
            "this thread is inside a closure that creates or updates the same file, and would wait \
             for itself",
        ),
        false => error,
    }
}

/// `.report.csv.write-atomically-lock`, for `report.csv`. Below parents that are missing, there may
/// be many of this name: a hash of the whole path below `directory` tells them apart.
fn entry_name(name: &Path) -> PathBuf {
    const SUFFIX: &str = ".write-atomically-lock";
    let file_name = name.file_name().unwrap_or(name.as_os_str());
    match name.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            let hash = staging::hash(platform::name_bytes(name.as_os_str()));
            staging::derived_name(Path::new(file_name), &format!("-{hash:016x}{SUFFIX}"))
        }
        _ => staging::derived_name(Path::new(file_name), SUFFIX),
    }
}

/// An entry that shows that somebody creates a destination. Goes when it is dropped.
pub(crate) struct LockEntry {
    directory: Arc<Directory>,
    name: PathBuf,
    lock: FileLock,
}

impl LockEntry {
    fn take(directory: Arc<Directory>, name: PathBuf) -> io::Result<Asked<LockEntry>> {
        let Some(file) = open_entry(&directory, &name)? else { return Ok(Asked::Impossible) };
        let Some(lock) = FileLock::wait_for(file)? else {
            // Nobody can hold it.
            let _ = platform::remove(&directory, &name);
            return Ok(Asked::Impossible);
        };
        let entry = LockEntry { directory, name, lock };
        Ok(match entry.is_there()? {
            true => Asked::Held(entry),
            false => Asked::LookAgain,
        })
    }

    fn is_there(&self) -> io::Result<bool> {
        let there = platform::stat(&self.directory, &self.name)?;
        Ok(there.is_some_and(|there| there.id() == self.lock.id))
    }
}

impl Drop for LockEntry {
    fn drop(&mut self) {
        // While it is still locked: those who wait find that the name leads nowhere, or to the
        // entry of the next, and look again.
        if self.is_there().unwrap_or(false) {
            let _ = platform::remove(&self.directory, &self.name);
        }
    }
}

/// Creates or opens an entry; `None` if it is somebody else's, who could make us wait for ever, or
/// can't be had at all.
fn open_entry(directory: &Directory, name: &Path) -> io::Result<Option<File>> {
    use io::ErrorKind::{
        AlreadyExists, NotFound, PermissionDenied, ReadOnlyFilesystem, WouldBlock,
    };
    loop {
        match platform::stage_named(directory, name, 0o600) {
            Ok(file) => return Ok(Some(file)),
            Err(error) => match error.kind() {
                AlreadyExists => {}
                // Staging will be refused for the same reason.
                NotFound | PermissionDenied | ReadOnlyFilesystem => return Ok(None),
                _ => return Err(error),
            },
        }
        match platform::stat(directory, name)? {
            Some(found) if !is_mine(&found) => return Ok(None),
            Some(_) => {}
            None => continue,
        }
        match platform::open_to_update(directory, name) {
            Ok(file) if is_mine(&platform::stat_file(&file)?) => return Ok(Some(file)),
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == PermissionDenied => return Ok(None),
            Err(error) if error.kind() == NotFound => {}
            Err(error) if error.kind() == WouldBlock => wait_a_moment(directory, name)?,
            // Between the two calls, a link was put there.
            Err(error) if error.kind() == platform::error(Code::TooManyLinks).kind() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Where opening is locking, there is nothing that waits by itself.
fn wait_a_moment(directory: &Directory, name: &Path) -> io::Result<()> {
    if let Some(found) = platform::stat(directory, name)? {
        check_not_mine(found.id())?;
    }
    thread::sleep(Duration::from_millis(2));
    Ok(())
}

fn is_mine(entry: &Stat) -> bool {
    entry.kind == Kind::File && entry.uid == platform::user()
}

/// An open file and its lock, held until this is dropped.
pub(crate) struct FileLock {
    file: Arc<File>,
    id: FileId,
}

impl FileLock {
    /// `None` where there are no locks; the error `Deadlock` if this thread would wait for itself.
    fn wait_for(file: File) -> io::Result<Option<FileLock>> {
        let id = platform::stat_file(&file)?.id();
        check_not_mine(id)?;
        if platform::lock(&file) != Lock::Held {
            return Ok(None);
        }
        held().push((id, thread::current().id()));
        Ok(Some(FileLock { file: Arc::new(file), id }))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let me = (self.id, thread::current().id());
        held().retain(|lock| *lock != me);
        // Closing does it, too, unless the closure has forked a child that has a copy.
        platform::unlock(&self.file);
    }
}

fn check_not_mine(id: FileId) -> io::Result<()> {
    match held().contains(&(id, thread::current().id())) {
        true => Err(platform::error(Code::Deadlock)),
        false => Ok(()),
    }
}

/// The locks that this process holds, and the threads in whose closures it holds them.
fn held() -> MutexGuard<'static, Vec<(FileId, ThreadId)>> {
    static HELD: Mutex<Vec<(FileId, ThreadId)>> = Mutex::new(Vec::new());
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}
