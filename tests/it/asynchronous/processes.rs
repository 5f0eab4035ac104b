//! Promise 2 for a process that is killed; and which threads make the system calls.

use std::io;

use ::tokio::io::AsyncWriteExt;
use ::tokio::runtime::Builder;
use rstest::rstest;

use super::{CASES, Case, content, relaxed, runtime};
use crate::child::{self, Child};
use crate::support;

fn case(number: &str) -> Case {
    CASES[number.parse::<usize>().unwrap()]
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    let (end, number) = role.split_once(' ').unwrap();
    let case = case(number);
    let options = relaxed().tokio();
    let call = case.call(&options, &path, async || {
        match end {
            "killed" => child::kill_this_process(),
            "exits" => std::process::exit(7),
            "fails" => return Err(io::Error::other("no more rows")),
            "canceled" => std::future::pending().await,
            _ => {}
        }
        Ok(())
    });
    // The last thing that this thread has to do with it.
    let runtime =
        Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap();
    let me = std::fs::read_link("/proc/thread-self").unwrap();
    child::say(me.file_name().unwrap().display());
    let timeout = std::time::Duration::from_millis(200);
    let result = runtime.block_on(async {
        let result = ::tokio::time::timeout(timeout, call).await;
        // The pool has one thread: what was begun before is done after.
        for _ in 0..3 {
            ::tokio::task::spawn_blocking(|| {}).await.unwrap();
        }
        result
    });
    assert_eq!(matches!(result, Ok(Ok(()))), end == "works");
}

#[rstest]
fn a_kill_leaves_what_the_next_write_removes(#[values("killed", "exits")] end: &str) {
    for number in 0..CASES.len() {
        let case = case(&number.to_string());
        let directory = case.prepare();
        let path = directory.join("file");
        let status = Child::new(module_path!(), &format!("{end} {number}"), &path).status();
        assert!(!status.success());
        assert_eq!(path.exists(), case.old.is_some());
        assert!(directory.listing().len() <= 3, "{:?}", directory.listing());
        let options = relaxed().tokio();
        runtime("threads", 2).block_on(case.call(&options, &path, async || Ok(()))).unwrap();
        case.assert_state(&directory, Some(&content()));
    }
}

/// What strace(1) says of every call that names or changes a file.
#[rstest]
#[ignore = "needs strace"]
fn no_worker_thread_makes_a_call_that_may_block(#[values("works", "fails", "canceled")] end: &str) {
    for number in 0..CASES.len() {
        let case = case(&number.to_string());
        if case.operation.starts_with("path") || case.operation.starts_with("dir") {
            // Their closures write themselves.
            continue;
        }
        let directory = case.prepare();
        let role = format!("{end} {number}");
        let (log, worker) = trace(&role, &directory.join("file"));
        let of_worker = |line: &&str| line.split_whitespace().next() == Some(&worker);
        let (mine, others): (Vec<&str>, Vec<&str>) = log.lines().partition(of_worker);
        assert!(others.iter().any(|line| line.contains("write")), "{case:?}: {log}");
        let last = mine.iter().rposition(|line| line.contains(&format!("\\1{worker}")));
        let after = &mine[last.expect("its answer") + 1..];
        let harmless = |line: &&&str| !line.contains("/dev/null") && !line.contains("write(1");
        let blocking: Vec<_> = after.iter().filter(harmless).collect();
        assert!(blocking.is_empty(), "{case:?} {end}: {blocking:?}");
    }
}

/// What the child's threads do, and which one of them is the runtime's.
fn trace(role: &str, path: &std::path::Path) -> (String, String) {
    let calls = "trace=openat,openat2,unlinkat,linkat,renameat,renameat2,fsync,fdatasync,ftruncate,\
                 mkdirat,write,pwrite64,flock,statx,newfstatat,fchmod,fallocate,getdents64";
    let log = child::strace(module_path!(), &["-s", "100", "-e", calls], role, path);
    let answer = log.lines().find_map(|line| {
        let (_, answer) = line.split_once("write(1, \"\\1")?;
        Some(answer.split_once("\\1")?.0.to_owned())
    });
    (log, answer.expect("the child's answer"))
}

#[test]
fn nothing_is_left_in_memory() {
    // Calls that are over are not waited for, and their locks are forgotten.
    let directory = support::prepare("here", None);
    let path = directory.join("file");
    runtime("one thread", 1).block_on(async {
        for _ in 0..3 {
            let options = relaxed().tokio();
            let asked = options.write_if_missing(&path, async |w| w.write_all(b"new").await);
            asked.await.unwrap();
            fs_err::remove_file(&path).unwrap();
        }
    });
    support::assert_state(&directory, None);
}
