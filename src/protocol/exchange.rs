//! Whether an existing directory can be exchanged with a new one, in one step.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Step};
use crate::hint::Hint;
use crate::platform::{self, Code, Os, Platform as _};
use crate::protocol::private_dir::StagedPath;
use crate::protocol::resolve::Destination;

/// Whether two directories can be exchanged here shows only when it is tried: with two that nobody can
/// see.
pub(crate) fn check(staged: &StagedPath, destination: &Destination) -> Result<(), Error> {
    let at = |error| Error::new(Step::Stage, &destination.path, error);
    let (directory, name) = (&staged.private.directory, &staged.name);
    let scratch = PathBuf::from(format!("{:08x}", platform::random()));
    Os::make_directory(directory, &scratch, 0o777).map_err(at)?;
    match Os::exchange(directory, name, directory, &scratch) {
        Ok(()) if destination.realm().is_none() => {}
        // SeaweedFS' mount takes it for a plain rename, and says that it is done. The kernel believes
        // that, and knows both names: only a listing asks the server.
        Ok(()) => {
            let mut both = 0;
            for entry in Os::entries(directory).map_err(at)? {
                let (found, _) = entry.map_err(at)?;
                both += usize::from(found == *name || found == scratch);
            }
            if both < 2 {
                return Err(at(Os::error(Code::Unsupported)).with_hint(Hint::NoExchange));
            }
        }
        Err(error) if Os::is_unsupported(&error) => {
            return Err(at(Os::error(Code::Unsupported)).with_hint(Hint::NoExchange));
        }
        Err(error) => return Err(at(error)),
    }
    if Os::has_immovable_directories(&destination.directory).map_err(at)? {
        check_movable(staged, destination, &scratch)?;
    }
    Os::remove_directory(directory, &scratch).map_err(at)
}

/// An overlay does not move a directory that comes from a lower layer (the kernel's documentation,
/// filesystems/overlayfs, "Renaming directories"). It says so before it looks whether the new name is
/// taken by a directory that is not empty, over which nothing can be renamed (rename(2), ENOTEMPTY).
fn check_movable(
    staged: &StagedPath,
    destination: &Destination,
    scratch: &Path,
) -> Result<(), Error> {
    let at = |error| Error::new(Step::Stage, &destination.path, error);
    let directory = &staged.private.directory;
    let inside = scratch.join("full");
    Os::make_directory(directory, &inside, 0o777).map_err(at)?;
    let moved = Os::rename_to(&destination.directory, &destination.name, directory, scratch);
    match moved {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            Err(at(Os::error(Code::Unsupported)).with_hint(Hint::LowerLayer))
        }
        Err(_) => Os::remove_directory(directory, &inside).map_err(at),
        // No filesystem does that.
        Ok(()) => {
            let back = Os::rename_to(directory, scratch, &destination.directory, &destination.name);
            back.and_then(|()| Os::make_directory(directory, scratch, 0o777)).map_err(at)
        }
    }
}
