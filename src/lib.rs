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
//! | … from a slice, as [`std::fs::write`] does | [`write()`] | |
//! | create one that must not exist | [`create_atomically`] | [`WriteOptions::create`] |
//! | compute one once, however many ask | [`write_if_missing`] | [`WriteOptions::write_if_missing`] |
//! | leave alone what would not change | [`write_if_changed`] | [`WriteOptions::write_if_changed`] |
//! | read, modify, write; no lost update | [`update_atomically`] | [`WriteOptions::update`] |
//! | serve a producer that insists on a path | [`write_path_atomically`] | [`WriteOptions::write_path`] |
//! | replace a whole directory tree | [`write_dir_atomically`] | [`WriteOptions::write_dir`] |
//! | write many files, synced together | [`write_batch`] | [`WriteOptions::write_batch`] |
//!
//! # In place of `fs::write`
//!
//! [`write()`] has [`std::fs::write`]'s signature: replacing `fs::write` by `write_atomically::write` is
//! all it takes.
//!
//! # Error types
//!
//! The functions at the root speak [`anyhow`], so that `?` takes any error in the closure without an
//! annotation. The methods of [`WriteOptions`] take any error type that is
//! `From<io::Error>`: for libraries with enums of their own, and for functions
//! that return `io::Result`. [`Error::find`] tells this library's errors from the
//! closure's.
//!
//! # Features
//!
//! * `anyhow` (on by default): the functions at the root, except [`write()`].
//! * `cli`: the command-line tool `write-atomically`; nothing of it is in the library.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod batch;
mod by_path;
mod directory;
mod error;
mod if_changed;
mod if_missing;
mod keep;
mod lock;
mod metadata;
mod options;
mod overwrite;
mod platform;
mod private;
mod reader;
mod staged;
mod staging;
mod target;
mod tree;
mod update;
mod writer;

use std::io::{self, Write};
use std::path::Path;

pub use crate::batch::Batch;
pub use crate::error::{Error, Step};
pub use crate::if_changed::Change;
pub use crate::options::{Durability, WriteOptions};
pub use crate::reader::Reader;
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

/// Writes a file if nothing is at `path`; `None` if something is: what caches and pipelines do.
///
/// ```
/// use std::io::Write;
/// use write_atomically::write_if_missing;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("primes.txt");
/// # fn primes() -> anyhow::Result<Vec<u32>> { Ok(vec![2, 3, 5]) }
/// write_if_missing(&path, |w| {
///     for prime in primes()? {
///         writeln!(w, "{prime}")?;
///     }
///     Ok(())
/// })?;
/// assert_eq!(std::fs::read_to_string(&path)?, "2\n3\n5\n");
/// # anyhow::Ok(())
/// ```
///
/// Among threads and processes that ask for the same path, one runs its closure; the others wait,
/// and get `None` without having run theirs. If the one that runs fails, panics or is killed, one of
/// those that wait runs its own.
///
/// What counts is that there is something: a directory, a device, somebody else's file that can't
/// be read. Symbolic links are followed, and one that leads nowhere is where the file will be; with
/// [`follow_symlinks(false)`](WriteOptions::follow_symlinks) the link itself counts. Nothing needs to
/// be writable for that answer. Nothing is ever replaced: if something appears while the closure
/// runs, from somebody who does not use this function, it stays, and the answer is `None`.
///
/// `None` does not say that what is there has been synced.
///
/// # How the others wait
///
/// While the closure runs, an empty file is beside the destination, named
/// `.primes.txt.write-atomically-lock` and locked (`flock` on Unix). It goes with the end of the
/// closure, whatever that is; if the process is killed, the lock goes at once and the file with the
/// next call. Below parents that
/// [`create_parents`](WriteOptions::create_parents) has yet to make, it is in the innermost
/// directory that exists.
///
/// Where there are no locks (some network filesystems), and where the file of that name belongs to
/// another user, nobody waits: several closures may run, and the first to publish wins. A child
/// process that the closure has forked, and that lives on without calling `exec`, keeps others
/// waiting after its parent was killed.
///
/// # Errors
///
/// The closure's own, as it is; else an [`Error`]. In both cases the destination is as it was,
/// unless [`Error::replaced`] says that the new file is there and could not be synced.
///
/// Calling this or [`update_atomically`] for the same path inside the closure, on the same thread,
/// is an error of kind [`Deadlock`](io::ErrorKind::Deadlock). On another thread the call waits, for
/// ever if the closure waits for that thread.
#[cfg(feature = "anyhow")]
pub fn write_if_missing<T>(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    WriteOptions::new().write_if_missing(path, write)
}

/// Writes a file unless the same bytes are there already, so that nothing that depends on it is
/// built again: what generators do.
///
/// ```
/// use std::io::Write;
/// use write_atomically::{Change, write_if_changed};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("version.rs");
/// # let generate = || {
/// write_if_changed(&path, |w| {
///     writeln!(w, "pub const VERSION: &str = {:?};", "1.2.3")?;
///     Ok(())
/// })
/// # };
/// # assert_eq!(generate()?, Change::Written(()));
/// # assert_eq!(generate()?, Change::Unchanged(()));
/// # anyhow::Ok(())
/// ```
///
/// The closure runs either way, and its output is staged. If a regular file with the same length
/// and the same bytes is at `path` then, the output is thrown away, and the file is not touched: it
/// stays the same file, with its times, mode, owner and attributes. Only the bytes count; what
/// [`WriteOptions`] say about the mode applies to what is written. A file that can't be read counts
/// as another. Both are read piece by piece, in constant memory.
///
/// `Ok` is as durable for [`Change::Unchanged`] as for [`Change::Written`]: whoever wrote the file
/// may not have synced it, so it is synced now (see [`Durability`]).
///
/// # Errors
///
/// The closure's own, as it is; else an [`Error`]. In both cases the destination is as it was,
/// unless [`Error::replaced`] says otherwise.
#[cfg(feature = "anyhow")]
pub fn write_if_changed<T>(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<Change<T>> {
    WriteOptions::new().write_if_changed(path, write)
}

/// Reads a file, and writes what becomes of it, while others who update it wait: no update is lost.
///
/// ```
/// use std::io::{Read, Write};
/// use write_atomically::update_atomically;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("counter");
/// # let mut counts = vec![];
/// # for _ in 0..2 {
/// let count = update_atomically(&path, |old, new| {
///     let mut text = String::new();
///     if let Some(old) = old {
///         old.read_to_string(&mut text)?;
///     }
///     let count = text.parse().unwrap_or(0) + 1;
///     write!(new, "{count}")?;
///     Ok(count)
/// })?;
/// # counts.push(count);
/// # }
/// # assert_eq!(counts, [1, 2]);
/// # anyhow::Ok(())
/// ```
///
/// The closure gets the old content, or `None` where there is no file, and writes the whole new
/// content, which replaces the old one as with [`write_atomically`]. Threads and processes that
/// update the same file, by whatever name or link, run one after the other, each on what the one
/// before has published; the file's creation included. One that fails, panics or is killed changes
/// nothing, and lets the next one go on.
///
/// # How the others wait
///
/// The file itself is locked (`flock` on Unix) from before it is read until its successor is
/// durable; so everyone who can open it can make others wait. Where there is no file,
/// an empty one named after it is locked instead, as for [`write_if_missing`], and creating excludes
/// that function, too. A child process that the closure has forked, and that lives on without calling
/// `exec`, keeps others waiting after its parent was killed.
///
/// Locks don't bind those who don't ask for them. If somebody else replaces or removes the file
/// while the closure runs, publishing would lose that change, and is an error instead; what
/// somebody writes into it in place is lost.
///
/// # Errors
///
/// The closure's own, as it is; else an [`Error`]. In both cases the destination is as it was,
/// unless [`Error::replaced`] says otherwise. On top of what [`write_atomically`] refuses:
///
/// - what is there is no regular file, or can't be read: an error before the closure runs;
/// - there are no locks for the file that is there (some network filesystems): of kind
///   [`Unsupported`](io::ErrorKind::Unsupported), before the closure runs;
/// - somebody else has replaced or removed the file meanwhile: of kind
///   [`ResourceBusy`](io::ErrorKind::ResourceBusy); or created it: of kind
///   [`AlreadyExists`](io::ErrorKind::AlreadyExists);
/// - the same path inside the closure, on the same thread, here or in [`write_if_missing`]: of kind
///   [`Deadlock`](io::ErrorKind::Deadlock), at once. On another thread the call waits, for ever if
///   the closure waits for that thread.
#[cfg(feature = "anyhow")]
pub fn update_atomically<T>(
    path: impl AsRef<Path>,
    update: impl FnOnce(Option<&mut Reader>, &mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().update(path, update)
}

/// Publishes the file that `write` leaves at the path it is given: for producers that insist on a
/// path, like image encoders, SQLite and most C tools.
///
/// The staging path is absolute, ends in the destination's own name, extension included, and lies in
/// a directory next to the destination that only the caller's user can enter (mode `1700`; on Windows
/// it is hidden, and who can enter it is inherited from the directory around it). There is
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
/// descriptors, holds from Linux 4.17 on (commit b4678df184b3), unless the producer's own `fsync` was
/// told and it returned `Ok` all the same. A power cut may leave the empty staging directory; the next write to
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
/// lies in a directory next to the destination that only the caller's user can enter (as with
/// [`write_path_atomically`]).
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
/// directories ([`Unsupported`](io::ErrorKind::Unsupported); ext4, XFS, Btrfs, F2FS and tmpfs can, and
/// an overlay can unless the directory comes from a lower layer, such as a container's image; macOS can;
/// Windows and the BSDs can't).
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
/// Where batches can't be staged (WASI) the closure does not run, and the error is of kind
/// [`Unsupported`](io::ErrorKind::Unsupported).
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
