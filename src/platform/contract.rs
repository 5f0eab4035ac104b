//! What the platforms have in common: the functions, what they do, and how most of them do it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{self, Path, PathBuf};
use std::sync::Arc;

use super::{Code, Directory, Entries, InUse, Lock, Stat, base, rename_unless_taken, scratch_name};

/// What the library asks of a system.
///
/// A name (`name`, `from`, `to`) is relative to the directory before it. No function follows a
/// symbolic link at a name unless its documentation says so.
pub(crate) trait Platform {
    /// Whether an open directory takes one of few descriptors. On Unix it does: getrlimit(2),
    /// `RLIMIT_NOFILE`, is often 1024.
    const DESCRIPTORS_ARE_FEW: bool = true;

    /// Whether [`lock`](Self::lock) can lock the destination itself. flock(2) can: it is advisory, and
    /// readers do not notice it.
    const LOCKS_DESTINATIONS: bool = true;

    /// Whether a directory can be renamed while a file below it is open. Unix does not mind.
    const RENAMES_OPEN_TREES: bool = true;

    /// Whether there are directories that only the caller's user can enter, and whose lock shows
    /// whether the process that made them still runs. Unix has modes and flock(2).
    const HAS_PRIVATE_DIRECTORIES: bool = true;

    // Paths and names.

    /// Whether a path can only mean a directory: it ends in a separator, `.` or `..`.
    fn means_directory(path: &Path) -> bool {
        let bytes = path.as_os_str().as_encoded_bytes();
        let last = bytes.rsplit(|&byte| path::is_separator(byte.into())).next().unwrap_or_default();
        matches!(last, b"" | b"." | b"..") && !bytes.is_empty()
    }

    /// Whether no file can have this path.
    fn is_invalid(path: &Path) -> bool {
        path.as_os_str().as_encoded_bytes().contains(&0)
    }

    /// The bytes from which a staging name is made.
    fn name_bytes(name: &OsStr) -> &[u8] {
        name.as_encoded_bytes()
    }

    /// The name that consists of these bytes, or one like it where names must be Unicode.
    fn name_from_bytes(bytes: Vec<u8>) -> PathBuf {
        base::name_from_bytes(bytes)
    }

    /// The form of an absolute path that all programs understand.
    fn plain_path(path: PathBuf) -> PathBuf {
        path
    }

    // Directories.

    /// Opens a directory and pins it; follows links. `path` is relative to `base`, or to the working
    /// directory; if it is empty, it means that directory itself.
    fn open_directory(base: Option<&Directory>, path: &Path) -> io::Result<Directory> {
        Directory::open(base, path)
    }

    /// Opens a directory inside another.
    fn open_subdirectory(directory: &Directory, name: &Path) -> io::Result<Directory> {
        directory.open_child(name)
    }

    /// Opens a directory once more, as a file.
    fn open_itself(directory: &Directory) -> io::Result<File> {
        Self::open_to_lock(directory, Path::new("."))
    }

    /// An absolute path that led to this directory when it was last known; the caller checks whether
    /// it still does. `Unsupported` where the system does not tell.
    fn directory_path(directory: &Directory) -> io::Result<PathBuf> {
        base::directory_path(directory)
    }

    /// The names in a directory without `.` and `..`, and their kinds where the system gives both in
    /// one call.
    fn entries(directory: &Directory) -> io::Result<Entries> {
        Entries::of(directory)
    }

    /// Creates a directory.
    fn make_directory(directory: &Directory, name: &Path, mode: u32) -> io::Result<()> {
        base::make_directory(directory, name, mode)
    }

    /// Removes an empty directory.
    fn remove_directory(directory: &Directory, name: &Path) -> io::Result<()> {
        base::remove_directory(directory, name)
    }

    /// Whether the links in this directory lead to open files instead of paths, as those in
    /// `/proc/self/fd` do.
    fn has_magic_links(_directory: &Directory) -> io::Result<bool> {
        Ok(false)
    }

    /// Whether renaming a directory may fail here even for a caller who has every right.
    fn has_immovable_directories(_directory: &Directory) -> io::Result<bool> {
        Ok(false)
    }

    /// Whether a directory is known to be on a filesystem of this machine alone: locks, file numbers and
    /// owners are the kernel's own. `device` is the number of its device.
    fn is_local(_directory: &Directory, _device: u64) -> bool {
        true
    }

    /// The numbers that mounts without a device may have here.
    fn anonymous_devices() -> impl Iterator<Item = u64> {
        std::iter::empty()
    }

    /// A number that tells this machine, since it was started, from others.
    fn boot_id() -> u64 {
        0
    }

    // Private staging directories.

    /// Opens a directory that the caller has just made, and takes its lock: `WouldBlock` if another
    /// process has the lock.
    fn hold_directory(parent: &Directory, name: &Path) -> io::Result<(Directory, Lock)> {
        let directory = Self::open_subdirectory(parent, name)?;
        match Self::try_lock_directory(&directory) {
            Lock::Busy => Err(io::ErrorKind::WouldBlock.into()),
            lock => Ok((directory, lock)),
        }
    }

    /// Opens a directory whose maker may have been killed, and takes its lock: `WouldBlock` if another
    /// process has the lock.
    fn seize_directory(parent: &Directory, name: &Path) -> io::Result<(Directory, Lock)> {
        Self::hold_directory(parent, name)
    }

    /// Asks for the lock of a directory, without waiting.
    fn try_lock_directory(directory: &Directory) -> Lock {
        base::try_lock(directory)
    }

    /// Removes a directory whose lock the caller has; gives it back if it is not empty.
    fn remove_held_directory(
        parent: &Directory,
        name: &Path,
        directory: Arc<Directory>,
    ) -> io::Result<Option<Arc<Directory>>> {
        match Self::remove_directory(parent, name) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(Some(directory)),
            done => done.map(|()| None),
        }
    }

    /// Sets the mode of a directory, or the marks that stand for a mode.
    fn set_directory_mode(directory: &Directory, mode: u32) -> io::Result<()> {
        base::set_mode(directory, mode)
    }

    /// Sets the mode of a directory to that of a staging directory, whatever it is: the caller, who
    /// owns it, can then list and change it, and nobody else can.
    fn force_mode(directory: &Directory, name: &Path) -> io::Result<()> {
        base::force_mode(directory, name)
    }

    // What is there.

    /// Describes what is at a name; `None` if there is nothing.
    fn stat(directory: &Directory, name: &Path) -> io::Result<Option<Stat>> {
        base::stat(directory, name)
    }

    /// Describes what is at a path; `None` if there is nothing.
    fn look(path: &Path) -> io::Result<Option<Stat>> {
        base::look(path)
    }

    fn stat_file(file: &File) -> io::Result<Stat> {
        base::stat_file(file)
    }

    fn stat_directory(directory: &Directory) -> io::Result<Stat> {
        directory.stat()
    }

    /// Where a symbolic link leads.
    fn read_link(directory: &Directory, name: &Path) -> io::Result<PathBuf> {
        base::read_link(directory, name)
    }

    /// The user who owns the files that this process creates.
    fn user() -> u32 {
        base::user()
    }

    /// Whether this process may do what the owner of a file may, whoever that is.
    fn acts_for_owner(_of: &Stat) -> bool {
        Self::user() == 0
    }

    /// Fails if the caller may not write to what is at a name.
    fn check_writable(directory: &Directory, name: &Path) -> io::Result<()> {
        base::check_writable(directory, name)
    }

    // Opening.

    /// Opens what is at a name, to describe it or to lock it; does not wait.
    fn open_to_lock(directory: &Directory, name: &Path) -> io::Result<File> {
        base::open_to_lock(directory, name)
    }

    /// Opens what is at a name, to lock it and to read it; does not wait.
    fn open_to_update(directory: &Directory, name: &Path) -> io::Result<File> {
        base::open_to_update(directory, name)
    }

    /// Opens what is at a name, to read it; does not wait.
    fn open_to_compare(directory: &Directory, name: &Path) -> io::Result<File> {
        base::open_to_compare(directory, name)
    }

    /// Opens a file that another program has produced, to set its metadata and to sync it; does not
    /// wait.
    fn open_to_finish(directory: &Directory, name: &Path) -> io::Result<File> {
        Self::open_to_lock(directory, name)
    }

    /// Opens a destination to write into it instead of replacing it. Waits for the reader of a FIFO.
    fn open_to_overwrite(directory: &Directory, name: &Path) -> io::Result<File> {
        base::open_to_overwrite(directory, name)
    }

    /// Opens what a link leads to, in a directory that [has magic links](Self::has_magic_links), to
    /// append to it.
    fn open_to_append(directory: &Directory, name: &Path) -> io::Result<File> {
        base::open_to_append(directory, name)
    }

    // Staging.

    /// Creates a staging file with a name: `AlreadyExists` if the name is taken.
    fn stage_named(directory: &Directory, name: &Path, mode: u32) -> io::Result<File> {
        base::stage_named(directory, name, mode)
    }

    /// Creates a staging file in a private staging directory.
    fn stage_inside(directory: &Directory, name: &Path, mode: u32) -> io::Result<File> {
        Self::stage_named(directory, name, mode)
    }

    /// Creates a file without a name in this directory's filesystem; `None` where that is not possible.
    fn stage_unnamed(_directory: &Directory, _mode: u32) -> io::Result<Option<File>> {
        Ok(None)
    }

    /// Creates a staging file outside every destination's directory, for destinations that are not in a
    /// directory on a disk.
    fn stage_elsewhere() -> io::Result<File> {
        // Not `std::env::temp_dir`, which panics on WASI.
        let directory = Self::open_directory(None, Path::new("/tmp"))?;
        loop {
            let name = scratch_name();
            match Self::stage_named(&directory, &name, 0o600) {
                Ok(file) => return Self::remove(&directory, &name).map(|()| file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for the lock of an open file, without waiting. The system releases it when the process
    /// ends.
    fn try_lock(file: &File) -> Lock {
        base::try_lock(file)
    }

    /// Waits for the lock of an open file.
    fn lock(file: &File) -> Lock {
        base::lock(file)
    }

    /// Asks for a shared lock, without waiting; or changes the exclusive one to that. Asked for only where
    /// [`is_local`](Self::is_local) is not always true.
    fn try_share(file: &File) -> Lock {
        base::try_share(file)
    }

    fn unlock(file: &File) {
        base::unlock(file);
    }

    // Metadata.

    fn set_mode(file: &File, mode: u32) -> io::Result<()> {
        base::set_mode(file, mode)
    }

    fn set_owner(file: &File, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        base::set_owner(file, uid, gid)
    }

    /// Sets the flags of a staging file to those of what is at a name.
    ///
    /// Unix: there is no safe function over fchflags(2), and `nix::unistd::chflags` takes a path, at
    /// which another file may be by then. Flags that forbid replacing a file are not carried over: a
    /// destination that has them is refused.
    fn carry_flags_over(_directory: &Directory, _name: &Path, _file: &File) -> io::Result<()> {
        Ok(())
    }

    /// Removes the mark that hides a staging file, if the mark is not its name.
    fn reveal(_directory: &Directory, _file: &File) -> io::Result<()> {
        Ok(())
    }

    /// The names of the extended attributes of what is at a name, each with its namespace.
    fn attributes(_directory: &Directory, _name: &Path) -> io::Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    /// The value of an extended attribute; `None` if it is gone, or if the caller may not read it.
    fn attribute(_directory: &Directory, _name: &Path, _key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn set_attribute(_file: &File, _key: &[u8], _value: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes an extended attribute, and returns whether the file had it.
    fn remove_attribute(_file: &File, _key: &[u8]) -> io::Result<bool> {
        Ok(false)
    }

    // Publishing.

    /// Called last before a named staging file is published: afterwards `file` is open only for reading
    /// where an open writer would disturb readers.
    fn stop_writing(file: &mut Arc<File>, directory: &Directory, name: &Path) -> io::Result<()> {
        base::stop_writing(file, directory, name)
    }

    /// Opens a staging file once more, without the right to write, by its name.
    fn open_to_hold(directory: &Directory, name: &Path) -> io::Result<File> {
        base::open_to_hold(directory, name)
    }

    /// Opens an open file once more, without the right to write; `Unsupported` where that needs a name.
    fn reopen(_file: &File) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives an unnamed file a name; `AlreadyExists` if the name is taken.
    fn link(_file: &File, _directory: &Directory, _name: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether an unnamed file that [`link`](Self::link) failed on like this can still be published, by
    /// copying it into a staging file that has a name.
    fn needs_a_name(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::Unsupported
    }

    /// Renames between two directories of one filesystem; replaces what has the new name.
    fn rename_to(old: &Directory, from: &Path, new: &Directory, to: &Path) -> io::Result<()> {
        base::rename_to(old, from, new, to)
    }

    /// Renames a file between two directories of one filesystem: `AlreadyExists` if the new name is taken.
    fn rename_new(old: &Directory, from: &Path, new: &Directory, to: &Path) -> io::Result<()> {
        match Self::rename_in_one_step(old, from, new, to) {
            Err(error) if Self::is_unsupported(&error) => base::rename_new(old, from, new, to),
            done => done,
        }
    }

    /// Renames a directory between two directories: `AlreadyExists` if the new name is taken.
    fn rename_new_directory(
        old: &Directory,
        from: &Path,
        new: &Directory,
        to: &Path,
    ) -> io::Result<()> {
        match Self::rename_in_one_step(old, from, new, to) {
            Err(error) if Self::is_unsupported(&error) => rename_unless_taken(old, from, new, to),
            done => done,
        }
    }

    /// Renames unless the new name is taken, in one system call. `Unsupported` where there is none.
    fn rename_in_one_step(_: &Directory, _: &Path, _: &Directory, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Swaps what two names lead to, in one step.
    fn exchange(_old: &Directory, _from: &Path, _new: &Directory, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes a file or a link.
    fn remove(directory: &Directory, name: &Path) -> io::Result<()> {
        base::remove(directory, name)
    }

    /// Where the next data of a file begins and ends, from an offset on; `None` if the rest is a hole, and if
    /// the file ends there. `Unsupported` where the system does not tell.
    fn next_data(_file: &File, _from: u64) -> io::Result<Option<Range<u64>>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    // Syncing.

    /// Starts writing a finished part of a file to the disk, without waiting.
    fn start_writeback(_file: &File, _offset: u64, _length: u64) {}

    /// Brings content and size of a file to stable storage.
    fn sync_file(file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Brings a file that was written into to stable storage, unless it is of a kind that has none.
    fn sync_overwritten(file: &File) -> io::Result<()> {
        match file.sync_all() {
            // fsync(2): EINVAL for a FIFO, a socket and most devices.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            done => done,
        }
    }

    /// Brings the names in a directory to stable storage; `file` is any open file on its filesystem.
    fn sync_directory(directory: &Directory, file: &File) -> io::Result<()> {
        directory.sync(file)
    }

    /// Does the same for a directory inside another.
    fn sync_child_directory(directory: &Directory, name: &Path, file: &File) -> io::Result<()> {
        match Self::open_directory(Some(directory), name) {
            Ok(child) => Self::sync_directory(&child, file),
            Err(_) => Self::sync_filesystem(file),
        }
    }

    /// Brings everything on the filesystem of an open file to stable storage, or at least this file.
    fn sync_filesystem(file: &File) -> io::Result<()> {
        Self::sync_file(file)
    }

    /// Whether [`sync_filesystem`](Self::sync_filesystem) fails if the system could not write something
    /// that was written after the file had been opened.
    fn filesystem_sync_reports_losses(_file: &File) -> io::Result<bool> {
        Ok(false)
    }

    /// Whether syncing an unnamed file does not make it durable.
    /// `device` is the number of its device.
    fn syncs_only_what_has_a_name(_file: &File, _device: u64) -> bool {
        false
    }

    /// Whether content that was not synced may be written only when the file is closed, so that the
    /// failure to write it would go unnoticed. Not known for most systems.
    fn writes_on_close(_file: &File) -> bool {
        false
    }

    // Errors.

    /// The system's own error for what this library has found out before the system.
    fn error(code: Code) -> io::Error {
        base::error(code)
    }

    /// Whether an error means that the filesystem cannot do this at all, as opposed to this time.
    fn is_unsupported(error: &io::Error) -> bool {
        base::is_unsupported(error)
    }

    /// Whether the error came because another program has the file open.
    fn in_use(_error: &io::Error) -> InUse {
        InUse::No
    }
}
