//! Promise 8 for `write_if_missing`: one closure runs, the other callers wait, nothing is replaced.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use fs_err::os::unix::fs::{chown, symlink};
use fs_err::{self as fs, OpenOptions};
use rstest::rstest;
use rstest_reuse::apply;
use write_atomically::{Error, Step, WriteOptions, write_if_missing};

use crate::child::{self, Child, Living};
use crate::filesystems::filesystems;
use crate::support::{self, Directory};
use crate::trees;

/// What nobody is to run.
fn never(_: &mut write_atomically::Writer) -> io::Result<()> {
    panic!("the closure ran")
}

fn content() -> String {
    "content ".repeat(20_000)
}

/// In which a file is staged; who holds its lock keeps the others waiting.
const ENTRY: &str = ".file.write-atomically";

fn entry(filesystem: &str, watched: &Path) -> String {
    support::staging_name(filesystem, &watched.join("file"))
}

/// A directory for the destination, in one for what the closures tell.
fn watched(filesystem: &str) -> (Directory, PathBuf) {
    let base = Directory::on(filesystem);
    let watched = base.join("watched");
    fs::create_dir(&watched).unwrap();
    (base, watched)
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    let file = path.join("watched/file");
    match role.as_str() {
        "ask" | "ask, and let the first be killed" => {
            // All start at once: when the test closes the pipe.
            io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
            let ran = support::relaxed().write_if_missing(&file, |w| {
                let is_first = log_run(&path) == 1;
                w.write_all(&content().as_bytes()[..1000])?;
                w.flush()?;
                thread::sleep(Duration::from_millis(100));
                if is_first && role != "ask" {
                    child::kill_this_process();
                }
                w.write_all(&content().as_bytes()[1000..])
            });
            assert!(fs::read_to_string(&file).unwrap() == content(), "neither whole nor there");
            process::exit(if ran.unwrap().is_some() { 10 } else { 11 });
        }
        "exit" | "kill" => {
            let _ = support::relaxed().write_if_missing(&file, |w| {
                w.write_all(content().as_bytes())?;
                match role.as_str() {
                    "exit" => process::exit(7),
                    _ => child::kill_this_process(),
                }
                io::Result::Ok(())
            });
        }
        "say" => {
            let answer =
                match support::relaxed().write_if_missing(&path, |w| w.write_all(b"child's")) {
                    Ok(answer) => format!("{answer:?}"),
                    Err(error) => format!("{:?}", Error::find(&error).unwrap().step()),
                };
            child::say(answer);
        }
        role => panic!("{role}"),
    }
}

fn log_run(base: &Path) -> u64 {
    let mut log = OpenOptions::new().append(true).create(true).open(base.join("runs")).unwrap();
    log.write_all(b".").unwrap();
    log.metadata().unwrap().len()
}

#[apply(filesystems)]
fn of_sixteen_processes_one_runs(
    #[case] filesystem: &str,
    #[values(("ask", 1), ("ask, and let the first be killed", 2))] (role, runs): (&str, u64),
) {
    let (base, watched) = watched(filesystem);
    let child = |_| {
        Child::new(module_path!(), role, base.path())
            .command()
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut children: Vec<_> = (0..16).map(child).collect();
    children.iter_mut().for_each(|child| drop(child.stdin.take()));
    let ends: Vec<_> = children.into_iter().map(|mut child| child.wait().unwrap()).collect();
    let having = |code| ends.iter().filter(|end| end.code() == Some(code)).count();
    let killed = ends.iter().filter(|end| end.signal() == Some(9)).count() as u64;
    assert_eq!(fs::metadata(base.join("runs")).unwrap().len(), runs);
    assert_eq!((having(10), having(11) as u64, killed), (1, 16 - runs, runs - 1), "{ends:?}");
    assert_eq!(support::listing(&watched), ["file"]);
}

#[apply(filesystems)]
fn of_many_threads_one_runs_and_a_failure_hands_over(
    #[case] filesystem: &str,
    #[values(0, 1, 5)] failures: u32,
    #[values(true, false)] panics: bool,
) {
    let (_base, watched) = watched(filesystem);
    let (runs, barrier) = (AtomicU32::new(0), Barrier::new(16));
    let ask = || {
        barrier.wait();
        support::relaxed().write_if_missing(watched.join("file"), |w| {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            w.write_all(content().as_bytes())?;
            thread::sleep(Duration::from_millis(2));
            match run < failures {
                true if panics => panic::resume_unwind(Box::new("a bug")),
                true => Err(io::Error::other("it failed")),
                false => Ok(()),
            }
        })
    };
    let answers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let count = |wanted: Option<()>| {
        answers.iter().filter(|answer| matches!(answer, Ok(Ok(value)) if *value == wanted)).count()
    };
    assert_eq!(runs.into_inner(), failures + 1);
    assert_eq!((count(Some(())), count(None)), (1, 15 - failures as usize));
    assert!(support::read(&watched.join("file")) == content());
    assert_eq!(support::listing(&watched), ["file"]);
}

/// Those who come, wait, fail and come again meet in every order.
#[apply(filesystems)]
fn never_do_two_run_at_once(#[case] filesystem: &str) {
    let (_base, watched) = watched(filesystem);
    let running = AtomicU32::new(0);
    let ask = || {
        for _ in 0..200 {
            let result = support::relaxed().write_if_missing(watched.join("file"), |_| {
                let others = running.fetch_add(1, Ordering::SeqCst);
                thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
                Err::<(), _>(io::Error::other(others.to_string()))
            });
            assert_eq!(result.unwrap_err().to_string(), "0");
        }
    };
    thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(ask))));
    assert!(support::listing(&watched).is_empty());
}

/// One may look before, and ask for the lock after, another has done it all.
#[apply(filesystems)]
fn of_those_who_come_late_none_runs(#[case] filesystem: &str) {
    let (_base, watched) = watched(filesystem);
    let (runs, barrier) = (AtomicU32::new(0), Barrier::new(4));
    const ROUNDS: u32 = 300;
    let ask = || {
        for round in 0..ROUNDS {
            barrier.wait();
            let path = watched.join(format!("file-{round}"));
            let run = |_: &mut _| io::Result::Ok(runs.fetch_add(1, Ordering::SeqCst));
            support::relaxed().write_if_missing(path, run).unwrap();
        }
    };
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(ask))));
    assert_eq!(runs.into_inner(), ROUNDS);
    assert_eq!(support::listing(&watched).len() as u32, ROUNDS);
}

#[apply(filesystems)]
fn a_failure_leaves_nothing_after_the_next_call(
    #[case] filesystem: &str,
    #[values("error", "panic", "exit", "kill")] end: &str,
) {
    let (base, watched) = watched(filesystem);
    let path = watched.join("file");
    let entry = entry(filesystem, &watched);
    match end {
        "error" => {
            let result =
                support::relaxed().anyhow().write_if_missing(&path, |w| -> anyhow::Result<()> {
                    w.write_all(b"half")?;
                    assert_eq!(support::listing(&watched), [&*entry]);
                    anyhow::bail!("no")
                });
            assert_eq!(result.unwrap_err().to_string(), "no");
        }
        "panic" => {
            let panic = panic::catch_unwind(AssertUnwindSafe(|| {
                let write =
                    |_: &mut _| -> io::Result<()> { panic::resume_unwind(Box::new("a bug")) };
                support::relaxed().write_if_missing(&path, write)
            }));
            assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"a bug"));
        }
        _ => {
            let status = Child::new(module_path!(), end, base.path()).status();
            assert!(matches!((status.code(), status.signal()), (Some(7), None) | (None, Some(9))));
        }
    }
    let left = support::listing(&watched);
    match end {
        "exit" | "kill" => assert_eq!(left, [entry]),
        _ => assert!(left.is_empty(), "{left:?}"),
    }
    assert_eq!(
        support::relaxed().write_if_missing(&path, |w| w.write_all(b"whole")).unwrap(),
        Some(())
    );
    assert_eq!(support::read(&path), "whole");
    assert_eq!(support::listing(&watched), ["file"]);
}

#[rstest]
#[case::file("file")]
#[case::directory("directory")]
#[case::fifo("fifo")]
#[case::link("link")]
#[case::device("/dev/null")]
#[case::open_file("/proc/self/fd/0")]
fn what_is_there_stays(#[case] name: &str) {
    let directory = Directory::new();
    directory.file("file", "content");
    fs::create_dir(directory.join("directory")).unwrap();
    trees::make_fifo(&directory.join("fifo"));
    symlink("file", directory.join("link")).unwrap();
    let before = directory.listing();
    assert_eq!(WriteOptions::new().write_if_missing(directory.join(name), never).unwrap(), None);
    assert_eq!(directory.listing(), before);
    assert_eq!(support::read(&directory.join("file")), "content");
}

#[rstest]
fn a_link_that_leads_nowhere_is_followed_unless_it_must_not_be() {
    let directory = Directory::new();
    fs::create_dir(directory.join("elsewhere")).unwrap();
    symlink("elsewhere/file", directory.join("link")).unwrap();
    let link = directory.join("link");
    assert_eq!(
        support::relaxed().follow_symlinks(false).write_if_missing(&link, never).unwrap(),
        None
    );
    let answer = write_if_missing(&link, |w| {
        assert_eq!(support::listing(&directory.join("elsewhere")), [ENTRY]);
        Ok(w.write_all(b"1")?)
    });
    assert_eq!(answer.unwrap(), Some(()));
    assert!(link.is_symlink());
    assert_eq!(support::read(&directory.join("elsewhere/file")), "1");
    assert_eq!(support::listing(&directory.join("elsewhere")), ["file"]);
}

#[apply(filesystems)]
fn what_appears_meanwhile_stays(
    #[case] filesystem: &str,
    #[values("file", "directory", "link")] what: &str,
) {
    let (_base, watched) = watched(filesystem);
    let path = watched.join("file");
    let answer = support::relaxed().write_if_missing(&path, |w| {
        match what {
            "file" => fs::write(&path, "theirs")?,
            "directory" => fs::create_dir(&path)?,
            _ => symlink("nowhere", &path)?,
        }
        w.write_all(b"ours")
    });
    assert_eq!(answer.unwrap(), None);
    assert_eq!(support::listing(&watched), ["file"]);
    if what == "file" {
        assert_eq!(support::read(&path), "theirs");
    }
}

#[rstest]
#[case::directory("directory")]
#[case::link("link")]
#[case::dangling_link("dangling link")]
#[case::fifo("fifo")]
#[case::socket("socket")]
#[ignore = "needs root: run tests/privileged"]
#[case::somebody_elses("somebody else's")]
fn what_others_have_planted_neither_stops_nor_hangs_it(#[case] what: &str) {
    let directory = Directory::new();
    let entry = directory.join(ENTRY);
    let held = match what {
        "directory" => {
            fs::create_dir(&entry).unwrap();
            None
        }
        "link" => {
            let victim = directory.file("victim", "");
            symlink("victim", &entry).unwrap();
            Some(victim)
        }
        "dangling link" => {
            symlink("nowhere", &entry).unwrap();
            None
        }
        "fifo" => {
            trees::make_fifo(&entry);
            None
        }
        "socket" => {
            std::os::unix::net::UnixListener::bind(&entry).unwrap();
            None
        }
        _ => {
            directory.file(ENTRY, "");
            support::set_mode(&entry, 0o666);
            chown(&entry, Some(support::NOBODY), None).unwrap();
            Some(entry)
        }
    };
    let _held = held.map(|path| Living::holding(&path));
    let before = directory.listing();
    let path = directory.join("file");
    assert_eq!(
        support::relaxed().write_if_missing(&path, |w| w.write_all(b"1")).unwrap(),
        Some(())
    );
    assert_eq!(support::relaxed().write_if_missing(&path, never).unwrap(), None);
    assert_eq!(support::read(&path), "1");
    assert_eq!(directory.listing(), [&before[..], &["file".to_owned()]].concat().sorted());
}

trait Sorted {
    fn sorted(self) -> Self;
}

impl Sorted for Vec<String> {
    fn sorted(mut self) -> Self {
        self.sort();
        self
    }
}

/// What is there is found by one look, which is all that many callers ever do.
#[apply(filesystems)]
fn a_hit_leaves_every_entry_alone_and_a_write_removes_a_dead_one(#[case] filesystem: &str) {
    let (_base, watched) = watched(filesystem);
    let path = watched.join("file");
    let entry = entry(filesystem, &watched);
    fs::write(&path, "there").unwrap();
    fs::write(watched.join(&entry), "").unwrap();
    let living = Living::holding(&watched.join(&entry));
    let ask = || support::relaxed().write_if_missing(&path, never).unwrap();
    assert_eq!((ask(), support::listing(&watched)), (None, vec![entry.clone(), "file".into()]));
    drop(living);
    assert_eq!((ask(), support::listing(&watched)), (None, vec![entry, "file".into()]));
    support::relaxed().write(&path, |w| w.write_all(b"written")).unwrap();
    assert_eq!((ask(), support::listing(&watched)), (None, vec!["file".to_owned()]));
    assert_eq!(support::read(&path), "written");
}

#[rstest]
#[case::missing_directory("no/such/file", Step::Resolve, io::ErrorKind::NotFound)]
#[case::empty("", Step::Resolve, io::ErrorKind::NotFound)]
#[case::means_a_directory("file/", Step::Resolve, io::ErrorKind::IsADirectory)]
#[case::nul("a\0b", Step::Resolve, io::ErrorKind::InvalidInput)]
#[case::loops("loop", Step::Resolve, rustix_loop())]
#[case::below_a_file("plain/file", Step::Resolve, io::ErrorKind::NotADirectory)]
fn what_can_not_be_written_is_an_error_before_the_closure(
    #[case] name: &str,
    #[case] step: Step,
    #[case] kind: io::ErrorKind,
) {
    let directory = Directory::new();
    symlink("loop", directory.join("loop")).unwrap();
    directory.file("plain", "");
    let path = if name.is_empty() { PathBuf::new() } else { directory.join(name) };
    let error = WriteOptions::new().write_if_missing(path, never).unwrap_err();
    assert_eq!((Error::find(&error).unwrap().step(), error.kind()), (step, kind));
    assert_eq!(directory.listing(), ["loop", "plain"]);
}

fn rustix_loop() -> io::ErrorKind {
    io::Error::from(rustix::io::Errno::LOOP).kind()
}

#[rstest]
#[case::present(0o700, 0o555, Some("theirs"), "None")]
#[case::unwritable(0o700, 0o555, None, "Stage")]
#[case::missing(0o700, 0o777, None, "Some(())")]
#[ignore = "needs root, to be another user: run tests/privileged"]
fn as_a_user_without_rights(
    #[case] file: u32,
    #[case] mode: u32,
    #[case] content: Option<&str>,
    #[case] expected: &str,
) {
    let (_base, watched) = watched("here");
    let path = watched.join("file");
    if let Some(content) = content {
        fs::write(&path, content).unwrap();
        support::set_mode(&path, file);
    }
    support::set_mode(&watched, mode);
    let answer = Child::new(module_path!(), "say", &path).by_nobody().answer();
    assert_eq!(answer, expected);
    let there = path.exists();
    assert_eq!(there, expected != "Stage");
    assert_eq!(support::listing(&watched).len(), usize::from(there));
}

/// The two of them can't open each other's entry.
#[rstest]
#[ignore = "needs root, to be another user: run tests/privileged"]
fn of_two_users_one_publishes() {
    let (_base, watched) = watched("here");
    support::set_mode(&watched, 0o1777);
    let path = watched.join("file");
    let ours = support::relaxed().write_if_missing(&path, |w| {
        assert_eq!(Child::new(module_path!(), "say", &path).by_nobody().answer(), "Some(())");
        w.write_all(b"ours")
    });
    assert_eq!(ours.unwrap(), None);
    assert_eq!(support::read(&path), "child's");
    assert_eq!(support::listing(&watched), ["file"]);
}

#[rstest]
fn with_missing_parents_one_runs(#[values(true, false)] made_meanwhile: bool) {
    let base = Directory::new();
    let path = base.join("a/b/file");
    let options = support::relaxed().create_parents(true);
    let runs = AtomicU32::new(0);
    let answers: Vec<_> = thread::scope(|scope| {
        let ask = || {
            options.write_if_missing(&path, |w| {
                runs.fetch_add(1, Ordering::SeqCst);
                if made_meanwhile {
                    // Those who come from now on find the parents there.
                    options.write_if_missing(base.join("a/b/other"), |_| io::Result::Ok(()))?;
                }
                thread::sleep(Duration::from_millis(100));
                w.write_all(b"1")
            })
        };
        let first = scope.spawn(ask);
        thread::sleep(Duration::from_millis(50));
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).chain([first]).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
    });
    assert_eq!(runs.into_inner(), 1);
    assert_eq!(answers.iter().flatten().count(), 1);
    assert_eq!(base.listing(), ["a"]);
    let other = if made_meanwhile { vec!["file", "other"] } else { vec!["file"] };
    assert_eq!(support::listing(&base.join("a/b")), other);
}

#[rstest]
fn a_failure_leaves_no_parents() {
    let base = Directory::new();
    let result =
        support::relaxed().create_parents(true).write_if_missing(base.join("a/b/file"), |w| {
            w.write_all(b"1")?;
            Err::<(), _>(io::Error::other("it failed"))
        });
    assert_eq!(result.unwrap_err().to_string(), "it failed");
    assert!(base.listing().is_empty());
}

#[rstest]
fn a_name_of_255_bytes_will_do(#[values("x", "ä")] character: &str) {
    let directory = Directory::new();
    let name = character.repeat(255 / character.len());
    let path = directory.join(&name);
    let entries =
        support::relaxed().write_if_missing(&path, |_| io::Result::Ok(directory.listing()));
    assert!(entries.unwrap().unwrap()[0].ends_with(".write-atomically"));
    assert_eq!(directory.listing(), [name]);
}
