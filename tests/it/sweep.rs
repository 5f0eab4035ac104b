//! Promise 2 where several machines share a directory: an explicit sweep removes what the dead ones left, and
//! nothing else.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use rstest::rstest;
use write_atomically::{Error, Step, sweep};

use crate::child::Living;
use crate::support::{self, Directory};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A name that no mount of this machine has.
const OTHERS: &str = ".file.write-atomically-00000000deadbeef";

fn age(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(SystemTime::now() - 2 * DAY).unwrap();
}

/// The hash of Fowler, Noll and Vo.
fn hash(pieces: &[&[u8]]) -> u64 {
    pieces.concat().iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A name that another mount of this machine gives its entries.
fn by_another_mount() -> String {
    let boot_id = fs::read("/proc/sys/kernel/random/boot_id").unwrap();
    let device = rustix::fs::makedev(0, 0xf_abcd);
    format!(".file.write-atomically-{:016x}", hash(&[&boot_id, &device.to_le_bytes()]))
}

#[rstest]
#[case::of_this_machine(".file.write-atomically", false, true)]
#[case::the_second(".file.write-atomically-1", false, true)]
#[case::with_a_random_number(".file.write-atomically-3000000000", false, true)]
#[case::of_another_machine(OTHERS, true, true)]
#[case::its_second(".file.write-atomically-00000000deadbeef-1", true, true)]
#[case::of_another_machine_and_new(OTHERS, false, false)]
#[case::of_another_mount(&by_another_mount(), true, false)]
#[case::no_entry(".file.write-atomically.bak", true, false)]
#[case::not_hidden("file.write-atomically", true, false)]
fn an_entry_that_nobody_will_publish_is_removed(
    #[case] name: &str,
    #[case] is_old: bool,
    #[case] goes: bool,
) {
    let directory = Directory::new();
    directory.file("file", "old content");
    let entry = directory.file(name, "left");
    if is_old {
        age(&entry);
    }
    let removed = sweep(directory.path(), DAY).unwrap();
    assert_eq!(removed, if goes { vec![entry.clone()] } else { Vec::new() });
    assert_eq!(entry.exists(), !goes);
    assert_eq!(directory.listing().len(), if goes { 1 } else { 2 });
    assert_eq!(support::read(&directory.join("file")), "old content");
}

#[rstest]
fn an_entry_whose_lock_is_held_stays(#[values(".file.write-atomically", OTHERS)] name: &str) {
    let directory = Directory::new();
    let entry = directory.file(name, "being written");
    age(&entry);
    let living = Living::holding(&entry);
    assert_eq!(sweep(directory.path(), DAY).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(support::read(&entry), "being written");
    drop(living);
    assert_eq!(sweep(directory.path(), DAY).unwrap(), [entry]);
    assert_eq!(directory.listing(), [""; 0]);
}

#[rstest]
#[case::old(0o1700, true, true)]
#[case::with_a_new_file_deep_inside(0o1700, false, false)]
#[case::a_users_own(0o755, true, false)]
fn a_directory_of_another_machine_goes_when_all_in_it_is_old(
    #[case] mode: u32,
    #[case] is_old: bool,
    #[case] goes: bool,
) {
    let directory = Directory::new();
    let entry = directory.join(OTHERS);
    let (below, deep) = (entry.join("a"), entry.join("a/file"));
    fs::create_dir_all(&below).unwrap();
    fs::write(&deep, "staged").unwrap();
    support::set_mode(&entry, mode);
    if is_old {
        age(&deep);
    }
    age(&below);
    age(&entry);
    let removed = sweep(directory.path(), DAY).unwrap();
    assert_eq!(removed, if goes { vec![entry] } else { Vec::new() });
    assert_eq!(deep.exists(), !goes);
}

#[rstest]
fn a_link_is_neither_followed_nor_removed() {
    let directory = Directory::new();
    let file = directory.file("file", "old content");
    age(&file);
    symlink("file", directory.join(OTHERS)).unwrap();
    symlink("file", directory.join(".file.write-atomically")).unwrap();
    assert_eq!(sweep(directory.path(), Duration::ZERO).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(directory.listing(), [".file.write-atomically", OTHERS, "file"]);
}

#[rstest]
fn what_is_below_the_directory_stays() {
    let directory = Directory::new();
    fs::create_dir(directory.join("below")).unwrap();
    let entry = directory.file("below/.file.write-atomically", "left");
    assert_eq!(sweep(directory.path(), Duration::ZERO).unwrap(), Vec::<PathBuf>::new());
    assert!(entry.exists());
}

#[rstest]
fn a_directory_that_is_not_there_is_an_error() {
    let directory = Directory::new();
    let error = sweep(directory.join("none"), DAY).unwrap_err();
    assert_eq!(Error::find(&error).unwrap().step(), Step::Resolve);
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}
