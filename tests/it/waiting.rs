//! Promise 8: waiting is bounded where that was asked for, and of those who create a path or a directory one
//! runs its closure.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{self, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fs_err::{self as fs, OpenOptions};
use rstest::rstest;
use rstest_reuse::apply;
use write_atomically::{Error, Outcome, Step, WriteOptions};

use crate::child::{self, Child};
use crate::filesystems::filesystems;
use crate::support::{self, Directory};

/// One of the operations that wait for each other: `None` if the destination was there. The closure
/// creates what it is to create, runs `then`, and says `content`.
fn ask(
    options: &WriteOptions,
    operation: &str,
    path: &Path,
    content: &str,
    then: impl FnOnce() -> io::Result<()>,
) -> io::Result<Option<()>> {
    match operation {
        "file" => options.write_if_missing(path, |w| {
            w.write_all(content.as_bytes())?;
            then()
        }),
        "path" => options.write_path_if_missing(path, |staged| {
            fs::write(staged, content)?;
            then()
        }),
        "directory" => options.write_dir_if_missing(path, |staged| {
            fs::write(staged.join("part"), content)?;
            then()?;
            fs::write(staged.join("whole"), content)
        }),
        "update" => options.update(path, |_, w| {
            w.write_all(content.as_bytes())?;
            then().map(Some)
        }),
        operation => panic!("{operation}"),
    }
}

#[track_caller]
fn assert_whole(operation: &str, path: &Path, content: &str) {
    match operation {
        "directory" => {
            assert_eq!(support::listing(path), ["part", "whole"]);
            assert_eq!(support::read(&path.join("whole")), content);
        }
        _ => assert_eq!(support::read(path), content),
    }
}

#[apply(filesystems)]
fn waiting_ends_when_it_is_to_and_the_closure_has_not_run(
    #[case] filesystem: &str,
    #[values(
        ("file", None),
        ("path", None),
        ("directory", None),
        ("update", None),
        ("update", Some("old")),
    )]
    (outer, old): (&str, Option<&str>),
    #[values("file", "path", "directory", "update")] inner: &str,
    #[values(0, 60)] milliseconds: u64,
) {
    // What exists is nobody's to create.
    if old.is_some() && inner != "update" {
        return;
    }
    let directory = Directory::on(filesystem);
    let path = directory.join("file");
    if let Some(old) = old {
        fs::write(&path, old).unwrap();
    }
    let timeout = Duration::from_millis(milliseconds);
    let hurried = support::relaxed().lock_timeout(timeout);
    let answer = ask(&support::relaxed(), outer, &path, "outer", || {
        let listing = directory.listing();
        thread::scope(|scope| {
            let start = Instant::now();
            let other = scope.spawn(|| {
                ask(&hurried, inner, &path, "inner", || panic!("the closure ran in vain"))
            });
            let error = other.join().unwrap().unwrap_err();
            let waited = start.elapsed();
            let found = Error::find(&error).unwrap();
            assert_eq!((error.kind(), found.step()), (io::ErrorKind::TimedOut, Step::Lock));
            assert_eq!((found.path(), found.outcome()), (&*path, Outcome::Unchanged));
            assert!(waited >= timeout && waited < Duration::from_secs(10), "{waited:?}");
        });
        assert_eq!(directory.listing(), listing);
        Ok(())
    });
    assert_eq!(answer.unwrap(), Some(()));
    assert_whole(outer, &path, "outer");
    assert_eq!(directory.listing(), ["file"]);
    // What nobody holds takes no waiting.
    assert_eq!(ask(&hurried, "update", &directory.join("free"), "1", || Ok(())).unwrap(), Some(()));
}

#[apply(filesystems)]
fn of_many_threads_one_runs_and_a_failure_hands_over(
    #[case] filesystem: &str,
    #[values("path", "directory")] operation: &str,
    #[values(0, 2)] failures: u32,
) {
    let directory = Directory::on(filesystem);
    let path = directory.join("file");
    let (runs, running, barrier) = (AtomicU32::new(0), AtomicU32::new(0), Barrier::new(8));
    let ask = || {
        barrier.wait();
        ask(&support::relaxed(), operation, &path, "whole", || {
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two run at once");
            thread::sleep(Duration::from_millis(5));
            running.fetch_sub(1, Ordering::SeqCst);
            match runs.fetch_add(1, Ordering::SeqCst) < failures {
                true => Err(io::Error::other("it failed")),
                false => Ok(()),
            }
        })
    };
    let answers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let count =
        |wanted| answers.iter().filter(|answer| answer.as_ref().ok() == Some(&wanted)).count();
    assert_eq!(runs.into_inner(), failures + 1, "{answers:?}");
    assert_eq!((count(Some(())), count(None)), (1, 7 - failures as usize));
    assert_whole(operation, &path, "whole");
    assert_eq!(directory.listing(), ["file"]);
}

#[apply(filesystems)]
fn of_eight_processes_one_runs_and_a_killed_one_hands_over(
    #[case] filesystem: &str,
    #[values("path", "directory")] operation: &str,
    #[values(0, 1, 2)] killed: usize,
) {
    let base = Directory::on(filesystem);
    fs::create_dir(base.join("watched")).unwrap();
    let role = format!("{operation} {killed}");
    let child = |_| {
        let child =
            Child::new(module_path!(), &role, base.path()).command().stdin(Stdio::piped()).spawn();
        child.unwrap()
    };
    let mut children: Vec<_> = (0..8).map(child).collect();
    // All start at once.
    children.iter_mut().for_each(|child| drop(child.stdin.take()));
    let ends: Vec<_> = children.into_iter().map(|mut child| child.wait().unwrap()).collect();
    let having = |code| ends.iter().filter(|end| end.code() == Some(code)).count();
    let by_signal = ends.iter().filter(|end| end.signal() == Some(9)).count();
    assert_eq!((having(10), having(11), by_signal), (1, 7 - killed, killed), "{ends:?}");
    assert_eq!(fs::metadata(base.join("runs")).unwrap().len(), 1 + killed as u64);
    assert_whole(operation, &base.join("watched/file"), "whole");
    assert_eq!(support::listing(&base.join("watched")), ["file"]);
}

/// A writer of another kind that has the entry is waited for, too.
#[apply(filesystems)]
fn every_writer_that_has_the_entry_is_waited_for(
    #[case] filesystem: &str,
    #[values("path", "directory", "batch")] holder: &str,
    #[values("file", "path", "directory")] waiter: &str,
) {
    let directory = Directory::on(filesystem);
    let path = directory.join("file");
    let wait_in_vain = || {
        let hurried = support::relaxed().lock_timeout(Duration::from_millis(20));
        let waited = thread::scope(|scope| {
            let other = scope.spawn(|| ask(&hurried, waiter, &path, "new", || panic!("it ran")));
            other.join().unwrap()
        });
        assert_eq!(waited.unwrap_err().kind(), io::ErrorKind::TimedOut);
        io::Result::Err(io::Error::other("no more"))
    };
    let options = support::relaxed();
    let ended: io::Result<()> = match holder {
        "path" => options.write_path(&path, |_| wait_in_vain()),
        "directory" => options.write_dir(&path, |_| wait_in_vain()),
        _ => options.write_batch(|batch| {
            batch.write(&path, |w| w.write_all(b"old"))?;
            wait_in_vain()
        }),
    };
    assert_eq!(ended.unwrap_err().to_string(), "no more");
    assert_eq!(ask(&options, waiter, &path, "new", || Ok(())).unwrap(), Some(()));
    assert_whole(waiter, &path, "new");
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, base)) = child::role() else { return };
    let (operation, killed) = role.split_once(' ').unwrap();
    let killed: u64 = killed.parse().unwrap();
    let file = base.join("watched/file");
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let ran = ask(&support::relaxed(), operation, &file, "whole", || {
        let mut runs = OpenOptions::new().append(true).create(true).open(base.join("runs"))?;
        runs.write_all(b".")?;
        let run = runs.metadata()?.len();
        thread::sleep(Duration::from_millis(50));
        if run <= killed {
            child::kill_this_process();
        }
        Ok(())
    });
    assert_whole(operation, &file, "whole");
    process::exit(if ran.unwrap().is_some() { 10 } else { 11 });
}
