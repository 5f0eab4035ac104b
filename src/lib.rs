//! One idea: **a file appears at its path only when the closure that wrote it returned `Ok`.**
//!
//! ```
//! use std::io::Write;
//! use write_atomically::write_atomically;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("report.csv");
//! write_atomically(&path, |w| {
//!     writeln!(w, "id,total")?;
//!     for id in 1..=3 {
//!         writeln!(w, "{id},{}", id * 100)?;
//!     }
//!     Ok(())
//! })?;
//! # anyhow::Ok(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod batch;
mod by_path;
mod directory;
mod error;
mod keep;
mod metadata;
mod options;
mod overwrite;
mod platform;
mod private;
mod staged;
mod staging;
mod target;
mod tree;
mod writer;

use std::io::{self, Write};
use std::path::Path;

pub use crate::batch::Batch;
pub use crate::error::{Error, Step};
pub use crate::options::{Durability, WriteOptions};
pub use crate::writer::Writer;

/// Writes a file that appears at `path` only when `write` has returned `Ok`.
///
/// # Errors
///
/// todo
#[cfg(feature = "anyhow")]
pub fn write_atomically<T>(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().write(path, write)
}

/// Writes a file that must not exist.
#[cfg(feature = "anyhow")]
pub fn create_atomically<T>(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().create(path, write)
}

/// Writes a slice as the whole content of a file: [`std::fs::write`], but atomically.
pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    WriteOptions::new().write(path, |w| w.write_all(contents.as_ref()))
}

/// Publishes the file that `write` leaves at the path it is given: for producers that insist on a
/// path, like image encoders, SQLite and most C tools.
///
/// The staging path is absolute, ends in the destination's own name, extension included, and lies in
/// a directory next to the destination that only the caller's user can enter (mode `0700`). There is
/// nothing at it when the closure starts. What else the closure leaves next to it (journals, backups)
/// is removed; and it may write a new file and rename it over the staging path.
///
/// ```
/// use std::process::Command;
/// use write_atomically::write_path_atomically;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("sorted.txt");
/// write_path_atomically(&path, |staged| {
///     std::fs::write(staged, "b\na\n")?;
///     let status = Command::new("sort").arg("-o").arg(staged).arg(staged).status()?;
///     anyhow::ensure!(status.success(), "sort failed: {status}");
///     Ok(())
/// })?;
/// assert_eq!(std::fs::read_to_string(&path)?, "a\nb\n");
/// # anyhow::Ok(())
/// ```
///
/// All else is as with [`write_atomically`]: the metadata of a file that is replaced is carried over,
/// and a new one has the mode that its producer gave it.
///
/// # Errors
///
/// The closure's own, as it is; else an [`Error`]. In both cases the destination is as it was, unless
/// [`Error::replaced`] says otherwise, and nothing is left next to it.
///
/// It is an error of [`Step::Publish`] if what is at the staging path when the closure has returned
/// `Ok` is no regular file: nothing, a directory, a FIFO, a symbolic link (which is not followed). A
/// file that has another name, too (a hard link) is published as a copy.
///
/// A destination that is no regular file is refused before the closure runs, with
/// [`Unsupported`](io::ErrorKind::Unsupported): [`write_atomically`] writes into those. With
/// [`overwrite_in_place`](WriteOptions::overwrite_in_place) the file is copied into what can't be
/// renamed over, which needs a directory around it in which the caller may create one.
///
/// # Durability
///
/// `fdatasync` of the file, `renameat` over the destination, `fsync` of the directory, in this order.
/// That the first reports what was lost of the closure's writes, though these went through other
/// descriptors, holds from Linux 4.17 on (commit b4678df184b3), unless the producer's own `fsync` was told and it
/// returned `Ok` all the same. A power cut may leave the empty staging directory; the next write to
/// the destination removes it.
#[cfg(feature = "anyhow")]
pub fn write_path_atomically<T>(
    path: impl AsRef<Path>,
    write: impl FnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().write_path(path, write)
}

/// Publishes the directory tree that `write` builds at the path it is given, in one step: whoever
/// opens `path` finds the old tree or the new one, never none, never a mixture.
///
/// The closure gets the absolute path of an empty directory, which has the destination's own name and
/// lies in a directory next to the destination that only the caller's user can enter.
///
/// ```
/// use std::fs;
/// use write_atomically::write_dir_atomically;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("site");
/// write_dir_atomically(&path, |site| {
///     fs::create_dir(site.join("css"))?;
///     fs::write(site.join("css/main.css"), "body { margin: 0 }")?;
///     fs::write(site.join("index.html"), "<h1>hello</h1>")?;
///     Ok(())
/// })?;
/// assert!(path.join("css/main.css").exists());
/// # anyhow::Ok(())
/// ```
///
/// A new tree is renamed to the destination. An existing one is exchanged with the new, which gets its
/// mode, owner, group, ACLs and extended attributes (those of the directory itself: what is in it is
/// as the closure made it); then it is removed. Files in it that are open stay readable until they
/// are closed, but their names go: a program that reads a whole tree should open the directory once,
/// read relative to that, and start again if a name is missing.
///
/// Symbolic links in the tree stay as they are, and are never followed, neither for syncing nor for
/// removing; nor is anything that is mounted in it removed.
///
/// # Errors
///
/// The closure's own, as it is; else an [`Error`]. In both cases the destination is as it was, unless
/// [`Error::replaced`] says otherwise, and nothing is left next to it.
///
/// Refused before the closure runs are a destination that is there and no directory
/// ([`NotADirectory`](io::ErrorKind::NotADirectory)), one that is a mount point
/// ([`ResourceBusy`](io::ErrorKind::ResourceBusy)) or that the caller may not write (it takes that to
/// move it), and, where there is a directory to be replaced, a filesystem that can't exchange two
/// directories ([`Unsupported`](io::ErrorKind::Unsupported); ext4, XFS, Btrfs, F2FS and tmpfs can; an overlay can't
/// for a directory of a lower layer, such as a container's image).
///
/// [`Step::Remove`] says that the new tree is published, and durable, but the old one could not be
/// removed completely: what is left of it is in the staging directory next to the destination, and
/// the next write to the destination tries again.
///
/// # Durability
///
/// Every file and directory of the tree is on stable storage before it is published. From Linux 5.8
/// on, on ext4, XFS, Btrfs, F2FS and tmpfs, this is one `syncfs` (from that version on it reports lost
/// writes, of anybody's files on that filesystem); before, elsewhere, and for a handful of files it
/// is an `fsync` of each file and directory. Then come `renameat2` and the `fsync` of the parent
/// directory. With [`Durability::Consistent`] the last is left out, with [`Durability::Relaxed`] all
/// are.
#[cfg(feature = "anyhow")]
pub fn write_dir_atomically<T>(
    path: impl AsRef<Path>,
    write: impl FnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().write_dir(path, write)
}

/// Writes many files, none of which appears before `write` has returned `Ok`, and syncs them
/// together: much faster than one by one.
///
/// ```
/// use std::io::Write;
/// use write_atomically::write_batch;
///
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// write_batch(|batch| {
///     for n in 1..=100 {
///         batch.write(directory.join(format!("{n}.txt")), |w| {
///             writeln!(w, "{n}")?;
///             Ok(())
///         })?;
///     }
///     Ok(())
/// })?;
/// assert_eq!(std::fs::read_to_string(directory.join("100.txt"))?, "100\n");
/// # anyhow::Ok(())
/// ```
///
/// The files may lie in any number of directories, on several filesystems; they are written one after
/// the other, and none of them stays open. Each is published whole, as by [`write_atomically`], but
/// one after the other: a reader may see some of them new and others still old, and so may whoever
/// comes after a kill or a power cut in the middle of publishing. A set of files is not one transaction.
///
/// A kill leaves at most one staging entry in each directory, named after the first of the batch's
/// files there. The next batch or write that has this file among its destinations removes it.
///
/// # Errors
///
/// The closure's own, as it is; then nothing is published. Else an [`Error`]:
/// [`published`](Error::published) lists the destinations that have been replaced, all others are as
/// they were. If the closure returns `Ok` although one of the batch's files had failed, that file is not
/// part of the batch.
///
/// # Durability
///
/// The content of all files is on stable storage before the first is published. From Linux 5.8 on, on
/// ext4, XFS, Btrfs, F2FS and tmpfs, this is one `syncfs` for each filesystem (from that version on it
/// reports lost writes, of anybody's files there, and so the batch fails if there were any); before,
/// elsewhere, and for a handful of files it is an `fdatasync` of each file while it is open. Then each
/// is renamed, and each directory gets one `fsync`. With [`Durability::Consistent`] the last is left
/// out, with [`Durability::Relaxed`] all are.
#[cfg(feature = "anyhow")]
pub fn write_batch<T>(
    write: impl FnOnce(&mut Batch<anyhow::Error>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().write_batch(write)
}
