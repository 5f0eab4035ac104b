//! Promise 10: others see a finished file. It can be executed at once, and who watches the directory is told
//! its final name.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use rstest::rstest;
use rstest_reuse::apply;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use write_atomically::{WriteOptions, Writer};

use crate::child::{self, Child};
use crate::filesystems::filesystems;
use crate::support::{self, Directory};

fn watch(directory: &Path) -> OwnedFd {
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, directory, WatchFlags::ALL_EVENTS).unwrap();
    watch
}

/// What has happened to a name since the last call.
fn events_of(watch: &OwnedFd, name: &str) -> Vec<ReadFlags> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(watch, &mut buffer);
    let mut events = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                if event.file_name().is_some_and(|of| of.to_bytes() == name.as_bytes()) {
                    events.push(event.events() - ReadFlags::ISDIR);
                }
            }
            Err(Errno::AGAIN) => return events,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Writes `file` with one of the operations.
fn perform(options: &WriteOptions, operation: &str, path: &Path, content: &[u8]) -> io::Result<()> {
    let fill = |w: &mut Writer| w.write_all(content);
    match operation {
        "write" => options.write(path, fill),
        "create" => options.create(path, fill),
        "if missing" => options.write_if_missing(path, fill).map(drop),
        "if changed" => options.write_if_changed(path, fill).map(drop),
        "update" => options.update(path, |_, w| fill(w)),
        "path" => options.write_path(path, |staged| fs::write(staged, content)),
        "path if missing" => {
            options.write_path_if_missing(path, |staged| fs::write(staged, content)).map(drop)
        }
        "batch" => options.write_batch(|batch| batch.write(path, fill)),
        "directory" => options.write_dir(path, |staged| fs::write(staged.join("in it"), content)),
        "directory if missing" => options
            .write_dir_if_missing(path, |staged| fs::write(staged.join("in it"), content))
            .map(drop),
        operation => panic!("{operation}"),
    }
}

/// linkat(2) would be told as IN_CREATE, and a file that is filled under its final name as IN_MODIFY.
#[apply(filesystems)]
fn a_watcher_is_told_the_final_name_of_a_finished_file(
    #[case] filesystem: &str,
    #[values(
        ("write", false), ("write", true),
        ("create", false),
        ("if missing", false),
        ("if changed", false), ("if changed", true),
        ("update", false), ("update", true),
        ("path", false), ("path", true),
        ("path if missing", false),
        ("batch", false), ("batch", true),
        ("directory", false), ("directory", true),
        ("directory if missing", false),
    )]
    (operation, exists): (&str, bool),
) {
    let directory = Directory::on(filesystem);
    let path = directory.join("file");
    let is_directory = operation.starts_with("directory");
    match (exists, is_directory) {
        (true, true) => fs::create_dir(&path).unwrap(),
        (true, false) => fs::write(&path, "old").unwrap(),
        (false, _) => {}
    }
    let watch = watch(directory.path());
    let done = perform(&support::relaxed(), operation, &path, b"new");
    if filesystem == "fuse" && is_directory && exists {
        // Two directories can't be exchanged there.
        assert_eq!(done.unwrap_err().kind(), io::ErrorKind::Unsupported);
        return assert_eq!(events_of(&watch, "file"), []);
    }
    done.unwrap();
    let mut events = events_of(&watch, "file");
    // Reading the old content, or comparing with it.
    let read = ReadFlags::OPEN | ReadFlags::ACCESS | ReadFlags::CLOSE_NOWRITE;
    // A file that is open for writing to be locked, but is not written.
    let locked = ReadFlags::CLOSE_WRITE;
    // The old tree takes the staging name.
    let exchanged = if is_directory && exists { ReadFlags::MOVED_FROM } else { ReadFlags::empty() };
    let ignored = if operation == "update" { read | locked } else { read } | exchanged;
    events.retain(|event| !ignored.contains(*event));
    // bindfs knows no RENAME_NOREPLACE, and without it only a link replaces nothing.
    let replaces_nothing = ["create", "if missing", "update", "path if missing"];
    let is_linked = filesystem == "fuse" && !exists && replaces_nothing.contains(&operation);
    assert_eq!(events, [if is_linked { ReadFlags::CREATE } else { ReadFlags::MOVED_TO }]);
    assert_eq!(directory.listing(), ["file"]);
}

const PROGRAMS: usize = 60;

/// execve(2), ETXTBSY: nobody may have it open for writing.
#[rstest]
fn a_program_can_be_executed_as_soon_as_it_has_its_name(
    #[values(
        "write",
        "if changed",
        "update",
        "path",
        "batch",
        "create",
        "if missing",
        "path if missing"
    )]
    operation: &str,
) {
    let directory = Directory::new();
    let watch = watch(directory.path());
    let mut command = Child::new(module_path!(), operation, &directory.join("file")).command();
    let mut writer = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut turns = writer.stdin.take().unwrap();
    let (mut executed, mut failures) = (0, Vec::new());
    for turn in 0..PROGRAMS {
        turns.write_all(b"\n").unwrap();
        let start = Instant::now();
        // The writer's call has yet to sync the directory and to return.
        while !events_of(&watch, "file").contains(&ReadFlags::MOVED_TO) {
            assert!(start.elapsed() < Duration::from_secs(20), "no program {turn}");
        }
        match Command::new(directory.join("file")).output() {
            Ok(output) => {
                assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{turn}\n"));
                executed += 1;
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    drop(turns);
    let output = writer.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!((executed, failures), (PROGRAMS, Vec::<String>::new()));
    assert_eq!(directory.listing(), ["file"]);
}

/// In the same process, without any other thread that forks.
#[rstest]
fn a_program_can_be_executed_by_its_writer(
    #[values("write", "if changed", "update", "path", "batch")] operation: &str,
) {
    let directory = Directory::new();
    let role = format!("execute {operation}");
    let answer = Child::new(module_path!(), &role, &directory.join("file")).answer();
    assert_eq!(answer, format!("{PROGRAMS} executed"));
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    let options = WriteOptions::new().new_file_mode(0o755);
    let script = |turn| format!("#!/bin/sh\necho {turn}\n");
    let make = |operation: &str, turn: usize| {
        // A producer gives its file a mode of its own.
        let options = match operation.starts_with("path") {
            true => options.clone().mode(0o755),
            false => options.clone(),
        };
        perform(&options, operation, &path, script(turn).as_bytes()).unwrap();
    };
    if let Some(operation) = role.strip_prefix("execute ") {
        for turn in 0..PROGRAMS {
            make(operation, turn);
            let output = Command::new(&path).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{turn}\n"));
        }
        return child::say(format!("{PROGRAMS} executed"));
    }
    for (turn, line) in io::stdin().lines().enumerate() {
        line.unwrap();
        if matches!(&*role, "create" | "if missing" | "path if missing") && turn > 0 {
            fs::remove_file(&path).unwrap();
        }
        make(&role, turn);
    }
}
