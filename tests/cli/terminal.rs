//! Progress, and the terminal's interrupt.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use assert_cmd::assert::OutputAssertExt;
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use rstest::rstest;
use rustix::fs::OFlags;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support;
use crate::{directory, tool_sh, wait_until};

/// The tool on a terminal of its own.
struct Session {
    tool: Child,
    terminal: File,
    shown: mpsc::Receiver<String>,
}

impl Session {
    fn start(command: Command) -> Session {
        let terminal =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let name = Path::new(OsStr::from_bytes(name.as_bytes()));
        let mut other_side = fs::OpenOptions::new();
        other_side.read(true).write(true).custom_flags(OFlags::NOCTTY.bits() as i32);
        let open = || other_side.open(name).unwrap().into_file();
        // setsid(1) becomes the tool, unless it leads a process group, which what we start does not.
        let mut setsid = Command::new("setsid");
        setsid.arg("--ctty").arg(command.get_program()).args(command.get_args());
        setsid.current_dir(command.get_current_dir().unwrap()).env("TERM", "xterm");
        let tool = setsid.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        drop(setsid); // It has the terminal open, too.
        let terminal = File::from(terminal);
        let mut reader = terminal.try_clone().unwrap();
        let (sender, shown) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // Linux ends with EIO when nobody has the other side open any more.
            let _ = reader.read_to_end(&mut bytes);
            sender.send(String::from_utf8_lossy(&bytes).into_owned())
        });
        Session { tool, terminal, shown }
    }

    /// What it showed, and how it ended.
    fn end(mut self) -> (String, ExitStatus) {
        let shown = self.shown.recv_timeout(Duration::from_secs(20));
        if shown.is_err() {
            self.tool.kill().unwrap();
        }
        (shown.expect("an end"), self.tool.wait().unwrap())
    }
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
    let (shown, status) = Session::start(tool_sh(&directory, &arguments, &script)).end();
    assert_eq!(status.code(), Some(0), "{status}");
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
    let mut session = Session::start(tool_sh(
        &directory,
        &["out"],
        "trap 'echo got >> got' INT; echo > pid; until [ -e go ]; do sleep 0.02; done",
    ));
    wait_until("the command starts", || directory.join("pid").exists());
    session.terminal.write_all(b"\x03").unwrap();
    wait_until("the command hears of it", || directory.join("got").exists());
    thread::sleep(Duration::from_millis(300));
    directory.file("go", "");
    let (shown, status) = session.end();
    assert!(shown.contains("`out` is unchanged: ended by SIGINT"), "{shown:?}");
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{status}");
    assert_eq!(support::read(&directory.join("got")), "got\n");
    assert_eq!(support::read(&directory.join("out")), "old");
}

#[rstest]
#[case::append("-a", true)]
#[case::append_quietly("-qa", false)]
#[case::if_missing("--if-missing", true)]
fn on_a_terminal_it_says_what_it_waits_for(#[case] option: &str, #[case] says: bool) {
    let old = if option == "--if-missing" { None } else { Some("old\n") };
    let directory = directory(old);
    let holds = "echo > held; until [ -e go ]; do sleep 0.02; done; echo new";
    let mut holder = tool_sh(&directory, &[option, "out"], holds).spawn().unwrap();
    wait_until("the holder's command runs", || directory.join("held").exists());
    let session = Session::start(tool_sh(&directory, &[option, "out"], "echo new"));
    thread::sleep(Duration::from_millis(1800));
    directory.file("go", "");
    let (shown, status) = session.end();
    assert_eq!(status.code(), Some(0), "{status}");
    let id = holder.id();
    let expected =
        format!("waiting for `write-atomicall` (process {id}), which has locked `out`\r\n");
    match says {
        true => assert!(shown.starts_with(&format!("write-atomically: {expected}")), "{shown:?}"),
        false => assert_eq!(shown, ""),
    }
    assert!(holder.wait().unwrap().success());
}
