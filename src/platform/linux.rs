//! Linux: unnamed staging files, `statx`, extended attributes, early writeback, `syncfs`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    self, Advice, AtFlags, MemfdFlags, Mode, OFlags, RenameFlags, Statx, StatxAttributes,
    StatxFlags, XattrFlags,
};
use rustix::io::Errno;

pub(crate) use super::unix::{
    DESCRIPTORS_ARE_FEW, Directory, HAS_PRIVATE_DIRECTORIES, LOCKS_DESTINATIONS, carry_flags_over,
    check_writable, entries, error, hold_directory, in_use, is_invalid, is_unsupported, lock,
    make_directory, means_directory, name_bytes, name_from_bytes, open_directory, open_itself,
    open_subdirectory, open_to_append, open_to_finish, open_to_hold, open_to_lock,
    open_to_overwrite, open_to_update, plain_path, read_link, remove, remove_directory,
    remove_held_directory, rename_to, reveal, seize_directory, set_directory_mode, set_mode,
    set_owner, stage_inside, stage_named, stat_directory, stop_writing, sync_child_directory,
    sync_overwritten, try_lock, try_lock_directory, try_share, unlock, user,
};
use super::unix::{kind, mode_bits, openat, retry};
use super::{Naming, Stat, unix};

/// `statx` instead of `stat`, for the attributes that say up front what can't be renamed over:
/// `STATX_ATTR_MOUNT_ROOT` (Linux 5.8), immutable and append-only.
pub(crate) fn stat(directory: &Directory, name: &Path) -> io::Result<Option<Stat>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match fs::statx(directory, name, flags, ALL_BUT_TIMES) {
        Ok(statx) => Ok(Some(from_statx(&statx))),
        Err(Errno::NOENT | Errno::STALE) => Ok(None),
        // statx(2): Linux 4.11; sandboxes answer EPERM.
        Err(Errno::NOSYS | Errno::PERM) => unix::stat(directory, name),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn stat_file(file: &File) -> io::Result<Stat> {
    match fs::statx(file, "", AtFlags::EMPTY_PATH, ALL_BUT_TIMES) {
        Ok(statx) => Ok(from_statx(&statx)),
        Err(Errno::NOSYS | Errno::PERM) => unix::stat_file(file),
        Err(error) => Err(error.into()),
    }
}

/// Since Linux 6.13 (multigrain timestamps) a file whose times were asked for gets a finer one with its
/// next change, and then has more to sync (measured: `benches/README.md`).
const ALL_BUT_TIMES: StatxFlags = StatxFlags::TYPE
    .union(StatxFlags::MODE)
    .union(StatxFlags::UID)
    .union(StatxFlags::GID)
    .union(StatxFlags::INO)
    .union(StatxFlags::NLINK)
    .union(StatxFlags::SIZE);

fn from_statx(statx: &Statx) -> Stat {
    let mode = u32::from(statx.stx_mode);
    let attributes = statx.stx_attributes;
    Stat {
        kind: kind(mode),
        mode: mode & 0o7777,
        uid: statx.stx_uid,
        gid: statx.stx_gid,
        // The same number that stat(2) gives, so that both can be compared.
        dev: fs::makedev(statx.stx_dev_major, statx.stx_dev_minor),
        ino: statx.stx_ino,
        len: statx.stx_size,
        links: u64::from(statx.stx_nlink),
        mount_root: attributes.contains(StatxAttributes::MOUNT_ROOT),
        immutable: attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND),
    }
}

/// proc(5): the links in `/proc/self/fd` are followed without going through the path they show.
pub(crate) fn has_magic_links(directory: &Directory) -> io::Result<bool> {
    const PROC_SUPER_MAGIC: u64 = 0x9fa0;
    Ok(filesystem_magic(directory)? == PROC_SUPER_MAGIC)
}

/// A file without a name in this directory's filesystem; `None` where there is no such thing.
pub(crate) fn stage_unnamed(directory: &Directory, mode: u32) -> io::Result<Option<File>> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match openat(directory, ".", flags, mode_bits(mode)) {
        Ok(fd) => Ok(Some(File::from(fd))),
        // open(2), BUGS and ERRORS: EOPNOTSUPP where the filesystem can't do it; EISDIR, ENOENT or
        // EINVAL from kernels before 3.11 and from filesystems that pass the flag on.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT | Errno::NOSYS) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// `/var/tmp` first: hier(7) promises it more room than `/tmp`, which is often memory.
pub(crate) fn stage_elsewhere() -> io::Result<File> {
    for path in ["/var/tmp", "/tmp"] {
        let staged = open_directory(None, Path::new(path))
            .and_then(|directory| stage_unnamed(&directory, 0o600));
        if let Ok(Some(file)) = staged {
            return Ok(file);
        }
    }
    let flags = MemfdFlags::CLOEXEC;
    Ok(File::from(fs::memfd_create("write-atomically", flags)?))
}

pub(crate) fn link(file: &File, directory: &Directory, name: &Path) -> io::Result<()> {
    match fs::linkat(file, "", directory, name, AtFlags::EMPTY_PATH) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(Errno::EXIST.into()),
        // linkat(2): ENOENT to whoever lacks CAP_DAC_READ_SEARCH; since Linux 6.10 the one who
        // opened the file may, too. The way around is the one that open(2) shows for O_TMPFILE.
        Err(Errno::NOENT | Errno::INVAL | Errno::PERM | Errno::ACCESS) => {
            let path = descriptor_path(file);
            Ok(fs::linkat(fs::CWD, path, directory, name, AtFlags::SYMLINK_FOLLOW)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Without `/proc`, on a filesystem without hard links, or where protected_hardlinks (proc(5))
/// forbids linking what has just been given to its owner.
pub(crate) fn needs_a_name(error: &io::Error) -> bool {
    let unable = [
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::LOOP,
        Errno::PERM,
        Errno::ACCESS,
        Errno::OPNOTSUPP,
        Errno::INVAL,
        Errno::NOSYS,
        Errno::XDEV,
        Errno::MLINK,
    ];
    Errno::from_io_error(error).is_some_and(|errno| unable.contains(&errno))
}

/// rename(2): `RENAME_NOREPLACE` needs the filesystem's support, EINVAL without.
pub(crate) fn rename_new(
    directory: &Directory,
    from: &Path,
    other: &Directory,
    to: &Path,
) -> io::Result<()> {
    match fs::renameat_with(directory, from, other, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => unix::rename_new(directory, from, other, to),
        done => Ok(done?),
    }
}

/// proc(5): opening the link in `/proc/self/fd` opens the same file once more.
pub(crate) fn reopen(file: &File) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(openat(fs::CWD, descriptor_path(file), flags, Mode::empty())?))
}

/// Filesystems of this machine's own disks and memory, by statfs(2) (Linux, include/uapi/linux/magic.h
/// and fs/): their locks, inode numbers and owners are the kernel's own. A filesystem that has the number
/// of a device is on that device; others have the major number 0
/// (Documentation/admin-guide/devices.txt), Btrfs and tmpfs among them.
pub(crate) fn is_local(directory: &Directory, device: u64) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    const ZFS: u64 = 0x2fc1_2fc1;
    const BCACHEFS: u64 = 0xca45_1a4e;
    const UBIFS: u64 = 0x2405_1905;
    fs::major(device) != 0
        || filesystem_magic(directory).is_ok_and(|magic| {
            matches!(magic, TMPFS | RAMFS | BTRFS | OVERLAYFS | ZFS | BCACHEFS | UBIFS)
        })
}

/// random(4): a number that this start of the system has got.
pub(crate) fn boot_id() -> u64 {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    crate::hash::hash(&id)
}

/// Linux, fs/super.c, `get_anon_bdev`, and include/linux/kdev_t.h: minor numbers of 20 bits, the major
/// number 0.
pub(crate) fn anonymous_devices() -> impl Iterator<Item = u64> {
    (0..1 << 20).map(|minor| fs::makedev(0, minor))
}

/// Where the system shows what an open file or directory is, as a path.
fn descriptor_path(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// A path that leads to a name in a pinned directory. There are no `*at` calls for extended
/// attributes before Linux 6.13, and opening the file would need a descriptor and read access.
fn pinned_path(directory: &Directory, name: &Path) -> PathBuf {
    descriptor_path(&directory.as_fd()).join(name)
}

pub(crate) fn attributes(directory: &Directory, name: &Path) -> io::Result<Vec<Vec<u8>>> {
    let path = pinned_path(directory, name);
    let list = match read_growing(|buffer| fs::llistxattr(&path, buffer)) {
        // No `/proc` here, or nothing there any more.
        Err(Errno::NOENT | Errno::NOTDIR) => {
            let file = open_to_lock(directory, name)?;
            read_growing(|buffer| fs::flistxattr(&file, buffer))
        }
        list => list,
    };
    match list {
        Ok(list) => Ok(list.split(|&b| b == 0).filter(|n| !n.is_empty()).map(Vec::from).collect()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Vec::new()),
        // FUSE: a server that can't list them (rclone 1.60) has none to be kept.
        Err(Errno::IO) if filesystem_magic(directory)? == FUSE => Ok(Vec::new()),
        Err(error) => Err(unix::or_gone(error).into()),
    }
}

/// `None` if it is not there any more, or the caller may not read it.
pub(crate) fn attribute(
    directory: &Directory,
    name: &Path,
    attribute: &[u8],
) -> io::Result<Option<Vec<u8>>> {
    let path = pinned_path(directory, name);
    let value = match read_growing(|buffer| fs::lgetxattr(&path, attribute, buffer)) {
        Err(Errno::NOENT | Errno::NOTDIR) => {
            let file = open_to_lock(directory, name)?;
            read_growing(|buffer| fs::fgetxattr(&file, attribute, buffer))
        }
        value => value,
    };
    match value {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::ACCESS | Errno::PERM) => Ok(None),
        Err(error) => Err(unix::or_gone(error).into()),
    }
}

/// xattr(7): names and values take up to 64 KiB.
fn read_growing(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 512];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 17 => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn set_attribute(file: &File, attribute: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(fs::fsetxattr(file, attribute, value, XattrFlags::empty())?)
}

/// Looks first: most files have none, and removing what is not there starts a transaction all the same.
pub(crate) fn remove_attribute(file: &File, attribute: &[u8]) -> io::Result<bool> {
    if let Ok(list) = read_growing(|buffer| fs::flistxattr(file, buffer)) {
        if !list.split(|&byte| byte == 0).any(|name| name == attribute) {
            return Ok(false);
        }
    }
    match fs::fremovexattr(file, attribute) {
        Ok(()) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(Errno::IO) if filesystem_magic(file)? == FUSE => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// posix_fadvise(2) with `DONTNEED` starts writing the range and drops only pages that are clean:
/// these are not. It reports nothing, and takes no error away from the sync that follows.
pub(crate) fn start_writeback(file: &File, offset: u64, length: u64) {
    let _ = fs::fadvise(file, offset, std::num::NonZeroU64::new(length), Advice::DontNeed);
}

/// close(2): some filesystems write what is left to their server when a file is closed, and only that
/// call's result tells that it failed, which no safe function does.
///
/// Which they are costs more than all the rest where statfs(2) makes the filesystem take stock (XFS):
/// what is on a disk of its own is none of them. Only a FUSE filesystem may be on a disk all the same
/// (`fuseblk`), and files without a name are not known of those.
pub(crate) fn writes_on_close(file: &File, naming: Naming) -> bool {
    if naming == Naming::Unnamed && is_on_device(file) {
        return false;
    }
    // statfs(2); Linux, include/uapi/linux/magic.h and fs/ceph, fs/smb.
    const NFS: u64 = 0x6969;
    const CIFS: u64 = 0xff53_4d42;
    const SMB2: u64 = 0xfe53_4d42;
    const CEPH: u64 = 0x00c3_6400;
    const AFS: u64 = 0x6b41_4653;
    const V9FS: u64 = 0x0102_1997;
    let on_close = [FUSE, NFS, CIFS, SMB2, CEPH, AFS, V9FS];
    filesystem_magic(file).map_or(true, |magic| on_close.contains(&magic))
}

/// Whether a file's filesystem is on one block device, and calls itself after that. Others have the major
/// number 0 (Documentation/admin-guide/devices.txt), Btrfs among them.
fn is_on_device(file: &File) -> bool {
    stat_file(file).is_ok_and(|stat| fs::major(stat.dev) != 0)
}

// statfs(2); Linux, include/uapi/linux/magic.h.
const BTRFS: u64 = 0x9123_683e;
const OVERLAYFS: u64 = 0x794c_7630;
const FUSE: u64 = 0x6573_5546;

/// What kind of filesystem a file is on (statfs(2)). The type's width differs between architectures.
#[allow(clippy::unnecessary_cast)]
fn filesystem_magic(file: impl AsFd) -> io::Result<u64> {
    Ok(fs::fstatfs(file)?.f_type as u64 & 0xffff_ffff)
}

pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    Ok(retry(|| fs::fdatasync(file))?)
}

/// Before Linux 6.17 (commit 0a32e4f0025a) Btrfs writes nothing into its log for an unnamed file that is
/// synced, and when the directory is synced later, logs the name of a file that is empty: a power cut
/// then leaves that (`tests/proof/vm`). An overlay may lie on it.
pub(crate) fn syncs_only_what_has_a_name(file: &File) -> bool {
    if kernel_version() >= Some((6, 17)) || is_on_device(file) {
        return false;
    }
    filesystem_magic(file).map_or(true, |magic| matches!(magic, BTRFS | OVERLAYFS))
}

pub(crate) fn sync_directory(directory: &Directory, file: &File) -> io::Result<()> {
    if directory.can_sync() {
        match retry(|| fs::fsync(directory)) {
            // fsync(2): this kind of file can't be synced.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {}
            done => return Ok(done?),
        }
    }
    sync_filesystem(file)
}

/// For a directory that can't be opened, or can't be synced by itself.
pub(crate) fn sync_filesystem(file: &File) -> io::Result<()> {
    Ok(retry(|| fs::syncfs(file))?)
}

/// open(2), `O_NOATIME`: for the file's owner. Comparing changes nothing, then, not even that.
pub(crate) fn open_to_compare(directory: &Directory, name: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat(directory, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => unix::open_to_compare(directory, name),
        opened => Ok(File::from(opened?)),
    }
}

/// proc(5): what `/proc/self/fd` shows. The directory may since have been moved or removed, and other
/// names may hide it: the caller looks whether the path leads there.
pub(crate) fn directory_path(directory: &Directory) -> io::Result<PathBuf> {
    let path = fs::readlink(descriptor_path(&directory.as_fd()), Vec::new())?;
    Ok(name_from_bytes(path.into_bytes()))
}

/// A directory that can't be read can't be opened for fchmod(2), and fchmodat(2) can't be kept from
/// following links before Linux 6.6: a reference and its path in `/proc` do the same.
pub(crate) fn take_over(directory: &Directory, name: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(directory, name, flags, Mode::empty())?;
    Ok(fs::chmod(descriptor_path(&opened), unix::OWN)?)
}

/// rename(2): `RENAME_NOREPLACE` needs the filesystem's support, EINVAL without.
pub(crate) fn rename_new_directory(
    directory: &Directory,
    from: &Path,
    other: &Directory,
    to: &Path,
) -> io::Result<()> {
    match fs::renameat_with(directory, from, other, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => unix::rename_new_directory(directory, from, other, to),
        done => Ok(done?),
    }
}

pub(crate) fn exchange(
    directory: &Directory,
    name: &Path,
    other: &Directory,
    other_name: &Path,
) -> io::Result<()> {
    Ok(fs::renameat_with(directory, name, other, other_name, RenameFlags::EXCHANGE)?)
}

/// syncfs(2), VERSIONS: since Linux 5.8 (commit 735e4ae5ba28) it reports writeback errors of any
/// file on the filesystem, if they came after the descriptor had been opened or nobody has seen them
/// yet. That is the work of the system calls' generic part; listed are the filesystems that record
/// their errors where it looks. Others, among them overlays and all kinds of network, are not known to.
pub(crate) fn filesystem_sync_reports_losses(file: &File) -> io::Result<bool> {
    // statfs(2); Linux, include/uapi/linux/magic.h.
    const EXT4: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const F2FS: u64 = 0xf2f5_2010;
    const TMPFS: u64 = 0x0102_1994;
    let magic = filesystem_magic(file)?;
    let is_listed = matches!(magic, EXT4 | XFS | BTRFS | F2FS | TMPFS);
    Ok(is_listed && kernel_version() >= Some((5, 8)))
}

fn kernel_version() -> Option<(u32, u32)> {
    let uname = rustix::system::uname();
    let mut numbers = uname.release().to_str().ok()?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(crate) fn has_immovable_directories(directory: &Directory) -> io::Result<bool> {
    Ok(filesystem_magic(directory)? == OVERLAYFS)
}
