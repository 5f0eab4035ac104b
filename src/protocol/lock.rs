//! Locks of open files, and who holds them in this process.
//!
//! flock(2): a lock belongs to the open file description and goes with its last descriptor, however
//! the process ends, so a killed holder blocks nobody.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::platform::{self, Code, FileId, Lock};

/// Who asks for a lock, and would wait for itself if it held the lock already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Thread(ThreadId),
    /// A task moves from one thread to another; the number tells tasks apart.
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
        let id = platform::stat_file(&file)?.id();
        check_not_held(id, owner, What::Destination)?;
        let lock = match wait {
            Wait::Forever => platform::lock(&file),
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
        platform::unlock(&self.file);
    }
}

fn try_until(file: &File, wait: Wait) -> Lock {
    let mut pause = SHORTEST_PAUSE;
    loop {
        match platform::try_lock(file) {
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
        held().push((id, owner, what));
        Holder((id, owner, what))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut held = held();
        if let Some(mine) = held.iter().position(|held| *held == self.0) {
            held.swap_remove(mine);
        }
    }
}

/// The error `Deadlock` if this owner holds the lock of this staging entry.
pub(crate) fn check_not_held_by(owner: Owner, id: FileId) -> io::Result<()> {
    check_not_held(id, owner, What::Entry)
}

fn check_not_held(id: FileId, owner: Owner, what: What) -> io::Result<()> {
    match held().contains(&(id, owner, what)) {
        true => Err(platform::error(Code::Deadlock)),
        false => Ok(()),
    }
}

/// The locks that this process holds, and who holds them.
fn held() -> MutexGuard<'static, Vec<Held>> {
    static HELD: Mutex<Vec<Held>> = Mutex::new(Vec::new());
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}
