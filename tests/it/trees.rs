//! What the tests of paths, directories and batches share: trees to look at.

use std::collections::BTreeMap;
#[cfg(unix)]
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

use crate::support;

/// All that is below a directory: paths, and contents, link targets or kinds.
pub fn tree(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut to_visit = vec![directory.to_owned()];
    while let Some(next) = to_visit.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let what = match kind {
                _ if kind.is_dir() => "directory".to_owned(),
                _ if kind.is_symlink() => format!("-> {}", fs::read_link(&path).unwrap().display()),
                _ if kind.is_file() => support::read(&path),
                _ if is_fifo(kind) => "FIFO".to_owned(),
                _ => "other".to_owned(),
            };
            if kind.is_dir() {
                to_visit.push(path.clone());
            }
            all.insert(path.strip_prefix(directory).unwrap().to_owned(), what);
        }
    }
    all
}

#[cfg(unix)]
fn is_fifo(kind: std::fs::FileType) -> bool {
    kind.is_fifo()
}

#[cfg(not(unix))]
fn is_fifo(_kind: std::fs::FileType) -> bool {
    false
}

/// A tree as [`tree`] shows it.
pub fn expected<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<PathBuf, String> {
    entries.into_iter().map(|(path, what)| (PathBuf::from(path), what.to_owned())).collect()
}

pub fn make_fifo(path: &Path) {
    support::run(Command::new("mkfifo").arg(path));
}

/// So deep that its path is longer than any system call takes, unless that is cut by `levels`.
#[cfg(unix)]
pub fn make_deep_tree(top: &Path, levels: usize) {
    use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut level = open(top, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        let files = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(openat(&level, "file", files, Mode::RUSR | Mode::WUSR).unwrap());
        mkdirat(&level, "directory", Mode::RWXU).unwrap();
        level = openat(&level, "directory", flags, Mode::empty()).unwrap();
    }
}
