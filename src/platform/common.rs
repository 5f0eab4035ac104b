//! What a system does that has nothing of its own for it: mostly nothing.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Code, Directory};

/// Whether the links in this directory lead to open files instead of paths, as `/proc/self/fd`'s do.
pub(crate) fn has_magic_links(_directory: &Directory) -> io::Result<bool> {
    Ok(false)
}

/// A file without a name in this directory's filesystem; `None` where there is no such thing.
pub(crate) fn stage_unnamed(_directory: &Directory, _mode: u32) -> io::Result<Option<File>> {
    Ok(None)
}

/// Creates a staging file in a private staging directory.
pub(crate) fn stage_inside(directory: &Directory, name: &Path, mode: u32) -> io::Result<File> {
    super::stage_named(directory, name, mode)
}

/// Opens what others have produced, to give it its metadata and to sync it; never waits, never
/// follows a link.
pub(crate) fn open_to_finish(directory: &Directory, name: &Path) -> io::Result<File> {
    super::open_to_lock(directory, name)
}

/// Gives an unnamed file a name; `AlreadyExists` if the name is taken.
pub(crate) fn link(_file: &File, _directory: &Directory, _name: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether an unnamed file that could not be linked for this reason can still be published: its
/// content is then staged again, by name.
pub(crate) fn needs_a_name(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

/// The last moment before a named staging file is published.
pub(crate) fn stop_writing(
    _file: &mut Arc<File>,
    _directory: &Directory,
    _name: &Path,
) -> io::Result<()> {
    Ok(())
}

/// Gives the staging file the flags of what is at a name. Unix: nothing safe sets them by descriptor
/// (fchflags(2)), and by path (`nix::unistd::chflags`) it would follow whatever is put there; those that
/// would forbid replacing the file are no question.
pub(crate) fn carry_flags_over(
    _directory: &Directory,
    _name: &Path,
    _file: &File,
) -> io::Result<()> {
    Ok(())
}

/// Takes off what kept the staging file out of sight. Unix: the name, which goes by itself.
pub(crate) fn reveal(_directory: &Directory, _file: &File) -> io::Result<()> {
    Ok(())
}

/// The names of the extended attributes of what is there.
pub(crate) fn attributes(_directory: &Directory, _name: &Path) -> io::Result<Vec<Vec<u8>>> {
    Ok(Vec::new())
}

/// `None` if it is not there any more, or the caller may not read it.
pub(crate) fn attribute(
    _directory: &Directory,
    _name: &Path,
    _attribute: &[u8],
) -> io::Result<Option<Vec<u8>>> {
    Ok(None)
}

pub(crate) fn set_attribute(_file: &File, _attribute: &[u8], _value: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether it had it.
pub(crate) fn remove_attribute(_file: &File, _attribute: &[u8]) -> io::Result<bool> {
    Ok(false)
}

/// Lets the kernel start writing a finished part of the file.
pub(crate) fn start_writeback(_file: &File, _offset: u64, _length: u64) {}

/// Whether syncing an unnamed file does not make it durable.
pub(crate) fn syncs_only_what_has_a_name(_file: &File) -> bool {
    false
}

/// Whether closing a file may fail to write it. Not known here.
pub(crate) fn writes_on_close(_file: &File, _naming: super::Naming) -> bool {
    false
}

/// Brings content and size of a file to stable storage.
pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// Brings a file that was written into to stable storage, unless it is of a kind that has none.
pub(crate) fn sync_overwritten(file: &File) -> io::Result<()> {
    match file.sync_all() {
        // fsync(2): this kind of file can't be synced.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        done => done,
    }
}

pub(crate) fn in_use(_error: &io::Error) -> super::InUse {
    super::InUse::No
}

/// The same file once more, open for reading only.
pub(crate) fn reopen(_file: &File) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn is_local(_directory: &Directory, _device: u64) -> bool {
    true
}

pub(crate) fn boot_id() -> u64 {
    0
}

/// Asked for only where [`is_local`] is not always true.
pub(crate) fn try_share(_file: &File) -> super::Lock {
    super::Lock::Unsupported
}

/// The numbers that mounts without a device may have here.
pub(crate) fn anonymous_devices() -> impl Iterator<Item = u64> {
    std::iter::empty()
}

/// Whether what is locked is the destination itself, where there is one.
pub(crate) const LOCKS_DESTINATIONS: bool = true;

/// Removes a directory that the caller has the lock of; gives it back if it is not empty.
pub(crate) fn remove_held_directory(
    parent: &Directory,
    name: &Path,
    directory: Arc<Directory>,
) -> io::Result<Option<Arc<Directory>>> {
    match super::remove_directory(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(Some(directory)),
        done => done.map(|()| None),
    }
}

/// Whether a process can have only so many open (getrlimit(2), `RLIMIT_NOFILE`).
pub(crate) const DESCRIPTORS_ARE_FEW: bool = true;

/// The form of an absolute path that all programs understand.
pub(crate) fn plain_path(path: PathBuf) -> PathBuf {
    path
}

/// Swaps what two names lead to, in one step.
pub(crate) fn exchange(
    _directory: &Directory,
    _name: &Path,
    _other: &Directory,
    _other_name: &Path,
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether [`sync_filesystem`] reports that something written since the file was opened is lost.
pub(crate) fn filesystem_sync_reports_losses(_file: &File) -> io::Result<bool> {
    Ok(false)
}

/// Whether a directory here may be one that can't be renamed, whoever asks.
pub(crate) fn has_immovable_directories(_directory: &Directory) -> io::Result<bool> {
    Ok(false)
}

/// Renames a directory across two directories unless the new name is taken, in which case it is
/// `AlreadyExists`.
pub(crate) fn rename_new_directory(
    directory: &Directory,
    from: &Path,
    other: &Directory,
    to: &Path,
) -> io::Result<()> {
    // rename(2) itself refuses everything but an empty directory.
    match super::stat(other, to)? {
        Some(_) => Err(super::error(Code::AlreadyExists)),
        None => super::rename_to(directory, from, other, to),
    }
}
