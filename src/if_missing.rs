//! Writing what is missing, once, however many ask for it.

use std::io;
use std::path::Path;

use crate::error::{Error, Step};
use crate::lock::{self, Asked, LockEntry};
use crate::options::WriteOptions;
use crate::staged::{Clobber, Staged};
use crate::target::Target;
use crate::writer::Writer;

pub(crate) fn write_if_missing<T, E: From<io::Error>>(
    path: &Path,
    options: &WriteOptions,
    write: impl FnOnce(&mut Writer) -> Result<T, E>,
) -> Result<Option<T>, E> {
    let Some((target, _lock)) = find_missing(path, options).map_err(io::Error::from)? else {
        return Ok(None);
    };
    let staged = Staged::new(target, options).map_err(io::Error::from)?;
    let (written, value) = staged.fill(write)?;
    match written.publish(Clobber::No) {
        Ok(()) => Ok(Some(value)),
        // Somebody who does not ask for the lock, or could not have ours, was faster.
        Err(error) if is_there(&error) => Ok(None),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// `None` if there is something, be it because others made it while we waited for them.
fn find_missing(
    path: &Path,
    options: &WriteOptions,
) -> Result<Option<(Target, Option<LockEntry>)>, Error> {
    loop {
        let target = Target::resolve(path, options)?;
        if target.found.is_some() {
            lock::sweep(&target);
            return Ok(None);
        }
        match lock::missing(&target, options)? {
            Asked::Held(entry) => return Ok(Some((target, Some(entry)))),
            // Publishing decides, then: it never replaces anything.
            Asked::Impossible => return Ok(Some((target, None))),
            Asked::LookAgain => {}
        }
    }
}

fn is_there(error: &Error) -> bool {
    error.step() == Step::Publish && error.io_error().kind() == io::ErrorKind::AlreadyExists
}
