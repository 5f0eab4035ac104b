//! Promises 4 and 7: which paths there are, which links are followed, what is refused before the closure runs.

use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use fs_err::os::unix::fs::{chown, symlink};
use rstest::rstest;
use write_atomically::{Error, Step, WriteOptions, write, write_atomically};

use crate::child::{self, Child};
use crate::support::{self, Directory, Mount};
use crate::trees;

#[rstest]
#[case::empty("", ErrorKind::NotFound)]
#[case::root("/", ErrorKind::IsADirectory)]
#[case::parent("..", ErrorKind::IsADirectory)]
#[case::itself(".", ErrorKind::IsADirectory)]
#[case::ends_in_parent("full/..", ErrorKind::IsADirectory)]
#[case::trailing_slash("new/", ErrorKind::IsADirectory)]
#[case::directory("full", ErrorKind::IsADirectory)]
#[case::directory_with_slash("full/", ErrorKind::IsADirectory)]
#[case::link_to_directory("to-full", ErrorKind::IsADirectory)]
#[case::link_to_parent("to-parent", ErrorKind::IsADirectory)]
#[case::nul_byte("a\0b", ErrorKind::InvalidInput)]
#[case::missing_directory("missing/file", ErrorKind::NotFound)]
#[case::file_as_directory("plain/file", ErrorKind::NotADirectory)]
#[case::name_too_long(&"n".repeat(256), support::invalid_filename())]
fn a_bad_path_is_refused_before_the_closure_runs(#[case] path: &str, #[case] kind: ErrorKind) {
    let directory = Directory::new();
    fs::create_dir(directory.join("full")).unwrap();
    directory.file("full/inside", "");
    directory.file("plain", "content");
    symlink("full", directory.join("to-full")).unwrap();
    symlink("..", directory.join("to-parent")).unwrap();
    let before = directory.listing();

    // Joining would hide an empty path, or one that is absolute.
    let whole = match path {
        "" | "/" => PathBuf::from(path),
        _ => PathBuf::from(format!("{}/{path}", directory.path().display())),
    };
    let error = support::refused(&WriteOptions::new(), &whole);
    assert_eq!(error.kind(), kind, "{error}");
    let error = Error::find(&error).expect("one of the library's");
    assert_eq!((error.step(), error.path(), error.replaced()), (Step::Resolve, &*whole, false));
    assert_eq!(directory.listing(), before);
    assert_eq!(support::read(&directory.join("plain")), "content");
}

#[rstest]
fn a_loop_of_links_is_an_error() {
    let directory = Directory::new();
    symlink("b", directory.join("a")).unwrap();
    symlink("a", directory.join("b")).unwrap();
    let error = support::refused(&WriteOptions::new(), directory.join("a"));
    assert_eq!(Error::find(&error).unwrap().io_error().raw_os_error(), Some(40), "ELOOP: {error}");
    assert_eq!(directory.listing(), ["a", "b"]);
}

#[rstest]
#[case::relative("link", "file")]
#[case::below("link", "sub/file")]
#[case::dot_dot("sub/link", "../file")]
#[case::dangling("link", "not-there-yet")]
#[case::chain("one", "two")]
fn links_are_followed_and_stay_links(#[case] link: &str, #[case] leads_to: &str) {
    let directory = Directory::new();
    fs::create_dir(directory.join("sub")).unwrap();
    directory.file("file", "old");
    directory.file("sub/file", "old");
    symlink("three", directory.join("two")).unwrap();
    symlink(directory.join("file"), directory.join("three")).unwrap();
    let link = directory.join(link);
    symlink(leads_to, &link).unwrap();

    write(&link, "new").unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(leads_to));
    assert_eq!(support::read(&link), "new");
    let real = fs::canonicalize(&link).unwrap();
    assert!(fs::symlink_metadata(real).unwrap().is_file());
    assert!(fs::symlink_metadata(directory.join("three")).unwrap().is_symlink());
}

#[rstest]
fn a_link_is_replaced_if_that_is_asked_for() {
    let directory = Directory::new();
    let file = directory.file("file", "old");
    let link = directory.join("link");
    symlink("file", &link).unwrap();
    let options = WriteOptions::new().follow_symlinks(false);
    options.write(&link, |w| w.write_all(b"new")).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
    assert_eq!((support::read(&link), support::read(&file)), ("new".into(), "old".into()));
    assert_eq!(directory.listing(), ["file", "link"]);
}

#[rstest]
fn a_link_may_lead_to_another_filesystem() {
    let (here, other) = (Directory::new(), Directory::on_memory());
    let file = other.file("file", "old");
    symlink(&file, here.join("link")).unwrap();
    assert_ne!(fs::metadata(here.path()).unwrap().dev(), fs::metadata(&file).unwrap().dev());
    write(here.join("link"), "new").unwrap();
    assert_eq!(support::read(&file), "new");
    assert_eq!((here.listing(), other.listing()), (vec!["link".into()], vec!["file".into()]));
}

#[rstest]
#[case::not_utf8(b"caf\xe9".to_vec())]
#[case::leading_dot(b".hidden".to_vec())]
#[case::leading_dash(b"-rf".to_vec())]
#[case::newline(b"a\nb".to_vec())]
#[case::longest(vec![b'n'; 255])]
#[case::longest_in_two_bytes("\u{e9}".repeat(127).into_bytes())]
fn any_name_is_written(#[case] name: Vec<u8>, #[values(true, false)] existing: bool) {
    let directory = Directory::new();
    let path = directory.join(OsStr::from_bytes(&name));
    if existing {
        fs::write(&path, "old").unwrap();
    }
    write(&path, "new").unwrap();
    assert_eq!(support::read(&path), "new");
    assert_eq!(directory.listing().len(), 1);
}

#[rstest]
fn long_names_that_differ_only_at_the_end_have_staging_entries_of_their_own() {
    let directory = Directory::new();
    let [a, b] = ["a", "b"].map(|end| directory.join("n".repeat(254) + end));
    let inside = write_atomically(&a, |w| {
        write(&b, "b")?;
        Ok(w.write_all(b"a")?)
    });
    inside.unwrap();
    assert_eq!((support::read(&a), support::read(&b)), ("a".into(), "b".into()));
    assert_eq!(directory.listing().len(), 2);
}

/// In a process of its own: the working directory belongs to all threads.
#[rstest]
fn the_closure_may_change_the_working_directory() {
    let directory = Directory::new();
    fs::create_dir(directory.join("elsewhere")).unwrap();
    assert!(Child::new(module_path!(), "chdir", directory.path()).status().success());
    assert_eq!(directory.listing(), ["elsewhere", "file"]);
    assert_eq!(support::read(&directory.join("file")), "new");
    assert_eq!(support::listing(&directory.join("elsewhere")), Vec::<String>::new());
}

#[rstest]
fn the_closure_may_rename_the_directory(#[values(true, false)] existing: bool) {
    let directory = Directory::new();
    let (before, after) = (directory.join("before"), directory.join("after"));
    fs::create_dir(&before).unwrap();
    if existing {
        fs::write(before.join("file"), "old").unwrap();
    }
    write_atomically(before.join("file"), |w| {
        fs::rename(&before, &after)?;
        fs::create_dir(&before)?;
        Ok(w.write_all(b"new")?)
    })
    .unwrap();
    assert_eq!(support::read(&after.join("file")), "new");
    assert_eq!(support::listing(&after), ["file"]);
    assert_eq!(support::listing(&before), Vec::<String>::new());
}

#[rstest]
#[case::of_the_file("inner/file")]
#[case::of_parents_to_be_made("inner/a/b/file")]
fn a_directory_that_goes_meanwhile_is_an_error(#[case] name: &str) {
    let directory = Directory::new();
    let inner = directory.join("inner");
    fs::create_dir(&inner).unwrap();
    let options = WriteOptions::new().create_parents(true);
    let error = options.write(directory.join(name), |_| fs::remove_dir(&inner)).unwrap_err();
    let error = Error::find(&error).unwrap();
    assert_eq!((error.step(), error.io_error().kind()), (Step::Stage, ErrorKind::NotFound));
    assert!(!error.replaced());
    assert_eq!(directory.listing(), Vec::<String>::new());
}

#[rstest]
#[case::directory("directory", ErrorKind::IsADirectory)]
#[case::link("link", ErrorKind::AlreadyExists)]
#[case::fifo("fifo", ErrorKind::AlreadyExists)]
fn what_can_not_be_replaced_may_not_appear_meanwhile(
    #[case] what: &str,
    #[case] kind: ErrorKind,
    #[values(true, false)] existing: bool,
) {
    let directory = Directory::new();
    let path = directory.join("file");
    directory.file("other", "other");
    if existing {
        fs::write(&path, "old").unwrap();
    }
    let error = write_atomically(&path, |w| {
        if existing {
            fs::remove_file(&path)?;
        }
        match what {
            "directory" => fs::create_dir(&path)?,
            "link" => symlink("other", &path)?,
            _ => trees::make_fifo(&path),
        }
        Ok(w.write_all(b"new")?)
    });
    let error = error.unwrap_err();
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), kind, "{error}");
    assert!(!fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(support::read(&directory.join("other")), "other");
    assert_eq!(directory.listing(), ["file", "other"]);
}

#[rstest]
#[case::unwritable_directory("unwritable/file", Step::Stage)]
#[case::unreachable_directory("unreachable/file", Step::Resolve)]
#[case::unwritable_file("writable/theirs", Step::Resolve)]
#[case::read_only_file("writable/mine", Step::Resolve)]
fn a_user_without_rights_is_refused_before_the_closure_runs(
    #[case] name: &str,
    #[case] step: Step,
) {
    let directory = Directory::new();
    for (name, mode) in [("unwritable", 0o555), ("unreachable", 0o600), ("writable", 0o777)] {
        fs::create_dir(directory.join(name)).unwrap();
        support::set_mode(&directory.join(name), mode);
    }
    for name in ["writable/theirs", "writable/mine"] {
        directory.file(name, "old");
        support::set_mode(&directory.join(name), 0o444);
    }
    if support::is_root() {
        chown(directory.join("writable/mine"), Some(support::NOBODY), None).unwrap();
    }
    let path = directory.join(name);
    let answer = Child::new(module_path!(), "refused", &path).by_nobody().answer();
    // The kind is the one that `fs::write` gives.
    assert_eq!(answer, format!("{step:?} PermissionDenied PermissionDenied"));
    assert_eq!(support::read(&directory.join("writable/mine")), "old");
    assert_eq!(support::listing(&directory.join("writable")), ["mine", "theirs"]);
    for name in ["unwritable", "unreachable"] {
        support::set_mode(&directory.join(name), 0o755);
        assert_eq!(support::listing(&directory.join(name)), Vec::<String>::new());
    }
}

/// Write and search permission are enough to write; syncing takes another way.
#[rstest]
fn a_directory_that_can_not_be_read_can_be_written(#[values(true, false)] existing: bool) {
    let directory = Directory::new();
    let drop_box = directory.join("drop-box");
    fs::create_dir(&drop_box).unwrap();
    if existing {
        fs::write(drop_box.join("file"), "old").unwrap();
        support::set_mode(&drop_box.join("file"), 0o666);
    }
    support::set_mode(&drop_box, 0o733);
    assert_eq!(
        Child::new(module_path!(), "write", &drop_box.join("file")).by_nobody().answer(),
        "Ok(())"
    );
    support::set_mode(&drop_box, 0o755);
    assert_eq!(support::listing(&drop_box), ["file"]);
    assert_eq!(support::read(&drop_box.join("file")), "new");
}

#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn a_read_only_filesystem_is_refused_before_the_closure_runs(
    #[values(true, false)] existing: bool,
) {
    let directory = Directory::new();
    let at = directory.join("mounted");
    fs::create_dir(&at).unwrap();
    let mount = Mount::memory(&at, 1 << 20);
    if existing {
        fs::write(at.join("file"), "old").unwrap();
    }
    mount.make_read_only();
    let error = support::refused(&WriteOptions::new(), at.join("file"));
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
    assert!(error.to_string().contains(at.join("file").to_str().unwrap()), "{error}");
    assert_eq!(support::listing(&at).len(), usize::from(existing));
}

#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn what_is_immutable_or_append_only_is_refused_before_the_closure_runs(
    #[values('i', 'a')] attribute: char,
) {
    let directory = Directory::on("ext4");
    let file = directory.file("file", "old");
    support::run(Command::new("chattr").arg(format!("+{attribute}")).arg(&file));
    let error = support::refused(&WriteOptions::new(), &file);
    support::run(Command::new("chattr").arg(format!("-{attribute}")).arg(&file));
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("immutable"), "{error}");
    assert_eq!(support::read(&file), "old");
}

/// Nobody is the owner, neither of the file nor of the directory.
#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn somebody_elses_file_in_a_sticky_directory_is_refused_before_the_closure_runs() {
    let directory = Directory::new();
    support::set_mode(directory.path(), 0o1777);
    let file = directory.file("file", "old");
    support::set_mode(&file, 0o666);
    let answer = Child::new(module_path!(), "refused", &file).by_nobody().answer();
    // `fs::write` could; so can we, where that may be done in place.
    assert_eq!(answer, "Resolve PermissionDenied wrote");
    support::run(Command::new("truncate").arg("-s0").arg(&file));
    assert_eq!(Child::new(module_path!(), "overwrite", &file).by_nobody().answer(), "Ok(())");
    assert_eq!(support::read(&file), "new");
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    match role.as_str() {
        "chdir" => {
            env::set_current_dir(&path).unwrap();
            write_atomically("file", |w| {
                env::set_current_dir("elsewhere")?;
                Ok(w.write_all(b"new")?)
            })
            .unwrap();
        }
        "write" => child::say(format!("{:?}", write(&path, "new"))),
        "overwrite" => {
            let options = WriteOptions::new().in_place_fallback(true);
            child::say(format!("{:?}", options.write(&path, |w| w.write_all(b"new"))));
        }
        "refused" => {
            let error = support::refused(&WriteOptions::new(), &path);
            let step = Error::find(&error).unwrap().step();
            let standard = match fs::write(&path, "new") {
                Ok(()) => "wrote".to_owned(),
                Err(error) => format!("{:?}", error.kind()),
            };
            child::say(format!("{step:?} {:?} {standard}", error.kind()));
        }
        role => panic!("{role}"),
    }
}
