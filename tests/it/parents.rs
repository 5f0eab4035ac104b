//! Promises 2 and 4 for missing parents: they are made when the file is published, and removed if that fails.

use std::io::{self, ErrorKind, Write};

use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use rstest::rstest;
use write_atomically::{Error, WriteOptions};

use crate::support::{self, Directory};

#[rstest]
#[case::one("a/file", &["a"])]
#[case::three("a/b/c/file", &["a"])]
#[case::with_dots("a/./b/../file", &["a"])]
fn missing_parents_are_made_when_the_file_is_published(#[case] name: &str, #[case] top: &[&str]) {
    let directory = Directory::new();
    let path = directory.join(name);
    let options = WriteOptions::new().create_parents(true);
    let failed: io::Result<()> = options.write(&path, |_| Err(io::Error::other("no")));
    assert!(failed.is_err());
    assert_eq!(directory.listing(), Vec::<String>::new());
    options
        .write(&path, |w| {
            assert_eq!(directory.listing(), Vec::<String>::new());
            w.write_all(b"new")
        })
        .unwrap();
    assert_eq!(directory.listing(), top);
    assert_eq!(support::read(&path), "new");
}

#[rstest]
fn parents_that_appear_meanwhile_are_used(#[values(true, false)] with_file: bool) {
    let directory = Directory::new();
    let path = directory.join("a/b/file");
    let written = WriteOptions::new().create_parents(true).write(&path, |w| {
        fs::create_dir_all(directory.join("a/b"))?;
        if with_file {
            fs::write(&path, "theirs")?;
            support::set_mode(&path, 0o640);
        }
        w.write_all(b"ours")
    });
    written.unwrap();
    assert_eq!(support::read(&path), "ours");
    assert_eq!(support::listing(&directory.join("a/b")), ["file"]);
    assert_eq!(directory.listing(), ["a"]);
    if with_file {
        assert_eq!(support::mode(&path), 0o640);
    }
}

#[rstest]
fn parents_go_again_if_publishing_fails() {
    let directory = Directory::new();
    let path = directory.join("a/b/file");
    let written = WriteOptions::new().create_parents(true).write(&path, |_| {
        fs::create_dir_all(directory.join("a"))?;
        fs::write(directory.join("a/b"), "in the way")
    });
    assert_eq!(written.unwrap_err().kind(), ErrorKind::NotADirectory);
    assert_eq!(directory.listing(), ["a"]);
    assert_eq!(support::read(&directory.join("a/b")), "in the way");
}

/// What was made on the way goes, what was there stays.
#[rstest]
#[case::a_file_in_the_way("a/b/../../plain/c/file", ErrorKind::NotADirectory)]
#[case::a_name_too_long(&format!("a/b/{}/file", "n".repeat(256)), support::invalid_filename())]
fn parents_that_were_made_go_again_if_others_can_not_be_made(
    #[case] name: &str,
    #[case] kind: ErrorKind,
) {
    let directory = Directory::new();
    let plain = directory.file("plain", "in the way");
    let options = WriteOptions::new().create_parents(true);
    let error = options.write(directory.join(name), |w| w.write_all(b"new")).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(!Error::find(&error).unwrap().replaced());
    assert_eq!(directory.listing(), ["plain"]);
    assert_eq!(support::read(&plain), "in the way");
}

#[rstest]
#[case::a_parents(&format!("a/b/{}/file", "n".repeat(256)))]
#[case::the_files(&format!("a/b/{}", "n".repeat(256)))]
fn a_name_that_is_too_long_below_missing_parents_is_refused_before_the_closure_runs(
    #[case] name: &str,
) {
    let directory = Directory::new();
    let error = support::refused(&WriteOptions::new().create_parents(true), directory.join(name));
    assert_eq!(error.kind(), support::invalid_filename());
    assert_eq!(directory.listing(), Vec::<String>::new());
}

#[rstest]
fn a_parent_that_is_a_link_to_nowhere_is_refused_before_the_closure_runs() {
    let directory = Directory::new();
    symlink("nowhere", directory.join("a")).unwrap();
    let error =
        support::refused(&WriteOptions::new().create_parents(true), directory.join("a/b/file"));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(directory.listing(), ["a"]);
}
