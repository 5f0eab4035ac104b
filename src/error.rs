//! What went wrong: which step, on which path, why, and what became of the destination.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::hint::Hint;
use crate::platform::{InUse, Os, Platform as _};

/// The step of a write that failed, in the order in which the steps happen.
///
/// [`Display`](fmt::Display) completes the phrase "failed to …".
///
/// ```
/// use write_atomically::{Error, Step, write};
///
/// let error = write("no-such-directory/report.csv", "id,total\n").unwrap_err();
/// assert_eq!(Error::find(&error).map(Error::step), Some(Step::Resolve));
/// assert_eq!(Step::SyncDirectory.to_string(), "sync the directory");
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
    /// Carrying over the old file's mode, owner and attributes to the staging file.
    Metadata,
    /// Bringing the staged content to stable storage.
    Sync,
    /// Moving the staged content to the destination's name.
    Publish,
    /// Copying the staged content into a destination that is not replaced: a device, a FIFO, or,
    /// with [`in_place_fallback`](crate::WriteOptions::in_place_fallback), a mount point.
    Overwrite,
    /// Bringing the destination's name to stable storage.
    SyncDirectory,
    /// Removing the directory tree that has been replaced.
    Remove,
    /// Removing a staging entry that is left over ([`sweep`](crate::sweep())).
    Sweep,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Resolve => "resolve the path",
            Step::Lock => "lock",
            Step::Stage => "create a staging file",
            Step::Read => "read",
            Step::Write => "write",
            Step::Metadata => "carry over the metadata",
            Step::Sync => "sync",
            Step::Publish => "publish",
            Step::Overwrite => "write in place",
            Step::SyncDirectory => "sync the directory",
            Step::Remove => "remove the replaced tree",
            Step::Sweep => "sweep",
        })
    }
}

/// What became of the destination of a write that failed.
///
/// ```
/// use write_atomically::{Error, Outcome, write};
///
/// let error = write("no-such-directory/report.csv", "id,total\n").unwrap_err();
/// assert_eq!(Error::find(&error).map(Error::outcome), Some(Outcome::Unchanged));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It is exactly as it was.
    Unchanged,
    /// It holds the new content, complete; but that may not survive a power cut, or the tree that
    /// was replaced could not be removed.
    Replaced,
    /// It is written in place, and may hold a part of the new content.
    PartlyOverwritten,
    /// It holds the old content or the new, complete; which of them could not be found out.
    Unknown,
}

/// An error of this library, as opposed to one of the closure's own.
///
/// It travels inside an [`io::Error`] of the same [`kind`](io::Error::kind), whatever the error
/// type of the function that it leaves; [`Error::find`] gets it back. The outer `io::Error` has no
/// [`raw_os_error`](io::Error::raw_os_error): ask [`io_error`](Self::io_error) for it.
///
/// It prints what became of the destination first, and the cause last:
///
/// ```
/// use write_atomically::{Error, Outcome, Step, write_atomically};
///
/// let error = write_atomically("no-such-directory/a.txt", |_| Ok(())).unwrap_err();
/// # #[cfg(unix)]
/// assert_eq!(
///     error.to_string(),
///     "`no-such-directory/a.txt` is unchanged: failed to resolve the path: \
///      No such file or directory (os error 2)",
/// );
/// let error = Error::find(error.as_ref()).expect("it is the library's");
/// assert_eq!(error.step(), Step::Resolve);
/// assert_eq!(error.path().to_str(), Some("no-such-directory/a.txt"));
/// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
/// assert_eq!(error.outcome(), Outcome::Unchanged);
/// ```
pub struct Error {
    facts: Arc<Facts>,
    cause: Option<Box<Cause>>,
}

struct Facts {
    step: Step,
    path: PathBuf,
    io_error: io::Error,
    outcome: Outcome,
    hint: Option<Hint>,
    published: Vec<PathBuf>,
}

/// Leads back to the [`Error`] from further down its own chain.
///
/// `source()` of an [`io::Error`] skips the error that it wraps, and `#[error(transparent)]` skips
/// the [`io::Error`]. This copy stays in the chain, so that [`Error::find`] still works.
struct Cause(Error);

impl Error {
    pub(crate) fn new(step: Step, path: impl Into<PathBuf>, io_error: io::Error) -> Self {
        let (path, outcome, published) = (path.into(), Outcome::Unchanged, Vec::new());
        let hint = hint_of(step, &io_error);
        let facts = Facts { step, path, io_error, outcome, hint, published };
        Error { facts: Arc::new(facts), cause: None }
    }

    /// For `map_err`: the step and the path that an OS error belongs to.
    pub(crate) fn at(step: Step, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |io_error| Error::new(step, path, io_error)
    }

    fn with(mut self, change: impl FnOnce(&mut Facts)) -> Self {
        // They are shared from `From<Error> for io::Error` on, which is the way out of the library.
        if let Some(facts) = Arc::get_mut(&mut self.facts) {
            change(facts);
        }
        self
    }

    /// Adds what the user can do about it.
    pub(crate) fn with_hint(self, hint: Hint) -> Self {
        self.with(|facts| facts.hint = Some(hint))
    }

    pub(crate) fn with_outcome(self, outcome: Outcome) -> Self {
        self.with(|facts| facts.outcome = outcome)
    }

    /// Says which destinations of a batch had already been published.
    pub(crate) fn with_published(self, published: Vec<PathBuf>) -> Self {
        self.with(|facts| facts.published = published)
    }

    /// The same error, for a writer that remembers what it has told.
    #[cfg(feature = "object_store")]
    pub(crate) fn copy(&self) -> Self {
        Error { facts: self.facts.clone(), cause: None }
    }

    /// The step that failed.
    pub fn step(&self) -> Step {
        self.facts.step
    }

    /// The destination, as the caller gave it.
    pub fn path(&self) -> &Path {
        &self.facts.path
    }

    /// The operating system's error.
    ///
    /// ```
    /// # use write_atomically::{Error, write};
    /// let error = write("no-such-directory/a.txt", "").unwrap_err();
    /// assert_eq!(error.raw_os_error(), None);
    /// let error = Error::find(&error).expect("it is the library's");
    /// # #[cfg(unix)]
    /// assert_eq!(error.io_error().raw_os_error(), Some(2)); // ENOENT
    /// ```
    pub fn io_error(&self) -> &io::Error {
        &self.facts.io_error
    }

    /// The kind of [`io_error`](Self::io_error).
    pub fn kind(&self) -> io::ErrorKind {
        self.facts.io_error.kind()
    }

    /// What became of the destination.
    pub fn outcome(&self) -> Outcome {
        self.facts.outcome
    }

    /// Whether the destination may no longer hold the old content: the [`outcome`](Self::outcome) is
    /// not [`Outcome::Unchanged`].
    ///
    /// ```
    /// # use write_atomically::{Error, write};
    /// let error = write("no-such-directory/a.txt", "").unwrap_err();
    /// assert!(!Error::find(&error).expect("it is the library's").replaced());
    /// ```
    pub fn replaced(&self) -> bool {
        self.facts.outcome != Outcome::Unchanged
    }

    /// The destinations of a batch that had been published when it failed, in that order; empty
    /// for everything else.
    pub fn published(&self) -> &[PathBuf] {
        &self.facts.published
    }

    /// What the user can do about it, where the library knows.
    ///
    /// ```
    /// use write_atomically::{Error, Hint, write_path_atomically};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("a.png");
    /// let error = write_path_atomically(&path, |_| Ok(())).unwrap_err();
    /// let error = Error::find(error.as_ref()).expect("it is the library's");
    /// assert_eq!(error.hint(), Some(Hint::NothingWritten));
    /// # anyhow::Ok(())
    /// ```
    pub fn hint(&self) -> Option<Hint> {
        self.facts.hint
    }

    /// Finds this library's error in a chain of errors, also inside an [`io::Error`], whose
    /// [`source`](StdError::source) skips the error that it carries.
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

/// The hint that follows from the system's error alone.
fn hint_of(step: Step, error: &io::Error) -> Option<Hint> {
    match Os::in_use(error) {
        InUse::Yes => Some(Hint::OpenElsewhere),
        InUse::Maybe if step == Step::Publish => Some(Hint::MaybeOpenElsewhere),
        InUse::Maybe | InUse::No => None,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { step, path, io_error, outcome, hint, published } = &*self.facts;
        let became = match outcome {
            Outcome::Unchanged => "is unchanged",
            Outcome::Replaced => "is replaced",
            Outcome::PartlyOverwritten => "may be partly overwritten",
            Outcome::Unknown => "is unchanged or replaced",
        };
        write!(f, "`{}` {became}", path.display())?;
        for (nth, path) in published.iter().enumerate() {
            let before = if nth == 0 { "; already published:" } else { "," };
            write!(f, "{before} `{}`", path.display())?;
        }
        write!(f, ": failed to {step}")?;
        if let Some(hint) = hint {
            write!(f, " ({hint})")?;
        }
        write!(f, ": {io_error}")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { step, path, io_error, outcome, hint, published } = &*self.facts;
        let mut error = f.debug_struct("Error");
        error.field("path", path).field("outcome", outcome).field("step", step);
        if let Some(hint) = hint {
            error.field("hint", hint);
        }
        if !published.is_empty() {
            error.field("published", published);
        }
        error.field("io_error", io_error).finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.cause {
            Some(cause) => Some(&**cause),
            None => self.facts.io_error.source(),
        }
    }
}

/// The OS error's text stands in the [`Error`] that this is the source of: its kind adds to that.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "io::ErrorKind::{:?}", self.0.kind())
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.facts.io_error.source()
    }
}

impl From<Error> for io::Error {
    fn from(mut error: Error) -> Self {
        let copy = Error { facts: error.facts.clone(), cause: None };
        error.cause = Some(Box::new(Cause(copy)));
        io::Error::new(error.kind(), error)
    }
}
