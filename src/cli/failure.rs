//! What went wrong, in words and as an exit status.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use write_atomically::Error;

use super::platform::{self, Signal};

/// Why there is nothing new at the destination.
#[derive(Debug)]
pub enum Failure {
    /// The library, or the system below it.
    Io(io::Error),
    /// Standard input could not be read, or what was read could not be written.
    Copy(io::Error),
    /// The content could not be brought to stable storage.
    Sync(io::Error),
    /// The command could not be started.
    Start { program: PathBuf, error: io::Error },
    /// The command did not succeed.
    Command { program: PathBuf, status: ExitStatus },
    /// The command succeeded, but there is nothing at the path that it was given.
    NothingWritten { program: PathBuf },
    /// Somebody wanted this to end.
    Signal(Signal),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

/// What env(1), nohup(1) and timeout(1) exit with when it is they who failed, so that a command's
/// own status is not taken for theirs.
const OWN_FAILURE: i32 = 125;
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

impl Failure {
    /// Says it on standard error and returns the exit status. After a signal that is the signal
    /// itself: only so does a shell know to stop its loop, too.
    pub fn report(&self, destination: &Path, quiet: bool) -> i32 {
        let has_said_why = matches!(self, Failure::Command { .. } | Failure::Signal(_));
        if !(quiet && has_said_why) {
            say(format_args!("write-atomically: {}", self.message(destination)));
        }
        match self {
            Failure::Io(_) | Failure::Copy(_) | Failure::Sync(_) => OWN_FAILURE,
            Failure::NothingWritten { .. } => OWN_FAILURE,
            Failure::Start { error, .. } if error.kind() == io::ErrorKind::NotFound => NOT_FOUND,
            Failure::Start { .. } => NOT_EXECUTABLE,
            Failure::Command { status, .. } => platform::exit_code(*status),
            Failure::Signal(signal) => signal.die(),
        }
    }

    fn message(&self, destination: &Path) -> String {
        let cause = match self {
            Failure::Io(error) => {
                let (cause, says_what_became_of_it) = in_terms_of_the_tool(error);
                if says_what_became_of_it {
                    return cause;
                }
                cause
            }
            Failure::Copy(error) => {
                format!("failed to copy standard input to `{}`: {error}", destination.display())
            }
            Failure::Sync(error) => format!("failed to sync `{}`: {error}", destination.display()),
            Failure::Start { program, error } => {
                format!("failed to run `{}`: {error}", program.display())
            }
            Failure::Command { program, status } => {
                format!("`{}` failed: {}", program.display(), platform::describe(*status))
            }
            Failure::NothingWritten { program } => {
                format!("`{}` has written nothing at the path that it was given", program.display())
            }
            Failure::Signal(signal) => format!("ended by {signal}"),
        };
        format!("{cause}; `{}` is unchanged", destination.display())
    }
}

/// Says something on standard error, if anybody listens.
pub fn say(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// The library's messages are for those who call it: options have other names here. Also returns
/// whether the message says what became of the destination, because it changed.
fn in_terms_of_the_tool(error: &io::Error) -> (String, bool) {
    let text = error
        .to_string()
        .replace("`WriteOptions::overwrite_in_place(true)`", "`--in-place-fallback`")
        .replace("`write_atomically` does that", "a COMMAND that prints can write those");
    let changed = Error::find(error).is_some_and(Error::replaced);
    match text.strip_suffix("; the destination is unchanged") {
        Some(cause) => (cause.to_owned(), changed),
        None => (text, changed),
    }
}
