//! SIGKILL at every system call, from the first to the last.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, bail, ensure};
use libtest_mimic::{Completion, Trial};
use write_atomically::write_atomically;

use crate::content::content;
use crate::operations::{self, Missing, OPERATIONS, Operation, Shape, Who};
use crate::state::{self, Progress, Verdict, Wrong};
use crate::strace::{self, Tamper};
use crate::{report, subject};

pub fn trials() -> Vec<Trial> {
    let trial = |operation: &'static Operation, beside: bool| {
        let beside_whom = if beside { ", beside a living writer" } else { "" };
        let name = format!("kills::{}{beside_whom}", operation.name);
        Trial::ignorable_test(name, move || match crate::budget() {
            None => Ok(Completion::ignored_with(crate::NEEDS)),
            Some(_) => {
                prove(operation, beside).map_err(|error| format!("{error:#}"))?;
                Ok(Completion::Completed)
            }
        })
    };
    let ours = OPERATIONS.iter().filter(|operation| operation.who == Who::Crate);
    let beside = ours.filter(|operation| operation.shape != Shape::Tree);
    let alone = OPERATIONS.iter().map(|operation| trial(operation, false));
    alone.chain(beside.map(|operation| trial(operation, true))).collect()
}

const TABLE: &str = "Kills: whose, operation, system calls, torn or lost, left an entry, left it for good";

fn prove(operation: &'static Operation, beside: bool) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let (directory, reports) = (scratch.path().join("directory"), scratch.path().join("reports"));
    operations::start(operation, &directory)?;
    let living = if beside { Some(Living::start(operation, &directory)?) } else { None };
    let kept: Vec<String> = living.iter().map(|living| living.entry.clone()).collect();

    let calls = strace::list(operation, &directory, &reports)?;
    let (mut torn, mut left, mut for_good, mut first) = (0, 0, 0, None);
    for call in &calls {
        reset(operation, &directory, &kept)?;
        strace::tamper(operation, &directory, &reports, call, &Tamper::Kill)?
            .with_context(|| format!("was not killed at {}", call.line))?;
        let entries = state::leftovers(operation, &directory, 3)?;
        left += usize::from(entries.len() > kept.len());
        if let Err((wrong, what)) = check(operation, &directory, &reports, &kept, &entries) {
            match wrong {
                Wrong::Left | Wrong::Stuck => for_good += 1,
                _ => torn += 1,
            }
            first.get_or_insert(format!("{wrong:?}, {what}, killed at {}", call.line));
        }
        if let Some(living) = &living {
            living.check(&directory).with_context(|| format!("killed at {}", call.line))?;
        }
    }
    if let Some(living) = living {
        living.finish(&directory)?;
    }
    let name = format!("{}{}", operation.name, if beside { ", beside a living writer" } else { "" });
    let counts = [calls.len(), torn, left, for_good].map(|n| n.to_string());
    report::row(TABLE, [crate::who(operation), name].into_iter().chain(counts).collect());
    match (operation.who, first) {
        (Who::Crate | Who::ByHand, Some(first)) => bail!("{} of {} positions: {first}", torn + for_good, calls.len()),
        (Who::Control { .. }, None) if operation.name.contains("in place") => {
            bail!("was not caught: this proves nothing")
        }
        _ => Ok(()),
    }
}

/// Old or new, at most one staging entry a destination, and nothing after one more call.
fn check(operation: &Operation, directory: &Path, reports: &Path, kept: &[String], entries: &[String]) -> Verdict {
    let said = fs::read_to_string(reports).unwrap_or_default();
    let done = u32::from(said.contains(&subject::done(1)));
    state::check(operation, directory, Progress { started: 1, done })?;
    check_after(operation, directory, kept, entries)
}

/// What must be true after any failure, once the content has been looked at.
pub fn check_after(operation: &Operation, directory: &Path, kept: &[String], entries: &[String]) -> Verdict {
    let allowed = operation.shape.files(0).len() + usize::from(operation.locks);
    if entries.len() > kept.len() + allowed && operation.who == Who::Crate {
        return Err((Wrong::Left, format!("{entries:?}")));
    }
    for entry in entries.iter().filter(|_| operation.who == Who::Crate && operation.replaces) {
        let mode = fs::metadata(directory.join(entry)).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o777 & !operations::START_MODE != 0 {
            return Err((Wrong::Left, format!("{entry} can be read by more than the destination: {mode:o}")));
        }
    }
    operations::one_more_call(operation, directory, 1)
        .map_err(|error| (Wrong::Stuck, format!("the next call: {error:#}")))?;
    let newest = if operation.shape == Shape::NewFiles { 1 } else { 2 };
    state::check(operation, directory, Progress { started: newest, done: newest })?;
    let after = state::leftovers(operation, directory, 3).map_err(|error| (Wrong::Left, error.to_string()))?;
    match after.iter().find(|entry| !kept.contains(entry)) {
        None if operation.who != Who::ByHand => Ok(()),
        None => Ok(()),
        Some(entry) => Err((Wrong::Left, format!("{entry} is still there after one more call"))),
    }
}

/// Puts the directory back to how it was to begin with, but for what is kept.
pub fn reset(operation: &Operation, directory: &Path, kept: &[String]) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() && !path.is_symlink() {
            _ if kept.contains(&name) => {}
            true => fs::remove_dir_all(path)?,
            false => fs::remove_file(path)?,
        }
    }
    Ok(operations::start(operation, directory)?)
}

/// A writer of the same destination that stages by name and takes its time.
struct Living {
    process: Child,
    stdin: ChildStdin,
    entry: String,
    file: String,
}

pub const ROLE: &str = "living";
const VERSION: u32 = 9;

impl Living {
    fn start(operation: &Operation, directory: &Path) -> anyhow::Result<Living> {
        let file = operation.shape.files(1).remove(0);
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(directory.join(&file)).arg(&file).env(subject::ROLE.0, ROLE);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = process.stdin.take().context("no stdin")?;
        let mut ready = String::new();
        BufReader::new(process.stdout.take().context("no stdout")?).read_line(&mut ready)?;
        ensure!(ready == "ready\n", "the living writer said {ready:?}");
        let mut entries = state::leftovers(operation, directory, 3)?;
        ensure!(entries.len() == 1, "the living writer's entries: {entries:?}");
        Ok(Living { process, stdin, entry: entries.remove(0), file })
    }

    fn check(&self, directory: &Path) -> anyhow::Result<()> {
        let there = fs::read(directory.join(&self.entry)).context("the living writer's entry is gone")?;
        ensure!(there == content(VERSION, &self.file), "the living writer's entry has changed");
        Ok(())
    }

    fn finish(mut self, directory: &Path) -> anyhow::Result<()> {
        drop(self.stdin);
        let status = self.process.wait()?;
        ensure!(status.success(), "the living writer ended with {status}");
        let there = fs::read(directory.join(&self.file))?;
        ensure!(there == content(VERSION, &self.file), "the living writer's content did not arrive");
        Ok(())
    }
}

/// The living writer itself.
pub fn live() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().context("no path")?);
    let file = arguments.next().context("no file")?;
    subject::pretend(Missing::UnnamedFiles)?;
    write_atomically(path, |w| {
        w.write_all(&content(VERSION, &file))?;
        w.flush()?;
        println!("ready");
        std::io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    })
}
