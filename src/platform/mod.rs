//! The system calls, and nothing else: one file a platform, the same functions in each. Everything
//! above this module is the same on every platform.

#[cfg(target_vendor = "apple")]
mod apple;
#[cfg(any(target_os = "freebsd", target_os = "netbsd"))]
mod bsd;
#[allow(dead_code)] // Most systems have something of their own for some of it.
mod common;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(not(unix))]
#[cfg_attr(windows, allow(dead_code))]
mod portable;
#[cfg(unix)]
#[cfg_attr(
    any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_os = "netbsd",
        target_vendor = "apple"
    ),
    allow(dead_code)
)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(target_vendor = "apple")]
pub(crate) use apple::*;
#[cfg(any(target_os = "freebsd", target_os = "netbsd"))]
pub(crate) use bsd::*;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::*;
#[cfg(not(any(unix, windows)))]
pub(crate) use portable::*;
#[cfg(all(
    unix,
    not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_os = "netbsd",
        target_vendor = "apple"
    ))
))]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;

/// What kind of thing a name leads to, symbolic links not followed.
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
    /// How many names lead to it.
    pub(crate) links: u64,
    /// Something is mounted here: the name can't be renamed over.
    pub(crate) mount_root: bool,
    /// Immutable or append-only: nothing can replace it.
    pub(crate) immutable: bool,
}

/// Which file it is, by whatever name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    dev: u64,
    ino: u64,
}

impl Stat {
    pub(crate) fn id(&self) -> FileId {
        FileId { dev: self.dev, ino: self.ino }
    }

    pub(crate) fn is_same_file(&self, other: &Stat) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

/// The outcome of asking for a lock without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)] // Not every system knows every outcome.
pub(crate) enum Lock {
    Held,
    Busy,
    Unsupported,
}

/// Whether an error says that another program has the file open.
#[allow(dead_code)]
pub(crate) enum InUse {
    No,
    Maybe,
    Yes,
}

/// Whether a staging file has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    Named,
    Unnamed,
}

/// A number that others can't guess, from the system's own source by way of `std`.
pub(crate) fn random() -> u32 {
    use std::collections::hash_map::RandomState;
    use std::hash::{BuildHasher, Hasher};
    (RandomState::new().build_hasher().finish() as u32) | 1 << 31
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
