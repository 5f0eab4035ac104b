//! Content that is complete → content at the destination: metadata, sync, rename, sync.

use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Outcome, Step};
use crate::hint::Hint;
use crate::platform::{Code, Directory, FileId, Kind, Os, Platform as _, Stat};
use crate::protocol::destination::check_current;
use crate::protocol::entry::{self, Name};
use crate::protocol::lock::Owner;
use crate::protocol::metadata;
use crate::protocol::parents::{self, Surrounded};
use crate::protocol::private_dir::PrivateDir;
use crate::protocol::resolve::Destination;
use crate::protocol::stage::{Content, StagingName, needs_private_dir, stage_named};
use crate::settings::{Durability, Settings};
use crate::sink::WRITEBACK_WINDOW;

/// What may be replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replace {
    Anything,
    Nothing,
    /// Nothing but this file, whose content the new one takes into account.
    Only(FileId),
}

/// A staging file that holds the whole content.
pub(crate) struct Written {
    pub(crate) destination: Destination,
    pub(crate) settings: Settings,
    pub(crate) content: Content,
    pub(crate) owner: Owner,
    synced: Synced,
    length: Length,
    /// Parents that were missing have been made around the staging file.
    surrounded: Option<Surrounded>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Synced {
    No,
    Yes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// It takes one request to start the writeback.
    Short,
    Unknown,
}

/// What became of an attempt to publish.
pub(crate) enum Publication {
    Done(Box<Published>),
    /// Another writer was faster, and nothing may be replaced. This is the content.
    Exists(Box<Content>),
}

/// What became of an attempt to rename.
pub(crate) enum Renamed {
    Done,
    /// Something has appeared at the destination since the last look, or vanished.
    Appeared,
}

/// What became of an attempt to move content to the destination's name.
enum Moved {
    Done(Released),
    Appeared,
    /// The file can't be given a name here: its content needs another file that has one.
    NeedsName,
}

/// The content of a write that could not be published, and why. The file is closed before its name is
/// removed: libfuse keeps a file that is open, and so the directory around it.
pub(crate) struct NotPublished {
    pub(crate) error: Error,
    pub(crate) content: Content,
}

/// How often the destination may appear or vanish between a look and the rename before publishing
/// gives up. Each time another program has just created or removed it.
const ATTEMPTS: u32 = 100;

impl Written {
    pub(crate) fn new(
        destination: Destination,
        settings: Settings,
        content: Content,
        owner: Owner,
    ) -> Self {
        let (synced, length, surrounded) = (Synced::No, Length::Unknown, None);
        Written { destination, settings, content, owner, synced, length, surrounded }
    }

    pub(crate) fn with_length(self, length: Length) -> Self {
        Written { length, ..self }
    }

    /// For content that may be lost.
    pub(crate) fn without_sync(self) -> Self {
        Written { synced: Synced::Yes, ..self }
    }

    /// Gives the content the destination's metadata, makes both durable, and then gives it the name.
    pub(crate) fn publish(mut self, replace: Replace) -> Result<Publication, Box<NotPublished>> {
        self.start_writeback();
        match self.try_publish(replace) {
            Ok(Some(name)) => {
                let Written { destination, settings, content, .. } = self;
                let file = content.file().clone();
                let published = Published { destination, settings, file, _name: name };
                Ok(Publication::Done(Box::new(published)))
            }
            Ok(None) => Ok(Publication::Exists(Box::new(self.content))),
            Err(error) => Err(Box::new(NotPublished { error, content: self.content })),
        }
    }

    fn try_publish(&mut self, replace: Replace) -> Result<Option<Released>, Error> {
        let path = self.destination.path.clone();
        let at = |step| Error::at(step, &path);
        for _ in 0..ATTEMPTS {
            let old = self.look(replace).map_err(|error| self.failed(error, replace))?;
            if old.is_some() && replace == Replace::Nothing {
                return Ok(None);
            }
            self.apply_metadata(old.as_ref()).map_err(at(Step::Metadata))?;
            self.sync().map_err(at(Step::Sync))?;
            match self.rename(old.as_ref(), replace).map_err(|error| self.failed(error, replace))? {
                Moved::Done(name) => return Ok(Some(name)),
                Moved::Appeared => {}
                Moved::NeedsName => self.copy_to_named().map_err(at(Step::Stage))?,
            }
        }
        Err(self.failed(Os::error(Code::AlreadyExists), replace))
    }

    /// Starts writeback now, so that the disk works while the old file's metadata is looked up. A new
    /// file has none to look up.
    ///
    /// The range starts at byte 1, so that it never contains the whole page of a small file:
    /// otherwise DONTNEED asks all processors for pages to drop (Linux, mm/fadvise.c).
    fn start_writeback(&self) {
        let looks_up = self.destination.at_start.is_some() && self.settings.preserve_metadata;
        let is_short = self.length == Length::Short;
        if is_short && looks_up && self.settings.durability != Durability::Relaxed {
            Os::start_writeback(self.content.file(), 1, WRITEBACK_WINDOW);
        }
    }

    /// What is at the destination now. Where nothing was at the start, an unnamed file's rename finds
    /// that out by itself.
    fn look(&self, replace: Replace) -> io::Result<Option<Stat>> {
        if self.destination.at_start.is_none() && !self.content.has_name() {
            return Ok(None);
        }
        let current = self.destination.stat()?;
        if let Replace::Only(file) = replace {
            check_is(file, current.as_ref(), &self.destination)?;
        }
        if replace != Replace::Nothing {
            check_current(current.as_ref(), &self.settings)?;
        }
        Ok(current)
    }

    pub(crate) fn apply_metadata(&mut self, current: Option<&Stat>) -> io::Result<()> {
        let (mode, preserve) = (self.settings.mode, self.settings.preserve_metadata);
        let is_file = |stat: &&Stat| stat.kind == Kind::File && preserve;
        let file = self.content.file();
        if let Some(old) = current.filter(is_file) {
            self.synced = Synced::No;
            let exposure = self.content.exposure();
            return metadata::carry_over(&self.destination, old, file, mode, exposure);
        }
        Os::reveal(&self.destination.directory, file)?;
        if let Some(mode) = mode {
            let staged = Os::stat_file(file)?;
            return metadata::set_exact_mode(file, &staged, mode);
        }
        if let Some(gone) = self.destination.at_start.as_ref().filter(is_file) {
            return metadata::carry_mode_over(&self.destination, gone, file);
        }
        Ok(())
    }

    /// fsync(2): after an error the pages count as clean, and another sync would succeed. So there is
    /// none: the error ends this write, and the staging file with it.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.synced == Synced::Yes || !self.must_sync() {
            return Ok(());
        }
        Os::sync_file(self.content.file())?;
        if self.needs_name_to_sync() {
            // Short: the content is on the disk already.
            self.give_name()?;
            Os::sync_file(self.content.file())?;
        }
        self.synced = Synced::Yes;
        Ok(())
    }

    /// Closing a file may fail to bring its content to a server; where it can, syncing does what closing
    /// would, and fails while nothing is published yet. Files without a name are on local filesystems.
    fn must_sync(&self) -> bool {
        self.settings.durability != Durability::Relaxed
            || self.content.has_name() && Os::writes_on_close(self.content.file())
    }

    fn needs_name_to_sync(&self) -> bool {
        let device = self.destination.directory_at_start.dev;
        !self.content.has_name()
            && self.settings.durability != Durability::Relaxed
            && Os::syncs_only_what_has_a_name(self.content.file(), device)
    }

    /// Gives an unnamed file its staging name.
    fn give_name(&mut self) -> io::Result<()> {
        if let Content::Unnamed(file) = &self.content {
            let holder = Os::reopen(file).map_or_else(|_| file.clone(), Arc::new);
            let name = match needs_private_dir(&self.destination) {
                true => {
                    let private = PrivateDir::create(&self.destination, self.owner)?;
                    let name = self.destination.file_name().to_owned();
                    Os::link(file, &private.directory, &name)?;
                    let entry = entry::inside(private.directory.clone(), name);
                    StagingName { entry, private: Some(private) }
                }
                false => {
                    let entry = entry::link(&self.destination, file, &holder)?;
                    StagingName { entry, private: None }
                }
            };
            // From here on no descriptor of this process can write to it.
            self.content = Content::Named(holder, name);
        }
        Ok(())
    }

    /// Moves the content to the destination's name, in one step.
    ///
    /// It is always a rename: a watcher of the directory waits for IN_MOVED_TO or IN_CLOSE_WRITE of
    /// the final name, and linkat(2) is told as IN_CREATE only (inotify(7)).
    fn rename(&mut self, old: Option<&Stat>, replace: Replace) -> io::Result<Moved> {
        match self.give_name() {
            Err(error) if Os::needs_a_name(&error) => return Ok(Moved::NeedsName),
            given => given?,
        }
        let Content::Named(file, name) = &mut self.content else { return Ok(Moved::NeedsName) };
        name.entry.stop_writing(file)?;
        name.entry.check()?;
        if !self.rename_with_parents()? {
            let parents = self.destination.make_parents()?;
            let Content::Named(_, name) = &self.content else { return Ok(Moved::NeedsName) };
            let (from, name) = (&name.entry.directory, &name.entry.name);
            match rename_into_place(from, name, &self.destination, old.is_some(), replace)? {
                Renamed::Appeared => return Ok(Moved::Appeared),
                Renamed::Done => drop(parents.disarm()),
            }
        }
        let unnamed = Content::Unnamed(self.content.file().clone());
        match std::mem::replace(&mut self.content, unnamed) {
            // The name leads to the destination now, and is not the entry's to remove.
            Content::Named(_, StagingName { entry, private }) => {
                Ok(Moved::Done(Released { _name: entry.disarm(), _private: private }))
            }
            Content::Unnamed(_) => Ok(Moved::NeedsName),
        }
    }

    /// Publishes the parents that are missing, with the content below them. `false` if none is.
    fn rename_with_parents(&mut self) -> io::Result<bool> {
        let Content::Named(_, StagingName { entry, private: Some(private) }) = &mut self.content
        else {
            return Ok(false);
        };
        if !needs_private_dir(&self.destination) {
            return Ok(false);
        }
        let surrounded = match &self.surrounded {
            Some(surrounded) => surrounded,
            None => {
                let surrounded = parents::surround(private, &entry.name, &self.destination)?;
                entry.name = surrounded.name.clone();
                self.surrounded.insert(surrounded)
            }
        };
        surrounded.publish(private, &self.destination)
    }

    /// Without a way to give the unnamed file a name, its content moves to one that has a name.
    fn copy_to_named(&mut self) -> io::Result<()> {
        let (named, name) = stage_named(&self.destination, &self.settings, self.owner)?;
        let mut unnamed = &**self.content.file();
        unnamed.rewind()?;
        io::copy(&mut unnamed, &mut &*named)?;
        (self.content, self.synced) = (Content::Named(named, name), Synced::No);
        Ok(())
    }

    fn failed(&self, error: io::Error, replace: Replace) -> Error {
        let is_busy = error.kind() == io::ErrorKind::ResourceBusy;
        let error = Error::new(Step::Publish, &self.destination.path, error);
        match replace {
            Replace::Only(_) if is_busy => error.with_hint(Hint::ReplacedMeanwhile),
            _ => error,
        }
    }
}

/// Renames a staging entry to the destination's name.
pub(crate) fn rename_into_place(
    from: &Directory,
    name: &Path,
    destination: &Destination,
    replaces: bool,
    replace: Replace,
) -> io::Result<Renamed> {
    if let Replace::Only(id) = replace {
        // Again, because syncing took its time. Those who ask for the lock wait; for the others, the two
        // calls leave the smallest gap there is: no system call compares and renames.
        check_is(id, destination.stat()?.as_ref(), destination)?;
    }
    let (to, new_name) = (&destination.directory, &destination.name);
    let renamed = match replace {
        _ if replaces => Os::rename_to(from, name, to, new_name),
        Replace::Nothing => Os::rename_new(from, name, to, new_name),
        // Where no call tells that something has appeared meanwhile, it is replaced.
        _ => match Os::rename_in_one_step(from, name, to, new_name) {
            Err(error) if Os::is_unsupported(&error) => Os::rename_to(from, name, to, new_name),
            renamed => renamed,
        },
    };
    match renamed {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Renamed::Appeared),
        // libfuse moves a destination that is open to another name first (`hide_node`), and fails if it
        // is not there, as while another mount does the same; or a parent is gone that had been made.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && Os::stat(from, name).is_ok_and(|staged| staged.is_some()) =>
        {
            Ok(Renamed::Appeared)
        }
        renamed => renamed.map(|()| Renamed::Done),
    }
}

fn check_is(file: FileId, current: Option<&Stat>, destination: &Destination) -> io::Result<()> {
    let is_same = |now: &Stat| now.id() == file;
    // What is known of a name may be older than what opening it finds (SeaweedFS).
    let opens = || {
        let opened = Os::open_to_compare(&destination.directory, &destination.name);
        opened.and_then(|opened| Os::stat_file(&opened)).is_ok_and(|now| is_same(&now))
    };
    match current.is_some_and(is_same) || destination.realm().is_some() && opens() {
        true => Ok(()),
        false => Err(Os::error(Code::Busy)),
    }
}

/// Content that is at the destination.
#[must_use]
pub(crate) struct Published {
    destination: Destination,
    settings: Settings,
    file: Arc<File>,
    _name: Released,
}

/// A staging name that leads to the destination now, and the staging directory that it was in. The lock is
/// let go, and the directory removed, when the destination's name is durable.
struct Released {
    _name: Name,
    _private: Option<PrivateDir>,
}

impl Published {
    /// Makes the name durable.
    pub(crate) fn sync_name(self) -> Result<(), Error> {
        sync_parent(&self.destination, &self.settings, &self.file, Outcome::Replaced)
    }
}

impl Publication {
    /// Makes the name durable; `false` if another writer was faster.
    pub(crate) fn sync_name(self) -> Result<bool, Error> {
        match self {
            Publication::Done(published) => published.sync_name().map(|()| true),
            Publication::Exists(_) => Ok(false),
        }
    }
}

/// Makes the name of a destination durable; `file` is any open file on its filesystem, and `outcome`
/// what has become of the destination so far.
pub(crate) fn sync_parent(
    destination: &Destination,
    settings: &Settings,
    file: &File,
    outcome: Outcome,
) -> Result<(), Error> {
    if settings.durability != Durability::Durable {
        return Ok(());
    }
    let sync = || {
        for name in &destination.missing_parents {
            Os::sync_child_directory(&destination.directory, name, file)?;
        }
        Os::sync_directory(&destination.directory, file)
    };
    sync().map_err(|error| {
        let error = Error::new(Step::SyncDirectory, &destination.path, error);
        error.with_outcome(outcome)
    })
}
