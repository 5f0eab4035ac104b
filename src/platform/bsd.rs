//! FreeBSD and NetBSD: extended attributes (extattr(2)), by descriptor.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use xattr::FileExt;

pub(crate) use super::unix::*;

/// Their names start with the namespace, `user.` or `system.`, as on Linux. What may not be read can't
/// be carried over.
pub(crate) fn attributes(directory: &Directory, name: &Path) -> io::Result<Vec<Vec<u8>>> {
    match open_to_lock(directory, name)?.list_xattr() {
        Ok(list) => Ok(list.map(OsStringExt::into_vec).collect()),
        Err(error) if is_lacking(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// `None` if it is not there any more, or the caller may not read it.
pub(crate) fn attribute(
    directory: &Directory,
    name: &Path,
    attribute: &[u8],
) -> io::Result<Option<Vec<u8>>> {
    match open_to_lock(directory, name)?.get_xattr(OsStr::from_bytes(attribute)) {
        Err(error) if is_lacking(&error) => Ok(None),
        read => read,
    }
}

pub(crate) fn set_attribute(file: &File, attribute: &[u8], value: &[u8]) -> io::Result<()> {
    file.set_xattr(OsStr::from_bytes(attribute), value)
}

/// The filesystem has none, or they are not the caller's to read.
fn is_lacking(error: &io::Error) -> bool {
    is_unsupported(error) || error.kind() == io::ErrorKind::PermissionDenied
}
