//! What every Unix has: `openat` and its relatives, `flock`, `fsync`.

#[cfg(target_vendor = "apple")]
mod apple;
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
mod attributes;
#[cfg(any(target_os = "freebsd", target_os = "netbsd"))]
mod bsd;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, Access, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Code, Kind, Lock, Os, Platform, Stat, rename_unless_taken};

/// Any other Unix.
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "netbsd",
    target_vendor = "apple"
)))]
impl Platform for Os {}

#[derive(Debug)]
pub(crate) struct Directory {
    file: File,
    /// `false` for a directory that may be searched but not read: it is opened as a mere reference,
    /// which fsync(2) refuses.
    can_sync: bool,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// `O_PATH`, where it exists: opens a directory without the right to read it.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const REFERENCE: OFlags = OFlags::PATH;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const REFERENCE: OFlags = OFlags::RDONLY;

/// How to open whatever may be at a name: links are not followed, a FIFO is not waited for, and a
/// terminal does not become the controlling one.
const CAREFULLY: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

impl Directory {
    pub(super) fn open(base: Option<&Directory>, path: &Path) -> io::Result<Directory> {
        let base = base.map_or(fs::CWD, AsFd::as_fd);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat(base, path, flags | OFlags::RDONLY, Mode::empty()) {
            Ok(fd) => Ok(Directory { file: File::from(fd), can_sync: true }),
            Err(Errno::ACCESS) => {
                let fd = openat(base, path, flags | REFERENCE, Mode::empty())?;
                Ok(Directory { file: File::from(fd), can_sync: false })
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn open_child(&self, name: &Path) -> io::Result<Directory> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let file = File::from(openat(self, name, flags, Mode::empty())?);
        Ok(Directory { file, can_sync: true })
    }

    pub(super) fn stat(&self) -> io::Result<Stat> {
        stat_file(&self.file)
    }

    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        if self.can_sync {
            match self.file.sync_all() {
                // fsync(2): EINVAL where directories cannot be synced; FUSE servers say EOPNOTSUPP.
                Err(error) if Os::is_unsupported(&error) => {}
                done => return done,
            }
        }
        Os::sync_filesystem(file)
    }
}

pub(crate) struct Entries(fs::Dir);

impl Entries {
    pub(super) fn of(directory: &Directory) -> io::Result<Entries> {
        Ok(Entries(retry(|| fs::Dir::read_from(directory))?))
    }
}

impl Iterator for Entries {
    type Item = io::Result<(PathBuf, Option<Kind>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.0.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            let kind = match entry.file_type() {
                // readdir(3): not every filesystem tells the type.
                FileType::Unknown => None,
                file_type => Some(kind(file_type)),
            };
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => return Some(Ok((name_from_bytes(name.to_vec()), kind))),
            }
        }
    }
}

pub(super) fn name_from_bytes(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

pub(super) fn directory_path(_directory: &Directory) -> io::Result<PathBuf> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn make_directory(directory: &Directory, name: &Path, mode: u32) -> io::Result<()> {
    Ok(fs::mkdirat(directory, name, mode_bits(mode))?)
}

pub(super) fn remove_directory(directory: &Directory, name: &Path) -> io::Result<()> {
    Ok(fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

/// The mode of a staging directory. The sticky bit tells it from a directory of the user's.
const PRIVATE: Mode = Mode::RWXU.union(Mode::SVTX);

pub(super) fn force_mode(directory: &Directory, name: &Path) -> io::Result<()> {
    match directory.open_child(name) {
        Ok(opened) => Ok(fs::fchmod(&opened, PRIVATE)?),
        Err(_) => Ok(fs::chmodat(directory, name, PRIVATE, AtFlags::SYMLINK_NOFOLLOW)?),
    }
}

pub(super) fn stat(directory: &Directory, name: &Path) -> io::Result<Option<Stat>> {
    match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(from_stat(&stat))),
        Err(Errno::NOENT | Errno::STALE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn look(path: &Path) -> io::Result<Option<Stat>> {
    match fs::lstat(path) {
        Ok(stat) => Ok(Some(from_stat(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn stat_file(file: &File) -> io::Result<Stat> {
    Ok(from_stat(&fs::fstat(file)?))
}

// The fields' types differ from one Unix to the next.
#[allow(clippy::unnecessary_cast)]
fn from_stat(stat: &fs::Stat) -> Stat {
    Stat {
        kind: kind(FileType::from_raw_mode(stat.st_mode as _)),
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

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Other,
    }
}

/// chflags(2): immutable or append-only, set by the owner or by the superuser.
#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "netbsd",
    target_os = "openbsd",
))]
#[allow(clippy::unnecessary_cast)]
fn is_immutable(stat: &fs::Stat) -> bool {
    // <sys/stat.h>: UF_IMMUTABLE and SF_IMMUTABLE, UF_APPEND and SF_APPEND.
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

pub(super) fn read_link(directory: &Directory, name: &Path) -> io::Result<PathBuf> {
    let target = fs::readlinkat(directory, name, Vec::new())?;
    Ok(name_from_bytes(target.into_bytes()))
}

pub(super) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

pub(super) fn check_writable(directory: &Directory, name: &Path) -> io::Result<()> {
    match fs::accessat(directory, name, Access::WRITE_OK, AtFlags::EACCESS) {
        // access(2): a program that is being executed. It can't be written, but it can be replaced.
        Ok(()) | Err(Errno::TXTBSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn open_to_lock(directory: &Directory, name: &Path) -> io::Result<File> {
    match openat(directory, name, CAREFULLY | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            Ok(File::from(openat(directory, name, CAREFULLY | OFlags::WRONLY, Mode::empty())?))
        }
        opened => Ok(File::from(opened?)),
    }
}

/// For writing, too, if that is allowed: some filesystems lock only such files.
pub(super) fn open_to_update(directory: &Directory, name: &Path) -> io::Result<File> {
    match openat(directory, name, CAREFULLY | OFlags::RDWR, Mode::empty()) {
        // open(2): ETXTBSY for a program that is being executed.
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => {
            Os::open_to_compare(directory, name)
        }
        opened => Ok(File::from(opened?)),
    }
}

pub(super) fn open_to_compare(directory: &Directory, name: &Path) -> io::Result<File> {
    Ok(File::from(openat(directory, name, CAREFULLY | OFlags::RDONLY, Mode::empty())?))
}

pub(super) fn open_to_hold(directory: &Directory, name: &Path) -> io::Result<File> {
    Ok(File::from(openat(directory, name, CAREFULLY | OFlags::RDONLY, Mode::empty())?))
}

/// execve(2), ETXTBSY: a file that is open for writing can't be executed. If it can't be opened again, it
/// stays as it is.
pub(super) fn stop_writing(
    file: &mut Arc<File>,
    directory: &Directory,
    name: &Path,
) -> io::Result<()> {
    if !fs::fcntl_getfl(&**file)?.intersects(OFlags::WRONLY | OFlags::RDWR) {
        return Ok(());
    }
    if let Ok(reopened) = open_to_hold(directory, name) {
        *file = Arc::new(reopened);
    }
    Ok(())
}

pub(super) fn open_to_overwrite(directory: &Directory, name: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(openat(directory, name, flags, Mode::empty())?))
}

/// For `/dev/stdout` and `/dev/stderr`, duplicates the descriptor that this process already has, with
/// its position: a second opening would have its own position, and each would overwrite what the other
/// wrote. A socket cannot be opened at all.
pub(super) fn open_to_append(directory: &Directory, name: &Path) -> io::Result<File> {
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

pub(super) fn stage_named(directory: &Directory, name: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(directory, name, flags, mode_bits(mode))?))
}

/// flock(2): the lock belongs to the open file description and goes with its last descriptor,
/// however the process ends.
pub(super) fn try_lock(file: impl AsFd) -> Lock {
    match retry(|| fs::flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Lock::Held,
        Err(Errno::WOULDBLOCK) => Lock::Busy,
        Err(_) => Lock::Unsupported,
    }
}

pub(super) fn try_share(file: &File) -> Lock {
    match retry(|| fs::flock(file, FlockOperation::NonBlockingLockShared)) {
        Ok(()) => Lock::Held,
        Err(Errno::WOULDBLOCK) => Lock::Busy,
        Err(_) => Lock::Unsupported,
    }
}

/// NFS makes a byte-range lock of it, for which the file must be open for writing (flock(2)).
pub(super) fn lock(file: &File) -> Lock {
    match retry(|| fs::flock(file, FlockOperation::LockExclusive)) {
        Ok(()) => Lock::Held,
        Err(_) => Lock::Unsupported,
    }
}

pub(super) fn unlock(file: &File) {
    let _ = retry(|| fs::flock(file, FlockOperation::Unlock));
}

pub(super) fn set_mode(file: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(fs::fchmod(file, mode_bits(mode))?)
}

pub(super) fn set_owner(file: &File, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let (uid, gid) = (uid.map(fs::Uid::from_raw), gid.map(fs::Gid::from_raw));
    Ok(fs::fchown(file, uid, gid)?)
}

pub(super) fn rename_to(
    old: &Directory,
    from: &Path,
    new: &Directory,
    to: &Path,
) -> io::Result<()> {
    Ok(fs::renameat(old, from, new, to).map_err(or_gone)?)
}

pub(super) fn rename_new(
    old: &Directory,
    from: &Path,
    new: &Directory,
    to: &Path,
) -> io::Result<()> {
    match fs::linkat(old, from, new, to, AtFlags::empty()) {
        Ok(()) => {
            // The file is published. If the old name cannot be removed now, the next writer removes it.
            let _ = Os::remove(old, from);
            Ok(())
        }
        Err(Errno::EXIST) => Err(Errno::EXIST.into()),
        // There are no hard links (FAT, exFAT, some FUSE filesystems): two calls, and a gap between them.
        Err(_) => rename_unless_taken(old, from, new, to),
    }
}

pub(super) fn remove(directory: &Directory, name: &Path) -> io::Result<()> {
    Ok(fs::unlinkat(directory, name, AtFlags::empty())?)
}

pub(super) fn error(code: Code) -> io::Error {
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

pub(super) fn is_unsupported(error: &io::Error) -> bool {
    // Only Apple's systems distinguish the last two.
    let unsupported = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOTSUP];
    error.kind() == io::ErrorKind::Unsupported
        || Errno::from_io_error(error).is_some_and(|errno| unsupported.contains(&errno))
}

fn mode_bits(mode: u32) -> Mode {
    // The type is 16 bits wide on some systems.
    #[allow(clippy::useless_conversion)]
    Mode::from_bits_truncate(mode as _)
}

/// open(2): opening may be interrupted on filesystems that wait for a server, and at a FIFO.
fn openat(
    directory: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    retry(|| fs::openat(&directory, path.as_ref(), flags, mode)).map_err(or_gone)
}

/// ESTALE: what a name led to at the start of a call is gone on the server (NFS, GlusterFS, mergerfs).
fn or_gone(error: Errno) -> Errno {
    match error {
        Errno::STALE => Errno::NOENT,
        error => error,
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}
