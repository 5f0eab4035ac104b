//! Promises 3 and 4 when the end fails: content that could not be published is kept on request, and a write
//! that failed is not forgotten because the closure ignored it.

use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::Path;

use fs_err as fs;
use rstest::rstest;
use rstest_reuse::apply;
use write_atomically::{Error, Outcome, Step, WriteOptions, Writer};

use crate::filesystems::filesystems;
use crate::support::{self, Directory, Mount, new_content};

/// What another program does to the destination while the closure runs.
fn get_in_the_way(path: &Path, how: &str) -> io::Result<()> {
    match how {
        "makes a directory" => fs::create_dir(path),
        "makes a file" => fs::write(path, "theirs"),
        _ => {
            let other = path.with_file_name("other");
            fs::write(&other, "theirs")?;
            fs::rename(other, path)
        }
    }
}

#[apply(filesystems)]
fn what_could_not_be_published_is_kept(
    #[case] filesystem: &str,
    #[values(
        ("write", "makes a directory", ErrorKind::IsADirectory),
        ("create", "makes a file", ErrorKind::AlreadyExists),
        ("if changed", "makes a directory", ErrorKind::IsADirectory),
        ("path", "makes a directory", ErrorKind::IsADirectory),
        ("update of nothing", "makes a file", ErrorKind::AlreadyExists),
        ("update", "replaces it", ErrorKind::ResourceBusy),
    )]
    (operation, how, kind): (&str, &str, ErrorKind),
) {
    let directory = Directory::on(filesystem);
    let (path, kept) = (directory.join("file"), directory.join("kept"));
    if operation == "update" {
        directory.file("file", "old");
    }
    let options = support::relaxed().keep_failed(&kept);
    let fill = |w: &mut Writer| {
        w.write_all(new_content().as_bytes())?;
        get_in_the_way(&path, how)
    };
    let result = match operation {
        "write" => options.write(&path, fill),
        "create" => options.create(&path, fill),
        "if changed" => options.write_if_changed(&path, fill).map(drop),
        "path" => options.write_path(&path, |staged| {
            fs::write(staged, new_content())?;
            get_in_the_way(&path, how)
        }),
        _ => options.update(&path, |_, w| fill(w)),
    };
    let error = result.unwrap_err();
    let found = Error::find(&error).unwrap();
    assert_eq!((error.kind(), found.outcome()), (kind, Outcome::Unchanged), "{error}");
    assert_eq!(found.path(), path);
    assert!(support::read(&kept) == new_content(), "neither whole nor the content");
    assert_eq!(directory.listing(), ["file", "kept"]);
    match how {
        "makes a directory" => assert!(path.is_dir()),
        _ => assert_eq!(support::read(&path), "theirs"),
    }
}

#[rstest]
fn what_a_full_device_does_not_take_is_kept() {
    let directory = Directory::new();
    let kept = directory.join("kept");
    let options = WriteOptions::new().keep_failed(&kept);
    let error = options.write("/dev/full", |w| w.write_all(new_content().as_bytes())).unwrap_err();
    let found = Error::find(&error).unwrap();
    assert_eq!((error.kind(), found.step()), (ErrorKind::StorageFull, Step::Overwrite));
    assert_eq!(found.outcome(), Outcome::PartlyOverwritten);
    assert!(support::read(&kept) == new_content(), "neither whole nor the content");
    assert_eq!(directory.listing(), ["kept"]);
}

const FULL: u64 = 256 << 10;

/// Writes more than fits, ignores that this fails, and returns `Ok`.
fn ignore_failure(w: &mut Writer, how: &str) -> io::Result<()> {
    let big = vec![b'x'; 2 * FULL as usize];
    match how {
        "a wrapper that is dropped" => {
            let mut wrapper = BufWriter::with_capacity(big.len(), w);
            wrapper.write_all(&big[1..])
            // Its `Drop` writes, and ignores the error.
        }
        "a wrapper with a small buffer" => {
            let mut wrapper = BufWriter::with_capacity(128 << 10, w);
            big.chunks(1000).for_each(|chunk| drop(wrapper.write_all(chunk)));
            Ok(())
        }
        "write_all" => {
            let _ = w.write_all(&big);
            Ok(())
        }
        "small writes" => {
            big.chunks(1000).for_each(|chunk| drop(w.write_all(chunk)));
            Ok(())
        }
        "flush" => {
            let _ = w.write_all(&big).and_then(|()| w.flush());
            let _ = w.flush();
            Ok(())
        }
        "seek" => {
            let _ = w.write_all(&big);
            let _ = w.seek(SeekFrom::Start(0));
            w.write_all(b"header").or(Ok(()))
        }
        how => panic!("{how}"),
    }
}

#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn a_failed_write_is_remembered_though_the_closure_ignores_it(
    #[values(
        "a wrapper that is dropped",
        "a wrapper with a small buffer",
        "write_all",
        "small writes",
        "flush",
        "seek"
    )]
    how: &str,
    #[values("write", "create", "if missing", "if changed", "update", "batch")] operation: &str,
    #[values(None, Some(1), Some(128 << 10), Some(1 << 20))] capacity: Option<usize>,
) {
    let base = Directory::new();
    let _mount = Mount::memory(base.path(), FULL);
    let path = base.join("file");
    let old = (!matches!(operation, "create" | "if missing")).then_some("old");
    if let Some(old) = old {
        fs::write(&path, old).unwrap();
    }
    let options = support::relaxed();
    let options = capacity.map_or(options.clone(), |capacity| options.buffer_capacity(capacity));
    let fill = |w: &mut Writer| ignore_failure(w, how);
    let result = match operation {
        "write" => options.write(&path, fill),
        "create" => options.create(&path, fill),
        "if missing" => options.write_if_missing(&path, fill).map(drop),
        "if changed" => options.write_if_changed(&path, fill).map(drop),
        "update" => options.update(&path, |_, w| fill(w)),
        _ => options.write_batch(|batch| batch.write(&path, fill)),
    };
    let error = result.expect_err("a part of the content was published");
    let found = Error::find(&error).unwrap();
    assert_eq!((error.kind(), found.step()), (ErrorKind::StorageFull, Step::Write), "{error}");
    assert_eq!((found.path(), found.outcome()), (&*path, Outcome::Unchanged));
    assert_eq!(old.map(|_| support::read(&path)).as_deref(), old);
    assert_eq!(base.listing().len(), usize::from(old.is_some()), "{:?}", base.listing());
}

/// Room is made, and the same bytes are written at the same place.
#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn a_failed_write_is_forgotten_when_it_is_made_up_for(
    #[values(None, Some(1), Some(1 << 20))] capacity: Option<usize>,
) {
    let base = Directory::new();
    let _mount = Mount::memory(base.path(), FULL);
    let (path, filler) = (base.join("file"), base.file("filler", vec![0; FULL as usize / 2]));
    let content: Vec<u8> = (0..FULL as usize * 3 / 4).map(|n| (n % 251) as u8).collect();
    let options = support::relaxed();
    let options = capacity.map_or(options.clone(), |capacity| options.buffer_capacity(capacity));
    let mut failures = 0;
    let result = options.write(&path, |w| {
        let mut left = &content[..];
        while !left.is_empty() {
            let length = left.len().min(5000);
            match w.write(&left[..length]) {
                Ok(written) => left = &left[written..],
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::StorageFull);
                    failures += 1;
                    fs::remove_file(&filler)?;
                }
            }
        }
        match w.flush() {
            Ok(()) => Ok(()),
            Err(_) => {
                failures += 1;
                fs::remove_file(&filler)?;
                w.flush()
            }
        }
    });
    result.unwrap();
    assert_eq!(failures, 1);
    assert!(fs::read(&path).unwrap() == content, "neither whole nor the content");
    assert_eq!(base.listing(), ["file"]);
}
