//! Without signals: whoever ends the command ends this program as well, and the next write removes
//! what is left of this one.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// There are none.
#[derive(Clone, Copy, Debug)]
pub struct Signal(Infallible);

impl Signal {
    pub fn die(self) -> i32 {
        match self.0 {}
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

pub struct Signals;

impl Signals {
    pub fn catch() -> io::Result<Signals> {
        Ok(Signals)
    }

    pub fn hold_back(&self) {}

    pub fn caught(&self) -> Option<Signal> {
        None
    }

    pub fn run(&self, command: &mut Command) -> io::Result<ExitStatus> {
        command.status()
    }

    pub fn unless_caught<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Signal> {
        Ok(work())
    }
}

pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or(1)
}

pub fn describe(status: ExitStatus) -> String {
    status.to_string()
}

/// Creates a file; there are no modes.
pub fn create_new(path: &Path, _mode: u32) -> io::Result<File> {
    File::create_new(path)
}

/// The words of a text as a command line, with a path in it. Standard input is empty.
pub fn shell(text: &str, path: &Path) -> Command {
    let mut words = text.split_whitespace().map(|word| {
        let mut replaced = OsString::new();
        for (nth, piece) in word.split("{}").enumerate() {
            if nth > 0 {
                replaced.push(path);
            }
            replaced.push(piece);
        }
        replaced
    });
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(Stdio::null());
    command
}

/// Who has the lock of a file that this process waits for.
pub enum Holder {
    #[expect(dead_code)] // As on Unix.
    Inherited,
    #[expect(dead_code)]
    Ancestor { name: String, id: u32 },
    #[expect(dead_code)]
    Other { name: String, id: u32 },
}

/// The system does not tell.
pub fn lock_holder(_path: &Path) -> Option<Holder> {
    None
}
