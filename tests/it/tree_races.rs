//! Promises 1 and 8 for directories: readers and writers at the same time.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use fs_err as fs;
use rstest::rstest;
use rstest_reuse::apply;
use rustix::fs::{Mode, OFlags};
use write_atomically::{Durability, WriteOptions};

use crate::directory::is_refused;
use crate::filesystems::filesystems;
use crate::support::Directory;

/// So many files, in two directories, each holding the number of the tree.
const FILES: usize = 20;

fn build_numbered(out: &Path, number: usize) -> io::Result<()> {
    fs::create_dir(out.join("sub"))?;
    for n in 0..FILES {
        let name = if n % 2 == 0 { format!("{n}") } else { format!("sub/{n}") };
        fs::write(out.join(name), number.to_string())?;
    }
    Ok(())
}

/// The numbers of all files, read relative to the directory that the path led to; `None` if it was
/// replaced meanwhile.
fn walk(path: &Path) -> Option<Vec<String>> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).expect("missing");
    let whole = || -> Option<Vec<String>> {
        let sub = rustix::fs::openat(&opened, "sub", flags, Mode::empty()).ok()?;
        let mut numbers = Vec::new();
        for directory in [&opened, &sub] {
            for entry in rustix::fs::Dir::read_from(directory).ok()? {
                let entry = entry.ok()?;
                if matches!(entry.file_name().to_bytes(), b"." | b".." | b"sub") {
                    continue;
                }
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let file = rustix::fs::openat(directory, entry.file_name(), flags, Mode::empty());
                let mut number = String::new();
                std::fs::File::from(file.ok()?).read_to_string(&mut number).ok()?;
                numbers.push(number);
            }
        }
        Some(numbers)
    };
    let numbers = whole();
    let (now, then) = (fs::metadata(path).expect("missing"), rustix::fs::fstat(&opened).unwrap());
    if now.ino() == then.st_ino {
        return Some(numbers.expect("the tree that is there is incomplete"));
    }
    if let Some(numbers) = numbers {
        assert!(numbers.windows(2).all(|two| two[0] == two[1]), "mixed: {numbers:?}");
    }
    None
}

#[apply(filesystems)]
fn readers_never_see_a_missing_empty_or_mixed_tree(#[case] filesystem: &str) {
    let directory = Directory::on(filesystem);
    let path = directory.join("out");
    // Without syncing, the old tree is removed right after it was replaced: hardest on the readers.
    let options = WriteOptions::new().durability(Durability::Relaxed);
    options.write_dir(&path, |out| build_numbered(out, 0)).unwrap();
    if is_refused(filesystem, &path) {
        return assert_eq!(walk(&path), Some(vec!["0".to_owned(); FILES]));
    }
    let (done, walks) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let Some(numbers) = walk(&path) else { continue };
                    assert_eq!(numbers.len(), FILES);
                    assert!(numbers.windows(2).all(|two| two[0] == two[1]), "mixed: {numbers:?}");
                    walks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            for number in 1..=500 {
                options.write_dir(&path, |out| build_numbered(out, number)).unwrap();
            }
        }));
        done.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    assert!(walks.into_inner() > 100, "hardly anybody looked");
    assert_eq!(directory.listing(), ["out"]);
    assert_eq!(walk(&path).unwrap()[0], "500");
}

#[rstest]
fn writers_may_race() {
    let directory = Directory::new();
    let path = directory.join("out");
    let options = WriteOptions::new().durability(Durability::Relaxed);
    thread::scope(|scope| {
        for writer in 0..8 {
            let (path, options) = (&path, &options);
            scope.spawn(move || {
                for _ in 0..25 {
                    options.write_dir(path, |out| build_numbered(out, writer)).unwrap();
                }
            });
        }
    });
    let numbers = walk(&path).unwrap();
    assert!(numbers.len() == FILES && numbers.iter().all(|number| *number == numbers[0]));
    assert_eq!(directory.listing(), ["out"]);
}
