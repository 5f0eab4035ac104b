//! Whole directory trees, published in one step.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Outcome, Step};
use crate::hint::Hint;
use crate::options::WriteOptions;
use crate::platform::{Code, Kind, Os, Platform as _, Stat};
use crate::protocol::claim::{self, Asker, Creation};
use crate::protocol::destination::{check_creatable, check_directory};
use crate::protocol::exchange;
use crate::protocol::lock::Owner;
use crate::protocol::metadata;
use crate::protocol::parents::{self, Surrounded};
use crate::protocol::private_dir::{PrivateDir, StagedPath};
use crate::protocol::publish::{Replace, sync_parent};
use crate::protocol::resolve::Destination;
use crate::protocol::stage::needs_private_dir;
use crate::protocol::tree;
use crate::settings::{Durability, Settings};

/// Publishes the directory tree that the closure `build` makes at the path it is given, in one step:
/// a reader that opens `path` finds the old tree or the new one, never none, never a mixture.
///
/// ```
/// use std::fs;
/// use write_atomically::write_dir_atomically;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("site");
/// write_dir_atomically(&path, |site| {
///     fs::create_dir(site.join("css"))?;
///     fs::write(site.join("css/main.css"), "body { margin: 0 }")?;
///     fs::write(site.join("index.html"), "<h1>hello</h1>")?;
///     Ok(())
/// })?;
/// assert!(path.join("css/main.css").exists());
/// # anyhow::Ok(())
/// ```
///
/// See [`WriteOptions::write_dir`] for what is carried over, and for its errors.
#[cfg(feature = "anyhow")]
pub fn write_dir_atomically<T>(
    path: impl AsRef<Path>,
    build: impl FnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().anyhow().write_dir(path, build)
}

/// Publishes the directory tree that the closure `build` makes at the path it is given, if nothing is
/// at `path`; `None` if something is. Of many callers, one builds it.
///
/// ```
/// use std::fs;
/// use write_atomically::write_dir_if_missing;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("dataset");
/// # let download = |to: &std::path::Path| fs::write(to.join("part-0"), "0");
/// for built in [true, false] {
///     let result = write_dir_if_missing(&path, |dataset| Ok(download(dataset)?))?;
///     assert_eq!(result.is_some(), built);
/// }
/// assert!(path.join("part-0").exists());
/// # anyhow::Ok(())
/// ```
///
/// See [`WriteOptions::write_dir_if_missing`] for its errors.
#[cfg(feature = "anyhow")]
pub fn write_dir_if_missing<T>(
    path: impl AsRef<Path>,
    build: impl FnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    WriteOptions::new().anyhow().write_dir_if_missing(path, build)
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Publishes the directory tree that the closure `build` makes at the path it is given, in one
    /// step.
    ///
    /// The closure gets the absolute path of an empty directory, which has the destination's own name
    /// and is in a directory next to the destination that only the caller's user can enter (as with
    /// [`write_path`](Self::write_path)).
    ///
    /// A new tree is renamed to the destination. An existing one is exchanged with the new one, which
    /// gets its mode, owner, group, ACLs and attributes (those of the directory itself: its content is
    /// as the closure made it); then it is removed. Its files that are open stay readable until they
    /// are closed, but their names vanish: a program that reads a whole tree should open the directory
    /// once, read relative to that, and look afterwards whether the path still leads to the same
    /// directory.
    ///
    /// Symbolic links in the tree stay as they are, and are never followed, neither to sync nor to
    /// remove; nor is anything removed that is mounted in it.
    ///
    /// ```
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("site");
    /// WriteOptions::new().write_dir(&path, |site| std::fs::write(site.join("index.html"), "hello"))?;
    /// assert_eq!(std::fs::read_to_string(path.join("index.html"))?, "hello");
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), and nothing is left next to the destination. Refused before the
    /// closure runs are
    ///
    /// - a destination that exists and is no directory
    ///   ([`NotADirectory`](io::ErrorKind::NotADirectory)), one that is a mount point
    ///   ([`ResourceBusy`](io::ErrorKind::ResourceBusy)), or one that is not writable by the caller
    ///   (rename(2): renaming a directory requires write permission on it);
    /// - where a directory is to be replaced, a filesystem that can't exchange two directories
    ///   ([`Unsupported`](io::ErrorKind::Unsupported)): ext4, XFS, Btrfs, F2FS and tmpfs can, an
    ///   overlay can unless the directory comes from a lower layer, such as a container's image; macOS
    ///   can; Windows and the BSDs can't;
    /// - a tree with a part whose content the caller can't remove, as far as that can be seen in advance: the
    ///   error is about that part ([`Hint::Unremovable`]);
    /// - [`keep_failed`](Self::keep_failed), which saves files.
    ///
    /// [`Step::Remove`] says that the new tree is published, and durable, but the old one could not be
    /// removed completely: the rest is in the staging directory next to the destination
    /// ([`Hint::LeftBeside`]), and the next write to the destination tries again.
    ///
    /// # Durability
    ///
    /// Every file and directory of the tree is on stable storage before it is published. On Linux 5.8
    /// and later, on ext4, XFS, Btrfs, F2FS and tmpfs, this is one `syncfs` (which since then reports
    /// lost writes, of anybody's files on that filesystem); elsewhere, and for up to eight files, it is
    /// an `fsync` of each file and directory. Then come `renameat2` and the `fsync` of the parent
    /// directory. With [`Durability::Consistent`] the last is left out, with [`Durability::Relaxed`] all
    /// are.
    pub fn write_dir<T>(
        &self,
        path: impl AsRef<Path>,
        build: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let write = DirWrite::prepare(path.as_ref(), self.settings(), Owner::this_thread());
        let write = write.map_err(io::Error::from)?;
        let value = build(write.path())?;
        write.publish(Replace::Anything).map_err(io::Error::from)?;
        Ok(value)
    }

    /// Publishes the directory tree that the closure `build` makes at the path it is given, if nothing
    /// is at `path`; `None` if something is.
    ///
    /// It excludes others, and waits for them, as [`write_if_missing`](Self::write_if_missing) does; and
    /// runs the closure as [`write_dir`](Self::write_dir) does.
    ///
    /// ```
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("cache/dataset");
    /// let cached = WriteOptions::new().create_parents(true);
    /// let load = || cached.write_dir_if_missing(&path, |to| std::fs::write(to.join("part-0"), "0"));
    /// assert_eq!((load()?, load()?), (Some(()), None));
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write_dir`](Self::write_dir) and [`write_if_missing`](Self::write_if_missing).
    pub fn write_dir_if_missing<T>(
        &self,
        path: impl AsRef<Path>,
        build: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let (path, settings) = (path.as_ref(), self.settings());
        let asker = Asker::this_thread(settings);
        let write = match to_create(path, settings, asker).map_err(io::Error::from)? {
            Creation::Exists => return Ok(None),
            Creation::Mine(destination, private) => {
                DirWrite::claimed(destination, private, settings, asker.owner)
            }
            Creation::Busy => Err(claim::timed_out(path)),
        };
        let write = write.map_err(io::Error::from)?;
        let value = build(write.path())?;
        let published = write.publish(Replace::Nothing).map_err(io::Error::from)?;
        Ok(published.then_some(value))
    }
}

pub(crate) fn to_create(
    path: &Path,
    settings: &Settings,
    asker: Asker,
) -> Result<Creation<PrivateDir>, Error> {
    check_settings(path, settings)?;
    let ask = |destination: &Destination| claim::missing_by_path(destination, settings, asker);
    claim::to_create(path, || resolve(path, settings), ask)
}

/// A directory that the closure is to fill.
pub(crate) struct DirWrite {
    destination: Destination,
    settings: Settings,
    staged: StagedPath,
    /// Open since before the closure runs, so that syncing its filesystem reports the closure's writes
    /// that were lost.
    filesystem: File,
    /// Parents that were missing have been made around the tree.
    surrounded: Option<Surrounded>,
}

/// What became of an attempt to move the tree to the destination.
enum Moved {
    Done,
    /// The destination has come or gone since the last look.
    Changed,
}

impl DirWrite {
    pub(crate) fn prepare(
        path: &Path,
        settings: &Settings,
        owner: Owner,
    ) -> Result<DirWrite, Error> {
        check_settings(path, settings)?;
        let destination = resolve(path, settings)?;
        check_creatable(&destination)?;
        if let Some(found) = &destination.at_start {
            check_directory(&destination, found, Step::Resolve)?;
        }
        let staged = StagedPath::create(&destination, owner)?;
        DirWrite::with(destination, staged, settings)
    }

    pub(crate) fn claimed(
        destination: Destination,
        private: Option<PrivateDir>,
        settings: &Settings,
        owner: Owner,
    ) -> Result<DirWrite, Error> {
        let staged = match private {
            Some(private) => StagedPath::inside(&destination, private)?,
            None => StagedPath::create(&destination, owner)?,
        };
        DirWrite::with(destination, staged, settings)
    }

    fn with(
        destination: Destination,
        staged: StagedPath,
        settings: &Settings,
    ) -> Result<DirWrite, Error> {
        let directory = &staged.private.directory;
        let at = |error| Error::new(Step::Stage, &destination.path, error);
        let mode = settings.new_file_mode.map_or(0o777, searchable);
        Os::make_directory(directory, &staged.name, mode).map_err(at)?;
        if destination.at_start.is_some() {
            exchange::check(&staged, &destination)?;
            check_removable(&destination)?;
        }
        let filesystem = Os::open_itself(directory).map_err(at)?;
        Ok(DirWrite {
            destination,
            settings: settings.clone(),
            staged,
            filesystem,
            surrounded: None,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.staged.path
    }

    /// The closure has returned `Ok`. `false` if another writer was faster and nothing may be replaced.
    pub(crate) fn publish(mut self, replace: Replace) -> Result<bool, Error> {
        let path = self.destination.path.clone();
        let (top, stat) = self.staged.open(&path)?;
        if stat.kind != Kind::Directory {
            let error = Error::new(Step::Publish, &path, Os::error(Code::NotADirectory));
            return Err(error.with_hint(Hint::WrongKind));
        }
        if !self.try_publish(&top, replace)? {
            return Ok(false);
        }
        // CryFS 0.11 waits for ever where a directory is removed while what was in it is open.
        drop(top);
        let DirWrite { destination, settings, staged, filesystem, .. } = self;
        sync_parent(&destination, &settings, &filesystem, Outcome::Replaced)?;
        let removed = staged.private.remove();
        let failed = |error| {
            let error = Error::new(Step::Remove, &path, error).with_hint(Hint::LeftBeside);
            error.with_outcome(Outcome::Replaced)
        };
        removed.map_err(failed).map(|()| true)
    }

    fn try_publish(&mut self, top: &File, replace: Replace) -> Result<bool, Error> {
        let path = self.destination.path.clone();
        let at = |step| Error::at(step, &path);
        for _ in 0..ATTEMPTS {
            let current = self.destination.stat().map_err(at(Step::Publish))?;
            if current.is_some() && replace == Replace::Nothing {
                return Ok(false);
            }
            if let Some(current) = &current {
                check_directory(&self.destination, current, Step::Publish)?;
            }
            self.apply_metadata(current.as_ref(), top).map_err(at(Step::Metadata))?;
            let mode = keep_accessible(top).map_err(at(Step::Metadata))?;
            self.sync().map_err(at(Step::Sync))?;
            match self.rename(current.as_ref()).map_err(|error| self.failed(error))? {
                Moved::Done => {
                    restore(top, mode).map_err(|error| {
                        at(Step::Metadata)(error).with_outcome(Outcome::Replaced)
                    })?;
                    return Ok(true);
                }
                Moved::Changed => {}
            }
        }
        Err(at(Step::Publish)(Os::error(Code::AlreadyExists)))
    }

    /// A directory that has appeared while the closure ran may be one that can't be exchanged here.
    fn failed(&self, error: io::Error) -> Error {
        let lacks_exchange = self.destination.at_start.is_none() && Os::is_unsupported(&error);
        match lacks_exchange {
            true => Error::new(Step::Publish, &self.destination.path, Os::error(Code::Unsupported))
                .with_hint(Hint::NoExchange),
            false => Error::new(Step::Publish, &self.destination.path, error),
        }
    }

    fn apply_metadata(&self, current: Option<&Stat>, top: &File) -> io::Result<()> {
        let (mode, preserve) = (self.settings.mode, self.settings.preserve_metadata);
        let is_directory = |stat: &&Stat| stat.kind == Kind::Directory && preserve;
        if let Some(old) = current.filter(is_directory) {
            return metadata::carry_over_directory(&self.destination, old, top, mode);
        }
        if let Some(mode) = mode {
            return metadata::set_exact_mode(top, &Os::stat_file(top)?, mode);
        }
        match self.destination.at_start.as_ref().filter(is_directory) {
            Some(gone) => metadata::carry_mode_over(&self.destination, gone, top),
            None => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        if self.settings.durability == Durability::Relaxed {
            return Ok(());
        }
        let (directory, name) = (&self.staged.private.directory, &self.staged.name);
        tree::sync(&Os::open_subdirectory(directory, name)?, &self.filesystem)
    }

    /// Moves the tree to the destination's name, and an old tree to where the new one was, in one step.
    fn rename(&mut self, old: Option<&Stat>) -> io::Result<Moved> {
        let private = &self.staged.private;
        if needs_private_dir(&self.destination) {
            let surrounded = match self.surrounded.take() {
                Some(surrounded) => surrounded,
                None => parents::surround(private, &self.staged.name, &self.destination)?,
            };
            self.staged.name = surrounded.name.clone();
            if self.surrounded.insert(surrounded).publish(private, &self.destination)? {
                return Ok(Moved::Done);
            }
        }
        let parents = self.destination.make_parents()?;
        let (from, name) = (&private.directory, &self.staged.name);
        let (to, new_name) = (&self.destination.directory, &self.destination.name);
        let (moved, changed) = match old {
            Some(_) => (Os::exchange(from, name, to, new_name), io::ErrorKind::NotFound),
            None => {
                let moved = Os::rename_new_directory(from, name, to, new_name);
                (moved, io::ErrorKind::AlreadyExists)
            }
        };
        match moved {
            Err(error) if error.kind() == changed => Ok(Moved::Changed),
            Err(error) => Err(error),
            Ok(()) => {
                parents.disarm();
                Ok(Moved::Done)
            }
        }
    }
}

/// How often the destination may come or go between a look and the rename before publishing gives up.
const ATTEMPTS: u32 = 100;

/// A directory's mode from a file's: those who may read it may search it.
fn searchable(mode: u32) -> u32 {
    mode | (mode & 0o444) >> 2
}

fn check_settings(path: &Path, settings: &Settings) -> Result<(), Error> {
    match settings.keep_failed {
        Some(_) => {
            let error = Os::error(Code::Unsupported);
            Err(Error::new(Step::Resolve, path, error).with_hint(Hint::KeepsOnlyFiles))
        }
        None => Ok(()),
    }
}

fn has_no_name(path: &Path) -> bool {
    path.file_name().is_none() && !path.as_os_str().is_empty()
}

fn resolve(path: &Path, settings: &Settings) -> Result<Destination, Error> {
    let at = |code| Error::new(Step::Resolve, path, Os::error(code));
    // `out/` is `out`.
    let plain: PathBuf = path.components().collect();
    if has_no_name(&plain) {
        return Err(at(Code::Busy).with_hint(Hint::NoName));
    }
    let destination = Destination::resolve(&plain, settings)?.shown_as(path);
    match destination.is_magic_link {
        true => Err(at(Code::Unsupported).with_hint(Hint::LinkToOpenFile)),
        false => Ok(destination),
    }
}

/// rename(2): moving a directory requires write permission on it; syncing its content requires the
/// permission to search it. Bits that the owner is not to have in the end are taken away after the
/// rename.
fn keep_accessible(top: &File) -> io::Result<u32> {
    const OWNER: u32 = 0o700;
    let mode = Os::stat_file(top)?.mode;
    if mode & OWNER != OWNER {
        Os::set_mode(top, mode | OWNER)?;
    }
    Ok(mode)
}

fn restore(top: &File, mode: u32) -> io::Result<()> {
    match Os::stat_file(top)?.mode == mode {
        true => Ok(()),
        false => Os::set_mode(top, mode),
    }
}

/// What could not be removed would stay beside the destination, once more with each call.
fn check_removable(destination: &Destination) -> Result<(), Error> {
    let (directory, name, path) = (&destination.directory, &destination.name, &destination.path);
    let top = match Os::open_subdirectory(directory, name) {
        Ok(top) => top,
        // Its owner can change its mode.
        Err(_) => return Ok(()),
    };
    match tree::find_unremovable(&top).map_err(Error::at(Step::Resolve, path))? {
        None => Ok(()),
        Some(part) => {
            let error = Error::new(Step::Resolve, path.join(part), Os::error(Code::NoAccess));
            Err(error.with_hint(Hint::Unremovable))
        }
    }
}
