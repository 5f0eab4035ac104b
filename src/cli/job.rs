//! What was asked for: where to, how, and by which command.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap_lex::OsStrExt;
use write_atomically::{Durability, Reader, WriteOptions, Writer};

use super::failure::Failure;
use super::platform::Signals;
use super::progress::{Progress, Show};

/// One destination to be written.
pub struct Job {
    pub destination: PathBuf,
    pub options: WriteOptions,
    /// The same, without keeping anything of a failure.
    pub plain: WriteOptions,
    pub keeps_failed: bool,
    pub durability: Durability,
    pub when: When,
    pub append: bool,
    pub producer: Producer,
    pub quiet: bool,
    pub progress: Show,
}

/// What the destination has to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    Absent,
    AbsentElseSkip,
    Different,
}

/// Where the content comes from.
pub enum Producer {
    StandardInput,
    /// A command's standard output.
    Output(Vec<OsString>),
    /// A command that is given the path of a file to write, in place of `placeholder`.
    File {
        command: Vec<OsString>,
        placeholder: String,
    },
    /// A command that is given the path of a directory to fill.
    Directory {
        command: Vec<OsString>,
        placeholder: String,
    },
}

impl Job {
    pub fn run(&self, signals: &Signals, progress: &Progress) -> Result<(), Failure> {
        let (options, destination) = (&self.options, &self.destination);
        let run = Run { job: self, signals, progress };
        match (self.when, &self.producer) {
            (When::AbsentElseSkip, Producer::Directory { .. }) if destination.try_exists()? => {
                Ok(())
            }
            (_, Producer::Directory { command, placeholder }) => {
                options.write_dir(destination, |path| run.at_path(command, placeholder, path))
            }
            (When::Always, _) if self.append && has_old_content(destination)? => {
                options.update(destination, |old, w| run.append(old, w))
            }
            (When::Always, Producer::File { command, placeholder }) => {
                options.write_path(destination, |path| run.at_path(command, placeholder, path))
            }
            (When::Always, _) => options.write(destination, |w| run.produce(w)),
            (When::Absent, _) => options.create(destination, |w| run.produce(w)),
            (When::AbsentElseSkip, _) => {
                options.write_if_missing(destination, |w| run.produce(w)).map(drop)
            }
            (When::Different, _) => {
                options.write_if_changed(destination, |w| run.produce(w)).map(drop)
            }
        }
    }
}

/// A job and what goes with it while it runs.
struct Run<'a> {
    job: &'a Job,
    signals: &'a Signals,
    progress: &'a Progress,
}

impl Run<'_> {
    /// The old content first. Should others replace it while it is copied, without asking for its
    /// lock, publishing finds out.
    fn append(&self, old: Option<&mut Reader>, w: &mut Writer) -> Result<(), Failure> {
        self.signals.hold_back();
        if old.is_some() {
            let old = fs_err::File::open(&self.job.destination)?;
            w.append_file(&mut old.into_file())?;
        }
        self.produce(w)
    }

    /// Brings the content into the staged file.
    fn produce(&self, w: &mut Writer) -> Result<(), Failure> {
        self.signals.hold_back();
        match &self.job.producer {
            Producer::StandardInput => self.copy_standard_input(w.file()?)?,
            Producer::Output(command) => self.output_to(command, w.file()?)?,
            Producer::File { command, placeholder } => {
                self.by_way_of_path(command, placeholder, w)?
            }
            Producer::Directory { .. } => unreachable!("a directory is no file's content"),
        }
        // What may turn out to be the same is most likely not to be published.
        if self.job.when != When::Different && self.job.durability != Durability::Relaxed {
            self.sync_while_there_is_a_way_back(w.file()?)?;
        }
        self.go_on()
    }

    /// The system copies, from pipe to file or from file to file, where it can.
    fn copy_standard_input(&self, staged: &File) -> Result<(), Failure> {
        self.progress.watch_file(staged);
        let mut staged = staged.try_clone()?;
        let copy = move || io::copy(&mut io::stdin().lock(), &mut staged);
        self.signals.unless_caught(copy).map_err(Failure::Signal)?.map_err(Failure::Copy)?;
        Ok(())
    }

    /// The command writes straight into the staged file.
    fn output_to(&self, command: &[OsString], staged: &File) -> Result<(), Failure> {
        self.progress.watch_file(staged);
        let (program, arguments) = command.split_first().expect("checked with the arguments");
        self.succeed(program, Command::new(program).args(arguments).stdout(staged.try_clone()?))
    }

    /// The command writes what it is told to.
    fn at_path(&self, command: &[OsString], placeholder: &str, path: &Path) -> Result<(), Failure> {
        self.signals.hold_back();
        let (program, arguments) = command.split_first().expect("checked with the arguments");
        let arguments = arguments.iter().map(|argument| replace(argument, placeholder, path));
        self.progress.watch_path(path);
        self.succeed(program, Command::new(program).args(arguments))?;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Failure::NothingWritten { program: program.into() })
            }
            _ => Ok(()),
        }
    }

    /// For what is more than replacing a file: the command writes to a staging path, which is never
    /// published, but copied. A new file gets the permissions that the command gave it.
    fn by_way_of_path(
        &self,
        command: &[OsString],
        placeholder: &str,
        w: &mut Writer,
    ) -> Result<(), Failure> {
        let plain = self.job.plain.clone().durability(Durability::Relaxed);
        let aside = plain.write_path(&self.job.destination, |path| {
            let outcome = self.at_path(command, placeholder, path);
            if outcome.is_ok() || (self.job.keeps_failed && path.exists()) {
                let mut written = fs_err::File::open(path)?.into_file();
                w.append_file(&mut written)?;
                w.file()?.set_permissions(written.metadata()?.permissions())?;
            }
            Err::<Infallible, _>(Aside(outcome))
        });
        match aside {
            Err(Aside(outcome)) => outcome,
            Ok(never) => match never {},
        }
    }

    fn succeed(&self, program: &OsStr, command: &mut Command) -> Result<(), Failure> {
        self.go_on()?;
        let status = self.signals.run(command);
        self.go_on()?;
        let program = PathBuf::from(program);
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::Command { program, status }),
            Err(error) => Err(Failure::Start { program, error }),
        }
    }

    fn go_on(&self) -> Result<(), Failure> {
        match self.signals.caught() {
            Some(signal) => Err(Failure::Signal(signal)),
            None => Ok(()),
        }
    }

    /// Large files take long to sync, and once this closure has returned there is no way to say that
    /// it has been interrupted. The sync that follows has nothing left to do.
    fn sync_while_there_is_a_way_back(&self, staged: &File) -> Result<(), Failure> {
        const LARGE: u64 = 8 << 20;
        if staged.metadata()?.len() >= LARGE {
            self.progress.say("syncing");
            staged.sync_data().map_err(Failure::Sync)?;
        }
        Ok(())
    }
}

/// Whether there is a content that the new one replaces: what is a device, or an open file behind
/// `/dev/stdout`, is added to in any case.
fn has_old_content(destination: &Path) -> io::Result<bool> {
    match fs::metadata(destination) {
        Ok(metadata) => Ok(metadata.is_file() && !leads_to_open_file(destination)),
        // Others may be about to create it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// proc(5), `/proc/pid/fd`.
fn leads_to_open_file(path: &Path) -> bool {
    let mut path = path.to_owned();
    for _ in 0..40 {
        let Ok(link) = fs::read_link(&path) else { return false };
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        if parent.canonicalize().is_ok_and(|parent| parent.starts_with("/proc")) {
            return true;
        }
        path = parent.join(link);
    }
    false
}

fn replace(argument: &OsStr, placeholder: &str, path: &Path) -> OsString {
    let mut replaced = OsString::new();
    for (nth, piece) in OsStrExt::split(argument, placeholder).enumerate() {
        if nth > 0 {
            replaced.push(path);
        }
        replaced.push(piece);
    }
    replaced
}

/// The way out of a closure whose file is not to be published: how the command went.
struct Aside(Result<(), Failure>);

impl From<io::Error> for Aside {
    fn from(error: io::Error) -> Self {
        Aside(Err(Failure::Io(error)))
    }
}
