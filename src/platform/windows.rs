//! Windows, with what `std` alone can do there. Named staging; whoever has the staging file open is
//! alive; sharing violations are waited out.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::os::windows::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::windows::io::{AsHandle, BorrowedHandle};
use std::path::{self, Component, Path, PathBuf, Prefix};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::portable;
pub(crate) use super::portable::*;
use super::{Code, Kind, Lock, Stat};
use crate::error::Step;

// winnt.h, winbase.h: CreateFileW's arguments.
const FILE_LIST_DIRECTORY: u32 = 0x1;
const FILE_ADD_FILE: u32 = 0x2;
const FILE_READ_ATTRIBUTES: u32 = 0x80;
const DELETE: u32 = 0x1_0000;
const SYNCHRONIZE: u32 = 0x10_0000;
const GENERIC_WRITE: u32 = 0x4000_0000;
const GENERIC_READ: u32 = 0x8000_0000;
const FILE_SHARE_READ: u32 = 0x1;
const FILE_SHARE_WRITE: u32 = 0x2;
const FILE_SHARE_DELETE: u32 = 0x4;
const SHARE_ALL_BUT_REMOVAL: u32 = FILE_SHARE_READ | FILE_SHARE_WRITE;
const FILE_ATTRIBUTE_HIDDEN: u32 = 0x2;
const FILE_ATTRIBUTE_TEMPORARY: u32 = 0x100;
const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x20_0000;
const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x200_0000;
const FILE_FLAG_DELETE_ON_CLOSE: u32 = 0x400_0000;

// winerror.h
const ERROR_INVALID_FUNCTION: i32 = 1;
const ERROR_FILE_NOT_FOUND: i32 = 2;
const ERROR_ACCESS_DENIED: i32 = 5;
const ERROR_INVALID_HANDLE: i32 = 6;
const ERROR_SHARING_VIOLATION: i32 = 32;
const ERROR_LOCK_VIOLATION: i32 = 33;
const ERROR_NOT_SUPPORTED: i32 = 50;
const ERROR_FILE_EXISTS: i32 = 80;
const ERROR_INVALID_PARAMETER: i32 = 87;
const ERROR_CALL_NOT_IMPLEMENTED: i32 = 120;
const ERROR_INVALID_NAME: i32 = 123;
const ERROR_BUSY: i32 = 170;
const ERROR_DIRECTORY: i32 = 267;
const ERROR_DIRECTORY_NOT_SUPPORTED: i32 = 336;
const ERROR_POSSIBLE_DEADLOCK: i32 = 1131;
const ERROR_CANT_RESOLVE_FILENAME: i32 = 1921;

/// A directory that stays the same one: its handle does not share the right to rename or remove it,
/// and its path has no links left to be changed.
#[derive(Debug)]
pub(crate) struct Directory {
    /// In the `\\?\` form, which has no limit of 260 characters.
    path: PathBuf,
    handle: File,
    can_sync: bool,
}

impl Directory {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a name in this directory, as the system understands names that are not in the
    /// `\\?\` form: without dots and spaces at the end, and devices are devices.
    pub(super) fn join(&self, name: &Path) -> PathBuf {
        let mut path = self.path.clone();
        for component in name.components() {
            let Component::Normal(component) = component else {
                path.push(component);
                continue;
            };
            let component = without_trailing_dots(component);
            match path::absolute(&component) {
                Ok(device) if is_device(&device) => return device,
                _ => path.push(component),
            }
        }
        path
    }
}

impl AsHandle for crate::Writer {
    /// The staged file's handle. What is still buffered is not in the file yet: call
    /// [`flush`](io::Write::flush) first, or use [`file`](crate::Writer::file).
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.staged_file().as_handle()
    }
}

fn without_trailing_dots(name: &OsStr) -> OsString {
    let mut wide: Vec<u16> = name.encode_wide().collect();
    while wide.last().is_some_and(|&unit| unit == u16::from(b'.') || unit == u16::from(b' ')) {
        wide.pop();
    }
    OsString::from_wide(&wide)
}

/// `NUL`, `CON`, `COM1` and their like, in every directory (on Windows 11 fewer of them): the system
/// itself says which, by way of GetFullPathNameW.
fn is_device(path: &Path) -> bool {
    let first = path.components().next();
    matches!(first, Some(Component::Prefix(prefix)) if matches!(prefix.kind(), Prefix::DeviceNS(_)))
}

/// Access that is refused to nobody, however little others share.
const REFERENCE: u32 = FILE_READ_ATTRIBUTES | SYNCHRONIZE;
const LIST_AND_ADD: u32 = FILE_LIST_DIRECTORY | FILE_ADD_FILE;

pub(crate) fn open_directory(base: Option<&Directory>, path: &Path) -> io::Result<Directory> {
    let path = match base {
        Some(base) if path.as_os_str().is_empty() => base.path.clone(),
        Some(base) => base.path.join(path),
        None if path.as_os_str().is_empty() => path::absolute(".")?,
        None => path::absolute(path)?,
    };
    let path = match fs::canonicalize(&path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
        // Drivers of memory disks and the like don't know a file's final path.
        Err(_) => path,
    };
    let open = |access| {
        OpenOptions::new()
            .access_mode(access)
            .share_mode(SHARE_ALL_BUT_REMOVAL)
            .custom_flags(FILE_FLAG_BACKUP_SEMANTICS)
            .open(&path)
    };
    let (handle, can_sync) = match open(REFERENCE | LIST_AND_ADD) {
        Ok(handle) => (handle, true),
        Err(_) => (open(REFERENCE)?, false),
    };
    match handle.metadata()?.is_dir() {
        true => Ok(Directory { path, handle, can_sync }),
        false => Err(io::Error::from_raw_os_error(ERROR_DIRECTORY)),
    }
}

/// Naming Files, Paths, and Namespaces (Microsoft): what a name can't contain. A colon would lead to
/// a stream inside a file, which can't be replaced by itself.
pub(crate) fn is_invalid(path: &Path) -> bool {
    let invalid = |byte: &u8| *byte < b' ' || b"<>:\"|?*".contains(byte);
    const LONGEST: usize = 255;
    let name = path.file_name().unwrap_or_default();
    portable::is_invalid(path)
        || name.encode_wide().count() > LONGEST
        || name.as_encoded_bytes().iter().any(invalid)
        || !name.is_empty() && without_trailing_dots(name).is_empty()
}

pub(crate) fn stat(directory: &Directory, name: &Path) -> io::Result<Option<Stat>> {
    let path = directory.join(name);
    if is_device(&path) {
        return Ok(Some(of_kind(Kind::Other)));
    }
    // Without asking for any access: that is refused to nobody, however little others share.
    let opened = OpenOptions::new()
        .access_mode(0)
        .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS)
        .open(&path);
    match opened {
        Ok(file) => stat_file(&file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // What is being deleted can still be seen in its directory.
        Err(_) => portable::stat(directory, name),
    }
}

pub(crate) fn count_links(file: &File) -> io::Result<u64> {
    Ok(winapi_util::file::information(file)?.number_of_links())
}

pub(crate) fn stat_directory(directory: &Directory) -> io::Result<Stat> {
    stat_file(&directory.handle)
}

pub(crate) fn stat_file(file: &File) -> io::Result<Stat> {
    let id = winapi_util::file::information(file);
    let (dev, ino) = id.map_or((0, 0), |id| (id.volume_serial_number(), id.file_index()));
    match file.metadata() {
        Ok(metadata) => {
            let stat = portable::from_metadata(&metadata);
            let is_hidden = metadata.file_attributes() & FILE_ATTRIBUTE_HIDDEN != 0;
            let mode = if is_hidden && stat.kind == Kind::Directory { HIDDEN } else { 0 };
            Ok(Stat { dev, ino, mode, ..stat })
        }
        // GetFileInformationByHandle: only files have that.
        Err(error) if is_any(&error, &[ERROR_INVALID_FUNCTION, ERROR_INVALID_PARAMETER]) => {
            Ok(of_kind(Kind::Other))
        }
        Err(error) => Err(error),
    }
}

/// There are no modes. That of a staging directory, by which the next writer knows it, stands for the
/// hidden attribute.
const HIDDEN: u32 = 0o1700;

/// Hides a directory. `std` makes no attributes of its own, so those of a hidden file in it are taken.
/// A directory whose maker is killed before that looks like a user's own, and stays, empty.
pub(crate) fn set_directory_mode(directory: &Directory, _mode: u32) -> io::Result<()> {
    let hidden = OpenOptions::new()
        .write(true)
        .create_new(true)
        .attributes(FILE_ATTRIBUTE_HIDDEN)
        .custom_flags(FILE_FLAG_DELETE_ON_CLOSE)
        .open(directory.join(&scratch_name()))?;
    fs::set_permissions(directory.path(), hidden.metadata()?.permissions())
}

fn scratch_name() -> PathBuf {
    PathBuf::from(format!(".{:016x}.write-atomically", crate::staging::random()))
}

/// Whether the caller may write what is there: the read-only attribute, then the access rights.
pub(crate) fn check_writable(directory: &Directory, name: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(directory.join(name))?;
    // On a directory the attribute says something else.
    if !metadata.is_dir() && metadata.permissions().readonly() {
        return Err(super::error(Code::NoAccess));
    }
    match portable::check_writable(directory, name) {
        // Somebody has it open: that comes after the access rights, and may be over by the time
        // when it is published.
        Err(error) if is_any(&error, &[ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION]) => Ok(()),
        checked => checked,
    }
}

/// Hidden until it is published.
///
/// Not opened with `FILE_FLAG_DELETE_ON_CLOSE`, which would leave nothing when the process is
/// killed: nothing in `std` takes that flag off again, and whether the file survives under its new
/// name when the handle is closed is undocumented.
pub(crate) fn stage_named(directory: &Directory, name: &Path, _mode: u32) -> io::Result<File> {
    let path = directory.join(name);
    let staged = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .attributes(FILE_ATTRIBUTE_HIDDEN)
        .open(&path);
    match staged {
        // An entry that is being deleted and still open somewhere, or a directory.
        Err(error) if is_any(&error, &[ERROR_ACCESS_DENIED]) => match fs::symlink_metadata(&path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Err(error),
            _ => Err(super::error(Code::AlreadyExists)),
        },
        staged => staged,
    }
}

pub(crate) fn stage_elsewhere() -> io::Result<File> {
    let directory = open_directory(None, &std::env::temp_dir())?;
    loop {
        let staged = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .attributes(FILE_ATTRIBUTE_HIDDEN | FILE_ATTRIBUTE_TEMPORARY)
            .custom_flags(FILE_FLAG_DELETE_ON_CLOSE)
            .share_mode(0)
            .open(directory.join(&scratch_name()));
        match staged {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            staged => return staged,
        }
    }
}

/// The directory is hidden already.
pub(crate) fn stage_inside(directory: &Directory, name: &Path, mode: u32) -> io::Result<File> {
    portable::stage_named(directory, name, mode)
}

/// Opens what nobody else has open: CreateFileW refuses an opening that does not share what another
/// handle does. A writer has its staging file open from its creation to its publishing; so what can
/// be opened like this is dead, and nobody else takes it while it is open. Removing it is shared.
pub(crate) fn open_to_lock(directory: &Directory, name: &Path) -> io::Result<File> {
    let opened = OpenOptions::new()
        .read(true)
        .share_mode(FILE_SHARE_DELETE)
        .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT)
        .open(directory.join(name));
    or_would_block(opened)
}

fn or_would_block<T>(opened: io::Result<T>) -> io::Result<T> {
    match opened {
        Err(error) if is_any(&error, &[ERROR_SHARING_VIOLATION]) => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        opened => opened,
    }
}

/// For writing, too: only such a handle can be synced. Nobody else may still be writing.
pub(crate) fn open_to_finish(directory: &Directory, name: &Path) -> io::Result<File> {
    let path = directory.join(name);
    let open = |access| {
        patiently(|| {
            OpenOptions::new()
                .access_mode(access)
                .share_mode(FILE_SHARE_READ | FILE_SHARE_DELETE)
                .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS)
                .open(&path)
        })
    };
    let metadata = fs::symlink_metadata(&path)?;
    if metadata.is_dir() {
        return open(REFERENCE);
    }
    let is_read_only = allow_writing(&path, &metadata)?;
    let file = open(GENERIC_READ | GENERIC_WRITE)?;
    if is_read_only {
        // Who has it open already may go on writing.
        file.set_permissions(metadata.permissions())?;
    }
    Ok(file)
}

/// Takes the read-only attribute off, and says whether it was there.
fn allow_writing(path: &Path, metadata: &fs::Metadata) -> io::Result<bool> {
    let mut permissions = metadata.permissions();
    if !permissions.readonly() {
        return Ok(false);
    }
    #[allow(clippy::permissions_set_readonly_false)] // On Unix that would mean more.
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).map(|()| true)
}

/// In nobody's way, not even that of its removal.
pub(crate) fn open_itself(directory: &Directory) -> io::Result<File> {
    OpenOptions::new()
        .access_mode(REFERENCE)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS)
        .open(&directory.path)
}

pub(crate) const HAS_PRIVATE_DIRECTORIES: bool = true;

pub(crate) const DESCRIPTORS_ARE_FEW: bool = false;

/// Pinned like any other directory, so that nobody puts a link in its place.
pub(crate) fn open_subdirectory(directory: &Directory, name: &Path) -> io::Result<Directory> {
    let path = directory.join(name);
    let handle = open_child(&path, REFERENCE | LIST_AND_ADD, SHARE_ALL_BUT_REMOVAL)?;
    match handle.metadata()?.is_dir() {
        true => Ok(Directory { path, handle, can_sync: true }),
        false => Err(super::error(Code::NotADirectory)),
    }
}

fn open_child(path: &Path, access: u32, share: u32) -> io::Result<File> {
    OpenOptions::new()
        .access_mode(access)
        .share_mode(share)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT)
        .open(path)
}

/// The lock of a directory is a handle that does not share its removal.
pub(crate) fn hold_directory(parent: &Directory, name: &Path) -> io::Result<(Directory, Lock)> {
    or_would_block(open_subdirectory(parent, name)).map(|held| (held, Lock::Held))
}

/// What can be opened to be removed is held by nobody. That handle would be in the way of those that
/// clearing the directory takes, and so it is held instead; in between, another handle makes sure that
/// it stays the same one.
pub(crate) fn seize_directory(parent: &Directory, name: &Path) -> io::Result<(Directory, Lock)> {
    let path = parent.join(name);
    let seized = or_would_block(open_child(&path, DELETE, SHARE_ALL_BUT_REMOVAL))?;
    let witness = open_child(&path, REFERENCE, SHARE_ALL_BUT_REMOVAL | FILE_SHARE_DELETE)?;
    drop(seized);
    let (directory, lock) = hold_directory(parent, name)?;
    match stat_directory(&directory)?.is_same_file(&stat_file(&witness)?) {
        true => Ok((directory, lock)),
        false => Err(super::error(Code::NotFound)),
    }
}

/// The handle is the lock: see [`hold_directory`].
pub(crate) fn try_lock_directory(_directory: &Directory) -> Lock {
    Lock::Held
}

/// Closed before, because it does not share its removal. If somebody takes it for dead meanwhile, it
/// goes all the same; and who makes a new one of that name has it open, or finds it gone.
pub(crate) fn remove_held_directory(
    parent: &Directory,
    name: &Path,
    directory: Arc<Directory>,
) -> io::Result<Option<Arc<Directory>>> {
    drop(directory);
    match patiently(|| remove_directory(parent, name)) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            let (directory, _) = seize_directory(parent, name)?;
            Ok(Some(Arc::new(directory)))
        }
        Err(error) => Err(error),
    }
}

/// RemoveDirectoryW: links to directories are removed like those.
pub(crate) fn remove(directory: &Directory, name: &Path) -> io::Result<()> {
    let path = directory.join(name);
    remove_writable(&path, |path| match fs::symlink_metadata(path)?.file_type() {
        link if link.is_symlink_dir() => fs::remove_dir(path),
        _ => fs::remove_file(path),
    })
}

pub(crate) fn remove_directory(directory: &Directory, name: &Path) -> io::Result<()> {
    remove_writable(&directory.join(name), |path| fs::remove_dir(path))
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

/// Without `\\?\`, which many programs don't understand, where it means the same.
pub(crate) fn plain_path(path: PathBuf) -> PathBuf {
    const MAX_PATH: usize = 260;
    let Some(Component::Prefix(prefix)) = path.components().next() else { return path };
    let (verbatim, start) = match prefix.kind() {
        Prefix::VerbatimDisk(_) => (r"\\?\", ""),
        Prefix::VerbatimUNC(..) => (r"\\?\UNC\", r"\\"),
        _ => return path,
    };
    let rest = path.as_os_str().encode_wide().skip(verbatim.len());
    let plain =
        PathBuf::from(OsString::from_wide(&start.encode_utf16().chain(rest).collect::<Vec<_>>()));
    let is_short = plain.as_os_str().encode_wide().count() < MAX_PATH;
    match path::absolute(&plain) {
        Ok(meant) if is_short && meant.as_os_str() == plain.as_os_str() => plain,
        _ => path,
    }
}

/// Waiting is the opening, too: where this is refused, somebody holds the lock.
pub(crate) fn open_to_update(directory: &Directory, name: &Path) -> io::Result<File> {
    let path = directory.join(name);
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).share_mode(FILE_SHARE_DELETE).open(&path)
    };
    match open() {
        // It is being removed by the one who held it.
        Err(error) if is_any(&error, &[ERROR_ACCESS_DENIED]) => or_would_block(patiently(open)),
        opened => or_would_block(opened),
    }
}

/// LockFileEx would lock readers out of the destination: an entry beside it is locked instead.
pub(crate) const LOCKS_DESTINATIONS: bool = false;

/// Held by whoever could open it: see [`open_to_update`].
pub(crate) fn lock(_file: &File) -> Lock {
    Lock::Held
}

/// For writing, too, if that is allowed: only such a handle can be synced.
pub(crate) fn open_to_compare(directory: &Directory, name: &Path) -> io::Result<File> {
    let path = directory.join(name);
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    opened.or_else(|_| File::open(path))
}

/// The lock is the opening: see [`open_to_lock`].
pub(crate) fn try_lock(_file: &File) -> Lock {
    Lock::Held
}

/// Whoever opens a file for reading without sharing it for writing (`FileShare.Read`, the default of
/// .NET) is refused while a handle for writing is open. From here on we only have it open for
/// reading, still without a moment when nobody has it open.
pub(crate) fn stop_writing(file: &mut File, directory: &Directory, name: &Path) -> io::Result<()> {
    *file = patiently(|| File::open(directory.join(name)))?;
    Ok(())
}

pub(crate) fn rename_to(
    directory: &Directory,
    from: &Path,
    other: &Directory,
    to: &Path,
) -> io::Result<()> {
    patiently(|| portable::rename_to(directory, from, other, to))
}

pub(crate) fn rename_new(directory: &Directory, from: &Path, to: &Path) -> io::Result<()> {
    match patiently(|| fs::hard_link(directory.join(from), directory.join(to))) {
        // It is published; if the old name does not go now, the next writer removes it.
        Ok(()) => {
            let _ = remove(directory, from);
            Ok(())
        }
        // CreateHardLinkW: NTFS and ReFS have hard links; FAT and exFAT don't, and there is nothing
        // else in `std` that never replaces.
        Err(error) if is_any(&error, &[ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED]) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        Err(error) => Err(error),
    }
}

/// For how long a file that somebody else has open is tried again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Virus scanners, indexers and backups open what has just been written, and let go of it soon.
fn patiently<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const IN_USE: [i32; 3] = [ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION, ERROR_ACCESS_DENIED];
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match call() {
            Err(error) if is_any(&error, &IN_USE) && start.elapsed() + pause < PATIENCE => {}
            done => return done,
        }
        // Of different length for everyone, lest those who wait for each other do so in step.
        thread::sleep(
            pause.mul_f64(0.5 + f64::from(crate::staging::random()) / f64::from(u32::MAX)),
        );
        pause = (pause * 2).min(Duration::from_millis(16));
    }
}

pub(crate) fn hint(step: Step, error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        ERROR_SHARING_VIOLATION | ERROR_LOCK_VIOLATION => Some(
            "another program has it open and does not share it; a virus scanner, a search indexer, \
             a backup or an editor is likely",
        ),
        ERROR_ACCESS_DENIED if step == Step::Publish => Some(
            "another program may have it open (a virus scanner, a search indexer, a backup or an \
             editor is likely), or deleting it is not permitted",
        ),
        _ => None,
    }
}

/// The attributes that users set: hidden, system, not to be indexed, and so on. What can't be set
/// (compressed, encrypted) comes from the directory.
pub(crate) fn carry_flags_over(directory: &Directory, name: &Path, file: &File) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(directory.join(name)) else {
        return reveal(directory, file);
    };
    match file.set_permissions(metadata.permissions()) {
        Ok(()) => Ok(()),
        Err(_) => reveal(directory, file),
    }
}

/// `std` makes no [`fs::Permissions`] of its own, and on Windows they are a file's attributes: those
/// of another new file, which goes at once, will do.
pub(crate) fn reveal(directory: &Directory, file: &File) -> io::Result<()> {
    if file.metadata()?.file_attributes() & FILE_ATTRIBUTE_HIDDEN == 0 {
        return Ok(());
    }
    let plain = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(FILE_FLAG_DELETE_ON_CLOSE)
        .open(directory.join(&scratch_name()))?;
    file.set_permissions(plain.metadata()?.permissions())
}

/// Whether closing a file may fail to write it. Not known here.
pub(crate) fn writes_on_close(_file: &File, _is_named: bool) -> bool {
    false
}

pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    match file.sync_all() {
        // FlushFileBuffers: not for handles that are open only for reading. What is read is not ours.
        Err(error) if is_any(&error, &[ERROR_ACCESS_DENIED]) => Ok(()),
        done => done,
    }
}

pub(crate) fn sync_overwritten(file: &File) -> io::Result<()> {
    match file.sync_all() {
        // FlushFileBuffers: not every device knows what that is.
        Err(error) if is_any(&error, &NO_SYNC) => Ok(()),
        done => done,
    }
}

/// How the system says that this can't be synced.
const NO_SYNC: [i32; 5] = [
    ERROR_INVALID_FUNCTION,
    ERROR_ACCESS_DENIED,
    ERROR_INVALID_HANDLE,
    ERROR_NOT_SUPPORTED,
    ERROR_INVALID_PARAMETER,
];

/// FlushFileBuffers on the directory: what NTFS logs, the new name among it, is on the disk then.
pub(crate) fn sync_directory(directory: &Directory, _file: &File) -> io::Result<()> {
    if !directory.can_sync {
        return Ok(());
    }
    match directory.handle.sync_all() {
        // Other filesystems, and servers, may not know that for directories.
        Err(error) if is_any(&error, &NO_SYNC) => Ok(()),
        done => done,
    }
}

/// There is nothing that would: what can't be opened can't be synced.
pub(crate) fn sync_filesystem(_file: &File) -> io::Result<()> {
    Err(super::error(Code::NoAccess))
}

fn is_any(error: &io::Error, codes: &[i32]) -> bool {
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

pub(crate) fn error(code: Code) -> io::Error {
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
