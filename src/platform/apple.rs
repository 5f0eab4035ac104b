//! macOS and its relatives: extended attributes, and `renameatx_np`.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{self, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::unix;
pub(crate) use super::unix::*;

/// rename(2), `RENAME_EXCL`: ENOTSUP where the volume can't (`VOL_CAP_INT_RENAME_EXCL`).
pub(crate) fn rename_new(directory: &Directory, from: &Path, to: &Path) -> io::Result<()> {
    match fs::renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
        Err(Errno::NOTSUP | Errno::INVAL | Errno::NOSYS) => unix::rename_new(directory, from, to),
        done => Ok(done?),
    }
}

pub(crate) fn rename_new_directory(
    directory: &Directory,
    from: &Path,
    other: &Directory,
    to: &Path,
) -> io::Result<()> {
    match fs::renameat_with(directory, from, other, to, RenameFlags::NOREPLACE) {
        Err(Errno::NOTSUP | Errno::INVAL | Errno::NOSYS) => {
            unix::rename_new_directory(directory, from, other, to)
        }
        done => Ok(done?),
    }
}

/// rename(2), `RENAME_SWAP`.
pub(crate) fn exchange(
    directory: &Directory,
    name: &Path,
    other: &Directory,
    other_name: &Path,
) -> io::Result<()> {
    Ok(fs::renameat_with(directory, name, other, other_name, RenameFlags::EXCHANGE)?)
}

/// There are no namespaces here (`com.apple.FinderInfo`): all attributes are the user's. The prefix
/// says so above, and goes again below.
const USER: &[u8] = b"user.";

pub(crate) fn attributes(directory: &Directory, name: &Path) -> io::Result<Vec<Vec<u8>>> {
    let file = open_to_lock(directory, name)?;
    match read_growing(|buffer| fs::flistxattr(&file, buffer)) {
        Ok(list) => {
            let names = list.split(|&byte| byte == 0).filter(|name| !name.is_empty());
            Ok(names.map(|name| [USER, name].concat()).collect())
        }
        Err(Errno::NOTSUP) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// `None` if it is not there any more, or the caller may not read it.
pub(crate) fn attribute(
    directory: &Directory,
    name: &Path,
    attribute: &[u8],
) -> io::Result<Option<Vec<u8>>> {
    let Some(attribute) = attribute.strip_prefix(USER) else { return Ok(None) };
    let file = open_to_lock(directory, name)?;
    match read_growing(|buffer| fs::fgetxattr(&file, attribute, buffer)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOATTR | Errno::NOTSUP | Errno::ACCESS | Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn set_attribute(file: &File, attribute: &[u8], value: &[u8]) -> io::Result<()> {
    let Some(attribute) = attribute.strip_prefix(USER) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    Ok(fs::fsetxattr(file, attribute, value, XattrFlags::empty())?)
}

/// A resource fork is an attribute, too, and takes up to 16 MiB and more.
fn read_growing(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 512];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 28 => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
}
