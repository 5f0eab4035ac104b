//! What every Unix has: named staging, `renameat`, `linkat`, `fsync`.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{self, Access, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

pub(crate) use super::common::*;
use super::{Code, Kind, Lock, Stat};

/// A directory that stays the same one whatever happens to its path.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    /// A directory that may be searched but not read is opened as a mere reference, which `fsync`
    /// refuses.
    can_sync: bool,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    pub(super) fn can_sync(&self) -> bool {
        self.can_sync
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const REFERENCE: OFlags = OFlags::PATH;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const REFERENCE: OFlags = OFlags::RDONLY;

pub(crate) fn open_directory(base: Option<&Directory>, path: &Path) -> io::Result<Directory> {
    let base = base.map_or(fs::CWD, AsFd::as_fd);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(base, path, flags | OFlags::RDONLY, Mode::empty()) {
        Ok(fd) => Ok(Directory { fd, can_sync: true }),
        Err(Errno::ACCESS) => {
            let fd = openat(base, path, flags | REFERENCE, Mode::empty())?;
            Ok(Directory { fd, can_sync: false })
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a path can only mean a directory: it ends in `/`, `.` or `..`.
pub(crate) fn means_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    let last = bytes.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    matches!(last, b"" | b"." | b"..") && !bytes.is_empty()
}

/// Whether no file can have this path.
pub(crate) fn is_invalid(path: &Path) -> bool {
    path.as_os_str().as_bytes().contains(&0)
}

/// The bytes that a staging name is made of.
pub(crate) fn name_bytes(name: &OsStr) -> &[u8] {
    name.as_bytes()
}

pub(crate) fn name_from_bytes(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

pub(crate) fn stat(directory: &Directory, name: &Path) -> io::Result<Option<Stat>> {
    match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(from_stat(&stat))),
        Err(Errno::NOENT | Errno::STALE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn stat_file(file: &File) -> io::Result<Stat> {
    Ok(from_stat(&fs::fstat(file)?))
}

pub(crate) fn stat_directory(directory: &Directory) -> io::Result<Stat> {
    Ok(from_stat(&fs::fstat(directory)?))
}

pub(super) fn kind(mode: u32) -> Kind {
    match FileType::from_raw_mode(mode as _) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Other,
    }
}

// The fields' types differ from one Unix to the next.
#[allow(clippy::unnecessary_cast)]
fn from_stat(stat: &fs::Stat) -> Stat {
    Stat {
        kind: kind(stat.st_mode as u32),
        mode: stat.st_mode as u32 & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        dev: stat.st_dev as u64,
        ino: stat.st_ino as u64,
        len: stat.st_size as u64,
        links: stat.st_nlink as u64,
        mount_root: false,
        immutable: is_immutable(stat),
    }
}

/// chflags(2): immutable or append-only, by the owner or by the system.
#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "netbsd",
    target_os = "openbsd",
))]
#[allow(clippy::unnecessary_cast)]
fn is_immutable(stat: &fs::Stat) -> bool {
    const IMMUTABLE: u32 = 0x2 | 0x2_0000;
    const APPEND: u32 = 0x4 | 0x4_0000;
    stat.st_flags as u32 & (IMMUTABLE | APPEND) != 0
}

#[cfg(not(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "netbsd",
    target_os = "openbsd",
)))]
fn is_immutable(_stat: &fs::Stat) -> bool {
    false
}

pub(crate) fn read_link(directory: &Directory, name: &Path) -> io::Result<PathBuf> {
    let target = fs::readlinkat(directory, name, Vec::new())?;
    Ok(name_from_bytes(target.into_bytes()))
}

/// The user as whom files are created.
pub(crate) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether the caller may write what is there.
pub(crate) fn check_writable(directory: &Directory, name: &Path) -> io::Result<()> {
    match fs::accessat(directory, name, Access::WRITE_OK, AtFlags::EACCESS) {
        // access(2): a program that is being executed. It can't be written, but it can be replaced.
        Ok(()) | Err(Errno::TXTBSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn stage_named(directory: &Directory, name: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(directory, name, flags, mode_bits(mode))?))
}

/// A file to stage in that belongs to no directory, for destinations that have none.
pub(crate) fn stage_elsewhere() -> io::Result<File> {
    let directory = open_directory(None, Path::new("/tmp"))?;
    loop {
        let name = format!(".{:016x}.write-atomically", super::random());
        match stage_named(&directory, Path::new(&name), 0o600) {
            Ok(file) => return remove(&directory, Path::new(&name)).map(|()| file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Opens what is there, to look at it or to lock it; never waits, never follows a link.
pub(crate) fn open_to_lock(directory: &Directory, name: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat(directory, name, flags | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            Ok(File::from(openat(directory, name, flags | OFlags::WRONLY, Mode::empty())?))
        }
        opened => Ok(File::from(opened?)),
    }
}

/// Opens a directory once more.
pub(crate) fn open_itself(directory: &Directory) -> io::Result<File> {
    open_to_lock(directory, Path::new("."))
}

/// Opens a destination that is written into instead of being replaced; a FIFO waits for a reader.
pub(crate) fn open_to_overwrite(directory: &Directory, name: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(openat(directory, name, flags, Mode::empty())?))
}

/// Opens what a link of the `/proc/self/fd` kind leads to, to add to what the file may hold.
///
/// `/dev/stdout` and `/dev/stderr` are the ones this process already has, with their position: a
/// second opening would have one of its own, and both would write over each other. A socket can't
/// be opened at all.
pub(crate) fn open_to_append(directory: &Directory, name: &Path) -> io::Result<File> {
    let there = fs::statat(directory, name, AtFlags::empty())?;
    let (out, err) = (io::stdout(), io::stderr());
    let own = match name.as_os_str().as_bytes() {
        b"1" => Some(out.as_fd()),
        b"2" => Some(err.as_fd()),
        _ => None,
    };
    if let Some(own) = own {
        if from_stat(&fs::fstat(own)?).is_same_file(&from_stat(&there)) {
            return Ok(File::from(own.try_clone_to_owned()?));
        }
    }
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(openat(directory, name, flags, Mode::empty())?))
}

/// Renames across two directories of the same filesystem.
pub(crate) fn rename_to(
    directory: &Directory,
    from: &Path,
    other: &Directory,
    to: &Path,
) -> io::Result<()> {
    Ok(fs::renameat(directory, from, other, to).map_err(or_gone)?)
}

/// Renames unless the new name is taken, in which case it is `AlreadyExists`.
pub(crate) fn rename_new(
    directory: &Directory,
    from: &Path,
    other: &Directory,
    to: &Path,
) -> io::Result<()> {
    match fs::linkat(directory, from, other, to, AtFlags::empty()) {
        Ok(()) => {
            // It is published; if the old name does not go now, the next writer removes it.
            let _ = remove(directory, from);
            Ok(())
        }
        Err(Errno::EXIST) => Err(Errno::EXIST.into()),
        // No hard links here (FAT, exFAT, some FUSE filesystems): two calls, and a gap between them.
        Err(_) => match super::stat(other, to)? {
            Some(_) => Err(Errno::EXIST.into()),
            None => rename_to(directory, from, other, to),
        },
    }
}

/// Opens a file of the caller's own to hold its lock, without the right to write.
pub(crate) fn open_to_hold(directory: &Directory, name: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(openat(directory, name, flags | OFlags::RDONLY, Mode::empty())?))
}

pub(crate) fn remove(directory: &Directory, name: &Path) -> io::Result<()> {
    Ok(fs::unlinkat(directory, name, AtFlags::empty())?)
}

pub(crate) fn make_directory(directory: &Directory, name: &Path, mode: u32) -> io::Result<()> {
    Ok(fs::mkdirat(directory, name, mode_bits(mode))?)
}

pub(crate) fn remove_directory(directory: &Directory, name: &Path) -> io::Result<()> {
    Ok(fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

/// Asks for the lock of an open file, without waiting.
///
/// flock(2): the lock belongs to the open file description and goes with its last descriptor,
/// however the process ends.
pub(crate) fn try_lock(file: &File) -> Lock {
    match retry(|| fs::flock(file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Lock::Held,
        Err(Errno::WOULDBLOCK) => Lock::Busy,
        Err(_) => Lock::Unsupported,
    }
}

/// Asks for a shared lock, without waiting; or changes the exclusive one to that.
pub(crate) fn try_share(file: &File) -> Lock {
    match retry(|| fs::flock(file, FlockOperation::NonBlockingLockShared)) {
        Ok(()) => Lock::Held,
        Err(Errno::WOULDBLOCK) => Lock::Busy,
        Err(_) => Lock::Unsupported,
    }
}

pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    Ok(fs::fchmod(file, mode_bits(mode))?)
}

pub(crate) fn set_owner(file: &File, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let (uid, gid) = (uid.map(fs::Uid::from_raw), gid.map(fs::Gid::from_raw));
    Ok(fs::fchown(file, uid, gid)?)
}

/// Brings the names in a directory to stable storage; `file` is any open file on its filesystem.
pub(crate) fn sync_directory(directory: &Directory, file: &File) -> io::Result<()> {
    if directory.can_sync() {
        let directory = File::from(directory.fd.try_clone()?);
        match directory.sync_all() {
            // fsync(2): this kind of file can't be synced.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            done => return done,
        }
    }
    super::sync_filesystem(file)
}

/// Makes the names in a directory below this one durable.
pub(crate) fn sync_child_directory(
    directory: &Directory,
    name: &Path,
    file: &File,
) -> io::Result<()> {
    match open_directory(Some(directory), name) {
        Ok(child) => super::sync_directory(&child, file),
        Err(_) => super::sync_filesystem(file),
    }
}

/// Brings everything on the filesystem of an open file to stable storage.
pub(crate) fn sync_filesystem(file: &File) -> io::Result<()> {
    file.sync_all()
}

pub(super) fn mode_bits(mode: u32) -> Mode {
    // The type is 16 bits wide on some systems.
    #[allow(clippy::useless_conversion)]
    Mode::from_bits_truncate(mode as _)
}

/// open(2): opening may be interrupted on filesystems that wait for somebody, and at a FIFO.
pub(super) fn openat(
    directory: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    retry(|| fs::openat(&directory, path.as_ref(), flags, mode)).map_err(or_gone)
}

/// ESTALE: what a name led to at the start of a call is gone on the server (NFS, GlusterFS, mergerfs).
pub(super) fn or_gone(error: Errno) -> Errno {
    match error {
        Errno::STALE => Errno::NOENT,
        error => error,
    }
}

pub(super) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

pub(crate) fn error(code: Code) -> io::Error {
    io::Error::from(match code {
        Code::NotFound => Errno::NOENT,
        Code::NoAccess => Errno::ACCESS,
        Code::NotPermitted => Errno::PERM,
        Code::AlreadyExists => Errno::EXIST,
        Code::IsADirectory => Errno::ISDIR,
        Code::NotADirectory => Errno::NOTDIR,
        Code::Unsupported => Errno::OPNOTSUPP,
        Code::TooManyLinks => Errno::LOOP,
        Code::InvalidName => Errno::INVAL,
        Code::Busy => Errno::BUSY,
        Code::Deadlock => Errno::DEADLK,
    })
}

/// Waits for the lock of an open file.
///
/// NFS makes a byte-range lock of it, for which the file must be open for writing (flock(2)).
pub(crate) fn lock(file: &File) -> Lock {
    match retry(|| fs::flock(file, FlockOperation::LockExclusive)) {
        Ok(()) => Lock::Held,
        Err(_) => Lock::Unsupported,
    }
}

pub(crate) fn unlock(file: &File) {
    let _ = retry(|| fs::flock(file, FlockOperation::Unlock));
}

/// Opens what is there to lock it and to read it; never waits, never follows a link. For writing,
/// too, if that is allowed: some filesystems lock only such files.
pub(crate) fn open_to_update(directory: &Directory, name: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat(directory, name, flags | OFlags::RDWR, Mode::empty()) {
        Ok(fd) => Ok(File::from(fd)),
        // open(2): ETXTBSY for a program that is being executed.
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => {
            super::open_to_compare(directory, name)
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens what is there to read it; never waits, never follows a link.
pub(crate) fn open_to_compare(directory: &Directory, name: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(openat(directory, name, flags | OFlags::RDONLY, Mode::empty())?))
}

/// Whether there are directories that only the caller's user can enter, and that show whether their
/// maker is alive.
pub(crate) const HAS_PRIVATE_DIRECTORIES: bool = true;

/// Opens a directory inside another; a link there is an error, wherever it leads.
pub(crate) fn open_subdirectory(directory: &Directory, name: &Path) -> io::Result<Directory> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(Directory { fd: openat(directory, name, flags, Mode::empty())?, can_sync: true })
}

/// Opens a directory that the caller has just made, and takes its lock: `WouldBlock` if somebody else
/// has it.
pub(crate) fn hold_directory(parent: &Directory, name: &Path) -> io::Result<(Directory, Lock)> {
    let directory = open_subdirectory(parent, name)?;
    match try_lock_directory(&directory) {
        Lock::Busy => Err(io::ErrorKind::WouldBlock.into()),
        lock => Ok((directory, lock)),
    }
}

/// Opens a directory that may be dead, and takes its lock: `WouldBlock` if somebody else has it.
pub(crate) fn seize_directory(parent: &Directory, name: &Path) -> io::Result<(Directory, Lock)> {
    hold_directory(parent, name)
}

/// Asks for the lock of a directory, as [`try_lock`] does for that of a file.
pub(crate) fn try_lock_directory(directory: &Directory) -> Lock {
    match retry(|| fs::flock(directory, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Lock::Held,
        Err(Errno::WOULDBLOCK) => Lock::Busy,
        Err(_) => Lock::Unsupported,
    }
}

pub(crate) fn set_directory_mode(directory: &Directory, mode: u32) -> io::Result<()> {
    Ok(fs::fchmod(directory, mode_bits(mode))?)
}

/// An absolute path that leads to this directory, if the system knows one.
pub(crate) fn directory_path(_directory: &Directory) -> io::Result<PathBuf> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What a directory holds, `.` and `..` not counted: names, and kinds where the system says them
/// along with the names.
pub(crate) fn entries(
    directory: &Directory,
) -> io::Result<impl Iterator<Item = io::Result<(PathBuf, Option<Kind>)>> + use<>> {
    let list = retry(|| fs::Dir::read_from(directory))?;
    Ok(list.filter_map(|entry| {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error.into())),
        };
        let kind = match entry.file_type() {
            FileType::RegularFile => Some(Kind::File),
            FileType::Directory => Some(Kind::Directory),
            FileType::Symlink => Some(Kind::Symlink),
            FileType::Unknown => None,
            _ => Some(Kind::Other),
        };
        match entry.file_name().to_bytes() {
            b"." | b".." => None,
            name => Some(Ok((name_from_bytes(name.to_vec()), kind))),
        }
    }))
}

/// What [`take_over`] sets: with the sticky bit, by which a staging directory is known.
pub(super) const OWN: Mode = Mode::RWXU.union(Mode::SVTX);

/// Gives the caller, who owns it, full access to a directory and nobody else any.
pub(crate) fn take_over(directory: &Directory, name: &Path) -> io::Result<()> {
    match open_subdirectory(directory, name) {
        Ok(opened) => Ok(fs::fchmod(&opened, OWN)?),
        Err(_) => Ok(fs::chmodat(directory, name, OWN, AtFlags::SYMLINK_NOFOLLOW)?),
    }
}

/// Whether an error says that the filesystem has no way to do this, as opposed to this one time.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP];
    error.kind() == io::ErrorKind::Unsupported
        || Errno::from_io_error(error).is_some_and(|errno| unsupported.contains(&errno))
}
