//! A directory where `std` can only open it by its path.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{self, Path, PathBuf};

use super::from_metadata;
use crate::platform::{Code, Os, Platform, Stat};

/// A directory by its absolute path: it stays the same one when the working directory changes, but not
/// when a directory on its path is renamed.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// To be synced; not every system opens directories.
    file: Option<File>,
}

impl Directory {
    pub(in crate::platform) fn open(base: Option<&Directory>, path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let path = match base {
            Some(base) => base.join(path),
            None => path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        };
        match fs::metadata(&path)?.is_dir() {
            true => Ok(Directory { file: File::open(&path).ok(), path }),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: &Path) -> PathBuf {
        self.path.join(name)
    }

    pub(in crate::platform) fn open_child(&self, name: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(self.join(name))?.is_dir() {
            true => Directory::open(Some(self), name),
            false => Err(Os::error(Code::NotADirectory)),
        }
    }

    /// `std` tells no number that identifies a directory. A hash of its absolute path takes its place.
    pub(in crate::platform) fn stat(&self) -> io::Result<Stat> {
        let metadata = fs::metadata(&self.path)?;
        let mut hasher = DefaultHasher::new();
        self.path.hash(&mut hasher);
        Ok(Stat { ino: hasher.finish(), ..from_metadata(&metadata) })
    }

    /// As far as the system lets directories be opened and synced.
    pub(in crate::platform) fn sync(&self, _file: &File) -> io::Result<()> {
        use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
        /// wasi-libc, errno.h: wasmtime's answer when a directory is synced.
        const EBADF: i32 = 8;
        let Some(file) = &self.file else { return Ok(()) };
        match file.sync_all() {
            Err(error) if error.raw_os_error() == Some(EBADF) => Ok(()),
            Err(e) if matches!(e.kind(), InvalidInput | PermissionDenied | Unsupported) => Ok(()),
            done => done,
        }
    }
}
