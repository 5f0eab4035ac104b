//! A pinned directory: an open handle, and a path that cannot change while it is open.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::path::{self, Component, Path, PathBuf};

use super::codes::*;
use super::names::{is_device, without_trailing_dots};
use crate::platform::{Code, Os, Platform, Stat};

/// The handle does not share the right to rename or remove the directory, and no component of the path
/// is a link that could be changed.
#[derive(Debug)]
pub(crate) struct Directory {
    /// In the `\\?\` form, which has no limit of 260 characters.
    path: PathBuf,
    handle: File,
    can_sync: bool,
}

impl Directory {
    pub(in crate::platform) fn open(base: Option<&Directory>, path: &Path) -> io::Result<Self> {
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
        let open = |access| open_handle(&path, access, SHARE_ALL_BUT_REMOVAL, 0);
        let (handle, can_sync) = match open(REFERENCE | LIST_AND_ADD) {
            Ok(handle) => (handle, true),
            Err(_) => (open(REFERENCE)?, false),
        };
        match handle.metadata()?.is_dir() {
            true => Ok(Directory { path, handle, can_sync }),
            false => Err(Os::error(Code::NotADirectory)),
        }
    }

    /// Pins a directory inside another, so that nobody can put a link in its place.
    pub(in crate::platform) fn open_child(&self, name: &Path) -> io::Result<Self> {
        let path = self.join(name);
        let access = REFERENCE | LIST_AND_ADD;
        let flags = FILE_FLAG_OPEN_REPARSE_POINT;
        let handle = open_handle(&path, access, SHARE_ALL_BUT_REMOVAL, flags)?;
        match handle.metadata()?.is_dir() {
            true => Ok(Directory { path, handle, can_sync: true }),
            false => Err(Os::error(Code::NotADirectory)),
        }
    }

    pub(in crate::platform::portable) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a name in this directory. `\\?\` turns off what the system does to names elsewhere, so
    /// it is done here: dots and spaces at the end are dropped, and the names of devices are devices.
    pub(in crate::platform::portable) fn join(&self, name: &Path) -> PathBuf {
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

    pub(in crate::platform) fn stat(&self) -> io::Result<Stat> {
        Os::stat_file(&self.handle)
    }

    /// FlushFileBuffers on the directory: what NTFS logs, the new name among it, is on the disk then.
    pub(in crate::platform) fn sync(&self, _file: &File) -> io::Result<()> {
        if !self.can_sync {
            return Ok(());
        }
        match self.handle.sync_all() {
            // Other filesystems, and servers, may not know that for directories.
            Err(error) if is_any(&error, &NO_SYNC) => Ok(()),
            done => done,
        }
    }
}

/// Opens a file or a directory.
pub(super) fn open_handle(path: &Path, access: u32, share: u32, flags: u32) -> io::Result<File> {
    OpenOptions::new()
        .access_mode(access)
        .share_mode(share)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | flags)
        .open(path)
}
