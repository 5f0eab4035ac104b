//! Promises 4, 7 and 10 where Windows differs: sharing, attributes, names. `.ci/cross` runs it under wine.

use std::io::{self, Write};
use std::os::windows::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fs_err::os::windows::fs::OpenOptionsExt;
use fs_err::{self as fs, File, OpenOptions};
use rstest::rstest;
use write_atomically::{Error, Step, WriteOptions, create_atomically, write, write_atomically};

use crate::support::{self, Directory};

const READ_ONLY: u32 = 0x1;
const HIDDEN: u32 = 0x2;
const SYSTEM: u32 = 0x4;
const NOT_CONTENT_INDEXED: u32 = 0x2000;
const SHARE_READ: u32 = 0x1;
const SHARE_ALL: u32 = 0x7;

fn attributes(path: &Path) -> u32 {
    fs::metadata(path).unwrap().file_attributes()
}

#[rstest]
fn a_read_only_file_is_refused_before_the_closure_runs() {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions.clone()).unwrap();

    let mut ran = false;
    let error = write_atomically(&path, |_| {
        ran = true;
        Ok(())
    })
    .unwrap_err();
    let error = Error::find(error.as_ref()).unwrap();
    assert!(!ran, "the closure ran in vain");
    assert_eq!(error.step(), Step::Resolve);
    assert_eq!(error.io_error().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!((support::read(&path), directory.listing()), ("old".into(), vec!["file".into()]));

    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    fs::set_permissions(&path, permissions).unwrap();
}

#[rstest]
#[case::new(None)]
#[case::replaced(Some("old"))]
fn staging_is_hidden_and_what_is_published_is_not(
    #[case] old: Option<&str>,
    #[values(WriteOptions::new(), WriteOptions::new().mode(0o600))] options: WriteOptions,
) {
    let directory = Directory::new();
    let path = directory.join("file");
    if let Some(old) = old {
        fs::write(&path, old).unwrap();
    }
    let staging = directory.join(".file.write-atomically");
    options
        .write(&path, |w| {
            assert_ne!(attributes(&staging) & HIDDEN, 0);
            write!(w, "new")
        })
        .unwrap();
    assert_eq!(attributes(&path) & HIDDEN, 0);
    assert_eq!((support::read(&path), directory.listing()), ("new".into(), vec!["file".into()]));
}

#[rstest]
fn what_is_created_is_not_hidden() {
    let directory = Directory::new();
    create_atomically(directory.join("file"), |w| Ok(write!(w, "new")?)).unwrap();
    assert_eq!(attributes(&directory.join("file")) & HIDDEN, 0);
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
#[case::hidden(HIDDEN, true)]
#[case::hidden_and_system(HIDDEN | SYSTEM, true)]
#[cfg_attr(wine, ignore = "wine does not store this attribute")]
#[case::not_indexed(NOT_CONTENT_INDEXED, true)]
#[case::not_asked_for(HIDDEN, false)]
fn attributes_are_carried_over(#[case] carried: u32, #[case] preserve: bool) {
    let directory = Directory::new();
    let path = directory.join("file");
    OpenOptions::new().write(true).create_new(true).attributes(carried).open(&path).unwrap();
    assert_eq!(attributes(&path) & carried, carried);

    let options = WriteOptions::new().preserve_metadata(preserve);
    options.write(&path, |w| write!(w, "new")).unwrap();
    assert_eq!(attributes(&path) & carried, if preserve { carried } else { 0 });
    assert_eq!((support::read(&path), directory.listing()), ("new".into(), vec!["file".into()]));
}

#[rstest]
fn a_file_that_stays_open_elsewhere_is_an_error_that_says_so_after_two_seconds() {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    let held = OpenOptions::new().read(true).share_mode(SHARE_READ).open(&path).unwrap();
    let start = Instant::now();
    let error = write(&path, "new").unwrap_err();
    let waited = start.elapsed();
    let error = Error::find(&error).unwrap();
    assert_eq!(error.step(), Step::Publish);
    assert!(error.to_string().contains("virus scanner"), "{error}");
    assert!(!error.replaced());
    assert!((1.5..10.0).contains(&waited.as_secs_f64()), "{waited:?}");
    drop(held);
    assert_eq!((support::read(&path), directory.listing()), ("old".into(), vec!["file".into()]));
}

#[rstest]
fn a_file_that_is_let_go_in_time_is_replaced() {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    let held = OpenOptions::new().read(true).share_mode(SHARE_READ).open(&path).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(300));
            drop(held);
        });
        write(&path, "new").unwrap();
    });
    assert_eq!((support::read(&path), directory.listing()), ("new".into(), vec!["file".into()]));
}

#[rstest]
#[cfg_attr(wine, ignore = "wine 8.0 has no POSIX rename: replacing an open file is always refused")]
fn a_file_that_is_open_and_shared_is_replaced_under_the_reader() {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    let reader = OpenOptions::new().read(true).share_mode(SHARE_ALL).open(&path).unwrap();
    write(&path, "new").unwrap();
    assert_eq!(io::read_to_string(reader).unwrap(), "old");
    assert_eq!((support::read(&path), directory.listing()), ("new".into(), vec!["file".into()]));
}

#[rstest]
#[case::a_stream("file:stream")]
#[case::a_pattern("fi*e")]
#[case::only_dots("...")]
fn a_name_that_no_file_can_have_is_refused_before_the_closure_runs(#[case] name: &str) {
    let directory = Directory::new();
    directory.file("file", "old");
    let mut ran = false;
    let error = write_atomically(directory.join(name), |_| {
        ran = true;
        Ok(())
    })
    .unwrap_err();
    assert!(!ran, "the closure ran in vain");
    assert_eq!(Error::find(error.as_ref()).unwrap().step(), Step::Resolve);
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
#[case::dot("file.")]
#[case::spaces("file. .")]
fn names_mean_what_they_mean_to_the_system(#[case] name: &str) {
    let directory = Directory::new();
    directory.file("file", "old");
    write(directory.join(name), "new").unwrap();
    assert_eq!(support::read(&directory.join("file")), "new");
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
fn a_device_is_written_into(#[values("NUL", "nul")] name: &str) {
    let directory = Directory::new();
    let write = write_atomically(directory.join(name), |w| Ok(write!(w, "gone")?));
    write.unwrap();
    assert_eq!(directory.listing(), [""; 0]);
}

/// Who opens with `FileShare.Read` is refused as long as anybody has the file open for writing.
#[rstest]
fn once_published_nobody_has_it_open_for_writing() {
    let directory = Directory::new();
    let path = directory.join("file");
    write(&path, "new").unwrap();
    OpenOptions::new().read(true).share_mode(SHARE_READ).open(&path).unwrap();
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
fn an_entry_that_somebody_has_open_stays_and_a_dead_one_goes() {
    let directory = Directory::new();
    let dead = directory.file(".file.write-atomically", "left by a killed writer");
    let living = File::open(&dead).unwrap();
    write(directory.join("file"), "1").unwrap();
    assert_eq!(directory.listing(), [".file.write-atomically", "file"]);
    drop(living);
    write(directory.join("file"), "2").unwrap();
    assert_eq!(directory.listing(), ["file"]);
    assert_eq!(support::read(&directory.join("file")), "2");
}

#[rstest]
fn the_directory_can_not_be_renamed_meanwhile() {
    let directory = Directory::new();
    let inner = directory.join("inner");
    fs::create_dir(&inner).unwrap();
    write_atomically(inner.join("file"), |w| {
        assert!(fs::rename(&inner, directory.join("renamed")).is_err());
        Ok(write!(w, "new")?)
    })
    .unwrap();
    assert_eq!(support::listing(&inner), ["file"]);
    fs::rename(&inner, directory.join("renamed")).unwrap();
}

#[rstest]
fn the_writer_lends_its_file() {
    let directory = Directory::new();
    write_atomically(directory.join("file"), |w| {
        w.write_all(b"written")?;
        w.flush()?;
        let file = w.file()?.try_clone()?;
        assert_eq!(file.metadata()?.len(), 7);
        Ok(())
    })
    .unwrap();
    assert_eq!(directory.listing(), ["file"]);
}

/// What is staged in a private directory is out of sight there.
#[rstest]
fn staging_directories_are_hidden_and_what_is_published_is_not(
    #[values("path", "directory", "batch")] what: &str,
) {
    let directory = Directory::new();
    let path = directory.join("new");
    let is_hidden = || {
        assert_ne!(attributes(&directory.join(".new.write-atomically")) & HIDDEN, 0);
        io::Result::Ok(())
    };
    let options = WriteOptions::new();
    let done = match what {
        "path" => options.write_path(&path, |staged| {
            fs::write(staged, "new")?;
            is_hidden()
        }),
        "directory" => options.write_dir(&path, |_| is_hidden()),
        _ => options.write_batch(|batch| {
            batch.write(&path, |w| write!(w, "new"))?;
            is_hidden()
        }),
    };
    done.unwrap();
    assert_eq!(attributes(&path) & HIDDEN, 0);
    assert_eq!(directory.listing(), ["new"]);
}

#[rstest]
#[case::new(None, READ_ONLY)]
#[case::replaced(Some("old"), 0)]
fn a_read_only_product_is_published_with_the_attributes_of_what_it_replaces(
    #[case] old: Option<&str>,
    #[case] expected: u32,
) {
    let directory = Directory::new();
    let path = directory.join("file");
    if let Some(old) = old {
        fs::write(&path, old).unwrap();
    }
    let produce = |staged: &Path| -> io::Result<()> {
        fs::write(staged, "new")?;
        let mut permissions = fs::metadata(staged)?.permissions();
        permissions.set_readonly(true);
        fs::set_permissions(staged, permissions)
    };
    WriteOptions::new().write_path(&path, produce).unwrap();
    assert_eq!(attributes(&path) & READ_ONLY, expected);
    assert_eq!((support::read(&path), directory.listing()), ("new".into(), vec!["file".into()]));
}

#[rstest]
fn what_the_producer_still_writes_is_not_published() {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    let mut forgotten = None;
    let error = WriteOptions::new()
        .write_path(&path, |staged| {
            fs::write(staged, "half")?;
            forgotten = Some(OpenOptions::new().append(true).open(staged)?);
            io::Result::Ok(())
        })
        .unwrap_err();
    let error = Error::find(&error).unwrap();
    assert_eq!((error.step(), error.replaced()), (Step::Publish, false));
    assert!(error.to_string().contains("another program has it open"), "{error}");
    assert_eq!(support::read(&path), "old");
    // It is removed by the next, once it is closed.
    drop(forgotten);
    write(&path, "new").unwrap();
    assert_eq!((support::read(&path), directory.listing()), ("new".into(), vec!["file".into()]));
}

/// Ours is hidden, and open as long as its writer lives.
#[rstest]
#[case::a_users_own(false, false, true)]
#[case::a_living_writers(true, true, true)]
#[case::a_dead_writers(true, false, false)]
fn a_directory_at_a_staging_name_goes_only_if_its_writer_is_dead(
    #[case] hidden: bool,
    #[case] is_open: bool,
    #[case] stays: bool,
) {
    let directory = Directory::new();
    let staging = directory.join(".file.write-atomically");
    fs::create_dir(&staging).unwrap();
    if hidden {
        let hidden = OpenOptions::new()
            .write(true)
            .create_new(true)
            .attributes(HIDDEN)
            .open(staging.join("content"))
            .unwrap();
        fs::set_permissions(&staging, hidden.metadata().unwrap().permissions()).unwrap();
    }
    const LIST: u32 = 0x1;
    const SHARE_ALL_BUT_REMOVAL: u32 = 0x3;
    const BACKUP_SEMANTICS: u32 = 0x200_0000;
    let open = is_open.then(|| {
        let mut options = OpenOptions::new();
        options.access_mode(LIST).share_mode(SHARE_ALL_BUT_REMOVAL);
        options.custom_flags(BACKUP_SEMANTICS).open(&staging).unwrap()
    });
    write(directory.join("file"), "new").unwrap();
    drop(open);
    assert_eq!(staging.exists(), stays);
    assert_eq!(directory.listing().len(), 1 + usize::from(stays));
}

/// `\\?\` is what has no limit of 260 characters, and few programs know.
#[rstest]
#[case::short(10, false)]
#[cfg_attr(wine, ignore = "wine does not know the final path of what is so deep")]
#[case::long(300, true)]
fn a_staging_path_is_verbatim_only_where_it_must_be(#[case] length: usize, #[case] verbatim: bool) {
    let directory = Directory::new();
    let deep = directory.join("d".repeat(length / 2)).join("d".repeat(length / 2));
    fs::create_dir_all(&deep).unwrap();
    let options = WriteOptions::new();
    options
        .write_path(deep.join("file"), |staged| {
            assert_eq!(staged.to_string_lossy().starts_with(r"\\?\"), verbatim, "{staged:?}");
            fs::write(staged, "new")
        })
        .unwrap();
    assert_eq!(
        (support::read(&deep.join("file")), support::listing(&deep).len()),
        ("new".into(), 1)
    );
}
