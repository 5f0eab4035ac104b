//! Progress, and the terminal's interrupt.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use assert_cmd::assert::OutputAssertExt;
use rexpect::session::{PtySession, spawn_command};
use rstest::rstest;

use crate::support::{self};
use crate::{directory, tool_sh, wait_until};

/// The tool on a terminal of its own.
fn on_terminal(mut command: Command) -> PtySession {
    command.stdin(Stdio::inherit()).env("TERM", "xterm");
    spawn_command(command, Some(20_000)).unwrap()
}

/// What it showed, and how it ended, as in `Exited(Pid(7), 0)`.
fn end(mut session: PtySession) -> (String, String) {
    let shown = session.exp_eof().unwrap();
    (shown, format!("{:?}", session.process().wait().unwrap()))
}

#[rstest]
#[case::long(&[], "1.6", true)]
#[case::short(&[], "0.2", false)]
#[case::short_but_asked_for(&["--progress"], "0.4", true)]
#[case::long_but_not_wanted(&["--no-progress"], "1.6", false)]
#[case::long_but_quiet(&["--quiet"], "1.6", false)]
#[case::the_last_word_counts(&["--no-progress", "--progress"], "0.4", true)]
fn on_a_terminal_progress_shows_when_it_takes_long(
    #[case] options: &[&str],
    #[case] seconds: &str,
    #[case] shows: bool,
) {
    let directory = directory(None);
    let script = format!("head -c 3145728 /dev/zero; sleep {seconds}");
    let mut arguments = options.to_vec();
    arguments.push("out");
    let (shown, status) = end(on_terminal(tool_sh(&directory, &arguments, &script)));
    assert!(status.starts_with("Exited") && status.ends_with(", 0)"), "{status}");
    assert_eq!(shown.contains("3.00 MiB") && shown.contains("/s"), shows, "{shown:?}");
    if shows {
        // It goes: what is shown last is an empty line.
        assert!(shown.trim_end_matches('\r').ends_with("\u{1b}[2K"), "{shown:?}");
    } else {
        assert_eq!(shown, "");
    }
}

#[test]
fn without_a_terminal_nothing_shows() {
    let directory = directory(None);
    tool_sh(&directory, &["out"], "echo new; sleep 1.3").assert().success().stdout("").stderr("");
}

#[test]
fn without_a_terminal_progress_is_lines() {
    let directory = directory(None);
    let script = "head -c 3145728 /dev/zero";
    let assert = tool_sh(&directory, &["--progress", "out"], script).assert().success();
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(stderr.starts_with("3.00 MiB  ") && stderr.lines().count() == 1, "{stderr:?}");
}

#[test]
fn the_terminals_interrupt_reaches_the_command_once() {
    let directory = directory(Some("old"));
    let mut session = on_terminal(tool_sh(
        &directory,
        &["out"],
        "trap 'echo got >> got' INT; echo > pid; until [ -e go ]; do sleep 0.02; done",
    ));
    wait_until("the command starts", || directory.join("pid").exists());
    session.send_control('c').unwrap();
    wait_until("the command hears of it", || directory.join("got").exists());
    thread::sleep(Duration::from_millis(300));
    directory.file("go", "");
    let (shown, status) = end(session);
    assert!(shown.contains("ended by SIGINT; `out` is unchanged"), "{shown:?}");
    assert!(status.starts_with("Signaled") && status.contains("SIGINT"), "{status}");
    assert_eq!(support::read(&directory.join("got")), "got\n");
    assert_eq!(support::read(&directory.join("out")), "old");
}
