//! Parents that are made together with what is published below them.
//!
//! They are made in the private staging directory, around the staged file or tree, and renamed with it in
//! one step: nobody sees a parent without it, and a kill leaves nothing but the staging directory.

use std::io;
use std::path::{Path, PathBuf};

use crate::platform::{self, Os, Platform as _};
use crate::protocol::private_dir::Private;
use crate::protocol::resolve::Destination;

/// Moves what is staged below parents of its own, and returns its new name in the staging directory.
pub(crate) fn surround(
    private: &Private,
    staged: &Path,
    destination: &Destination,
) -> io::Result<Surrounded> {
    // The closure of `write_path` may have taken any name that can be guessed.
    let base = PathBuf::from(format!("{:08x}", platform::random()));
    Os::make_directory(&private.directory, &base, 0o700)?;
    for parent in &destination.missing_parents {
        Os::make_directory(&private.directory, &base.join(parent), 0o777)?;
    }
    let name = base.join(&destination.name);
    Os::rename_to(&private.directory, staged, &private.directory, &name)?;
    Ok(Surrounded { base, name })
}

/// Something staged with its parents around it.
#[derive(Debug)]
pub(crate) struct Surrounded {
    base: PathBuf,
    /// In the staging directory.
    pub(crate) name: PathBuf,
}

impl Surrounded {
    /// Renames the outermost parent that is missing, with all below it. `false` if another process has made
    /// all of them meanwhile, so that the destination itself is to be renamed.
    pub(crate) fn publish(&self, private: &Private, destination: &Destination) -> io::Result<bool> {
        for parent in &destination.missing_parents {
            let (from, to) = (&private.directory, &destination.directory);
            match Os::rename_new_directory(from, &self.base.join(parent), to, parent) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                renamed => return renamed.map(|()| true),
            }
        }
        Ok(false)
    }
}
