//! The tests of the command-line tool: DEST is written only if the command succeeds. `scripts` is a program of its
//! own.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // The library's tests use the rest.
#[path = "../support/mod.rs"]
mod support;

mod accepted;
mod hints;
mod options;
mod power;
mod results;
mod several;
mod signals;
mod terminal;

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::Directory;

/// The tool, in a directory, with arguments.
fn tool<A: AsRef<OsStr>>(directory: &Directory, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("write-atomically"));
    command.current_dir(directory.path()).args(arguments).stdin(Stdio::null());
    command
}

/// The tool with a shell script as its command.
fn tool_sh(directory: &Directory, arguments: &[&str], script: &str) -> Command {
    let mut command = tool(directory, arguments);
    command.args(["--", "sh", "-c", script]);
    command
}

/// The tool with this on its standard input.
fn fed(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Not every command reads it.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// A directory that holds `out`, or nothing.
fn directory(old: Option<&str>) -> Directory {
    let directory = Directory::new();
    if let Some(old) = old {
        directory.file("out", old);
    }
    directory
}

/// The whole state: what `out` holds, and that nothing else is there.
#[track_caller]
fn assert_only(directory: &Directory, content: Option<&str>) {
    let expected: &[&str] = if content.is_some() { &["out"] } else { &[] };
    assert_eq!(directory.listing(), expected);
    if let Some(content) = content {
        assert_eq!(support::read(&directory.join("out")), content);
    }
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
