//! Linux: unnamed staging files, `statx`, extended attributes, early writeback, `syncfs`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    self, Advice, AtFlags, FileType, MemfdFlags, Mode, OFlags, RenameFlags, SeekFrom, Statx,
    StatxAttributes, StatxFlags, XattrFlags,
};
use rustix::io::Errno;

use super::attributes::{names, read_growing};
use super::{CAREFULLY, kind, mode_bits, openat, or_gone, retry};
use crate::hash::hash;
use crate::platform::{Directory, Os, Platform, Stat, unix};

impl Platform for Os {
    /// `statx` instead of `stat`, for the attributes that say up front what can't be renamed over:
    /// `STATX_ATTR_MOUNT_ROOT` (Linux 5.8), immutable and append-only.
    fn stat(directory: &Directory, name: &Path) -> io::Result<Option<Stat>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match fs::statx(directory, name, flags, ALL_BUT_TIMES) {
            Ok(statx) => Ok(Some(from_statx(&statx))),
            Err(Errno::NOENT | Errno::STALE) => Ok(None),
            // statx(2): Linux 4.11; sandboxes answer EPERM.
            Err(Errno::NOSYS | Errno::PERM) => unix::stat(directory, name),
            Err(error) => Err(error.into()),
        }
    }

    fn look(path: &Path) -> io::Result<Option<Stat>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match fs::statx(fs::CWD, path, flags, ALL_BUT_TIMES) {
            Ok(statx) => Ok(Some(from_statx(&statx))),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOSYS | Errno::PERM) => unix::look(path),
            Err(error) => Err(error.into()),
        }
    }

    fn stat_file(file: &File) -> io::Result<Stat> {
        match fs::statx(file, "", AtFlags::EMPTY_PATH, ALL_BUT_TIMES) {
            Ok(statx) => Ok(from_statx(&statx)),
            Err(Errno::NOSYS | Errno::PERM) => unix::stat_file(file),
            Err(error) => Err(error.into()),
        }
    }

    fn stat_directory(directory: &Directory) -> io::Result<Stat> {
        match fs::statx(directory, "", AtFlags::EMPTY_PATH, ALL_BUT_TIMES) {
            Ok(statx) => Ok(from_statx(&statx)),
            Err(Errno::NOSYS | Errno::PERM) => directory.stat(),
            Err(error) => Err(error.into()),
        }
    }

    /// capabilities(7): CAP_FOWNER, which a container's root may lack. user_namespaces(7): it does not count
    /// for a file whose owner or group has no number in this namespace, and is shown as 65534
    /// (`/proc/sys/kernel/overflowuid`).
    fn acts_for_owner(of: &Stat) -> bool {
        const OVERFLOW: u32 = 65534;
        let is_mapped = Os::user() != 0 || (of.uid != OVERFLOW && of.gid != OVERFLOW);
        let capabilities = rustix::thread::capabilities(None);
        is_mapped
            && capabilities
                .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::FOWNER))
    }

    /// proc(5): the links in `/proc/self/fd` are followed without going through the path they show.
    fn has_magic_links(directory: &Directory) -> io::Result<bool> {
        const PROC_SUPER_MAGIC: u64 = 0x9fa0;
        Ok(filesystem_magic(directory)? == PROC_SUPER_MAGIC)
    }

    fn stage_unnamed(directory: &Directory, mode: u32) -> io::Result<Option<File>> {
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
    fn stage_elsewhere() -> io::Result<File> {
        for path in ["/var/tmp", "/tmp"] {
            let staged = Os::open_directory(None, Path::new(path))
                .and_then(|directory| Os::stage_unnamed(&directory, 0o600));
            if let Ok(Some(file)) = staged {
                return Ok(file);
            }
        }
        let flags = MemfdFlags::CLOEXEC;
        Ok(File::from(fs::memfd_create("write-atomically", flags)?))
    }

    fn link(file: &File, directory: &Directory, name: &Path) -> io::Result<()> {
        match fs::linkat(file, "", directory, name, AtFlags::EMPTY_PATH) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(Errno::EXIST.into()),
            // linkat(2): ENOENT to a caller without CAP_DAC_READ_SEARCH; since Linux 6.10 the process
            // that opened the file may, too. Otherwise as open(2) shows for O_TMPFILE.
            Err(Errno::NOENT | Errno::INVAL | Errno::PERM | Errno::ACCESS) => {
                let path = descriptor_path(file);
                Ok(fs::linkat(fs::CWD, path, directory, name, AtFlags::SYMLINK_FOLLOW)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// There is no `/proc`, the filesystem has no hard links, or protected_hardlinks (proc(5)) forbids
    /// linking a file that has just been given to another owner.
    fn needs_a_name(error: &io::Error) -> bool {
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

    /// proc(5): opening the link in `/proc/self/fd` opens the same file once more.
    fn reopen(file: &File) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(File::from(openat(fs::CWD, descriptor_path(file), flags, Mode::empty())?))
    }

    /// A filesystem that has the number of a block device is on that device; FUSE filesystems on one
    /// (`fuseblk`) are mounted by one machine at a time. The others are known by statfs(2).
    fn is_local(directory: &Directory, device: u64) -> bool {
        // Linux, include/uapi/linux/magic.h, fs/ramfs; OpenZFS; fs/bcachefs.
        const TMPFS: u64 = 0x0102_1994;
        const RAMFS: u64 = 0x8584_58f6;
        const ZFS: u64 = 0x2fc1_2fc1;
        const BCACHEFS: u64 = 0xca45_1a4e;
        const UBIFS: u64 = 0x2405_1905;
        is_on_device(device)
            || filesystem_magic(directory).is_ok_and(|magic| {
                matches!(magic, TMPFS | RAMFS | BTRFS | OVERLAYFS | ZFS | BCACHEFS | UBIFS)
            })
    }

    /// Linux, fs/super.c, `get_anon_bdev`, and include/linux/kdev_t.h: minor numbers of 20 bits, the
    /// major number 0.
    fn anonymous_devices() -> impl Iterator<Item = u64> {
        (0..1 << 20).map(|minor| fs::makedev(0, minor))
    }

    /// random(4): the kernel makes a new one at each start.
    fn boot_id() -> u64 {
        hash(&std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default())
    }

    fn attributes(directory: &Directory, name: &Path) -> io::Result<Vec<Vec<u8>>> {
        let path = pinned_path(directory, name);
        let list = match read_growing(LONGEST, |buffer| fs::llistxattr(&path, buffer)) {
            // There is no `/proc`, or nothing has this name any more.
            Err(Errno::NOENT | Errno::NOTDIR) => {
                let file = Os::open_to_lock(directory, name)?;
                read_growing(LONGEST, |buffer| fs::flistxattr(&file, buffer))
            }
            list => list,
        };
        match list {
            Ok(list) => Ok(names(&list).map(Vec::from).collect()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Vec::new()),
            // FUSE: a server that can't list them (rclone 1.60) has none to be kept.
            Err(Errno::IO) if filesystem_magic(directory)? == FUSE => Ok(Vec::new()),
            Err(error) => Err(or_gone(error).into()),
        }
    }

    fn attribute(directory: &Directory, name: &Path, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let path = pinned_path(directory, name);
        let value = match read_growing(LONGEST, |buffer| fs::lgetxattr(&path, key, buffer)) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                let file = Os::open_to_lock(directory, name)?;
                read_growing(LONGEST, |buffer| fs::fgetxattr(&file, key, buffer))
            }
            value => value,
        };
        match value {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::ACCESS | Errno::PERM) => Ok(None),
            Err(error) => Err(or_gone(error).into()),
        }
    }

    fn set_attribute(file: &File, key: &[u8], value: &[u8]) -> io::Result<()> {
        Ok(fs::fsetxattr(file, key, value, XattrFlags::empty())?)
    }

    /// Looks first: most files do not have it, and removing it starts a transaction all the same.
    fn remove_attribute(file: &File, key: &[u8]) -> io::Result<bool> {
        if let Ok(list) = read_growing(LONGEST, |buffer| fs::flistxattr(file, buffer)) {
            if !names(&list).any(|name| name == key) {
                return Ok(false);
            }
        }
        match fs::fremovexattr(file, key) {
            Ok(()) => Ok(true),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(Errno::IO) if filesystem_magic(file)? == FUSE => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// lseek(2), `SEEK_DATA` and `SEEK_HOLE`; it moves the position.
    fn next_data(file: &File, from: u64) -> io::Result<Option<Range<u64>>> {
        let start = match fs::seek(file, SeekFrom::Data(from)) {
            Err(Errno::NXIO) => return Ok(None),
            start => start?,
        };
        Ok(Some(start..fs::seek(file, SeekFrom::Hole(start))?))
    }

    /// posix_fadvise(2) with `DONTNEED` starts writing the range, and drops only clean pages: these are
    /// dirty. It reports no error, so that the sync that follows still reports it.
    fn start_writeback(file: &File, offset: u64, length: u64) {
        let _ = fs::fadvise(file, offset, std::num::NonZeroU64::new(length), Advice::DontNeed);
    }

    /// close(2): some filesystems write the rest of a file to their server when it is closed. Only the
    /// result of close(2) tells that this failed, and no safe function returns it.
    fn writes_on_close(file: &File) -> bool {
        // Linux, include/uapi/linux/magic.h, fs/ceph and fs/smb: network filesystems, and FUSE.
        const NFS: u64 = 0x6969;
        const CIFS: u64 = 0xff53_4d42;
        const SMB2: u64 = 0xfe53_4d42;
        const CEPH: u64 = 0x00c3_6400;
        const AFS: u64 = 0x6b41_4653;
        const V9FS: u64 = 0x0102_1997;
        let on_close = [FUSE, NFS, CIFS, SMB2, CEPH, AFS, V9FS];
        filesystem_magic(file).map_or(true, |magic| on_close.contains(&magic))
    }

    fn sync_file(file: &File) -> io::Result<()> {
        Ok(retry(|| fs::fdatasync(file))?)
    }

    /// Before Linux 6.17 (commit 0a32e4f0025a) Btrfs logs nothing when an unnamed file is synced, and logs
    /// an empty file when the directory is synced later: that is what a power cut leaves
    /// (`tests/proof/vm`). An overlay may have Btrfs below it.
    fn syncs_only_what_has_a_name(file: &File, device: u64) -> bool {
        if is_on_device(device) || kernel_version() >= Some((6, 17)) {
            return false;
        }
        filesystem_magic(file).map_or(true, |magic| matches!(magic, BTRFS | OVERLAYFS))
    }

    fn sync_filesystem(file: &File) -> io::Result<()> {
        Ok(retry(|| fs::syncfs(file))?)
    }

    /// Comparing must not change the access time. open(2): EPERM unless the caller owns the file.
    fn open_to_compare(directory: &Directory, name: &Path) -> io::Result<File> {
        match openat(directory, name, CAREFULLY | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => unix::open_to_compare(directory, name),
            opened => Ok(File::from(opened?)),
        }
    }

    /// proc(5): what `/proc/self/fd` shows. The directory may have been moved or removed since, or another
    /// mount may hide it.
    fn directory_path(directory: &Directory) -> io::Result<PathBuf> {
        let path = fs::readlink(descriptor_path(&directory.as_fd()), Vec::new())?;
        Ok(Os::name_from_bytes(path.into_bytes()))
    }

    /// fchmod(2) needs a directory that is open, which takes the right to read it, and fchmodat(2) follows
    /// links before Linux 6.6. `O_PATH` and a path in `/proc` need neither.
    fn force_mode(directory: &Directory, name: &Path) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(directory, name, flags, Mode::empty())?;
        Ok(fs::chmod(descriptor_path(&opened), unix::PRIVATE)?)
    }

    /// rename(2): `RENAME_NOREPLACE` is EINVAL on a filesystem that does not support it.
    fn rename_in_one_step(
        old: &Directory,
        from: &Path,
        new: &Directory,
        to: &Path,
    ) -> io::Result<()> {
        Ok(fs::renameat_with(old, from, new, to, RenameFlags::NOREPLACE)?)
    }

    fn exchange(old: &Directory, from: &Path, new: &Directory, to: &Path) -> io::Result<()> {
        Ok(fs::renameat_with(old, from, new, to, RenameFlags::EXCHANGE)?)
    }

    /// syncfs(2), VERSIONS: since Linux 5.8 (commit 735e4ae5ba28) it reports writeback errors of any file
    /// on the filesystem that no call has reported yet, or that came after the descriptor had been opened.
    /// The generic part of the kernel does that for filesystems that record their errors in the
    /// superblock. These do; overlays and network filesystems are not known to.
    fn filesystem_sync_reports_losses(file: &File) -> io::Result<bool> {
        // Linux, include/uapi/linux/magic.h.
        const EXT4: u64 = 0xef53;
        const XFS: u64 = 0x5846_5342;
        const F2FS: u64 = 0xf2f5_2010;
        const TMPFS: u64 = 0x0102_1994;
        let magic = filesystem_magic(file)?;
        let is_listed = matches!(magic, EXT4 | XFS | BTRFS | F2FS | TMPFS);
        Ok(is_listed && kernel_version() >= Some((5, 8)))
    }

    fn has_immovable_directories(directory: &Directory) -> io::Result<bool> {
        Ok(filesystem_magic(directory)? == OVERLAYFS)
    }
}

/// Since Linux 6.13 (multigrain timestamps) asking for a file's times makes its next change store a finer
/// one, which has to be synced, too (measured: `benches/README.md`).
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
        kind: kind(FileType::from_raw_mode(mode as _)),
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

/// proc(5): a path that leads to an open file or directory.
fn descriptor_path(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// A path that leads to a name in a pinned directory. Before Linux 6.13 there are no `*at` calls for
/// extended attributes, and opening the file would need read access.
fn pinned_path(directory: &Directory, name: &Path) -> PathBuf {
    descriptor_path(&directory.as_fd()).join(name)
}

/// xattr(7): names and values take up to 64 KiB.
const LONGEST: usize = 1 << 17;

/// Whether a filesystem has the number of one block device. Others, Btrfs among them, have the major number
/// 0 (Documentation/admin-guide/devices.txt).
fn is_on_device(device: u64) -> bool {
    fs::major(device) != 0
}

// Linux, include/uapi/linux/magic.h.
const BTRFS: u64 = 0x9123_683e;
const OVERLAYFS: u64 = 0x794c_7630;
const FUSE: u64 = 0x6573_5546;

/// What kind of filesystem a file is on (statfs(2)). The type's width differs between architectures.
#[allow(clippy::unnecessary_cast)]
fn filesystem_magic(file: impl AsFd) -> io::Result<u64> {
    Ok(fs::fstatfs(file)?.f_type as u64 & 0xffff_ffff)
}

fn kernel_version() -> Option<(u32, u32)> {
    let uname = rustix::system::uname();
    let mut numbers = uname.release().to_str().ok()?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
