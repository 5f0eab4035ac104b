//! Directory trees: removing them and bringing them to stable storage.
//!
//! Everything is done relative to descriptors, and links are never followed: an entry that another
//! process adds meanwhile can't lead out of the tree. A walk has at most five descriptors open,
//! however deep the tree.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::platform::{Code, Directory, Kind, Os, Platform as _, Stat};

/// How often a directory is cleared that another process fills again at the same time; or libfuse, which
/// renames a file that is open instead of removing it, and removes it when the kernel tells it that the
/// file was closed, which may be a moment later (fuse_operations, `hard_remove`).
const ROUNDS: u32 = 20;

/// Removes a directory that the caller holds, with all that is in it. The name leads to `directory`.
pub(crate) fn remove(
    parent: &Directory,
    name: &Path,
    mut directory: Arc<Directory>,
) -> io::Result<()> {
    for round in 0..ROUNDS {
        if round > 2 {
            thread::sleep(Duration::from_millis(1));
        }
        clear(&directory)?;
        directory = match Os::remove_held_directory(parent, name, directory)? {
            None => return Ok(()),
            Some(directory) => directory,
        };
    }
    Err(io::ErrorKind::DirectoryNotEmpty.into())
}

/// Removes all that is in a directory.
fn clear(directory: &Directory) -> io::Result<()> {
    let mut removal = Removal { first_error: None };
    walk(directory, &mut removal)?;
    removal.first_error.map_or(Ok(()), Err)
}

/// An entry that can't be removed does not prevent the removal of the others.
struct Removal {
    first_error: Option<io::Error>,
}

impl Removal {
    fn note(&mut self, done: io::Result<()>) {
        match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.first_error.get_or_insert(error);
            }
            _ => {}
        }
    }
}

/// Does something that needs access to a directory. If only the directory's mode forbids it, changes
/// that.
fn insist<T>(
    directory: &Directory,
    name: &Path,
    mut act: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    match act() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            match Os::force_mode(directory, name) {
                Ok(()) => act(),
                Err(_) => Err(error),
            }
        }
        done => done,
    }
}

impl Visitor for Removal {
    fn file(&mut self, directory: &Directory, name: &Path, _kind: Kind) -> io::Result<()> {
        let removed = insist(directory, Path::new("."), || Os::remove(directory, name));
        self.note(removed);
        Ok(())
    }

    fn enter(&mut self, directory: &Directory, name: &Path) -> io::Result<Option<Directory>> {
        match insist(directory, name, || open_to_walk(directory, name)) {
            Ok(child) => Ok(Some(child)),
            Err(error) => {
                self.note(Err(error));
                Ok(None)
            }
        }
    }

    fn left(&mut self, directory: &Directory, name: &Path) -> io::Result<()> {
        let here = Path::new(".");
        let removed = insist(directory, here, || Os::remove_directory(directory, name));
        self.note(removed);
        Ok(())
    }
}

/// The first part of a tree whose content the caller will not be able to remove, as far as that shows before it
/// is tried; relative to the tree.
pub(crate) fn find_unremovable(top: &Directory) -> io::Result<Option<PathBuf>> {
    let mut search = Search { at: PathBuf::new(), found: None };
    if !can_be_cleared(top)? {
        return Ok(Some(PathBuf::new()));
    }
    walk(top, &mut search)?;
    Ok(search.found)
}

struct Search {
    /// The directory whose entries are visited.
    at: PathBuf,
    found: Option<PathBuf>,
}

/// Its owner can change a mode that forbids it.
fn can_be_cleared(directory: &Directory) -> io::Result<bool> {
    let stat = Os::stat_directory(directory)?;
    let may = Os::check_writable(directory, Path::new(".")).is_ok()
        || stat.uid == Os::user()
        || Os::acts_for_owner(&stat);
    Ok(may && !stat.immutable)
}

impl Visitor for Search {
    fn file(&mut self, _: &Directory, _: &Path, _: Kind) -> io::Result<()> {
        Ok(())
    }

    fn enter(&mut self, directory: &Directory, name: &Path) -> io::Result<Option<Directory>> {
        if self.found.is_some() {
            return Ok(None);
        }
        let child = match open_to_walk(directory, name) {
            Ok(child) if can_be_cleared(&child)? => Some(child),
            // An empty one goes with its name.
            Ok(child) if Os::entries(&child)?.next().is_none() => None,
            Ok(_) => return self.find(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => match Os::stat(directory, name)? {
                Some(stat) if stat.mount_root => return self.find(name),
                Some(stat) if stat.uid != Os::user() && !Os::acts_for_owner(&stat) => {
                    return self.find(name);
                }
                // Its mode can be changed, when it is to be removed.
                _ => None,
            },
        };
        if child.is_some() {
            self.at.push(name);
        }
        Ok(child)
    }

    fn left(&mut self, _: &Directory, _: &Path) -> io::Result<()> {
        self.at.pop();
        Ok(())
    }
}

impl Search {
    fn find(&mut self, name: &Path) -> io::Result<Option<Directory>> {
        self.found = Some(self.at.join(name));
        Ok(None)
    }
}

/// Brings every file and every directory of a tree to stable storage, its top included.
pub(crate) fn sync(top: &Directory, filesystem: &File) -> io::Result<()> {
    if !is_small(top)? && Os::filesystem_sync_reports_losses(filesystem)? {
        return Os::sync_filesystem(filesystem);
    }
    let mut syncing = Syncing { filesystem, found_unreadable: false };
    walk(top, &mut syncing)?;
    syncing.directory(top)?;
    match syncing.found_unreadable {
        true => Os::sync_filesystem(filesystem),
        false => Ok(()),
    }
}

/// Up to so many files are synced one by one. Syncing the whole filesystem is one system call and one
/// commit of its journal, and faster from the third file on if nobody else is writing (ext4, XFS,
/// Btrfs); but it also writes everybody else's data, which may be much.
pub(crate) const SMALL: usize = 8;

fn is_small(top: &Directory) -> io::Result<bool> {
    for (count, entry) in Os::entries(top)?.enumerate() {
        let (name, kind) = entry?;
        if count >= SMALL || kind_of(top, &name, kind)? == Some(Kind::Directory) {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Syncing<'f> {
    filesystem: &'f File,
    /// A file that its own producer can't open can be synced only with the whole filesystem.
    found_unreadable: bool,
}

impl Syncing<'_> {
    fn directory(&self, directory: &Directory) -> io::Result<()> {
        Os::sync_directory(directory, self.filesystem)
    }

    fn unless_unreadable<T>(&mut self, opened: io::Result<T>) -> io::Result<Option<T>> {
        match opened {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.found_unreadable = true;
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }
}

impl Visitor for Syncing<'_> {
    fn file(&mut self, directory: &Directory, name: &Path, kind: Kind) -> io::Result<()> {
        // A link, FIFO, socket or device has no content; that it exists is the directory's.
        if kind != Kind::File {
            return Ok(());
        }
        let opened = Os::open_to_finish(directory, name);
        match self.unless_unreadable(opened)? {
            Some(file) => file.sync_all(),
            None => Ok(()),
        }
    }

    fn enter(&mut self, directory: &Directory, name: &Path) -> io::Result<Option<Directory>> {
        let opened = open_to_walk(directory, name);
        self.unless_unreadable(opened)
    }

    fn leave(&mut self, directory: &Directory) -> io::Result<()> {
        self.directory(directory)
    }
}

/// Opens a subdirectory, unless something is mounted there: its content is not the tree's.
fn open_to_walk(directory: &Directory, name: &Path) -> io::Result<Directory> {
    let Some(there) = Os::stat(directory, name)? else {
        return Err(Os::error(Code::NotFound));
    };
    if there.mount_root {
        return Err(Os::error(Code::Busy));
    }
    let opened = Os::open_subdirectory(directory, name)?;
    match Os::stat_directory(&opened)?.is_same_file(&there) {
        true => Ok(opened),
        false => Err(Os::error(Code::Busy)),
    }
}

/// What to do with the entries of a tree.
trait Visitor {
    /// Anything but a directory.
    fn file(&mut self, directory: &Directory, name: &Path, kind: Kind) -> io::Result<()>;
    /// Opens a subdirectory, or passes over it.
    fn enter(&mut self, directory: &Directory, name: &Path) -> io::Result<Option<Directory>>;
    /// All that is below it has been visited.
    fn leave(&mut self, _directory: &Directory) -> io::Result<()> {
        Ok(())
    }
    /// The same, seen from above.
    fn left(&mut self, _directory: &Directory, _name: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// One directory on the way down.
struct Level {
    name: PathBuf,
    stat: Stat,
    /// Closed while the walk is far below, and found again by `..`.
    open: Option<Directory>,
    to_enter: Vec<PathBuf>,
}

/// How many levels keep their descriptor, where a process can have only so many: most trees are not
/// deeper, and publishing has `private_dir::RESERVE` descriptors.
const OPEN_LEVELS: usize = 4;

/// Visits all that is below a directory, depth first.
fn walk(top: &Directory, visitor: &mut impl Visitor) -> io::Result<()> {
    let mut above: Vec<Level> = Vec::new();
    let top = Os::open_subdirectory(top, Path::new("."))?;
    let mut current = list(PathBuf::new(), top, visitor)?;
    loop {
        let Some(open) = current.open.as_ref() else {
            return Err(Os::error(Code::Busy));
        };
        if let Some(name) = current.to_enter.pop() {
            let Some(child) = visitor.enter(open, &name)? else { continue };
            above.push(current);
            current = list(name, child, visitor)?;
            match above.len().checked_sub(OPEN_LEVELS) {
                Some(far) if Os::DESCRIPTORS_ARE_FEW => above[far].open = None,
                _ => {}
            }
        } else if let Some(mut parent) = above.pop() {
            visitor.leave(open)?;
            if parent.open.is_none() {
                parent.open = Some(go_up(open, &parent.stat)?);
            }
            // Windows removes nothing that is open.
            current.open = None;
            if let Some(open) = &parent.open {
                visitor.left(open, &current.name)?;
            }
            current = parent;
        } else {
            return Ok(());
        }
    }
}

/// Visits the entries of a directory, except for the directories.
fn list(name: PathBuf, directory: Directory, visitor: &mut impl Visitor) -> io::Result<Level> {
    let mut to_enter = Vec::new();
    for entry in Os::entries(&directory)? {
        let (name, kind) = entry?;
        match kind_of(&directory, &name, kind)? {
            Some(Kind::Directory) => to_enter.push(name),
            Some(kind) => visitor.file(&directory, &name, kind)?,
            None => {}
        }
    }
    let stat = Os::stat_directory(&directory)?;
    Ok(Level { name, stat, open: Some(directory), to_enter })
}

fn kind_of(directory: &Directory, name: &Path, kind: Option<Kind>) -> io::Result<Option<Kind>> {
    match kind {
        Some(kind) => Ok(Some(kind)),
        None => Ok(Os::stat(directory, name)?.map(|stat| stat.kind)),
    }
}

fn go_up(directory: &Directory, parent: &Stat) -> io::Result<Directory> {
    let opened = Os::open_subdirectory(directory, Path::new(".."))?;
    match Os::stat_directory(&opened)?.is_same_file(parent) {
        true => Ok(opened),
        // Another process has moved the one below elsewhere.
        false => Err(Os::error(Code::Busy)),
    }
}
