//! Signals that end the tool, its command, or neither.

use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use assert_cmd::assert::OutputAssertExt;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::support::{self, Directory};
use crate::{assert_only, directory, tool, tool_sh, wait_until};

/// A command that says in `pid` who it is, writes a part, and runs until a signal comes; it then
/// adds a line to `got`.
const WAITS: &str = "
    trap 'echo got >> got; exit 0' INT TERM HUP
    echo part
    echo $$ > pid.new; mv pid.new pid
    while :; do sleep 0.02; done";

/// The tool while it runs; what is left of it and its command goes with the test.
struct Running {
    child: Option<Child>,
    group: Pid,
}

impl Running {
    /// Starts it as a process group of its own.
    fn start(command: &mut Command) -> Running {
        let child = command.stderr(Stdio::piped()).process_group(0).spawn().unwrap();
        Running { group: Pid::from_child(&child), child: Some(child) }
    }

    /// Starts it with [`WAITS`], and lets its command start.
    fn waiting(directory: &Directory, command: &mut Command) -> Running {
        let running = Running::start(command);
        wait_until("the command starts", || directory.join("pid").exists());
        running
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.group, signal).unwrap();
    }

    fn status(&mut self) -> ExitStatus {
        self.child.as_mut().unwrap().wait().unwrap()
    }

    fn output(mut self) -> Output {
        self.child.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

#[rstest]
fn a_signal_reaches_the_command_and_nothing_is_published(
    #[values(Signal::INT, Signal::TERM, Signal::HUP)] signal: Signal,
    #[values(false, true)] to_the_group: bool,
    #[values(false, true)] by_path: bool,
) {
    let directory = directory(Some("old"));
    let mut command = tool_sh(&directory, &["out"], WAITS);
    if by_path {
        command.arg("{}");
    }
    let tool = Running::waiting(&directory, &mut command);
    match to_the_group {
        true => kill_process_group(tool.group, signal).unwrap(),
        false => tool.signal(signal),
    }
    let output = tool.output();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.signal(), Some(signal.as_raw()), "{stderr}");
    let name = match signal {
        Signal::INT => "SIGINT",
        Signal::TERM => "SIGTERM",
        _ => "SIGHUP",
    };
    // The shell may say before it that a command of its own was ended.
    let said = stderr.lines().last().unwrap_or_default();
    assert_eq!(said, format!("write-atomically: `out` is unchanged: ended by {name}"));
    assert_eq!(directory.listing(), ["got", "out", "pid"]);
    assert_eq!(support::read(&directory.join("out")), "old");
}

/// As an interactive shell has it: a signal that ends the command, but that we know nothing of.
#[test]
fn a_signal_to_the_command_alone_is_its_own_affair() {
    let directory = directory(Some("old"));
    let tool = Running::waiting(&directory, &mut tool_sh(&directory, &["out"], WAITS));
    let pid: i32 = support::read(&directory.join("pid")).trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    assert_eq!(tool.output().status.code(), Some(137));
    assert_eq!(support::read(&directory.join("out")), "old");
}

#[rstest]
#[case::unnamed("here")]
#[ignore = "needs a mounted FUSE filesystem: run tests/privileged"]
#[case::named("fuse")]
fn a_signal_while_standard_input_is_read_leaves_nothing(
    #[case] filesystem: &str,
    #[values(Signal::INT, Signal::TERM, Signal::HUP)] signal: Signal,
) {
    let directory = Directory::on(filesystem);
    directory.file("out", "old");
    let mut command = tool(&directory, ["out"]);
    let mut tool = Running::start(command.stdin(Stdio::piped()));
    // Taken, so that waiting does not close it.
    let mut input = tool.child.as_mut().unwrap().stdin.take().unwrap();
    input.write_all(b"part").unwrap();
    thread::sleep(Duration::from_millis(200));
    tool.signal(signal);
    assert_eq!(tool.status().signal(), Some(signal.as_raw()));
    assert_only(&directory, Some("old"));
}

#[test]
fn killing_the_tool_leaves_nothing() {
    let directory = directory(Some("old"));
    let mut tool = Running::waiting(&directory, &mut tool_sh(&directory, &["out"], WAITS));
    tool.signal(Signal::KILL);
    tool.status();
    assert_eq!(directory.listing(), ["out", "pid"]);
    assert_eq!(support::read(&directory.join("out")), "old");
}

#[rstest]
#[case::hangup("HUP", Signal::HUP)]
#[case::interrupt("INT", Signal::INT)]
#[case::termination("TERM", Signal::TERM)]
fn a_signal_that_is_ignored_from_the_start_stays_ignored(
    #[case] name: &str,
    #[case] signal: Signal,
) {
    let directory = directory(Some("old"));
    let tool = assert_cmd::cargo::cargo_bin!("write-atomically").display().to_string();
    let script = format!(
        "trap '' {name}; exec {tool} out -- sh -c 'echo > pid; until [ -e go ]; do sleep 0.02; done; echo new'"
    );
    let mut command = Command::new("sh");
    let mut tool = Running::start(command.args(["-c", &script]).current_dir(directory.path()));
    wait_until("the command starts", || directory.join("pid").exists());
    tool.signal(signal);
    thread::sleep(Duration::from_millis(100));
    directory.file("go", "");
    assert!(tool.status().success());
    assert_eq!(support::read(&directory.join("out")), "new\n");
}

/// waitpid(2): where SIGCHLD is ignored, a child's status is thrown away.
#[rstest]
fn the_status_is_seen_where_children_are_ignored(#[values(0, 7)] code: i32) {
    let directory = directory(None);
    let tool = assert_cmd::cargo::cargo_bin!("write-atomically").display().to_string();
    let script = format!("trap '' CHLD; exec {tool} out -- sh -c 'echo new; exit {code}'");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(directory.path()).assert().code(code);
    assert_only(&directory, if code == 0 { Some("new\n") } else { None });
}

#[test]
fn nobody_needs_to_listen_to_what_it_says() {
    let directory = directory(Some("old"));
    let mut command = tool_sh(&directory, &["out"], "sleep 0.3; exit 5");
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_only(&directory, Some("old"));
}

#[test]
fn a_signal_ends_the_wait_for_others() {
    let directory = directory(None);
    let mut holder = tool_sh(&directory, &["--if-missing", "out"], WAITS);
    let mut holder = Running::waiting(&directory, &mut holder);
    let mut waiter =
        Running::start(&mut tool_sh(&directory, &["--if-missing", "out"], "touch ran"));
    thread::sleep(Duration::from_millis(200));
    waiter.signal(Signal::TERM);
    assert_eq!(waiter.status().signal(), Some(Signal::TERM.as_raw()));
    holder.signal(Signal::TERM);
    holder.status();
    assert_eq!(directory.listing(), ["got", "pid"]);
}
