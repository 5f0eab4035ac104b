//! Read, modify, write, with no update lost.

use std::io;
use std::path::Path;

use crate::error::{Error, Step};
use crate::hint::Hint;
use crate::operations::create::exists;
use crate::options::WriteOptions;
use crate::platform::{Code, Kind, Os, Platform as _, Stat};
use crate::protocol::claim::{self, Asked, Asker, Claimed, Locked, LockedBy};
use crate::protocol::destination::{Route, check_creatable};
use crate::protocol::output::Output;
use crate::protocol::publish::Replace;
use crate::protocol::resolve::Destination;
use crate::reader::Reader;
use crate::settings::Settings;
use crate::writer::Writer;

/// Reads a file and writes its new content, while others who update it wait: no update is lost.
///
/// ```
/// use std::io::{Read, Write};
/// use write_atomically::update_atomically;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("counter");
/// # let mut counts = vec![];
/// # for _ in 0..2 {
/// let count = update_atomically(&path, |old, new| {
///     let mut text = String::new();
///     if let Some(old) = old {
///         old.read_to_string(&mut text)?;
///     }
///     let count = text.parse().unwrap_or(0) + 1;
///     write!(new, "{count}")?;
///     Ok(count)
/// })?;
/// # counts.push(count);
/// # }
/// # assert_eq!(counts, [1, 2]);
/// # anyhow::Ok(())
/// ```
///
/// See [`WriteOptions::update`] for how the others wait, and for its errors.
#[cfg(feature = "anyhow")]
pub fn update_atomically<T>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(Option<&mut Reader>, &mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().anyhow().update(path, fill)
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Reads a file and writes its new content, while others who update it wait.
    ///
    /// The closure gets the old content, or `None` where there is no file, and writes the whole new
    /// content, which replaces the old one as with [`write`](Self::write). Threads and processes that
    /// update the same file, by whatever name or link, run one after the other, each on the content
    /// that the one before has published; the file's creation included. One that fails, panics or is
    /// killed changes nothing, and the next one runs.
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
    /// # How the others wait
    ///
    /// The file itself is locked (`flock` on Unix) from before it is read until its successor is
    /// durable; so every user who can open it can make others wait. Where there is no file, its staging
    /// file is locked instead, as for [`write_if_missing`](Self::write_if_missing), and creating
    /// excludes that function, too. A child process that the closure has forked, and that lives on
    /// without calling `exec`, keeps others waiting after its parent was killed.
    /// [`lock_timeout`](Self::lock_timeout) limits the wait.
    ///
    /// The lock is advisory. If a program that does not ask for it replaces or removes the file while
    /// the closure runs, publishing would lose that change, and is an error instead; but a replacement
    /// in the instant between the last look and the rename, and anything that is written into the file
    /// in place, is lost.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write);
    /// - the destination is no regular file, or can't be read: before the closure runs;
    /// - the file exists and can't be locked (some network filesystems): of kind
    ///   [`Unsupported`](io::ErrorKind::Unsupported), before the closure runs;
    /// - of kind [`TimedOut`](io::ErrorKind::TimedOut), before the closure runs, after
    ///   [`lock_timeout`](Self::lock_timeout);
    /// - another program has replaced or removed the file meanwhile: of kind
    ///   [`ResourceBusy`](io::ErrorKind::ResourceBusy); or created it: of kind
    ///   [`AlreadyExists`](io::ErrorKind::AlreadyExists);
    /// - of kind [`Deadlock`](io::ErrorKind::Deadlock), at once, for the same path inside the closure,
    ///   on the same thread, here or in [`write_if_missing`](Self::write_if_missing). On another thread
    ///   the call waits, for ever if the closure waits for that thread.
    pub fn update<T>(
        &self,
        path: impl AsRef<Path>,
        fill: impl FnOnce(Option<&mut Reader>, &mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let (path, settings) = (path.as_ref(), self.settings());
        let asker = Asker::this_thread(settings);
        match Subject::find(path, settings, asker).map_err(io::Error::from)? {
            Subject::Nothing(destination, claimed) => {
                let output = Output::claimed(destination, settings, asker.owner, claimed);
                let output = output.map_err(io::Error::from)?;
                let (complete, value) = output.fill(|w| fill(None, w))?;
                // What others have created was not there to be read.
                let published = complete.publish_new(|| created_meanwhile(path));
                published.map_err(io::Error::from)?;
                Ok(value)
            }
            Subject::File(route, locked) => {
                // Held until the end of this function: the file is published by then, or unchanged.
                let old = Old::open(route, locked, path, settings, asker);
                let Old { mut reader, output, replace, _lock } = old.map_err(io::Error::from)?;
                let (complete, value) = output.fill(|w| fill(Some(&mut reader), w))?;
                // Not every system replaces a file that is open.
                drop(reader);
                complete.publish(replace).map_err(io::Error::from)?;
                Ok(value)
            }
            Subject::Busy => Err(io::Error::from(claim::timed_out(path)).into()),
        }
    }
}

pub(crate) fn created_meanwhile(path: &Path) -> Error {
    exists(path).with_hint(Hint::CreatedMeanwhile)
}

/// A destination that nobody else updates.
pub(crate) enum Subject {
    /// `None` where nobody can be excluded: publishing decides, which replaces nothing then.
    Nothing(Destination, Option<Claimed>),
    File(Route, Locked),
    Busy,
}

impl Subject {
    pub(crate) fn find(path: &Path, settings: &Settings, asker: Asker) -> Result<Subject, Error> {
        loop {
            let destination = Destination::resolve(path, settings)?;
            let Some(found) = destination.at_start.clone() else {
                check_creatable(&destination)?;
                match claim::missing(&destination, settings, asker)? {
                    Asked::Got(claimed) => return Ok(Subject::Nothing(destination, Some(claimed))),
                    Asked::Impossible => return Ok(Subject::Nothing(destination, None)),
                    Asked::LookAgain => continue,
                    Asked::Busy => return Ok(Subject::Busy),
                }
            };
            check_updatable(&destination, &found)?;
            match claim::existing(&destination, &found, settings, asker)? {
                Asked::Got(locked) => {
                    return Ok(Subject::File(Route::of(destination, settings)?, locked));
                }
                Asked::Impossible => return Err(no_locks(&destination)),
                Asked::LookAgain => {}
                Asked::Busy => return Ok(Subject::Busy),
            }
        }
    }
}

/// The old content, and where the new one goes.
pub(crate) struct Old {
    pub(crate) reader: Reader,
    pub(crate) output: Output,
    pub(crate) replace: Replace,
    pub(crate) _lock: Option<LockedBy>,
}

impl Old {
    pub(crate) fn open(
        route: Route,
        locked: Locked,
        path: &Path,
        settings: &Settings,
        asker: Asker,
    ) -> Result<Old, Error> {
        let Locked { file, id, by } = locked;
        let reader = Reader::new(file, path, settings.buffer_capacity);
        let (output, _lock) = match (route, by) {
            (Route::Rename(destination), LockedBy::Entry(claimed)) => {
                (Output::claimed(destination, settings, asker.owner, Some(claimed))?, None)
            }
            (Route::Rename(destination), LockedBy::Both(claimed, _lock)) => {
                let output = Output::claimed(destination, settings, asker.owner, Some(claimed))?;
                (output, Some(LockedBy::Itself { _lock }))
            }
            (route, by) => (Output::by(route, settings, asker.owner)?, Some(by)),
        };
        Ok(Old { reader, output, replace: Replace::Only(id), _lock })
    }
}

/// Only a regular file has an old content that can be read and replaced.
fn check_updatable(destination: &Destination, found: &Stat) -> Result<(), Error> {
    let (code, hint) = match found.kind {
        Kind::File => return Ok(()),
        Kind::Directory => (Code::IsADirectory, Hint::NotAFile),
        Kind::Symlink if !destination.is_magic_link => (Code::TooManyLinks, Hint::LinkNotFollowed),
        Kind::Symlink | Kind::Other => (Code::InvalidName, Hint::NotAFile),
    };
    let error = Os::error(code);
    Err(Error::new(Step::Resolve, &destination.path, error).with_hint(hint))
}

fn no_locks(destination: &Destination) -> Error {
    let error = io::Error::from(io::ErrorKind::Unsupported);
    Error::new(Step::Lock, &destination.path, error).with_hint(Hint::NoLocks)
}
