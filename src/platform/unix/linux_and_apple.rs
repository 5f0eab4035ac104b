//! What Linux and Apple's systems both have: `renameat2` or `renameatx_np`, and the same calls for
//! extended attributes.

use std::io;

use rustix::io::Errno;

/// A rename that must not replace anything, and what to do `otherwise`.
///
/// Linux, rename(2), `RENAME_NOREPLACE`: EINVAL if the filesystem does not support it. macOS,
/// rename(2), `RENAME_EXCL`: ENOTSUP if the volume lacks `VOL_CAP_INT_RENAME_EXCL`.
pub(super) fn renamed_or(
    renamed: Result<(), Errno>,
    otherwise: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    match renamed {
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => otherwise(),
        done => Ok(done?),
    }
}

/// Reads an attribute, or the list of their names, into a buffer that grows as far as `longest`.
pub(super) fn read_growing(
    longest: usize,
    read: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 512];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < longest => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
}

/// The names in a list of attributes: each ends with a NUL.
pub(super) fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == 0).filter(|name| !name.is_empty())
}
