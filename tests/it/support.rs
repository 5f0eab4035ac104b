//! What the modules share beside directories: the state before and after, options, errors.

use std::fmt::{Debug, Display};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::thread;

use write_atomically::{Durability, Error, Step, WriteOptions};

#[path = "../support/mod.rs"]
mod directories;

pub use directories::*;

/// A directory with a neighbour that is to stay as it is and, perhaps, a destination, `file`.
pub fn prepare(filesystem: &str, old: Option<&str>) -> Directory {
    let directory = Directory::on(filesystem);
    directory.file("neighbour", "untouched");
    if let Some(old) = old {
        directory.file("file", old);
    }
    directory
}

/// The whole state: the listing, the destination's content, and its neighbour's.
#[track_caller]
pub fn assert_state(directory: &Directory, content: Option<&str>) {
    let expected: &[&str] = if content.is_some() { &["file", "neighbour"] } else { &["neighbour"] };
    assert_eq!(directory.listing(), expected);
    assert_destination(directory, content);
}

/// The same, whatever else may be there.
#[track_caller]
pub fn assert_destination(directory: &Directory, content: Option<&str>) {
    let path = directory.join("file");
    assert_eq!(path.exists(), content.is_some());
    if let Some(content) = content {
        assert!(read(&path) == content, "neither whole nor expected");
    }
    assert_eq!(read(&directory.join("neighbour")), "untouched");
}

/// More than a buffer, and no multiple of a block.
pub fn new_content() -> String {
    "new content ".repeat(20_000)
}

/// What the first staging entry of a file is called. FUSE may serve the same directory to others, who see
/// none of our locks: there the name belongs to this machine and this mount, and only the library knows it.
pub fn staging_name(filesystem: &str, path: &Path) -> String {
    let plain = format!(".{}.write-atomically", path.file_name().unwrap().to_string_lossy());
    if filesystem != "fuse" {
        return plain;
    }
    let mut name = String::new();
    let ended = relaxed().write_path(path, |staged| {
        let directory = staged.parent().unwrap();
        name = directory.file_name().unwrap().to_string_lossy().into_owned();
        Err::<(), _>(io::Error::other("this is all there is to see"))
    });
    assert_eq!(ended.unwrap_err().to_string(), "this is all there is to see");
    let own = name.strip_prefix(&format!("{plain}-")).unwrap_or_else(|| panic!("{name}"));
    assert!(own.len() == 16 && own.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    name
}

pub fn relaxed() -> WriteOptions {
    WriteOptions::new().durability(Durability::Relaxed)
}

pub fn step(error: &anyhow::Error) -> Step {
    Error::find(error.as_ref()).expect("an error of the library").step()
}

/// The error of a write whose closure must not run.
pub fn refused(options: &WriteOptions, path: impl AsRef<Path>) -> io::Error {
    let result: io::Result<()> =
        options.write(path, |_| panic!("the closure ran, and would have worked in vain"));
    result.unwrap_err()
}

/// Under wine, which replaces no file that anybody has open: with so many that look at it, the
/// moment when nobody does may not come in time.
pub fn may_be_starved(written: &io::Result<()>) -> bool {
    let denied = |error: &io::Error| error.kind() == ErrorKind::PermissionDenied;
    cfg!(wine) && written.as_ref().is_err_and(denied)
}

/// What is left of a call whose closure has failed or panicked is the closure's own.
#[track_caller]
pub fn assert_failed<T: Debug, E: Debug + Display>(result: thread::Result<Result<T, E>>) {
    match result {
        Ok(error) => assert_eq!(error.unwrap_err().to_string(), "no more rows"),
        Err(panic) => assert_eq!(panic.downcast_ref(), Some(&"a bug")),
    }
}

/// `ErrorKind::InvalidFilename`, which has no stable name before Rust 1.87.
pub fn invalid_filename() -> ErrorKind {
    #[cfg(unix)]
    let too_long = io::Error::from(rustix::io::Errno::NAMETOOLONG);
    // ERROR_FILENAME_EXCED_RANGE; WASI's ENAMETOOLONG.
    #[cfg(not(unix))]
    let too_long = io::Error::from_raw_os_error(if cfg!(windows) { 206 } else { 37 });
    too_long.kind()
}
