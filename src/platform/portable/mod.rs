//! What `std` can do on every system: WASI, and others without a file of their own here. Windows has
//! its own below this one.
//!
//! With `std` alone, nothing is locked (the staging entry of a killed writer stays), and there is no
//! metadata to carry over.
//!
//! This is `std::fs` and not `fs-err`: the callers look at the system's error codes
//! ([`io::Error::raw_os_error`]), of which an error of `fs-err`'s has none, and so does the user, by
//! [`Error::io_error`](crate::Error::io_error). The path is in [`Error`](crate::Error) already.

#[cfg(not(windows))]
mod directory;
#[cfg(windows)]
mod windows;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(not(windows))]
pub(crate) use directory::Directory;
#[cfg(windows)]
pub(crate) use windows::Directory;

use super::{Code, Kind, Lock, Os, Platform, Stat, rename_unless_taken};

#[cfg(not(windows))]
impl Platform for Os {
    /// Nothing would tell whether the maker still runs, and the directory would stay if it was killed.
    const HAS_PRIVATE_DIRECTORIES: bool = false;

    /// Without private directories, nothing is staged in a tree.
    const RENAMES_OPEN_TREES: bool = false;
}

pub(crate) struct Entries(fs::ReadDir);

impl Entries {
    pub(super) fn of(directory: &Directory) -> io::Result<Entries> {
        Ok(Entries(fs::read_dir(directory.path())?))
    }
}

impl Iterator for Entries {
    type Item = io::Result<(PathBuf, Option<Kind>)>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(
            self.0
                .next()?
                .map(|entry| (PathBuf::from(entry.file_name()), entry.file_type().ok().map(kind))),
        )
    }
}

/// Bytes that are not Unicode are replaced.
pub(super) fn name_from_bytes(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn directory_path(directory: &Directory) -> io::Result<PathBuf> {
    Ok(directory.path().to_owned())
}

pub(super) fn make_directory(directory: &Directory, name: &Path, _mode: u32) -> io::Result<()> {
    fs::create_dir(directory.join(name))
}

pub(super) fn remove_directory(directory: &Directory, name: &Path) -> io::Result<()> {
    fs::remove_dir(directory.join(name))
}

/// No mode could keep the caller out.
pub(super) fn force_mode(_directory: &Directory, _name: &Path) -> io::Result<()> {
    Ok(())
}

pub(super) fn stat(directory: &Directory, name: &Path) -> io::Result<Option<Stat>> {
    match fs::symlink_metadata(directory.join(name)) {
        Ok(metadata) => Ok(Some(from_metadata(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn look(path: &Path) -> io::Result<Option<Stat>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(from_metadata(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn stat_file(file: &File) -> io::Result<Stat> {
    Ok(from_metadata(&file.metadata()?))
}

/// `std` tells no permission bits, no owners, and no numbers that identify a file.
fn from_metadata(metadata: &fs::Metadata) -> Stat {
    let kind = kind(metadata.file_type());
    Stat { kind, len: metadata.len(), ..of_kind(kind) }
}

fn kind(file_type: fs::FileType) -> Kind {
    match () {
        () if file_type.is_symlink() => Kind::Symlink,
        () if file_type.is_dir() => Kind::Directory,
        () if file_type.is_file() => Kind::File,
        () => Kind::Other,
    }
}

fn of_kind(kind: Kind) -> Stat {
    let (mode, uid, gid, dev, ino, len, links) = (0, user(), 0, 0, 0, 0, 1);
    Stat { kind, mode, uid, gid, dev, ino, len, links, mount_root: false, immutable: false }
}

pub(super) fn read_link(directory: &Directory, name: &Path) -> io::Result<PathBuf> {
    fs::read_link(directory.join(name))
}

/// All files belong to the same user.
pub(super) fn user() -> u32 {
    0
}

pub(super) fn check_writable(directory: &Directory, name: &Path) -> io::Result<()> {
    let path = directory.join(name);
    match fs::symlink_metadata(&path)?.is_dir() {
        // For a directory, only writing would tell.
        true => Ok(()),
        false => OpenOptions::new().write(true).open(path).map(drop),
    }
}

pub(super) use {open_to_compare as open_to_lock, open_to_compare as open_to_update};

pub(super) fn open_to_compare(directory: &Directory, name: &Path) -> io::Result<File> {
    File::open(directory.join(name))
}

pub(super) fn open_to_hold(directory: &Directory, name: &Path) -> io::Result<File> {
    File::open(directory.join(name))
}

pub(super) fn stop_writing(
    _file: &mut Arc<File>,
    _directory: &Directory,
    _name: &Path,
) -> io::Result<()> {
    Ok(())
}

pub(super) fn open_to_overwrite(directory: &Directory, name: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(directory.join(name))
}

pub(super) fn open_to_append(directory: &Directory, name: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).open(directory.join(name))
}

pub(super) fn stage_named(directory: &Directory, name: &Path, _mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(directory.join(name))
}

/// `std` can lock files only since Rust 1.89, and not on WASI.
pub(super) fn try_lock<T>(_of: &T) -> Lock {
    Lock::Unsupported
}

pub(super) use {try_lock as lock, try_lock as try_share};

pub(super) fn unlock(_file: &File) {}

pub(super) fn set_mode<T>(_of: &T, _mode: u32) -> io::Result<()> {
    Ok(())
}

pub(super) fn set_owner(_file: &File, _uid: Option<u32>, _gid: Option<u32>) -> io::Result<()> {
    Ok(())
}

pub(super) fn rename_to(
    old: &Directory,
    from: &Path,
    new: &Directory,
    to: &Path,
) -> io::Result<()> {
    fs::rename(old.join(from), new.join(to))
}

pub(super) fn rename_new(
    old: &Directory,
    from: &Path,
    new: &Directory,
    to: &Path,
) -> io::Result<()> {
    match fs::hard_link(old.join(from), new.join(to)) {
        // The file is published. If the old name cannot be removed now, the next writer removes it.
        Ok(()) => {
            let _ = Os::remove(old, from);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Several WASI runtimes have no hard links: two calls, and another file may come in between.
        Err(_) => rename_unless_taken(old, from, new, to),
    }
}

pub(super) fn remove(directory: &Directory, name: &Path) -> io::Result<()> {
    fs::remove_file(directory.join(name))
}

pub(super) fn error(code: Code) -> io::Error {
    io::Error::from(match code {
        Code::NotFound => io::ErrorKind::NotFound,
        Code::NoAccess | Code::NotPermitted => io::ErrorKind::PermissionDenied,
        Code::AlreadyExists => io::ErrorKind::AlreadyExists,
        Code::IsADirectory => io::ErrorKind::IsADirectory,
        Code::TooManyLinks | Code::InvalidName => io::ErrorKind::InvalidInput,
        Code::Busy => io::ErrorKind::ResourceBusy,
        Code::NotADirectory => io::ErrorKind::NotADirectory,
        Code::Unsupported => io::ErrorKind::Unsupported,
        Code::Deadlock => io::ErrorKind::Deadlock,
    })
}

pub(super) fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}
