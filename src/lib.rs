//! Write files so that nobody ever finds half of one.
//!
//! One idea: **a file appears at its path only when the closure that wrote it returned `Ok`.**
//!
//! ```
//! use std::io::Write;
//! use write_atomically::write_atomically;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("report.csv");
//! # fn rows() -> anyhow::Result<Vec<(u32, u32)>> { Ok(vec![(1, 100), (2, 200)]) }
//! write_atomically(&path, |w| {
//!     writeln!(w, "id,total")?;
//!     for (id, total) in rows()? { // any error, of any type
//!         writeln!(w, "{id},{total}")?;
//!     }
//!     Ok(())
//! })?;
//! # assert_eq!(std::fs::read_to_string(&path)?, "id,total\n1,100\n2,200\n");
//! # anyhow::Ok(())
//! ```
//!
//! If the closure fails, panics or is killed, the path is as it was: the old file or none, and
//! nothing beside it. If it returns `Ok`, so does [`write_atomically`], with the closure's value, once
//! the new content would survive a power cut.
//!
//! There is no guard object to commit, drop or forget. Everything else here is this shape again, a
//! path, a closure and a `Result`:
//!
//! | to | at the root | with [options](WriteOptions) and your own error type |
//! | --- | --- | --- |
//! | replace or create a file | [`write_atomically`] | [`WriteOptions::write`] |
//! | … from a slice, as [`std::fs::write`] does | [`write`] | |
//! | create one that must not exist | [`create_atomically`] | [`WriteOptions::create`] |
//!
//! # In place of `fs::write`
//!
//! [`write`] has [`std::fs::write`]'s signature: replacing `fs::write` by `write_atomically::write` is
//! all it takes.
//!
//! # Error types
//!
//! The functions at the root speak [`anyhow`], so that `?` takes any error in the closure without an
//! annotation. The methods of [`WriteOptions`] take any error type that is
//! `From<`[`io::Error`](std::io::Error)`>`: for libraries with enums of their own, and for functions
//! that return [`io::Result`](std::io::Result). [`Error::find`] tells this library's errors from the
//! closure's.
//!
//! # Features
//!
//! * `anyhow` (on by default): the functions at the root, except [`write`].
//! * `cli`: the command-line tool `write-atomically`; nothing of it is in the library.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod error;
mod keep;
mod metadata;
mod options;
mod overwrite;
mod platform;
mod staged;
mod staging;
mod target;
mod writer;

use std::io::{self, Write};
use std::path::Path;

pub use crate::error::{Error, Step};
pub use crate::options::{Durability, WriteOptions};
pub use crate::writer::Writer;

/// Writes a file that appears at `path` only when `write` has returned `Ok`.
///
/// The closure writes to a buffered [`Writer`]. While it runs, the path is as it was; on filesystems
/// that can (ext4, xfs, btrfs, tmpfs, overlayfs and others, on Linux) the new content has no name at
/// all. When the closure has returned `Ok`, the content replaces what is at `path` in one step, and is
/// durable when this function returns. Mode, owner, group, ACL and extended attributes of a file that
/// is replaced are carried over; symbolic links are followed, and stay.
///
/// Relative paths start where the process is when the call starts, whatever the closure does to the
/// working directory.
///
/// ```
/// use std::io::Write;
/// use write_atomically::write_atomically;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("primes.txt");
/// let count = write_atomically(&path, |w| {
///     let mut count = 0;
///     for n in (2..100).filter(|n| (2..*n).all(|m| n % m != 0)) {
///         writeln!(w, "{n}")?;
///         count += 1;
///     }
///     Ok(count)
/// })?;
/// assert_eq!(count, 25);
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// * What the closure returns comes back as it is, and the destination is as it was.
/// * Else it is an [`Error`] (inside an [`io::Error`], see [`Error::find`]), which says what failed, and
///   whether the destination [had been replaced](Error::replaced) already.
///
/// What can be known before the closure runs, is: a missing or unwritable directory, a read-only
/// filesystem, a destination that is a directory, a mount point, immutable, or not the caller's to
/// write. The closure does not run then.
///
/// # Destinations that are not regular files
///
/// A device, a FIFO, or what `/dev/stdout` leads to is never replaced: the content is staged, and
/// copied into it once the closure has returned `Ok`. Opening a FIFO waits for a reader, as
/// [`std::fs::write`] does.
#[cfg(feature = "anyhow")]
pub fn write_atomically<T>(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().write(path, write)
}

/// Writes a file that must not exist, and appears at `path` only when `write` has returned `Ok`.
///
/// Whether the path exists is checked before the closure runs and again, atomically, when publishing:
/// of many that create the same file one succeeds.
///
/// ```
/// use std::io::{self, Write};
/// use write_atomically::create_atomically;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("job.lock");
/// create_atomically(&path, |w| Ok(writeln!(w, "first come")?))?;
/// let error = create_atomically(&path, |w| Ok(writeln!(w, "too late")?)).unwrap_err();
/// assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::AlreadyExists);
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`write_atomically`], and of kind [`AlreadyExists`](io::ErrorKind::AlreadyExists) if there is
/// anything at `path`, be it a link that leads nowhere. The destination is as it was.
#[cfg(feature = "anyhow")]
pub fn create_atomically<T>(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().create(path, write)
}

/// Writes a slice as the whole content of a file: [`std::fs::write`], but whole or not at all, and
/// durable.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("config.toml");
/// write_atomically::write(&path, "retries = 3\n")?;
/// assert_eq!(std::fs::read_to_string(&path)?, "retries = 3\n");
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
///
/// An [`Error`] inside the [`io::Error`]; the destination is as it was, unless
/// [`Error::replaced`] says otherwise.
pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    WriteOptions::new().write(path, |w| w.write_all(contents.as_ref()))
}
