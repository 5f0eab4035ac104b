//! A writer whose closure takes its time: it waits until it is told to go on.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, ensure};
use fs_err as fs;
use write_atomically::write_atomically;

use crate::content::content;
use crate::operations::Missing;
use crate::subject;

pub const ROLE: &str = "living";
pub const VERSION: u32 = 9;

pub struct Living {
    process: Child,
    stdin: ChildStdin,
    file: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Staging {
    Unnamed,
    Named,
}

impl Living {
    /// Starts a writer of `file` in this directory; its closure is running when this returns.
    pub fn start(directory: &Path, file: &str, staging: Staging) -> anyhow::Result<Living> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(directory.join(file)).arg(file).arg(format!("{staging:?}"));
        command.env(subject::ROLE.0, ROLE).stderr(Stdio::piped());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = process.stdin.take().context("no stdin")?;
        let mut ready = String::new();
        BufReader::new(process.stdout.take().context("no stdout")?).read_line(&mut ready)?;
        ensure!(ready == "ready\n", "the living writer said {ready:?}");
        Ok(Living { process, stdin, file: file.to_string() })
    }

    /// Whether its staging entry is there, and untouched.
    pub fn check(&self, directory: &Path, entry: &str) -> anyhow::Result<()> {
        let there = fs::read(directory.join(entry)).context("the living writer's entry is gone")?;
        ensure!(there == content(VERSION, &self.file), "the living writer's entry has changed");
        Ok(())
    }

    /// Lets the closure return `Ok`. The answer is the error that the call then ended with, if any.
    pub fn go_on(self) -> anyhow::Result<Option<String>> {
        drop(self.stdin);
        let output = self.process.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        Ok((!output.status.success()).then_some(said))
    }
}

/// The writer itself.
pub fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().context("no path")?);
    let file = arguments.next().context("no file")?;
    if arguments.next().as_deref() == Some("Named") {
        subject::pretend(Missing::UnnamedFiles)?;
    }
    write_atomically(path, |w| {
        w.write_all(&content(VERSION, &file))?;
        w.flush()?;
        println!("ready");
        std::io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    })
}
