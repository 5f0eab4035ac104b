//! What `std` alone can do: WASI, and any other system without a file of its own here.
//!
//! Weaker than elsewhere: directories are pinned by their absolute path only, nothing is locked
//! (so a killed writer's staging entry stays), and there is no metadata to carry over.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{self, Path, PathBuf};

pub(crate) use super::common::*;
use super::{Code, Directory as SelectedDirectory, Kind, Lock, Stat};

/// A directory by its absolute path: changing the working directory does not move it.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// To be synced; not every system opens directories.
    file: Option<File>,
}

impl Directory {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: &Path) -> PathBuf {
        self.path.join(name)
    }
}

#[cfg(target_os = "wasi")]
impl std::os::fd::AsFd for crate::Writer {
    /// The staged file's descriptor. What is still buffered is not in the file yet: call
    /// [`flush`](io::Write::flush) first, or use [`file`](crate::Writer::file).
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.staged_file().as_fd()
    }
}

pub(crate) fn open_directory(base: Option<&Directory>, path: &Path) -> io::Result<Directory> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let path = match base {
        Some(base) => base.join(path),
        None => path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    };
    match fs::metadata(&path)?.is_dir() {
        true => Ok(Directory { file: File::open(&path).ok(), path }),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

/// Whether a path can only mean a directory: it ends in a separator, `.` or `..`.
pub(crate) fn means_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    let is_separator = |byte: &u8| path::is_separator(char::from(*byte));
    let last = bytes.rsplit(is_separator).next().unwrap_or_default();
    matches!(last, b"" | b"." | b"..") && !bytes.is_empty()
}

/// Whether no file can have this path.
pub(crate) fn is_invalid(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&0)
}

/// The bytes that a staging name is made of.
pub(crate) fn name_bytes(name: &OsStr) -> &[u8] {
    name.as_encoded_bytes()
}

/// Names that are no Unicode become similar ones that are: the result need not lead back.
pub(crate) fn name_from_bytes(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn stat(directory: &SelectedDirectory, name: &Path) -> io::Result<Option<Stat>> {
    match fs::symlink_metadata(directory.join(name)) {
        Ok(metadata) => Ok(Some(from_metadata(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn stat_file(file: &File) -> io::Result<Stat> {
    Ok(from_metadata(&file.metadata()?))
}

/// The absolute path stands for the identity that `std` does not tell.
pub(crate) fn stat_directory(directory: &SelectedDirectory) -> io::Result<Stat> {
    let metadata = fs::metadata(directory.path())?;
    let mut hasher = DefaultHasher::new();
    directory.path().hash(&mut hasher);
    Ok(Stat { ino: hasher.finish(), ..from_metadata(&metadata) })
}

/// There are no permission bits here, no owners, and no numbers that identify a file.
pub(super) fn from_metadata(metadata: &fs::Metadata) -> Stat {
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

pub(super) fn of_kind(kind: Kind) -> Stat {
    let (mode, uid, gid, dev, ino, len) = (0, user(), 0, 0, 0, 0);
    Stat { kind, mode, uid, gid, dev, ino, len, mount_root: false, immutable: false }
}

pub(crate) fn read_link(directory: &SelectedDirectory, name: &Path) -> io::Result<PathBuf> {
    fs::read_link(directory.join(name))
}

/// All files are the same user's.
pub(crate) fn user() -> u32 {
    0
}

/// Whether the caller may write what is there.
pub(crate) fn check_writable(directory: &SelectedDirectory, name: &Path) -> io::Result<()> {
    let path = directory.join(name);
    match fs::symlink_metadata(&path)?.is_dir() {
        // Nothing short of writing tells.
        true => Ok(()),
        false => OpenOptions::new().write(true).open(path).map(drop),
    }
}

pub(crate) fn stage_named(
    directory: &SelectedDirectory,
    name: &Path,
    _mode: u32,
) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(directory.join(name))
}

/// A file to stage in that belongs to no directory, for destinations that have none.
pub(crate) fn stage_elsewhere() -> io::Result<File> {
    // `std::env::temp_dir` panics on WASI.
    let directory = open_directory(None, Path::new("/tmp"))?;
    loop {
        let name = format!(".{:016x}.write-atomically", crate::staging::random());
        let path = directory.join(Path::new(&name));
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => return fs::remove_file(path).map(|()| file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Opens what is there, to look at it or to lock it.
pub(crate) fn open_to_lock(directory: &SelectedDirectory, name: &Path) -> io::Result<File> {
    File::open(directory.join(name))
}

/// Opens a directory once more.
pub(crate) fn open_itself(directory: &SelectedDirectory) -> io::Result<File> {
    File::open(directory.path())
}

/// Opens a destination that is written into instead of being replaced.
pub(crate) fn open_to_overwrite(directory: &SelectedDirectory, name: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(directory.join(name))
}

/// Opens a destination to add to what it may hold.
pub(crate) fn open_to_append(directory: &SelectedDirectory, name: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).open(directory.join(name))
}

/// Opens what is there to lock it and to read it.
pub(crate) fn open_to_update(directory: &SelectedDirectory, name: &Path) -> io::Result<File> {
    File::open(directory.join(name))
}

/// Opens what is there to read it.
pub(crate) fn open_to_compare(directory: &SelectedDirectory, name: &Path) -> io::Result<File> {
    File::open(directory.join(name))
}

/// Renames across two directories of the same filesystem.
pub(crate) fn rename_to(
    directory: &SelectedDirectory,
    from: &Path,
    other: &SelectedDirectory,
    to: &Path,
) -> io::Result<()> {
    fs::rename(directory.join(from), other.join(to))
}

/// Renames unless the new name is taken, in which case it is `AlreadyExists`.
pub(crate) fn rename_new(directory: &SelectedDirectory, from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(directory.join(from), directory.join(to)) {
        // It is published; if the old name does not go now, the next writer removes it.
        Ok(()) => {
            let _ = super::remove(directory, from);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // No hard links here, as under several WASI runtimes: two calls, and a gap between them.
        Err(_) => match super::stat(directory, to)? {
            Some(_) => Err(super::error(Code::AlreadyExists)),
            None => fs::rename(directory.join(from), directory.join(to)),
        },
    }
}

pub(crate) fn remove(directory: &SelectedDirectory, name: &Path) -> io::Result<()> {
    fs::remove_file(directory.join(name))
}

pub(crate) fn make_directory(
    directory: &SelectedDirectory,
    name: &Path,
    _mode: u32,
) -> io::Result<()> {
    fs::create_dir(directory.join(name))
}

pub(crate) fn remove_directory(directory: &SelectedDirectory, name: &Path) -> io::Result<()> {
    fs::remove_dir(directory.join(name))
}

/// `std` can lock files only since 1.89, and not on WASI.
pub(crate) fn try_lock(_file: &File) -> Lock {
    Lock::Unsupported
}

/// Waits for the lock of an open file.
pub(crate) fn lock(_file: &File) -> Lock {
    Lock::Unsupported
}

pub(crate) fn unlock(_file: &File) {}

pub(crate) fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

pub(crate) fn set_owner(_file: &File, _uid: Option<u32>, _gid: Option<u32>) -> io::Result<()> {
    Ok(())
}

/// As far as the system lets directories be opened and synced.
pub(crate) fn sync_directory(directory: &Directory, _file: &File) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    /// What wasmtime says to syncing a directory (wasi-libc's errno.h).
    const EBADF: i32 = 8;
    let Some(directory) = &directory.file else { return Ok(()) };
    match directory.sync_all() {
        Err(error) if error.raw_os_error() == Some(EBADF) => Ok(()),
        Err(e) if matches!(e.kind(), InvalidInput | PermissionDenied | Unsupported) => Ok(()),
        done => done,
    }
}

/// Makes the names in a directory below this one durable.
pub(crate) fn sync_child_directory(
    directory: &SelectedDirectory,
    name: &Path,
    file: &File,
) -> io::Result<()> {
    super::sync_directory(&super::open_directory(Some(directory), name)?, file)
}

pub(crate) fn error(code: Code) -> io::Error {
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

/// Whether there are directories that only the caller's user can enter, and that show whether their
/// maker is alive. Here nobody could tell, and they would stay when the maker is killed.
pub(crate) const HAS_PRIVATE_DIRECTORIES: bool = false;

/// Opens a directory inside another; a link there is an error, wherever it leads.
pub(crate) fn open_subdirectory(
    directory: &SelectedDirectory,
    name: &Path,
) -> io::Result<SelectedDirectory> {
    match fs::symlink_metadata(directory.join(name))?.is_dir() {
        true => super::open_directory(Some(directory), name),
        false => Err(super::error(Code::NotADirectory)),
    }
}

/// Opens a directory that the caller has just made, and takes its lock: `WouldBlock` if somebody else
/// has it.
pub(crate) fn hold_directory(
    parent: &SelectedDirectory,
    name: &Path,
) -> io::Result<(SelectedDirectory, Lock)> {
    Ok((super::open_subdirectory(parent, name)?, Lock::Unsupported))
}

/// Opens a directory that may be dead, and takes its lock: `WouldBlock` if somebody else has it.
pub(crate) fn seize_directory(
    parent: &SelectedDirectory,
    name: &Path,
) -> io::Result<(SelectedDirectory, Lock)> {
    Ok((super::open_subdirectory(parent, name)?, Lock::Unsupported))
}

pub(crate) fn try_lock_directory(_directory: &SelectedDirectory) -> Lock {
    Lock::Unsupported
}

pub(crate) fn set_directory_mode(_directory: &SelectedDirectory, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// An absolute path that leads to this directory.
pub(crate) fn directory_path(directory: &SelectedDirectory) -> io::Result<PathBuf> {
    Ok(directory.path().to_owned())
}

/// What a directory holds: names, and kinds where the system says them along with the names.
pub(crate) fn entries(
    directory: &SelectedDirectory,
) -> io::Result<impl Iterator<Item = io::Result<(PathBuf, Option<Kind>)>> + use<>> {
    let list = fs::read_dir(directory.path())?;
    Ok(list.map(|entry| {
        let entry = entry?;
        Ok((PathBuf::from(entry.file_name()), entry.file_type().ok().map(kind)))
    }))
}

/// Gives the caller full access to a directory: there is no mode that would stand in the way.
pub(crate) fn take_over(_directory: &SelectedDirectory, _name: &Path) -> io::Result<()> {
    Ok(())
}

/// How many names lead to a file; nobody knows.
pub(crate) fn count_links(_file: &File) -> io::Result<u64> {
    Ok(1)
}

/// Whether an error says that the filesystem has no way to do this, as opposed to this one time.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

/// Brings everything on the filesystem of an open file to stable storage, as far as there is a way.
pub(crate) fn sync_filesystem(file: &File) -> io::Result<()> {
    super::sync_file(file)
}
