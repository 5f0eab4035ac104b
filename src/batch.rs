//! Many files: none is published unless all are there, and they are synced together.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::mem::{replace, take};
use std::path::{Path, PathBuf};

use crate::error::{Error, Step};
use crate::options::{Durability, WriteOptions};
use crate::platform::{self, Code, Stat};
use crate::private::{self, Asleep, Private};
use crate::staged::{self, Destination, Staged, Written};
use crate::staging::{self, StagingEntry};
use crate::target::Target;
use crate::tree::SMALL;
use crate::writer::Writer;

pub(crate) fn write<T, E: From<io::Error>>(
    options: &WriteOptions,
    write: impl FnOnce(&mut Batch<E>) -> Result<T, E>,
) -> Result<T, E> {
    if !platform::HAS_PRIVATE_DIRECTORIES {
        let lacking = "batches need directories that show whether their maker is alive";
        return Err(io::Error::new(io::ErrorKind::Unsupported, lacking).into());
    }
    let mut batch = Batch::new(options);
    let value = write(&mut batch)?;
    batch.publish().map_err(io::Error::from)?;
    Ok(value)
}

/// The files of one [`write_batch`](crate::write_batch): written one after the other, published
/// together.
///
/// `E` is the error type of the closures; it is always known from the context.
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
pub struct Batch<E> {
    options: WriteOptions,
    files: Vec<Waiting>,
    taken: HashSet<(usize, PathBuf)>,
    directories: Directories,
    error: PhantomData<fn() -> E>,
}

impl<E> fmt::Debug for Batch<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

/// A file that is complete, and waits for the others.
struct Waiting {
    /// Where it is to be published; the directory is one of [`Directories`].
    path: PathBuf,
    name: PathBuf,
    missing_parents: Vec<PathBuf>,
    found: Option<Stat>,
    directory: usize,
    /// What it is called in the private staging directory there.
    staged_as: PathBuf,
    /// Open while the files are few.
    file: Option<File>,
}

impl<E> Batch<E> {
    fn new(options: &WriteOptions) -> Self {
        Batch {
            options: options.clone(),
            files: Vec::new(),
            taken: HashSet::new(),
            directories: Directories::default(),
            error: PhantomData,
        }
    }

    /// Writes one of the batch's files, which will appear at `path` together with the others.
    ///
    /// If the closure fails, there is nothing at `path` to be published, and the same path can be
    /// written again: whether that ends the whole batch is for the closure of
    /// [`write_batch`](crate::write_batch) to decide.
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
    /// The closure's own, as it is; else an [`Error`] inside an [`io::Error`]. The destination is as
    /// it was.
    ///
    /// What [`write_atomically`](crate::write_atomically) refuses is refused here, before the closure
    /// runs; and so is a path that this batch has written already, and a destination that is never
    /// replaced but written into (a device, a FIFO, or what
    /// [`overwrite_in_place`](WriteOptions::overwrite_in_place) is for): it could not appear together
    /// with the others.
    pub fn write<T>(
        &mut self,
        path: impl AsRef<Path>,
        write: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<io::Error>,
    {
        let target = self.find(path.as_ref()).map_err(io::Error::from)?;
        let directory = self.enter(&target).map_err(io::Error::from)?;
        let key = (directory, target.name.clone());
        if self.taken.contains(&key) {
            return Err(io::Error::from(already_in_batch(&target)).into());
        }
        let options = self.options.clone();
        let staged = self.stage(target, directory, &options).map_err(io::Error::from)?;
        let (written, value) = staged.fill(write)?;
        self.add(written, directory).map_err(io::Error::from)?;
        self.taken.insert(key);
        Ok(value)
    }

    fn find(&self, path: &Path) -> Result<Target, Error> {
        let target = Target::resolve(path, &self.options)?;
        let is_other = target.found.as_ref().is_some_and(|f| f.kind == platform::Kind::Other);
        if target.is_magic_link || is_other {
            return Err(in_place(&target));
        }
        match Destination::of(target, &self.options)? {
            Destination::Replaceable(target) => Ok(target),
            Destination::InPlace(overwrite) => Err(in_place(&overwrite.target)),
        }
    }

    fn enter(&mut self, target: &Target) -> Result<usize, Error> {
        self.directories.enter(target).map_err(Error::at(Step::Stage, &target.path))
    }

    fn stage<'o>(
        &mut self,
        target: Target,
        directory: usize,
        options: &'o WriteOptions,
    ) -> Result<Staged<'o>, Error> {
        let mode = staged::hidden_mode(&target, options);
        let directories = &mut self.directories;
        Staged::with(target, options, |_| {
            let (file, entry) = directories.stage(directory, mode)?;
            Ok((file, Some(entry)))
        })
    }

    /// Keeps what is to be known of a file until it is published.
    fn add(&mut self, written: Written<'_>, directory: usize) -> Result<(), Error> {
        let Written { target, file, entry, .. } = written;
        let Target { path, name, missing_parents, found, .. } = target;
        if !self.directories.filesystem(directory).reports_losses
            && staged::must_sync(&self.options, &file, true)
        {
            // Later, with the file closed, an error could be lost.
            platform::sync_file(&file).map_err(Error::at(Step::Sync, &path))?;
        }
        let staged_as = entry.map(StagingEntry::keep).unwrap_or_default();
        let file = (self.files.len() < SMALL).then_some(file);
        if self.files.len() == SMALL {
            self.files.iter_mut().for_each(|waiting| waiting.file = None);
        }
        self.files.push(Waiting { path, name, missing_parents, found, directory, staged_as, file });
        Ok(())
    }

    fn publish(mut self) -> Result<(), Error> {
        self.directories.reserve.clear();
        let mut files = take(&mut self.files);
        for file in &mut files {
            self.prepare(file)?;
        }
        self.sync(&files)?;
        let mut published = Vec::new();
        for file in &files {
            match self.take_place(file) {
                Ok(()) => published.push(file.path.clone()),
                Err(error) => {
                    let _ = self.settle(&files[..published.len()]);
                    let error = Error::new(Step::Publish, &file.path, error);
                    return Err(error.after_publishing(published));
                }
            }
        }
        let settled = self.settle(&files);
        settled.map_err(|error| error.after_replacing().after_publishing(published))
    }

    /// Gives a staged file its destination's metadata.
    fn prepare(&mut self, waiting: &mut Waiting) -> Result<(), Error> {
        let path = waiting.path.clone();
        let at = |step| Error::at(step, &path);
        let target = self.target(waiting).map_err(at(Step::Publish))?;
        let private = self.directories.awake(waiting.directory).map_err(at(Step::Publish))?;
        // A dead entry of an earlier call on this file, if this batch does not use its name itself.
        staging::sweep_unless(&target, private.name());
        let now = target.stat().map_err(at(Step::Publish))?;
        staged::check_replaceable(now.as_ref(), &self.options).map_err(at(Step::Publish))?;
        if now.is_none() && waiting.found.is_none() && self.options.mode.is_none() {
            return Ok(());
        }
        let was_open = waiting.file.is_some();
        let file = match waiting.file.take() {
            Some(file) => file,
            None => platform::open_to_finish(&private.directory, &waiting.staged_as)
                .map_err(at(Step::Metadata))?,
        };
        let options = &self.options;
        let mut written = Written::new(target, options, file, None);
        written.take_metadata(now.as_ref()).map_err(at(Step::Metadata))?;
        if self.options.durability != Durability::Relaxed
            && !self.directories.filesystem(waiting.directory).reports_losses
        {
            platform::sync_file(&written.file).map_err(at(Step::Sync))?;
        }
        waiting.file = was_open.then_some(written.file);
        Ok(())
    }

    /// Brings the content of all files to stable storage.
    fn sync(&mut self, files: &[Waiting]) -> Result<(), Error> {
        if self.options.durability == Durability::Relaxed {
            return Ok(());
        }
        let mut synced = HashSet::new();
        for waiting in files {
            let index = self.directories.list[waiting.directory].filesystem;
            let filesystem = &self.directories.filesystems[index];
            let at = Error::at(Step::Sync, &waiting.path);
            match &waiting.file {
                _ if !filesystem.reports_losses => {}
                Some(file) => platform::sync_file(file).map_err(at)?,
                None if synced.insert(index) => {
                    platform::sync_filesystem(&filesystem.alive).map_err(at)?;
                }
                None => {}
            }
        }
        Ok(())
    }

    fn take_place(&mut self, waiting: &Waiting) -> io::Result<()> {
        let target = self.target(waiting)?;
        let parents = target.make_parents()?;
        let private = self.directories.awake(waiting.directory)?;
        let (from, to) = (&private.directory, &target.directory);
        platform::rename_to(from, &waiting.staged_as, to, &target.name)?;
        parents.keep();
        Ok(())
    }

    /// Makes the names of these files durable, each directory once.
    fn settle(&mut self, files: &[Waiting]) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        for waiting in files {
            let at = |error| Error::new(Step::SyncDirectory, &waiting.path, error);
            let parents = waiting.missing_parents.iter().map(Some);
            for parent in parents.chain([None]) {
                if seen.insert((waiting.directory, parent)) {
                    self.directories
                        .settle(waiting.directory, parent, &self.options)
                        .map_err(at)?;
                }
            }
        }
        Ok(())
    }

    fn target(&mut self, waiting: &Waiting) -> io::Result<Target> {
        let directory = self.directories.awake(waiting.directory)?.parent().clone();
        let (path, name) = (waiting.path.clone(), waiting.name.clone());
        let (missing_parents, found) = (waiting.missing_parents.clone(), waiting.found.clone());
        Ok(Target { path, directory, name, missing_parents, found, is_magic_link: false })
    }
}

fn already_in_batch(target: &Target) -> Error {
    let error = io::Error::new(io::ErrorKind::InvalidInput, "this batch has written it already");
    Error::new(Step::Resolve, &target.path, error)
}

fn in_place(target: &Target) -> Error {
    staged::refusal(target, Code::Unsupported).hint(
        "it is not replaced but written into, and can't appear together with the other files of a \
         batch",
    )
}

/// The directories that a batch touches: any number of them, few of them open.
#[derive(Default)]
struct Directories {
    list: Vec<Touched>,
    /// By device and inode.
    index: HashMap<(u64, u64), usize>,
    /// Those that are open, the one used last at the end.
    open: VecDeque<usize>,
    filesystems: Vec<Filesystem>,
    /// What the next staged file is called.
    next: u64,
    /// Publishing needs descriptors, and the closure may leave none.
    reserve: Vec<File>,
}

struct Touched {
    private: Handle,
    filesystem: usize,
    /// Of the first destination there, for messages.
    path: PathBuf,
}

enum Handle {
    Awake(Private),
    Asleep(Asleep),
    /// It could not be opened again, or is gone.
    Lost,
}

/// What is needed once for each filesystem.
struct Filesystem {
    device: u64,
    /// Locked, and linked into each private staging directory, it says that the batch is alive while
    /// the directory is closed. Open since before the first write there, it is what syncfs(2) needs
    /// to report what those writes have lost.
    alive: File,
    reports_losses: bool,
}

/// Each takes two descriptors. Where those are no concern, all stay open.
const OPEN_DIRECTORIES: usize = 16;

impl Directories {
    /// The number of a destination's directory, with a private staging directory in it.
    fn enter(&mut self, target: &Target) -> io::Result<usize> {
        let stat = platform::stat_directory(&target.directory)?;
        if let Some(&index) = self.index.get(&(stat.dev, stat.ino)) {
            return Ok(index);
        }
        let private = Private::create(target)?;
        if self.reserve.is_empty() {
            self.reserve = private::reserve(&private.directory)?;
        }
        let filesystem = self.find_filesystem(&private, stat.dev)?;
        let index = self.list.len();
        let path = target.path.clone();
        self.list.push(Touched { private: Handle::Awake(private), filesystem, path });
        self.index.insert((stat.dev, stat.ino), index);
        self.touch(index)?;
        Ok(index)
    }

    fn find_filesystem(&mut self, private: &Private, device: u64) -> io::Result<usize> {
        let name = Path::new(staging::ALIVE);
        // The last one: a file can have only so many links (ext4: 65,000), and mounts of one
        // filesystem can't share them.
        let known = self.filesystems.iter().rposition(|known| known.device == device);
        if let Some(known) = known {
            let alive = &self.filesystems[known].alive;
            if platform::link(alive, &private.directory, name).is_ok() {
                return Ok(known);
            }
        }
        let alive = platform::stage_named(&private.directory, name, 0o600)?;
        platform::try_lock(&alive);
        let reports_losses = platform::filesystem_sync_reports_losses(&alive)?;
        self.filesystems.push(Filesystem { device, alive, reports_losses });
        Ok(self.filesystems.len() - 1)
    }

    fn filesystem(&self, directory: usize) -> &Filesystem {
        &self.filesystems[self.list[directory].filesystem]
    }

    /// A staging file in a directory's private staging directory.
    fn stage(&mut self, directory: usize, mode: u32) -> io::Result<(File, StagingEntry)> {
        let name = PathBuf::from(self.next.to_string());
        self.next += 1;
        let directory = self.awake(directory)?.directory.clone();
        let file = platform::stage_inside(&directory, &name, mode)?;
        Ok((file, StagingEntry { directory, name }))
    }

    fn awake(&mut self, index: usize) -> io::Result<&Private> {
        if let Handle::Asleep(asleep) = &self.list[index].private {
            self.list[index].private = Handle::Awake(asleep.wake()?);
        }
        self.touch(index)?;
        match &self.list[index].private {
            Handle::Awake(private) => Ok(private),
            Handle::Asleep(_) | Handle::Lost => Err(platform::error(Code::NotFound)),
        }
    }

    /// Notes that a directory is in use, and closes the one that has not been for longest.
    fn touch(&mut self, index: usize) -> io::Result<()> {
        if self.open.back() == Some(&index) {
            return Ok(());
        }
        self.open.retain(|&other| other != index);
        self.open.push_back(index);
        if self.open.len() <= OPEN_DIRECTORIES || !platform::DESCRIPTORS_ARE_FEW {
            return Ok(());
        }
        let Some(oldest) = self.open.pop_front() else { return Ok(()) };
        let touched = &mut self.list[oldest];
        if let Handle::Awake(private) = &touched.private {
            let asleep = private.asleep(&private::locate(private.parent(), &touched.path)?)?;
            if let Handle::Awake(private) = replace(&mut touched.private, Handle::Asleep(asleep)) {
                private.close();
            }
        }
        Ok(())
    }

    /// Syncs a directory, or one of those that were made below it.
    fn settle(
        &mut self,
        index: usize,
        below: Option<&PathBuf>,
        options: &WriteOptions,
    ) -> io::Result<()> {
        if options.durability != Durability::Durable {
            return Ok(());
        }
        let directory = self.awake(index)?.parent().clone();
        let alive = &self.filesystem(index).alive;
        match below {
            Some(name) => platform::sync_child_directory(&directory, name, alive),
            None => platform::sync_directory(&directory, alive),
        }
    }
}

impl Drop for Directories {
    /// Removes what has not been published.
    fn drop(&mut self) {
        // NFS and FUSE keep what is open when it is removed under another name, and so the directory.
        self.filesystems.clear();
        for touched in &mut self.list {
            if let Handle::Asleep(asleep) = replace(&mut touched.private, Handle::Lost) {
                drop(asleep.wake());
            }
        }
    }
}
