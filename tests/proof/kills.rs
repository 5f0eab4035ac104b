//! SIGKILL at every system call, from the first to the last.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use fs_err as fs;
use libtest_mimic::Trial;

use crate::content::content;
use crate::living::{self, Living, Staging};
use crate::operations::{self, Missing, OPERATIONS, Operation, Shape, Who};
use crate::state::{self, Progress, Verdict, Wrong};
use crate::strace::{self, Tamper};
use crate::{report, subject};

pub fn trials() -> Vec<Trial> {
    let trial = |operation: &'static Operation, beside: bool| {
        let beside_whom = if beside { ", beside a living writer" } else { "" };
        let name = format!("kills::{}{beside_whom}", operation.name);
        crate::trial(name, move |_| prove(operation, beside))
    };
    let ours = OPERATIONS.iter().filter(|operation| operation.who == Who::Crate);
    // A living writer has an entry where there are no unnamed files, and so have those beside it.
    let staged_by_name =
        |operation: &&Operation| operation.without.contains(&Missing::UnnamedFiles);
    let beside = ours.filter(|operation| operation.shape != Shape::Tree).filter(staged_by_name);
    let alone = OPERATIONS.iter().map(|operation| trial(operation, false));
    alone.chain(beside.map(|operation| trial(operation, true))).collect()
}

const TABLE: &str =
    "Kills: whose, operation, system calls, torn or lost, left an entry, left it for good";

fn prove(operation: &'static Operation, beside: bool) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let (directory, reports) = (scratch.path().join("directory"), scratch.path().join("reports"));
    operations::start(operation, &directory)?;
    let beside_what = operation.shape.files(1).remove(0);
    let living = match beside {
        true => Some(Living::start(&directory, &beside_what, Staging::Named)?),
        false => None,
    };
    let kept = state::leftovers(operation, &directory, 3)?;
    ensure!(kept.len() == usize::from(beside), "the living writer's entries: {kept:?}");

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
            living
                .check(&directory, &kept[0])
                .with_context(|| format!("killed at {}", call.line))?;
        }
    }
    if let Some(living) = living {
        ensure!(living.go_on()?.is_none(), "the living writer failed");
        let there = fs::read(directory.join(&beside_what))?;
        ensure!(
            there == content(living::VERSION, &beside_what),
            "the living writer's content did not arrive"
        );
    }
    let name =
        format!("{}{}", operation.name, if beside { ", beside a living writer" } else { "" });
    let counts = [calls.len(), torn, left, for_good].map(|n| n.to_string());
    report::row(TABLE, [crate::who(operation), name].into_iter().chain(counts).collect());
    match (operation.who, first) {
        (Who::Crate | Who::ByHand, Some(first)) => {
            bail!("{} of {} positions: {first}", torn + for_good, calls.len())
        }
        (Who::Control { .. }, None) if operation.name.contains("in place") => {
            bail!("was not caught: this proves nothing")
        }
        _ => Ok(()),
    }
}

/// Old or new, at most one staging entry a destination, and nothing after one more call.
fn check(
    operation: &Operation,
    directory: &Path,
    reports: &Path,
    kept: &[String],
    entries: &[String],
) -> Verdict {
    let said = fs::read_to_string(reports).unwrap_or_default();
    let done = u32::from(said.contains(&subject::done(1)));
    state::check(operation, directory, Progress { started: 1, done })?;
    check_after(operation, directory, kept, entries)
}

/// What must be true after any failure, once the content has been looked at.
pub fn check_after(
    operation: &Operation,
    directory: &Path,
    kept: &[String],
    entries: &[String],
) -> Verdict {
    let allowed = operation.shape.files(0).len() + usize::from(operation.locks);
    // What is in a staging directory comes and goes with it, and is as private as it is.
    let apart =
        |entry: &&String| !entries.iter().any(|other| entry.starts_with(&format!("{other}/")));
    if entries.iter().filter(apart).count() > kept.len() + allowed && operation.who == Who::Crate {
        return Err((Wrong::Left, format!("{entries:?}")));
    }
    let private =
        operation.who == Who::Crate && operation.replaces && operation.shape != Shape::Tree;
    for entry in entries.iter().filter(apart).filter(|_| private) {
        let mode =
            fs::metadata(directory.join(entry)).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o077 & !operations::START_MODE != 0 {
            return Err((
                Wrong::Left,
                format!("{entry} can be read by more than the destination: {mode:o}"),
            ));
        }
    }
    one_more_call(operation, directory)
        .map_err(|error| (Wrong::Stuck, format!("the next call: {error:#}")))?;
    let newest = if operation.shape == Shape::NewFiles { 1 } else { 2 };
    state::check(operation, directory, Progress { started: newest, done: newest })?;
    let after = state::leftovers(operation, directory, 3)
        .map_err(|error| (Wrong::Left, error.to_string()))?;
    match after.iter().find(|entry| !kept.contains(entry)) {
        None => Ok(()),
        Some(entry) => Err((Wrong::Left, format!("{entry} is still there after one more call"))),
    }
}

/// The next call, where the kernel lacks the same things.
fn one_more_call(operation: &Operation, directory: &Path) -> anyhow::Result<()> {
    let is_there = operation.shape == Shape::NewFiles && directory.join("file-1").exists();
    if operation.without.is_empty() || is_there {
        return operations::one_more_call(operation, directory, 1);
    }
    let version = if operation.shape == Shape::NewFiles { 1 } else { 2 };
    let reports = tempfile::tempdir()?;
    let reports = reports.path().join("reports");
    subject::command(operation, directory, &reports, (version, version))?.status()?;
    let said = fs::read_to_string(reports)?;
    ensure!(said.ends_with(&format!("{}\n", subject::done(version))), "{said}");
    Ok(())
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
