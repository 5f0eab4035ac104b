//! Windows, with what `std` alone can do there. An open handle is the lock of a staging file, and the
//! system's sharing modes enforce it. Sharing violations by other programs are waited out.

mod codes;
mod directory;
mod names;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::windows::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use codes::*;
pub(crate) use directory::Directory;
use directory::open_handle;

use crate::platform::{
    Code, InUse, Kind, Lock, Os, Platform, Stat, portable, random, scratch_name,
};

impl Platform for Os {
    /// A process can have 16 million handles.
    const DESCRIPTORS_ARE_FEW: bool = false;

    /// MoveFileExW: access is denied while any handle to something below the directory is open.
    const RENAMES_OPEN_TREES: bool = false;

    /// LockFileEx would lock readers out of the destination: an entry beside it is locked instead.
    const LOCKS_DESTINATIONS: bool = false;

    fn is_invalid(path: &Path) -> bool {
        names::is_invalid(path)
    }

    fn plain_path(path: PathBuf) -> PathBuf {
        names::plain_path(path)
    }

    /// The handle disturbs nobody: it shares even the directory's removal.
    fn open_itself(directory: &Directory) -> io::Result<File> {
        open_handle(directory.path(), REFERENCE, SHARE_ALL, 0)
    }

    fn remove_directory(directory: &Directory, name: &Path) -> io::Result<()> {
        remove_writable(&directory.join(name), |path| fs::remove_dir(path))
    }

    /// The lock of a directory is a handle that does not share its removal.
    fn hold_directory(parent: &Directory, name: &Path) -> io::Result<(Directory, Lock)> {
        or_would_block(parent.open_child(name)).map(|held| (held, Lock::Held))
    }

    /// A directory that can be opened for removal is not locked. But such a handle would refuse the
    /// handles that clearing the directory takes, so it is exchanged for the usual one. Between the two,
    /// a third handle makes sure that the directory stays the same one.
    fn seize_directory(parent: &Directory, name: &Path) -> io::Result<(Directory, Lock)> {
        let path = parent.join(name);
        let open = |access, share| open_handle(&path, access, share, FILE_FLAG_OPEN_REPARSE_POINT);
        let seized = or_would_block(open(DELETE, SHARE_ALL_BUT_REMOVAL))?;
        let witness = open(REFERENCE, SHARE_ALL)?;
        drop(seized);
        let (directory, lock) = Os::hold_directory(parent, name)?;
        match Os::stat_directory(&directory)?.is_same_file(&Os::stat_file(&witness)?) {
            true => Ok((directory, lock)),
            false => Err(Os::error(Code::NotFound)),
        }
    }

    /// The handle is the lock: see [`hold_directory`](Platform::hold_directory).
    fn try_lock_directory(_directory: &Directory) -> Lock {
        Lock::Held
    }

    /// The handle is closed first, because it does not share the removal. If another process then takes
    /// the directory for dead, it removes it, too; and a process that makes a new directory of that name
    /// either has it open by the time of the removal, or finds that it is gone.
    fn remove_held_directory(
        parent: &Directory,
        name: &Path,
        directory: Arc<Directory>,
    ) -> io::Result<Option<Arc<Directory>>> {
        drop(directory);
        match patiently(|| Os::remove_directory(parent, name)) {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                let (directory, _) = Os::seize_directory(parent, name)?;
                Ok(Some(Arc::new(directory)))
            }
            Err(error) => Err(error),
        }
    }

    /// Hides the directory. If the maker is killed before that, the directory looks like one of the user's,
    /// and stays, empty.
    fn set_directory_mode(directory: &Directory, _mode: u32) -> io::Result<()> {
        fs::set_permissions(directory.path(), attributes(directory, FILE_ATTRIBUTE_HIDDEN)?)
    }

    fn stat(directory: &Directory, name: &Path) -> io::Result<Option<Stat>> {
        let path = directory.join(name);
        if names::is_device(&path) {
            return Ok(Some(portable::of_kind(Kind::Other)));
        }
        // Asks for no access, which nobody is refused, whatever others share.
        match open_handle(&path, 0, SHARE_ALL, FILE_FLAG_OPEN_REPARSE_POINT) {
            Ok(file) => Os::stat_file(&file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // A file that is being deleted can still be seen in its directory.
            Err(_) => portable::stat(directory, name),
        }
    }

    fn stat_file(file: &File) -> io::Result<Stat> {
        let information = winapi_util::file::information(file);
        let (dev, ino, links) = information.map_or((0, 0, 1), |of| {
            (of.volume_serial_number(), of.file_index(), of.number_of_links())
        });
        match file.metadata() {
            Ok(metadata) => {
                let stat = portable::from_metadata(&metadata);
                let is_hidden = metadata.file_attributes() & FILE_ATTRIBUTE_HIDDEN != 0;
                let mode = if is_hidden && stat.kind == Kind::Directory { HIDDEN } else { 0 };
                Ok(Stat { dev, ino, links, mode, ..stat })
            }
            // GetFileInformationByHandle: devices have no such information.
            Err(error) if is_any(&error, &[ERROR_INVALID_FUNCTION, ERROR_INVALID_PARAMETER]) => {
                Ok(portable::of_kind(Kind::Other))
            }
            Err(error) => Err(error),
        }
    }

    /// The read-only attribute comes first, then the access rights.
    fn check_writable(directory: &Directory, name: &Path) -> io::Result<()> {
        let metadata = fs::symlink_metadata(directory.join(name))?;
        // On a directory the attribute does not forbid writing.
        if !metadata.is_dir() && metadata.permissions().readonly() {
            return Err(Os::error(Code::NoAccess));
        }
        match portable::check_writable(directory, name) {
            // Another program has it open. The system looks at the access rights first, so they are in
            // order; the file may be closed again when it is replaced.
            Err(error) if is_any(&error, &[ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION]) => {
                Ok(())
            }
            checked => checked,
        }
    }

    /// CreateFileW refuses an opening that does not share what another handle does. A writer has its
    /// staging file open from its creation to its publishing: a file that can be opened like this has no
    /// writer any more, and no other process can open it meanwhile. Removing it is shared.
    fn open_to_lock(directory: &Directory, name: &Path) -> io::Result<File> {
        let opened = OpenOptions::new()
            .read(true)
            .share_mode(FILE_SHARE_DELETE)
            .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT)
            .open(directory.join(name));
        or_would_block(opened)
    }

    /// The opening is the lock: it is refused while another process holds it.
    fn open_to_update(directory: &Directory, name: &Path) -> io::Result<File> {
        let path = directory.join(name);
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).share_mode(FILE_SHARE_DELETE).open(&path)
        };
        match open() {
            // The process that held the lock is removing the file.
            Err(error) if is_any(&error, &[ERROR_ACCESS_DENIED]) => or_would_block(patiently(open)),
            opened => or_would_block(opened),
        }
    }

    /// For writing, too, if that is allowed: only such a handle can be synced.
    fn open_to_compare(directory: &Directory, name: &Path) -> io::Result<File> {
        let path = directory.join(name);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        opened.or_else(|_| File::open(path))
    }

    /// For writing, too: only such a handle can be synced. Other programs must have closed it, except for
    /// reading.
    fn open_to_finish(directory: &Directory, name: &Path) -> io::Result<File> {
        let path = directory.join(name);
        let share = FILE_SHARE_READ | FILE_SHARE_DELETE;
        let flags = FILE_FLAG_OPEN_REPARSE_POINT;
        let open = |access| patiently(|| open_handle(&path, access, share, flags));
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            return open(REFERENCE);
        }
        let is_read_only = allow_writing(&path, &metadata)?;
        let file = open(GENERIC_READ | GENERIC_WRITE)?;
        if is_read_only {
            // This handle can still write.
            file.set_permissions(metadata.permissions())?;
        }
        Ok(file)
    }

    /// Hidden until it is published.
    ///
    /// Not opened with `FILE_FLAG_DELETE_ON_CLOSE`, which would leave nothing when the process is killed:
    /// nothing in `std` removes that flag again, and whether the file survives under its new name when
    /// the handle is closed is undocumented.
    fn stage_named(directory: &Directory, name: &Path, _mode: u32) -> io::Result<File> {
        let path = directory.join(name);
        match new_file(FILE_ATTRIBUTE_HIDDEN, 0).open(&path) {
            // A directory, or a file that is being deleted while a program still has it open.
            Err(error) if is_any(&error, &[ERROR_ACCESS_DENIED]) => {
                match fs::symlink_metadata(&path) {
                    Err(missing) if missing.kind() == io::ErrorKind::NotFound => Err(error),
                    _ => Err(Os::error(Code::AlreadyExists)),
                }
            }
            staged => staged,
        }
    }

    /// Not hidden: the directory is.
    fn stage_inside(directory: &Directory, name: &Path, mode: u32) -> io::Result<File> {
        portable::stage_named(directory, name, mode)
    }

    /// The system removes the file when the handle is closed.
    fn stage_elsewhere() -> io::Result<File> {
        let directory = Os::open_directory(None, &std::env::temp_dir())?;
        let mut options =
            new_file(FILE_ATTRIBUTE_HIDDEN | FILE_ATTRIBUTE_TEMPORARY, FILE_FLAG_DELETE_ON_CLOSE);
        loop {
            match options.share_mode(0).open(directory.join(&scratch_name())) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                staged => return staged,
            }
        }
    }

    /// The opening is the lock: see [`open_to_lock`](Platform::open_to_lock).
    fn try_lock(_file: &File) -> Lock {
        Lock::Held
    }

    /// The opening is the lock: see [`open_to_update`](Platform::open_to_update).
    fn lock(_file: &File) -> Lock {
        Lock::Held
    }

    /// The attributes that users set: hidden, system, not to be indexed, and so on. Those that cannot be
    /// set (compressed, encrypted) come from the directory.
    fn carry_flags_over(directory: &Directory, name: &Path, file: &File) -> io::Result<()> {
        let Ok(metadata) = fs::symlink_metadata(directory.join(name)) else {
            return Os::reveal(directory, file);
        };
        file.set_permissions(metadata.permissions()).or_else(|_| Os::reveal(directory, file))
    }

    fn reveal(directory: &Directory, file: &File) -> io::Result<()> {
        match file.metadata()?.file_attributes() & FILE_ATTRIBUTE_HIDDEN {
            0 => Ok(()),
            _ => file.set_permissions(attributes(directory, 0)?),
        }
    }

    /// While a handle for writing is open, a program that opens the file for reading without sharing it
    /// for writing (`FileShare.Read`, the default of .NET) is refused. The new handle is opened before
    /// the old one is closed: at every moment the staging file has an open handle.
    fn stop_writing(file: &mut Arc<File>, directory: &Directory, name: &Path) -> io::Result<()> {
        *file = Arc::new(patiently(|| File::open(directory.join(name)))?);
        Ok(())
    }

    fn rename_to(old: &Directory, from: &Path, new: &Directory, to: &Path) -> io::Result<()> {
        patiently(|| portable::rename_to(old, from, new, to))
    }

    fn rename_new(old: &Directory, from: &Path, new: &Directory, to: &Path) -> io::Result<()> {
        match patiently(|| fs::hard_link(old.join(from), new.join(to))) {
            // The file is published. If the old name cannot be removed now, the next writer removes it.
            Ok(()) => {
                let _ = Os::remove(old, from);
                Ok(())
            }
            // CreateHardLinkW: NTFS and ReFS have hard links; FAT and exFAT don't, and `std` has no other
            // function that never replaces.
            Err(error) if is_any(&error, &[ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED]) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            Err(error) => Err(error),
        }
    }

    /// RemoveDirectoryW: removes links to directories as it does directories.
    fn remove(directory: &Directory, name: &Path) -> io::Result<()> {
        remove_writable(&directory.join(name), |path| {
            match fs::symlink_metadata(path)?.file_type().is_symlink_dir() {
                true => fs::remove_dir(path),
                false => fs::remove_file(path),
            }
        })
    }

    fn sync_file(file: &File) -> io::Result<()> {
        match file.sync_all() {
            // FlushFileBuffers refuses handles that are open only for reading: we wrote nothing then.
            Err(error) if is_any(&error, &[ERROR_ACCESS_DENIED]) => Ok(()),
            done => done,
        }
    }

    fn sync_overwritten(file: &File) -> io::Result<()> {
        match file.sync_all() {
            Err(error) if is_any(&error, &NO_SYNC) => Ok(()),
            done => done,
        }
    }

    /// A directory that cannot be opened cannot be synced in any other way.
    fn sync_child_directory(directory: &Directory, name: &Path, file: &File) -> io::Result<()> {
        Os::sync_directory(&Os::open_directory(Some(directory), name)?, file)
    }

    /// `std` has no function for it.
    fn sync_filesystem(_file: &File) -> io::Result<()> {
        Err(Os::error(Code::NoAccess))
    }

    fn error(code: Code) -> io::Error {
        io::Error::from_raw_os_error(match code {
            Code::NotFound => ERROR_FILE_NOT_FOUND,
            Code::NoAccess | Code::NotPermitted => ERROR_ACCESS_DENIED,
            Code::AlreadyExists => ERROR_FILE_EXISTS,
            Code::IsADirectory => ERROR_DIRECTORY_NOT_SUPPORTED,
            Code::TooManyLinks => ERROR_CANT_RESOLVE_FILENAME,
            Code::InvalidName => ERROR_INVALID_NAME,
            Code::Busy => ERROR_BUSY,
            Code::NotADirectory => ERROR_DIRECTORY,
            Code::Unsupported => ERROR_CALL_NOT_IMPLEMENTED,
            Code::Deadlock => ERROR_POSSIBLE_DEADLOCK,
        })
    }

    fn in_use(error: &io::Error) -> InUse {
        match error.raw_os_error() {
            Some(ERROR_SHARING_VIOLATION | ERROR_LOCK_VIOLATION) => InUse::Yes,
            // MoveFileExW: also when a program has the file at the new name open.
            Some(ERROR_ACCESS_DENIED) => InUse::Maybe,
            _ => InUse::No,
        }
    }
}

/// Windows has no modes. That of a staging directory, which tells it from other directories, stands for
/// the hidden attribute.
const HIDDEN: u32 = 0o1700;

/// On Windows [`fs::Permissions`] are a file's attributes. `std` cannot make any, so those of a new file,
/// which is removed at once, are taken.
fn attributes(directory: &Directory, attributes: u32) -> io::Result<fs::Permissions> {
    let scratch =
        new_file(attributes, FILE_FLAG_DELETE_ON_CLOSE).open(directory.join(&scratch_name()))?;
    Ok(scratch.metadata()?.permissions())
}

fn new_file(attributes: u32, flags: u32) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).attributes(attributes).custom_flags(flags);
    options
}

fn or_would_block<T>(opened: io::Result<T>) -> io::Result<T> {
    match opened {
        Err(error) if is_any(&error, &[ERROR_SHARING_VIOLATION]) => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        opened => opened,
    }
}

/// Removes the read-only attribute, and returns whether it was set.
fn allow_writing(path: &Path, metadata: &fs::Metadata) -> io::Result<bool> {
    let mut permissions = metadata.permissions();
    if !permissions.readonly() {
        return Ok(false);
    }
    #[allow(clippy::permissions_set_readonly_false)] // On Unix that would mean more.
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).map(|()| true)
}

/// The read-only attribute forbids removing, too.
fn remove_writable(path: &Path, remove: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    match remove(path) {
        Err(error) if is_any(&error, &[ERROR_ACCESS_DENIED]) => {
            match allow_writing(path, &fs::symlink_metadata(path)?)? {
                true => remove(path),
                false => Err(error),
            }
        }
        done => done,
    }
}

/// For how long a file that another program has open is tried again: longer than a virus scanner takes
/// for most files, and short enough for a person to wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// Virus scanners, indexers and backups open new files, and close them again soon.
fn patiently<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const IN_USE: [i32; 3] = [ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION, ERROR_ACCESS_DENIED];
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match call() {
            Err(error) if is_any(&error, &IN_USE) && start.elapsed() + pause < PATIENCE => {}
            done => return done,
        }
        // Processes that wait for each other must not do so in step.
        thread::sleep(pause.mul_f64(0.5 + f64::from(random()) / f64::from(u32::MAX)));
        pause = (pause * 2).min(Duration::from_millis(16));
    }
}
