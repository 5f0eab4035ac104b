//! Hostile neighbours: another user in a directory that both may write, who plants things at the
//! staging names, swaps directories and reads what can be read.

use std::fs::Permissions;
use std::io::{Read, Write};

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fs_err::os::unix::fs::symlink;
use fs_err::{self as fs, File};
use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use write_atomically::{Error, Step, WriteOptions};

use crate::content::content;
use crate::living::{self, Living, Staging};
use crate::operations::{self, Operation, Shape};
use crate::{report, subject, swaps};

/// What the neighbour puts at the staging names, again and again.
const PLANTS: [&str; 7] = [
    "a link outside",
    "a link to the destination",
    "a FIFO",
    "a directory",
    "a locked file",
    "a file",
    "a hard link",
];

/// This program, where anyone can execute it. Copied before there are threads: who forks while it is
/// open for writing makes it "busy".
fn program() -> PathBuf {
    std::env::temp_dir().join("neighbour")
}

/// Who may remove whose entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shared {
    Sticky,
    NotSticky,
}

pub fn trials() -> Vec<Trial> {
    if crate::budget().is_some() {
        fs::copy(std::env::current_exe().unwrap(), program()).unwrap();
    }
    let mut trials = Vec::new();
    // Where anyone may replace anything, a link may be planted at the destination itself, and those are
    // followed unless one says otherwise.
    let sticky = ["replace", "create", "replace, staged by name", "create, staged by name"];
    let not_sticky = [
        "replace, no links",
        "create",
        "replace, no links, staged by name",
        "create, staged by name",
    ];
    for (shared, operations) in [(Shared::Sticky, sticky), (Shared::NotSticky, not_sticky)] {
        for operation in operations {
            for plant in PLANTS {
                let name = format!("neighbours::{plant}::{shared:?}::{operation}");
                let operation = operations::find(operation).unwrap();
                trials.push(crate::trial(name, move |_| race(shared, operation, plant)));
            }
        }
    }
    for staging in [Staging::Unnamed, Staging::Named] {
        let name = format!("neighbours::a parent becomes a link, {staging:?} staging");
        trials.push(crate::trial(name, move |_| a_parent_becomes_a_link(staging)));
    }
    trials.push(crate::trial("neighbours::a planted destination".into(), |_| {
        a_planted_destination()
    }));
    trials
}

const TABLE: &str =
    "Neighbours: what is planted, directory, operation, calls, succeeded, failed, slowest in ms";
const TIME: Duration = Duration::from_millis(1200);
/// nobody(7)
pub const THEIR_ID: &str = "65534";

fn race(shared: Shared, operation: &'static Operation, plant: &str) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755))?;
    let (directory, outside) = (scratch.path().join("shared"), scratch.path().join("outside"));
    fs::create_dir(&outside)?;
    let treasure = outside.join("treasure");
    fs::write(&treasure, "untouched")?;
    fs::create_dir(&directory)?;
    operations::start(operation, &directory)?;
    let mode = if shared == Shared::Sticky { 0o1777 } else { 0o777 };
    fs::set_permissions(&directory, Permissions::from_mode(mode))?;

    let shape = if operation.shape == Shape::NewFiles { "new" } else { "same" };
    let neighbour = Neighbour::start(&directory, &treasure, plant, shape)?;
    let mut writer = Writer::start(operation, &directory)?;
    let (mut succeeded, mut failed, mut slowest) = (0, 0, Duration::ZERO);
    let began = Instant::now();
    while began.elapsed() < TIME {
        let version = succeeded + failed + 1;
        // A FIFO that was moved to the destination is written to, and waits for a reader.
        let destination = directory.join(operation.shape.files(version).remove(0));
        if destination.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
            fs::remove_file(&destination).or_else(|_| fs::remove_dir(&destination))?;
        }
        let call = Instant::now();
        let error = writer.write(version)?;
        slowest = slowest.max(call.elapsed());
        let file = operation.shape.files(version).remove(0);
        match error {
            None => {
                succeeded += 1;
                if shared == Shared::Sticky {
                    let metadata = fs::symlink_metadata(directory.join(&file))?;
                    ensure!(metadata.is_file(), "{file} has become something else");
                    let there = fs::read(directory.join(&file))?;
                    ensure!(there == content(version, &file), "{file} is not what was written");
                }
            }
            Some(error) if shared == Shared::Sticky => bail!("stopped by the neighbour: {error}"),
            // Whoever may remove any entry may remove this one at the wrong moment.
            Some(_) => failed += 1,
        }
    }
    let seen = neighbour.stop()?;
    ensure!(slowest < Duration::from_secs(2), "a call took {slowest:?}");
    ensure!(fs::read(&treasure)? == b"untouched", "something was written outside");
    let outside: Vec<_> = fs::read_dir(&outside)?.collect::<Result<_, _>>()?;
    ensure!(outside.len() == 1, "something is outside: {outside:?}");
    ensure!(seen == "saw nothing", "the neighbour {seen}");
    ensure!(succeeded > 0, "no call succeeded");
    report::row(
        TABLE,
        vec![
            plant.into(),
            format!("{shared:?}"),
            operation.name.into(),
            (succeeded + failed).to_string(),
            succeeded.to_string(),
            failed.to_string(),
            slowest.as_millis().to_string(),
        ],
    );
    Ok(())
}

/// A subject that writes one version at a time, when told to. Its content is secret: new files are
/// made with umask 077, the old one is not for others.
struct Writer {
    operation: &'static Operation,
    directory: PathBuf,
    reports: tempfile::TempDir,
}

impl Writer {
    fn start(operation: &'static Operation, directory: &Path) -> anyhow::Result<Writer> {
        Ok(Writer { operation, directory: directory.to_owned(), reports: tempfile::tempdir()? })
    }

    fn write(&mut self, version: u32) -> anyhow::Result<Option<String>> {
        let reports = self.reports.path().join("reports");
        let _ = fs::remove_file(&reports);
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec timeout --signal=KILL 10 \"$@\"", "sh"]);
        command.arg(std::env::current_exe()?);
        command.args(subject::arguments(
            self.operation,
            &self.directory,
            &reports,
            (version, version),
        ));
        command.env(subject::ROLE.0, subject::ROLE.1);
        let status = command.status()?;
        let said = fs::read_to_string(&reports)?;
        ensure!(status.success(), "the writer ended with {status} after {said:?}");
        let last = said.lines().last().unwrap_or_default();
        Ok(last.starts_with("failed").then(|| last.to_string()))
    }
}

/// The other user's process.
pub struct Neighbour(Child);

impl Neighbour {
    pub fn start(
        directory: &Path,
        outside: &Path,
        plant: &str,
        shape: &str,
    ) -> anyhow::Result<Neighbour> {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", THEIR_ID, "--regid", THEIR_ID, "--clear-groups", "--"]);
        command.arg(program()).args([directory, outside]).args([plant, shape]);
        command.env(subject::ROLE.0, ROLE).stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Neighbour(command.spawn()?))
    }

    /// What it has seen.
    pub fn stop(mut self) -> anyhow::Result<String> {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output()?;
        ensure!(output.status.success(), "the neighbour ended with {}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
    }
}

pub const ROLE: &str = "neighbour";

/// The neighbour itself: plants, reads what is in the directory and not its own, and starts anew,
/// until its standard input ends.
pub fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let mut next = || arguments.next().context("an argument is missing");
    let (directory, outside) = (PathBuf::from(next()?), PathBuf::from(next()?));
    let (plant, shape) = (next()?.into_string().unwrap(), next()?);
    let finished = std::sync::atomic::AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            finished.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut seen = None;
        let mut newest = 1;
        while !finished.load(std::sync::atomic::Ordering::Relaxed) {
            if plant == swaps::SWAPS {
                let found = swap(&directory);
                seen = seen.or(found);
                continue;
            }
            if shape == "new" {
                while directory.join(format!("file-{newest}")).symlink_metadata().is_ok() {
                    newest += 1;
                }
            }
            let files = if shape == "new" {
                [newest, newest + 1].map(|n| format!("file-{n}")).to_vec()
            } else {
                vec!["file".into()]
            };
            let _held: Vec<_> = files
                .iter()
                .flat_map(|file| (0..4).map(move |nth| staging_name(file, nth)))
                .filter_map(|name| put(&plant, &directory, &name, &outside))
                .collect();
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                seen = seen.or_else(|| pry(&entry.path()));
            }
            unplant(&directory);
        }
        seen
    });
    println!("{}", seen.unwrap_or_else(|| "saw nothing".into()));
    Ok(())
}

/// What `src/staging.rs` calls them.
fn staging_name(file: &str, nth: u32) -> String {
    match nth {
        0 => format!(".{file}.write-atomically"),
        _ => format!(".{file}.write-atomically-{nth}"),
    }
}

fn put(plant: &str, directory: &Path, name: &str, outside: &Path) -> Option<File> {
    let path = directory.join(name);
    let _ = match plant {
        "a link outside" => symlink(outside, &path),
        "a link to the destination" => symlink("file", &path),
        "a FIFO" => rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from(0o666), 0)
            .map_err(Into::into),
        "a directory" => fs::create_dir(&path),
        "a hard link" => {
            let mine = directory.join(".mine");
            let _ = fs::write(&mine, "planted");
            fs::hard_link(&mine, &path)
        }
        _ => fs::write(&path, "planted")
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o666))),
    };
    if plant != "a locked file" {
        return None;
    }
    let file = File::open(&path).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// Has the parent's path lead elsewhere, and looks into what it leads to.
fn swap(directory: &Path) -> Option<String> {
    let [parent, other] = swaps::NAMES.map(|name| directory.join(name));
    rustix::fs::renameat_with(CWD, &parent, CWD, &other, RenameFlags::EXCHANGE).ok();
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.filter_map(|entry| pry(&entry.path())).next()
}

/// Reads what is none of its business, if it can.
fn pry(path: &Path) -> Option<String> {
    // Whoever may remove entries can put a file of their own at the destination, too, and what is
    // written to that is theirs to read.
    // It may be a FIFO of this neighbour's own by the time that it is opened: never wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?);
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.uid() == rustix::process::getuid().as_raw() {
        return None;
    }
    let mut bytes = Vec::new();
    (&file).read_to_end(&mut bytes).ok()?;
    let theirs = !bytes.is_empty() && bytes != b"planted";
    theirs.then(|| format!("read {} bytes of {}", bytes.len(), path.display()))
}

/// Makes room for the next round, in which the names are contested again.
fn unplant(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains("write-atomically") {
            let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir(entry.path()));
        }
    }
}

/// The directory is pinned: what its path leads to afterwards does not matter.
fn a_parent_becomes_a_link(staging: Staging) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let (parent, outside) = (scratch.path().join("parent"), scratch.path().join("outside"));
    let directory = parent.join("directory");
    fs::create_dir_all(&directory)?;
    fs::create_dir(&outside)?;
    fs::write(outside.join("file"), "untouched")?;
    fs::write(directory.join("file"), content(0, "file"))?;
    let writer = Living::start(&directory, "file", staging)?;
    fs::rename(&directory, parent.join("moved"))?;
    symlink(&outside, &directory)?;
    if let Some(error) = writer.go_on()? {
        bail!("it said {error}");
    }
    ensure!(fs::read(outside.join("file"))? == b"untouched", "it was written outside");
    ensure!(fs::read_dir(&outside)?.count() == 1, "something is outside");
    ensure!(
        fs::read(parent.join("moved/file"))? == content(living::VERSION, "file"),
        "it is not there"
    );
    Ok(())
}

/// proc(5), protected_symlinks: in a sticky directory that everyone may write, nobody follows another
/// user's link. What follows links by itself must not, either, where the system would not.
fn a_planted_destination() -> anyhow::Result<()> {
    let protected = fs::read_to_string("/proc/sys/fs/protected_symlinks")?;
    fs::write("/proc/sys/fs/protected_symlinks", "1").context("protected_symlinks")?;
    let result = planted_destination();
    fs::write("/proc/sys/fs/protected_symlinks", protected)?;
    result
}

fn planted_destination() -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let (directory, treasure) = (scratch.path().join("shared"), scratch.path().join("treasure"));
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, Permissions::from_mode(0o1777))?;
    fs::write(&treasure, "untouched")?;
    let planted = directory.join("file");
    symlink(&treasure, &planted)?;
    rustix::fs::chownat(
        CWD,
        &planted,
        Some(rustix::fs::Uid::from_raw(65534)),
        None,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )?;
    ensure!(
        fs::write(&planted, "through").is_err(),
        "the system itself follows it: this proves nothing"
    );
    let error = WriteOptions::new().write(&planted, |w| w.write_all(b"through"));
    ensure!(fs::read(&treasure)? == b"untouched", "it was written through another user's link");
    let error = error.err().context("it returned Ok")?;
    ensure!(Error::find(&error).map(Error::step) == Some(Step::Resolve), "{error}");
    Ok(())
}
