//! Promise 8: writers may race. Readers always see one whole version.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use fs_err as fs;
use rstest::rstest;
use rstest_reuse::apply;
use write_atomically::create_atomically;

use crate::child::{self, Child};
use crate::filesystems::filesystems;
use crate::support::{self, Directory};

const LINES: usize = 2000;

fn version(name: &str) -> String {
    format!("{name}\n").repeat(LINES)
}

fn replace(path: &Path, name: &str) {
    let content = version(name);
    support::relaxed().write(path, |w| std::io::Write::write_all(w, content.as_bytes())).unwrap();
}

fn assert_is_one_version(content: &str) {
    let first = content.lines().next().expect("not empty");
    assert_eq!(content.lines().count(), LINES);
    assert!(content.lines().all(|line| line == first), "a mixture");
}

#[apply(filesystems)]
fn many_threads_and_processes_replace_one_file(#[case] filesystem: &str) {
    let directory = Directory::on(filesystem);
    let path = directory.join("file");
    replace(&path, "first");
    let processes: Vec<_> = (0..8)
        .map(|_| {
            Child::new(module_path!(), "replace", &path)
                .command()
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    match fs::read_to_string(&path) {
                        Ok(content) => assert_is_one_version(&content),
                        // libfuse finds a file by its path once more to open it. rename(2) alone,
                        // by whomever, shows the same there.
                        Err(error) if filesystem == "fuse" => {
                            assert_eq!(error.kind(), ErrorKind::NotFound);
                            continue;
                        }
                        Err(error) => panic!("{error}"),
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let writers: Vec<_> = (0..64)
            .map(|n| {
                let path = &path;
                scope.spawn(move || (0..10).for_each(|_| replace(path, &format!("thread {n}"))))
            })
            .collect();
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        let outputs: Vec<_> =
            processes.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
        for output in outputs {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    });
    assert!(reads.into_inner() > 0);
    assert_is_one_version(&fs::read_to_string(&path).unwrap());
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
fn one_of_many_creates() {
    let directory = Directory::new();
    let path = directory.join("file");
    let create = |n: usize| {
        create_atomically(&path, |w| {
            Ok(std::io::Write::write_all(w, version(&n.to_string()).as_bytes())?)
        })
    };
    let created = thread::scope(|scope| {
        let writers: Vec<_> = (0..32).map(|n| scope.spawn(move || create(n))).collect();
        writers.into_iter().filter_map(|writer| writer.join().unwrap().ok()).count()
    });
    assert_eq!(created, 1);
    assert_is_one_version(&fs::read_to_string(&path).unwrap());
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    assert_eq!(role, "replace");
    for n in 0..50 {
        replace(&path, &format!("process {} {n}", std::process::id()));
    }
}
