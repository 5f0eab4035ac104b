//! The command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueHint};
use clap_complete::Shell;
use write_atomically::WriteOptions;

use super::failure::say;
use super::help;
use super::job::{Job, Producer, Program, Requirements, When};
use super::progress::Show;
use super::several;
use super::values::{HowDurable, age, check, permission_bits, seconds};

/// Only write the file if the command succeeds
///
/// Runs COMMAND and writes what it prints to the file DEST. DEST appears, or changes, in one step
/// when COMMAND has exited with status 0: all of it, and safe from a power cut. If COMMAND fails, is
/// killed or can't be found, DEST stays exactly as it was, and nothing else is left behind. If this
/// program is killed by SIGKILL, DEST stays as it was, too; one hidden entry may stay beside it, which
/// the next write of DEST removes.
///
/// What COMMAND prints goes straight into a hidden file on DEST's filesystem, not through this
/// program; the file has no name where the filesystem allows that. What can't work (a missing or
/// unwritable directory, a full name) fails before COMMAND is started.
///
/// DEST keeps its permissions, and its owner, group, ACL and `user.*` attributes where this user may
/// set them. A symbolic link stays one, and what it leads to is written. A device, FIFO or
/// `/dev/stdout` is not replaced; it gets the whole content when COMMAND has succeeded.
///
/// Without COMMAND, standard input is read until it ends and then becomes DEST, so DEST may be what
/// the producer reads: `sort list | write-atomically list`.
///
/// With several DESTs, COMMAND writes a file for each, at the paths that replace `{1}`, `{2}` and so on in
/// its arguments. All are complete and safe before the first is published; then they are published one
/// after the other.
///
/// Mind that a producer that fails can't be seen through a pipe: its output just ends early, and what
/// there is of it is published. The form that sees it is `write-atomically DEST -- PRODUCER`, or,
/// for a whole pipeline, `write-atomically DEST -- bash -o pipefail -c 'a | b'`. --refuse-empty sees one
/// that fails before it prints anything.
#[derive(Parser, Debug)]
#[command(
    name = "write-atomically",
    version,
    override_usage = "write-atomically [OPTIONS] DEST -- COMMAND [ARG]...\n       \
                      write-atomically [OPTIONS] DEST < INPUT\n       \
                      write-atomically [OPTIONS] DEST DEST... -- COMMAND ARG...\n       \
                      write-atomically --sweep DIR --older-than AGE",
    after_help = "A producer that fails can't be seen through a pipe. `DEST -- COMMAND` sees it.",
    after_long_help = help::afterword()
)]
struct Args {
    /// The file to write, or, with --dir, the directory
    ///
    /// A name that starts with a dash goes after two of them, or is written with its directory:
    /// `write-atomically -- -name -- COMMAND`, `write-atomically ./-name -- COMMAND`.
    #[arg(value_name = "DEST", value_hint = ValueHint::AnyPath)]
    destinations: Vec<PathBuf>,

    /// The command that produces the content, and its arguments
    ///
    /// If an argument has `{}` in it, that is replaced by the path of a file for the command to
    /// write, with DEST's extension, and its standard output is left alone. (Killed by SIGKILL, this
    /// program leaves that file behind, hidden next to DEST, until DEST is written again.) It is the end of COMMAND
    /// itself that counts: what it leaves running in the background is not waited for, and what
    /// that still writes is not part of the promise.
    #[arg(value_name = "COMMAND", last = true, value_hint = ValueHint::CommandName)]
    command: Vec<OsString>,

    /// Do nothing, successfully, if DEST exists: COMMAND is not even started
    ///
    /// Of several at once, one runs its command, and the others wait for it.
    #[arg(long, group = "when", conflicts_with = "append")]
    if_missing: bool,

    /// Fail if DEST exists
    #[arg(long, group = "when", conflicts_with_all = ["append", "dir"])]
    create: bool,

    /// Leave DEST alone, with its modification time, if its content would be the same
    #[arg(long, group = "when", conflicts_with_all = ["append", "dir"])]
    if_changed: bool,

    /// Keep the old content, and add the new one at its end
    ///
    /// Those who append to the same file at once wait for each other. Where DEST does not exist yet, two
    /// users may both be about to create it: then one of them fails, and nothing is lost.
    #[arg(long, short, conflicts_with = "dir")]
    append: bool,

    /// DEST is a directory; COMMAND fills it at the path that replaces `{}`
    ///
    /// The tree that was there is replaced as a whole.
    #[arg(long)]
    dir: bool,

    /// What stands for the path in COMMAND's arguments; with '' nothing does
    ///
    /// With several DESTs their numbers go inside a closing bracket, or to the end: `{1}`, `@1`. COMMANDs
    /// that mean `{}` as it is need this option: `find -exec`, `xargs -I{}`, `jq '{}'`, `curl -d '{}'`.
    #[arg(long, value_name = "TEXT", default_value = "{}", hide_default_value = true)]
    placeholder: String,

    /// Fail if there is no content: an empty file, or with --dir an empty directory
    ///
    /// With --append it is the new part that must not be empty.
    #[arg(long)]
    refuse_empty: bool,

    /// Publish only if CMD succeeds; `{}` in it is the path of the new content: 'visudo -cf {}'
    ///
    /// sh(1) runs CMD, with the path quoted (Windows: CMD's words are separated by spaces). It runs before
    /// anything is published, at a path with DEST's own name in a hidden directory beside DEST; with
    /// several DESTs once for each, with --append on a copy of the whole new content. Its standard
    /// input is empty. It may change the content. So DEST has to be something that can be
    /// replaced: no device, no FIFO.
    #[arg(long, value_name = "CMD", value_parser = check, value_hint = ValueHint::CommandString)]
    check: Option<String>,

    /// The file's permission bits, exactly, in octal: 600, 0644
    #[arg(long, value_name = "MODE", value_parser = permission_bits)]
    mode: Option<u32>,

    /// The permission bits of a DEST that is new, less the umask, in octal; an old DEST keeps its own
    #[arg(long, value_name = "MODE", value_parser = permission_bits)]
    new_file_mode: Option<u32>,

    /// How long --if-missing and --append wait for others that write DEST; for ever unless set
    ///
    /// Then this program exits with status 124, and COMMAND is not started.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    wait: Option<Duration>,

    /// What survives a power cut once this program has exited with 0
    #[arg(long, value_name = "HOW", value_enum, default_value_t = HowDurable::Durable)]
    durability: HowDurable,

    /// Make DEST's directory, and those above it, if they are missing
    #[arg(long)]
    create_parents: bool,

    /// If DEST is a symbolic link, replace the link itself
    #[arg(long)]
    no_follow: bool,

    /// If COMMAND fails, keep at PATH what it had written
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    keep_failed: Option<PathBuf>,

    /// Write into DEST, not atomically, if it is a file that can't be renamed over
    ///
    /// That is one that was bind-mounted, as containers do with `/etc/resolv.conf`, somebody else's in a
    /// sticky directory, or one in a directory where this user can't create files.
    #[arg(long)]
    in_place_fallback: bool,

    /// Say nothing of a COMMAND that failed, and show no progress
    ///
    /// What fails in this program is still reported.
    #[arg(long, short)]
    quiet: bool,

    /// Show bytes, rate and time from the start, even where standard error is no terminal
    ///
    /// Otherwise they are shown on a terminal only, when it takes longer than a second.
    #[arg(long, overrides_with = "no_progress")]
    progress: bool,

    /// Never show progress
    #[arg(long, overrides_with = "progress")]
    no_progress: bool,

    /// Remove from DIR what machines that died have left there, and print its names
    ///
    /// A write removes what a killed one has left of the same DEST on the same machine. In a directory that
    /// several machines share, what a machine leaves that dies stays, and is removed by this.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "older_than",
          conflicts_with_all = ["destinations", "command"])]
    sweep: Option<PathBuf>,

    /// With --sweep: what other machines have not changed for so long (90s, 30m, 24h, 7d)
    ///
    /// It must be longer than any COMMAND pauses, anywhere. What this machine has left is removed
    /// however old it is, if its writer is dead.
    #[arg(long, value_name = "AGE", value_parser = age, requires = "sweep")]
    older_than: Option<Duration>,

    /// Print a completion script for SHELL
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<Shell>,

    /// Print the manual page, in roff
    #[arg(long, exclusive = true)]
    man: bool,
}

/// What the command line asks for.
pub enum Request {
    Write(Box<Job>),
    Sweep { directory: PathBuf, older_than: Duration },
    Print(Vec<u8>),
}

impl Request {
    /// Ends the program, with a message, if the command line asks for nothing that makes sense.
    pub fn from_command_line() -> Request {
        let args = Args::parse();
        if let Some(shell) = args.completions {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "write-atomically", &mut script);
            return Request::Print(script);
        }
        if args.man {
            return match help::manual(Args::command()) {
                Ok(page) => Request::Print(page),
                Err(error) => Args::command().error(ErrorKind::Io, error).exit(),
            };
        }
        match (args.sweep.clone(), args.older_than) {
            (Some(directory), Some(older_than)) => {
                return Request::Sweep { directory, older_than };
            }
            // clap takes it for satisfied where what is required conflicts with something given.
            (None, Some(_)) => Args::command()
                .error(ErrorKind::MissingRequiredArgument, "--older-than is for --sweep")
                .exit(),
            _ => {}
        }
        // clap does not enforce `requires` where the argument that is required conflicts with one that is there.
        if args.older_than.is_some() {
            let message = "--older-than needs --sweep";
            Args::command().error(ErrorKind::MissingRequiredArgument, message).exit();
        }
        match args.into_job() {
            Ok(job) => Request::Write(Box::new(job)),
            Err((kind, message)) => Args::command().error(kind, message).exit(),
        }
    }
}

/// Removes what is left in a directory, prints its paths, one a line, and returns the exit status.
pub fn sweep(directory: &Path, older_than: Duration) -> i32 {
    match write_atomically::sweep(directory, older_than) {
        Ok(removed) => {
            let lines = removed.iter().map(|path| format!("{}\n", path.display()));
            print(lines.collect::<String>().as_bytes())
        }
        Err(error) => {
            say(format_args!("write-atomically: {error}"));
            125
        }
    }
}

/// Prints and returns the exit status; who has read enough of it is satisfied.
pub fn print(text: &[u8]) -> i32 {
    match io::stdout().write_all(text).and_then(|()| io::stdout().flush()) {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            say(format_args!("write-atomically: failed to write to standard output: {error}"));
            125
        }
    }
}

/// Sets an option if the command line has a value for it.
fn set<T>(
    options: WriteOptions,
    value: Option<T>,
    set: impl FnOnce(WriteOptions, T) -> WriteOptions,
) -> WriteOptions {
    match value {
        Some(value) => set(options, value),
        None => options,
    }
}

pub type Complaint = (ErrorKind, &'static str);

impl Args {
    fn into_job(mut self) -> Result<Job, Complaint> {
        // clap does not ask for --sweep where DEST, which conflicts with it, is there.
        if self.older_than.is_some() {
            return Err((ErrorKind::MissingRequiredArgument, "--older-than goes with --sweep"));
        }
        let mut others = self.take_destinations()?;
        let destination = others.remove(0);
        let producer = self.producer(others.len())?;
        if !others.is_empty() {
            self.check_several(&destination, &others)?;
        }
        Ok(Job {
            destination,
            others,
            options: self.options(),
            when: self.when(),
            requirements: Requirements {
                refuse_empty: self.refuse_empty,
                check: self.check.take(),
            },
            quiet: self.quiet,
            progress: self.show(),
            producer,
        })
    }

    /// After a first `--`, all that clap knows is that these are no options: `-- DEST -- COMMAND`.
    fn take_destinations(&mut self) -> Result<Vec<PathBuf>, Complaint> {
        if !self.destinations.is_empty() {
            return Ok(std::mem::take(&mut self.destinations));
        }
        let mut rest = std::mem::take(&mut self.command);
        let dashes = rest.iter().position(|argument| argument == "--");
        match (dashes, rest.len()) {
            (None, 1) => {}
            (Some(dashes), _) if dashes > 0 => {
                self.command = rest.split_off(dashes + 1);
                rest.truncate(dashes);
            }
            _ => {
                let message = "DEST is missing: where to write to";
                return Err((ErrorKind::MissingRequiredArgument, message));
            }
        }
        Ok(rest.into_iter().map(PathBuf::from).collect())
    }

    fn options(&self) -> WriteOptions {
        let options = WriteOptions::new()
            .durability(self.durability.into())
            .create_parents(self.create_parents)
            .follow_symlinks(!self.no_follow)
            .in_place_fallback(self.in_place_fallback);
        let options = set(options, self.mode, WriteOptions::mode);
        let options = set(options, self.new_file_mode, WriteOptions::new_file_mode);
        let options = set(options, self.wait, WriteOptions::lock_timeout);
        set(options, self.keep_failed.as_ref(), WriteOptions::keep_failed)
    }

    fn when(&self) -> When {
        match () {
            () if self.if_missing => When::MissingElseSkip,
            () if self.create => When::Missing,
            () if self.if_changed => When::Changed,
            () if self.append => When::Append,
            () => When::Always,
        }
    }

    fn show(&self) -> Show {
        match (self.progress, self.no_progress || self.quiet) {
            (true, _) => Show::Always,
            (_, true) => Show::Never,
            _ => Show::IfItTakesLong,
        }
    }

    /// What makes no sense, or what a batch can't do.
    fn check_several(&self, first: &Path, others: &[PathBuf]) -> Result<(), Complaint> {
        let conflicts = self.when() != When::Always
            || self.dir
            || self.keep_failed.is_some()
            || self.in_place_fallback;
        if conflicts {
            let message = "several DESTs can't be used with --if-missing, --create, --if-changed, \
                           --append, --dir, --keep-failed or --in-place-fallback";
            return Err((ErrorKind::ArgumentConflict, message));
        }
        let mut before = vec![first];
        for other in others {
            if before.contains(&&**other) {
                return Err((ErrorKind::ArgumentConflict, "a DEST is named twice"));
            }
            before.push(other);
        }
        Ok(())
    }

    /// `others` is the number of destinations after the first.
    fn producer(&mut self, others: usize) -> Result<Producer, Complaint> {
        let mut command = std::mem::take(&mut self.command).into_iter();
        let program = command.next().map(|name| Program {
            name,
            arguments: command.collect(),
            placeholder: self.placeholder.clone(),
        });
        match program {
            _ if others > 0 => several::producer(program, others + 1),
            Some(program) if program.has(&self.placeholder) => match self.dir {
                true => Ok(Producer::Directory(program)),
                false => Ok(Producer::File(program)),
            },
            _ if self.dir => Err((
                ErrorKind::MissingRequiredArgument,
                "--dir needs a COMMAND with `{}` among its arguments: where the directory is to be",
            )),
            Some(program) => Ok(Producer::Output(program)),
            None => Ok(Producer::StandardInput),
        }
    }
}
