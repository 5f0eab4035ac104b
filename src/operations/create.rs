//! Creating a file that must not exist.

use std::io;
use std::path::Path;

use crate::error::{Error, Step};
use crate::options::WriteOptions;
use crate::platform::{Code, Os, Platform as _};
use crate::protocol::destination::find_nothing;
use crate::protocol::lock::Owner;
use crate::protocol::output::Output;
use crate::writer::Writer;

/// Writes a file that must not exist, and appears at `path` only when the closure `fill` has returned
/// `Ok`.
///
/// ```
/// use std::io::{self, Write};
/// use write_atomically::create_atomically;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("job.lock");
/// create_atomically(&path, |w| Ok(writeln!(w, "first come")?))?;
/// let error = create_atomically(&path, |w| Ok(writeln!(w, "too late")?)).unwrap_err();
/// assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::AlreadyExists);
/// # anyhow::Ok(())
/// ```
///
/// See [`WriteOptions::create`] for its errors.
#[cfg(feature = "anyhow")]
pub fn create_atomically<T>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().anyhow().create(path, fill)
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Writes a file that must not exist, and appears at `path` only when the closure `fill` has
    /// returned `Ok`.
    ///
    /// Whether the path exists is checked before the closure runs and again, atomically, when
    /// publishing: of many that create the same file one succeeds. A filesystem that has neither hard
    /// links nor `RENAME_NOREPLACE` (FAT, exFAT, some FUSE filesystems) can't do that in one step:
    /// there, a file that another program creates in the instant between a last look and the rename
    /// is replaced.
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
    /// anything is at `path`, even a link that leads nowhere. The destination is as it was.
    pub fn create<T>(
        &self,
        path: impl AsRef<Path>,
        fill: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let path = path.as_ref();
        let output = find_nothing(path, self.settings()).and_then(|destination| {
            Output::replace(destination, self.settings(), Owner::this_thread())
        });
        let (complete, value) = output.map_err(io::Error::from)?.fill(fill)?;
        complete.publish_new(|| exists(path)).map_err(io::Error::from)?;
        Ok(value)
    }
}

pub(crate) fn exists(path: &Path) -> Error {
    Error::new(Step::Publish, path, Os::error(Code::AlreadyExists))
}
