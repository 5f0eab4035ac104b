//! Names as Windows understands them.

use std::ffi::{OsStr, OsString};
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::path::{self, Component, Path, PathBuf, Prefix};

pub(super) fn without_trailing_dots(name: &OsStr) -> OsString {
    let mut wide: Vec<u16> = name.encode_wide().collect();
    while wide.last().is_some_and(|&unit| unit == u16::from(b'.') || unit == u16::from(b' ')) {
        wide.pop();
    }
    OsString::from_wide(&wide)
}

/// `NUL`, `CON`, `COM1` and their like, in every directory (on Windows 11 fewer of them). The system
/// itself says which: `std` calls GetFullPathNameW to make a path absolute.
pub(super) fn is_device(path: &Path) -> bool {
    let first = path.components().next();
    matches!(first, Some(Component::Prefix(prefix)) if matches!(prefix.kind(), Prefix::DeviceNS(_)))
}

/// Naming Files, Paths, and Namespaces (Microsoft): what a name cannot contain. A colon would lead to a
/// stream inside a file, which cannot be replaced by itself.
pub(super) fn is_invalid(path: &Path) -> bool {
    let invalid = |byte: &u8| *byte < b' ' || b"<>:\"|?*".contains(byte);
    /// NTFS, and most other filesystems: in UTF-16 units.
    const LONGEST: usize = 255;
    let name = path.file_name().unwrap_or_default();
    path.as_os_str().as_encoded_bytes().contains(&0)
        || name.encode_wide().count() > LONGEST
        || name.as_encoded_bytes().iter().any(invalid)
        || !name.is_empty() && without_trailing_dots(name).is_empty()
}

/// Removes `\\?\`, which many programs don't understand, where the path means the same without.
pub(super) fn plain_path(path: PathBuf) -> PathBuf {
    /// minwindef.h: the limit without `\\?\`.
    const MAX_PATH: usize = 260;
    let Some(Component::Prefix(prefix)) = path.components().next() else { return path };
    let (verbatim, start) = match prefix.kind() {
        Prefix::VerbatimDisk(_) => (r"\\?\", ""),
        Prefix::VerbatimUNC(..) => (r"\\?\UNC\", r"\\"),
        _ => return path,
    };
    let rest = path.as_os_str().encode_wide().skip(verbatim.len());
    let plain: Vec<u16> = start.encode_utf16().chain(rest).collect();
    let is_short = plain.len() < MAX_PATH;
    let plain = PathBuf::from(OsString::from_wide(&plain));
    match path::absolute(&plain) {
        Ok(meant) if is_short && meant.as_os_str() == plain.as_os_str() => plain,
        _ => path,
    }
}
