//! System calls of a subject, one by one: strace(1) lists them, and tampers with any of them.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::ensure;
use fs_err as fs;

use crate::operations::Operation;
use crate::subject;

/// A system call: the `nth` of its name, since that is how strace counts.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: String,
    pub nth: usize,
    pub line: String,
    /// Whether it is the operation's own: between "start" and "done".
    pub within: bool,
}

/// What to do to a call.
pub enum Tamper {
    Kill,
    Fail { errno: &'static str, from_then_on: bool },
}

/// All system calls of the subject, from its first to its last.
pub fn list(operation: &Operation, directory: &Path, reports: &Path) -> anyhow::Result<Vec<Call>> {
    let (status, trace) = run(operation, directory, reports, &["-e", "trace=all"])?;
    ensure!(status.success(), "untouched, it ended with {status}");
    let mut seen: HashMap<String, usize> = HashMap::new();
    let (mut calls, mut within) = (Vec::new(), false);
    for line in trace.lines() {
        let Some((name, _)) = line.split_once('(').filter(|(name, _)| is_a_name(name)) else {
            continue;
        };
        let nth = *seen.entry(name.to_string()).and_modify(|n| *n += 1).or_insert(1);
        if line.contains("\"done ") || line.contains("\"failed ") {
            within = false;
        }
        calls.push(Call { name: name.to_string(), nth, line: line.to_string(), within });
        if line.contains("\"start ") {
            within = true;
        }
    }
    // The first is the execve that makes the subject: there is nothing to tamper with before it.
    calls.remove(0);
    Ok(calls)
}

fn is_a_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Runs the subject once more and tampers with this call. `None` if the call was not reached.
pub fn tamper(
    operation: &Operation,
    directory: &Path,
    reports: &Path,
    call: &Call,
    tamper: &Tamper,
) -> anyhow::Result<Option<ExitStatus>> {
    let (name, nth) = (&call.name, call.nth);
    let inject = match tamper {
        Tamper::Kill => format!("inject={name}:signal=KILL:when={nth}"),
        Tamper::Fail { errno, from_then_on } => {
            let plus = if *from_then_on { "+" } else { "" };
            format!("inject={name}:error={errno}:when={nth}{plus}")
        }
    };
    let (status, trace) = run(operation, directory, reports, &["-e", &inject])?;
    let reached = match tamper {
        Tamper::Kill => status.signal() == Some(9) || trace.contains("killed by SIGKILL"),
        Tamper::Fail { .. } => trace.contains("(INJECTED)"),
    };
    Ok(reached.then_some(status))
}

/// Runs the subject under strace. Fifteen seconds are for ever.
fn run(
    operation: &Operation,
    directory: &Path,
    reports: &Path,
    arguments: &[&str],
) -> anyhow::Result<(ExitStatus, String)> {
    let trace = reports.with_extension("trace");
    let _ = fs::remove_file(reports);
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "15", "strace", "-s", "40", "-o"]).arg(&trace).args(arguments);
    command.arg(std::env::current_exe()?);
    command.args(subject::arguments(operation, directory, reports, (1, 1)));
    let status = command.env(subject::ROLE.0, subject::ROLE.1).output()?.status;
    Ok((status, fs::read_to_string(trace)?))
}
