//! The typed entry points, and what can be asked of them.

use std::io;
use std::path::{Path, PathBuf};

use crate::batch::{self, Batch};
use crate::by_path;
use crate::directory;
use crate::if_changed::{self, Change};
use crate::if_missing;
use crate::reader::Reader;
use crate::staged;
use crate::update;
use crate::writer::Writer;

/// What survives a power cut once a call has returned `Ok`. The words are GLib's
/// (`GFileSetContentsFlags`).
///
/// A program that is killed is no power cut: against that, all three are the same.
///
/// ```
/// use write_atomically::{Durability, WriteOptions};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("cache.bin");
/// WriteOptions::new().durability(Durability::Relaxed).write(&path, |_| std::io::Result::Ok(()))?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// The new content, at its name. Syncs the file, then the directory.
    #[default]
    Durable,
    /// The old content or the new, whole. Syncs the file, and leaves the directory to the system.
    Consistent,
    /// Whatever the filesystem makes of it; possibly an empty file. Syncs nothing, except where closing
    /// a file is what writes it (network filesystems, FUSE), because only syncing tells there that it
    /// failed.
    Relaxed,
}

/// How to write: the same functions as at the crate's root, with options, and generic in the
/// closure's error type.
///
/// The error type is anything that can be made `From` an [`io::Error`]: your own enum, an
/// [`io::Error`] itself, `Box<dyn Error>`, `anyhow::Error`.
///
/// ```
/// use std::io::{self, Write};
/// use write_atomically::WriteOptions;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("secrets/token");
/// fn save(path: &std::path::Path, token: &str) -> io::Result<()> {
///     WriteOptions::new().mode(0o600).create_parents(true).write(path, |w| w.write_all(token.as_bytes()))
/// }
/// save(&path, "hunter2")?;
/// assert_eq!(std::fs::read_to_string(&path)?, "hunter2");
/// # io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct WriteOptions {
    pub(crate) durability: Durability,
    pub(crate) mode: Option<u32>,
    pub(crate) preserve_metadata: bool,
    pub(crate) follow_symlinks: bool,
    pub(crate) create_parents: bool,
    pub(crate) overwrite_in_place: bool,
    pub(crate) keep_failed: Option<PathBuf>,
    pub(crate) buffer_capacity: Option<usize>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        WriteOptions {
            durability: Durability::Durable,
            mode: None,
            preserve_metadata: true,
            follow_symlinks: true,
            create_parents: false,
            overwrite_in_place: false,
            keep_failed: None,
            buffer_capacity: None,
        }
    }
}

impl WriteOptions {
    /// The options that the functions at the crate's root use.
    ///
    /// ```
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("a.txt");
    /// WriteOptions::new().write(&path, |_| std::io::Result::Ok(()))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new() -> Self {
        WriteOptions::default()
    }

    /// What survives a power cut; [`Durability::Durable`] unless set.
    ///
    /// ```
    /// use write_atomically::{Durability, WriteOptions};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("cache.bin");
    /// let options = WriteOptions::new().durability(Durability::Consistent);
    /// options.write(&path, |_| std::io::Result::Ok(()))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The file's permission bits, exactly: not what the old file had, not subject to the umask, and
    /// without the old file's or the directory's ACL. Owner and group are still carried over.
    ///
    /// Unix only; elsewhere it has no effect.
    ///
    /// ```
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("key.pem");
    /// WriteOptions::new().mode(0o600).write(&path, |_| std::io::Result::Ok(()))?;
    /// # #[cfg(unix)] {
    /// use std::os::unix::fs::PermissionsExt;
    /// assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o7777, 0o600);
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode & 0o7777);
        self
    }

    /// Whether the new file gets the mode, owner, group, ACL and extended attributes of the old one;
    /// `true` unless set. With `false` it gets what any new file there would get.
    ///
    /// ```
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("a.txt");
    /// WriteOptions::new().preserve_metadata(false).write(&path, |_| std::io::Result::Ok(()))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn preserve_metadata(mut self, preserve: bool) -> Self {
        self.preserve_metadata = preserve;
        self
    }

    /// Whether a symbolic link at the destination stays and what it leads to is written; `true`
    /// unless set. With `false` the link itself is replaced by a file.
    ///
    /// ```
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("current");
    /// WriteOptions::new().follow_symlinks(false).write(&path, |_| std::io::Result::Ok(()))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn follow_symlinks(mut self, follow: bool) -> Self {
        self.follow_symlinks = follow;
        self
    }

    /// Whether missing parent directories are made; `false` unless set. They are made when the file
    /// is published, not before, are as durable as the file, and go again if publishing fails.
    ///
    /// ```
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("2026/11/report.csv");
    /// WriteOptions::new().create_parents(true).write(&path, |_| std::io::Result::Ok(()))?;
    /// assert!(path.exists());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn create_parents(mut self, create: bool) -> Self {
        self.create_parents = create;
        self
    }

    /// Whether a regular file that can't be renamed over is written into instead; `false` unless
    /// set.
    ///
    /// That is a file that something is mounted on (containers do that to `/etc/resolv.conf`), and
    /// somebody else's file in a sticky directory. The content is still staged, and copied only
    /// after the closure has returned `Ok`; but the copying is not atomic: a reader may see a part of
    /// it, and a kill or a power cut leaves a part.
    ///
    /// ```
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("resolv.conf");
    /// WriteOptions::new().overwrite_in_place(true).write(&path, |_| std::io::Result::Ok(()))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn overwrite_in_place(mut self, overwrite: bool) -> Self {
        self.overwrite_in_place = overwrite;
        self
    }

    /// Where to keep what the closure had written when it fails or panics, for a look at it; nowhere
    /// unless set.
    ///
    /// What is there is replaced. Nothing is synced, and that the content could not be kept is not
    /// reported: the closure's error is. It gets the permission bits of a new file, less what the
    /// destination does not allow.
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let (path, partial) = (directory.path().join("a.csv"), directory.path().join("a.partial"));
    /// let result: io::Result<()> = WriteOptions::new().keep_failed(&partial).write(&path, |w| {
    ///     writeln!(w, "1,2,3")?;
    ///     Err(io::Error::other("the fourth is missing"))
    /// });
    /// assert!(result.is_err() && !path.exists());
    /// assert_eq!(std::fs::read_to_string(&partial)?, "1,2,3\n");
    /// # io::Result::Ok(())
    /// ```
    pub fn keep_failed(mut self, path: impl Into<PathBuf>) -> Self {
        self.keep_failed = Some(path.into());
        self
    }

    /// The size of the [`Writer`]'s buffer in bytes; unless set 65,536, and 262,144 for long streams.
    ///
    /// ```
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("a.bin");
    /// WriteOptions::new().buffer_capacity(1 << 20).write(&path, |_| std::io::Result::Ok(()))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn buffer_capacity(mut self, bytes: usize) -> Self {
        self.buffer_capacity = Some(bytes);
        self
    }

    /// Writes a file that appears at `path` only when `write` has returned `Ok`.
    ///
    /// The typed form of [`write_atomically`](crate::write_atomically), which says more.
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("report.csv");
    /// WriteOptions::new().write(&path, |w| writeln!(w, "id,total"))?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "id,total\n");
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// The closure's own, as it is; else an [`Error`](crate::Error) inside an [`io::Error`]. In both
    /// cases the destination is as it was, unless [`Error::replaced`](crate::Error::replaced) says
    /// otherwise.
    pub fn write<T, E: From<io::Error>>(
        &self,
        path: impl AsRef<Path>,
        write: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        staged::write(path.as_ref(), self, write)
    }

    /// Writes a file that must not exist.
    ///
    /// The typed form of [`create_atomically`](crate::create_atomically), which says more.
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("id");
    /// WriteOptions::new().create(&path, |w| writeln!(w, "1"))?;
    /// let error = WriteOptions::new().create(&path, |w| writeln!(w, "2")).unwrap_err();
    /// assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    /// assert_eq!(std::fs::read_to_string(&path)?, "1\n");
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), and of kind [`AlreadyExists`](io::ErrorKind::AlreadyExists) if
    /// there is anything at `path`, be it a link that leads nowhere.
    pub fn create<T, E: From<io::Error>>(
        &self,
        path: impl AsRef<Path>,
        write: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        staged::create(path.as_ref(), self, write)
    }

    /// Writes a file if nothing is at `path`; `None` if something is.
    ///
    /// The typed form of [`write_if_missing`](crate::write_if_missing), which says more.
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("cache/key.bin");
    /// let cached = WriteOptions::new().create_parents(true);
    /// assert_eq!(cached.write_if_missing(&path, |w| w.write_all(b"1").map(|()| 1))?, Some(1));
    /// assert_eq!(cached.write_if_missing(&path, |w| w.write_all(b"2").map(|()| 2))?, None);
    /// assert_eq!(std::fs::read(&path)?, b"1");
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), and of kind [`Deadlock`](io::ErrorKind::Deadlock) inside a closure
    /// for the same path.
    pub fn write_if_missing<T, E: From<io::Error>>(
        &self,
        path: impl AsRef<Path>,
        write: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        if_missing::write_if_missing(path.as_ref(), self, write)
    }

    /// Writes a file unless the same bytes are there already.
    ///
    /// The typed form of [`write_if_changed`](crate::write_if_changed), which says more.
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use write_atomically::{Change, WriteOptions};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("generated.rs");
    /// let options = WriteOptions::new();
    /// assert_eq!(options.write_if_changed(&path, |w| writeln!(w, "// 1"))?, Change::Written(()));
    /// assert_eq!(options.write_if_changed(&path, |w| writeln!(w, "// 1"))?, Change::Unchanged(()));
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_if_changed<T, E: From<io::Error>>(
        &self,
        path: impl AsRef<Path>,
        write: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<Change<T>, E> {
        if_changed::write_if_changed(path.as_ref(), self, write)
    }

    /// Reads a file, and writes what becomes of it, while others who update it wait.
    ///
    /// The typed form of [`update_atomically`](crate::update_atomically), which says more.
    ///
    /// ```
    /// use std::io::{self, Read, Write};
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("log");
    /// let append = |line: &str| {
    ///     WriteOptions::new().update(&path, |old, new| {
    ///         if let Some(old) = old {
    ///             io::copy(old, new)?;
    ///         }
    ///         writeln!(new, "{line}")
    ///     })
    /// };
    /// append("started")?;
    /// append("stopped")?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "started\nstopped\n");
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write); those that [`update_atomically`](crate::update_atomically) lists
    /// come on top.
    pub fn update<T, E: From<io::Error>>(
        &self,
        path: impl AsRef<Path>,
        update: impl FnOnce(Option<&mut Reader>, &mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        update::update(path.as_ref(), self, update)
    }

    /// Publishes the file that `write` leaves at the path it is given.
    ///
    /// The typed form of [`write_path_atomically`](crate::write_path_atomically), which says more.
    ///
    /// ```
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("report.csv");
    /// WriteOptions::new().write_path(&path, |staged| std::fs::write(staged, "id,total\n"))?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "id,total\n");
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), and if there is no regular file at the staging path when the
    /// closure has returned `Ok`.
    pub fn write_path<T, E: From<io::Error>>(
        &self,
        path: impl AsRef<Path>,
        write: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        by_path::write(path.as_ref(), self, write)
    }

    /// Publishes the directory tree that `write` builds at the path it is given.
    ///
    /// The typed form of [`write_dir_atomically`](crate::write_dir_atomically), which says more.
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
    /// As [`write_dir_atomically`](crate::write_dir_atomically); and there is nothing that
    /// [`keep_failed`](Self::keep_failed) could mean here: it is refused.
    pub fn write_dir<T, E: From<io::Error>>(
        &self,
        path: impl AsRef<Path>,
        write: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        directory::write(path.as_ref(), self, write)
    }

    /// Publishes the files that `write` has written once it has returned `Ok`, and none before.
    ///
    /// The typed form of [`write_batch`](crate::write_batch), which says more.
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
    /// As [`write_batch`](crate::write_batch).
    pub fn write_batch<T, E: From<io::Error>>(
        &self,
        write: impl FnOnce(&mut Batch<E>) -> Result<T, E>,
    ) -> Result<T, E> {
        batch::write(self, write)
    }
}
