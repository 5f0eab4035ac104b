//! What the tool says when something is probably not what was meant.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use assert_cmd::assert::OutputAssertExt;
use fs_err as fs;
use rstest::rstest;

use crate::support;
use crate::{assert_only, directory, tool, wait_until};

const HINT: &str =
    "at the path that took the place of `{}` (if `{}` is meant as it is: --placeholder '')\n";

#[rstest]
#[case::succeeds(&["true", "{}"], 125, "`true` has written nothing ")]
#[case::fails(&["sh", "-c", "exit 5", "{}"], 5, "`sh` failed: exit status 5; nothing ")]
fn braces_that_were_not_meant_as_a_path_are_explained(
    #[case] command: &[&str],
    #[case] code: i32,
    #[case] said: &str,
) {
    let directory = directory(Some("old"));
    let message = format!("write-atomically: `out` is unchanged: {said}{HINT}");
    tool(&directory, ["out", "--"]).args(command).assert().code(code).stderr(message);
    assert_only(&directory, Some("old"));
}

#[test]
fn a_command_that_wrote_something_and_failed_gets_no_hint() {
    let directory = directory(None);
    let message = "write-atomically: `out` is unchanged: `sh` failed: exit status 5\n";
    let command = ["out", "--", "sh", "-c", "echo part > \"$1\"; exit 5", "sh", "{}"];
    tool(&directory, command).assert().code(5).stderr(message);
    assert_only(&directory, None);
}

/// flock(1) gives its lock to the command that it starts.
#[rstest]
#[case::inherited(&[], "which this process has inherited")]
#[case::of_the_parent(&["-o"], "which `flock` (process ")]
fn one_that_waits_for_itself_says_so_after_a_second(#[case] options: &[&str], #[case] said: &str) {
    let directory = directory(Some("old\n"));
    let inner = tool(&directory, ["--wait", "1.5", "-a", "out", "--", "echo", "new"]);
    let mut flock = Command::new("flock");
    flock.args(options).arg("out").arg(inner.get_program()).args(inner.get_args());
    let assert = flock.current_dir(directory.path()).stdin(Stdio::null()).assert().code(124);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(
        stderr.contains("waiting for the lock of `out`, ") && stderr.contains(said),
        "{stderr}"
    );
    assert_only(&directory, Some("old\n"));
}

#[test]
fn without_a_terminal_waiting_for_others_is_silent() {
    let directory = directory(Some("old\n"));
    let holds = "echo > held; until [ -e go ]; do sleep 0.02; done";
    let mut holder = tool(&directory, ["-a", "out", "--", "sh", "-c", holds]).spawn().unwrap();
    wait_until("the holder's command runs", || directory.join("held").exists());
    let message = "write-atomically: `out` is unchanged: failed to lock: timed out\n";
    tool(&directory, ["-a", "--wait", "1.4", "out", "--", "echo"])
        .assert()
        .code(124)
        .stderr(message);
    directory.file("go", "");
    assert!(holder.wait().unwrap().success());
    assert_eq!(support::read(&directory.join("out")), "old\n");
}

/// As the first process of a container.
#[rstest]
#[ignore = "needs root, for a process namespace: run tests/privileged"]
#[case::while_the_command_runs(&["out", "--", "sh", "-c", "echo > started; until [ -e go ]; do sleep 0.02; done"], 143)]
#[ignore = "needs root, for a process namespace: run tests/privileged"]
#[case::while_it_waits_for_a_lock(&["-a", "out", "--", "sh", "-c", "echo > started; echo new"], 143)]
fn process_1_ends_with_the_status_that_stands_for_the_signal(
    #[case] arguments: &[&str],
    #[case] code: i32,
) {
    let directory = directory(Some("old"));
    let waits_for_lock = arguments[0] == "-a";
    let lock = fs::File::open(directory.join("out")).unwrap().into_file();
    if waits_for_lock {
        lock.lock().unwrap();
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child"]);
    unshare.arg(tool(&directory, arguments).get_program()).args(arguments);
    let mut child = unshare.current_dir(directory.path()).spawn().unwrap();
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let first_process = || fs::read_to_string(&children).unwrap_or_default();
    match waits_for_lock {
        false => wait_until("the command starts", || directory.join("started").exists()),
        true => {
            wait_until("the tool starts", || !first_process().is_empty());
            thread::sleep(Duration::from_millis(500));
        }
    }
    support::run(Command::new("kill").args(["-TERM", first_process().trim()]));
    assert_eq!(child.wait().unwrap().code(), Some(code));
    assert_eq!(support::read(&directory.join("out")), "old");
    assert!(directory.listing().iter().all(|name| !name.starts_with('.')));
}
