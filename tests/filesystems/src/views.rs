//! Two mounts of one directory, as of two machines: neither sees the other's locks, perhaps.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Result, ensure};
use fs_err as fs;
use write_atomically::write;

use crate::check::{count, is_whole, kill_inside, race, unless_always, watch};
use crate::child::{LENGTH, Waiting, race_all};
use crate::operation::{FILE, OLD, Operation};
use crate::report::{Report, Verdict};
use crate::scratch::{Scratch, difference, keeps_the_marker, state};

pub fn all(scratch: &Scratch, report: &mut Report) {
    report.add("two views: commands", Verdict::of(commands(scratch)));
    report.add("two views: readers", Verdict::of(readers(scratch)));
    report.add("two views: all operations", Verdict::of(operations(scratch)));
    report.add("two views: killed", Verdict::of(killed(scratch)));
    report.add("two views: creators", Verdict::of(winners(scratch, "create")));
    report.add("two views: if_missing", Verdict::of(winners(scratch, "if_missing")));
    report.add("two views: updates", Verdict::of(increments(scratch)));
}

/// Two commands with a pause in the middle, started a little apart: both succeed, the content is one's.
fn commands(scratch: &Scratch) -> Result<Verdict> {
    for round in 0..6 {
        let (one, other) = scratch.in_both_views()?;
        if round % 2 == 0 {
            fs::write(one.join(FILE), OLD)?;
        }
        let mut running = Vec::new();
        for (directory, letter, pause) in
            [(&one, "a", "0.3"), (&other, "b", "0.2"), (&one, "c", "0.1")]
        {
            let content = letter.repeat(LENGTH / 2);
            let middle = format!("sleep {pause}");
            let mut command =
                Operation::Command.command(&directory.join(FILE), &content, &middle)?;
            running.push(command.stderr(Stdio::inherit()).spawn()?);
        }
        for mut command in running {
            let status = command.wait()?;
            ensure!(status.success(), "a command ended with {status}: its work is thrown away");
        }
        let found = state(&one)?;
        let content = found.get(FILE).cloned().flatten().unwrap_or_default();
        let whole = ["a", "b", "c"].map(|letter| letter.repeat(LENGTH / 2));
        ensure!(whole.contains(&content), "torn: {} bytes", content.len());
        let expected = Operation::New.expected(&content);
        ensure!(found == expected, "{}", difference(&expected, &found));
    }
    Ok(Verdict::Holds)
}

/// Writers and readers on both.
fn readers(scratch: &Scratch) -> Result<Verdict> {
    unless_always(rewrite(scratch, "rewrite")?, || rewrite(scratch, "plain"))
}

fn rewrite(scratch: &Scratch, how: &str) -> Result<Verdict> {
    let (one, other) = scratch.in_both_views()?;
    let (one_file, other_file) = (one.join(FILE), other.join(FILE));
    fs::write(&one_file, "a".repeat(LENGTH))?;
    let letters = "bcdefghijklmnopqrst";
    let writers = vec![
        Waiting::spawn(how, &one_file, letters)?,
        Waiting::spawn(how, &other_file, &letters.to_uppercase())?,
        Waiting::spawn(how, &other_file, letters)?,
    ];
    let seen = watch(&[&one_file, &other_file], || {
        for answer in race_all(writers)? {
            ensure!(answer == "done", "a writer's work is thrown away: {answer}");
        }
        Ok(())
    })?;
    let found = state(&one)?;
    let content = found.get(FILE).cloned().flatten().unwrap_or_default();
    ensure!(is_whole(&content), "torn in the end: {} bytes", content.len());
    ensure!(found.len() == 1, "{}", difference(&Operation::New.expected(&content), &found));
    Ok(seen.verdict())
}

/// Each operation, with another write by the other view in its middle: both succeed, and nothing is mixed.
fn operations(scratch: &Scratch) -> Result<Verdict> {
    let mut verdict = Verdict::Holds;
    for operation in crate::operation::ALL.into_iter().filter(|operation| !operation.is_command()) {
        // These say so if somebody who does not ask for their lock writes meanwhile; and so does a new
        // directory that finds another, which can be replaced only where directories can be exchanged.
        let may_notice =
            matches!(operation, Operation::Update | Operation::Create | Operation::DirNew);
        let (one, other) = scratch.in_both_views()?;
        operation.prepare(&one)?;
        let mut entered = false;
        let done = operation.run(&one.join(FILE), "content by one view", || {
            entered = true;
            let nested = match operation.is_directory() {
                true => Operation::DirNew.run(&other.join(FILE), "content by the other", || Ok(())),
                false => Ok(write(other.join(FILE), "content by the other")?),
            };
            nested.map_err(|error| error.context("by the other view"))
        });
        let name = operation.name();
        let found = state(&one)?;
        let expected = match &done {
            Ok(()) if operation == Operation::IfMissing => {
                Operation::New.expected("content by the other")
            }
            Ok(()) => operation.expected("content by one view"),
            Err(_) if !entered => continue,
            Err(_) if may_notice => match operation {
                Operation::DirNew => operation.expected("content by the other"),
                _ => Operation::New.expected("content by the other"),
            },
            Err(error) => {
                verdict = Verdict::Violation(format!("{name}: work is thrown away: {error:#}"));
                continue;
            }
        };
        if found != expected {
            verdict = Verdict::Violation(format!("{name}: {}", difference(&expected, &found)));
        }
    }
    Ok(verdict)
}

/// One's dead entry stays while the other writes, and goes with the next write by its own view.
fn killed(scratch: &Scratch) -> Result<Verdict> {
    for operation in [Operation::Replace, Operation::Path, Operation::Command] {
        let (one, other) = scratch.in_both_views()?;
        operation.prepare(&one)?;
        kill_inside(operation, &one.join(FILE))?;
        write(other.join(FILE), "by the other")?;
        write(one.join(FILE), "by one")?;
        let (expected, found) = (Operation::New.expected("by one"), state(&one)?);
        if operation == Operation::Path && found != expected && !keeps_the_marker(&one)? {
            continue;
        }
        ensure!(found == expected, "{}: {}", operation.name(), difference(&expected, &found));
    }
    Ok(Verdict::Holds)
}

fn winners(scratch: &Scratch, what: &str) -> Result<Verdict> {
    let (one, other) = scratch.in_both_views()?;
    let winners = race(what, &one, &other)?;
    Ok(match winners {
        1 => Verdict::Holds,
        _ if what == "create" && scratch.has_hard_links()? => {
            Verdict::Violation(format!("{winners} winners"))
        }
        _ => Verdict::Documented("locks exclude one mount's writers only".to_owned()),
    })
}

fn directory_of(file: &Path) -> String {
    file.parent().map(|parent| parent.display().to_string()).unwrap_or_default()
}

/// Where locks are local, updates by the other view are lost; one that can be told is an error.
fn increments(scratch: &Scratch) -> Result<Verdict> {
    let (one, other) = scratch.in_both_views()?;
    let file = one.join(FILE);
    write(&file, "0")?;
    let children = (0..4).map(|number| {
        let directory: &Path = if number % 2 == 0 { &one } else { &other };
        Waiting::spawn("increment", &directory.join(FILE), "25")
    });
    let answers = race_all(children.collect::<Result<_>>()?)?;
    Ok(match count(&answers, &file)? {
        Verdict::Violation(what) if what.contains("acknowledged") => Verdict::Documented(
            "locks exclude one mount's writers only: updates by the other are lost".to_owned(),
        ),
        Verdict::Violation(what) => Verdict::Documented(format!(
            "locks exclude one mount's writers only, and that is noticed: {}",
            what.replace(&directory_of(&file), "")
        )),
        verdict => verdict,
    })
}
