//! The command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum, ValueHint};
use clap_complete::Shell;
use clap_lex::OsStrExt;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use write_atomically::{Durability, WriteOptions};

use super::failure::say;
use super::job::{Job, Producer, Program, When};
use super::progress::Show;

/// Only write the file if the command succeeds
///
/// Runs COMMAND and writes what it prints to the file DEST. DEST appears, or changes, in one step
/// when COMMAND has exited with status 0: all of it, and safe from a power cut. If COMMAND fails, is
/// killed or can't be found, DEST stays exactly as it was, and nothing else is left behind. Neither
/// is anything if this program is killed.
///
/// What COMMAND prints goes straight into an unnamed file on DEST's filesystem, not through this
/// program. What can't work (a missing or unwritable directory, a full name) fails before COMMAND is
/// started.
///
/// DEST keeps its permissions, owner, ACL and extended attributes. A symbolic link stays one, and
/// what it leads to is written. A device, FIFO or `/dev/stdout` is not replaced; it gets the whole
/// content when COMMAND has succeeded.
///
/// Without COMMAND, standard input is read until it ends and then becomes DEST, so DEST may be what
/// the producer reads: `sort list | write-atomically list`.
///
/// Mind that a producer that fails can't be seen through a pipe: its output just ends early, and what
/// there is of it is published. The form that sees it is `write-atomically DEST -- PRODUCER`, or,
/// for a whole pipeline, `write-atomically DEST -- bash -o pipefail -c 'a | b'`.
#[derive(Parser, Debug)]
#[command(
    name = "write-atomically",
    version,
    override_usage = "write-atomically [OPTIONS] DEST -- COMMAND [ARG]...\n       \
                      write-atomically [OPTIONS] DEST < INPUT\n       \
                      write-atomically --sweep DIR --older-than AGE",
    after_help = "A producer that fails can't be seen through a pipe. `DEST -- COMMAND` sees it.",
    after_long_help = afterword()
)]
struct Args {
    /// The file to write, or, with --dir, the directory
    ///
    /// A name that starts with a dash goes after two of them, or is written with its directory:
    /// `write-atomically -- -name -- COMMAND`, `write-atomically ./-name -- COMMAND`.
    #[arg(value_name = "DEST", value_hint = ValueHint::AnyPath)]
    destination: Option<PathBuf>,

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
    /// Those who append to the same file at once wait for each other.
    #[arg(long, short, conflicts_with = "dir")]
    append: bool,

    /// DEST is a directory; COMMAND fills it at the path that replaces `{}`
    ///
    /// The tree that was there is replaced as a whole.
    #[arg(long)]
    dir: bool,

    /// What stands for the path in COMMAND's arguments; with '' nothing does
    #[arg(long, value_name = "TEXT", default_value = "{}", hide_default_value = true)]
    placeholder: String,

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
    /// That is one that was bind-mounted, as containers do with `/etc/resolv.conf`, or somebody
    /// else's in a sticky directory.
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
          conflicts_with_all = ["destination", "command"])]
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

const EXAMPLES: &str = "\
  In a shell script; a failed query leaves yesterday's report:
    write-atomically report.csv -- psql --csv -f report.sql

  A pipeline, of which every part must succeed:
    write-atomically top.txt -- bash -o pipefail -c 'zcat log.gz | sort | uniq -c'

  A program that wants a path instead of printing:
    write-atomically model.onnx -- python export.py --output {}

  A whole directory:
    write-atomically --dir site -- mdbook build --dest-dir {}

  A rule of a Makefile that leaves no half-written target, which would look up to date:
    %.json: %.yaml
            write-atomically $@ -- yq -o json $<

  In a crontab; nothing reads a list that is still being downloaded:
    15 4 * * * write-atomically -q /srv/block.list -- curl -fsS https://example.org/list

  Instead of sponge(1):
    sort names | write-atomically names
";

const EXIT_STATUS: &str = "\
  0       DEST is written, or need not be (--if-missing, --if-changed)
  2       the options make no sense
  123     DEST exists (--create)
  124     others have not finished DEST within --wait SECONDS
  125     this program failed; DEST is unchanged unless the message says otherwise
  126     COMMAND can't be executed
  127     COMMAND is not found
  128+N   COMMAND was killed by signal N
  else    COMMAND's own
";

const SIGNALS: &str = "\
  SIGINT, SIGTERM and SIGHUP are passed on to COMMAND, unless the terminal has sent them to both.
  This program waits for COMMAND's end, publishes nothing, and ends by the same signal. One that
  comes when COMMAND has succeeded and what it wrote is being published comes too late. After
  SIGKILL, COMMAND may run on; what it writes is lost.
";

/// What the help and the manual page end with.
const AFTERWORD: [(&str, &str); 3] =
    [("Examples", EXAMPLES), ("Exit status", EXIT_STATUS), ("Signals", SIGNALS)];

fn afterword() -> String {
    let sections: Vec<_> =
        AFTERWORD.iter().map(|(title, text)| format!("{title}:\n{text}")).collect();
    sections.join("\n")
}

/// The manual page. What follows the options is shown as it is, line by line.
fn manual() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let man = Man::new(Args::command());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for (title, text) in AFTERWORD {
        let mut section = Roff::new();
        section.control("SH", [title.to_uppercase().as_str()]).control("nf", []);
        for line in text.lines() {
            section.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
        section.control("fi", []).to_writer(&mut page)?;
    }
    man.render_version_section(&mut page)?;
    Ok(page)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HowDurable {
    /// The new content
    Durable,
    /// The old content or the new, whole
    Consistent,
    /// Whatever the filesystem makes of it: nothing is synced
    Relaxed,
}

impl From<HowDurable> for Durability {
    fn from(how: HowDurable) -> Self {
        match how {
            HowDurable::Durable => Durability::Durable,
            HowDurable::Consistent => Durability::Consistent,
            HowDurable::Relaxed => Durability::Relaxed,
        }
    }
}

fn permission_bits(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err("not an octal number from 0 to 7777".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "not a number of seconds".to_owned())
}

/// A number and a unit.
fn age(text: &str) -> Result<Duration, String> {
    let wrong = || "not a number with one of the units s, m, h, d".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// What the command line asks for.
pub enum Request {
    Write(Job),
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
            return match manual() {
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
        match args.into_job() {
            Ok(job) => Request::Write(job),
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

type Complaint = (ErrorKind, &'static str);

impl Args {
    fn into_job(mut self) -> Result<Job, Complaint> {
        Ok(Job {
            destination: self.take_destination()?,
            options: self.options(),
            when: self.when(),
            quiet: self.quiet,
            progress: self.show(),
            producer: self.producer()?,
        })
    }

    /// After a first `--`, all that clap knows is that these are no options: `-- DEST -- COMMAND`.
    fn take_destination(&mut self) -> Result<PathBuf, Complaint> {
        if let Some(destination) = self.destination.take() {
            return Ok(destination);
        }
        let mut rest = std::mem::take(&mut self.command).into_iter();
        match (rest.next(), rest.next()) {
            (Some(destination), None) => Ok(destination.into()),
            (Some(destination), Some(dashes)) if dashes == "--" => {
                self.command = rest.collect();
                Ok(destination.into())
            }
            _ => Err((ErrorKind::MissingRequiredArgument, "DEST is missing: where to write to")),
        }
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

    fn producer(self) -> Result<Producer, Complaint> {
        let placeholder = self.placeholder;
        let mut command = self.command.into_iter();
        let program = command.next().map(|name| Program {
            name,
            arguments: command.collect(),
            placeholder: placeholder.clone(),
        });
        let is_there = |argument: &OsString| OsStrExt::contains(&**argument, &placeholder);
        let has_path =
            |program: &Program| !placeholder.is_empty() && program.arguments.iter().any(is_there);
        match program {
            Some(program) if has_path(&program) => match self.dir {
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
