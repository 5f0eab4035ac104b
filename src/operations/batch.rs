//! Many files: none is published unless all are complete, and they are synced together.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Outcome, Step};
use crate::hint::Hint;
use crate::options::WriteOptions;
use crate::platform::{Code, Os, Platform as _, Stat};
use crate::protocol::batch_dirs::BatchDirs;
use crate::protocol::destination::{Route, check_current, check_replaceable_kind, refusal};
use crate::protocol::entry;
use crate::protocol::fill::{Filled, Staged};
use crate::protocol::lock::Owner;
use crate::protocol::parents;
use crate::protocol::publish::{Renamed, Replace, Written, rename_into_place};
use crate::protocol::resolve::{Destination, Place};
use crate::protocol::stage::{Content, StagingName, hidden_mode, needs_private_dir};
use crate::protocol::tree::SMALL;
use crate::settings::{Durability, Settings};
use crate::writer::Writer;

/// Writes many files, none of which appears before the closure `fill` has returned `Ok`, and syncs
/// them together: much faster than one by one.
///
/// ```
/// use std::io::Write;
/// use write_atomically::write_batch;
///
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// write_batch(|batch| {
///     for n in 1..=100 {
///         batch.write(directory.join(format!("{n}.txt")), |w| {
///             writeln!(w, "{n}")?;
///             Ok(())
///         })?;
///     }
///     Ok(())
/// })?;
/// assert_eq!(std::fs::read_to_string(directory.join("100.txt"))?, "100\n");
/// # anyhow::Ok(())
/// ```
///
/// See [`WriteOptions::write_batch`] for its promises and its errors.
#[cfg(feature = "anyhow")]
pub fn write_batch<T>(
    fill: impl FnOnce(&mut Batch<anyhow::Error>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().anyhow().write_batch(fill)
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Writes many files, none of which appears before the closure `fill` has returned `Ok`.
    ///
    /// The files may be in any number of directories, on several filesystems; they are written one
    /// after the other, and none of them stays open. Each is published whole, as by
    /// [`write`](Self::write), but one after the other: a reader may see some of them new and others
    /// still old, and so may a program that starts after a kill or a power cut in the middle of
    /// publishing. A set of files is not one transaction.
    ///
    /// A kill leaves at most one staging entry in each directory, named after the first of the batch's
    /// files there. The next batch or write that has this file among its destinations removes it.
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let directory = directory.path();
    /// WriteOptions::new().write_batch(|batch| {
    ///     batch.write(directory.join("a.txt"), |w| w.write_all(b"a"))?;
    ///     batch.write(directory.join("b.txt"), |w| w.write_all(b"b"))
    /// })?;
    /// assert_eq!(std::fs::read_to_string(directory.join("b.txt"))?, "b");
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// The closure's own error, unchanged; then nothing is published. Otherwise an [`Error`]:
    /// [`published`](Error::published) lists the destinations that have been replaced, all others are
    /// as they were. If the closure returns `Ok` although one of the batch's files had failed, that
    /// file is not part of the batch.
    ///
    /// Where batches can't be staged (WASI) the closure does not run, and the error is of kind
    /// [`Unsupported`](io::ErrorKind::Unsupported).
    ///
    /// # Durability
    ///
    /// The content of all files is on stable storage before the first is published. On Linux 5.8 and
    /// later, on ext4, XFS, Btrfs, F2FS and tmpfs, this is one `syncfs` for each filesystem (which since
    /// then reports lost writes, of anybody's files there, so that the batch fails if there were any);
    /// elsewhere, and for up to eight files, it is an `fdatasync` of each file while it is open. Then
    /// each is renamed, and each directory gets one `fsync`. With [`Durability::Consistent`] the last is
    /// left out, with [`Durability::Relaxed`] all are.
    pub fn write_batch<T>(&self, fill: impl FnOnce(&mut Batch<E>) -> Result<T, E>) -> Result<T, E> {
        let mut batch =
            Batch { files: Files::new(self.settings(), Owner::this_thread())?, error: PhantomData };
        let value = fill(&mut batch)?;
        batch.files.publish().map_err(io::Error::from)?;
        Ok(value)
    }
}

/// The files of one [`write_batch`](crate::WriteOptions::write_batch): written one after the other,
/// published together.
///
/// `E` is the error type of the closures, that of the [`WriteOptions`].
///
/// ```
/// use std::io::Write;
/// use write_atomically::{Batch, write_batch};
///
/// fn add(batch: &mut Batch<anyhow::Error>, directory: &std::path::Path, n: u32) -> anyhow::Result<()> {
///     batch.write(directory.join(format!("{n}.txt")), |w| Ok(writeln!(w, "{n}")?))
/// }
///
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// write_batch(|batch| (1..=3).try_for_each(|n| add(batch, directory, n)))?;
/// assert_eq!(std::fs::read_to_string(directory.join("3.txt"))?, "3\n");
/// # anyhow::Ok(())
/// ```
pub struct Batch<E = io::Error> {
    files: Files,
    error: PhantomData<fn() -> E>,
}

impl<E> fmt::Debug for Batch<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("files", &self.len()).finish_non_exhaustive()
    }
}

impl<E> Batch<E> {
    /// The number of files that are complete.
    pub fn len(&self) -> usize {
        self.files.list.len()
    }

    /// Whether no file is complete yet.
    pub fn is_empty(&self) -> bool {
        self.files.list.is_empty()
    }
}

impl<E: From<io::Error>> Batch<E> {
    /// Writes one of the batch's files, which will appear at `path` together with the others.
    ///
    /// If the closure fails, nothing will be published at `path`, and the same path can be written
    /// again: whether that ends the whole batch is for the closure of
    /// [`write_batch`](crate::WriteOptions::write_batch) to decide.
    ///
    /// ```
    /// use std::io::Write;
    /// use write_atomically::write_batch;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let (data, index) = (directory.path().join("data"), directory.path().join("index"));
    /// write_batch(|batch| {
    ///     let length = batch.write(&data, |w| {
    ///         w.write_all(b"content")?;
    ///         Ok(7)
    ///     })?;
    ///     assert!(!data.exists());
    ///     batch.write(&index, |w| Ok(writeln!(w, "data {length}")?))
    /// })?;
    /// assert_eq!(std::fs::read_to_string(&index)?, "data 7\n");
    /// # anyhow::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// The closure's own error, unchanged; otherwise an [`Error`] inside an [`io::Error`]. The
    /// destination is as it was.
    ///
    /// A destination that [`write`](crate::WriteOptions::write) refuses is refused here, before the
    /// closure runs; and so is a path that this batch has written already, and a destination that is
    /// never replaced but written in place (a device, a FIFO, or one that needs
    /// [`in_place_fallback`](WriteOptions::in_place_fallback)): it could not appear together with the
    /// others.
    pub fn write<T>(
        &mut self,
        path: impl AsRef<Path>,
        fill: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let (mut staged, key) = self.files.stage(path.as_ref()).map_err(io::Error::from)?;
        let value = fill(&mut staged.filling.writer)?;
        let filled = staged.finish()?;
        self.files.add(filled, key).map_err(io::Error::from)?;
        Ok(value)
    }
}

/// The files that are complete, and their staging directories.
pub(crate) struct Files {
    settings: Settings,
    owner: Owner,
    list: Vec<Parked>,
    taken: HashSet<Key>,
    directories: BatchDirs,
}

/// A destination: the number of its directory, and its name there.
pub(crate) type Key = (usize, PathBuf);

/// A file that is complete, and waits for the others.
struct Parked {
    place: Arc<Place>,
    /// The number of its directory.
    directory: usize,
    /// Its name in the private staging directory there.
    staged_as: PathBuf,
    /// Open while the files are few.
    file: Option<Arc<File>>,
    replaces: bool,
}

impl Files {
    pub(crate) fn new(settings: &Settings, owner: Owner) -> io::Result<Files> {
        if !Os::HAS_PRIVATE_DIRECTORIES {
            let lacking = "batches need directories that show whether their writer is alive";
            return Err(io::Error::new(io::ErrorKind::Unsupported, lacking));
        }
        let (settings, directories) = (settings.clone(), BatchDirs::new(owner));
        Ok(Files { settings, owner, list: Vec::new(), taken: HashSet::new(), directories })
    }

    /// A staging file for one more destination.
    pub(crate) fn stage(&mut self, path: &Path) -> Result<(Staged, Key), Error> {
        let destination = self.find(path)?;
        let at = |error| Error::new(Step::Stage, path, error);
        let directory = self.directories.enter(&destination).map_err(at)?;
        let key = (directory, destination.name.clone());
        if self.taken.contains(&key) {
            let error = io::Error::from(io::ErrorKind::InvalidInput);
            let error = Error::new(Step::Resolve, path, error);
            return Err(error.with_hint(Hint::AlreadyInBatch));
        }
        let mode = hidden_mode(&destination, &self.settings);
        let (file, entry) = self.directories.stage(directory, mode).map_err(at)?;
        let staged = (Arc::new(file), Some(StagingName { entry, private: None }));
        Ok((Staged::with(destination, &self.settings, self.owner, staged)?, key))
    }

    fn find(&self, path: &Path) -> Result<Destination, Error> {
        let destination = Destination::resolve(path, &self.settings)?;
        check_replaceable_kind(&destination, Hint::InPlaceInBatch)?;
        match Route::of(destination, &self.settings)? {
            Route::Rename(destination) => Ok(destination),
            Route::InPlace(in_place) => {
                let refusal = refusal(&in_place.destination, Code::Unsupported);
                Err(refusal.with_hint(Hint::InPlaceInBatch))
            }
        }
    }

    /// Keeps what publishing needs to know of a file.
    pub(crate) fn add(&mut self, filled: Filled, (directory, name): Key) -> Result<(), Error> {
        let Written { destination, content, .. } = filled.written;
        let Content::Named(file, StagingName { entry, .. }) = content else {
            return Err(refusal(&destination, Code::NotFound));
        };
        let is_relaxed = self.settings.durability == Durability::Relaxed;
        if !self.directories.filesystem(directory).reports_losses
            && (!is_relaxed || Os::writes_on_close(&file))
        {
            // Later, with the file closed, an error could be lost.
            Os::sync_file(&file).map_err(Error::at(Step::Sync, &destination.path))?;
        }
        if self.list.len() == SMALL {
            self.list.iter_mut().for_each(|parked| parked.file = None);
        }
        let file = (self.list.len() < SMALL).then_some(file);
        let (place, staged_as) = (destination.place.clone(), entry.disarm().name);
        self.list.push(Parked { place, directory, staged_as, file, replaces: false });
        self.taken.insert((directory, name));
        Ok(())
    }

    /// Takes the file that was added last out again; its staging directory goes with the others.
    #[cfg(feature = "tokio")]
    pub(crate) fn forget_last(&mut self, key: &Key) {
        self.list.pop();
        self.taken.remove(key);
    }

    pub(crate) fn publish(mut self) -> Result<(), Error> {
        self.directories.release_reserve();
        let mut files = take(&mut self.list);
        for file in &mut files {
            self.prepare(file)?;
        }
        self.sync(&mut files)?;
        let mut published = 0;
        let result = files.iter_mut().try_for_each(|file| {
            self.rename(file)?;
            published += 1;
            Ok(())
        });
        let synced = self.sync_parents(&files[..published]);
        result.and(synced).map_err(|error: Error| {
            let published = files[..published].iter().map(|file| file.place.path.clone());
            error.with_published(published.collect())
        })
    }

    /// Gives a staged file its destination's metadata.
    fn prepare(&mut self, parked: &mut Parked) -> Result<(), Error> {
        let place = parked.place.clone();
        let at = |step| Error::at(step, &place.path);
        let destination = self.destination(parked).map_err(at(Step::Publish))?;
        let private = self.directories.open(parked.directory).map_err(at(Step::Publish))?;
        // A dead entry of an earlier call on this file, if this batch does not use its name itself.
        entry::sweep_unless(&destination, &private.name);
        let current = destination.stat().map_err(at(Step::Publish))?;
        check_current(current.as_ref(), &self.settings).map_err(at(Step::Publish))?;
        parked.replaces = current.is_some();
        if current.is_none() && place.at_start.is_none() && self.settings.mode.is_none() {
            return Ok(());
        }
        self.apply_metadata(parked, destination, current.as_ref())
    }

    fn apply_metadata(
        &mut self,
        parked: &mut Parked,
        destination: Destination,
        current: Option<&Stat>,
    ) -> Result<(), Error> {
        let place = parked.place.clone();
        let at = |step| Error::at(step, &place.path);
        let private = self.directories.open(parked.directory).map_err(at(Step::Publish))?;
        let was_open = parked.file.is_some();
        let file = match parked.file.take() {
            Some(file) => file,
            None => Os::open_to_finish(&private.directory, &parked.staged_as)
                .map(Arc::new)
                .map_err(at(Step::Metadata))?,
        };
        let (settings, content) = (self.settings.clone(), Content::Unnamed(file.clone()));
        let mut written = Written::new(destination, settings, content, self.owner);
        written.apply_metadata(current).map_err(at(Step::Metadata))?;
        if self.settings.durability != Durability::Relaxed
            && !self.directories.filesystem(parked.directory).reports_losses
        {
            Os::sync_file(&file).map_err(at(Step::Sync))?;
        }
        parked.file = was_open.then_some(file);
        Ok(())
    }

    /// Brings the content of all files to stable storage, and closes them: a file that is open for
    /// writing can't be executed (execve(2), ETXTBSY).
    fn sync(&mut self, files: &mut [Parked]) -> Result<(), Error> {
        let mut synced = HashSet::new();
        for parked in files {
            let file = parked.file.take();
            let filesystem = self.directories.filesystem(parked.directory);
            if self.settings.durability == Durability::Relaxed || !filesystem.reports_losses {
                continue;
            }
            let number = self.directories.filesystem_number(parked.directory);
            let done = match file {
                Some(file) => Os::sync_file(&file),
                None if synced.insert(number) => Os::sync_filesystem(&filesystem.alive),
                None => Ok(()),
            };
            done.map_err(Error::at(Step::Sync, &parked.place.path))?;
        }
        Ok(())
    }

    fn rename(&mut self, parked: &mut Parked) -> Result<(), Error> {
        let place = parked.place.clone();
        let at = |error| Error::new(Step::Publish, &place.path, error);
        let mut surrounded = None;
        loop {
            let destination = self.destination(parked).map_err(at)?;
            let private = self.directories.open(parked.directory).map_err(at)?;
            if needs_private_dir(&destination) {
                let around = match surrounded.take() {
                    Some(around) => around,
                    None => {
                        parents::surround(private, &parked.staged_as, &destination).map_err(at)?
                    }
                };
                parked.staged_as = around.name.clone();
                if surrounded.insert(around).publish(private, &destination).map_err(at)? {
                    return Ok(());
                }
            }
            let made = destination.make_parents().map_err(at)?;
            let (from, name, replace) = (&private.directory, &parked.staged_as, Replace::Anything);
            match rename_into_place(from, name, &destination, parked.replaces, replace) {
                Ok(Renamed::Done) => {
                    made.disarm();
                    return Ok(());
                }
                // Since the last look: it has metadata to be carried over now.
                Ok(Renamed::Appeared) => {
                    self.prepare(parked)?;
                    self.sync(std::slice::from_mut(parked))?;
                }
                Err(error) => return Err(at(error)),
            }
        }
    }

    /// Makes the names of these files durable, each directory once.
    fn sync_parents(&mut self, files: &[Parked]) -> Result<(), Error> {
        if self.settings.durability != Durability::Durable {
            return Ok(());
        }
        let mut seen = BTreeSet::new();
        for Parked { place, directory, .. } in files {
            let made = place.missing_parents.iter().map(Some);
            for below in made.chain([None]) {
                if seen.insert((directory, below)) {
                    self.directories.sync_parent(*directory, below).map_err(|error| {
                        let error = Error::new(Step::SyncDirectory, &place.path, error);
                        error.with_outcome(Outcome::Replaced)
                    })?;
                }
            }
        }
        Ok(())
    }

    fn destination(&mut self, parked: &Parked) -> io::Result<Destination> {
        let directory = self.directories.open(parked.directory)?.parent.clone();
        Ok(Destination { directory, place: parked.place.clone() })
    }
}
