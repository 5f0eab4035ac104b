//! What went wrong: which step, on which path, why, and what became of the destination.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::platform;

/// The step of a write that failed, in the order in which the steps happen.
///
/// ```
/// use write_atomically::{Error, Step, write};
///
/// let error = write("no-such-directory/report.csv", "id,total\n").unwrap_err();
/// assert_eq!(Error::find(&error).unwrap().step(), Step::Resolve);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Opening the destination's directory, following links, looking at what is there.
    Resolve,
    /// Waiting for others that update or create the same destination.
    Lock,
    /// Creating the staging file, which holds the new content until it is published.
    Stage,
    /// Reading the old content.
    Read,
    /// Writing the new content to the staging file.
    Write,
    /// Carrying the old file's mode, owner and attributes over to the staging file.
    Metadata,
    /// Bringing the staged content to stable storage.
    Sync,
    /// Moving the staged content to the destination's name.
    Publish,
    /// Copying the staged content into a destination that is not replaced: a device, a FIFO, or,
    /// with [`overwrite_in_place`](crate::WriteOptions::overwrite_in_place), a mount point.
    Overwrite,
    /// Bringing the destination's name to stable storage.
    SyncDirectory,
    /// Removing the directory tree that has been replaced.
    Remove,
}

impl Step {
    /// Completes the sentence "failed to … `path`".
    fn verb(self) -> &'static str {
        match self {
            Step::Resolve => "find a place for",
            Step::Lock => "lock",
            Step::Stage => "create a staging file for",
            Step::Read => "read",
            Step::Write => "write",
            Step::Metadata => "carry the metadata over to",
            Step::Sync => "sync",
            Step::Publish => "publish",
            Step::Overwrite => "overwrite",
            Step::SyncDirectory => "sync the directory of",
            Step::Remove => "remove the replaced tree of",
        }
    }
}

/// An error of this library, as opposed to one of the closure's own.
///
/// It travels inside an [`io::Error`] of the same [`kind`](io::Error::kind), whatever the error
/// type of the function that it leaves; [`Error::find`] gets it back.
///
/// ```
/// use write_atomically::{Error, Step, write_atomically};
///
/// let error = write_atomically("no-such-directory/a.txt", |_| Ok(())).unwrap_err();
/// let error = Error::find(error.as_ref()).expect("the directory is missing");
/// assert_eq!(error.step(), Step::Resolve);
/// assert_eq!(error.path().to_str(), Some("no-such-directory/a.txt"));
/// assert_eq!(error.io_error().kind(), std::io::ErrorKind::NotFound);
/// assert!(!error.replaced());
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Error {
    what: Arc<What>,
    cause: Option<Box<Cause>>,
}

#[derive(Debug)]
struct What {
    step: Step,
    path: PathBuf,
    io_error: io::Error,
    state: State,
    hint: Option<&'static str>,
    published: Vec<PathBuf>,
}

/// The OS error, as the cause of an [`Error`] that it leads back to.
///
/// An [`io::Error`] that carries an error passes it over when asked for its source, and wrappers that
/// are transparent pass over the [`io::Error`]: then this is all of it that is left in the chain.
#[derive(Debug)]
struct Cause(Error);

/// What became of the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unchanged,
    Replaced,
    PartlyOverwritten,
}

impl Error {
    pub(crate) fn new(step: Step, path: impl Into<PathBuf>, io_error: io::Error) -> Self {
        let (path, state, published) = (path.into(), State::Unchanged, Vec::new());
        let hint = platform::hint(step, &io_error);
        let what = What { step, path, io_error, state, hint, published };
        Error { what: Arc::new(what), cause: None }
    }

    /// For `map_err`: the step and the path that an OS error belongs to.
    pub(crate) fn at(step: Step, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |io_error| Error::new(step, path, io_error)
    }

    fn with(mut self, change: impl FnOnce(&mut What)) -> Self {
        // It is shared only once it has left the library.
        if let Some(what) = Arc::get_mut(&mut self.what) {
            change(what);
        }
        self
    }

    /// Adds what the user can do about it.
    pub(crate) fn hint(self, hint: &'static str) -> Self {
        self.with(|what| what.hint = Some(hint))
    }

    /// Says that the destination had already been replaced.
    pub(crate) fn after_replacing(self) -> Self {
        self.with(|what| what.state = State::Replaced)
    }

    /// Says that the destination may hold a part of the new content.
    pub(crate) fn while_overwriting(self) -> Self {
        self.with(|what| what.state = State::PartlyOverwritten)
    }

    /// Says which destinations of a batch had already been published.
    pub(crate) fn after_publishing(self, published: Vec<PathBuf>) -> Self {
        self.with(|what| what.published = published)
    }

    /// The step that failed.
    ///
    /// ```
    /// # use write_atomically::{Error, Step, write};
    /// let error = write("", "nowhere").unwrap_err();
    /// assert_eq!(Error::find(&error).unwrap().step(), Step::Resolve);
    /// ```
    pub fn step(&self) -> Step {
        self.what.step
    }

    /// The destination, as the caller gave it.
    ///
    /// ```
    /// # use write_atomically::{Error, write};
    /// let error = write("no-such-directory/a.txt", "").unwrap_err();
    /// assert!(Error::find(&error).unwrap().path().ends_with("a.txt"));
    /// ```
    pub fn path(&self) -> &Path {
        &self.what.path
    }

    /// The operating system's error.
    ///
    /// ```
    /// # use write_atomically::{Error, write};
    /// let error = write("no-such-directory/a.txt", "").unwrap_err();
    /// assert!(Error::find(&error).unwrap().io_error().raw_os_error().is_some());
    /// ```
    pub fn io_error(&self) -> &io::Error {
        &self.what.io_error
    }

    /// Whether the destination no longer holds the old content.
    ///
    /// `false` means that it is exactly as it was. `true` comes from a directory that could not be
    /// synced after the new content was published (it is there, whole, but its name may not
    /// survive a power cut), and from a destination that is written into because it can't be
    /// replaced (it may then hold a part).
    ///
    /// ```
    /// # use write_atomically::{Error, write};
    /// let error = write("no-such-directory/a.txt", "").unwrap_err();
    /// assert!(!Error::find(&error).unwrap().replaced());
    /// ```
    pub fn replaced(&self) -> bool {
        self.what.state != State::Unchanged
    }

    /// The destinations of a batch that had been published when it failed, in that order; empty
    /// for everything else.
    ///
    /// ```
    /// # use write_atomically::{Error, write};
    /// let error = write("no-such-directory/a.txt", "").unwrap_err();
    /// assert!(Error::find(&error).unwrap().published().is_empty());
    /// ```
    pub fn published(&self) -> &[PathBuf] {
        &self.what.published
    }

    /// Finds this library's error in a chain of errors, also inside an [`io::Error`], whose
    /// [`source`](StdError::source) passes over the error that it carries.
    ///
    /// ```
    /// use std::error::Error as _;
    /// use write_atomically::{Error, write};
    ///
    /// fn report() -> Result<(), Box<dyn std::error::Error>> {
    ///     write("no-such-directory/report.csv", "id,total\n")?;
    ///     Ok(())
    /// }
    /// let error = report().unwrap_err();
    /// assert!(Error::find(error.as_ref()).is_some());
    /// assert!(Error::find(&std::io::Error::other("something else")).is_none());
    /// ```
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Error>() {
                return Some(found);
            }
            if let Some(Cause(found)) = error.downcast_ref::<Cause>() {
                return Some(found);
            }
            let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = match carried {
                Some(inner) => Some(inner as &(dyn StdError + 'static)),
                None => error.source(),
            };
        }
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let What { step, path, io_error, state, hint, published } = &*self.what;
        write!(f, "failed to {} `{}`: {io_error}", step.verb(), path.display())?;
        if let Some(hint) = hint {
            write!(f, ": {hint}")?;
        }
        if !published.is_empty() {
            write!(f, "; already published:")?;
            for path in published {
                write!(f, " `{}`", path.display())?;
            }
        }
        match state {
            State::Unchanged => write!(f, "; the destination is unchanged"),
            State::Replaced => write!(f, "; the destination has already been replaced"),
            State::PartlyOverwritten => write!(f, "; the destination may be partly overwritten"),
        }
    }
}

impl StdError for Error {
    /// The OS error.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.cause {
            Some(cause) => Some(&**cause),
            None => self.what.io_error.source(),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.what.io_error.fmt(f)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.what.io_error.source()
    }
}

impl From<Error> for io::Error {
    fn from(mut error: Error) -> Self {
        let cause = Error { what: error.what.clone(), cause: None };
        error.cause = Some(Box::new(Cause(cause)));
        io::Error::new(error.io_error().kind(), error)
    }
}
