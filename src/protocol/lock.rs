//! Locks of open files, and who holds them in this process.
//!
//! flock(2): a lock belongs to the open file description and goes with its last descriptor, however
//! the process ends, so a killed holder blocks nobody.

#[cfg(feature = "tokio")]
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::platform::{Code, FileId, Lock, Os, Platform as _};

/// Who asks for a lock, and would wait for itself if it held the lock already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Thread(ThreadId),
    /// A call in an asynchronous task, which moves from one thread to another; the number tells calls
    /// apart, because one task may make several at the same time.
    #[cfg(feature = "tokio")]
    Task(u64),
}

impl Owner {
    pub(crate) fn this_thread() -> Owner {
        Owner::Thread(thread::current().id())
    }
}

/// How long to wait for a lock that somebody else holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    Forever,
    Until(Instant),
    /// The caller asks again later.
    #[cfg(feature = "tokio")]
    Never,
}

impl Wait {
    pub(crate) fn at_most(timeout: Option<Duration>) -> Wait {
        match timeout.and_then(|timeout| Instant::now().checked_add(timeout)) {
            Some(end) => Wait::Until(end),
            None => Wait::Forever,
        }
    }

    /// Sleeps for a moment before the next try; `false` if it is time to give up.
    pub(crate) fn pause(self, pause: &mut Duration) -> bool {
        let left = match self {
            Wait::Forever => *pause,
            Wait::Until(end) => end.saturating_duration_since(Instant::now()),
            #[cfg(feature = "tokio")]
            Wait::Never => Duration::ZERO,
        };
        if left.is_zero() {
            return false;
        }
        thread::sleep(left.min(*pause));
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// Between two tries where the system can't wait for a limited time (flock(2) has no timeout). A
/// millisecond is no burden to a waiter that soon gets the lock; a thousand waiters with pauses of 32
/// take a few per cent of a processor.
pub(crate) const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

/// What became of asking for the lock of an open file.
pub(crate) enum Attempt {
    Held(FileLock),
    Busy,
    /// The filesystem has no locks, or none for this file.
    Unsupported,
}

/// An open file and its lock, held until this is dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    pub(crate) file: Arc<File>,
    pub(crate) id: FileId,
    _holder: Holder,
}

impl FileLock {
    /// The error `Deadlock` if the owner would wait for itself.
    pub(crate) fn acquire(file: File, owner: Owner, wait: Wait) -> io::Result<Attempt> {
        let id = Os::stat_file(&file)?.id();
        check_not_held(id, owner, What::Destination)?;
        let lock = match wait {
            Wait::Forever => Os::lock(&file),
            _ => try_until(&file, wait),
        };
        Ok(match lock {
            Lock::Held => {
                let _holder = Holder::of(id, owner, What::Destination);
                Attempt::Held(FileLock { file: Arc::new(file), id, _holder })
            }
            Lock::Busy => Attempt::Busy,
            Lock::Unsupported => Attempt::Unsupported,
        })
    }

    /// For a staging entry's lock, which the caller has got.
    pub(crate) fn of(file: Arc<File>, id: FileId, owner: Owner) -> FileLock {
        FileLock { file, id, _holder: Holder::register(id, owner) }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing the file does it, too, unless the closure has forked a child that has a copy.
        Os::unlock(&self.file);
    }
}

fn try_until(file: &File, wait: Wait) -> Lock {
    let mut pause = SHORTEST_PAUSE;
    loop {
        match Os::try_lock(file) {
            Lock::Busy if wait.pause(&mut pause) => {}
            lock => return lock,
        }
    }
}

/// What is locked. Where inode numbers are made from paths, an entry may have the same number as the
/// destination, which was an entry before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Destination,
    Entry,
}

/// Says, until it is dropped, that this process holds the lock of a file or directory.
#[derive(Debug)]
pub(crate) struct Holder(Held);

type Held = (FileId, Owner, What);

impl Holder {
    /// For a staging entry.
    pub(crate) fn register(id: FileId, owner: Owner) -> Holder {
        Holder::of(id, owner, What::Entry)
    }

    fn of(id: FileId, owner: Owner, what: What) -> Holder {
        registry().held.push((id, owner, what));
        Holder((id, owner, what))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let held = &mut registry().held;
        if let Some(mine) = held.iter().position(|held| *held == self.0) {
            held.swap_remove(mine);
        }
    }
}

/// Says, until it is dropped, that one call runs in the closure of another: the outer one waits for
/// it, and so must not have what it waits for.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub(crate) struct Nested(u64);

#[cfg(feature = "tokio")]
impl Nested {
    pub(crate) fn register(task: u64, around: Owner) -> Nested {
        registry().nested.insert(task, around);
        Nested(task)
    }
}

#[cfg(feature = "tokio")]
impl Drop for Nested {
    fn drop(&mut self) {
        registry().nested.remove(&self.0);
    }
}

/// The error `Deadlock` if this owner holds the lock of this staging entry, or one who waits for this
/// owner.
pub(crate) fn check_not_held_by(owner: Owner, id: FileId) -> io::Result<()> {
    check_not_held(id, owner, What::Entry)
}

fn check_not_held(id: FileId, owner: Owner, what: What) -> io::Result<()> {
    let registry = registry();
    let mut next = Some(owner);
    while let Some(owner) = next {
        if registry.held.contains(&(id, owner, what)) {
            return Err(Os::error(Code::Deadlock));
        }
        next = registry.around(owner);
    }
    Ok(())
}

/// The locks that this process holds, and who holds them.
struct Registry {
    held: Vec<Held>,
    /// Who runs in whose closure. Threads need no entry: all their calls have one owner.
    #[cfg(feature = "tokio")]
    nested: BTreeMap<u64, Owner>,
}

impl Registry {
    #[cfg(feature = "tokio")]
    fn around(&self, owner: Owner) -> Option<Owner> {
        match owner {
            Owner::Thread(_) => None,
            Owner::Task(task) => self.nested.get(&task).copied(),
        }
    }

    #[cfg(not(feature = "tokio"))]
    fn around(&self, _: Owner) -> Option<Owner> {
        None
    }
}

fn registry() -> MutexGuard<'static, Registry> {
    static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
        held: Vec::new(),
        #[cfg(feature = "tokio")]
        nested: BTreeMap::new(),
    });
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}
