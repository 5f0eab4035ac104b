//! The protocol, in the order in which it happens: target, stage, closure, finish, publish, settle.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use crate::error::{Error, Step};
use crate::keep::Keep;
use crate::metadata;
use crate::options::{Durability, WriteOptions};
use crate::overwrite::Overwrite;
use crate::platform::{self, Code, FileId, Kind, Stat};
use crate::staging::{self, StagingEntry};
use crate::target::Target;
use crate::writer::{WRITEBACK_WINDOW, Writer};

/// Replaces or creates a file.
pub(crate) fn write<T, E: From<io::Error>>(
    path: &Path,
    options: &WriteOptions,
    write: impl FnOnce(&mut Writer) -> Result<T, E>,
) -> Result<T, E> {
    match Destination::find(path, options).map_err(io::Error::from)? {
        Destination::Replaceable(target) => {
            let staged = Staged::new(target, options).map_err(io::Error::from)?;
            let (written, value) = staged.fill(write)?;
            written.publish(Clobber::Yes).and_then(Published::settle).map_err(io::Error::from)?;
            Ok(value)
        }
        Destination::InPlace(overwrite) => overwrite.write(options, write),
    }
}

/// Creates a file where there is nothing.
pub(crate) fn create<T, E: From<io::Error>>(
    path: &Path,
    options: &WriteOptions,
    write: impl FnOnce(&mut Writer) -> Result<T, E>,
) -> Result<T, E> {
    let target = find_nothing(path, options).map_err(io::Error::from)?;
    let staged = Staged::new(target, options).map_err(io::Error::from)?;
    let (written, value) = staged.fill(write)?;
    written.publish(Clobber::No).and_then(Published::settle).map_err(io::Error::from)?;
    Ok(value)
}

/// open(2), `O_EXCL`: a symbolic link is something, wherever it leads.
fn find_nothing(path: &Path, options: &WriteOptions) -> Result<Target, Error> {
    let options = options.clone().follow_symlinks(false);
    let target = Target::resolve(path, &options)?;
    match target.found {
        None => Ok(target),
        Some(_) => Err(refusal(&target, Code::AlreadyExists)),
    }
}

/// What can be done with what is there.
pub(crate) enum Destination {
    Replaceable(Target),
    InPlace(Overwrite),
}

impl Destination {
    /// Finds out, before the closure does any work, what could be known to fail after it.
    pub(crate) fn find(path: &Path, options: &WriteOptions) -> Result<Destination, Error> {
        Destination::of(Target::resolve(path, options)?, options)
    }

    pub(crate) fn of(target: Target, options: &WriteOptions) -> Result<Destination, Error> {
        let Some(found) = &target.found else { return Ok(Destination::Replaceable(target)) };
        match found.kind {
            _ if target.is_magic_link => return Overwrite::open(target).map(Destination::InPlace),
            Kind::Directory => return Err(refusal(&target, Code::IsADirectory)),
            Kind::Other => return Overwrite::open(target).map(Destination::InPlace),
            Kind::File | Kind::Symlink => {}
        }
        if found.immutable {
            let hint = "it is immutable or append-only (lsattr shows it)";
            return Err(refusal(&target, Code::NotPermitted).hint(hint));
        }
        let user = platform::user();
        if found.kind == Kind::File && !is_writable_by_owner(found, user) {
            platform::check_writable(&target.directory, &target.name)
                .map_err(Error::at(Step::Resolve, &target.path))?;
        }
        match obstacle(&target, found, user)? {
            None => Ok(Destination::Replaceable(target)),
            Some(_) if options.overwrite_in_place && found.kind == Kind::File => {
                Overwrite::open(target).map(Destination::InPlace)
            }
            Some(error) => Err(error),
        }
    }
}

pub(crate) fn refusal(target: &Target, code: Code) -> Error {
    Error::new(Step::Resolve, &target.path, platform::error(code))
}

/// inode_permission: the owner's bits decide for the owner, in an ACL as well. This spares most
/// callers the question.
fn is_writable_by_owner(found: &Stat, user: u32) -> bool {
    found.uid == user && found.mode & 0o200 != 0
}

/// Why a file can be written but not renamed over.
fn obstacle(target: &Target, found: &Stat, user: u32) -> Result<Option<Error>, Error> {
    if found.mount_root {
        return Ok(Some(refusal(target, Code::Busy).hint(
            "it is a mount point (a file that was bind-mounted, as containers do), which can't be \
             renamed over; `WriteOptions::overwrite_in_place(true)` writes into it instead",
        )));
    }
    if found.uid == user || user == 0 {
        return Ok(None);
    }
    let directory = platform::stat_directory(&target.directory)
        .map_err(Error::at(Step::Resolve, &target.path))?;
    if directory.mode & 0o1000 == 0 || directory.uid == user {
        return Ok(None);
    }
    Ok(Some(refusal(target, Code::NotPermitted).hint(
        "it is somebody else's in a sticky directory, and can't be renamed over; \
         `WriteOptions::overwrite_in_place(true)` writes into it instead",
    )))
}

/// Whether publishing may replace what is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clobber {
    Yes,
    No,
    /// Nothing but this file, whose content the new one takes into account.
    Only(FileId),
}

/// A staging file, ready to be filled.
pub(crate) struct Staged<'o> {
    target: Target,
    options: &'o WriteOptions,
    writer: Writer,
    entry: Option<StagingEntry>,
    keep: Option<Keep>,
}

impl<'o> Staged<'o> {
    pub(crate) fn new(target: Target, options: &'o WriteOptions) -> Result<Self, Error> {
        Staged::with(target, options, |target| stage(target, options))
    }

    /// The same with another way to create the staging file.
    pub(crate) fn with(
        target: Target,
        options: &'o WriteOptions,
        stage: impl FnOnce(&Target) -> io::Result<(File, Option<StagingEntry>)>,
    ) -> Result<Self, Error> {
        let keep = Keep::open(&target, options)?;
        let (file, entry) = stage(&target).map_err(Error::at(Step::Stage, &target.path))?;
        let early_writeback = options.durability != Durability::Relaxed;
        let writer = Writer::new(file, &target.path, options.buffer_capacity, early_writeback);
        Ok(Staged { target, options, writer, entry, keep })
    }

    /// Runs the closure. If it fails or panics, the staging file goes, and what it returned or
    /// panicked with passes through.
    pub(crate) fn fill<T, E: From<io::Error>>(
        self,
        write: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<(Written<'o>, T), E> {
        let Staged { target, options, writer, entry, keep } = self;
        let (mut writer, value) = run(writer, write, keep)?;
        writer.flush()?;
        let is_short = writer.is_short();
        let file = writer.discard();
        Ok((Written { is_short, ..Written::new(target, options, file, entry) }, value))
    }
}

pub(crate) fn stage(
    target: &Target,
    options: &WriteOptions,
) -> io::Result<(File, Option<StagingEntry>)> {
    if let Some(file) = platform::stage_unnamed(&target.directory, hidden_mode(target, options))? {
        if target.found.is_none() {
            // Publishing a new name does not come across a dead entry; replacing one does.
            staging::sweep(target);
        }
        return Ok((file, None));
    }
    let (file, entry) = staging::create(target, staging_mode(target, options))?;
    Ok((file, Some(entry)))
}

/// The mode of a staging file that has a name: what is to get a mode of its own stays private until
/// it has that.
pub(crate) fn staging_mode(target: &Target, options: &WriteOptions) -> u32 {
    match mode_to_come(target, options) {
        Some(_) => 0o600,
        None => 0o666,
    }
}

/// Nobody else can open a file without a name, or in a private directory, whatever its mode: it may have
/// the one that it will need, and changing it later, which is a transaction of the filesystem's, is
/// spared mostly.
pub(crate) fn hidden_mode(target: &Target, options: &WriteOptions) -> u32 {
    // Writing `user.*` attributes needs write access (xattr(7)).
    mode_to_come(target, options).map_or(0o666, |mode| mode & 0o777 | 0o600)
}

/// The mode that the file is to have in the end, as far as that can be known yet.
fn mode_to_come(target: &Target, options: &WriteOptions) -> Option<u32> {
    let replaced = target.found.as_ref().filter(|found| found.kind == Kind::File);
    options.mode.or(replaced.filter(|_| options.preserve_metadata).map(|found| found.mode))
}

/// Runs a closure; what it wrote is kept, if that was asked for, when it returns an error or panics.
pub(crate) fn run<T, E>(
    mut writer: Writer,
    write: impl FnOnce(&mut Writer) -> Result<T, E>,
    keep: Option<Keep>,
) -> Result<(Writer, T), E> {
    // Unwind safety: the panic goes on, so what the closure left half-done is its caller's affair,
    // as it is without us; the writer is thrown away.
    let result = panic::catch_unwind(AssertUnwindSafe(|| write(&mut writer)));
    if let Ok(Ok(value)) = result {
        return Ok((writer, value));
    }
    match keep {
        Some(keep) => keep.take(writer),
        None => drop(writer.discard()),
    }
    match result {
        Ok(Ok(_)) => unreachable!("returned above"),
        Ok(Err(error)) => Err(error),
        Err(panic) => panic::resume_unwind(panic),
    }
}

/// A staging file that holds the whole content.
pub(crate) struct Written<'o> {
    pub(crate) target: Target,
    pub(crate) options: &'o WriteOptions,
    pub(crate) file: File,
    pub(crate) entry: Option<StagingEntry>,
    pub(crate) is_synced: bool,
    /// Known to be (`Writer::is_short`).
    is_short: bool,
}

impl<'o> Written<'o> {
    pub(crate) fn new(
        target: Target,
        options: &'o WriteOptions,
        file: File,
        entry: Option<StagingEntry>,
    ) -> Self {
        Written { target, options, file, entry, is_synced: false, is_short: false }
    }

    /// Gives the content the destination's metadata, makes both durable, and then gives it the name.
    pub(crate) fn publish(mut self, clobber: Clobber) -> Result<Published<'o>, Error> {
        let path = self.target.path.clone();
        let at = |step| Error::at(step, &path);
        let parents = self.target.make_parents().map_err(at(Step::Publish))?;
        self.start_writeback();
        let mut now = self.look(clobber).map_err(|error| not_published(&path, error, clobber))?;
        loop {
            self.take_metadata(now.as_ref()).map_err(at(Step::Metadata))?;
            self.sync().map_err(at(Step::Sync))?;
            let placed = match self.take_name_to_sync() {
                Ok(true) => {
                    now =
                        self.look(clobber).map_err(|error| not_published(&path, error, clobber))?;
                    continue;
                }
                Ok(false) => self.take_place(now.is_some(), clobber),
                Err(error) => Err(error),
            };
            let Err(error) = placed else { break };
            let appeared = error.kind() == io::ErrorKind::AlreadyExists && now.is_none();
            if appeared && clobber == Clobber::Yes && self.entry.is_none() {
                now = self.target.stat().map_err(at(Step::Publish))?;
                check_replaceable(now.as_ref(), self.options).map_err(at(Step::Publish))?;
            } else if self.entry.is_none() && platform::needs_a_name(&error) {
                self.stage_by_name().map_err(at(Step::Stage))?;
            } else {
                return Err(not_published(&path, error, clobber));
            }
        }
        parents.keep();
        Ok(Published { target: self.target, options: self.options, file: self.file })
    }

    /// Has the disk work while what is to be carried over is looked up. For a new file that is nothing.
    ///
    /// Of a small file no page lies whole within the range, which leaves the first byte out: where one
    /// does, the kernel asks all processors for pages to drop (Linux, mm/fadvise.c).
    fn start_writeback(&self) {
        let looks_up = self.target.found.is_some() && self.options.preserve_metadata;
        if self.is_short && looks_up && self.options.durability != Durability::Relaxed {
            platform::start_writeback(&self.file, 1, WRITEBACK_WINDOW);
        }
    }

    /// What is at the destination now. Where there was nothing and the staging file is unnamed, the
    /// publish finds that out by itself.
    fn look(&self, clobber: Clobber) -> io::Result<Option<Stat>> {
        if self.target.found.is_none() && self.entry.is_none() {
            return Ok(None);
        }
        let now = self.target.stat()?;
        match (clobber, &now) {
            (Clobber::No, Some(_)) => return Err(platform::error(Code::AlreadyExists)),
            (Clobber::Only(file), now) => check_is(file, now.as_ref())?,
            _ => {}
        }
        check_replaceable(now.as_ref(), self.options)?;
        Ok(now)
    }

    pub(crate) fn take_metadata(&mut self, now: Option<&Stat>) -> io::Result<()> {
        let mode = self.options.mode;
        let is_file = |stat: &&Stat| stat.kind == Kind::File && self.options.preserve_metadata;
        if let Some(old) = now.filter(is_file) {
            self.is_synced = false;
            return metadata::carry_over(&self.target, old, &self.file, mode);
        }
        platform::reveal(&self.target.directory, &self.file)?;
        if let Some(mode) = mode {
            let staged = platform::stat_file(&self.file)?;
            return metadata::set_exact_mode(&self.file, &staged, mode);
        }
        if let Some(gone) = self.target.found.as_ref().filter(is_file) {
            return metadata::carry_mode_over(gone, &self.file);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if !self.is_synced && must_sync(self.options, &self.file, self.entry.is_some()) {
            // fsync(2): after an error the pages count as clean, and another sync would succeed.
            // There is none: the error ends this write, and the staging file with it.
            platform::sync_file(&self.file)?;
            self.is_synced = true;
        }
        Ok(())
    }

    /// Where syncing a file without a name is not enough, it gets its staging name before it is published,
    /// to be synced again. That is short: the content is on the disk. Says whether it did.
    fn take_name_to_sync(&mut self) -> io::Result<bool> {
        let takes = self.entry.is_none()
            && self.options.durability != Durability::Relaxed
            && platform::syncs_only_what_has_a_name(&self.file);
        if takes {
            self.entry = Some(staging::link(&self.target, &self.file)?);
            self.is_synced = false;
        }
        Ok(takes)
    }

    /// Moves the content to the destination's name, in one step.
    fn take_place(&mut self, replaces: bool, clobber: Clobber) -> io::Result<()> {
        let (directory, name) = (&self.target.directory, &self.target.name);
        let entry = match self.entry.take() {
            Some(entry) => entry,
            None if !replaces || clobber == Clobber::No => {
                return platform::link(&self.file, directory, name);
            }
            None => staging::link(&self.target, &self.file)?,
        };
        platform::stop_writing(&mut self.file, &entry.directory, &entry.name)?;
        let renamed = match clobber {
            Clobber::Yes => platform::rename_to(&entry.directory, &entry.name, directory, name),
            // Again, because syncing took its time. Those who ask for the lock wait for us; for the
            // others, the two calls leave the smallest gap there is: no system call compares and
            // renames.
            Clobber::Only(file) => {
                self.target.stat().and_then(|now| check_is(file, now.as_ref())).and_then(|()| {
                    platform::rename_to(&entry.directory, &entry.name, directory, name)
                })
            }
            Clobber::No => platform::rename_new(directory, &entry.name, name),
        };
        if renamed.is_err() {
            self.entry = Some(entry);
            return renamed;
        }
        entry.published();
        Ok(())
    }

    /// Without a way to give the unnamed file a name, its content moves to one that has a name.
    fn stage_by_name(&mut self) -> io::Result<()> {
        let mode = staging_mode(&self.target, self.options);
        let (mut named, entry) = staging::create(&self.target, mode)?;
        self.file.rewind()?;
        io::copy(&mut self.file, &mut named)?;
        (self.file, self.entry, self.is_synced) = (named, Some(entry), false);
        Ok(())
    }
}

/// Whether content is synced before it is published. Closing a file may fail to bring it to a server;
/// where it does that, syncing is what it comes to, and finds out while nothing is published yet.
pub(crate) fn must_sync(options: &WriteOptions, file: &File, is_named: bool) -> bool {
    options.durability != Durability::Relaxed || platform::writes_on_close(file, is_named)
}

/// Content that is at the destination.
#[must_use]
pub(crate) struct Published<'o> {
    target: Target,
    options: &'o WriteOptions,
    file: File,
}

impl Published<'_> {
    /// Makes the name durable.
    pub(crate) fn settle(self) -> Result<(), Error> {
        let Published { target, options, file } = self;
        settle(&target, options, &file)
            .map_err(|error| Error::new(Step::SyncDirectory, &target.path, error).after_replacing())
    }
}

/// Refuses what has come into the way while the closure ran.
pub(crate) fn check_replaceable(now: Option<&Stat>, options: &WriteOptions) -> io::Result<()> {
    let Some(now) = now else { return Ok(()) };
    match now.kind {
        _ if now.mount_root => Err(platform::error(Code::Busy)),
        Kind::File => Ok(()),
        Kind::Symlink if !options.follow_symlinks => Ok(()),
        Kind::Directory => Err(platform::error(Code::IsADirectory)),
        Kind::Symlink | Kind::Other => Err(platform::error(Code::AlreadyExists)),
    }
}

fn check_is(file: FileId, now: Option<&Stat>) -> io::Result<()> {
    match now.is_some_and(|now| now.id() == file) {
        true => Ok(()),
        false => Err(platform::error(Code::Busy)),
    }
}

fn not_published(path: &Path, error: io::Error, clobber: Clobber) -> Error {
    let is_busy = error.kind() == io::ErrorKind::ResourceBusy;
    let error = Error::new(Step::Publish, path, error);
    match clobber {
        Clobber::Only(_) if is_busy => error.hint(
            "somebody who does not ask for its lock has replaced or removed it since it was read; \
             publishing would lose that change",
        ),
        _ => error,
    }
}

/// Makes the name of what has been published durable; `file` is any open file on its filesystem.
pub(crate) fn settle(target: &Target, options: &WriteOptions, file: &File) -> io::Result<()> {
    if options.durability != Durability::Durable {
        return Ok(());
    }
    for name in &target.missing_parents {
        platform::sync_child_directory(&target.directory, name, file)?;
    }
    platform::sync_directory(&target.directory, file)
}
