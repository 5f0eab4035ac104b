//! What was asked for: where to, how, and by which command.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap_lex::OsStrExt;
use fs_err as fs;
use write_atomically::{Durability, Reader, WriteOptions, Writer};

use super::failure::Failure;
use super::platform::Signals;
use super::progress::{Progress, Show};

/// One destination to be written.
pub struct Job {
    pub destination: PathBuf,
    pub options: WriteOptions,
    pub when: When,
    pub producer: Producer,
    pub quiet: bool,
    pub progress: Show,
}

/// Under which condition the destination is written, and what becomes of its old content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    Missing,
    MissingElseSkip,
    Changed,
    /// The old content stays, and the new one is added at its end.
    Append,
}

/// Where the content comes from.
pub enum Producer {
    StandardInput,
    /// A command's standard output.
    Output(Program),
    /// A command that is given the path of a file to write.
    File(Program),
    /// A command that is given the path of a directory to fill.
    Directory(Program),
}

/// A command line.
pub struct Program {
    pub name: OsString,
    pub arguments: Vec<OsString>,
    /// What stands for a path in the arguments.
    pub placeholder: String,
}

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.name);
        command.args(&self.arguments);
        command
    }

    fn command_for(&self, path: &Path) -> Command {
        let mut command = Command::new(&self.name);
        let arguments = self.arguments.iter();
        command.args(arguments.map(|argument| replace(argument, &self.placeholder, path)));
        command
    }
}

impl Job {
    pub fn run(&self, signals: &Signals, progress: &Progress) -> Result<(), Failure> {
        let run = Run { job: self, signals, progress };
        match &self.producer {
            Producer::Directory(program) => run.fill_directory(program),
            Producer::File(program) => run.fill_path(program),
            Producer::Output(program) => run.write(|w| run.output_to(program, w.file()?)),
            Producer::StandardInput => run.write(|w| run.copy_standard_input(w.file()?)),
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
    fn options(&self) -> WriteOptions<Failure> {
        self.job.options.error()
    }

    fn fill_directory(&self, program: &Program) -> Result<(), Failure> {
        let (options, destination) = (self.options(), &self.job.destination);
        match self.job.when {
            When::MissingElseSkip => options
                .write_dir_if_missing(destination, |path| self.at_path(program, path))
                .map(drop),
            _ => options.write_dir(destination, |path| self.at_path(program, path)),
        }
    }

    fn fill_path(&self, program: &Program) -> Result<(), Failure> {
        let (options, destination) = (self.options(), &self.job.destination);
        let produce = |path: &Path| self.at_path(program, path);
        match self.job.when {
            When::Always => options.write_path(destination, produce),
            When::MissingElseSkip => options.write_path_if_missing(destination, produce).map(drop),
            // As open(2) with O_EXCL has it, a link exists, wherever it leads.
            When::Missing => {
                let options = options.follow_symlinks(false);
                options.write_path_if_missing(destination, produce)?.ok_or(Failure::Exists)
            }
            When::Changed | When::Append => self.write(|w| self.by_way_of_path(program, w)),
        }
    }

    /// Writes the destination's content, under the condition that was asked for.
    fn write(&self, produce: impl Fn(&mut Writer) -> Result<(), Failure>) -> Result<(), Failure> {
        let (options, destination) = (self.options(), &self.job.destination);
        let fill = |w: &mut Writer| self.fill(&produce, w);
        match self.job.when {
            When::Append if has_old_content(destination)? => {
                options.update(destination, |old, w| self.append(old, &produce, w))
            }
            When::Always | When::Append => options.write(destination, fill),
            When::Missing => options.create(destination, fill),
            When::MissingElseSkip => options.write_if_missing(destination, fill).map(drop),
            When::Changed => options.write_if_changed(destination, fill).map(drop),
        }
    }

    /// The old content first. Should others replace it while it is copied, without asking for its
    /// lock, publishing finds out.
    fn append(
        &self,
        old: Option<&mut Reader>,
        produce: &impl Fn(&mut Writer) -> Result<(), Failure>,
        w: &mut Writer,
    ) -> Result<(), Failure> {
        self.signals.hold_back();
        if old.is_some() {
            let old = fs::File::open(&self.job.destination)?;
            w.copy_from(&mut old.into_file())?;
        }
        self.fill(produce, w)
    }

    /// Brings the content into the staged file.
    fn fill(
        &self,
        produce: &impl Fn(&mut Writer) -> Result<(), Failure>,
        w: &mut Writer,
    ) -> Result<(), Failure> {
        self.signals.hold_back();
        produce(w)?;
        // Content that turns out to be the same is not published.
        let is_relaxed = self.job.options.get_durability() == Durability::Relaxed;
        if self.job.when != When::Changed && !is_relaxed {
            self.sync_while_it_can_be_interrupted(w.file()?)?;
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
    fn output_to(&self, program: &Program, staged: &File) -> Result<(), Failure> {
        self.progress.watch_file(staged);
        self.succeed(program, program.command().stdout(staged.try_clone()?))
    }

    /// The command writes to the path that it is given.
    fn at_path(&self, program: &Program, path: &Path) -> Result<(), Failure> {
        self.signals.hold_back();
        self.progress.watch_path(path);
        self.succeed(program, &mut program.command_for(path))?;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Failure::NothingWritten { program: program.name.clone().into() })
            }
            _ => Ok(()),
        }
    }

    /// To compare it or to append it: the command writes to a staging path, which is never published,
    /// but copied. A new file gets the permissions that the command gave it.
    fn by_way_of_path(&self, program: &Program, w: &mut Writer) -> Result<(), Failure> {
        let keeps_failed = self.job.options.get_keep_failed().is_some();
        let options = WriteOptions::new()
            .durability(Durability::Relaxed)
            .create_parents(self.job.options.get_create_parents())
            .follow_symlinks(self.job.options.get_follow_symlinks())
            .in_place_fallback(self.job.options.get_in_place_fallback());
        let aside = options.error().write_path(&self.job.destination, |path| {
            let outcome = self.at_path(program, path);
            if outcome.is_ok() || (keeps_failed && path.exists()) {
                let mut written = fs::File::open(path)?.into_file();
                w.copy_from(&mut written)?;
                w.file()?.set_permissions(written.metadata()?.permissions())?;
            }
            Err::<Infallible, _>(Aside(outcome))
        });
        match aside {
            Err(Aside(outcome)) => outcome,
            Ok(never) => match never {},
        }
    }

    fn succeed(&self, program: &Program, command: &mut Command) -> Result<(), Failure> {
        self.go_on()?;
        let status = self.signals.run(command);
        self.go_on()?;
        let program = PathBuf::from(&program.name);
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

    /// Large files take long to sync, and after this closure has returned `Ok` a signal comes too late.
    /// The sync that follows has nothing left to do.
    fn sync_while_it_can_be_interrupted(&self, staged: &File) -> Result<(), Failure> {
        const LARGE: u64 = 8 << 20;
        if staged.metadata()?.len() >= LARGE {
            self.progress.say("syncing");
            staged.sync_data().map_err(Failure::Sync)?;
        }
        Ok(())
    }
}

/// Whether there is, or may be, an old content to be kept: writing adds to a device, or to an open file
/// behind `/dev/stdout`, in any case.
fn has_old_content(destination: &Path) -> io::Result<bool> {
    match fs::metadata(destination) {
        Ok(metadata) => Ok(metadata.is_file() && !leads_to_open_file(destination)),
        // Another process may be about to create it.
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

/// The way out of a closure whose file is not to be published: how the command ended.
struct Aside(Result<(), Failure>);

impl From<io::Error> for Aside {
    fn from(error: io::Error) -> Self {
        Aside(Err(Failure::Io(error)))
    }
}
