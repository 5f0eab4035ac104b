//! Writing a file that is missing, once, however many callers ask for it.

use std::io;
use std::path::Path;

use crate::error::Error;
use crate::options::WriteOptions;
use crate::protocol::claim::{self, Asker, Claimed, Creation};
use crate::protocol::output::Output;
use crate::protocol::publish::Replace;
use crate::protocol::resolve::Destination;
use crate::settings::Settings;
use crate::writer::Writer;

/// Writes a file if nothing is at `path`; `None` if something is. Of many callers, one computes it.
///
/// ```
/// use std::io::Write;
/// use write_atomically::write_if_missing;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("primes.txt");
/// # fn primes() -> anyhow::Result<Vec<u32>> { Ok(vec![2, 3, 5]) }
/// write_if_missing(&path, |w| {
///     for prime in primes()? {
///         writeln!(w, "{prime}")?;
///     }
///     Ok(())
/// })?;
/// assert_eq!(std::fs::read_to_string(&path)?, "2\n3\n5\n");
/// # anyhow::Ok(())
/// ```
///
/// See [`WriteOptions::write_if_missing`] for how the others wait, and for its errors.
#[cfg(feature = "anyhow")]
pub fn write_if_missing<T>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    WriteOptions::new().anyhow().write_if_missing(path, fill)
}

impl<E: From<io::Error>> WriteOptions<E> {
    /// Writes a file if nothing is at `path`; `None` if something is.
    ///
    /// Among threads and processes that ask for the same path, one runs its closure; the others wait,
    /// and get `None` without having run theirs. If the one that runs fails, panics or is killed, one
    /// of those that wait runs its own.
    ///
    /// Anything at the path counts: a directory, a device, another user's file that can't be read.
    /// Symbolic links are followed, and the file is created where a dangling link leads; with
    /// [`follow_symlinks(false)`](Self::follow_symlinks) the link itself counts. This check needs no
    /// write permission. Nothing is ever replaced: if another program, which does not use this
    /// function, creates something while the closure runs, that stays, and the result is `None`.
    ///
    /// `None` does not say that the file has been synced.
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
    /// # How the others wait
    ///
    /// The staging file is created beside the destination, named `.key.bin.write-atomically`, and
    /// locked (`flock` on Unix) while the closure runs; then it is renamed to the destination. If the
    /// process is killed, the lock is released at once, and the next write of any kind to the
    /// destination removes the file. Below parents that [`create_parents`](Self::create_parents) has
    /// yet to make, it is in the innermost directory that exists. Other writers of the same
    /// destination that have their staging entry there are waited for, too.
    /// [`lock_timeout`](Self::lock_timeout) limits the wait.
    ///
    /// Where there are no locks (some network filesystems), and where the file of that name belongs to
    /// another user, nobody waits: several closures may run, and the first to publish wins. A child
    /// process that the closure has forked, and that lives on without calling `exec`, keeps others
    /// waiting after its parent was killed.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write);
    /// - of kind [`TimedOut`](io::ErrorKind::TimedOut), before the closure runs, after
    ///   [`lock_timeout`](Self::lock_timeout);
    /// - of kind [`Deadlock`](io::ErrorKind::Deadlock), at once, for the same path inside the closure, on
    ///   the same thread, here or in [`update`](Self::update). On another thread the call waits, for
    ///   ever if the closure waits for that thread.
    pub fn write_if_missing<T>(
        &self,
        path: impl AsRef<Path>,
        fill: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let (path, settings) = (path.as_ref(), self.settings());
        let asker = Asker::this_thread(settings);
        let (destination, claimed) =
            match to_create(path, settings, asker).map_err(io::Error::from)? {
                Creation::Exists => return Ok(None),
                Creation::Mine(destination, claimed) => (destination, claimed),
                Creation::Busy => return Err(io::Error::from(claim::timed_out(path)).into()),
            };
        let output = Output::claimed(destination, settings, asker.owner, claimed);
        let (complete, value) = output.map_err(io::Error::from)?.fill(fill)?;
        let published = complete.publish(Replace::Nothing).map_err(io::Error::from)?;
        Ok(published.then_some(value))
    }
}

pub(crate) fn to_create(
    path: &Path,
    settings: &Settings,
    asker: Asker,
) -> Result<Creation<Claimed>, Error> {
    let ask = |destination: &Destination| claim::missing(destination, settings, asker);
    claim::to_create(path, || Destination::resolve(path, settings), ask)
}
