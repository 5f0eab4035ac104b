//! Promises 1 to 4 and 7 for `write_dir_atomically`: the destination is the old tree or the new one.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use rstest::rstest;
use rstest_reuse::apply;
use write_atomically::{Durability, Error, Step, WriteOptions, write_dir_atomically};

use crate::child::{self, Child};
use crate::filesystems::filesystems;
use crate::support::{self, Directory, Mount, NOBODY};
use crate::trees;

/// What the destination is before: nothing, or a tree.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Old {
    Nothing,
    Empty,
    Tree,
}

use Old::{Empty, Nothing, Tree};

fn prepare(filesystem: &str, old: Old) -> Directory {
    let directory = Directory::on(filesystem);
    directory.file("neighbour", "untouched");
    let out = directory.join("out.d");
    match old {
        Nothing => {}
        Empty => fs::create_dir(out).unwrap(),
        Tree => {
            fs::create_dir_all(out.join("a/b")).unwrap();
            fs::write(out.join("a/b/old"), "old").unwrap();
            fs::write(out.join("old"), "old").unwrap();
            symlink("../neighbour", out.join("link")).unwrap();
            symlink("..", out.join("a/up")).unwrap();
        }
    }
    directory
}

fn build(out: &Path) -> io::Result<()> {
    fs::create_dir_all(out.join("a/c"))?;
    fs::write(out.join("a/c/new"), "new")?;
    fs::write(out.join("new"), "new")?;
    symlink("../neighbour", out.join("link"))?;
    symlink("/", out.join("a/root"))?;
    symlink("nowhere", out.join("dangling"))
}

type Entries = BTreeMap<PathBuf, String>;

fn old_tree(old: Old) -> Entries {
    let mut entries = match old {
        Nothing => trees::expected([]),
        Empty => trees::expected([("out.d", "directory")]),
        Tree => trees::expected([
            ("out.d", "directory"),
            ("out.d/a", "directory"),
            ("out.d/a/b", "directory"),
            ("out.d/a/b/old", "old"),
            ("out.d/a/up", "-> .."),
            ("out.d/link", "-> ../neighbour"),
            ("out.d/old", "old"),
        ]),
    };
    entries.insert("neighbour".into(), "untouched".into());
    entries
}

fn new_tree() -> Entries {
    trees::expected([
        ("neighbour", "untouched"),
        ("out.d", "directory"),
        ("out.d/a", "directory"),
        ("out.d/a/c", "directory"),
        ("out.d/a/c/new", "new"),
        ("out.d/a/root", "-> /"),
        ("out.d/dangling", "-> nowhere"),
        ("out.d/link", "-> ../neighbour"),
        ("out.d/new", "new"),
    ])
}

/// Whether an existing directory can't be replaced there; that must be said before the closure.
pub fn is_refused(filesystem: &str, existing: &Path) -> bool {
    if filesystem != "fuse" {
        return false;
    }
    let mut ran = false;
    let error = WriteOptions::new().write_dir(existing, |_| {
        ran = true;
        io::Result::Ok(())
    });
    assert_eq!((error.unwrap_err().kind(), ran), (ErrorKind::Unsupported, false));
    true
}

#[apply(filesystems)]
fn a_closure_that_returns_ok_is_published_whole(
    #[case] filesystem: &str,
    #[values(Nothing, Empty, Tree)] old: Old,
    #[values(Durability::Durable, Durability::Consistent, Durability::Relaxed)]
    durability: Durability,
) {
    let directory = prepare(filesystem, old);
    if old != Nothing && is_refused(filesystem, &directory.join("out.d")) {
        return assert_eq!(trees::tree(directory.path()), old_tree(old));
    }
    let entry = support::staging_name(filesystem, &directory.join("out.d"));
    let options = WriteOptions::new().durability(durability);
    let value: io::Result<i32> = options.write_dir(directory.join("out.d"), |out| {
        assert!(out.is_absolute());
        assert_eq!(out.file_name().unwrap(), "out.d");
        assert_eq!(support::listing(out), [""; 0]);
        assert_eq!(support::mode(out.parent().unwrap()), 0o1700);
        build(out)?;
        let mut staged = trees::tree(directory.path());
        staged.retain(|path, _| !path.starts_with(&entry));
        assert_eq!(staged, old_tree(old));
        Ok(42)
    });
    assert_eq!(value.unwrap(), 42);
    assert_eq!(trees::tree(directory.path()), new_tree());
}

#[apply(filesystems)]
fn a_closure_that_fails_leaves_everything_as_it_was(
    #[case] filesystem: &str,
    #[values(Nothing, Empty, Tree)] old: Old,
    #[values("error", "panic")] end: &str,
) {
    let directory = prepare(filesystem, old);
    if old != Nothing && is_refused(filesystem, &directory.join("out.d")) {
        return assert_eq!(trees::tree(directory.path()), old_tree(old));
    }
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        write_dir_atomically::<()>(directory.join("out.d"), |out| {
            build(out)?;
            fs::set_permissions(out.join("a/c"), std::fs::Permissions::from_mode(0o000))?;
            fs::write(out.with_file_name("beside"), "side file")?;
            match end {
                "panic" => panic::resume_unwind(Box::new("a bug")),
                _ => anyhow::bail!("no more rows"),
            }
        })
    }));
    support::assert_failed(result);
    assert_eq!(trees::tree(directory.path()), old_tree(old));
}

#[apply(filesystems)]
fn what_a_killed_process_leaves_goes_with_the_next_write(
    #[case] filesystem: &str,
    #[values(Nothing, Tree)] old: Old,
    #[values("exit", "kill")] end: &str,
) {
    let directory = prepare(filesystem, old);
    if old != Nothing && is_refused(filesystem, &directory.join("out.d")) {
        return assert_eq!(trees::tree(directory.path()), old_tree(old));
    }
    let path = directory.join("out.d");
    let entry = support::staging_name(filesystem, &path);
    assert!(!Child::new(module_path!(), end, &path).status().success());
    let mut left = trees::tree(directory.path());
    assert_eq!(directory.listing()[0], entry);
    left.retain(|path, _| !path.starts_with(&entry));
    assert_eq!(left, old_tree(old));
    assert!(write_dir_atomically::<()>(&path, |_| anyhow::bail!("no")).is_err());
    assert_eq!(trees::tree(directory.path()), old_tree(old));
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    let options = WriteOptions::new();
    match role.as_str() {
        "exit" | "kill" => options
            .write_dir(path, |out| {
                build(out)?;
                if role == "exit" {
                    process::exit(7);
                }
                child::kill_this_process();
                Ok(())
            })
            .unwrap(),
        "build" => child::say(match options.write_dir(&path, build) {
            Ok(()) => "published".to_owned(),
            Err(error) => format!("{:?}", Error::find(&error).unwrap().step()),
        }),
        "build with locks" => {
            let result = options.write_dir(&path, |out| {
                build(out)?;
                fs::set_permissions(out.join("new"), std::fs::Permissions::from_mode(0o000))?;
                fs::set_permissions(out.join("a/c"), std::fs::Permissions::from_mode(0o000))?;
                fs::set_permissions(out.join("a"), std::fs::Permissions::from_mode(0o500))?;
                fs::set_permissions(out, std::fs::Permissions::from_mode(0o555))
            });
            child::say(result.map_or_else(|error| error.to_string(), |()| "published".into()));
        }
        "descriptors" => {
            child::limit_descriptors(64);
            let deep = |out: &Path| {
                trees::make_deep_tree(out, 3000);
                for n in 0..500 {
                    fs::create_dir(out.join(n.to_string()))?;
                    fs::write(out.join(format!("{n}/file")), "content")?;
                }
                io::Result::Ok(child::use_all_descriptors())
            };
            drop(options.write_dir(&path, deep).unwrap());
            let options = options.durability(Durability::Relaxed);
            let used = options.write_dir(&path, |_| io::Result::Ok(child::use_all_descriptors()));
            child::say(used.unwrap().is_empty());
        }
        "durable" | "consistent" | "relaxed" | "small" => {
            let options = options.durability(child::durability(&role));
            let few = |out: &Path| fs::write(out.join("new"), "new");
            options.write_dir(path, if role == "small" { few } else { build }).unwrap();
        }
        role => panic!("{role}"),
    }
}

#[rstest]
fn descriptors_do_not_limit_a_tree() {
    let directory = prepare("here", Tree);
    assert_eq!(
        Child::new(module_path!(), "descriptors", &directory.join("out.d")).answer(),
        "false"
    );
    assert_eq!(directory.listing(), ["neighbour", "out.d"]);
    assert_eq!(support::listing(&directory.join("out.d")), [""; 0]);
}

#[rstest]
fn what_the_owner_locked_out_of_its_own_tree_is_no_obstacle(
    #[values("build with locks", "build")] second: &str,
) {
    let outer = Directory::new();
    support::set_mode(outer.path(), 0o777);
    let path = outer.join("out");
    assert_eq!(
        Child::new(module_path!(), "build with locks", &path).by_nobody().answer(),
        "published"
    );
    assert_eq!(support::mode(&path), 0o555);
    assert_eq!(outer.listing(), ["out"]);
    // Moving a directory takes write access to it.
    assert_eq!(Child::new(module_path!(), "build", &path).by_nobody().answer(), "Resolve");
    support::set_mode(&path, 0o755);
    assert_eq!(Child::new(module_path!(), second, &path).by_nobody().answer(), "published");
    assert_eq!(outer.listing(), ["out"]);
}

#[rstest]
fn what_is_no_directory_is_an_error(
    #[values(Nothing, Tree)] old: Old,
    #[values("nothing", "file", "link", "fifo")] left: &str,
) {
    let directory = prepare("here", old);
    let error = write_dir_atomically(directory.join("out.d"), |out| {
        fs::remove_dir(out)?;
        match left {
            "nothing" => {}
            "file" => fs::write(out, "content")?,
            "link" => symlink("../neighbour", out)?,
            _ => trees::make_fifo(out),
        }
        Ok(())
    });
    assert_eq!(support::step(&error.unwrap_err()), Step::Publish);
    assert_eq!(trees::tree(directory.path()), old_tree(old));
}

#[rstest]
fn a_tree_that_was_moved_into_place_is_published() {
    let directory = prepare("here", Tree);
    write_dir_atomically(directory.join("out.d"), |out| {
        let other = out.with_file_name("other");
        fs::create_dir(&other)?;
        build(&other)?;
        Ok(fs::rename(other, out)?)
    })
    .unwrap();
    assert_eq!(trees::tree(directory.path()), new_tree());
}

#[rstest]
#[case::appears(Nothing)]
#[case::goes(Tree)]
fn what_comes_or_goes_meanwhile_is_replaced_or_not_missed(#[case] old: Old) {
    let directory = prepare("here", old);
    let path = directory.join("out.d");
    write_dir_atomically(&path, |out| {
        match old {
            Nothing => {
                fs::create_dir_all(path.join("theirs"))?;
                fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
            }
            _ => fs::remove_dir_all(&path)?,
        }
        Ok(build(out)?)
    })
    .unwrap();
    assert_eq!(trees::tree(directory.path()), new_tree());
    assert_eq!(support::mode(&path), if old == Nothing { 0o700 } else { 0o755 });
}

/// Between two system calls: strace has the first attempt to publish fail as if it had.
#[rstest]
#[case::appears(Nothing, "EEXIST", 1)]
#[case::goes(Tree, "ENOENT", 2)]
#[ignore = "needs strace: run tests/privileged"]
fn what_comes_or_goes_while_it_is_published_is_looked_at_again(
    #[case] old: Old,
    #[case] error: &str,
    #[case] attempt: usize,
) {
    let directory = prepare("here", old);
    let inject = format!("inject=renameat2:error={error}:when={attempt}");
    let path = directory.join("out.d");
    let made = child::calls_that_matter_with(module_path!(), &["-e", &inject], "relaxed", &path);
    assert_eq!(made, vec!["renameat2"; attempt + 1]);
    assert_eq!(trees::tree(directory.path()), new_tree());
}

/// Made, and then there is no descriptor to hold it with.
#[rstest]
#[ignore = "needs strace: run tests/privileged"]
fn a_staging_directory_that_can_not_be_held_goes() {
    let directory = prepare("here", Tree);
    let path = directory.join("out.d");
    let is_opened = |line: &str| line.contains("\".out.d.write-atomically\"");
    let before = child::strace(module_path!(), &["-e", "trace=openat"], "build", &path);
    // strace counts each thread's calls.
    let thread = before.lines().find(|line| is_opened(line)).unwrap().split(' ').next().unwrap();
    let mut calls = before.lines().filter(|line| line.starts_with(thread));
    let opened = calls.position(is_opened).unwrap() + 1;

    let directory = prepare("here", Tree);
    let path = directory.join("out.d");
    let inject = format!("inject=openat:error=EMFILE:when={opened}");
    let log = child::strace(module_path!(), &["-e", "trace=openat", "-e", &inject], "build", &path);
    assert!(log.lines().any(|line| is_opened(line) && line.contains("INJECTED")), "{log}");
    assert_eq!(trees::tree(directory.path()), old_tree(Tree));
}

#[rstest]
#[case::file("neighbour", ErrorKind::NotADirectory)]
#[case::fifo("fifo", ErrorKind::NotADirectory)]
#[case::itself("out.d/../.", ErrorKind::ResourceBusy)]
#[case::parent("out.d/..", ErrorKind::ResourceBusy)]
#[case::root("/", ErrorKind::ResourceBusy)]
#[case::mount("/proc", ErrorKind::ResourceBusy)]
#[case::missing_directory("missing/out", ErrorKind::NotFound)]
#[case::file_as_directory("neighbour/out", ErrorKind::NotADirectory)]
#[case::nul("a\0b", ErrorKind::InvalidInput)]
#[case::link_to_file("link", ErrorKind::NotADirectory)]
fn what_can_be_known_is_refused_before_the_closure(#[case] path: &str, #[case] kind: ErrorKind) {
    let directory = prepare("here", Tree);
    trees::make_fifo(&directory.join("fifo"));
    symlink("neighbour", directory.join("link")).unwrap();
    let before = trees::tree(directory.path());
    let mut ran = false;
    let error = WriteOptions::new()
        .write_dir(directory.join(path), |_| {
            ran = true;
            Ok(())
        })
        .unwrap_err();
    assert!(!ran, "the closure ran in vain");
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!(trees::tree(directory.path()), before);
}

#[rstest]
#[case::plain("out.d")]
#[case::trailing_slash("out.d/")]
#[case::through_a_link("link")]
#[case::through_a_link_with_slash("link/")]
fn paths_are_followed_as_by_others(#[case] path: &str, #[values(Nothing, Tree)] old: Old) {
    let directory = prepare("here", old);
    symlink("out.d", directory.join("link")).unwrap();
    write_dir_atomically(directory.join(path), |out| Ok(build(out)?)).unwrap();
    let mut expected = new_tree();
    expected.insert("link".into(), "-> out.d".into());
    assert_eq!(trees::tree(directory.path()), expected);
}

#[rstest]
fn a_link_is_replaced_itself_if_asked_for() {
    let directory = prepare("here", Tree);
    symlink("out.d", directory.join("link")).unwrap();
    let options = WriteOptions::new().follow_symlinks(false);
    options.write_dir(directory.join("link"), |out| fs::write(out.join("new"), "new")).unwrap();
    let mut expected = old_tree(Tree);
    expected.insert("link".into(), "directory".into());
    expected.insert("link/new".into(), "new".into());
    assert_eq!(trees::tree(directory.path()), expected);
}

#[rstest]
#[case::kept(Some(0o750), None, 0o750)]
#[case::sticky_and_group(Some(0o3770), None, 0o3770)]
#[case::read_only(Some(0o555), None, 0o555)]
#[case::exact(Some(0o750), Some(0o711), 0o711)]
#[case::new_exact(None, Some(0o500), 0o500)]
#[case::new(None, None, 0o755)]
fn the_mode_is_carried_over(
    #[case] old: Option<u32>,
    #[case] option: Option<u32>,
    #[case] expected: u32,
) {
    let directory = prepare("here", if old.is_some() { Tree } else { Nothing });
    let path = directory.join("out.d");
    if let Some(old) = old {
        if old & 0o200 == 0 && !support::is_root() {
            return; // Refused: see above.
        }
        support::set_mode(&path, old);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&path, "user.note", b"kept", flags).unwrap();
    }
    let options = option.map_or(WriteOptions::new(), |mode| WriteOptions::new().mode(mode));
    options.write_dir(&path, build).unwrap();
    assert_eq!(format!("{:o}", support::mode(&path)), format!("{expected:o}"));
    assert_eq!(trees::tree(directory.path()), new_tree());
    let mut value = [0; 8];
    let note = rustix::fs::getxattr(&path, "user.note", &mut value[..]);
    assert_eq!(note.is_ok(), old.is_some());
}

#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn owner_and_acls_are_carried_over() {
    let directory = prepare("ext4", Tree);
    let path = directory.join("out.d");
    fs_err::os::unix::fs::chown(&path, Some(1), Some(2)).unwrap();
    let acl = ["-m", "u:3:rx,g:4:rwx,d:u:5:rwx,d:g:6:r"];
    support::run(Command::new("setfacl").args(acl).arg(&path));
    let shown = || support::run(Command::new("getfacl").args(["-n", "-p"]).arg(&path));
    let before = shown();
    write_dir_atomically(&path, |out| Ok(build(out)?)).unwrap();
    assert_eq!(shown(), before);
    let stat = fs::metadata(&path).unwrap();
    assert_eq!((stat.uid(), stat.gid()), (1, 2));
    assert_eq!(trees::tree(directory.path()), new_tree());
}

/// What it gives to owner and group is meant for the old ones.
#[rstest]
#[case::both_kept(NOBODY, NOBODY, true)]
#[case::another_owner(1234, NOBODY, false)]
#[case::another_group(NOBODY, 2345, false)]
#[ignore = "needs root: run tests/privileged"]
fn a_default_acl_is_carried_over_with_owner_and_group(
    #[case] uid: u32,
    #[case] gid: u32,
    #[case] kept: bool,
) {
    let directory = prepare("ext4", Empty);
    let path = directory.join("out.d");
    for path in [directory.path(), &path] {
        support::set_mode(path, 0o777);
    }
    support::run(Command::new("setfacl").args(["-m", "d:u:5:rwx"]).arg(&path));
    fs_err::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
    assert_eq!(Child::new(module_path!(), "build", &path).by_nobody().answer(), "published");
    let acl = support::run(Command::new("getfacl").args(["-d", "-n", "-p", "-c"]).arg(&path));
    assert_eq!(acl.contains("user:5:rwx"), kept, "{acl}");
    assert_eq!(trees::tree(directory.path()), new_tree());
}

#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn mount_points_are_refused_and_what_is_mounted_is_not_removed(
    #[values("destination", "inside", "memory inside")] place: &str,
) {
    let directory = prepare("here", Tree);
    let path = directory.join("out.d");
    let precious = directory.join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "precious").unwrap();
    let at = if place == "destination" { path.clone() } else { path.join("a/b") };
    let mount = match place {
        "memory inside" => Mount::memory(&at, 1 << 20),
        _ => Mount::bind(&precious, &at),
    };
    fs::write(at.join("file"), "precious").unwrap();
    let error =
        write_dir_atomically(&path, |_| -> anyhow::Result<()> { panic!("ran") }).unwrap_err();
    let replaced = Error::find(error.as_ref()).unwrap().replaced();
    // Both before the closure.
    assert_eq!((support::step(&error), replaced), (Step::Resolve, false), "{error:#}");
    assert_eq!(support::read(&at.join("file")), "precious");
    drop(mount);
    assert_eq!(directory.listing(), ["neighbour", "out.d", "precious"]);
    // Now nothing is in the way.
    write_dir_atomically(&path, |_| Ok(())).unwrap();
    assert_eq!(directory.listing(), ["neighbour", "out.d", "precious"]);
    if place != "memory inside" {
        assert_eq!(support::read(&precious.join("file")), "precious");
    }
}

/// As in a container: the directory is in the image.
#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn a_directory_of_a_lower_layer_is_refused_before_the_closure(
    #[values("out.d", "out.d/a", "new")] path: &str,
) {
    let (lower, layers) = (prepare("here", Tree), Directory::on_memory());
    for name in ["upper", "work", "merged"] {
        fs::create_dir(layers.join(name)).unwrap();
    }
    let merged = layers.join("merged");
    let _mount = Mount::overlay(lower.path(), &layers.join("upper"), &layers.join("work"), &merged);
    let mut ran = false;
    let result = WriteOptions::new().write_dir(merged.join(path), |out| {
        ran = true;
        build(out)
    });
    if path == "new" {
        result.unwrap();
        assert!(merged.join("new/a/c/new").exists());
        // That one is in the upper layer.
        WriteOptions::new().write_dir(merged.join(path), build).unwrap();
        fs::remove_dir_all(merged.join("new")).unwrap();
    } else {
        assert_eq!((result.unwrap_err().kind(), ran), (ErrorKind::Unsupported, false));
    }
    assert_eq!(trees::tree(&merged), old_tree(Tree));
}

#[rstest]
fn links_are_not_followed_out_of_the_tree() {
    let directory = prepare("here", Tree);
    let precious = directory.join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "precious").unwrap();
    let path = directory.join("out.d");
    for _ in 0..2 {
        write_dir_atomically(&path, |out| {
            symlink(&precious, out.join("link"))?;
            symlink("../../precious", out.join("relative"))?;
            // A FIFO would block whoever opens it to sync it.
            trees::make_fifo(&out.join("fifo"));
            Ok(fs::hard_link(precious.join("file"), out.join("file"))?)
        })
        .unwrap();
    }
    assert_eq!(support::listing(&precious), ["file"]);
    assert_eq!(support::read(&precious.join("file")), "precious");
    assert_eq!(fs::metadata(precious.join("file")).unwrap().nlink(), 2);
    assert_eq!(support::listing(&path), ["fifo", "file", "link", "relative"]);
}

#[rstest]
fn keeping_what_failed_is_for_files() {
    let directory = prepare("here", Tree);
    let options = WriteOptions::new().keep_failed(directory.join("kept"));
    let mut ran = false;
    let result = options.write_dir(directory.join("out.d"), |_| {
        ran = true;
        io::Result::Ok(())
    });
    assert_eq!((result.unwrap_err().kind(), ran), (ErrorKind::Unsupported, false));
    assert_eq!(trees::tree(directory.path()), old_tree(Tree));
}

#[rstest]
fn missing_parents_are_made_when_publishing(#[values(true, false)] fails: bool) {
    let directory = prepare("here", Nothing);
    let path = directory.join("x/y/out.d");
    let result = WriteOptions::new().create_parents(true).write_dir(&path, |out| {
        build(out)?;
        assert!(!directory.join("x").exists());
        if fails { Err(io::Error::other("no")) } else { Ok(()) }
    });
    assert_eq!(result.is_err(), fails);
    let expected: &[&str] = if fails { &["neighbour"] } else { &["neighbour", "x"] };
    assert_eq!(directory.listing(), expected);
    assert_eq!(path.join("a/c/new").exists(), !fails);
}

#[rstest]
fn what_is_open_stays_readable() {
    let directory = prepare("here", Tree);
    let path = directory.join("out.d");
    let mut open = fs::File::open(path.join("a/b/old")).unwrap();
    write_dir_atomically(&path, |out| Ok(build(out)?)).unwrap();
    let mut content = String::new();
    open.read_to_string(&mut content).unwrap();
    assert_eq!(content, "old");
    assert_eq!(trees::tree(directory.path()), new_tree());
}

#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn somebody_elses_directory_in_a_sticky_one_is_refused() {
    let outer = Directory::new();
    support::set_mode(outer.path(), 0o1777);
    let path = outer.join("out");
    fs::create_dir(&path).unwrap();
    support::set_mode(&path, 0o777);
    assert_eq!(Child::new(module_path!(), "build", &path).by_nobody().answer(), "Resolve");
    fs_err::os::unix::fs::chown(&path, Some(NOBODY), None).unwrap();
    assert_eq!(Child::new(module_path!(), "build", &path).by_nobody().answer(), "published");
    assert_eq!(outer.listing(), ["out"]);
}

#[rstest]
#[ignore = "needs strace: run tests/privileged"]
#[case::durable("durable", &["syncfs", "renameat2", "fsync"])]
#[ignore = "needs strace: run tests/privileged"]
#[case::few_files("small", &["fsync", "fsync", "renameat2", "fsync"])]
#[ignore = "needs strace: run tests/privileged"]
#[case::consistent("consistent", &["syncfs", "renameat2"])]
#[ignore = "needs strace: run tests/privileged"]
#[case::relaxed("relaxed", &["renameat2"])]
fn durability_is_what_was_asked_for(
    #[values(Nothing, Tree)] old: Old,
    #[case] role: &str,
    #[case] calls: &[&str],
) {
    let directory = prepare("here", old);
    let made = child::calls_that_matter(module_path!(), role, &directory.join("out.d"));
    // Replacing tries first whether that can be done.
    let tried = usize::from(old != Nothing);
    assert_eq!(made[tried..], *calls);
}
