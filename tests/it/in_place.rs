//! Promises 7 and 10: devices, FIFOs, streams and mount points are written into instead of being replaced;
//! programs that run are replaced, and inherit no descriptor.

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::thread;

use fs_err::{self as fs, File};
use rstest::rstest;
use write_atomically::{Error, Hint, Step, WriteOptions, write};

use crate::child::{self, Child};
use crate::support::{self, Directory, Mount};
use crate::trees;

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
    trees::make_fifo(&fifo);
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
    let error = support::refused(&WriteOptions::new().in_place_fallback(true), &socket);
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
fn a_file_with_several_names_keeps_them_if_it_is_to(
    #[values("write", "if changed", "update", "path")] operation: &str,
    #[values(true, false)] keep: bool,
    #[values(1, 2, 3)] names: usize,
    #[values(true, false)] succeeds: bool,
) {
    let directory = Directory::new();
    let path = directory.file("file-1", "old, and longer");
    for n in 2..=names {
        fs::hard_link(&path, directory.join(format!("file-{n}"))).unwrap();
    }
    let inode = |n: usize| fs::metadata(directory.join(format!("file-{n}"))).unwrap().ino();
    let old = inode(1);
    let options = WriteOptions::new().keep_hard_links(keep);
    let end = || if succeeds { Ok(()) } else { Err(io::Error::other("no more rows")) };
    let result = match operation {
        "write" => options.write(&path, |w| w.write_all(b"new").and_then(|()| end())),
        "if changed" => {
            let changed =
                options.write_if_changed(&path, |w| w.write_all(b"new").and_then(|()| end()));
            changed.map(drop)
        }
        "update" => options.update(&path, |_, w| w.write_all(b"new").and_then(|()| end())),
        _ => options.write_path(&path, |staged| fs::write(staged, "new").and_then(|()| end())),
    };
    assert_eq!(result.is_ok(), succeeds, "{result:?}");
    let is_in_place = keep && names > 1;
    for n in 1..=names {
        let is_new = succeeds && (n == 1 || is_in_place);
        let content = support::read(&directory.join(format!("file-{n}")));
        assert_eq!(content, if is_new { "new" } else { "old, and longer" }, "file-{n}");
        assert_eq!(inode(n) == old, !is_new || is_in_place, "file-{n}");
    }
    assert_eq!(directory.listing().len(), names);
}

#[rstest]
fn what_is_written_in_place_has_no_place_in_a_batch() {
    let directory = Directory::new();
    let path = directory.file("one", "old");
    fs::hard_link(&path, directory.join("two")).unwrap();
    let options = WriteOptions::new().keep_hard_links(true);
    let result: io::Result<()> = options.write_batch(|batch| batch.write(&path, |_| panic!()));
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(Error::find(&error).unwrap().hint(), Some(Hint::InPlaceInBatch));
    assert_eq!((support::read(&path), directory.listing().len()), ("old".into(), 2));
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
    let error = support::refused(&WriteOptions::new(), &file);
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    for part in ["mount point", "renamed over", "in_place_fallback", file.to_str().unwrap()] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(support::read(&file), "old content");

    let inode = fs::metadata(&file).unwrap().ino();
    let options = WriteOptions::new().in_place_fallback(true);
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
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    if role == "write between" {
        eprintln!("before");
        write(&path, "new\n").unwrap();
        eprintln!("after");
    } else {
        write(&path, "new").unwrap();
    }
}
