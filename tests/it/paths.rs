//! Promises 4, 7 and 10: which paths there are, what is followed, what is refused before the closure
//! runs, and what is written into instead of being replaced.

use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::thread;

use fs_err::os::unix::fs::{chown, lchown, symlink};
use fs_err::{self as fs, File};
use rstest::rstest;
use write_atomically::{Error, Step, WriteOptions, write, write_atomically};

use crate::child::{self, Child};
use crate::support::{self, Directory, Mount, NOBODY};

/// The error of a write whose closure must not run.
fn refused(options: &WriteOptions, path: impl AsRef<Path>) -> io::Error {
    let result: io::Result<()> =
        options.write(path, |_| panic!("the closure ran, and would have worked in vain"));
    result.unwrap_err()
}

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
#[case::name_too_long(&"n".repeat(256), ErrorKind::InvalidFilename)]
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
    let error = refused(&WriteOptions::new(), &whole);
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
    let error = refused(&WriteOptions::new(), directory.join("a"));
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
#[case::of_the_file("inner/file", Step::Stage)]
#[case::of_parents_to_be_made("inner/a/b/file", Step::Publish)]
fn a_directory_that_goes_meanwhile_is_an_error(#[case] name: &str, #[case] step: Step) {
    let directory = Directory::new();
    let inner = directory.join("inner");
    fs::create_dir(&inner).unwrap();
    let options = WriteOptions::new().create_parents(true);
    let error = options.write(directory.join(name), |_| fs::remove_dir(&inner)).unwrap_err();
    let error = Error::find(&error).unwrap();
    assert_eq!((error.step(), error.io_error().kind()), (step, ErrorKind::NotFound));
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
            _ => drop(support::run(Command::new("mkfifo").arg(&path))),
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

/// Copied by another process: of ours, one that another test forks at this moment would hold the copy
/// open for writing, and nobody could run it (execve(2), ETXTBSY).
fn run_program(directory: &Directory) -> (PathBuf, process::Child) {
    let program = directory.join("sleep");
    support::run(Command::new("cp").arg("/bin/sleep").arg(&program));
    let running = Command::new(&program).arg("60").spawn().unwrap();
    (program, running)
}

#[rstest]
fn a_running_program_is_replaced() {
    let directory = Directory::new();
    let (program, mut running) = run_program(&directory);
    assert_eq!(fs::write(&program, "new").unwrap_err().kind(), ErrorKind::ExecutableFileBusy);
    let written = write(&program, "new");
    running.kill().unwrap();
    running.wait().unwrap();
    written.unwrap();
    assert_eq!(support::read(&program), "new");
    assert_eq!(support::mode(&program), 0o755);
}

/// A FIFO for each case: a process that another test has forked, and that has not become its program
/// yet, still has the last reader's descriptor, and a writer would not wait for the next one.
#[rstest]
fn a_fifo_gets_the_content_once_the_closure_has_returned_ok(#[values(true, false)] fails: bool) {
    let directory = Directory::new();
    let fifo = directory.join("fifo");
    support::run(Command::new("mkfifo").arg(&fifo));
    let reader = thread::spawn({
        let fifo = fifo.clone();
        move || fs::read_to_string(fifo).unwrap()
    });
    let written = WriteOptions::new().write(&fifo, |w| {
        w.write_all(b"new")?;
        if fails { Err(io::Error::other("no")) } else { Ok(()) }
    });
    assert_eq!(written.is_err(), fails);
    assert_eq!(reader.join().unwrap(), if fails { "" } else { "new" });
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    assert_eq!(directory.listing(), ["fifo"]);
}

#[rstest]
fn a_socket_is_refused_and_stays() {
    let directory = Directory::new();
    let socket = directory.join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let error = refused(&WriteOptions::new().overwrite_in_place(true), &socket);
    assert_eq!(Error::find(&error).unwrap().io_error().raw_os_error(), Some(6), "ENXIO: {error}");
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    assert_eq!(directory.listing(), ["socket"]);
}

#[rstest]
fn standard_output_is_written_into(
    #[values("pipe", "socket", "file", "appended file")] output: &str,
) {
    let directory = Directory::new();
    let log = directory.file("log", "before\n");
    let mut command = Child::new(module_path!(), "write", Path::new("/dev/stdout")).command();
    let received = match output {
        "pipe" => String::from_utf8(command.stdout(Stdio::piped()).output().unwrap().stdout),
        "socket" => {
            let (theirs, mut ours) = UnixStream::pair().unwrap();
            command.stdout(OwnedFd::from(theirs)).status().unwrap();
            drop(command);
            io::read_to_string(&mut ours).map_err(|error| panic!("{error}"))
        }
        _ => {
            let file = match output {
                "file" => File::create(&log).unwrap(),
                _ => File::options().append(true).open(&log).unwrap(),
            };
            let inode = file.metadata().unwrap().ino();
            assert!(command.stdout(file.into_file()).status().unwrap().success());
            assert_eq!(fs::metadata(&log).unwrap().ino(), inode, "it was replaced");
            Ok(support::read(&log))
        }
    };
    let received = received.unwrap();
    assert!(received.contains("new"), "{received}");
    // What the test runner itself said before and after is still there.
    assert!(received.contains("running 1 test") && received.contains("test result"), "{received}");
    assert_eq!(received.contains("before"), output == "appended file");
    assert_eq!(directory.listing(), ["log"]);
}

/// With the position that the process has there already.
#[rstest]
fn standard_error_is_written_into(#[values("file", "socket")] what: &str) {
    let directory = Directory::new();
    let log = directory.file("log", "");
    let mut command =
        Child::new(module_path!(), "write between", Path::new("/dev/stderr")).command();
    let received = match what {
        "file" => {
            let file = File::create(&log).unwrap();
            assert!(command.stderr(file.into_file()).status().unwrap().success());
            support::read(&log)
        }
        _ => {
            let (theirs, mut ours) = UnixStream::pair().unwrap();
            assert!(command.stderr(OwnedFd::from(theirs)).status().unwrap().success());
            drop(command);
            io::read_to_string(&mut ours).unwrap()
        }
    };
    assert_eq!(received, "before\nnew\nafter\n");
    assert_eq!(directory.listing(), ["log"]);
}

#[rstest]
fn a_link_to_an_open_file_adds_to_what_is_there(#[values(true, false)] fails: bool) {
    let directory = Directory::new();
    let log = directory.file("log", "before\n");
    let open = File::open(&log).unwrap();
    let inode = open.metadata().unwrap().ino();
    let link = format!("/proc/self/fd/{}", open.as_raw_fd());
    let written = WriteOptions::new().write(link, |w| {
        w.write_all(b"new\n")?;
        if fails { Err(io::Error::other("no")) } else { Ok(()) }
    });
    assert_eq!(written.is_err(), fails);
    assert_eq!(support::read(&log), if fails { "before\n" } else { "before\nnew\n" });
    assert_eq!(fs::metadata(&log).unwrap().ino(), inode);
    assert_eq!(directory.listing(), ["log"]);
}

/// A descriptor that a program inherits keeps the lock as long as it runs, and shows the content.
#[rstest]
fn programs_that_the_closure_runs_inherit_nothing(
    #[values(
        "write",
        "create",
        "if missing",
        "update",
        "update a program",
        "by path",
        "directory",
        "batch",
        "open file"
    )]
    how: &str,
) {
    let directory = Directory::new();
    let (old, new) = (directory.file("old", "old"), directory.join("new"));
    let (program, mut running) = run_program(&directory);
    let open = File::open(&old).unwrap();
    let inherited = || -> io::Result<String> {
        let output = Command::new("ls").args(["-l", "/proc/self/fd/"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let options = WriteOptions::new();
    let listed = match how {
        "write" => options.write(&old, |_| inherited()),
        "create" => options.create(&new, |_| inherited()),
        "if missing" => options.write_if_missing(&new, |_| inherited()).map(Option::unwrap),
        "update" => options.update(&old, |_, _| inherited()),
        "update a program" => options.update(&program, |_, _| inherited()),
        "by path" => options.write_path(&new, |path| File::create(path).and(inherited())),
        "directory" => options.write_dir(&new, |_| inherited()),
        "batch" => options.write_batch(|batch| batch.write(&new, |_| inherited())),
        _ => {
            let link = format!("/proc/self/fd/{}", open.as_raw_fd());
            options.write(link, |_| inherited())
        }
    };
    running.kill().unwrap();
    running.wait().unwrap();
    let listed = listed.unwrap();
    assert!(listed.contains(" -> "), "{listed}");
    assert!(!listed.contains(directory.path().to_str().unwrap()), "{listed}");
}

#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn a_device_stays_a_device(#[values("1 3", "1 7")] device: &str) {
    let directory = Directory::new();
    let path = directory.join("device");
    support::run(Command::new("mknod").arg(&path).arg("c").args(device.split(' ')));
    let written = write(&path, "new");
    match device {
        "1 3" => written.unwrap(), // /dev/null
        _ => {
            // /dev/full
            let error = written.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            let error = Error::find(&error).unwrap();
            assert_eq!((error.step(), error.replaced()), (Step::Overwrite, true));
        }
    }
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_char_device());
    assert_eq!(directory.listing(), ["device"]);
}

#[rstest]
fn dev_null_stays_a_device() {
    write("/dev/null", "new").unwrap();
    assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
    assert_eq!(fs::read("/dev/null").unwrap(), b"");
}

#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn a_mount_point_is_refused_by_name_unless_it_may_be_overwritten(
    #[values("new", "something longer than before")] new: &str,
) {
    let directory = Directory::new();
    let (file, mounted) = (directory.file("file", ""), directory.file("mounted", "old content"));
    let mount = Mount::bind(&mounted, &file);
    let error = refused(&WriteOptions::new(), &file);
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    for part in ["mount point", "bind-mounted", "overwrite_in_place", file.to_str().unwrap()] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(support::read(&file), "old content");

    let inode = fs::metadata(&file).unwrap().ino();
    let options = WriteOptions::new().overwrite_in_place(true);
    let failed: io::Result<()> = options.write(&file, |w| {
        w.write_all(b"half of it")?;
        Err(io::Error::other("no"))
    });
    assert!(failed.is_err());
    assert_eq!(support::read(&file), "old content");
    options.write(&file, |w| w.write_all(new.as_bytes())).unwrap();
    assert_eq!(support::read(&file), new);
    assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
    drop(mount);
    assert_eq!(support::read(&mounted), new);
    assert_eq!(directory.listing(), ["file", "mounted"]);
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
    let error = refused(&WriteOptions::new(), at.join("file"));
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
    let error = refused(&WriteOptions::new(), &file);
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
            let error = refused(&WriteOptions::new(), &link);
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
    }
    assert_eq!(support::read(&precious), if followed { "new" } else { "precious" });
    assert_eq!(fs::read_link(&link).unwrap(), precious);
    assert_eq!(support::listing(&shared), ["report"]);
}

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
#[case::a_name_too_long(&format!("a/b/{}/file", "n".repeat(256)), ErrorKind::InvalidFilename)]
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
    let error = refused(&WriteOptions::new().create_parents(true), directory.join(name));
    assert_eq!(error.kind(), ErrorKind::InvalidFilename);
    assert_eq!(directory.listing(), Vec::<String>::new());
}

#[rstest]
fn a_parent_that_is_a_link_to_nowhere_is_refused_before_the_closure_runs() {
    let directory = Directory::new();
    symlink("nowhere", directory.join("a")).unwrap();
    let error = refused(&WriteOptions::new().create_parents(true), directory.join("a/b/file"));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(directory.listing(), ["a"]);
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
        "write between" => {
            eprintln!("before");
            write(&path, "new\n").unwrap();
            eprintln!("after");
        }
        "write" if path.starts_with("/dev") => write(&path, "new").unwrap(),
        "write" => child::say(format!("{:?}", write(&path, "new"))),
        "overwrite" => {
            let options = WriteOptions::new().overwrite_in_place(true);
            child::say(format!("{:?}", options.write(&path, |w| w.write_all(b"new"))));
        }
        "refused" => {
            let error = refused(&WriteOptions::new(), &path);
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
