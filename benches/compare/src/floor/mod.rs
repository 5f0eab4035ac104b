//! The floor: each guarantee by hand, with the fewest system calls that give it. It handles no error,
//! recovers from nothing and follows no symbolic links.

pub mod body;

use body::Body;
use rustix::fs::{self, Advice, AtFlags, CWD, FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    Durable,
    Consistent,
    Relaxed,
}

impl Guarantee {
    pub const ALL: [Guarantee; 3] = [Guarantee::Durable, Guarantee::Consistent, Guarantee::Relaxed];
}

/// Calls that a floor can make beyond the fewest.
#[derive(Clone, Copy, Default)]
pub struct Parts {
    pub named: bool,
    pub proc_link: bool,
    pub flock: bool,
    /// Ask for the staged file's times before it is written.
    pub fstat: bool,
    /// Ask for the staged file's inode number only.
    pub statx_inode: bool,
    pub mode: bool,
    pub access: bool,
    pub xattr: bool,
    /// List the destination's attributes by way of `/proc/self/fd`, below the pinned directory.
    pub proc_xattr: bool,
    /// Open the destination to list its attributes.
    pub open_xattr: bool,
    /// Ask for the staged file's times once it is written.
    pub fstat_after: bool,
    /// Remove an access ACL from the staged file, which has none.
    pub remove_acl: bool,
    /// Ask whether the staged file has an access ACL.
    pub get_acl: bool,
    pub fsync: bool,
    pub sync_again: bool,
    pub stream_window: Option<Window>,
}

pub fn replace(path: &Path, body: &Body, guarantee: Guarantee, parts: Parts) -> Result<()> {
    let (dir, name) = pin(path)?;
    let staging = format!(".{name}.staged");
    let old = if parts.mode {
        Some(fs::statx(&dir, name, AtFlags::SYMLINK_NOFOLLOW, fs::StatxFlags::BASIC_STATS)?)
    } else {
        None
    };
    if parts.access {
        fs::accessat(&dir, name, fs::Access::WRITE_OK, AtFlags::EACCESS)?;
    }
    let file = stage(&dir, &staging, parts)?;
    fill(&file, body, guarantee, parts)?;
    if parts.xattr {
        let mut list = [0u8; 256];
        fs::llistxattr(path, &mut list)?;
    }
    if parts.proc_xattr {
        let mut list = [0u8; 512];
        fs::llistxattr(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()), &mut list)?;
    }
    if parts.open_xattr {
        let old = fs::openat(
            &dir,
            name,
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut list = [0u8; 512];
        fs::flistxattr(&old, &mut list)?;
    }
    if parts.fstat_after {
        fs::fstat(&file)?;
    }
    if parts.remove_acl {
        let _ = fs::fremovexattr(&file, "system.posix_acl_access");
    }
    if parts.get_acl {
        let mut acl = [0u8; 256];
        let _ = fs::fgetxattr(&file, "system.posix_acl_access", &mut acl);
    }
    if let Some(old) = old {
        fs::fchmod(&file, Mode::from_raw_mode(u32::from(old.stx_mode) & 0o777))?;
    }
    sync(&file, guarantee, parts)?;
    if !parts.named {
        link(&dir, &file, &staging, parts)?;
        if parts.sync_again && guarantee != Guarantee::Relaxed {
            fs::fdatasync(&file)?;
        }
    }
    fs::renameat(&dir, &staging, &dir, name)?;
    settle(&dir, guarantee)
}

pub fn create(path: &Path, body: &Body, guarantee: Guarantee, parts: Parts) -> Result<()> {
    let (dir, name) = pin(path)?;
    let staging = format!(".{name}.staged");
    let file = stage(&dir, &staging, parts)?;
    fill(&file, body, guarantee, parts)?;
    sync(&file, guarantee, parts)?;
    if parts.named {
        fs::renameat_with(&dir, &staging, &dir, name, fs::RenameFlags::NOREPLACE)?;
    } else {
        link(&dir, &file, name, parts)?;
    }
    settle(&dir, guarantee)
}

pub fn pin(path: &Path) -> Result<(OwnedFd, &str)> {
    let dir = fs::openat(
        CWD,
        path.parent().unwrap(),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok((dir, path.file_name().unwrap().to_str().unwrap()))
}

fn stage(dir: &OwnedFd, staging: &str, parts: Parts) -> Result<File> {
    let mode = Mode::from_raw_mode(0o666);
    let file = if parts.named {
        fs::openat(
            dir,
            staging,
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            mode,
        )?
    } else {
        fs::openat(dir, ".", OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC, mode)?
    };
    if parts.flock {
        fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    }
    if parts.fstat {
        fs::fstat(&file)?;
    }
    if parts.statx_inode {
        fs::statx(&file, "", AtFlags::EMPTY_PATH, fs::StatxFlags::INO)?;
    }
    Ok(File::from(file))
}

fn link(dir: &OwnedFd, file: &File, name: &str, parts: Parts) -> Result<()> {
    if parts.proc_link {
        fs::linkat(
            CWD,
            format!("/proc/self/fd/{}", file.as_raw_fd()),
            dir,
            name,
            AtFlags::SYMLINK_FOLLOW,
        )?;
    } else {
        fs::linkat(file, "", dir, name, AtFlags::EMPTY_PATH)?;
    }
    Ok(())
}

fn sync(file: &File, guarantee: Guarantee, parts: Parts) -> Result<()> {
    match guarantee {
        Guarantee::Relaxed => {}
        _ if parts.fsync => fs::fsync(file)?,
        _ => fs::fdatasync(file)?,
    }
    Ok(())
}

fn settle(dir: &OwnedFd, guarantee: Guarantee) -> Result<()> {
    if guarantee == Guarantee::Durable {
        fs::fsync(dir)?;
    }
    Ok(())
}

/// One `write` for bytes in memory; for a stream a buffer of 256 KiB and, unless the guarantee is
/// `Relaxed`, early writeback.
fn fill(file: &File, body: &Body, guarantee: Guarantee, parts: Parts) -> Result<()> {
    match body {
        Body::Whole(_) => body.fill(&mut &*file),
        _ => {
            let window = if guarantee == Guarantee::Relaxed { None } else { parts.stream_window };
            let mut writer =
                BufWriter::with_capacity(256 << 10, Early { file, written: 0, begun: 0, window });
            body.fill(&mut writer)?;
            writer.flush()
        }
    }
}

/// Starts writing back each window as it fills.
struct Early<'a> {
    file: &'a File,
    written: u64,
    begun: u64,
    window: Option<Window>,
}

/// How much to write before its writeback is started, and how.
#[derive(Clone, Copy)]
pub struct Window {
    pub bytes: u64,
    pub start: fn(&File, u64, u64),
}

impl Window {
    pub fn advise(bytes: u64) -> Self {
        let start = |file: &File, offset, len| {
            fs::fadvise(file, offset, NonZeroU64::new(len), Advice::DontNeed).unwrap();
        };
        Window { bytes, start }
    }
}

impl Write for Early<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        let len = self.written - self.begun;
        if let Some(window) = self.window.filter(|window| len >= window.bytes) {
            (window.start)(self.file, self.begun, len);
            self.begun = self.written;
        }
        Ok(written)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
