//! What the driver's own processes do, one each: they race, or are killed.
//!
//! A child says `ready` and waits for a line, so that all of them start at once; it ends with a line
//! that says what it did.

use std::env;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use write_atomically::{WriteOptions, write};

use crate::operation::Operation;

pub fn run(what: &str, arguments: &[&str]) -> Result<()> {
    let (path, argument) = match arguments {
        [path, argument] => (Path::new(path), *argument),
        _ => bail!("a child takes a path and an argument"),
    };
    match what {
        "hang" => hang(path, Operation::by_name(argument)?),
        "increment" => increment(path, argument.parse()?, increment_by_update),
        "plain increment" => increment(path, argument.parse()?, increment_by_rename),
        "create" => race(path, argument, |options, path, fill| options.create(path, fill)),
        "if_missing" => race(path, argument, |options, path, fill| {
            options.write_if_missing(path, fill).map(drop)
        }),
        "rewrite" => rewrite(argument, |content| write(path, content)),
        "plain" => rewrite(argument, |content| {
            let staged = path.with_extension(format!("plain-{}", std::process::id()));
            std::fs::write(&staged, content)?;
            std::fs::File::open(&staged)?.sync_all()?;
            std::fs::rename(&staged, path)
        }),
        _ => bail!("no such child"),
    }
}

/// Stays in the closure until it is killed.
fn hang(path: &Path, operation: Operation) -> Result<()> {
    let done = operation.run(path, "half and the rest", || {
        wait_for_start()?;
        sleep(Duration::from_secs(600));
        Ok(())
    });
    println!("{}", done.map_or_else(|error| format!("{error:#}"), |()| "done".to_owned()));
    Ok(())
}

/// Adds one to the number in a file, so many times.
fn increment(path: &Path, times: u32, add: fn(&Path, &mut bool) -> Result<()>) -> Result<()> {
    wait_for_start()?;
    for acknowledged in 0..times {
        let mut entered = false;
        if let Err(error) = add(path, &mut entered) {
            let when = if entered { "late" } else { "refused" };
            println!("{acknowledged} {when}: {error:#}");
            return Ok(());
        }
    }
    println!("{times}");
    Ok(())
}

fn increment_by_update(path: &Path, entered: &mut bool) -> Result<()> {
    WriteOptions::new().anyhow().update(path, |old, w| {
        *entered = true;
        let mut text = String::new();
        if let Some(old) = old {
            old.read_to_string(&mut text)?;
        }
        let number: u32 = if text.is_empty() { 0 } else { text.parse().context(text)? };
        Ok(write!(w, "{}", number + 1)?)
    })
}

/// Without this library, and with a lock on another filesystem, which can be trusted.
fn increment_by_rename(path: &Path, entered: &mut bool) -> Result<()> {
    let lock = path.display().to_string().replace('/', "_");
    let lock = fs_err::File::create(env::temp_dir().join(lock))?;
    lock.file().lock()?;
    *entered = true;
    let number: u32 = match fs_err::read_to_string(path) {
        Ok(text) => text.parse().context(text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(error.into()),
    };
    let staged = path.with_extension("staged");
    fs_err::write(&staged, (number + 1).to_string())?;
    fs_err::File::open(&staged)?.sync_all()?;
    Ok(fs_err::rename(&staged, path)?)
}

/// Says whether its closure ran, and what the operation returned.
fn race(
    path: &Path,
    content: &str,
    create: impl FnOnce(
        &WriteOptions,
        &Path,
        &mut dyn FnMut(&mut write_atomically::Writer) -> std::io::Result<()>,
    ) -> std::io::Result<()>,
) -> Result<()> {
    wait_for_start()?;
    let mut ran = false;
    let done = create(&WriteOptions::new(), path, &mut |w| {
        ran = true;
        sleep(Duration::from_millis(100));
        w.write_all(content.as_bytes())
    });
    match done {
        Ok(()) if ran => println!("won"),
        Ok(()) => println!("found"),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => println!("exists"),
        Err(error) if ran => println!("late: {error:#}"),
        Err(error) => println!("refused: {error:#}"),
    }
    Ok(())
}

pub const LENGTH: usize = 200_000;

/// Writes the letters of its argument in turn, one write each, `LENGTH` times a letter.
fn rewrite(letters: &str, write: impl Fn(Vec<u8>) -> std::io::Result<()>) -> Result<()> {
    wait_for_start()?;
    let mut letters = letters.bytes();
    match letters.try_for_each(|letter| write(vec![letter; LENGTH])) {
        Ok(()) => println!("done"),
        Err(error) => println!("{error}"),
    }
    Ok(())
}

fn wait_for_start() -> Result<()> {
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// A process that waits for its start. It is killed when this is dropped.
pub struct Waiting {
    child: Child,
    start: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Waiting {
    pub fn spawn(what: &str, path: &Path, argument: &str) -> Result<Waiting> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["child", what]).arg(path).arg(argument);
        command.env("RUST_BACKTRACE", "0");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let start = child.stdin.take().context("a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut waiting = Waiting { child, start, answers };
        match waiting.line()?.as_str() {
            "ready" => Ok(waiting),
            other => bail!("{other}"),
        }
    }

    pub fn start(&mut self) -> Result<()> {
        Ok(self.start.write_all(b"\n")?)
    }

    /// What it says in the end.
    pub fn answer(&mut self) -> Result<String> {
        let answer = self.line();
        let end = Instant::now() + Duration::from_secs(10);
        while self.child.try_wait()?.is_none() && Instant::now() < end {
            sleep(Duration::from_millis(10));
        }
        answer
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets all of them go at once, and collects what they say.
pub fn race_all(mut children: Vec<Waiting>) -> Result<Vec<String>> {
    for child in &mut children {
        child.start()?;
    }
    children.iter_mut().map(Waiting::answer).collect()
}
