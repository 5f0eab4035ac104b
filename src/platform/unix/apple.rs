//! macOS and its relatives: extended attributes, and `renameatx_np`.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{self, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::attributes::{names, read_growing};
use crate::platform::{Directory, Os, Platform};

impl Platform for Os {
    /// rename(2): `RENAME_EXCL` is ENOTSUP on a volume without `VOL_CAP_INT_RENAME_EXCL`.
    fn rename_in_one_step(
        old: &Directory,
        from: &Path,
        new: &Directory,
        to: &Path,
    ) -> io::Result<()> {
        Ok(fs::renameat_with(old, from, new, to, RenameFlags::NOREPLACE)?)
    }

    fn exchange(old: &Directory, from: &Path, new: &Directory, to: &Path) -> io::Result<()> {
        Ok(fs::renameat_with(old, from, new, to, RenameFlags::EXCHANGE)?)
    }

    fn attributes(directory: &Directory, name: &Path) -> io::Result<Vec<Vec<u8>>> {
        let file = Os::open_to_lock(directory, name)?;
        match read_growing(LONGEST, |buffer| fs::flistxattr(&file, buffer)) {
            Ok(list) => Ok(names(&list).map(|name| [USER, name].concat()).collect()),
            Err(Errno::NOTSUP) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn attribute(directory: &Directory, name: &Path, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let Some(key) = key.strip_prefix(USER) else { return Ok(None) };
        let file = Os::open_to_lock(directory, name)?;
        match read_growing(LONGEST, |buffer| fs::fgetxattr(&file, key, buffer)) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NOATTR | Errno::NOTSUP | Errno::ACCESS | Errno::PERM) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn set_attribute(file: &File, key: &[u8], value: &[u8]) -> io::Result<()> {
        let Some(key) = key.strip_prefix(USER) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        Ok(fs::fsetxattr(file, key, value, XattrFlags::empty())?)
    }
}

/// Attributes have no namespaces here (`com.apple.FinderInfo`): all are the user's. This prefix is
/// added to the names that callers see, and removed from those that they give.
const USER: &[u8] = b"user.";

/// A resource fork is an attribute, too, and may be larger than 16 MiB.
const LONGEST: usize = 1 << 28;
