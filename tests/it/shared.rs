//! Promises 2 and 7 in directories that others may write to: sticky bits, links that somebody planted.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use fs_err as fs;
use fs_err::os::unix::fs::{chown, lchown, symlink};
use rstest::rstest;
use write_atomically::{WriteOptions, write};

use crate::child::{self, Child};
use crate::support::{self, Directory, NOBODY};

/// unlink(2), EPERM: neither the file's owner, nor the directory's, nor root.
#[rstest]
#[case::their_own(NOBODY, NOBODY, 0)]
#[case::in_their_own_directory(NOBODY, 1234, NOBODY)]
#[case::by_root(0, 1234, NOBODY)]
#[ignore = "needs root: run tests/privileged"]
fn a_file_in_a_sticky_directory_is_replaced_by_who_may(
    #[case] writer: u32,
    #[case] owner: u32,
    #[case] directory_owner: u32,
) {
    let directory = Directory::new();
    support::set_mode(directory.path(), 0o1777);
    let file = directory.file("file", "old");
    support::set_mode(&file, 0o666);
    chown(&file, Some(owner), None).unwrap();
    chown(directory.path(), Some(directory_owner), None).unwrap();
    let inode = fs::metadata(&file).unwrap().ino();
    assert_eq!(
        Child::new(module_path!(), "write", &file).by_user(writer, writer).answer(),
        "Ok(())"
    );
    assert_eq!(support::read(&file), "new");
    assert_ne!(fs::metadata(&file).unwrap().ino(), inode);
    assert_eq!(support::mode(&file), 0o666);
    assert_eq!(directory.listing(), ["file"]);
}

/// Root hands its staging file to the destination's owner before it publishes.
#[rstest]
#[case::ones_own(NOBODY, NOBODY, 0o666, true)]
#[case::ones_own_that_one_may_only_write(NOBODY, NOBODY, 0o200, true)]
#[case::the_destinations_owners(NOBODY, 1234, 0o666, false)]
#[case::somebody_elses(NOBODY, 2345, 0o666, false)]
#[case::roots_own(0, 0, 0o666, true)]
#[case::handed_over_by_root(0, 1234, 0o666, true)]
#[case::neither_roots_nor_handed_over(0, 2345, 0o666, false)]
#[ignore = "needs root: run tests/privileged"]
fn a_dead_entry_goes_with_the_next_write_of_who_left_it(
    #[case] writer: u32,
    #[case] owner: u32,
    #[case] mode: u32,
    #[case] goes: bool,
) {
    let directory = Directory::new();
    support::set_mode(directory.path(), 0o777);
    let file = directory.file("file", "old");
    let entry = directory.file(".file.write-atomically", "left by a killed writer");
    for (path, owner, mode) in [(&file, 1234, 0o666), (&entry, owner, mode)] {
        support::set_mode(path, mode);
        chown(path, Some(owner), None).unwrap();
    }
    assert_eq!(
        Child::new(module_path!(), "write", &file).by_user(writer, writer).answer(),
        "Ok(())"
    );
    assert_eq!(support::read(&file), "new");
    match goes {
        true => assert_eq!(directory.listing(), ["file"]),
        false => {
            assert_eq!(directory.listing(), [".file.write-atomically", "file"]);
            assert_eq!(support::read(&entry), "left by a killed writer");
        }
    }
}

/// proc(5), protected_symlinks: it protects us whether it is switched on or not.
#[rstest]
#[case::planted(0o1777, 0, NOBODY, false)]
#[case::our_own(0o1777, NOBODY, 0, true)]
#[case::the_directorys_owners(0o1777, NOBODY, NOBODY, true)]
#[case::not_sticky(0o777, 0, NOBODY, true)]
#[case::not_everybodys(0o1775, 0, NOBODY, true)]
#[ignore = "needs root: run tests/privileged"]
fn a_link_in_a_shared_directory_is_followed_unless_somebody_else_planted_it(
    #[case] mode: u32,
    #[case] directory_owner: u32,
    #[case] owner: u32,
    #[case] followed: bool,
) {
    let directory = Directory::new();
    let shared = directory.join("shared");
    fs::create_dir(&shared).unwrap();
    chown(&shared, Some(directory_owner), None).unwrap();
    support::set_mode(&shared, mode);
    let precious = directory.file("precious", "precious");
    let link = shared.join("report");
    symlink(&precious, &link).unwrap();
    lchown(&link, Some(owner), None).unwrap();
    match followed {
        true => write(&link, "new").unwrap(),
        false => {
            let error = support::refused(&WriteOptions::new(), &link);
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
    }
    assert_eq!(support::read(&precious), if followed { "new" } else { "precious" });
    assert_eq!(fs::read_link(&link).unwrap(), precious);
    assert_eq!(support::listing(&shared), ["report"]);
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((_write, path)) = child::role() else { return };
    child::say(format!("{:?}", write(&path, "new")));
}
