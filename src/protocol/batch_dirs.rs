//! The private staging directories of a batch.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::mem::replace;
use std::path::{Path, PathBuf};

use crate::platform::{Code, Os, Platform as _};
use crate::protocol::dead;
use crate::protocol::entry::{self, Entry};
use crate::protocol::lock::Owner;
use crate::protocol::private_dir::{self, ParkedDir, PrivateDir};
use crate::protocol::resolve::Destination;

/// The directories that a batch writes to: any number of them, few of them open.
pub(crate) struct BatchDirs {
    owner: Owner,
    list: Vec<Slot>,
    /// By device and inode.
    index: HashMap<(u64, u64), usize>,
    /// Those that are open, the one used last at the end.
    open: VecDeque<usize>,
    filesystems: Vec<Filesystem>,
    /// What the next staged file is called.
    next: u64,
    /// Publishing needs descriptors, and the closure may leave none.
    reserve: Vec<File>,
}

struct Slot {
    private: State,
    filesystem: usize,
    /// Of the first destination there, for messages.
    path: PathBuf,
}

enum State {
    Open(PrivateDir),
    Parked(ParkedDir),
    /// It could not be opened again, or is removed.
    Gone,
}

/// What is needed once for each filesystem.
pub(crate) struct Filesystem {
    device: u64,
    /// Locked, and linked into each private staging directory, it says that the batch is alive while
    /// the directory is closed. Open since before the first write there, it is what syncfs(2) needs
    /// to report what those writes have lost.
    pub(crate) alive: File,
    pub(crate) reports_losses: bool,
}

/// How many stay open, where a process can have only so many descriptors. Each takes two: this leaves
/// most of 256, the smallest usual limit (macOS), to the closure.
const OPEN_DIRECTORIES: usize = 16;

impl BatchDirs {
    pub(crate) fn new(owner: Owner) -> BatchDirs {
        let (list, open, reserve) = (Vec::new(), VecDeque::new(), Vec::new());
        let (index, filesystems) = (HashMap::new(), Vec::new());
        BatchDirs { owner, list, index, open, filesystems, next: 0, reserve }
    }

    /// The number of a destination's directory, with a private staging directory in it.
    pub(crate) fn enter(&mut self, destination: &Destination) -> io::Result<usize> {
        let stat = Os::stat_directory(&destination.directory)?;
        if let Some(&index) = self.index.get(&(stat.dev, stat.ino)) {
            return Ok(index);
        }
        let private = PrivateDir::create(destination, self.owner)?;
        if self.reserve.is_empty() {
            self.reserve = private_dir::reserve(&private.directory)?;
        }
        let filesystem = self.find_filesystem(&private, stat.dev)?;
        let index = self.list.len();
        let path = destination.path.clone();
        self.list.push(Slot { private: State::Open(private), filesystem, path });
        self.index.insert((stat.dev, stat.ino), index);
        self.mark_used(index)?;
        Ok(index)
    }

    fn find_filesystem(&mut self, private: &PrivateDir, device: u64) -> io::Result<usize> {
        let name = Path::new(dead::ALIVE);
        // The last one: a file can have only so many links (ext4: 65,000), and mounts of one
        // filesystem can't share them.
        let known = self.filesystems.iter().rposition(|known| known.device == device);
        if let Some(known) = known {
            let alive = &self.filesystems[known].alive;
            if Os::link(alive, &private.directory, name).is_ok() {
                return Ok(known);
            }
        }
        let alive = Os::stage_named(&private.directory, name, 0o600)?;
        Os::try_lock(&alive);
        let reports_losses = Os::filesystem_sync_reports_losses(&alive)?;
        self.filesystems.push(Filesystem { device, alive, reports_losses });
        Ok(self.filesystems.len() - 1)
    }

    pub(crate) fn filesystem(&self, directory: usize) -> &Filesystem {
        &self.filesystems[self.list[directory].filesystem]
    }

    /// The number of a directory's filesystem.
    pub(crate) fn filesystem_number(&self, directory: usize) -> usize {
        self.list[directory].filesystem
    }

    /// A staging file in a directory's private staging directory.
    pub(crate) fn stage(&mut self, directory: usize, mode: u32) -> io::Result<(File, Entry)> {
        let name = PathBuf::from(self.next.to_string());
        self.next += 1;
        let directory = self.open(directory)?.directory.clone();
        let file = Os::stage_inside(&directory, &name, mode)?;
        Ok((file, entry::inside(directory, name)))
    }

    /// The private staging directory of this number, opened again if it was parked.
    pub(crate) fn open(&mut self, index: usize) -> io::Result<&PrivateDir> {
        if let State::Parked(parked) = &self.list[index].private {
            self.list[index].private = State::Open(parked.reopen()?);
        }
        self.mark_used(index)?;
        match &self.list[index].private {
            State::Open(private) => Ok(private),
            State::Parked(_) | State::Gone => Err(Os::error(Code::NotFound)),
        }
    }

    /// Gives back the descriptors that were reserved for publishing.
    pub(crate) fn release_reserve(&mut self) {
        self.reserve.clear();
    }

    /// Notes that a directory is in use, and parks the one that has not been used for longest.
    fn mark_used(&mut self, index: usize) -> io::Result<()> {
        if self.open.back() == Some(&index) {
            return Ok(());
        }
        self.open.retain(|&other| other != index);
        self.open.push_back(index);
        if self.open.len() <= OPEN_DIRECTORIES || !Os::DESCRIPTORS_ARE_FEW {
            return Ok(());
        }
        let Some(oldest) = self.open.pop_front() else { return Ok(()) };
        let slot = &mut self.list[oldest];
        if let State::Open(private) = &slot.private {
            let parent = private_dir::directory_of(&private.parent, &slot.path)?;
            if let State::Open(private) = replace(&mut slot.private, State::Gone) {
                slot.private = State::Parked(private.park(&parent)?);
            }
        }
        Ok(())
    }

    /// Syncs a directory, or one of those that were made below it.
    pub(crate) fn sync_parent(&mut self, index: usize, below: Option<&PathBuf>) -> io::Result<()> {
        let directory = self.open(index)?.parent.clone();
        let alive = &self.filesystem(index).alive;
        match below {
            Some(name) => Os::sync_child_directory(&directory, name, alive),
            None => Os::sync_directory(&directory, alive),
        }
    }
}

impl Drop for BatchDirs {
    /// Removes the files that were not published.
    fn drop(&mut self) {
        // NFS and FUSE rename an open file that is removed, so that its directory can't be removed.
        self.filesystems.clear();
        for slot in &mut self.list {
            if let State::Parked(parked) = replace(&mut slot.private, State::Gone) {
                drop(parked.reopen());
            }
        }
    }
}
