//! FreeBSD and NetBSD: extended attributes (extattr(2)), by descriptor.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use xattr::FileExt;

use crate::platform::{Directory, Os, Platform};

impl Platform for Os {
    /// The `xattr` crate puts the namespace, `user.` or `system.`, before each name, as on Linux.
    fn attributes(directory: &Directory, name: &Path) -> io::Result<Vec<Vec<u8>>> {
        match Os::open_to_lock(directory, name)?.list_xattr() {
            Ok(list) => Ok(list.map(OsStringExt::into_vec).collect()),
            Err(error) if is_lacking(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn attribute(directory: &Directory, name: &Path, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match Os::open_to_lock(directory, name)?.get_xattr(OsStr::from_bytes(key)) {
            Err(error) if is_lacking(&error) => Ok(None),
            read => read,
        }
    }

    fn set_attribute(file: &File, key: &[u8], value: &[u8]) -> io::Result<()> {
        file.set_xattr(OsStr::from_bytes(key), value)
    }
}

/// The filesystem has no attributes, or the caller may not read them: nothing is carried over.
fn is_lacking(error: &io::Error) -> bool {
    Os::is_unsupported(error) || error.kind() == io::ErrorKind::PermissionDenied
}
