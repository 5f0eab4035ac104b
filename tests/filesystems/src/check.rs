//! What one operation does, and what becomes of it if its closure fails or it is killed; and what many
//! of one kind do to each other.

use std::io::{BufRead, BufReader, Error, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use write_atomically::write;

use crate::child::{LENGTH, Waiting, race_all};
use crate::operation::{FILE, OLD, Operation};
use crate::report::{Report, Verdict};
use crate::scratch::{Scratch, State, difference, keeps_the_marker, state};

const NEW: &str = "the new content, which is another one\n";

/// All checks of one operation, as one cell.
pub fn operation(scratch: &Scratch, operation: Operation, report: &mut Report) {
    let verdict = Verdict::of(succeeds(scratch, operation))
        .and(|| Verdict::of(fails(scratch, operation)))
        .and(|| Verdict::of(is_killed(scratch, operation)));
    report.add(operation.name(), verdict);
}

/// Promise 4: what can't work is refused before the closure runs.
fn succeeds(scratch: &Scratch, operation: Operation) -> Result<Verdict> {
    let directory = scratch.directory()?;
    let old = operation.prepare(&directory)?;
    let file = directory.join(FILE);
    let mut entered = false;
    let done = match operation.is_command() {
        false => operation.run(&file, NEW, || {
            entered = true;
            Ok(())
        }),
        true => {
            let ran = scratch.directory()?.join("ran");
            let middle = format!("touch {}", ran.display());
            let output = operation.command(&file, NEW, &middle)?.output()?;
            entered = ran.exists();
            match output.status.success() {
                true => Ok(()),
                false => Err(anyhow::anyhow!("{}", String::from_utf8_lossy(&output.stderr).trim())),
            }
        }
    };
    let why = match done {
        Ok(()) => return expect("after Ok", &operation.expected(NEW), &directory),
        Err(error) => format!("{error:#}").replace(&directory.display().to_string(), ""),
    };
    match entered {
        true => Ok(Verdict::Violation(format!("an error after the work: {why}"))),
        false => Ok(expect("after the refusal", &old, &directory)?.and(|| Verdict::Refused(why))),
    }
}

/// Promise 2: the closure's error leaves everything as it was, at once.
fn fails(scratch: &Scratch, operation: Operation) -> Result<Verdict> {
    let directory = scratch.directory()?;
    let old = operation.prepare(&directory)?;
    let file = directory.join(FILE);
    match operation.is_command() {
        false => {
            let error = operation.run(&file, NEW, || bail!("the closure's own"));
            let error = error.err().context("the closure failed, and the operation did not")?;
            ensure!(error.to_string() == "the closure's own", "another error: {error:#}");
        }
        true => {
            let status = operation.command(&file, NEW, "exit 7")?.stderr(Stdio::null()).status()?;
            ensure!(status.code() == Some(7), "the command ended with {status}");
        }
    }
    expect("after the closure's error", &old, &directory)
}

/// Promise 2: after SIGKILL the destination is as it was, and one ordinary write removes what is left.
fn is_killed(scratch: &Scratch, operation: Operation) -> Result<Verdict> {
    let directory = scratch.directory()?;
    let mut old = operation.prepare(&directory)?;
    let file = directory.join(FILE);
    kill_inside(operation, &file)?;
    let mut left = state(&directory)?;
    left.retain(|name, _| !name.contains(".write-atomically"));
    ensure!(left == old, "after SIGKILL: {}", difference(&old, &left));
    match old.contains_key(FILE) && operation.is_directory() {
        true => Operation::DirReplace.run(&file, NEW, || Ok(()))?,
        false => write(&file, NEW)?,
    }
    if operation == Operation::Batch {
        // Its directory is called after its first file.
        write(directory.join("second"), NEW)?;
    }
    old.extend(match operation {
        Operation::Batch => operation.expected(NEW),
        Operation::DirReplace => operation.expected(NEW),
        _ => Operation::New.expected(NEW),
    });
    let is_staged_in_a_directory =
        operation.is_directory() || matches!(operation, Operation::Path | Operation::Batch);
    match expect("after SIGKILL and one more write", &old, &directory)? {
        Verdict::Violation(_) if is_staged_in_a_directory && !keeps_the_marker(&directory)? => {
            let dropped =
                "a killed writer's directory is left: the mount drops the bit that marks it";
            Ok(Verdict::Documented(dropped.to_owned()))
        }
        verdict => Ok(verdict),
    }
}

pub fn kill_inside(operation: Operation, file: &Path) -> Result<()> {
    if !operation.is_command() {
        return Waiting::spawn("hang", file, operation.name())?.kill();
    }
    let mut command = operation.command(file, NEW, "echo ready >&2; sleep 600")?;
    command.arg0("write-atomically").process_group(0).stderr(Stdio::piped());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stderr.take().context("a pipe")?).read_line(&mut line)?;
    // Its producer dies with it.
    let group = format!("-{}", child.id());
    Command::new("kill").args(["-KILL", "--", &group]).status()?;
    child.wait()?;
    ensure!(line.trim() == "ready", "{line}");
    Ok(())
}

fn expect(when: &str, expected: &State, directory: &Path) -> Result<Verdict> {
    let found = state(directory)?;
    Ok(match found == *expected {
        true => Verdict::Holds,
        false => Verdict::Violation(format!("{when}: {}", difference(expected, &found))),
    })
}

pub fn together(scratch: &Scratch, report: &mut Report) {
    report.add("8 × 50 updates", Verdict::of(increments(scratch)));
    report.add("8 creators", Verdict::of(creators(scratch)));
    report.add("8 if_missing", Verdict::of(single_flight(scratch)));
    report.add("readers", Verdict::of(readers(scratch)));
}

/// Promise 8: no update that was acknowledged is lost.
fn increments(scratch: &Scratch) -> Result<Verdict> {
    let by = |how| {
        let directory = scratch.directory()?;
        let file = directory.join(FILE);
        let children = (0..8).map(|_| Waiting::spawn(how, &file, "50"));
        let answers = race_all(children.collect::<Result<_>>()?)?;
        let lock = std::env::temp_dir().join(file.display().to_string().replace('/', "_"));
        let _ = fs::remove_file(lock);
        let verdict = count(&answers, &file);
        Ok(verdict.unwrap_or_else(|error| Verdict::Violation(format!("{error:#}"))))
    };
    unless_always(by("increment")?, || by("plain increment"))
}

/// Compares what was acknowledged with what is there.
pub fn count(answers: &[String], file: &Path) -> Result<Verdict> {
    let mut acknowledged = 0;
    let mut verdict = Verdict::Holds;
    for answer in answers {
        let (number, error) = answer.split_once(' ').unwrap_or((answer, ""));
        acknowledged += number.parse::<u32>().with_context(|| format!("answer {answer:?}"))?;
        if let Some(late) = error.strip_prefix("late: ") {
            verdict = Verdict::Violation(format!("an error after the work: {late}"));
        } else if let Some(why) = error.strip_prefix("refused: ") {
            let why = why.replace(&file.display().to_string(), FILE);
            verdict = verdict.and(|| Verdict::Refused(why));
        }
    }
    let read = || fs::read_to_string(file);
    // ESTALE: the last look at the name was at a file that is gone; a second look finds the new one.
    let is_stale = |error: &Error| error.kind() == ErrorKind::StaleNetworkFileHandle;
    let there: u32 =
        match read().or_else(|error| if is_stale(&error) { read() } else { Err(error) }) {
            Ok(text) => text.parse().with_context(|| format!("the number is {text:?}"))?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
    match there == acknowledged {
        true => Ok(verdict),
        false => {
            let errors = match verdict {
                Verdict::Holds => String::new(),
                other => format!("; {other:?}"),
            };
            let numbers = format!("{acknowledged} acknowledged, {there} there");
            Ok(Verdict::Violation(numbers + &errors))
        }
    }
}

/// Promise 8: of many that create one file, one succeeds.
fn creators(scratch: &Scratch) -> Result<Verdict> {
    let directory = scratch.directory()?;
    let winners = race("create", &directory, &directory)?;
    let can_look_only = !scratch.has_hard_links()?;
    Ok(match winners {
        1 => Verdict::Holds,
        _ if can_look_only => Verdict::Documented(format!("{winners} winners, without hard links")),
        _ => Verdict::Violation(format!("{winners} winners")),
    })
}

/// Promise 8: computed once, however many ask.
fn single_flight(scratch: &Scratch) -> Result<Verdict> {
    let directory = scratch.directory()?;
    Ok(match race("if_missing", &directory, &directory)? {
        1 => Verdict::Holds,
        winners => Verdict::Violation(format!("{winners} ran their closures and won")),
    })
}

/// Half of them by one path, half by the other: how many won. Content and listing are checked.
pub fn race(what: &str, one: &Path, other: &Path) -> Result<usize> {
    let children = (0..8).map(|number| {
        let directory = if number % 2 == 0 { one } else { other };
        Waiting::spawn(what, &directory.join(FILE), &format!("by {number}"))
    });
    let answers = race_all(children.collect::<Result<_>>()?)?;
    let winners = answers.iter().filter(|answer| *answer == "won").count();
    for answer in &answers {
        ensure!(["won", "found", "exists"].contains(&answer.as_str()), "{answer}");
    }
    let found = state(one)?;
    let content = found.get(FILE).cloned().flatten().context("nothing was created")?;
    let number: usize = content.strip_prefix("by ").context(content.clone())?.parse()?;
    ensure!(answers[number] == "won", "the content is that of {number}, which did not win");
    ensure!(found.len() == 1, "{}", difference(&Operation::New.expected(&content), &found));
    Ok(winners)
}

/// Promise 1: a reader sees one content, whole.
fn readers(scratch: &Scratch) -> Result<Verdict> {
    let seen = |writer| {
        let directory = scratch.directory()?;
        let file = directory.join(FILE);
        fs::write(&file, "a".repeat(LENGTH))?;
        let mut writer = Waiting::spawn(writer, &file, &"bcdefghijklmnopqrstuvwxyz".repeat(2))?;
        let seen = watch(&[&file], || {
            writer.start()?;
            let answer = writer.answer()?;
            ensure!(answer == "done", "{answer}");
            Ok(())
        })?;
        Ok(seen.verdict())
    };
    unless_always(seen("rewrite")?, || seen("plain"))
}

/// What readers see of any program that writes a file and renames it is not this library's.
pub fn unless_always(verdict: Verdict, plain: impl FnOnce() -> Result<Verdict>) -> Result<Verdict> {
    match verdict {
        Verdict::Violation(what) => Ok(match plain()? {
            Verdict::Violation(same) => {
                Verdict::Documented(format!("{what}; and {same} of write and rename(2) alone"))
            }
            _ => Verdict::Violation(what),
        }),
        verdict => Ok(verdict),
    }
}

/// What readers saw.
pub struct Seen {
    torn: Option<String>,
    gaps: u32,
    reads: u32,
}

impl Seen {
    pub fn verdict(self) -> Verdict {
        match self {
            Seen { torn: Some(torn), .. } => Verdict::Violation(format!("a reader saw {torn}")),
            Seen { reads: 0, .. } => Verdict::Violation("the readers read nothing".to_owned()),
            Seen { gaps: 0, .. } => Verdict::Holds,
            Seen { .. } => Verdict::Documented("readers meet ENOENT for an instant".to_owned()),
        }
    }
}

/// Reads these files, over and over, while something happens to them.
pub fn watch(files: &[&Path], act: impl FnOnce() -> Result<()>) -> Result<Seen> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let readers = files.iter().map(|file| scope.spawn(move || read_until(file, stop)));
        let readers: Vec<_> = readers.collect();
        let done = act();
        stop.store(true, Ordering::Relaxed);
        let mut all = Seen { torn: None, gaps: 0, reads: 0 };
        for reader in readers {
            let seen = reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
            all.torn = all.torn.or(seen.torn);
            (all.gaps, all.reads) = (all.gaps + seen.gaps, all.reads + seen.reads);
        }
        done.map(|()| all)
    })
}

fn read_until(file: &Path, stop: &AtomicBool) -> Seen {
    let mut seen = Seen { torn: None, gaps: 0, reads: 0 };
    while !stop.load(Ordering::Relaxed) {
        match fs::read(file) {
            Ok(content) => {
                seen.reads += 1;
                let first = content.first().copied().unwrap_or_default();
                if content.len() != LENGTH || content.iter().any(|&byte| byte != first) {
                    let length = content.len();
                    seen.torn = Some(format!("{length} bytes that are no writer's content"));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => seen.gaps += 1,
            // ESTALE: the file that was found is replaced before it is opened.
            Err(error) if error.kind() == ErrorKind::StaleNetworkFileHandle => seen.gaps += 1,
            Err(error) => seen.torn = Some(format!("{error}")),
        }
    }
    seen
}

/// Whether it is what one writer wrote.
pub fn is_whole(content: &str) -> bool {
    content == OLD
        || content.len() == LENGTH && content.bytes().all(|b| Some(b) == content.bytes().next())
}
