//! What the operations see: which calls are steps, and what a mode or a variant answers to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};
use libc::{c_long, user_regs_struct};

use crate::tracee::{Stop, Tracee};

/// What the filesystem can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All (tmpfs).
    Unnamed,
    /// No `O_TMPFILE`.
    Named,
    /// Nor hard links.
    NoLinks,
    /// `renameat2` takes no flags.
    NoFlags,
    /// Two hosts: `flock` succeeds and excludes nobody, each sees another `st_dev` and boot id.
    Hosts,
    /// Inode numbers are computed from paths.
    Inodes,
}

pub const MODES: [(Mode, &str); 6] = [
    (Mode::Unnamed, "unnamed"),
    (Mode::Named, "named"),
    (Mode::NoLinks, "no-links"),
    (Mode::NoFlags, "no-flags"),
    (Mode::Hosts, "hosts"),
    (Mode::Inodes, "inodes"),
];

impl Mode {
    fn has_unnamed(self) -> bool {
        matches!(self, Mode::Unnamed | Mode::NoLinks | Mode::NoFlags)
    }

    /// It says that it is FUSE.
    fn is_remote(self) -> bool {
        matches!(self, Mode::Hosts | Mode::Inodes)
    }
}

/// A library with one check left out: the call that makes the check is told what it wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Real,
    /// After locking, what the name leads to is always what was locked.
    NoIdentity,
    /// A lock that is only tried is always had, of files that the process did not make itself.
    SweepsWithoutLock,
    /// `update` gets its locks without asking.
    UpdatesWithoutLock,
    NoExcl,
    /// `renameat2` always replaces.
    Replaces,
}

pub const VARIANTS: [(Variant, &str); 6] = [
    (Variant::Real, "real"),
    (Variant::NoIdentity, "no-identity"),
    (Variant::SweepsWithoutLock, "sweeps-without-lock"),
    (Variant::UpdatesWithoutLock, "updates-without-lock"),
    (Variant::NoExcl, "no-excl"),
    (Variant::Replaces, "replaces"),
];

/// A call before which a process is stopped.
#[derive(Clone)]
pub struct Call {
    registers: user_regs_struct,
    kind: Kind,
    /// For people.
    pub label: String,
}

#[derive(Clone, PartialEq)]
enum Kind {
    Open {
        path: PathBuf,
        flags: i32,
        registers_flags: bool,
    },
    StatPath {
        path: PathBuf,
    },
    StatFile {
        fd: i32,
    },
    StatFilesystem,
    /// Changes or looks at names.
    Names,
    Link {
        by_descriptor: bool,
    },
    Rename {
        flags: u64,
    },
    /// Of a file's content.
    Content {
        fd: i32,
    },
    /// Metadata, which matter where somebody changes a mode.
    Metadata,
    Close {
        fd: i32,
    },
    Lock {
        fd: i32,
        how: How,
        waits: bool,
    },
    Yield,
    Random {
        address: u64,
        length: u64,
    },
    Other,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Flock {
        exclusive: bool,
    },
    /// fcntl(2), F_OFD_SETLKW and F_SETLKW.
    Record {
        argument: u64,
    },
    Unlock,
}

/// How the world is set up for one run.
#[derive(Clone)]
pub struct World {
    pub base: PathBuf,
    pub mode: Mode,
    pub variant: Variant,
    /// Directories of the destination come, go or move: looking at them is a step.
    pub directories_change: bool,
    pub modes_change: bool,
}

pub struct Process {
    tracee: Tracee,
    /// Which host it is on, and what its random numbers are.
    index: usize,
    is_update: bool,
    pub pending: Option<Call>,
    pub yielded: bool,
    pub first_step: Option<usize>,
    pub last_step: usize,
    pub steps: usize,
    pub is_killed: bool,
    locked: BTreeSet<i32>,
    made: BTreeSet<i32>,
    names: BTreeMap<i32, PathBuf>,
    /// A lock was just had: of which descriptor.
    to_identify: Option<i32>,
    randoms: u64,
    result: Option<String>,
}

impl Process {
    pub fn start(
        world: &World,
        index: usize,
        is_update: bool,
        operation: impl FnOnce() -> String,
    ) -> Result<Process> {
        let mut process = Process {
            tracee: Tracee::start(operation)?,
            index,
            is_update,
            pending: None,
            yielded: false,
            first_step: None,
            last_step: 0,
            steps: 0,
            is_killed: false,
            locked: BTreeSet::new(),
            made: BTreeSet::new(),
            names: BTreeMap::new(),
            to_identify: None,
            randoms: 0,
            result: None,
        };
        process.tracee.go_on()?;
        process.advance(world)?;
        Ok(process)
    }

    pub fn result(&self) -> Option<&str> {
        self.result.as_deref()
    }

    pub fn has_ended(&self) -> bool {
        self.pending.is_none()
    }

    /// Lets it make the call before which it is stopped, and go on to the next one. Says what the call
    /// was and what it was told.
    pub fn step(&mut self, world: &World) -> Result<String> {
        let Some(call) = self.pending.take() else { bail!("it has ended") };
        self.steps += 1;
        let told = self.perform(world, &call)?;
        self.advance(world)?;
        Ok(match told {
            Some(told) if told < 0 => {
                let error = std::io::Error::from_raw_os_error(i32::try_from(-told)?);
                format!("{} = {error}", call.label)
            }
            _ => call.label,
        })
    }

    pub fn kill(&mut self) -> Result<()> {
        self.pending = None;
        self.is_killed = true;
        self.tracee.kill()
    }

    /// Goes on to the next step: what nobody else can notice is none.
    fn advance(&mut self, world: &World) -> Result<()> {
        loop {
            match self.tracee.wait()? {
                Stop::Ended => {
                    self.result = self.tracee.result()?;
                    return Ok(());
                }
                Stop::Call(registers) => {
                    let call = self.decode(world, *registers)?;
                    if self.is_visible(world, &call) {
                        self.pending = Some(call);
                        return Ok(());
                    }
                    self.perform(world, &call)?;
                }
            }
        }
    }

    /// A lock that it would have to wait for: found out by asking on the side.
    pub fn is_blocked(&self, world: &World) -> bool {
        let Some(Call { kind: Kind::Lock { fd, how, waits: true }, .. }) = &self.pending else {
            return false;
        };
        !self.is_lock_pretended(world, *fd, true) && self.would_wait(*fd, *how)
    }

    fn would_wait(&self, fd: i32, how: How) -> bool {
        let path = format!("/proc/{}/fd/{fd}", self.tracee.pid);
        let open = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let Ok(file) = open else { return false };
        match how {
            How::Flock { exclusive: true } => file.try_lock().is_err(),
            How::Flock { exclusive: false } => file.try_lock_shared().is_err(),
            How::Record { argument } => {
                let Ok(bytes) = self.tracee.read(argument, 32) else { return false };
                let number = |at: usize| bytes[at..at + 8].try_into().map_or(0, i64::from_ne_bytes);
                let mut lock = libc::flock {
                    l_type: i16::from_ne_bytes([bytes[0], bytes[1]]),
                    l_whence: i16::from_ne_bytes([bytes[2], bytes[3]]),
                    l_start: number(8),
                    l_len: number(16),
                    l_pid: 0,
                };
                let asked = nix::fcntl::FcntlArg::F_OFD_GETLK(&mut lock);
                let asked = nix::fcntl::fcntl(&file, asked);
                asked.is_ok() && i32::from(lock.l_type) != libc::F_UNLCK
            }
            How::Unlock => false,
        }
    }

    pub fn is_yield(&self) -> bool {
        self.pending.as_ref().is_some_and(|call| call.kind == Kind::Yield)
    }

    /// Whether a destination may look different after this call.
    pub fn changes_something(&self) -> bool {
        self.pending.as_ref().is_some_and(|call| {
            matches!(
                call.kind,
                Kind::Open { .. }
                    | Kind::Names
                    | Kind::Link { .. }
                    | Kind::Rename { .. }
                    | Kind::Content { .. }
            )
        })
    }

    fn is_lock_pretended(&self, world: &World, fd: i32, waits: bool) -> bool {
        match world.variant {
            _ if world.mode == Mode::Hosts => true,
            Variant::SweepsWithoutLock => !waits && !self.made.contains(&fd),
            Variant::UpdatesWithoutLock => self.is_update,
            _ => false,
        }
    }

    fn is_visible(&self, world: &World, call: &Call) -> bool {
        let is_ours = |path: &Path| {
            path.starts_with(&world.base)
                && (world.directories_change
                    || (path != world.base && path != world.base.join(crate::operations::PARENT)))
        };
        match &call.kind {
            Kind::Open { flags, .. } if flags & libc::O_TMPFILE == libc::O_TMPFILE => false,
            Kind::Open { path, .. } | Kind::StatPath { path } => is_ours(path),
            Kind::Names | Kind::Link { .. } | Kind::Rename { .. } | Kind::Yield => true,
            Kind::Lock { .. } => true,
            Kind::Content { fd } => self.is_published(world, *fd),
            Kind::Close { fd } => self.locked.contains(fd),
            Kind::Metadata => world.modes_change,
            Kind::StatFile { .. } => world.modes_change,
            Kind::StatFilesystem | Kind::Random { .. } | Kind::Other => false,
        }
    }

    /// Somebody else can reach this file.
    fn is_published(&self, world: &World, fd: i32) -> bool {
        let link = format!("/proc/{}/fd/{fd}", self.tracee.pid);
        let is_ours = fs::read_link(&link).is_ok_and(|path| path.starts_with(&world.base));
        is_ours && fs::metadata(&link).is_ok_and(|metadata| metadata.nlink() > 0)
    }

    fn perform(&mut self, world: &World, call: &Call) -> Result<Option<i64>> {
        let errno = |errno: i32| i64::from(-errno);
        let mut registers = call.registers;
        match &call.kind {
            Kind::Open { path, flags, registers_flags } => {
                let is_unnamed = flags & libc::O_TMPFILE == libc::O_TMPFILE;
                if is_unnamed && !world.mode.has_unnamed() && path.starts_with(&world.base) {
                    return self.pretend(registers, errno(libc::EOPNOTSUPP));
                }
                if world.mode == Mode::Hosts && path.ends_with("boot_id") {
                    return self.open_boot_id(world, registers);
                }
                let flags = match world.variant == Variant::NoExcl && *registers_flags {
                    true => flags & !libc::O_EXCL,
                    false => *flags,
                };
                if *registers_flags {
                    registers.rdx = registers.rdx & !0xffff_ffff | u64::from(flags as u32);
                    self.tracee.set(registers)?;
                }
                let told = self.tracee.execute()?.rax as i64;
                if let Some(fd) = i32::try_from(told).ok().filter(|&fd| fd >= 0) {
                    self.forget(fd);
                    self.names.insert(fd, path.clone());
                    if flags & libc::O_CREAT != 0 || is_unnamed {
                        self.made.insert(fd);
                    }
                }
                self.tracee.go_on()?;
                Ok(Some(told))
            }
            Kind::StatPath { path } => {
                let identity = self.to_identify.filter(|fd| self.names.get(fd) == Some(path));
                let path = path.clone();
                if let Some(fd) = identity {
                    self.to_identify = None;
                    self.stat_as(world, registers, fd)?;
                    return Ok(Some(0));
                }
                self.stat(world, registers, &path).map(Some)
            }
            Kind::StatFile { fd } => {
                let link = format!("/proc/{}/fd/{fd}", self.tracee.pid);
                let path = fs::read_link(link).unwrap_or_default();
                let shown = path.to_string_lossy();
                let path = PathBuf::from(shown.strip_suffix(" (deleted)").unwrap_or(&shown));
                self.stat(world, registers, &path).map(Some)
            }
            Kind::StatFilesystem if world.mode.is_remote() => {
                let told = self.tracee.execute()?.rax as i64;
                if told == 0 {
                    const FUSE: i64 = 0x6573_5546;
                    self.tracee.write(registers.rsi, &FUSE.to_ne_bytes())?;
                }
                self.tracee.go_on()?;
                Ok(Some(told))
            }
            Kind::Link { by_descriptor: _ } if world.mode == Mode::NoLinks => {
                self.pretend(registers, errno(libc::EPERM))
            }
            Kind::Rename { flags } if *flags != 0 && world.mode == Mode::NoFlags => {
                self.pretend(registers, errno(libc::EINVAL))
            }
            Kind::Rename { flags } if world.variant == Variant::Replaces => {
                registers.r8 = flags & !u64::from(libc::RENAME_NOREPLACE);
                self.tracee.set(registers)?;
                let told = self.tracee.execute()?.rax as i64;
                self.tracee.go_on()?;
                Ok(Some(told))
            }
            Kind::Lock { fd, how, waits } => {
                let told = match self.is_lock_pretended(world, *fd, *waits) {
                    true => self.pretend(registers, 0)?.unwrap_or(0),
                    false => {
                        let told = self.tracee.execute()?.rax as i64;
                        self.tracee.go_on()?;
                        told
                    }
                };
                if told == 0 && *how == How::Unlock {
                    self.locked.remove(fd);
                } else if told == 0 {
                    self.locked.insert(*fd);
                    if world.variant == Variant::NoIdentity {
                        self.to_identify = Some(*fd);
                    }
                }
                Ok(Some(told))
            }
            Kind::Close { fd } => {
                self.forget(*fd);
                self.tracee.go_on()?;
                Ok(None)
            }
            Kind::Yield => {
                self.yielded = true;
                self.pretend(registers, 0)
            }
            Kind::Random { address, length } => {
                let bytes: Vec<u8> = (0..*length)
                    .map(|at| {
                        self.randoms += 1;
                        (self.index as u64 * 89 + self.randoms * 7 + at) as u8
                    })
                    .collect();
                self.tracee.write(*address, &bytes)?;
                self.pretend(registers, i64::try_from(*length)?)
            }
            Kind::Names | Kind::Link { .. } | Kind::Rename { .. } | Kind::Metadata => {
                let told = self.tracee.execute()?.rax as i64;
                self.tracee.go_on()?;
                Ok(Some(told))
            }
            Kind::Content { .. } | Kind::StatFilesystem | Kind::Other => {
                self.tracee.go_on()?;
                Ok(None)
            }
        }
    }

    fn forget(&mut self, fd: i32) {
        self.locked.remove(&fd);
        self.made.remove(&fd);
        self.names.remove(&fd);
    }

    fn pretend(&mut self, registers: user_regs_struct, result: i64) -> Result<Option<i64>> {
        self.tracee.answer(registers, result)?;
        self.tracee.go_on()?;
        Ok(Some(result))
    }

    /// Another host has another boot id.
    fn open_boot_id(
        &mut self,
        world: &World,
        mut registers: user_regs_struct,
    ) -> Result<Option<i64>> {
        let other = world.base.with_file_name(format!("boot_id-{}", self.index));
        fs::write(&other, format!("00000000-0000-4000-8000-{:012}\n", self.index))?;
        let mut bytes = other.into_os_string().into_encoded_bytes();
        bytes.push(0);
        // Below the 128 bytes that the ABI lets a function use there.
        let address = (registers.rsp - 1024) & !15;
        self.tracee.write(address, &bytes)?;
        registers.rsi = address;
        self.tracee.set(registers)?;
        let told = self.tracee.execute()?.rax as i64;
        self.tracee.go_on()?;
        Ok(Some(told))
    }

    /// Where the result goes, and whether it is a `struct statx`.
    fn stat_buffer(registers: &user_regs_struct) -> (u64, bool) {
        match registers.orig_rax as c_long {
            libc::SYS_statx => (registers.r8, true),
            libc::SYS_newfstatat => (registers.rdx, false),
            _ => (registers.rsi, false),
        }
    }

    /// With the numbers that this mode shows.
    fn stat(&mut self, world: &World, registers: user_regs_struct, path: &Path) -> Result<i64> {
        if !world.mode.is_remote() {
            let told = self.tracee.execute()?.rax as i64;
            self.tracee.go_on()?;
            return Ok(told);
        }
        let (buffer, is_statx) = Self::stat_buffer(&registers);
        let told = self.tracee.execute()?.rax as i64;
        if told == 0 && path.starts_with(&world.base) {
            match world.mode {
                Mode::Inodes => {
                    let inode = number(path).to_ne_bytes();
                    self.tracee.write(buffer + if is_statx { 32 } else { 8 }, &inode)?;
                }
                _ => {
                    let (at, length) = if is_statx { (140, 4) } else { (0, 8) };
                    let mut device = self.tracee.read(buffer + at, length)?;
                    device[0] = device[0].wrapping_add(100 * self.index as u8);
                    self.tracee.write(buffer + at, &device)?;
                }
            }
        }
        self.tracee.go_on()?;
        Ok(told)
    }

    /// What the name leads to is said to be what the descriptor leads to.
    fn stat_as(&mut self, world: &World, mut registers: user_regs_struct, fd: i32) -> Result<()> {
        // The same call for the descriptor: an empty path.
        let is_statx = registers.orig_rax as c_long == libc::SYS_statx;
        let address = (registers.rsp - 1024) & !15;
        self.tracee.write(address, &[0])?;
        registers.rdi = fd as u64;
        registers.rsi = address;
        match is_statx {
            true => registers.rdx |= libc::AT_EMPTY_PATH as u64,
            false => registers.r10 |= libc::AT_EMPTY_PATH as u64,
        }
        self.tracee.set(registers)?;
        let path = self.names.get(&fd).cloned().unwrap_or_default();
        self.stat(world, registers, &path)?;
        Ok(())
    }

    fn decode(&self, world: &World, registers: user_regs_struct) -> Result<Call> {
        let r = &registers;
        let call = r.orig_rax as c_long;
        let fd = |register: u64| register as u32 as i32;
        let path = |directory: Option<u64>, address: u64| -> Result<PathBuf> {
            let given = self.tracee.read_path(address)?;
            let base = match directory.map(fd) {
                _ if given.starts_with('/') => PathBuf::new(),
                Some(libc::AT_FDCWD) | None => {
                    fs::read_link(format!("/proc/{}/cwd", self.tracee.pid))?
                }
                Some(fd) => {
                    fs::read_link(format!("/proc/{}/fd/{fd}", self.tracee.pid)).unwrap_or_default()
                }
            };
            Ok(self.plain(&base.join(given)))
        };
        let show = |path: &Path| {
            path.strip_prefix(&world.base).unwrap_or(path).to_string_lossy().into_owned()
        };
        let (kind, label) = match call {
            libc::SYS_open => {
                let path = path(None, r.rdi)?;
                let flags = fd(r.rsi);
                let label = format!("open {}{}", show(&path), show_flags(flags));
                (Kind::Open { path, flags, registers_flags: false }, label)
            }
            libc::SYS_openat => {
                let path = path(Some(r.rdi), r.rsi)?;
                let flags = fd(r.rdx);
                let label = format!("openat {}{}", show(&path), show_flags(flags));
                (Kind::Open { path, flags, registers_flags: true }, label)
            }
            libc::SYS_openat2 => {
                let path = path(Some(r.rdi), r.rsi)?;
                let flags = self.tracee.read(r.rdx, 4)?;
                let flags = flags.try_into().map_or(0, i32::from_ne_bytes);
                let label = format!("openat2 {}{}", show(&path), show_flags(flags));
                (Kind::Open { path, flags, registers_flags: false }, label)
            }
            libc::SYS_statx if self.is_empty(r.rsi)? => stat_file(fd(r.rdi)),
            libc::SYS_newfstatat if self.is_empty(r.rsi)? => stat_file(fd(r.rdi)),
            libc::SYS_fstat => stat_file(fd(r.rdi)),
            libc::SYS_statx | libc::SYS_newfstatat => {
                let path = path(Some(r.rdi), r.rsi)?;
                let label = format!("stat {}", show(&path));
                (Kind::StatPath { path }, label)
            }
            libc::SYS_stat | libc::SYS_lstat => {
                let path = path(None, r.rdi)?;
                let label = format!("stat {}", show(&path));
                (Kind::StatPath { path }, label)
            }
            libc::SYS_readlinkat => {
                let path = path(Some(r.rdi), r.rsi)?;
                let label = format!("readlinkat {}", show(&path));
                let kind = match path.starts_with(&world.base) && world.directories_change {
                    true => Kind::Names,
                    false => Kind::Other,
                };
                (kind, label)
            }
            libc::SYS_statfs | libc::SYS_fstatfs => (Kind::StatFilesystem, "statfs".into()),
            libc::SYS_access
            | libc::SYS_faccessat
            | libc::SYS_faccessat2
            | libc::SYS_fchmod
            | libc::SYS_fchown => (Kind::Metadata, "metadata".into()),
            libc::SYS_mkdir
            | libc::SYS_rmdir
            | libc::SYS_unlink
            | libc::SYS_chmod
            | libc::SYS_truncate => {
                let what = match call {
                    libc::SYS_mkdir => "mkdir",
                    libc::SYS_rmdir => "rmdir",
                    libc::SYS_unlink => "unlink",
                    libc::SYS_chmod => "chmod",
                    _ => "truncate",
                };
                names(world, what, &[path(None, r.rdi)?])
            }
            libc::SYS_mkdirat => names(world, "mkdirat", &[path(Some(r.rdi), r.rsi)?]),
            libc::SYS_unlinkat => names(world, "unlinkat", &[path(Some(r.rdi), r.rsi)?]),
            libc::SYS_fchmodat | libc::SYS_fchownat => {
                names(world, "fchmodat", &[path(Some(r.rdi), r.rsi)?])
            }
            libc::SYS_symlink => names(world, "symlink", &[path(None, r.rsi)?]),
            libc::SYS_symlinkat => names(world, "symlinkat", &[path(Some(r.rsi), r.rdx)?]),
            libc::SYS_rename => names(world, "rename", &[path(None, r.rdi)?, path(None, r.rsi)?]),
            libc::SYS_renameat | libc::SYS_renameat2 => {
                let flags = if call == libc::SYS_renameat2 { r.r8 & 0xffff_ffff } else { 0 };
                let paths = [path(Some(r.rdi), r.rsi)?, path(Some(r.rdx), r.r10)?];
                let what = match flags {
                    0 => "renameat",
                    1 => "renameat(NOREPLACE)",
                    _ => "renameat(EXCHANGE)",
                };
                let (_, label) = names(world, what, &paths);
                match call == libc::SYS_renameat2 {
                    true => (Kind::Rename { flags }, label),
                    false => (Kind::Names, label),
                }
            }
            libc::SYS_link | libc::SYS_linkat => {
                let (by_descriptor, to) = match call {
                    libc::SYS_link => (false, path(None, r.rsi)?),
                    _ => (self.is_empty(r.rsi)?, path(Some(r.rdx), r.r10)?),
                };
                (Kind::Link { by_descriptor }, format!("linkat {}", show(&to)))
            }
            libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_ftruncate => {
                let link = format!("/proc/{}/fd/{}", self.tracee.pid, fd(r.rdi));
                let path = fs::read_link(link).unwrap_or_default();
                (Kind::Content { fd: fd(r.rdi) }, format!("write {}", show(&path)))
            }
            libc::SYS_copy_file_range => {
                let label = format!("copy_file_range {}", fd(r.rdx));
                (Kind::Content { fd: fd(r.rdx) }, label)
            }
            libc::SYS_sendfile => (Kind::Content { fd: fd(r.rdi) }, "sendfile".into()),
            libc::SYS_getdents64 => {
                let link = format!("/proc/{}/fd/{}", self.tracee.pid, fd(r.rdi));
                let path = fs::read_link(link).unwrap_or_default();
                let kind = if path.starts_with(&world.base) { Kind::Names } else { Kind::Other };
                (kind, format!("getdents64 {}", show(&path)))
            }
            libc::SYS_close => {
                let name = self.names.get(&fd(r.rdi)).map(|path| show(path)).unwrap_or_default();
                (Kind::Close { fd: fd(r.rdi) }, format!("close {name}"))
            }
            libc::SYS_flock => {
                let (fd, how) = (fd(r.rdi), fd(r.rsi));
                let name = self.names.get(&fd).map(|path| show(path)).unwrap_or_default();
                let waits = how & libc::LOCK_NB == 0 && how & libc::LOCK_UN == 0;
                let (what, how) = match how & !libc::LOCK_NB {
                    libc::LOCK_UN => ("unlock", How::Unlock),
                    libc::LOCK_SH => ("lock(shared)", How::Flock { exclusive: false }),
                    _ => ("lock", How::Flock { exclusive: true }),
                };
                let word = if waits || what == "unlock" { "" } else { "try " };
                (Kind::Lock { fd, how, waits }, format!("{word}{what} {name}"))
            }
            libc::SYS_fcntl => {
                let (fd, command) = (fd(r.rdi), fd(r.rsi));
                let waits = matches!(command, libc::F_SETLKW | libc::F_OFD_SETLKW);
                let locks = waits || matches!(command, libc::F_SETLK | libc::F_OFD_SETLK);
                let name = self.names.get(&fd).map(|path| show(path)).unwrap_or_default();
                match locks {
                    true => {
                        let how = How::Record { argument: r.rdx };
                        (Kind::Lock { fd, how, waits }, format!("fcntl lock {name}"))
                    }
                    false => (Kind::Other, "fcntl".into()),
                }
            }
            libc::SYS_sched_yield | libc::SYS_nanosleep | libc::SYS_clock_nanosleep => {
                (Kind::Yield, "yield".into())
            }
            libc::SYS_getrandom => {
                (Kind::Random { address: r.rdi, length: r.rsi }, "getrandom".into())
            }
            _ => (Kind::Other, format!("call {call}")),
        };
        Ok(Call { registers, kind, label })
    }

    fn is_empty(&self, address: u64) -> Result<bool> {
        Ok(address == 0 || self.tracee.read(address, 1)?.first() == Some(&0))
    }

    /// Without `.` and `..`, and what `/proc/self/fd` leads to.
    fn plain(&self, path: &Path) -> PathBuf {
        let text = path.to_string_lossy();
        if let Some(rest) = text.strip_prefix("/proc/self/fd/") {
            let (fd, below) = rest.split_once('/').unwrap_or((rest, ""));
            let link = format!("/proc/{}/fd/{fd}", self.tracee.pid);
            let there = fs::read_link(link).unwrap_or_default();
            return if below.is_empty() { there } else { there.join(below) };
        }
        let mut plain = PathBuf::new();
        for component in path.components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir => {
                    plain.pop();
                }
                other => plain.push(other),
            }
        }
        plain
    }
}

fn stat_file(fd: i32) -> (Kind, String) {
    (Kind::StatFile { fd }, format!("fstat {fd}"))
}

fn names(world: &World, what: &str, paths: &[PathBuf]) -> (Kind, String) {
    let is_ours = paths.iter().any(|path| path.starts_with(&world.base));
    let shown: Vec<_> = paths
        .iter()
        .map(|path| path.strip_prefix(&world.base).unwrap_or(path).to_string_lossy())
        .collect();
    let kind = if is_ours { Kind::Names } else { Kind::Other };
    (kind, format!("{what} {}", shown.join(" -> ")))
}

fn show_flags(flags: i32) -> String {
    let mut shown = String::new();
    let known = [
        (libc::O_TMPFILE, " O_TMPFILE"),
        (libc::O_CREAT, " O_CREAT"),
        (libc::O_EXCL, " O_EXCL"),
        (libc::O_PATH, " O_PATH"),
    ];
    for (flag, name) in known {
        if flags & flag == flag {
            shown.push_str(name);
        }
    }
    shown
}

/// Fowler, Noll and Vo's hash of a path: what a server computes that has no inodes.
fn number(path: &Path) -> u64 {
    let bytes = path.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash >> 8
}
