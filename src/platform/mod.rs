//! The system calls, and nothing else. Code outside this module is the same on every system.
//!
//! [`Platform`] says once what each function does. Its default bodies are what most systems need: many
//! call the function of the same name in `base`, which is the system's family. Each system has one
//! `impl Platform for Os`, which overrides what differs there, and says why:
//!
//! ```text
//! unix/mod.rs          the family: `rustix`       portable/mod.rs       the family: `std`; WASI
//! unix/linux.rs        Linux, Android             portable/windows/     Windows
//! unix/apple.rs        macOS, iOS
//! unix/bsd.rs          FreeBSD, NetBSD
//! ```

mod contract;

#[cfg(not(unix))]
mod portable;
#[cfg(unix)]
mod unix;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

#[cfg(not(unix))]
use portable as base;
#[cfg(unix)]
use unix as base;

/// `Directory` is an open directory, and stays the same one when its path changes, as far as the
/// system allows. `Entries` iterates over the names in one.
pub(crate) use base::{Directory, Entries};
pub(crate) use contract::Platform;

/// The system that the crate is compiled for.
pub(crate) enum Os {}

/// What kind of thing a name leads to; symbolic links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Other,
}

/// What the system says of a file.
#[derive(Clone, Debug)]
pub(crate) struct Stat {
    pub(crate) kind: Kind,
    /// Permission bits, set-ID and sticky bits included.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    /// In bytes.
    pub(crate) len: u64,
    /// How many names lead to the file; 1 where the system does not tell.
    pub(crate) links: u64,
    /// A filesystem is mounted here: nothing can be renamed over the name.
    pub(crate) mount_root: bool,
    /// Immutable or append-only: nothing can replace the file; in a directory, nothing can be renamed.
    pub(crate) immutable: bool,
}

impl Stat {
    pub(crate) fn id(&self) -> FileId {
        FileId { dev: self.dev, ino: self.ino }
    }

    pub(crate) fn is_same_file(&self, other: &Stat) -> bool {
        self.id() == other.id()
    }
}

/// Identifies a file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    dev: u64,
    ino: u64,
}

/// The answer to a request for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    Held,
    Busy,
    Unsupported,
}

/// Whether another program has a file open that it does not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(windows), expect(dead_code, reason = "elsewhere open files can be replaced"))]
pub(crate) enum InUse {
    No,
    Maybe,
    Yes,
}

/// An error that this library finds before the system does, to be given the system's own code.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Code {
    NotFound,
    NoAccess,
    NotPermitted,
    AlreadyExists,
    IsADirectory,
    TooManyLinks,
    InvalidName,
    Busy,
    Deadlock,
    NotADirectory,
    Unsupported,
}

/// A number that others cannot guess: `std` seeds its hashers from the system's random source. The
/// highest bit is set, which keeps it apart from the small numbers of staging names.
pub(crate) fn random() -> u32 {
    (RandomState::new().build_hasher().finish() as u32) | 1 << 31
}

/// A hidden name that no other process uses.
fn scratch_name() -> PathBuf {
    PathBuf::from(format!(".{:016x}.write-atomically", random()))
}

/// Looks, then renames. Nothing is lost if another process takes the name between the two calls:
/// rename(2) replaces a directory only if it is empty.
fn rename_unless_taken(old: &Directory, from: &Path, new: &Directory, to: &Path) -> io::Result<()> {
    match Os::stat(new, to)? {
        Some(_) => Err(Os::error(Code::AlreadyExists)),
        None => Os::rename_to(old, from, new, to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    fn a_random_number_is_not_a_small_one() {
        assert!((0..1000).map(|_| random()).all(|number| number >= 1 << 31));
    }
}
