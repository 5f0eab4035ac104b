//! Promise 8 for `update_atomically`: no update is lost when closures fail and processes are killed.

use std::io::{self, BufRead, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fs_err::os::unix::fs::symlink;
use fs_err::{self as fs, OpenOptions};
use rstest::rstest;
use rstest_reuse::apply;
use write_atomically::{Error, Reader, Step, WriteOptions, Writer, update_atomically};

use crate::child::{self, Child, Living};
use crate::filesystems::filesystems;
use crate::support::{self, Directory};
use crate::trees;

/// Counts in a file; every line says the same, so that a torn or mixed file is noticed.
fn count(old: Option<&mut Reader>, new: &mut Writer) -> io::Result<u32> {
    let mut lines = vec![];
    if let Some(old) = old {
        lines = old.lines().collect::<io::Result<Vec<_>>>()?;
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines.iter().all(|line| *line == lines[0]), "{lines:?}");
    }
    let count = lines.first().map_or(0, |line| line.parse().unwrap()) + 1;
    for _ in 0..3 {
        writeln!(new, "{count}")?;
    }
    Ok(count)
}

fn count_times(options: &WriteOptions, path: &Path, times: u32) {
    for _ in 0..times {
        options.update(path, count).unwrap();
    }
}

fn counted(path: &Path) -> u32 {
    fs::read_to_string(path).unwrap().lines().next().unwrap().parse().unwrap()
}

fn error_of<T>(result: Result<T, io::Error>) -> (Step, io::ErrorKind) {
    let error = result.err().expect("an error");
    let found = Error::find(&error).unwrap_or_else(|| panic!("not ours: {error}"));
    assert!(!found.replaced());
    assert_eq!(found.io_error().kind(), error.kind());
    (found.step(), error.kind())
}

/// What a child does; `path` is a directory with the destination and, apart, the acknowledgements.
#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    let words: Vec<&str> = role.split(' ').collect();
    let number = |nth: usize| words[nth].parse::<u32>().unwrap();
    match words[0] {
        "count" => (0..number(2)).for_each(|_| count_and_acknowledge(&path, words[1])),
        "count-and-die" => {
            (0..number(2)).for_each(|_| count_and_acknowledge(&path, words[1]));
            count_and_die(&path, words[1], number(3));
        }
        "fail" => {
            let _ = support::relaxed().update(&path, |old, new| {
                count(old, new)?;
                new.flush()?;
                match words[1] {
                    "exit" => process::exit(7),
                    _ => child::kill_this_process(),
                }
                io::Result::Ok(())
            });
        }
        "count-in-place" => {
            let options = support::relaxed().in_place_fallback(true);
            count_times(&options, &path, number(1));
        }
        "as-nobody" => {
            let mut ran = false;
            let result = support::relaxed().update(&path, |old, new| {
                ran = true;
                count(old, new)
            });
            let answer = match result {
                Ok(count) => format!("counted {count}"),
                Err(error) => format!("{:?}, closure ran: {ran}", error_of::<()>(Err(error))),
            };
            child::say(answer);
        }
        role => panic!("{role}"),
    }
}

fn acknowledge(base: &Path, slot: &str) {
    let acknowledgements = base.join(format!("acknowledged-{slot}"));
    let mut file = OpenOptions::new().append(true).create(true).open(acknowledgements).unwrap();
    file.write_all(b".").unwrap();
}

fn acknowledged(base: &Path, slot: u32) -> u64 {
    fs::metadata(base.join(format!("acknowledged-{slot}"))).map_or(0, |file| file.len())
}

fn count_and_acknowledge(base: &Path, slot: &str) {
    support::relaxed().update(base.join("watched/counter"), count).unwrap();
    acknowledge(base, slot);
}

/// Dies while it holds the lock: as soon as it has it, with everything written, or at some instant
/// of publishing.
fn count_and_die(base: &Path, slot: &str, variant: u32) {
    let publishing = variant % 3 == 2;
    support::relaxed()
        .update(base.join("watched/counter"), |old, new| {
            if variant % 3 == 0 {
                child::kill_this_process();
            }
            count(old, new)?;
            if !publishing {
                new.flush()?;
                child::kill_this_process();
            }
            thread::spawn(move || {
                thread::sleep(Duration::from_micros(u64::from(variant * 37 % 200)));
                child::kill_this_process();
            });
            io::Result::Ok(())
        })
        .unwrap();
    acknowledge(base, slot);
    thread::sleep(Duration::from_secs(60));
}

const SLOTS: u32 = 8;

/// How often each of them counts: on the other filesystems, the question is only whether locks work
/// there at all.
fn increments(filesystem: &str) -> u32 {
    if filesystem == "here" { 1000 } else { 150 }
}

fn counter_directory(filesystem: &str, exists: bool) -> (Directory, PathBuf) {
    let base = Directory::on(filesystem);
    let watched = base.join("watched");
    fs::create_dir(&watched).unwrap();
    if exists {
        fs::write(watched.join("counter"), "0\n0\n0\n").unwrap();
    }
    (base, watched)
}

#[apply(filesystems)]
fn eight_processes_lose_no_update(#[case] filesystem: &str, #[values(true, false)] exists: bool) {
    let increments = increments(filesystem);
    let (base, watched) = counter_directory(filesystem, exists);
    let child = |slot| {
        let role = format!("count {slot} {increments}");
        Child::new(module_path!(), &role, base.path()).command().spawn().unwrap()
    };
    let children: Vec<_> = (0..SLOTS).map(child).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(counted(&watched.join("counter")), SLOTS * increments);
    assert_eq!(support::listing(&watched), ["counter"]);
}

#[apply(filesystems)]
fn every_tenth_holder_is_killed_and_no_acknowledged_update_is_lost(
    #[case] filesystem: &str,
    #[values(true, false)] exists: bool,
) {
    let increments = increments(filesystem);
    let (base, watched) = counter_directory(filesystem, exists);
    let run_slot = |slot: u32| {
        let mut kills = 0;
        while acknowledged(base.path(), slot) < increments.into() {
            let role = format!("count-and-die {slot} 9 {}", kills + slot);
            let status = Child::new(module_path!(), &role, base.path()).status();
            assert_eq!(status.signal(), Some(9), "{status}");
            kills += 1;
        }
        kills
    };
    let kills: u32 = thread::scope(|scope| {
        let run_slot = &run_slot;
        let slots: Vec<_> = (0..SLOTS).map(|slot| scope.spawn(move || run_slot(slot))).collect();
        slots.into_iter().map(|slot| slot.join().unwrap()).sum()
    });
    let sum: u64 = (0..SLOTS).map(|slot| acknowledged(base.path(), slot)).sum();
    let total = u64::from(counted(&watched.join("counter")));
    assert!(sum >= u64::from(SLOTS * increments));
    assert!((sum..=sum + u64::from(kills)).contains(&total), "{sum} + {kills}: {total}");

    support::relaxed().update(watched.join("counter"), count).unwrap();
    assert_eq!(support::listing(&watched), ["counter"]);
}

#[rstest]
fn threads_lose_no_update(#[values(true, false)] exists: bool) {
    let (_base, watched) = counter_directory("here", exists);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| count_times(&support::relaxed(), &watched.join("counter"), 100));
        }
    });
    assert_eq!(counted(&watched.join("counter")), 800);
    assert_eq!(support::listing(&watched), ["counter"]);
}

/// By its name, by links of every kind, by another hard link: it is one file, and one lock.
#[rstest]
#[case::existing(true)]
#[case::missing(false)]
fn updates_through_links_exclude_each_other(#[case] exists: bool) {
    let (base, watched) = counter_directory("here", exists);
    symlink("watched/counter", base.join("relative")).unwrap();
    symlink(base.join("relative"), base.join("chain")).unwrap();
    let names = [watched.join("counter"), base.join("relative"), base.join("chain")];
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(move || count_times(&support::relaxed(), name, 100));
        }
    });
    assert_eq!(counted(&watched.join("counter")), 300);
    assert!(names[1..].iter().all(|link| link.is_symlink()), "a link was replaced");
    assert_eq!(support::listing(&watched), ["counter"]);
    assert_eq!(base.listing(), ["chain", "relative", "watched"]);
}

#[apply(filesystems)]
fn the_closure_reads_the_old_content(#[case] filesystem: &str) {
    let directory = Directory::on(filesystem);
    let path = directory.join("file");
    let created = update_atomically(&path, |old, new| {
        assert!(old.is_none());
        Ok(new.write_all(b"one\ntwo\nthree\n")?)
    });
    created.unwrap();
    update_atomically(&path, |old, new| {
        let old = old.expect("it was created");
        let mut line = String::new();
        old.read_line(&mut line)?;
        assert_eq!((line.as_str(), old.stream_position()?), ("one\n", 4));
        old.seek_relative(4)?;
        assert_eq!(old.stream_position()?, 8);
        old.seek(SeekFrom::End(-6))?;
        io::copy(old, new)?;
        old.rewind()?;
        Ok(io::copy(old, new)?)
    })
    .unwrap();
    assert_eq!(support::read(&path), "three\none\ntwo\nthree\n");
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
fn any_buffer_will_do(#[values(0, 1, 7, 1 << 20)] capacity: usize) {
    let directory = Directory::new();
    let path = directory.file("file", "one\ntwo\n");
    let options = support::relaxed().buffer_capacity(capacity);
    let copy = |old: Option<&mut Reader>, new: &mut Writer| -> io::Result<()> {
        old.unwrap().lines().try_for_each(|line| writeln!(new, "{}!", line?))
    };
    options.update(&path, copy).unwrap();
    assert_eq!(support::read(&path), "one!\ntwo!\n");
}

#[rstest]
fn mode_and_links_are_kept() {
    let directory = Directory::new();
    let path = directory.file("file", "0\n0\n0\n");
    support::set_mode(&path, 0o640);
    symlink("file", directory.join("link")).unwrap();
    update_atomically(directory.join("link"), |old, new| Ok(count(old, new)?)).unwrap();
    assert_eq!((counted(&path), support::mode(&path)), (1, 0o640));
    assert!(directory.join("link").is_symlink());
}

#[apply(filesystems)]
fn a_failure_changes_nothing_and_the_next_call_goes_on(
    #[case] filesystem: &str,
    #[values(true, false)] exists: bool,
    #[values("error", "panic", "exit", "kill")] end: &str,
) {
    let (_base, watched) = counter_directory(filesystem, exists);
    let path = watched.join("counter");
    let inode = || fs::metadata(&path).map(|file| (file.ino(), file.mtime_nsec())).ok();
    let before = inode();
    match end {
        "error" => {
            let result =
                support::relaxed().anyhow().update(&path, |old, new| -> anyhow::Result<()> {
                    count(old, new)?;
                    anyhow::bail!("no")
                });
            assert_eq!(result.unwrap_err().to_string(), "no");
        }
        "panic" => {
            let panic = panic::catch_unwind(AssertUnwindSafe(|| {
                support::relaxed().update(&path, |old, new| -> io::Result<()> {
                    count(old, new)?;
                    panic::resume_unwind(Box::new("a bug"))
                })
            }));
            assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"a bug"));
        }
        _ => {
            let status = Child::new(module_path!(), &format!("fail {end}"), &path).status();
            assert_eq!(
                (status.code(), status.signal()),
                match end {
                    "exit" => (Some(7), None),
                    _ => (None, Some(9)),
                }
            );
        }
    }
    assert_eq!(inode(), before);
    let mut left = support::listing(&watched);
    left.retain(|name| name != "counter");
    match end {
        "exit" | "kill" => assert!(left.len() <= 2, "{left:?}"),
        _ => assert!(left.is_empty(), "{left:?}"),
    }
    assert_eq!(support::relaxed().update(&path, count).unwrap(), 1);
    assert_eq!(support::listing(&watched), ["counter"]);
}

/// One was killed before it had created the file, and another has created it.
#[apply(filesystems)]
fn a_dead_entry_beside_the_file_goes_and_a_living_one_stays(#[case] filesystem: &str) {
    let (_base, watched) = counter_directory(filesystem, true);
    let entry = watched.join(support::staging_name(filesystem, &watched.join("counter")));
    fs::write(&entry, "").unwrap();
    let living = Living::holding(&entry);
    let options = support::relaxed().lock_timeout(std::time::Duration::from_millis(100));
    let beside_it = options.update(watched.join("counter"), count);
    match filesystem {
        // Where a lock of the file may exclude nobody, updates hold their entry, too.
        "fuse" => assert_eq!(beside_it.unwrap_err().kind(), io::ErrorKind::TimedOut),
        _ => assert!(beside_it.is_ok(), "{beside_it:?}"),
    }
    assert_eq!(support::listing(&watched).len(), 2, "the living one's entry has gone");
    drop(living);
    support::relaxed().update(watched.join("counter"), count).unwrap();
    assert_eq!(support::listing(&watched), ["counter"]);
}

#[rstest]
#[case::update_in_update_of_a_file(true, "update", "update")]
#[case::update_in_update_of_nothing(false, "update", "update")]
#[case::through_a_link(true, "update", "link")]
#[case::through_a_dangling_link(false, "update", "link")]
#[case::through_a_hard_link(true, "update", "hard link")]
#[case::if_missing_in_update_of_nothing(false, "update", "if_missing")]
#[case::update_in_if_missing(false, "if_missing", "update")]
#[case::if_missing_in_if_missing(false, "if_missing", "if_missing")]
fn the_same_path_inside_the_closure_is_an_error_at_once(
    #[case] exists: bool,
    #[case] outer: &str,
    #[case] inner: &str,
) {
    let (base, watched) = counter_directory("here", exists);
    let path = watched.join("counter");
    symlink(&path, base.join("link")).unwrap();
    if inner == "hard link" {
        fs::hard_link(&path, base.join("hard link")).unwrap();
    }
    let nested = || {
        let result = match inner {
            "if_missing" => {
                support::relaxed().write_if_missing(&path, |_| io::Result::Ok(())).map(drop)
            }
            "update" => support::relaxed().update(&path, |_, _| io::Result::Ok(())),
            name => support::relaxed().update(base.join(name), |_, _| io::Result::Ok(())),
        };
        assert_eq!(error_of(result), (Step::Lock, io::ErrorKind::Deadlock));
    };
    match outer {
        "update" => drop(support::relaxed().update(&path, |old, new| {
            nested();
            count(old, new)
        })),
        _ => drop(support::relaxed().write_if_missing(&path, |new| {
            nested();
            count(None, new)
        })),
    }
    assert_eq!(counted(&path), 1);
    assert_eq!(support::listing(&watched), ["counter"]);
    support::relaxed().update(&path, count).unwrap();
}

#[rstest]
fn what_is_there_is_not_missing_inside_an_update() {
    let (_base, watched) = counter_directory("here", true);
    let path = watched.join("counter");
    let answer = support::relaxed().update(&path, |old, new| {
        count(old, new)?;
        support::relaxed().write_if_missing(&path, |_| io::Result::Ok(()))
    });
    assert_eq!(answer.unwrap(), None);
}

#[rstest]
fn other_paths_inside_the_closure_are_fine(#[values(true, false)] exists: bool) {
    let (base, watched) = counter_directory("here", exists);
    let other = base.join("other");
    let nested = support::relaxed().update(watched.join("counter"), |old, new| {
        count(old, new)?;
        support::relaxed().update(&other, count)
    });
    assert_eq!((nested.unwrap(), counted(&other), counted(&watched.join("counter"))), (1, 1, 1));
}

#[rstest]
fn another_thread_waits(#[values(true, false)] exists: bool) {
    let (_base, watched) = counter_directory("here", exists);
    let path = watched.join("counter");
    let (done, was_done) = mpsc::channel();
    thread::scope(|scope| {
        support::relaxed()
            .update(&path, |old, new| {
                scope
                    .spawn(|| done.send(support::relaxed().update(&path, count).unwrap()).unwrap());
                let waited = was_done.recv_timeout(Duration::from_millis(100));
                assert!(waited.is_err(), "it did not wait");
                count(old, new)
            })
            .unwrap();
        assert_eq!(was_done.recv_timeout(Duration::from_secs(60)).unwrap(), 2);
    });
    assert_eq!(counted(&path), 2);
}

#[apply(filesystems)]
fn what_somebody_else_did_meanwhile_is_not_lost(
    #[case] filesystem: &str,
    #[values("replaced", "replaced by us", "removed", "created")] what: &str,
) {
    let (base, watched) = counter_directory(filesystem, what != "created");
    let path = watched.join("counter");
    let result = support::relaxed().update(&path, |old, new| {
        match what {
            "replaced" => {
                fs::write(base.join("theirs"), "theirs")?;
                fs::rename(base.join("theirs"), &path)?;
            }
            "replaced by us" => write_atomically::write(&path, "theirs")?,
            "removed" => fs::remove_file(&path)?,
            _ => fs::write(&path, "theirs")?,
        }
        count(old, new)
    });
    let kind = match what {
        "created" => io::ErrorKind::AlreadyExists,
        _ => io::ErrorKind::ResourceBusy,
    };
    let says_why = result.as_ref().is_err_and(|e| e.to_string().contains("lose that change"));
    assert_eq!(says_why, kind == io::ErrorKind::ResourceBusy);
    assert_eq!(error_of(result), (Step::Publish, kind));
    match what {
        "removed" => assert!(support::listing(&watched).is_empty()),
        _ => {
            assert_eq!(support::read(&path), "theirs");
            assert_eq!(support::listing(&watched), ["counter"]);
        }
    }
}

#[rstest]
#[case::directory("directory", Step::Resolve, io::ErrorKind::IsADirectory)]
#[case::fifo("fifo", Step::Resolve, io::ErrorKind::InvalidInput)]
#[case::device("/dev/null", Step::Resolve, io::ErrorKind::InvalidInput)]
#[case::open_file("/proc/self/fd/0", Step::Resolve, io::ErrorKind::InvalidInput)]
#[case::missing_directory("no/such/file", Step::Resolve, io::ErrorKind::NotFound)]
#[case::empty("", Step::Resolve, io::ErrorKind::NotFound)]
fn what_can_not_be_updated_is_an_error_before_the_closure(
    #[case] name: &str,
    #[case] step: Step,
    #[case] kind: io::ErrorKind,
) {
    let directory = Directory::new();
    fs::create_dir(directory.join("directory")).unwrap();
    trees::make_fifo(&directory.join("fifo"));
    let path = if name.is_empty() { PathBuf::new() } else { directory.join(name) };
    let result =
        support::relaxed().update(path, |_, _| -> io::Result<()> { panic!("the closure ran") });
    assert_eq!(error_of(result), (step, kind));
    assert_eq!(directory.listing(), ["directory", "fifo"]);
}

#[rstest]
fn a_link_that_is_not_to_be_followed_is_an_error_before_the_closure() {
    let directory = Directory::new();
    directory.file("file", "content");
    symlink("file", directory.join("link")).unwrap();
    let options = support::relaxed().follow_symlinks(false);
    let result = options
        .update(directory.join("link"), |_, _| -> io::Result<()> { panic!("the closure ran") });
    assert_eq!(error_of(result).0, Step::Resolve);
    options.update(directory.join("file"), |_, w| w.write_all(b"new")).unwrap();
    assert_eq!(support::read(&directory.join("link")), "new");
    assert_eq!(directory.listing(), ["file", "link"]);
}

#[rstest]
fn missing_parents_are_made() {
    let base = Directory::new();
    let options = support::relaxed().create_parents(true);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| count_times(&options, &base.join("a/b/counter"), 20));
        }
    });
    assert_eq!(counted(&base.join("a/b/counter")), 160);
    assert_eq!(base.listing(), ["a"]);
    assert_eq!(support::listing(&base.join("a/b")), ["counter"]);
}

#[rstest]
#[case::may_not_write(0o644, 0o777, "(Resolve, PermissionDenied), closure ran: false")]
#[case::may_not_read(0o622, 0o777, "(Read, PermissionDenied), closure ran: false")]
#[case::may_not_create(0o666, 0o755, "(Stage, PermissionDenied), closure ran: false")]
#[case::sticky(0o666, 0o1777, "(Resolve, PermissionDenied), closure ran: false")]
#[case::may(0o666, 0o777, "counted 1")]
#[ignore = "needs root, to be another user: run tests/privileged"]
fn somebody_elses_file(#[case] file: u32, #[case] directory: u32, #[case] expected: &str) {
    let (_base, watched) = counter_directory("here", true);
    support::set_mode(&watched.join("counter"), file);
    support::set_mode(&watched, directory);
    let answer =
        Child::new(module_path!(), "as-nobody", &watched.join("counter")).by_nobody().answer();
    assert_eq!(answer, expected);
    assert_eq!(support::listing(&watched), ["counter"]);
}

/// A file that can be written but not renamed over: its lock is the same.
#[rstest]
#[ignore = "needs root, to be another user: run tests/privileged"]
fn updates_in_place_exclude_each_other() {
    let (_base, watched) = counter_directory("here", true);
    let path = watched.join("counter");
    support::set_mode(&path, 0o666);
    support::set_mode(&watched, 0o1777);
    let inode = fs::metadata(&path).unwrap().ino();
    let child = |_| {
        Child::new(module_path!(), "count-in-place 100", &path)
            .by_nobody()
            .command()
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..4).map(child).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!((counted(&path), fs::metadata(&path).unwrap().ino()), (400, inode));
    assert_eq!(support::listing(&watched), ["counter"]);
}
