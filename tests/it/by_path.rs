//! Promises 1 to 4 and 7 for `write_path_atomically` on Linux: whatever the producer does at its path, the
//! destination is whole. `private` has the tests that run on other platforms, too.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process;

use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use rstest::rstest;
use rstest_reuse::apply;
use write_atomically::{Error, Hint, Step, WriteOptions, write, write_path_atomically};

use crate::child::{self, Child};
use crate::filesystems::filesystems;
use crate::support::{self, Directory, Mount, NOBODY, assert_state, prepare};
use crate::trees;

#[apply(filesystems)]
fn what_a_program_leaves_is_published(
    #[case] filesystem: &str,
    #[values(Some("old"), None)] old: Option<&str>,
) {
    let directory = prepare(filesystem, old);
    let new = directory.file("input", "new");
    write_path_atomically(directory.join("file"), |staged| {
        support::run(process::Command::new("cp").args([&new, staged]));
        Ok(())
    })
    .unwrap();
    fs::remove_file(new).unwrap();
    assert_state(&directory, Some("new"));
}

#[apply(filesystems)]
fn a_file_with_another_name_is_published_as_a_copy(
    #[case] filesystem: &str,
    #[values(Some("old"), None)] old: Option<&str>,
) {
    let directory = prepare(filesystem, old);
    let path = directory.join("file");
    let cached = directory.join("neighbour");
    write_path_atomically(&path, |staged| {
        fs::write(&cached, "new")?;
        support::set_mode(&cached, 0o640);
        Ok(fs::hard_link(&cached, staged)?)
    })
    .unwrap();
    assert_eq!(support::read(&path), "new");
    assert_eq!(directory.listing(), ["file", "neighbour"]);
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
    assert_eq!(support::mode(&directory.join("neighbour")), 0o640, "the cache was changed");
    assert_eq!(support::mode(&path), if old.is_some() { 0o644 } else { 0o640 });
}

#[apply(filesystems)]
fn what_is_neither_file_nor_directory_is_an_error(
    #[case] filesystem: &str,
    #[values(Some("old"), None)] old: Option<&str>,
    #[values("link", "dangling link", "fifo", "socket")] left: &str,
) {
    let directory = prepare(filesystem, old);
    let error = write_path_atomically(directory.join("file"), |staged| {
        match left {
            "link" => symlink("../neighbour", staged)?,
            "dangling link" => symlink("nowhere", staged)?,
            "fifo" => trees::make_fifo(staged),
            _ => drop(UnixListener::bind(staged)?),
        }
        Ok(())
    });
    let error = error.unwrap_err();
    assert_eq!(support::step(&error), Step::Publish, "{error}");
    assert!(!Error::find(error.as_ref()).unwrap().replaced());
    assert_state(&directory, old);
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    match role.as_str() {
        "relative" => {
            std::env::set_current_dir(path.parent().unwrap()).unwrap();
            let value = write_path_atomically(path.file_name().unwrap(), |staged| {
                std::env::set_current_dir("/")?;
                fs::write(staged, "new")?;
                Ok(staged.is_absolute() && staged.starts_with(path.parent().unwrap()))
            });
            child::say(value.unwrap());
        }
        "no descriptors" => {
            child::limit_descriptors(64);
            let used = write_path_atomically(path, |staged| {
                fs::write(staged, "new")?;
                Ok(child::use_all_descriptors())
            });
            child::say(!used.unwrap().is_empty());
        }
        "refused" => {
            let mut ran = false;
            let error = write_path_atomically(path, |_| {
                ran = true;
                Ok(())
            })
            .unwrap_err();
            child::say(format!("{:?} {ran}", support::step(&error)));
        }
        "durable" | "consistent" | "relaxed" => {
            let options = WriteOptions::new().durability(child::durability(&role));
            options.write_path(path, |staged| fs::write(staged, "new")).unwrap();
        }
        role => {
            let octal = role.strip_prefix("umask ").unwrap_or_else(|| panic!("{role}"));
            let mask = u32::from_str_radix(octal, 8).unwrap();
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
            let staging = write_path_atomically(path, |staged| {
                fs::write(staged, "new")?;
                Ok(support::mode(staged.parent().unwrap()))
            });
            child::say(format!("{:o}", staging.unwrap()));
        }
    }
}

/// mkdir(2): the umask takes away from a new directory's mode, a set-group-ID directory adds to it.
#[rstest]
fn the_staging_directory_is_private_and_usable_whatever_the_umask(
    #[values("022", "077", "377")] umask: &str,
    #[values(0o755, 0o2755)] around: u32,
) {
    let directory = prepare("here", Some("old"));
    support::set_mode(directory.path(), around);
    let role = format!("umask {umask}");
    let staging = Child::new(module_path!(), &role, &directory.join("file")).answer();
    assert_eq!(staging, format!("{:o}", around & 0o2000 | 0o1700));
    assert_eq!(support::mode(directory.path()), around);
    assert_state(&directory, Some("new"));
}

/// Writers that were killed side by side.
#[rstest]
fn what_several_killed_writers_left_goes_with_the_next_write() {
    let directory = prepare("here", Some("old"));
    for nth in ["", "-1", "-2", "-3"] {
        directory.file(format!(".file.write-atomically{nth}"), "left by a killed writer");
    }
    write_path_atomically(directory.join("file"), |staged| Ok(fs::write(staged, "new")?)).unwrap();
    assert_state(&directory, Some("new"));
}

#[rstest]
#[case::relative("relative")]
#[case::without_descriptors("no descriptors")]
fn what_the_closure_does_to_the_process_does_not_matter(#[case] role: &str) {
    let directory = prepare("here", Some("old"));
    assert_eq!(Child::new(module_path!(), role, &directory.join("file")).answer(), "true");
    assert_state(&directory, Some("new"));
}

#[rstest]
fn the_directory_may_be_renamed_meanwhile(#[values(Some("old"), None)] old: Option<&str>) {
    let outer = Directory::new();
    let (before, after) = (outer.join("before"), outer.join("after"));
    fs::create_dir(&before).unwrap();
    if let Some(old) = old {
        fs::write(before.join("file"), old).unwrap();
    }
    write_path_atomically(before.join("file"), |staged| {
        fs::write(staged, "new")?;
        Ok(fs::rename(&before, &after)?)
    })
    .unwrap();
    assert_eq!(
        trees::tree(outer.path()),
        trees::expected([("after", "directory"), ("after/file", "new"),])
    );
}

#[rstest]
#[case::relative("real/file", true)]
#[case::dangling("real/new", false)]
fn links_are_followed_and_stay(#[case] to: &str, #[case] exists: bool) {
    let directory = Directory::new();
    fs::create_dir(directory.join("real")).unwrap();
    if exists {
        directory.file(to, "old");
    }
    symlink(to, directory.join("link")).unwrap();
    write_path_atomically(directory.join("link"), |staged| {
        let real = directory.join("real").canonicalize()?;
        assert_eq!(staged.ancestors().nth(2), Some(&*real), "not in the destination's directory");
        assert!(Path::new(to).ends_with(staged.file_name().unwrap()));
        Ok(fs::write(staged, "new")?)
    })
    .unwrap();
    let link = format!("-> {to}");
    let expected = [("link", &*link), ("real", "directory"), (to, "new")];
    assert_eq!(trees::tree(directory.path()), trees::expected(expected));
}

#[rstest]
#[case::old_mode_is_kept(Some(0o640), None, 0o666, 0o640)]
#[case::access_is_not_widened(Some(0o600), None, 0o777, 0o600)]
#[case::read_only_producer(Some(0o664), None, 0o400, 0o664)]
#[case::exact_mode(Some(0o640), Some(0o604), 0o666, 0o604)]
#[case::new_has_the_producers_mode(None, None, 0o750, 0o750)]
#[case::new_with_exact_mode(None, Some(0o4711), 0o666, 0o4711)]
fn the_mode_is_carried_over(
    #[case] old: Option<u32>,
    #[case] option: Option<u32>,
    #[case] produced: u32,
    #[case] expected: u32,
) {
    let directory = prepare("here", old.map(|_| "old"));
    let path = directory.join("file");
    if let Some(old) = old {
        support::set_mode(&path, old);
        rustix::fs::setxattr(&path, "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    }
    let options = option.map_or(WriteOptions::new(), |mode| WriteOptions::new().mode(mode));
    let result: io::Result<()> = options.write_path(&path, |staged| {
        fs::write(staged, "new")?;
        fs::set_permissions(staged, std::fs::Permissions::from_mode(produced))
    });
    result.unwrap();
    assert_eq!(format!("{:o}", support::mode(&path)), format!("{expected:o}"));
    if old.is_some() {
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(&path, "user.note", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"kept");
    }
    assert_state(&directory, Some("new"));
}

#[rstest]
#[case::missing_directory("missing/file", Step::Resolve)]
#[case::directory("directory", Step::Resolve)]
#[case::trailing_slash("file/", Step::Resolve)]
#[case::empty("", Step::Resolve)]
#[case::fifo("fifo", Step::Resolve)]
#[case::null("/dev/null", Step::Resolve)]
#[case::standard_output("/dev/stdout", Step::Resolve)]
fn what_can_be_known_is_refused_before_the_closure(#[case] path: &str, #[case] expected: Step) {
    let directory = prepare("here", Some("old"));
    fs::create_dir(directory.join("directory")).unwrap();
    trees::make_fifo(&directory.join("fifo"));
    let before = trees::tree(directory.path());
    let path = if path.is_empty() { path.into() } else { directory.join(path) };
    let mut ran = false;
    let error = write_path_atomically(path, |_| {
        ran = true;
        Ok(())
    })
    .unwrap_err();
    assert!(!ran, "the closure ran in vain");
    assert_eq!(support::step(&error), expected);
    assert_eq!(trees::tree(directory.path()), before);
}

#[rstest]
#[case::directory(0o555, 0o644, "Stage false")]
#[case::file(0o777, 0o444, "Resolve false")]
fn what_may_not_be_written_is_refused(
    #[case] directory_mode: u32,
    #[case] mode: u32,
    #[case] expected: &str,
) {
    let directory = prepare("here", Some("old"));
    let path = directory.join("file");
    if support::is_root() {
        fs_err::os::unix::fs::chown(&path, Some(NOBODY), None).unwrap();
    }
    support::set_mode(&path, mode);
    support::set_mode(directory.path(), directory_mode);
    assert_eq!(Child::new(module_path!(), "refused", &path).by_nobody().answer(), expected);
    support::set_mode(directory.path(), 0o755);
    assert_state(&directory, Some("old"));
}

#[rstest]
fn writers_of_one_destination_do_not_disturb_each_other() {
    let directory = prepare("here", Some("old"));
    let path = directory.join("file");
    write_path_atomically(&path, |outer| {
        fs::write(outer, "outer")?;
        write(&path, "plain")?;
        assert_eq!(support::read(&path), "plain");
        write_path_atomically(&path, |inner| {
            assert_ne!(inner, outer);
            Ok(fs::write(inner, "inner")?)
        })?;
        assert_eq!(support::read(&path), "inner");
        assert_eq!(support::read(outer), "outer", "removed under a living writer");
        Ok(())
    })
    .unwrap();
    assert_state(&directory, Some("outer"));
}

#[rstest]
fn missing_parents_are_made_when_publishing(#[values(true, false)] fails: bool) {
    let directory = prepare("here", None);
    let path = directory.join("a/b/file");
    let result = WriteOptions::new().create_parents(true).write_path(&path, |staged| {
        fs::write(staged, "new")?;
        assert!(!directory.join("a").exists());
        if fails { Err(io::Error::other("no")) } else { Ok(()) }
    });
    assert_eq!(result.is_err(), fails);
    match fails {
        true => assert_state(&directory, None),
        false => {
            assert_eq!(support::read(&path), "new");
            assert_eq!(directory.listing(), ["a", "neighbour"]);
        }
    }
}

#[rstest]
#[ignore = "needs root in a mount namespace of its own: run tests/privileged"]
fn what_is_mounted_is_overwritten_in_place_if_asked_for() {
    let directory = prepare("here", Some("old"));
    let (path, real) = (directory.join("file"), directory.file("real", "old"));
    let _mount = Mount::bind(&real, &path);
    let mut ran = false;
    let error = write_path_atomically(&path, |_| {
        ran = true;
        Ok(())
    })
    .unwrap_err();
    assert_eq!((support::step(&error), ran), (Step::Resolve, false));
    let options = WriteOptions::new().in_place_fallback(true);
    options.write_path(&path, |staged| fs::write(staged, "new, and longer")).unwrap();
    assert_eq!(support::read(&real), "new, and longer");
    assert_eq!(directory.listing(), ["file", "neighbour", "real"]);
}

#[rstest]
#[ignore = "needs strace: run tests/privileged"]
#[case::durable("durable", &["fdatasync", "renameat", "fsync"])]
#[ignore = "needs strace: run tests/privileged"]
#[case::consistent("consistent", &["fdatasync", "renameat"])]
#[ignore = "needs strace: run tests/privileged"]
#[case::relaxed("relaxed", &["renameat"])]
fn durability_is_what_was_asked_for(#[case] role: &str, #[case] calls: &[&str]) {
    let directory = prepare("here", Some("old"));
    assert_eq!(child::calls_that_matter(module_path!(), role, &directory.join("file")), calls);
    assert_state(&directory, Some("new"));
}

/// SQLite in WAL mode keeps the last changes beside the database until its connection is closed.
#[rstest]
#[case::write_ahead_log("file-wal", true)]
#[case::rollback_journal("file-journal", true)]
#[case::of_another_file("other-wal", false)]
fn a_database_that_is_still_open_is_not_published(
    #[case] beside: &str,
    #[case] is_refused: bool,
    #[values("", "last changes")] journal: &str,
    #[values(Some("old"), None)] old: Option<&str>,
) {
    let directory = Directory::new();
    let path = directory.join("file");
    if let Some(old) = old {
        directory.file("file", old);
    }
    let result = WriteOptions::new().write_path(&path, |staged| {
        fs::write(staged, "new")?;
        fs::write(staged.with_file_name(beside), journal)
    });
    if is_refused && !journal.is_empty() {
        let error = result.unwrap_err();
        let error = Error::find(&error).unwrap();
        assert_eq!((error.step(), error.hint()), (Step::Publish, Some(Hint::JournalLeft)));
        assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), old);
    } else {
        result.unwrap();
        assert_eq!(support::read(&path), "new");
    }
    let expected = if path.exists() { vec!["file"] } else { vec![] };
    assert_eq!(directory.listing(), expected);
}
