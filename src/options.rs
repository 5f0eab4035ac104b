//! How to write: what the caller may choose, apart from what to write and where.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::settings::{Durability, Settings};

/// How to write, and with which error type: the functions at the crate's root as methods, with
/// settings.
///
/// `E` is the error type of the closures and of the results. [`new`](Self::new) speaks
/// [`io::Error`]; [`anyhow`](Self::anyhow) and [`error`](Self::error) change that, so that a call
/// never needs a type annotation.
///
/// ```
/// use std::io::Write;
/// use write_atomically::{Durability, WriteOptions};
///
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let options = WriteOptions::new().durability(Durability::Consistent).create_parents(true);
/// for name in ["a", "b"] {
///     options.write(directory.join("out").join(name), |w| {
///         writeln!(w, "{name}")?;
///         Ok(())
///     })?;
/// }
/// assert_eq!(std::fs::read_to_string(directory.join("out/b"))?, "b\n");
/// # std::io::Result::Ok(())
/// ```
///
/// # Operations
///
/// | what is written | methods |
/// | --- | --- |
/// | a file, by a [`Writer`](crate::Writer) | [`write`](Self::write), [`create`](Self::create), [`write_if_missing`](Self::write_if_missing), [`write_if_changed`](Self::write_if_changed), [`update`](Self::update) |
/// | a file, by a program that wants a path | [`write_path`](Self::write_path), [`write_path_if_missing`](Self::write_path_if_missing) |
/// | a directory tree | [`write_dir`](Self::write_dir), [`write_dir_if_missing`](Self::write_dir_if_missing) |
/// | many files | [`write_batch`](Self::write_batch) |
///
/// # Settings
///
/// | what is chosen | methods |
/// | --- | --- |
/// | the error type | [`anyhow`](Self::anyhow), [`error`](Self::error) |
/// | what survives a power cut | [`durability`](Self::durability) |
/// | who may read and write the file | [`mode`](Self::mode), [`new_file_mode`](Self::new_file_mode), [`preserve_metadata`](Self::preserve_metadata) |
/// | where it is | [`follow_symlinks`](Self::follow_symlinks), [`create_parents`](Self::create_parents) |
/// | writing in place | [`in_place_fallback`](Self::in_place_fallback), [`keep_hard_links`](Self::keep_hard_links) |
/// | waiting for others | [`lock_timeout`](Self::lock_timeout) |
/// | failed content, buffers | [`keep_failed`](Self::keep_failed), [`buffer_capacity`](Self::buffer_capacity) |
pub struct WriteOptions<E = io::Error> {
    settings: Settings,
    error: PhantomData<fn() -> E>,
}

// Derived implementations would ask `E` to be `Clone` and `Debug`.
impl<E> Clone for WriteOptions<E> {
    fn clone(&self) -> Self {
        self.with_error()
    }
}

impl<E> fmt::Debug for WriteOptions<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteOptions").field("settings", &self.settings).finish()
    }
}

impl<E> Default for WriteOptions<E> {
    fn default() -> Self {
        WriteOptions { settings: Settings::default(), error: PhantomData }
    }
}

impl WriteOptions {
    /// The options that the functions at the crate's root use, with [`io::Error`] as error type.
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use write_atomically::WriteOptions;
    ///
    /// fn save(path: &std::path::Path, names: &[&str]) -> io::Result<()> {
    ///     WriteOptions::new().write(path, |w| {
    ///         for name in names {
    ///             writeln!(w, "{name}")?;
    ///         }
    ///         Ok(())
    ///     })
    /// }
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("names.txt");
    /// save(&path, &["Ada", "Grace"])?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "Ada\nGrace\n");
    /// # io::Result::Ok(())
    /// ```
    pub fn new() -> Self {
        WriteOptions::default()
    }
}

impl<E> WriteOptions<E> {
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    fn with_error<F>(&self) -> WriteOptions<F> {
        WriteOptions { settings: self.settings.clone(), error: PhantomData }
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// The same options for closures that return [`anyhow::Error`], as at the crate's root.
    ///
    /// ```
    /// use std::io::Write;
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("port");
    /// let result = WriteOptions::new().anyhow().write(&path, |w| {
    ///     let port: u16 = "80a".parse()?; // not an `io::Error`
    ///     Ok(writeln!(w, "{port}")?)
    /// });
    /// assert_eq!(result.unwrap_err().to_string(), "invalid digit found in string");
    /// assert!(!path.exists());
    /// # anyhow::Ok(())
    /// ```
    #[cfg(feature = "anyhow")]
    pub fn anyhow(&self) -> WriteOptions<anyhow::Error> {
        self.with_error()
    }

    /// The same options for closures that return an error type of one's own.
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use write_atomically::WriteOptions;
    ///
    /// #[derive(Debug, thiserror::Error)]
    /// enum ExportError {
    ///     #[error("row {0} is empty")]
    ///     EmptyRow(usize),
    ///     #[error(transparent)]
    ///     Io(#[from] io::Error),
    /// }
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("rows.csv");
    /// let rows = ["a,b", "", "c,d"];
    /// let result = WriteOptions::new().error::<ExportError>().write(&path, |w| {
    ///     for (number, row) in rows.iter().enumerate() {
    ///         if row.is_empty() {
    ///             return Err(ExportError::EmptyRow(number));
    ///         }
    ///         writeln!(w, "{row}")?;
    ///     }
    ///     Ok(())
    /// });
    /// assert!(matches!(result, Err(ExportError::EmptyRow(1))));
    /// # io::Result::Ok(())
    /// ```
    pub fn error<F: From<io::Error>>(&self) -> WriteOptions<F> {
        self.with_error()
    }

    /// What survives a power cut; [`Durability::Durable`] unless set.
    ///
    /// See [`Durability`] for an example.
    pub fn durability(self, durability: Durability) -> Self {
        self.set(|settings| settings.durability = durability)
    }

    /// The durability that [`durability`](Self::durability) has set.
    pub fn get_durability(&self) -> Durability {
        self.settings.durability
    }

    /// The file's permission bits, exactly (in octal, `0o7777` at most): not those of the old file,
    /// not narrowed by the umask, without the old file's or the directory's ACL. Owner and group are
    /// still carried over.
    ///
    /// This overrules what a user has set with `chmod` at each write; for the mode that a *new* file
    /// gets, see [`new_file_mode`](Self::new_file_mode). Unix only; elsewhere it has no effect.
    ///
    /// ```
    /// use std::io::Write;
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("key.pem");
    /// # std::fs::write(&path, "")?;
    /// WriteOptions::new().mode(0o600).write(&path, |w| w.write_all(b"secret"))?;
    /// # #[cfg(unix)] {
    /// use std::os::unix::fs::PermissionsExt;
    /// assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o7777, 0o600);
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn mode(self, mode: u32) -> Self {
        self.set(|settings| settings.mode = Some(mode & 0o7777))
    }

    /// The permission bits that [`mode`](Self::mode) has set.
    pub fn get_mode(&self) -> Option<u32> {
        self.settings.mode
    }

    /// The permission bits of a file that is new, less the umask, as
    /// `std::os::unix::fs::OpenOptionsExt::mode` has it; a file that is replaced keeps its own.
    /// `0o666` unless set. Directories of [`write_dir`](Self::write_dir) get it in the same way, from
    /// `0o777`.
    ///
    /// [`mode`](Self::mode) goes before this. Unix only; elsewhere it has no effect.
    ///
    /// ```
    /// use std::io::Write;
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("history");
    /// let options = WriteOptions::new().new_file_mode(0o600);
    /// options.write(&path, |w| w.write_all(b"ls\n"))?;
    /// # #[cfg(unix)] {
    /// use std::fs::{Permissions, metadata, set_permissions};
    /// use std::os::unix::fs::PermissionsExt;
    /// let mode = || metadata(&path).map(|metadata| metadata.permissions().mode() & 0o777);
    /// assert_eq!(mode()?, 0o600);
    /// set_permissions(&path, Permissions::from_mode(0o644))?; // the user's own wish
    /// options.write(&path, |w| w.write_all(b"ls\ncd\n"))?;
    /// assert_eq!(mode()?, 0o644);
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new_file_mode(self, mode: u32) -> Self {
        self.set(|settings| settings.new_file_mode = Some(mode & 0o777))
    }

    /// The permission bits that [`new_file_mode`](Self::new_file_mode) has set.
    pub fn get_new_file_mode(&self) -> Option<u32> {
        self.settings.new_file_mode
    }

    /// Whether the new file gets the mode, owner, group, ACL, `user.*` attributes and security labels
    /// of the old one; `true` unless set. With `false` it gets what any new file there would get.
    ///
    /// ```
    /// use std::io::Write;
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    /// # std::fs::write(&new, "")?;
    /// std::fs::write(&old, "")?;
    /// # #[cfg(unix)] {
    /// # use std::os::unix::fs::PermissionsExt;
    /// std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o600))?;
    /// # }
    /// WriteOptions::new().preserve_metadata(false).write(&old, |w| w.write_all(b"public"))?;
    /// assert_eq!(std::fs::metadata(&old)?.permissions(), std::fs::metadata(&new)?.permissions());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn preserve_metadata(self, preserve: bool) -> Self {
        self.set(|settings| settings.preserve_metadata = preserve)
    }

    /// What [`preserve_metadata`](Self::preserve_metadata) has set.
    pub fn get_preserve_metadata(&self) -> bool {
        self.settings.preserve_metadata
    }

    /// Whether a symbolic link at the destination stays a link, and the file that it leads to is
    /// written; `true` unless set. With `false` a file replaces the link itself.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use std::io::Write;
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let (target, link) = (directory.path().join("v1"), directory.path().join("current"));
    /// std::fs::write(&target, "1")?;
    /// std::os::unix::fs::symlink("v1", &link)?;
    /// WriteOptions::new().follow_symlinks(false).write(&link, |w| w.write_all(b"2"))?;
    /// assert_eq!(std::fs::read_to_string(&target)?, "1");
    /// assert!(std::fs::symlink_metadata(&link)?.is_file());
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn follow_symlinks(self, follow: bool) -> Self {
        self.set(|settings| settings.follow_symlinks = follow)
    }

    /// What [`follow_symlinks`](Self::follow_symlinks) has set.
    pub fn get_follow_symlinks(&self) -> bool {
        self.settings.follow_symlinks
    }

    /// Whether missing parent directories are made; `false` unless set. They are made when the file
    /// is published, not before; they are as durable as the file, and are removed again if
    /// publishing fails.
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("2026/11/report.csv");
    /// let options = WriteOptions::new().create_parents(true);
    /// let failed = options.write(&path, |_| Err::<(), _>(io::Error::other("no rows")));
    /// assert!(failed.is_err() && !directory.path().join("2026").exists());
    /// options.write(&path, |w| w.write_all(b"id\n"))?;
    /// assert!(path.exists());
    /// # io::Result::Ok(())
    /// ```
    pub fn create_parents(self, create: bool) -> Self {
        self.set(|settings| settings.create_parents = create)
    }

    /// What [`create_parents`](Self::create_parents) has set.
    pub fn get_create_parents(&self) -> bool {
        self.settings.create_parents
    }

    /// Whether a regular file that the caller may write but not replace is written in place;
    /// `false` unless set, and such a file is refused before the closure runs.
    ///
    /// Such files are mount points (containers bind-mount `/etc/resolv.conf`), another user's file in a
    /// sticky directory, and files in a directory in which the caller may not create any (a service's
    /// configuration in `/etc`; `/proc`, `/sys` and cgroup files). The content is still staged, and
    /// copied only after the closure has returned `Ok`; but the copying is not atomic: a reader may see
    /// a part of the content, and a kill or a power cut leaves a part.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use std::io::Write;
    /// use write_atomically::{Error, Hint, WriteOptions};
    ///
    /// let name = "/proc/thread-self/comm"; // no file can be created beside it
    /// let refused = WriteOptions::new().write(name, |w| w.write_all(b"worker")).unwrap_err();
    /// let hint = Error::find(&refused).and_then(Error::hint);
    /// assert_eq!(hint, Some(Hint::UnwritableDirectory));
    ///
    /// WriteOptions::new().in_place_fallback(true).write(name, |w| w.write_all(b"worker"))?;
    /// assert_eq!(std::fs::read_to_string(name)?, "worker\n");
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn in_place_fallback(self, fall_back: bool) -> Self {
        self.set(|settings| settings.in_place_fallback = fall_back)
    }

    /// What [`in_place_fallback`](Self::in_place_fallback) has set.
    pub fn get_in_place_fallback(&self) -> bool {
        self.settings.in_place_fallback
    }

    /// Whether a file with several names (hard links) is written in place, so that all its names
    /// show the new content; `false` unless set, and the new file has only the name that was written.
    ///
    /// Writing in place is not atomic: see [`in_place_fallback`](Self::in_place_fallback). Systems
    /// other than Unix do not say how many names a file has; there it has no effect.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use std::io::Write;
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    /// std::fs::write(&one, "old")?;
    /// std::fs::hard_link(&one, &two)?;
    /// WriteOptions::new().keep_hard_links(true).write(&one, |w| w.write_all(b"new"))?;
    /// assert_eq!(std::fs::read_to_string(&two)?, "new");
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn keep_hard_links(self, keep: bool) -> Self {
        self.set(|settings| settings.keep_hard_links = keep)
    }

    /// What [`keep_hard_links`](Self::keep_hard_links) has set.
    pub fn get_keep_hard_links(&self) -> bool {
        self.settings.keep_hard_links
    }

    /// How long [`update`](Self::update) and the `if_missing` functions wait for others; for ever
    /// unless set. Afterwards the call fails with an error of kind
    /// [`TimedOut`](io::ErrorKind::TimedOut), and the closure has not run.
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use std::time::Duration;
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("index");
    /// # if cfg!(unix) {
    /// let hurried = WriteOptions::new().lock_timeout(Duration::from_millis(50));
    /// WriteOptions::new().write_if_missing(&path, |w| {
    ///     std::thread::scope(|scope| {
    ///         let other = scope.spawn(|| hurried.write_if_missing(&path, |w| w.write_all(b"2")));
    ///         let error = other.join().expect("it does not panic").unwrap_err();
    ///         assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    ///     });
    ///     w.write_all(b"1")
    /// })?;
    /// # }
    /// # io::Result::Ok(())
    /// ```
    pub fn lock_timeout(self, timeout: Duration) -> Self {
        self.set(|settings| settings.lock_timeout = Some(timeout))
    }

    /// What [`lock_timeout`](Self::lock_timeout) has set.
    pub fn get_lock_timeout(&self) -> Option<Duration> {
        self.settings.lock_timeout
    }

    /// Where to save the content if the closure fails or panics, or if publishing fails after the
    /// closure has returned `Ok`; it is not saved unless this is set.
    ///
    /// The file at this path is replaced. It gets the permission bits of a new file, less those that
    /// the destination does not allow. Saving is best effort: the file is not synced, and a failure to
    /// save it is not reported, because the error that is returned is the first one.
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let (path, partial) = (directory.path().join("a.csv"), directory.path().join("a.partial"));
    /// let result = WriteOptions::new().keep_failed(partial.clone()).write(&path, |w| {
    ///     writeln!(w, "1,2,3")?;
    ///     Err::<(), _>(io::Error::other("the fourth is missing"))
    /// });
    /// assert!(result.is_err() && !path.exists());
    /// assert_eq!(std::fs::read_to_string(&partial)?, "1,2,3\n");
    /// # io::Result::Ok(())
    /// ```
    pub fn keep_failed(self, path: impl Into<PathBuf>) -> Self {
        self.set(|settings| settings.keep_failed = Some(path.into()))
    }

    /// The path that [`keep_failed`](Self::keep_failed) has set.
    pub fn get_keep_failed(&self) -> Option<&Path> {
        self.settings.keep_failed.as_deref()
    }

    /// The size of the [`Writer`](crate::Writer)'s buffer in bytes; unless set 65,536, and 262,144
    /// for long streams. With 0 each write is a system call.
    ///
    /// ```
    /// use std::io::Write;
    /// use write_atomically::WriteOptions;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("progress.log");
    /// WriteOptions::new().buffer_capacity(0).write(&path, |w| {
    ///     writeln!(w, "started")?; // is in the file now, for one who has it open
    ///     writeln!(w, "stopped")
    /// })?;
    /// # assert_eq!(std::fs::read_to_string(&path)?, "started\nstopped\n");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn buffer_capacity(self, bytes: usize) -> Self {
        self.set(|settings| settings.buffer_capacity = Some(bytes))
    }

    /// What [`buffer_capacity`](Self::buffer_capacity) has set.
    pub fn get_buffer_capacity(&self) -> Option<usize> {
        self.settings.buffer_capacity
    }
}
