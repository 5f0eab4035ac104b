//! A disk that can lose its power: a FUSE filesystem serves one disk image as a file, a loop
//! device turns it into a block device, and everything that reaches it is written down in order.
//!
//! The directory that it serves holds
//! - `disk`: the image that is recorded,
//! - `acknowledged`: what is written here lands in the same log as the disk's writes, so that the
//!   order between "the call has returned" and "this was on the disk" is certain,
//! - `cut-N`: the image of the current crash, a layer over what was durable by then.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

/// What reached the disk, in order.
#[derive(Debug, Clone)]
pub enum Event {
    Write {
        offset: u64,
        data: Vec<u8>,
    },
    /// Everything before it is on the medium.
    Flush,
    /// A line from the program under test.
    Acknowledged(String),
}

pub struct Disk {
    state: Arc<Mutex<State>>,
    directory: PathBuf,
    session: Option<BackgroundSession>,
}

struct State {
    size: u64,
    disk: Pages,
    log: Option<Vec<Event>>,
    /// What a crash image is a layer over.
    durable: Pages,
    cut: Layer,
    cut_number: u64,
}

impl Disk {
    /// Serves an image of `size` bytes in the (empty) directory.
    pub fn serve(directory: &Path, size: u64, image: Pages) -> io::Result<Disk> {
        let state = Arc::new(Mutex::new(State {
            size,
            disk: image,
            log: None,
            durable: Pages::default(),
            cut: Layer::default(),
            cut_number: 0,
        }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("proof".into())];
        let session = fuser::Session::new(Served(state.clone()), directory, &config)?.spawn()?;
        Ok(Disk { state, directory: directory.to_owned(), session: Some(session) })
    }

    pub fn image_file(&self) -> PathBuf {
        self.directory.join("disk")
    }

    pub fn acknowledgements(&self) -> PathBuf {
        self.directory.join("acknowledged")
    }

    pub fn image(&self) -> Pages {
        self.state().disk.clone()
    }

    /// From here on everything is written down. What is on the disk now counts as durable: sync first.
    pub fn start_recording(&self) {
        let mut state = self.state();
        state.durable = state.disk.clone();
        state.log = Some(Vec::new());
    }

    pub fn stop_recording(&self) -> Vec<Event> {
        self.state().log.take().expect("nothing was being recorded")
    }

    /// Applies to the durable base of all later crash images.
    pub fn make_durable(&self, event: &Event) {
        if let Event::Write { offset, data } = event {
            self.state().durable.write(*offset, data);
        }
    }

    /// The image of a crash: the durable base and what else had made it to the medium.
    pub fn cut(&self, survivors: &[(u64, &[u8])]) -> PathBuf {
        let mut guard = self.state();
        let state = &mut *guard;
        state.cut = Layer::default();
        for (offset, data) in survivors {
            state.cut.write(&state.durable, *offset, data);
        }
        // A new inode each time, so that the kernel has nothing of the last one in its cache.
        state.cut_number += 1;
        self.directory.join(format!("cut-{}", state.cut_number))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.session.take().map(|session| session.umount_and_join()) {
            eprintln!("{} is still mounted: {error}", self.directory.display());
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A filesystem on a loop device, unmounted when dropped. The loop device goes with the mount.
pub struct Mounted {
    pub at: PathBuf,
}

impl Mounted {
    pub fn new(kind: &str, options: &str, image: &Path, at: &Path) -> io::Result<Mounted> {
        let options =
            if options.is_empty() { "loop".to_string() } else { format!("loop,{options}") };
        run(Command::new("mount").args(["-t", kind, "-o", &options]).arg(image).arg(at))?;
        Ok(Mounted { at: at.to_owned() })
    }

    pub fn without_a_disk(kind: &str, options: &str, at: &Path) -> io::Result<Mounted> {
        run(Command::new("mount").args(["-t", kind, "-o", options, "proof"]).arg(at))?;
        Ok(Mounted { at: at.to_owned() })
    }

    /// A filesystem's flush reaches the image as an fsync only if the loop device says that it has
    /// a volatile cache. Without that the log would show no flush and prove nothing.
    pub fn has_a_volatile_cache(&self) -> io::Result<bool> {
        let mounts = fs_err::read_to_string("/proc/self/mountinfo")?;
        let device = mounts
            .lines()
            .find(|line| line.split(' ').nth(4) == self.at.to_str())
            .and_then(|line| line.split(' ').find_map(|field| field.strip_prefix("/dev/loop")))
            .ok_or_else(|| {
                io::Error::other(format!("{} is not on a loop device", self.at.display()))
            })?;
        let cache = fs_err::read_to_string(format!("/sys/block/loop{device}/queue/write_cache"))?;
        Ok(cache.trim() == "write back")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for _ in 0..50 {
            match rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::empty()) {
                Err(rustix::io::Errno::BUSY) => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => return eprintln!("{} is still mounted: {error}", self.at.display()),
                Ok(()) => return,
            }
        }
        eprintln!("{} is busy; detached", self.at.display());
        let _ = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Runs a command that must succeed, quietly.
pub fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {} {}", output.status, said.trim())))
}

const PAGE: usize = 4096;
type Page = [u8; PAGE];

/// A sparse image. Pages of zeros are not kept.
#[derive(Default, Clone)]
pub struct Pages(HashMap<u64, Box<Page>>);

impl Pages {
    fn write(&mut self, offset: u64, data: &[u8]) {
        for (number, within, part) in pages_of(offset, data) {
            if part.iter().all(|byte| *byte == 0) && !self.0.contains_key(&number) {
                continue;
            }
            let page = self.0.entry(number).or_insert_with(|| Box::new([0; PAGE]));
            page[within..within + part.len()].copy_from_slice(part);
        }
    }

    fn page(&self, number: u64) -> Option<&Page> {
        self.0.get(&number).map(|page| &**page)
    }
}

/// Pages over other pages: here zeros count.
#[derive(Default)]
struct Layer(HashMap<u64, Box<Page>>);

impl Layer {
    fn write(&mut self, under: &Pages, offset: u64, data: &[u8]) {
        for (number, within, part) in pages_of(offset, data) {
            let page = self
                .0
                .entry(number)
                .or_insert_with(|| Box::new(under.page(number).copied().unwrap_or([0; PAGE])));
            page[within..within + part.len()].copy_from_slice(part);
        }
    }
}

/// Splits a write at page boundaries: page number, offset within the page, bytes.
fn pages_of(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, usize, &[u8])> {
    let mut at = offset;
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let within = (at % PAGE as u64) as usize;
        let (part, after) = rest.split_at(rest.len().min(PAGE - within));
        let item = (at / PAGE as u64, within, part);
        at += part.len() as u64;
        rest = after;
        Some(item)
    })
}

impl State {
    fn read(&self, file: u64, offset: u64, length: usize) -> Vec<u8> {
        let length = length.min(self.size.saturating_sub(offset) as usize);
        let mut data = vec![0; length];
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let count = (PAGE - within).min(length - done);
            if let Some(page) = self.page(file, at / PAGE as u64) {
                data[done..done + count].copy_from_slice(&page[within..within + count]);
            }
            done += count;
        }
        data
    }

    fn page(&self, file: u64, number: u64) -> Option<&Page> {
        if file == DISK {
            return self.disk.page(number);
        }
        self.cut.0.get(&number).map(|page| &**page).or_else(|| self.durable.page(number))
    }

    fn write(&mut self, file: u64, offset: u64, data: &[u8]) {
        match file {
            ACKNOWLEDGED => {
                let lines = String::from_utf8_lossy(data);
                let events = lines.lines().map(|line| Event::Acknowledged(line.to_string()));
                self.log.iter_mut().for_each(|log| log.extend(events.clone()));
            }
            DISK => {
                self.disk.write(offset, data);
                let event = || Event::Write { offset, data: data.to_vec() };
                self.log.iter_mut().for_each(|log| log.push(event()));
            }
            _ => self.cut.write(&self.durable, offset, data),
        }
    }
}

const DISK: u64 = 2;
const ACKNOWLEDGED: u64 = 3;
const FIRST_CUT: u64 = 1000;

struct Served(Arc<Mutex<State>>);

impl Served {
    fn attributes(&self, file: INodeNo) -> FileAttr {
        let directory = file == INodeNo::ROOT;
        let size = if directory || file.0 == ACKNOWLEDGED { 0 } else { lock(&self.0).size };
        FileAttr {
            ino: file,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if directory { FileType::Directory } else { FileType::RegularFile },
            perm: if directory { 0o755 } else { 0o644 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: PAGE as u32,
            flags: 0,
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_str().unwrap_or_default();
        let file = match name {
            "disk" => Some(DISK),
            "acknowledged" => Some(ACKNOWLEDGED),
            _ => name.strip_prefix("cut-").and_then(|n| n.parse().ok()).map(|n: u64| n + FIRST_CUT),
        };
        match file {
            Some(file) => {
                reply.entry(&Duration::ZERO, &self.attributes(INodeNo(file)), Generation(0))
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, file: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::from_secs(1), &self.attributes(file));
    }

    fn setattr(
        &self,
        _: &Request,
        file: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<fuser::TimeOrNow>,
        _mtime: Option<fuser::TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&Duration::from_secs(1), &self.attributes(file));
    }

    fn open(&self, _: &Request, file: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Acknowledgements must arrive before the write that makes them returns.
        let flags =
            if file.0 == ACKNOWLEDGED { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() };
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let data = lock(&self.0).read(file.0, offset, size as usize);
        reply.data(&data);
    }

    fn write(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        lock(&self.0).write(file.0, offset, data);
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, file: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if file.0 == DISK {
            lock(&self.0).log.iter_mut().for_each(|log| log.push(Event::Flush));
        }
        reply.ok();
    }

    /// Discarding and zeroing (fallocate(2): PUNCH_HOLE is 2, ZERO_RANGE is 16) are writes of zeros.
    fn fallocate(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & (2 | 16) == 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        lock(&self.0).write(file.0, offset, &vec![0; length as usize]);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: fuser::ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 20, 1 << 20, 1 << 10, 1 << 10, PAGE as u32, 255, PAGE as u32);
    }
}
