//! What went wrong, in words and as an exit status.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitStatus;

use write_atomically::{Error, Hint, Outcome, Step};

use super::platform::{self, Signal};

/// Why the destination was not written.
#[derive(Debug)]
pub enum Failure {
    /// The library, or the system below it.
    Io(io::Error),
    /// Standard input could not be read, or could not be written to the staging file.
    Copy(io::Error),
    /// The content could not be brought to stable storage.
    Sync(io::Error),
    /// The command could not be started.
    Start { program: PathBuf, error: io::Error },
    /// The command did not succeed.
    Command { program: PathBuf, status: ExitStatus },
    /// The command did not succeed, and left nothing at the path that took the place of this.
    CommandAtPath { program: PathBuf, status: ExitStatus, placeholder: String },
    /// The command succeeded, but left nothing at the path that took the place of this.
    NothingWritten { program: PathBuf, placeholder: String },
    /// With --refuse-empty: there is no content.
    Empty,
    /// With --check: the content was refused.
    Refused { check: String, status: ExitStatus },
    /// With --create: the destination exists.
    Exists,
    /// A signal asked this program to end.
    Signal(Signal),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

/// The content was refused.
const REFUSED: i32 = 122;
/// With --create: the destination exists.
const EXISTS: i32 = 123;
/// Another process has had the destination's lock for as long as --wait says. timeout(1) has the same.
const TIMED_OUT: i32 = 124;
/// env(1), nohup(1) and timeout(1) exit with this when they fail themselves, so that it is not taken for
/// the status of the command that they run.
const OWN_FAILURE: i32 = 125;
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

impl Failure {
    /// Says it on standard error and returns the exit status. After a signal, this program ends by the
    /// same signal: a shell stops its loop only then. `subject` is the destination, and its verb.
    pub fn report(&self, subject: &str, quiet: bool) -> i32 {
        let has_said_why = matches!(
            self,
            Failure::Command { .. } | Failure::CommandAtPath { .. } | Failure::Signal(_)
        );
        if !(quiet && has_said_why) {
            say(format_args!("write-atomically: {}", self.message(subject)));
        }
        match self {
            Failure::Exists => EXISTS,
            Failure::Empty | Failure::Refused { .. } => REFUSED,
            Failure::Io(error) => own_status(error),
            Failure::Copy(_) | Failure::Sync(_) | Failure::NothingWritten { .. } => OWN_FAILURE,
            Failure::Start { error, .. } if error.kind() == io::ErrorKind::NotFound => NOT_FOUND,
            Failure::Start { .. } => NOT_EXECUTABLE,
            Failure::Command { status, .. } | Failure::CommandAtPath { status, .. } => {
                platform::exit_code(*status)
            }
            Failure::Signal(signal) => signal.die(),
        }
    }

    fn message(&self, subject: &str) -> String {
        if let Failure::Io(error) = self {
            if let Some(error) = Error::find(error) {
                return explain(error);
            }
        }
        format!("{subject} unchanged: {}", self.cause())
    }

    fn cause(&self) -> String {
        match self {
            Failure::Io(error) => error.to_string(),
            Failure::Copy(error) => format!("failed to copy standard input: {error}"),
            Failure::Sync(error) => format!("failed to sync: {error}"),
            Failure::Start { program, error } => {
                format!("failed to run `{}`: {error}", program.display())
            }
            Failure::Command { program, status } => {
                format!("`{}` failed: {}", program.display(), platform::describe(*status))
            }
            Failure::CommandAtPath { program, status, placeholder } => {
                let (program, status) = (program.display(), platform::describe(*status));
                format!("`{program}` failed: {status}; {}", as_it_is(placeholder))
            }
            Failure::NothingWritten { program, placeholder } => {
                let program = program.display();
                format!("`{program}` has written {}", as_it_is(placeholder))
            }
            Failure::Empty => "there is no content, and --refuse-empty refuses that".to_owned(),
            Failure::Refused { check, status } => {
                format!("`{check}` refused the content: {}", platform::describe(*status))
            }
            Failure::Exists => "it exists".to_owned(),
            Failure::Signal(signal) => format!("ended by {signal}"),
        }
    }
}

/// `find -exec`, `xargs -I{}`, `jq '{}'` and `curl -d '{}'` mean the placeholder as it is.
fn as_it_is(placeholder: &str) -> String {
    format!(
        "nothing at the path that took the place of `{placeholder}` (if `{placeholder}` is meant as it \
         is: --placeholder '')"
    )
}

/// The exit status for an error of the library's.
fn own_status(error: &io::Error) -> i32 {
    let Some(error) = Error::find(error) else { return OWN_FAILURE };
    match (error.step(), error.kind(), error.outcome()) {
        (Step::Resolve | Step::Publish, io::ErrorKind::AlreadyExists, Outcome::Unchanged) => EXISTS,
        (Step::Lock, io::ErrorKind::TimedOut, _) => TIMED_OUT,
        _ => OWN_FAILURE,
    }
}

/// The library words its hints for programmers: options have other names here.
fn explain(error: &Error) -> String {
    let hint = match error.hint() {
        Some(Hint::MountPoint) => {
            "it is a mount point, which can't be renamed over; --in-place-fallback writes it in place"
        }
        Some(Hint::StickyDirectory) => {
            "it belongs to another user, in a sticky directory, and can't be renamed over; \
             --in-place-fallback writes it in place"
        }
        Some(Hint::ImmutableDirectory) => {
            "its directory is immutable or append-only (lsattr(1) shows that); --in-place-fallback \
             writes a file that exists in place"
        }
        Some(Hint::UnwritableDirectory) => {
            "its directory does not let this user create files, so that it can't be replaced; \
             --in-place-fallback writes it in place"
        }
        Some(Hint::NotReplaceable) => {
            "it is a device, a FIFO, a socket or an open file, which can't be replaced; a COMMAND that \
             prints can write it, without --check"
        }
        Some(Hint::KeptAtDestination) => "--keep-failed names the destination itself",
        Some(Hint::KeepsOnlyFiles) => "--keep-failed saves files, not directories",
        _ => return error.to_string(),
    };
    let (path, step, cause) = (error.path().display(), error.step(), error.io_error());
    format!("`{path}` is unchanged: failed to {step} ({hint}): {cause}")
}

/// Says something on standard error; if that is closed, nothing can be done about it.
pub fn say(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{what}");
}
