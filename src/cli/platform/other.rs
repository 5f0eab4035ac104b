//! Without signals: whoever ends the command ends this program as well, and the next write removes
//! what is left of this one.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::process::{Command, ExitStatus};

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
