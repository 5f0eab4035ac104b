//! The options of the asynchronous functions.

use std::fmt;
use std::io;

use crate::options;
use crate::settings::Settings;

/// [`WriteOptions`](crate::WriteOptions) whose closures are asynchronous.
///
/// [`WriteOptions::tokio`](crate::WriteOptions::tokio) makes them, from options that say how to write
/// and with which error type.
///
/// ```
/// use std::io;
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::{Durability, WriteOptions};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> io::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("thumbnail.png");
/// let cache = WriteOptions::new().durability(Durability::Consistent).tokio();
/// cache.write(&path, async |w| w.write_all(b"\x89PNG").await).await?;
/// assert_eq!(std::fs::read(&path)?, b"\x89PNG");
/// # Ok(())
/// # }
/// ```
pub struct WriteOptions<E = io::Error> {
    options: options::WriteOptions<E>,
}

impl<E> WriteOptions<E> {
    pub(crate) fn settings(&self) -> &Settings {
        self.options.settings()
    }
}

// A derived implementation would ask `E` to be `Clone`.
impl<E> Clone for WriteOptions<E> {
    fn clone(&self) -> Self {
        WriteOptions { options: self.options.clone() }
    }
}

impl<E> fmt::Debug for WriteOptions<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.options, f)
    }
}

impl<E> From<options::WriteOptions<E>> for WriteOptions<E> {
    fn from(options: options::WriteOptions<E>) -> Self {
        WriteOptions { options }
    }
}

impl<E> options::WriteOptions<E> {
    /// The same options for asynchronous closures: see [`write_atomically::tokio`](crate::tokio).
    ///
    /// ```
    /// use tokio::io::AsyncWriteExt;
    /// use write_atomically::WriteOptions;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("a/b/names.txt");
    /// let options = WriteOptions::new().create_parents(true).tokio();
    /// options.write(&path, async |w| w.write_all(b"Ada\n").await).await?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "Ada\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn tokio(&self) -> WriteOptions<E> {
        self.clone().into()
    }
}
