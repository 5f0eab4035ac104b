//! What was asked for: where to, how, and by which command.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use clap_lex::OsStrExt;
use fs_err as fs;
use write_atomically::{Durability, Reader, WriteOptions, Writer};

use super::failure::Failure;
use super::platform::{self, Signals};
use super::progress::{Progress, Show};
use super::waiting::Waiting;

/// One destination to be written.
pub struct Job {
    pub destination: PathBuf,
    /// Written by the same command.
    pub others: Vec<PathBuf>,
    pub options: WriteOptions,
    pub when: When,
    pub requirements: Requirements,
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

/// What new content must be like to be published.
pub struct Requirements {
    pub refuse_empty: bool,
    /// For the shell, with `{}` for the path of the content.
    pub check: Option<String>,
}

/// Where the content comes from.
pub enum Producer {
    StandardInput,
    /// A command's standard output.
    Output(Program),
    /// A command that is given the path of a file to write.
    File(Program),
    /// A command that is given the paths of several files to write.
    Files(Program),
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

    /// Each placeholder is replaced by its path.
    pub fn command_for(&self, places: &[(String, &Path)]) -> Command {
        let mut command = Command::new(&self.name);
        command.args(self.arguments.iter().map(|argument| replace(argument, places)));
        command
    }

    /// Whether a placeholder is among the arguments.
    pub fn has(&self, placeholder: &str) -> bool {
        let is_in = |argument: &OsString| OsStrExt::contains(&**argument, placeholder);
        !placeholder.is_empty() && self.arguments.iter().any(is_in)
    }
}

impl Job {
    pub fn destinations(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.destination).chain(&self.others).map(PathBuf::as_path)
    }

    /// The destinations, as the beginning of a sentence: `a` and `b` are
    pub fn subject(&self) -> String {
        let names: Vec<_> =
            self.destinations().map(|path| format!("`{}`", path.display())).collect();
        match &names[..] {
            [one] => format!("{one} is"),
            [first @ .., last] => format!("{} and {last} are", first.join(", ")),
            [] => String::new(),
        }
    }

    pub fn run(&self, signals: &Signals, progress: &Progress) -> Result<(), Failure> {
        let waits = matches!(self.when, When::Append | When::MissingElseSkip);
        let shows = progress.shows_on_terminal();
        let waiting = waits.then(|| {
            progress.pause();
            Waiting::begin(&self.destination, shows)
        });
        let run = Run { job: self, signals, progress, waiting: Mutex::new(waiting) };
        let is_checked = self.requirements.check.is_some();
        match &self.producer {
            Producer::Directory(program) => run.fill_directory(program),
            Producer::Files(program) => run.fill_several(program),
            Producer::File(program) => run.fill_path(|path| run.at_path(program, path)),
            // A check needs a path.
            Producer::Output(program) if is_checked => run.fill_path(|path| {
                run.begin();
                run.output_to(program, &run.create(path)?)
            }),
            Producer::StandardInput if is_checked => run.fill_path(|path| {
                run.begin();
                run.copy_standard_input(&run.create(path)?)
            }),
            Producer::Output(program) => run.write(|w| run.output_to(program, w.file()?)),
            Producer::StandardInput => run.write(|w| run.copy_standard_input(w.file()?)),
        }
    }
}

/// A job and what goes with it while it runs.
pub struct Run<'a> {
    pub job: &'a Job,
    signals: &'a Signals,
    progress: &'a Progress,
    /// For the destination's lock.
    waiting: Mutex<Option<Waiting>>,
}

impl Run<'_> {
    pub fn options(&self) -> WriteOptions<Failure> {
        self.job.options.error()
    }

    fn fill_directory(&self, program: &Program) -> Result<(), Failure> {
        let (options, destination) = (self.options(), &self.job.destination);
        let produce = |path: &Path| {
            self.at_path(program, path)?;
            self.accept(path)
        };
        match self.job.when {
            When::MissingElseSkip => options.write_dir_if_missing(destination, produce).map(drop),
            _ => options.write_dir(destination, produce),
        }
    }

    /// The new content is at a path before it is published.
    fn fill_path(&self, at_path: impl Fn(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
        let (options, destination) = (self.options(), &self.job.destination);
        let produce = |path: &Path| {
            at_path(path)?;
            self.accept(path)
        };
        match self.job.when {
            When::Always => options.write_path(destination, produce),
            When::MissingElseSkip => options.write_path_if_missing(destination, produce).map(drop),
            // As open(2) with O_EXCL has it, a link exists, wherever it leads.
            When::Missing => {
                let options = options.follow_symlinks(false);
                options.write_path_if_missing(destination, produce)?.ok_or(Failure::Exists)
            }
            When::Changed => self.write(|w| self.by_way_of_path(&produce, w)),
            // What is to be checked is the old content and the new.
            When::Append => self.write(|w| self.by_way_of_path(&at_path, w)),
        }
    }

    /// Creates a file as a shell's redirection does; of new files at paths, the producer decides the mode.
    fn create(&self, path: &Path) -> io::Result<File> {
        platform::create_new(path, self.job.options.get_new_file_mode().unwrap_or(0o666))
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
        self.begin();
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
        self.begin();
        let before = w.file()?.metadata()?.len();
        produce(w)?;
        self.accept_new_part(before, w)?;
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
        self.succeed(program.command().stdout(staged.try_clone()?))
    }

    /// The command writes to the path that it is given.
    fn at_path(&self, program: &Program, path: &Path) -> Result<(), Failure> {
        self.begin();
        self.progress.watch_path(path);
        let places = [(program.placeholder.clone(), path)];
        match self.succeed(&mut program.command_for(&places)) {
            Err(Failure::Command { program: name, status }) if is_missing(path) => {
                let placeholder = program.placeholder.clone();
                Err(Failure::CommandAtPath { program: name, status, placeholder })
            }
            done => done.and_then(|()| self.check_written(program, path)),
        }
    }

    pub fn check_written(&self, program: &Program, path: &Path) -> Result<(), Failure> {
        match is_missing(path) {
            true => Err(Failure::NothingWritten {
                program: program.name.clone().into(),
                placeholder: program.placeholder.clone(),
            }),
            false => Ok(()),
        }
    }

    /// To compare it or to append it: it is written to a staging path, which is never published, but copied.
    /// A new file gets the permissions that the command gave it.
    fn by_way_of_path(
        &self,
        produce: &dyn Fn(&Path) -> Result<(), Failure>,
        w: &mut Writer,
    ) -> Result<(), Failure> {
        let keeps_failed = self.job.options.get_keep_failed().is_some();
        self.aside(&self.job.destination, |path| {
            let outcome = produce(path);
            if outcome.is_ok() || (keeps_failed && path.exists()) {
                copy_with_mode(&mut fs::File::open(path)?.into_file(), w)?;
            }
            outcome
        })
    }

    /// Lends a staging path next to a destination. What is there afterwards is removed.
    pub fn aside(
        &self,
        destination: &Path,
        use_path: impl FnOnce(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let options = WriteOptions::new()
            .durability(Durability::Relaxed)
            .create_parents(self.job.options.get_create_parents())
            .follow_symlinks(self.job.options.get_follow_symlinks())
            .in_place_fallback(self.job.options.get_in_place_fallback());
        let never_published = options
            .error()
            .write_path(destination, |path| Err::<Infallible, _>(Aside(use_path(path))));
        match never_published {
            Err(Aside(outcome)) => outcome,
            Ok(never) => match never {},
        }
    }

    /// The destination's lock, if it needs one, is there: what follows has to be cleaned up.
    pub fn begin(&self) {
        self.signals.hold_back();
        let waiting = self.waiting.lock().map(|mut waiting| waiting.take());
        if let Ok(Some(_)) = waiting {
            self.progress.go_on();
        }
    }

    pub fn succeed(&self, command: &mut Command) -> Result<(), Failure> {
        self.go_on()?;
        let status = self.signals.run(command);
        self.go_on()?;
        let program = PathBuf::from(command.get_program());
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::Command { program, status }),
            Err(error) => Err(Failure::Start { program, error }),
        }
    }

    pub fn go_on(&self) -> Result<(), Failure> {
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

/// Puts the paths into an argument, each in the place of its placeholder.
fn replace(argument: &OsStr, places: &[(String, &Path)]) -> OsString {
    let Some(((placeholder, path), others)) = places.split_first() else {
        return argument.to_owned();
    };
    let mut replaced = OsString::new();
    for (nth, piece) in OsStrExt::split(argument, placeholder).enumerate() {
        if nth > 0 {
            replaced.push(path);
        }
        replaced.push(replace(piece, others));
    }
    replaced
}

fn is_missing(path: &Path) -> bool {
    matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Copies what a producer has left, for a new file with the permissions that it has there.
pub fn copy_with_mode(written: &mut File, w: &mut Writer) -> io::Result<()> {
    w.copy_from(written)?;
    w.file()?.set_permissions(written.metadata()?.permissions())
}

/// The way out of a closure whose file is not to be published: how the command ended.
struct Aside(Result<(), Failure>);

impl From<io::Error> for Aside {
    fn from(error: io::Error) -> Self {
        Aside(Err(Failure::Io(error)))
    }
}
