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
        // It says more to the test, and it is woken through an eventfd(2), which takes eight bytes.
        let harmless = ["write(1,", "\\1\\0\\0\\0\\0\\0\\0\\0\", 8", "<... write resumed>"];
        let may_block = |line: &&&str| !harmless.iter().any(|harmless| line.contains(harmless));
        let blocking: Vec<_> = after.iter().filter(may_block).collect();
        assert!(blocking.is_empty(), "{case:?} {end}: {blocking:?}");
    }
}

/// What the child's threads do, and which one of them is the runtime's.
fn trace(role: &str, path: &std::path::Path) -> (String, String) {
    let calls = "trace=openat,openat2,unlinkat,linkat,renameat,renameat2,fsync,fdatasync,ftruncate,\
                 mkdirat,write,pwrite64,flock,statx,newfstatat,fchmod,fallocate,getdents64";
    let log = child::strace(module_path!(), &["-s", "100", "-e", calls], role, path);
    // The marks around it: strace(1) shows three digits before what could be a fourth.
    let log = log.replace("\\001", "\\1");
    let is_number =
        |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let lines = log.lines().filter(|line| line.contains("write(1,"));
    let answer = lines.flat_map(|line| line.split("\\1")).find(is_number).map(str::to_owned);
    let answer = answer.unwrap_or_else(|| panic!("no answer: {log}"));
    (log, answer)
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
