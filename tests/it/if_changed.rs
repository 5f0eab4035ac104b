//! Promises 1, 2 and 9 for `write_if_changed`: a file whose content is the same is not touched.

use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process;

use fs_err::os::unix::fs::{OpenOptionsExt, symlink};
use fs_err::{self as fs, File};
use rstest::rstest;
use rstest_reuse::apply;
use write_atomically::{Change, Durability, Error, WriteOptions, write_if_changed};

use crate::child::{self, Child};
use crate::filesystems::filesystems;
use crate::support::{self, Directory};
use crate::trees;

/// Everything that touching a file would change.
#[derive(Debug, PartialEq)]
struct Identity {
    inode: u64,
    mode: u32,
    times: [(i64, i64); 3],
}

fn identity(path: &Path) -> Identity {
    let stat = fs::metadata(path).unwrap();
    let times = [
        (stat.mtime(), stat.mtime_nsec()),
        (stat.ctime(), stat.ctime_nsec()),
        (stat.atime(), stat.atime_nsec()),
    ];
    Identity { inode: stat.ino(), mode: stat.mode(), times }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n / 251) as u8).collect()
}

/// `other` differs from `bytes(length)`.
fn other(length: usize, how: &str) -> Vec<u8> {
    let mut bytes = bytes(length);
    match how {
        "longer" => bytes.push(0),
        "shorter" => drop(bytes.pop()),
        "empty" => bytes.clear(),
        "first byte" => bytes[0] ^= 1,
        "last byte" => bytes[length - 1] ^= 1,
        "middle byte" => bytes[length / 2] ^= 1,
        how => panic!("{how}"),
    }
    bytes
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    match role.as_str() {
        "exit" | "kill" => {
            let _ = support::relaxed().write_if_changed(&path, |w| {
                w.write_all(b"half")?;
                w.flush()?;
                match role.as_str() {
                    "exit" => process::exit(7),
                    _ => child::kill_this_process(),
                }
                io::Result::Ok(())
            });
        }
        "write 1" => {
            let answer = match support::relaxed().write_if_changed(&path, |w| w.write_all(b"1")) {
                Ok(change) => format!("{change:?}"),
                Err(error) => format!("{:?}", error.kind()),
            };
            child::say(answer);
        }
        "write 1 in place" => {
            let options = support::relaxed().in_place_fallback(true);
            child::say(format!("{:?}", options.write_if_changed(&path, |w| w.write_all(b"1"))));
        }
        "compare a lot" => {
            let length = fs::metadata(&path).unwrap().len();
            let change =
                support::relaxed().write_if_changed(&path, |w| w.file()?.set_len(length)).unwrap();
            assert_eq!(change, Change::Unchanged(()));
            child::say(child::peak_memory());
        }
        role => panic!("{role}"),
    }
}

#[apply(filesystems)]
fn the_same_bytes_leave_the_file_alone(
    #[case] filesystem: &str,
    #[values(0, 1, 65_535, 65_536, 65_537, 3 << 20)] length: usize,
    #[values(Durability::Durable, Durability::Consistent, Durability::Relaxed)]
    durability: Durability,
) {
    let directory = Directory::on(filesystem);
    let path = directory.file("file", bytes(length));
    support::set_mode(&path, 0o640);
    let before = identity(&path);
    let write = |w: &mut write_atomically::Writer| w.write_all(&bytes(length)).map(|()| 42);
    let change = WriteOptions::new().durability(durability).write_if_changed(&path, write);
    assert_eq!(change.unwrap(), Change::Unchanged(42));
    // bindfs, as root, does not tell who opened the file, and opens it without O_NOATIME.
    let mut after = identity(&path);
    if filesystem == "fuse" {
        after.times[2] = before.times[2];
    }
    assert_eq!(after, before);
    assert_eq!(directory.listing(), ["file"]);
}

#[apply(filesystems)]
fn other_bytes_are_published(
    #[case] filesystem: &str,
    #[values(1, 65_536, 65_537, 3 << 20)] length: usize,
    #[values("longer", "shorter", "empty", "first byte", "last byte", "middle byte")] how: &str,
) {
    let directory = Directory::on(filesystem);
    let path = directory.file("file", bytes(length));
    support::set_mode(&path, 0o640);
    let new = other(length, how);
    let change = support::relaxed().write_if_changed(&path, |w| w.write_all(&new).map(|()| 42));
    assert_eq!(change.unwrap(), Change::Written(42));
    assert!(fs::read(&path).unwrap() == new);
    assert_eq!(support::mode(&path), 0o640);
    assert_eq!(directory.listing(), ["file"]);
}

#[apply(filesystems)]
fn what_is_missing_is_written(#[case] filesystem: &str, #[values("", "content")] content: &str) {
    let directory = Directory::on(filesystem);
    let path = directory.join("file");
    let write = || write_if_changed(&path, |w| Ok(w.write_all(content.as_bytes())?)).unwrap();
    assert_eq!(write(), Change::Written(()));
    assert_eq!(write(), Change::Unchanged(()));
    assert_eq!(support::read(&path), content);
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
fn missing_parents_are_made() {
    let directory = Directory::new();
    let path = directory.join("a/b/file");
    let write =
        || support::relaxed().create_parents(true).write_if_changed(&path, |w| w.write_all(b"1"));
    assert_eq!(write().unwrap(), Change::Written(()));
    assert_eq!(write().unwrap(), Change::Unchanged(()));
    assert_eq!(directory.listing(), ["a"]);
}

#[rstest]
fn links_are_followed_unless_they_must_not_be() {
    let directory = Directory::new();
    let (file, link) = (directory.file("file", "1"), directory.join("link"));
    symlink("file", &link).unwrap();
    let before = identity(&file);
    let write = |w: &mut write_atomically::Writer| w.write_all(b"1");
    assert_eq!(support::relaxed().write_if_changed(&link, write).unwrap(), Change::Unchanged(()));
    assert_eq!(identity(&file), before);
    let change = support::relaxed().follow_symlinks(false).write_if_changed(&link, write);
    assert_eq!(change.unwrap(), Change::Written(()));
    assert!(!link.is_symlink());
    assert_eq!(identity(&file), before);
    assert_eq!(directory.listing(), ["file", "link"]);
}

#[rstest]
fn only_the_bytes_count() {
    let directory = Directory::new();
    let path = directory.file("file", "1");
    support::set_mode(&path, 0o644);
    let write = |bytes: &'static str| {
        support::relaxed().mode(0o600).write_if_changed(&path, |w| write!(w, "{bytes}"))
    };
    assert_eq!(write("1").unwrap(), Change::Unchanged(()));
    assert_eq!(support::mode(&path), 0o644);
    assert_eq!(write("2").unwrap(), Change::Written(()));
    assert_eq!(support::mode(&path), 0o600);
}

#[apply(filesystems)]
fn a_failure_leaves_everything_as_it_was(
    #[case] filesystem: &str,
    #[values(true, false)] exists: bool,
    #[values("error", "panic", "exit", "kill")] end: &str,
) {
    let directory = Directory::on(filesystem);
    let path = directory.join("file");
    if exists {
        directory.file("file", "old");
    }
    let before = exists.then(|| identity(&path));
    match end {
        "error" => {
            let result =
                support::relaxed().anyhow().write_if_changed(&path, |w| -> anyhow::Result<()> {
                    w.write_all(b"half")?;
                    anyhow::bail!("no")
                });
            assert_eq!(result.unwrap_err().to_string(), "no");
        }
        "panic" => {
            let panic = panic::catch_unwind(AssertUnwindSafe(|| {
                let write =
                    |_: &mut _| -> io::Result<()> { panic::resume_unwind(Box::new("a bug")) };
                support::relaxed().write_if_changed(&path, write)
            }));
            assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"a bug"));
        }
        _ => {
            let status = Child::new(module_path!(), end, &path).status();
            assert!(matches!((status.code(), status.signal()), (Some(7), None) | (None, Some(9))));
        }
    }
    assert_eq!(path.exists().then(|| identity(&path)), before);
    if filesystem != "fuse" || matches!(end, "error" | "panic") {
        let expected: &[&str] = if exists { &["file"] } else { &[] };
        assert_eq!(directory.listing(), expected);
    }
    let write = |w: &mut write_atomically::Writer| w.write_all(b"old");
    let change = support::relaxed().write_if_changed(&path, write).unwrap();
    assert_eq!(change, if exists { Change::Unchanged(()) } else { Change::Written(()) });
    assert_eq!(directory.listing(), ["file"]);
}

#[apply(filesystems)]
fn a_dead_staging_entry_goes_also_if_nothing_has_changed(#[case] filesystem: &str) {
    let directory = Directory::on(filesystem);
    let path = directory.file("file", "1");
    directory.file(support::staging_name(filesystem, &path), "left by a killed writer");
    let change = support::relaxed().write_if_changed(&path, |w| w.write_all(b"1")).unwrap();
    assert_eq!(change, Change::Unchanged(()));
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
fn a_fifo_is_always_written() {
    let directory = Directory::new();
    let path = directory.join("fifo");
    trees::make_fifo(&path);
    // With a reader that is always there, nobody waits for anybody.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut reader = File::options().read(true).custom_flags(flags).open(&path).unwrap();
    for _ in 0..2 {
        let change = support::relaxed().write_if_changed(&path, |w| w.write_all(b"1")).unwrap();
        assert_eq!(change, Change::Written(()));
        let mut content = [0; 8];
        let length = reader.read(&mut content).unwrap();
        assert_eq!(&content[..length], b"1");
    }
    assert_eq!(directory.listing(), ["fifo"]);
}

#[rstest]
#[case::directory("directory", io::ErrorKind::IsADirectory)]
#[case::missing_directory("no/such/file", io::ErrorKind::NotFound)]
fn what_can_not_be_written_is_an_error_before_the_closure(
    #[case] name: &str,
    #[case] kind: io::ErrorKind,
) {
    let directory = Directory::new();
    fs::create_dir(directory.join("directory")).unwrap();
    let write = |_: &mut _| -> io::Result<()> { panic!("the closure ran") };
    let error = support::relaxed().write_if_changed(directory.join(name), write).unwrap_err();
    assert!(Error::find(&error).is_some());
    assert_eq!(error.kind(), kind);
    assert_eq!(directory.listing(), ["directory"]);
}

#[rstest]
fn comparing_takes_constant_memory() {
    let directory = Directory::new();
    let path = directory.file("file", "");
    File::options().write(true).open(&path).unwrap().set_len(1 << 28).unwrap();
    let peak: u64 = Child::new(module_path!(), "compare a lot", &path).answer().parse().unwrap();
    assert!(peak < 16 << 10, "{peak} KiB");
}

#[rstest]
#[case::it_can_be_read(0o666, 0o777, "write 1", "Unchanged(())")]
#[case::it_can_not(0o222, 0o777, "write 1", "Written(())")]
#[case::it_can_not_be_written(0o444, 0o777, "write 1", "PermissionDenied")]
#[case::in_place(0o666, 0o1777, "write 1 in place", "Ok(Unchanged(()))")]
#[ignore = "needs root, to be another user: run tests/privileged"]
fn somebody_elses_file(
    #[case] file: u32,
    #[case] mode: u32,
    #[case] role: &str,
    #[case] expected: &str,
) {
    let base = Directory::new();
    fs::create_dir(base.join("watched")).unwrap();
    let path = base.file("watched/file", "1");
    support::set_mode(&path, file);
    support::set_mode(&base.join("watched"), mode);
    let before = identity(&path);
    assert_eq!(Child::new(module_path!(), role, &path).by_nobody().answer(), expected);
    if !expected.contains("Written") {
        let mut after = identity(&path);
        // Only the owner may read without being noticed.
        after.times[2] = before.times[2];
        assert_eq!(after, before);
    }
    assert_eq!(support::listing(&base.join("watched")), ["file"]);
}
