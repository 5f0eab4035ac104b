//! What the tests of paths, directories and batches share: trees to look at.

use std::collections::BTreeMap;
#[cfg(unix)]
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

use crate::child;
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

/// The names of those system calls that bring something to stable storage or move it, in the order in
/// which a child makes them, leaving out what it does before and after `mkdirat`ing and `rmdir`ing.
pub fn calls_that_matter(module: &str, role: &str, path: &Path) -> Vec<String> {
    calls_that_matter_with(module, &[], role, path)
}

/// The same with more options of strace(1).
pub fn calls_that_matter_with(
    module: &str,
    options: &[&str],
    role: &str,
    path: &Path,
) -> Vec<String> {
    let matters = ["-e", "trace=fsync,fdatasync,syncfs,renameat,renameat2,linkat"];
    let log = child::strace(module, &[&matters, options].concat(), role, path);
    let name =
        |line: &str| Some(line.split_once(' ')?.1.trim_start().split_once('(')?.0.to_owned());
    log.lines().filter(|line| !line.contains("+++")).filter_map(name).collect()
}

/// Lowers a limit of this process: for children.
#[cfg(unix)]
pub fn limit_descriptors(to: u64) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Nofile, Rlimit { current: Some(to), maximum: Some(to) }).unwrap();
}

/// Opens files until there are no descriptors left.
pub fn use_all_descriptors() -> Vec<fs::File> {
    std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect()
}
