//! The right to create or to update a destination, which one writer has while the others wait.
//!
//! To update, the destination itself is locked. To create, the staging entry with the first of the
//! destination's names is: it is filled, and renamed to the destination, so that one who waits for
//! its lock finds either the published file or a dead entry. To update on a filesystem that is not known
//! to be local, both are: the entry excludes this mount's writers even where inode numbers are made from
//! paths, so that a file and the one that replaced it have the same; the destination's lock excludes
//! other machines, where the filesystem carries it there.
//!
//! A lock means something only as long as the name leads to what is locked: one who has waited looks
//! whether it still does, and starts again if not.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Step};
use crate::hint::Hint;
use crate::platform::{Code, Directory, FileId, Kind, Lock, Os, Platform as _, Stat};
use crate::protocol::dead::{self, Claim, Found, ROUNDS};
use crate::protocol::destination::check_creatable;
use crate::protocol::entry::{self, Entry};
use crate::protocol::lock::{Attempt, FileLock, Owner, SHORTEST_PAUSE, Wait, check_not_held_by};
use crate::protocol::names::staging_name;
use crate::protocol::private_dir::PrivateDir;
use crate::protocol::resolve::Destination;
use crate::protocol::stage::{StagingName, needs_private_dir, stage_inside, staging_mode};
use crate::settings::Settings;

/// What became of asking for the right.
pub(crate) enum Asked<T> {
    Got(T),
    /// There are no locks here, or none that excludes anybody.
    Impossible,
    /// The destination has changed while this waited: look again what it is.
    LookAgain,
    /// Somebody else has it still.
    Busy,
}

impl<T> Asked<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Asked<U> {
        match self {
            Asked::Got(got) => Asked::Got(change(got)),
            Asked::Impossible => Asked::Impossible,
            Asked::LookAgain => Asked::LookAgain,
            Asked::Busy => Asked::Busy,
        }
    }
}

/// Who asks, and how long to wait.
#[derive(Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) owner: Owner,
    pub(crate) wait: Wait,
}

impl Asker {
    /// For a call that may block its thread.
    pub(crate) fn this_thread(settings: &Settings) -> Asker {
        Asker { owner: Owner::this_thread(), wait: Wait::at_most(settings.lock_timeout) }
    }
}

/// A staging entry that excludes others from creating the destination.
pub(crate) enum Claimed {
    File(Arc<File>, Entry),
    /// Where parents are missing, which are made in it.
    Directory(PrivateDir),
}

impl Claimed {
    /// A file to stage in.
    pub(crate) fn stage(
        self,
        destination: &Destination,
        settings: &Settings,
    ) -> io::Result<(Arc<File>, StagingName)> {
        match self {
            Claimed::File(file, entry) => Ok((file, StagingName { entry, private: None })),
            Claimed::Directory(private) => stage_inside(private, destination, settings),
        }
    }
}

/// A destination that nobody else updates, open for reading.
pub(crate) struct Locked {
    pub(crate) file: Arc<File>,
    pub(crate) id: FileId,
    pub(crate) by: LockedBy,
}

pub(crate) enum LockedBy {
    Itself {
        _lock: FileLock,
    },
    /// Some systems can't replace a file that is open, or lock readers out: there the right to
    /// create is also the right to update.
    Entry(Claimed),
    Both(Claimed, FileLock),
}

/// Asks for the right to update the file that was found at a destination.
pub(crate) fn existing(
    destination: &Destination,
    found: &Stat,
    settings: &Settings,
    asker: Asker,
) -> Result<Asked<Locked>, Error> {
    let locked = match Os::LOCKS_DESTINATIONS {
        true if destination.realm().is_some() => lock_both(destination, found, settings, asker),
        true => lock_itself(destination, found, asker),
        false => lock_entry(destination, found, settings, asker),
    };
    match locked {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Asked::LookAgain),
        // Its lock is asked for by the descriptor that it is read by.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Error::new(Step::Read, &destination.path, error))
        }
        locked => locked.map_err(|error| failed(destination, error)),
    }
}

fn lock_itself(destination: &Destination, found: &Stat, asker: Asker) -> io::Result<Asked<Locked>> {
    let file = Os::open_to_update(&destination.directory, &destination.name)?;
    let lock = match FileLock::acquire(file, asker.owner, asker.wait)? {
        Attempt::Held(lock) => lock,
        Attempt::Busy => return Ok(Asked::Busy),
        Attempt::Unsupported => return Ok(Asked::Impossible),
    };
    // Another update may have replaced the file while this waited for its lock.
    if lock.id != found.id() || !is_there(destination, lock.id)? {
        return Ok(Asked::LookAgain);
    }
    let (file, id) = (lock.file.clone(), lock.id);
    Ok(Asked::Got(Locked { file, id, by: LockedBy::Itself { _lock: lock } }))
}

/// The file first: those who wait for it leave the entry's name alone, which servers that find their way
/// by names don't take well (go-fuse: gocryptfs lost the way to a file that was renamed while others
/// looked for it by its old name).
fn lock_both(
    destination: &Destination,
    found: &Stat,
    settings: &Settings,
    asker: Asker,
) -> io::Result<Asked<Locked>> {
    let locked = match lock_itself(destination, found, asker)? {
        Asked::Got(locked) => locked,
        other => return Ok(other),
    };
    let claimed = match claim(destination, asker, create_file(destination, settings, asker))? {
        Asked::Got(claimed) => claimed,
        // No entry can be made in this directory, or none that excludes anybody.
        Asked::Impossible => return Ok(Asked::Got(locked)),
        Asked::LookAgain => return Ok(Asked::LookAgain),
        Asked::Busy => return Ok(Asked::Busy),
    };
    // What is locked may be an old file whose number the new one has got.
    let file = Os::open_to_update(&destination.directory, &destination.name)?;
    let id = Os::stat_file(&file)?.id();
    let lock = match locked.by {
        LockedBy::Itself { _lock } if id == locked.id => _lock,
        // It was replaced, or its number changes with every look (rclone): without a wait, because others
        // may hold this lock and wait for the entry. So this starts again only if others go on.
        by => {
            drop(by);
            let again = Os::open_to_update(&destination.directory, &destination.name)?;
            match FileLock::acquire(again, asker.owner, Wait::at_most(Some(Duration::ZERO)))? {
                Attempt::Held(lock) => lock,
                Attempt::Busy => return Ok(Asked::LookAgain),
                Attempt::Unsupported => return Ok(Asked::Impossible),
            }
        }
    };
    Ok(Asked::Got(Locked { file: Arc::new(file), id, by: LockedBy::Both(claimed, lock) }))
}

fn lock_entry(
    destination: &Destination,
    found: &Stat,
    settings: &Settings,
    asker: Asker,
) -> io::Result<Asked<Locked>> {
    let claimed = match claim(destination, asker, create_file(destination, settings, asker))? {
        Asked::Got(claimed) => claimed,
        Asked::Impossible => return Ok(Asked::Impossible),
        Asked::LookAgain => return Ok(Asked::LookAgain),
        Asked::Busy => return Ok(Asked::Busy),
    };
    let file = Os::open_to_compare(&destination.directory, &destination.name)?;
    let id = Os::stat_file(&file)?.id();
    if id != found.id() || !is_there(destination, id)? {
        return Ok(Asked::LookAgain);
    }
    Ok(Asked::Got(Locked { file: Arc::new(file), id, by: LockedBy::Entry(claimed) }))
}

fn is_there(destination: &Destination, id: FileId) -> io::Result<bool> {
    Ok(destination.stat()?.is_some_and(|now| now.kind == Kind::File && now.id() == id))
}

/// Asks for the right to create a file, where nothing was found.
pub(crate) fn missing(
    destination: &Destination,
    settings: &Settings,
    asker: Asker,
) -> Result<Asked<Claimed>, Error> {
    if needs_private_dir(destination) {
        let asked = missing_by_path(destination, settings, asker)?;
        return Ok(asked.map(Claimed::Directory));
    }
    let create = create_file(destination, settings, asker);
    claim_missing(destination, settings, asker, create).map_err(|error| failed(destination, error))
}

/// The same for what is staged in a private directory.
pub(crate) fn missing_by_path(
    destination: &Destination,
    settings: &Settings,
    asker: Asker,
) -> Result<Asked<PrivateDir>, Error> {
    if !Os::HAS_PRIVATE_DIRECTORIES {
        return Ok(Asked::Impossible);
    }
    let create = create_directory(destination, asker);
    claim_missing(destination, settings, asker, create).map_err(|error| failed(destination, error))
}

/// The right to create a destination, where there is one.
pub(crate) enum Creation<T> {
    /// Something is there, perhaps because others made it while this waited for them.
    Exists,
    /// `None` where nobody can be excluded: publishing decides, which replaces nothing then.
    Mine(Destination, Option<T>),
    Busy,
}

/// Waits for those who create the same destination, until it exists or nobody else creates it.
pub(crate) fn to_create<T>(
    path: &Path,
    resolve: impl Fn() -> Result<Destination, Error>,
    mut ask: impl FnMut(&Destination) -> Result<Asked<T>, Error>,
) -> Result<Creation<T>, Error> {
    // The most frequent answer takes one look. A link has to be followed by hand.
    if let Ok(Some(Stat { kind: Kind::File | Kind::Directory | Kind::Other, .. })) = Os::look(path)
    {
        return Ok(Creation::Exists);
    }
    loop {
        let destination = resolve()?;
        if destination.at_start.is_some() {
            return Ok(Creation::Exists);
        }
        check_creatable(&destination)?;
        match ask(&destination)? {
            Asked::Got(claimed) => return Ok(Creation::Mine(destination, Some(claimed))),
            Asked::Impossible => return Ok(Creation::Mine(destination, None)),
            Asked::LookAgain => {}
            Asked::Busy => return Ok(Creation::Busy),
        }
    }
}

/// Nobody else had the lock for long enough.
pub(crate) fn timed_out(path: &Path) -> Error {
    Error::new(Step::Lock, path, io::ErrorKind::TimedOut.into())
}

fn claim_missing<T>(
    destination: &Destination,
    settings: &Settings,
    asker: Asker,
    create: impl FnMut(&Path) -> io::Result<Created<T>>,
) -> io::Result<Asked<T>> {
    let asked = claim(destination, asker, create)?;
    if let Asked::Got(_) = asked {
        let parents_appeared = match destination.missing_parents.first() {
            Some(parent) => Os::stat(&destination.directory, parent)?.is_some(),
            None => false,
        };
        let waited = match settings.create_parents && !parents_appeared {
            true => wait_above(destination, asker)?,
            false => Waited::ForNobody,
        };
        if let Waited::InVain = waited {
            return Ok(Asked::Busy);
        }
        let ended = matches!(waited, Waited::ItEnded);
        if parents_appeared || ended || destination.stat()?.is_some() {
            return Ok(Asked::LookAgain);
        }
    }
    Ok(asked)
}

enum Created<T> {
    Locked(T),
    Unlocked,
    /// Another writer took it for dead before it was locked.
    Lost,
}

fn create_file<'d>(
    destination: &'d Destination,
    settings: &Settings,
    asker: Asker,
) -> impl FnMut(&Path) -> io::Result<Created<Claimed>> + 'd {
    let mode = staging_mode(destination, settings);
    move |name| {
        Ok(match entry::create_at(destination, name, mode, asker.owner)? {
            Some((file, entry)) if entry.is_locked() => Created::Locked(Claimed::File(file, entry)),
            Some(_) => Created::Unlocked,
            None => Created::Lost,
        })
    }
}

fn create_directory(
    destination: &Destination,
    asker: Asker,
) -> impl FnMut(&Path) -> io::Result<Created<PrivateDir>> + '_ {
    move |name| {
        Ok(match entry::create_directory_at(destination, name)? {
            Some((directory, lock)) => {
                let (name, owner) = (name.to_owned(), asker.owner);
                let private = PrivateDir::own(destination, directory, name, owner)?;
                match lock {
                    Lock::Held => Created::Locked(private),
                    _ => Created::Unlocked,
                }
            }
            None => Created::Lost,
        })
    }
}

/// Takes the destination's first staging name, and waits while a living writer has it.
fn claim<T>(
    destination: &Destination,
    asker: Asker,
    mut create: impl FnMut(&Path) -> io::Result<Created<T>>,
) -> io::Result<Asked<T>> {
    use io::ErrorKind::{AlreadyExists, NotFound, PermissionDenied, ReadOnlyFilesystem};
    let name = Claim { destination }.name(0);
    let mut rounds = 0;
    loop {
        match create(&name) {
            Ok(Created::Locked(created)) => return Ok(Asked::Got(created)),
            // Nobody can hold it.
            Ok(Created::Unlocked) => return Ok(Asked::Impossible),
            Ok(Created::Lost) => continue,
            Err(error) => match error.kind() {
                AlreadyExists => {}
                // Staging will be refused for the same reason.
                NotFound | PermissionDenied | ReadOnlyFilesystem => return Ok(Asked::Impossible),
                _ => return Err(error),
            },
        }
        match wait_for(destination, &name, asker)? {
            // On a filesystem of this machine somebody is faster each time.
            Waited::ItEnded if destination.realm().is_some() && rounds >= ROUNDS => {
                return Ok(Asked::Impossible);
            }
            Waited::ItEnded => rounds += 1,
            Waited::InVain => return Ok(Asked::Busy),
            Waited::ForNobody => return Ok(Asked::Impossible),
        }
    }
}

enum Waited {
    ItEnded,
    /// It is alive still.
    InVain,
    /// There was none, or the entry belongs to another user, who could make this wait for ever.
    ForNobody,
}

/// Waits for the end of the writer that has a staging name, and removes what a killed one has left.
fn wait_for(destination: &Destination, name: &Path, asker: Asker) -> io::Result<Waited> {
    let directory = &destination.directory;
    let claim = Claim { destination };
    let mut pause = SHORTEST_PAUSE;
    loop {
        let found = match claim.clear_dead(name)? {
            Found::AliveFile => match wait_for_file(directory, name, asker, &mut pause)? {
                // With the lock that this has waited for: if all who wait gave it back to ask for it
                // again, each would find that another has it, and take that for a writer.
                FileWait::Locked(file, seen) => claim.clear_locked(name, &seen, file)?,
                FileWait::Gone => Found::Nothing,
                FileWait::Paused => continue,
                FileWait::InVain => return Ok(Waited::InVain),
            },
            found => found,
        };
        match found {
            Found::Nothing | Found::Removed => return Ok(Waited::ItEnded),
            Found::Foreign => return Ok(Waited::ForNobody),
            Found::AliveFile => {}
            Found::AliveDirectory => {
                if let Some(waited) = wait_for_directory(destination, name, asker, &mut pause)? {
                    return Ok(waited);
                }
            }
        }
    }
}

enum FileWait {
    /// The file, and what was seen at the name before.
    Locked(File, Stat),
    Gone,
    /// Look again whether it is alive.
    Paused,
    InVain,
}

fn wait_for_file(
    directory: &Directory,
    name: &Path,
    asker: Asker,
    pause: &mut Duration,
) -> io::Result<FileWait> {
    let Some(found) = Os::stat(directory, name)? else { return Ok(FileWait::Gone) };
    check_not_held_by(asker.owner, found.id())?;
    if let Wait::Forever = asker.wait {
        // NFS locks only what is open for writing (flock(2)); elsewhere nobody but its writer opens the
        // file so.
        for open in [Os::open_to_lock, Os::open_to_update] {
            match open(directory, name) {
                Ok(file) if Os::lock(&file) == Lock::Held => {
                    return Ok(FileWait::Locked(file, found));
                }
                _ => {}
            }
        }
    }
    Ok(match asker.wait.pause(pause) {
        true => FileWait::Paused,
        false => FileWait::InVain,
    })
}

/// `None`: look again whether it is alive.
fn wait_for_directory(
    destination: &Destination,
    name: &Path,
    asker: Asker,
    pause: &mut Duration,
) -> io::Result<Option<Waited>> {
    let found = Os::stat(&destination.directory, name)?;
    let Some(found) = found else { return Ok(Some(Waited::ItEnded)) };
    check_not_held_by(asker.owner, found.id())?;
    Ok((!asker.wait.pause(pause)).then_some(Waited::InVain))
}

/// Waits for those who started to create this destination when its parents were missing: their
/// entries lie above these.
///
/// Of two such creators, at least one sees the other's entry: they look, holding theirs, whether the
/// parents are still missing; this looks, holding its own, for their entries above the parents that
/// exist, which may be some of them.
fn wait_above(destination: &Destination, asker: Asker) -> io::Result<Waited> {
    let parent = destination.path.parent().unwrap_or(Path::new(""));
    for above in parent.ancestors().skip(destination.missing_parents.len() + 1) {
        let below: PathBuf = match destination.path.strip_prefix(above) {
            Ok(below) => below.components().collect(),
            Err(_) => continue,
        };
        let Ok(directory) = Os::open_directory(None, above) else { continue };
        let name = staging_name(&below, destination.realm(), 0);
        let mut pause = SHORTEST_PAUSE;
        let mut waited = false;
        while is_alive(destination, &directory, &name)? {
            waited = true;
            match wait_for_file(&directory, &name, asker, &mut pause)? {
                FileWait::InVain => return Ok(Waited::InVain),
                FileWait::Locked(..) | FileWait::Gone => break,
                FileWait::Paused => {}
            }
        }
        if waited {
            return Ok(Waited::ItEnded);
        }
    }
    Ok(Waited::ForNobody)
}

/// Whether a writer holds this entry, which lies above the destination's directory.
fn is_alive(destination: &Destination, directory: &Directory, name: &Path) -> io::Result<bool> {
    let found = match Os::stat(directory, name) {
        Ok(Some(found)) if dead::is_made_by_caller(destination, &found) => found,
        _ => return Ok(false),
    };
    let lock = match found.kind {
        Kind::File => Os::open_to_lock(directory, name).map(|file| Os::try_lock(&file)),
        Kind::Directory => Os::hold_directory(directory, name).map(|(_, lock)| lock),
        Kind::Symlink | Kind::Other => return Ok(false),
    };
    match lock {
        Ok(lock) => Ok(lock == Lock::Busy),
        Err(error) => Ok(error.kind() == io::ErrorKind::WouldBlock),
    }
}

fn failed(destination: &Destination, error: io::Error) -> Error {
    let is_deadlock = error.kind() == Os::error(Code::Deadlock).kind();
    let error = Error::new(Step::Lock, &destination.path, error);
    match is_deadlock {
        true => error.with_hint(Hint::WaitsForItself),
        false => error,
    }
}
