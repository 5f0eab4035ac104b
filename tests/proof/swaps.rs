//! Another user who keeps swapping the destination's parent directory while it is written to: what
//! was pinned when the call started is written to, and nothing else.

use std::fs::Permissions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fs_err::os::unix::fs::{lchown, symlink};
use fs_err::{self as fs, File};
use libtest_mimic::Trial;
use write_atomically::{
    Error, WriteOptions, update_atomically, write_atomically, write_batch, write_dir_atomically,
    write_if_changed, write_path_atomically,
};

use crate::content::content;
use crate::neighbours::{Neighbour, Shared, THEIR_ID};
use crate::operations::{Missing, Who};
use crate::{report, subject};

/// What the neighbour has in the parent's place, half of the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Swapped {
    /// proc(5), `protected_symlinks`: in a sticky directory it may be that nobody follows it.
    Link,
    Directory,
}

/// Who writes into the directory, and says when it is pinned.
struct Subject {
    name: &'static str,
    who: Who,
    without: &'static [Missing],
    file: fn(u32) -> String,
    /// The closure itself writes by path, and fails where that does not lead there any more.
    own_io: bool,
    write: fn(&Path, u32, Pinned) -> anyhow::Result<()>,
}

type Pinned<'a> = &'a mut dyn FnMut();

const OURS: Subject = Subject {
    name: "replace",
    who: Who::Crate,
    without: &[],
    file: |_| "file".into(),
    own_io: false,
    write: |directory, version, pinned| {
        write_atomically(directory.join("file"), |w| {
            pinned();
            Ok(w.write_all(&content(version, "file"))?)
        })
    },
};

static SUBJECTS: &[Subject] = &[
    OURS,
    Subject { name: "replace, staged by name", without: &[Missing::UnnamedFiles], ..OURS },
    Subject { name: "create", file: new, write: create, ..OURS },
    Subject {
        name: "create, staged by name",
        without: &[Missing::UnnamedFiles],
        file: new,
        write: create,
        ..OURS
    },
    Subject { name: "if missing", file: new, write: if_missing, ..OURS },
    Subject { name: "if changed", write: if_changed, ..OURS },
    Subject { name: "update", write: update, ..OURS },
    Subject { name: "batch", write: batch, ..OURS },
    Subject { name: "by path", own_io: true, write: by_path, ..OURS },
    Subject {
        name: "directory",
        file: |_| "tree/file".into(),
        own_io: true,
        write: directory,
        ..OURS
    },
    Subject { name: "std::fs::write", who: CAUGHT, write: in_place, ..OURS },
    Subject { name: "staged and renamed by path", who: CAUGHT, write: all_by_path, ..OURS },
];

const CAUGHT: Who = Who::Control { caught_on: &[] };

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for shared in [Shared::Sticky, Shared::NotSticky] {
        for swapped in [Swapped::Link, Swapped::Directory] {
            for subject in SUBJECTS {
                let name = format!("neighbours::swap parents::{shared:?}::{swapped:?}");
                let name = format!("{name}::{}", subject.name);
                trials.push(crate::trial(name, move |_| race(shared, swapped, subject)));
            }
        }
    }
    trials
}

const TABLE: &str = "Neighbours who swap the parent: directory, for a, subject, calls, wrote into the parent, into the other, failed";
/// A slow machine takes longer for so many calls, up to fifty times as long.
const TIME: Duration = Duration::from_millis(600);
const CALLS: usize = 20;

fn race(shared: Shared, swapped: Swapped, subject: &'static Subject) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755))?;
    let arena = Arena::build(scratch.path(), shared, swapped)?;
    // Neither may be followed where the system does not follow links: then there is no other.
    let both = (shared, swapped) != (Shared::Sticky, Swapped::Link);
    let neighbour = Neighbour::start(&arena.shared, &scratch.path().join("outside"), SWAPS, "")?;
    // In a thread of its own: what the kernel pretends not to have, it does not have for a thread.
    let ended = std::thread::scope(|scope| {
        let write = || write_and_look(arena, both, subject);
        scope.spawn(write).join().map_err(|_| anyhow::anyhow!("a panic"))?
    });
    let seen = neighbour.stop()?;
    match (subject.who, ended) {
        (Who::Crate, ended) => {
            let counts = ended?;
            ensure!(seen == "saw nothing", "the neighbour {seen}");
            let count = |outcome| counts.iter().filter(|&&other| other == outcome).count();
            let written = [Outcome::Wrote(0), Outcome::Wrote(1), Outcome::Failed].map(count);
            let mut cells = vec![format!("{shared:?}"), format!("{swapped:?}")];
            cells.extend([subject.name.to_string(), counts.len().to_string()]);
            cells.extend(written.map(|n| n.to_string()));
            report::row(TABLE, cells);
            Ok(())
        }
        // Where the link is not followed, what would follow it fails instead.
        (_, Ok(_)) if both => bail!("was not caught: this proves nothing"),
        _ => Ok(()),
    }
}

pub const SWAPS: &str = "swaps the parent";
/// The path's parent, and what is swapped for it.
pub const NAMES: [&str; 2] = ["parent", "other"];

/// A directory that the neighbour may rename things in, and two directories that the same path leads
/// to in turn.
struct Arena {
    shared: PathBuf,
    sides: [Side; 2],
}

struct Side {
    /// Whatever it is called at the moment.
    directory: File,
    expected: Vec<u8>,
}

impl Arena {
    fn build(scratch: &Path, shared: Shared, swapped: Swapped) -> anyhow::Result<Arena> {
        let (directory, outside) = (scratch.join("shared"), scratch.join("outside"));
        fs::create_dir(&directory)?;
        let [parent, other] = NAMES.map(|name| directory.join(name));
        let elsewhere = if swapped == Swapped::Link { &outside } else { &other };
        let sides = [Side::build(&parent)?, Side::build(elsewhere)?];
        if swapped == Swapped::Link {
            symlink(&outside, &other)?;
        }
        let mode = if shared == Shared::Sticky { 0o1777 } else { 0o777 };
        fs::set_permissions(&directory, Permissions::from_mode(mode))?;
        if shared == Shared::Sticky {
            // unlink(2), EPERM: only what is one's own can be renamed there.
            let them = Some(THEIR_ID.parse()?);
            lchown(parent, them, them)?;
            lchown(other, them, them)?;
        }
        Ok(Arena { shared: directory, sides })
    }
}

impl Side {
    fn build(path: &Path) -> anyhow::Result<Side> {
        fs::create_dir(path)?;
        fs::create_dir(path.join("tree"))?;
        for file in ["file", "tree/file"] {
            fs::write(path.join(file), "old")?;
            fs::set_permissions(path.join(file), Permissions::from_mode(0o600))?;
        }
        fs::set_permissions(path.join("tree"), Permissions::from_mode(0o700))?;
        Ok(Side { directory: File::open(path)?, expected: b"old".to_vec() })
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.directory.as_raw_fd()).into()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Into this side.
    Wrote(usize),
    Failed,
}

fn write_and_look(
    mut arena: Arena,
    both: bool,
    subject: &'static Subject,
) -> anyhow::Result<Vec<Outcome>> {
    for missing in subject.without {
        subject::pretend(*missing)?;
    }
    let mut outcomes = Vec::new();
    let began = Instant::now();
    let path = arena.shared.join(NAMES[0]);
    // A control is to be caught, however long that takes.
    let enough = |outcomes: &[Outcome]| {
        subject.who == Who::Crate
            && outcomes.len() >= CALLS
            && outcomes.contains(&Outcome::Wrote(0))
            && (!both || outcomes.contains(&Outcome::Wrote(1)))
    };
    while began.elapsed() < TIME || (!enough(&outcomes) && began.elapsed() < TIME * 50) {
        let version = outcomes.len() as u32 + 1;
        let mut pinned = None;
        let ended = (subject.write)(&path, version, &mut || pinned = Some(find(&arena.sides)));
        let pinned = pinned.transpose()?;
        outcomes.push(look(&mut arena.sides, subject, version, pinned, ended)?);
    }
    let is_control = subject.who != Who::Crate;
    ensure!(is_control || enough(&outcomes), "{} calls, and no race", outcomes.len());
    Ok(outcomes)
}

/// Which of them this program has open, but for our own.
fn find(sides: &[Side; 2]) -> anyhow::Result<usize> {
    let ours = sides.each_ref().map(|side| side.directory.as_raw_fd().to_string());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let is_ours = ours.iter().any(|ours| entry.file_name() == ours.as_str());
        // Another thread may have closed it meanwhile.
        let Ok(metadata) = fs::metadata(entry.path()) else { continue };
        for (n, side) in sides.iter().enumerate() {
            let ino = side.directory.metadata()?.ino();
            if !is_ours && metadata.is_dir() && metadata.ino() == ino && !found.contains(&n) {
                found.push(n);
            }
        }
    }
    ensure!(found.len() == 1, "{} directories are pinned", found.len());
    Ok(found[0])
}

/// Both directories, after a call.
fn look(
    sides: &mut [Side; 2],
    subject: &Subject,
    version: u32,
    pinned: Option<usize>,
    ended: anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let file = (subject.file)(version);
    let is_new = file == new(version);
    let outcome = match (ended, pinned) {
        (Ok(()), Some(pinned)) => Outcome::Wrote(pinned),
        (Ok(()), None) => bail!("it returned Ok, but never wrote"),
        (Err(error), None) => {
            ensure!(Error::find(error.as_ref()).is_some(), "not ours, and too early: {error:#}");
            Outcome::Failed
        }
        (Err(_), Some(_)) if subject.own_io => Outcome::Failed,
        (Err(error), Some(_)) => bail!("stopped by the neighbour: {error:#}"),
    };
    for (n, side) in sides.iter_mut().enumerate() {
        let path = side.path().join(&file);
        if outcome == Outcome::Wrote(n) {
            let there = fs::read(&path).context("it is not where it was pinned")?;
            ensure!(there == content(version, &file), "not what was written where it was pinned");
            if is_new {
                fs::remove_file(&path)?;
            } else {
                side.expected = there;
            }
        }
        match is_new {
            true => ensure!(!path.exists(), "it is where it was not pinned"),
            false => ensure!(fs::read(&path)? == side.expected, "changed where it was not pinned"),
        }
        let entries = fs::read_dir(side.path())?.map(|entry| Ok(entry?.file_name()));
        let entries = entries.collect::<anyhow::Result<Vec<_>>>()?;
        let left = entries.iter().find(|entry| *entry != "file" && *entry != "tree");
        ensure!(left.is_none(), "left over: {left:?}");
    }
    Ok(outcome)
}

fn new(version: u32) -> String {
    format!("file-{version}")
}

fn create(directory: &Path, version: u32, pinned: Pinned) -> anyhow::Result<()> {
    WriteOptions::new().anyhow().mode(0o600).create(directory.join(new(version)), |w| {
        pinned();
        Ok(w.write_all(&content(version, &new(version)))?)
    })
}

fn if_missing(directory: &Path, version: u32, pinned: Pinned) -> anyhow::Result<()> {
    let written = WriteOptions::new().anyhow().mode(0o600).write_if_missing(
        directory.join(new(version)),
        |w| -> anyhow::Result<()> {
            pinned();
            Ok(w.write_all(&content(version, &new(version)))?)
        },
    )?;
    written.context("it was not missing")
}

fn if_changed(directory: &Path, version: u32, pinned: Pinned) -> anyhow::Result<()> {
    write_if_changed(directory.join("file"), |w| {
        pinned();
        Ok(w.write_all(&content(version, "file"))?)
    })?;
    Ok(())
}

fn update(directory: &Path, version: u32, pinned: Pinned) -> anyhow::Result<()> {
    update_atomically(directory.join("file"), |old, w| {
        pinned();
        old.context("nothing to update")?;
        Ok(w.write_all(&content(version, "file"))?)
    })
}

fn batch(directory: &Path, version: u32, pinned: Pinned) -> anyhow::Result<()> {
    write_batch(|batch| {
        batch.write(directory.join("file"), |w| {
            pinned();
            Ok(w.write_all(&content(version, "file"))?)
        })
    })
}

fn by_path(directory: &Path, version: u32, pinned: Pinned) -> anyhow::Result<()> {
    write_path_atomically(directory.join("file"), |path| {
        pinned();
        Ok(fs::write(path, content(version, "file"))?)
    })
}

fn directory(directory: &Path, version: u32, pinned: Pinned) -> anyhow::Result<()> {
    write_dir_atomically(directory.join("tree"), |staged| {
        pinned();
        Ok(fs::write(staged.join("file"), content(version, "tree/file"))?)
    })
}

fn in_place(directory: &Path, version: u32, pinned: Pinned) -> anyhow::Result<()> {
    let _pin = File::open(directory)?;
    pinned();
    Ok(fs::write(directory.join("file"), content(version, "file"))?)
}

fn all_by_path(directory: &Path, version: u32, pinned: Pinned) -> anyhow::Result<()> {
    let _pin = File::open(directory)?;
    pinned();
    let staged = directory.join(".file.staged");
    fs::write(&staged, content(version, "file"))?;
    Ok(fs::rename(staged, directory.join("file"))?)
}
