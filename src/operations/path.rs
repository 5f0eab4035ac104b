//! Files whose producers insist on a path.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Step};
use crate::hint::Hint;
use crate::options::WriteOptions;
use crate::platform::{self, Code, Kind, Os, Platform as _, Stat};
use crate::protocol::claim::{self, Asker, Creation};
use crate::protocol::destination::{Route, check_replaceable_kind};
use crate::protocol::entry::{self, Entry};
use crate::protocol::failed_output::FailedOutput;
use crate::protocol::guard::{CleanUp, Guard};
use crate::protocol::lock::Owner;
use crate::protocol::metadata;
use crate::protocol::private_dir::{PrivateDir, StagedPath};
use crate::protocol::publish::{Replace, Written};
use crate::protocol::resolve::Destination;
use crate::protocol::stage::{Content, StagingName, staging_mode};
use crate::settings::Settings;
use crate::sparse;

/// Publishes the file that the closure `produce` leaves at the path it is given: for producers that
/// insist on a path, like image encoders, SQLite and most C tools.
///
/// ```
/// use std::process::Command;
/// use write_atomically::write_path_atomically;
///
/// # #[cfg(unix)] {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("sorted.txt");
/// write_path_atomically(&path, |staged| {
///     std::fs::write(staged, "b\na\n")?;
///     let status = Command::new("sort").arg("-o").arg(staged).arg(staged).status()?;
///     anyhow::ensure!(status.success(), "sort failed: {status}");
///     Ok(())
/// })?;
/// assert_eq!(std::fs::read_to_string(&path)?, "a\nb\n");
/// # }
/// # anyhow::Ok(())
/// ```
///
/// See [`WriteOptions::write_path`] for the staging path, and for its errors.
#[cfg(feature = "anyhow")]
pub fn write_path_atomically<T>(
    path: impl AsRef<Path>,
    produce: impl FnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().anyhow().write_path(path, produce)
}

/// Publishes the file that the closure `produce` leaves at the path it is given, if nothing is at
/// `path`; `None` if something is. Of many callers, one computes it.
///
/// ```
/// use write_atomically::write_path_if_missing;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.bin");
/// for expected in [Some(5), None] {
///     let bytes = write_path_if_missing(&path, |staged| {
///         std::fs::write(staged, "model")?;
///         Ok(std::fs::metadata(staged)?.len())
///     })?;
///     assert_eq!(bytes, expected);
/// }
/// # anyhow::Ok(())
/// ```
///
/// See [`WriteOptions::write_path_if_missing`] for its errors.
#[cfg(feature = "anyhow")]
pub fn write_path_if_missing<T>(
    path: impl AsRef<Path>,
    produce: impl FnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    WriteOptions::new().anyhow().write_path_if_missing(path, produce)
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Publishes the file that the closure `produce` leaves at the path it is given.
    ///
    /// The staging path is absolute, ends in the destination's own name, extension included, and is in
    /// a directory next to the destination that only the caller's user can enter (mode `1700`; on
    /// Windows it is hidden, and inherits its access list from the directory around it). Nothing is at
    /// the path when the closure starts. Other files that the closure leaves next to it (journals,
    /// backups) are removed; and it may write a new file and rename it over the staging path.
    ///
    /// The metadata of a file that is replaced is carried over; a new one has the mode that its
    /// producer gave it.
    ///
    /// ```
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("report.csv");
    /// WriteOptions::new().write_path(&path, |staged| {
    ///     assert_eq!(staged.file_name(), path.file_name());
    ///     std::fs::write(staged, "id,total\n")
    /// })?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "id,total\n");
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), and nothing is left next to the destination;
    /// - of [`Step::Publish`] and kind [`ResourceBusy`](io::ErrorKind::ResourceBusy) if a database's journal
    ///   (`NAME-wal` or `NAME-journal`, not empty) is beside the file: an SQLite connection is still open,
    ///   and the file alone is not the database. `PRAGMA wal_checkpoint(TRUNCATE)` and closing end that;
    /// - of [`Step::Publish`] if the closure has returned `Ok` and left no regular file at the staging
    ///   path: nothing, a directory, a FIFO, a symbolic link (which is not followed). A file that has
    ///   another name, too (a hard link) is published as a copy;
    /// - of kind [`Unsupported`](io::ErrorKind::Unsupported), before the closure runs, if the
    ///   destination is no regular file: [`write`](Self::write) writes into those.
    ///
    /// With [`in_place_fallback`](Self::in_place_fallback) the file is copied into a destination that
    /// can't be renamed over. That needs a directory around it in which the caller may create one.
    ///
    /// # Durability
    ///
    /// `fdatasync` of the file, `renameat` over the destination, `fsync` of the directory, in this order.
    /// On Linux 4.17 and later (commit b4678df184b3) `fdatasync` reports write errors that were made
    /// through other descriptors, except those that the producer's own `fsync` has reported. A power cut
    /// may leave the empty staging directory; the next write to the destination removes it.
    pub fn write_path<T>(
        &self,
        path: impl AsRef<Path>,
        produce: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let write = PathWrite::prepare(path.as_ref(), self.settings(), Owner::this_thread());
        let write = write.map_err(io::Error::from)?;
        let value = produce(write.path())?;
        write.publish(Replace::Anything).map_err(io::Error::from)?;
        Ok(value)
    }

    /// Publishes the file that the closure `produce` leaves at the path it is given, if nothing is at
    /// `path`; `None` if something is.
    ///
    /// It excludes others, and waits for them, as [`write_if_missing`](Self::write_if_missing) does; and
    /// runs the closure as [`write_path`](Self::write_path) does.
    ///
    /// ```
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("cache/model.bin");
    /// let cached = WriteOptions::new().create_parents(true);
    /// let load = || cached.write_path_if_missing(&path, |staged| std::fs::write(staged, "model"));
    /// assert_eq!((load()?, load()?), (Some(()), None));
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write_path`](Self::write_path) and [`write_if_missing`](Self::write_if_missing).
    pub fn write_path_if_missing<T>(
        &self,
        path: impl AsRef<Path>,
        produce: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let (path, settings) = (path.as_ref(), self.settings());
        let asker = Asker::this_thread(settings);
        let write = match to_create(path, settings, asker).map_err(io::Error::from)? {
            Creation::Exists => return Ok(None),
            Creation::Mine(destination, private) => {
                PathWrite::claimed(destination, private, settings, asker.owner)
            }
            Creation::Busy => Err(claim::timed_out(path)),
        };
        let write = write.map_err(io::Error::from)?;
        let value = produce(write.path())?;
        let published = write.publish(Replace::Nothing).map_err(io::Error::from)?;
        Ok(published.then_some(value))
    }
}

pub(crate) fn to_create(
    path: &Path,
    settings: &Settings,
    asker: Asker,
) -> Result<Creation<PrivateDir>, Error> {
    let ask = |destination: &Destination| claim::missing_by_path(destination, settings, asker);
    claim::to_create(path, || Destination::resolve(path, settings), ask)
}

/// A path at which the closure is to leave a file.
pub(crate) struct PathWrite {
    settings: Settings,
    route: Route,
    owner: Owner,
    producing: Guard<Producing>,
}

/// What becomes of the file at the path if the closure fails, panics or is cancelled.
struct Producing {
    staged: StagedPath,
    failed_output: Option<FailedOutput>,
}

impl CleanUp for Producing {
    fn clean_up(mut self) {
        let Some(failed_output) = self.failed_output else { return };
        let path = self.staged.path.clone();
        if let Ok((file, Stat { kind: Kind::File, .. })) = self.staged.open(&path) {
            failed_output.save(Arc::new(file));
        }
    }
}

impl PathWrite {
    pub(crate) fn prepare(
        path: &Path,
        settings: &Settings,
        owner: Owner,
    ) -> Result<PathWrite, Error> {
        let destination = Destination::resolve(path, settings)?;
        check_replaceable_kind(&destination, Hint::NotReplaceable)?;
        let route = Route::of(destination, settings)?;
        let staged = StagedPath::create(route.destination(), owner)?;
        PathWrite::with(route, staged, settings, owner)
    }

    pub(crate) fn claimed(
        destination: Destination,
        private: Option<PrivateDir>,
        settings: &Settings,
        owner: Owner,
    ) -> Result<PathWrite, Error> {
        let staged = match private {
            Some(private) => StagedPath::inside(&destination, private)?,
            None => StagedPath::create(&destination, owner)?,
        };
        PathWrite::with(Route::Rename(destination), staged, settings, owner)
    }

    fn with(
        route: Route,
        staged: StagedPath,
        settings: &Settings,
        owner: Owner,
    ) -> Result<PathWrite, Error> {
        let failed_output = FailedOutput::prepare(route.destination(), settings)?;
        let producing = Guard::new(Producing { staged, failed_output });
        Ok(PathWrite { settings: settings.clone(), route, owner, producing })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.producing.staged.path
    }

    /// The closure has returned `Ok`. `false` if another writer was faster and nothing may be replaced.
    pub(crate) fn publish(self, replace: Replace) -> Result<bool, Error> {
        let PathWrite { settings, route, owner, mut producing } = self;
        let path = route.destination().path.clone();
        let (file, entry) = open_result(&mut producing.staged, &path)?;
        let Producing { failed_output, staged } = producing.disarm();
        // The directory is removed with the name, with all that is left in it. libfuse keeps a file that is open when
        // its name is removed, and so the directory around it; CryFS 0.11 waits for ever.
        let name = StagingName { entry, private: Some(staged.private) };
        match route {
            Route::Rename(destination) => {
                let content = Content::Named(file, name);
                rename(destination, settings, owner, content, replace, failed_output)
            }
            Route::InPlace(in_place) => {
                let copied = in_place.copy(&file, &settings).map(|()| true);
                if let (Err(_), Some(failed_output)) = (&copied, failed_output) {
                    failed_output.save(file.clone());
                }
                drop(file);
                drop(name);
                copied
            }
        }
    }
}

fn rename(
    destination: Destination,
    settings: Settings,
    owner: Owner,
    content: Content,
    replace: Replace,
    failed_output: Option<FailedOutput>,
) -> Result<bool, Error> {
    let save = |content: &Content| {
        if let Some(failed_output) = failed_output {
            failed_output.save(content.file().clone());
        }
    };
    if staging_mode(&destination, &settings) == 0o600 {
        // Writing `user.*` attributes needs write access (xattr(7)). Nobody else can enter the directory
        // around it, until it has the destination's own mode.
        if let Err(error) = metadata::open_to_owner(content.file()) {
            save(&content);
            return Err(Error::new(Step::Metadata, &destination.path, error));
        }
    }
    let written = Written::new(destination, settings, content, owner);
    match written.publish(replace) {
        Ok(publication) => publication.sync_name(),
        Err(not_published) => {
            save(&not_published.content);
            Err(not_published.error)
        }
    }
}

/// The file that the closure left: a regular file with no other name.
fn open_result(staged: &mut StagedPath, path: &Path) -> Result<(Arc<File>, Entry), Error> {
    let at = |step| Error::at(step, path);
    let (file, stat) = staged.open(path)?;
    let wrong = |code| Err(at(Step::Publish)(Os::error(code)).with_hint(Hint::WrongKind));
    match stat.kind {
        Kind::File => {}
        Kind::Directory => return wrong(Code::IsADirectory),
        Kind::Symlink | Kind::Other => return wrong(Code::InvalidName),
    }
    check_journals(staged, path)?;
    let entry = staged.entry();
    match stat.links {
        0 | 1 => Ok((Arc::new(file), entry)),
        _ => copy(file, &stat, &entry).map_err(at(Step::Stage)),
    }
}

/// The last changes of an SQLite database whose connection is still open are in `NAME-wal` (in WAL mode) or
/// can be undone only with `NAME-journal` (sqlite.org, "Temporary Files Used By SQLite"). These files would
/// be removed with the staging directory, and the database would lose what they hold.
fn check_journals(staged: &StagedPath, path: &Path) -> Result<(), Error> {
    let at = |error| Error::new(Step::Publish, path, error);
    for suffix in ["-wal", "-journal"] {
        let mut name = staged.name.clone().into_os_string();
        name.push(suffix);
        let journal = Os::stat(&staged.private.directory, Path::new(&name)).map_err(at)?;
        if journal.is_some_and(|journal| journal.kind == Kind::File && journal.len > 0) {
            return Err(at(Os::error(Code::Busy)).with_hint(Hint::JournalLeft));
        }
    }
    Ok(())
}

/// If a producer links a file from its cache instead of writing one, the destination's metadata would
/// be set on the file in the cache, which would also change along with the destination. So that is
/// published as a copy.
fn copy(file: File, stat: &Stat, linked: &Entry) -> io::Result<(Arc<File>, Entry)> {
    let directory = linked.directory.clone();
    let name = PathBuf::from(format!("{:08x}", platform::random()));
    let copy = Os::stage_named(&directory, &name, 0o600)?;
    let entry = entry::inside(directory, name);
    sparse::copy(&file, &copy)?;
    Os::set_mode(&copy, stat.mode & 0o777)?;
    Ok((Arc::new(copy), entry))
}
