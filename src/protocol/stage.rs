//! A file to stage in, with or without a name, and the mode that it starts with.

use std::fs::File;
use std::io;
use std::path::Component;
use std::sync::Arc;

use crate::platform::{Kind, Os, Platform as _};
use crate::protocol::entry::{self, Entry};
use crate::protocol::lock::Owner;
use crate::protocol::metadata::Exposure;
use crate::protocol::private_dir::PrivateDir;
use crate::protocol::resolve::Destination;
use crate::settings::Settings;

/// The staging file, with or without a name.
pub(crate) enum Content {
    Unnamed(Arc<File>),
    Named(Arc<File>, StagingName),
}

/// The name of a staging file, and the private staging directory around it, if there is one. The name is
/// removed first.
pub(crate) struct StagingName {
    pub(crate) entry: Entry,
    pub(crate) private: Option<PrivateDir>,
}

impl Content {
    pub(crate) fn file(&self) -> &Arc<File> {
        match self {
            Content::Unnamed(file) | Content::Named(file, _) => file,
        }
    }

    pub(crate) fn exposure(&self) -> Exposure {
        match self {
            Content::Named(_, StagingName { private: None, .. }) => Exposure::Visible,
            Content::Unnamed(_) | Content::Named(..) => Exposure::Hidden,
        }
    }

    pub(crate) fn has_name(&self) -> bool {
        matches!(self, Content::Named(..))
    }
}

/// A file to stage in: without a name where that is known to work.
pub(crate) fn stage(
    destination: &Destination,
    settings: &Settings,
    owner: Owner,
) -> io::Result<Content> {
    if destination.realm().is_none() {
        let mode = hidden_mode(destination, settings);
        if let Some(file) = Os::stage_unnamed(&destination.directory, mode)? {
            return Ok(Content::Unnamed(Arc::new(file)));
        }
    }
    let (file, name) = stage_named(destination, settings, owner)?;
    Ok(Content::Named(file, name))
}

/// The same with a name. Parents that are missing are made in a private staging directory, around it.
pub(crate) fn stage_named(
    destination: &Destination,
    settings: &Settings,
    owner: Owner,
) -> io::Result<(Arc<File>, StagingName)> {
    if needs_private_dir(destination) {
        return stage_inside(PrivateDir::create(destination, owner)?, destination, settings);
    }
    let mode = staging_mode(destination, settings);
    let (file, entry) = entry::create(destination, mode, owner)?;
    if settings.mode.is_some() && destination.realm().is_some() {
        // Some mounts refuse it (bindfs, CIFS, FAT): it is an error now, before the closure runs.
        Os::set_mode(&file, mode)?;
    }
    Ok((file, StagingName { entry, private: None }))
}

/// Whether parents that are missing are made around what is staged, in a private staging directory.
/// Otherwise they are made right before the rename: `..` could lead out of the staging directory.
pub(crate) fn needs_private_dir(destination: &Destination) -> bool {
    let goes_up = |component| component == Component::ParentDir;
    !destination.missing_parents.is_empty()
        && Os::RENAMES_OPEN_TREES
        && !destination.name.components().any(goes_up)
}

pub(crate) fn stage_inside(
    private: PrivateDir,
    destination: &Destination,
    settings: &Settings,
) -> io::Result<(Arc<File>, StagingName)> {
    let (directory, name) = (private.directory.clone(), destination.file_name().to_owned());
    let mode = hidden_mode(destination, settings);
    let file = Arc::new(Os::stage_inside(&directory, &name, mode)?);
    let entry = entry::inside(directory, name);
    Ok((file, StagingName { entry, private: Some(private) }))
}

/// The mode with which a staging file that has a name is created. A file that is to get a mode of
/// its own stays private until it has that.
pub(crate) fn staging_mode(destination: &Destination, settings: &Settings) -> u32 {
    match mode_to_come(destination, settings) {
        Some(_) => 0o600,
        None => new_mode(settings),
    }
}

/// The same for a file without a name, or in a private directory, which nobody else can open. It gets
/// the mode that it will have in the end: changing it later is one more transaction of the filesystem.
pub(crate) fn hidden_mode(destination: &Destination, settings: &Settings) -> u32 {
    // Writing `user.*` attributes needs write access (xattr(7)).
    match mode_to_come(destination, settings) {
        Some(mode) => mode & 0o777 | 0o600,
        None => new_mode(settings),
    }
}

fn new_mode(settings: &Settings) -> u32 {
    settings.new_file_mode.unwrap_or(0o666)
}

/// The mode that the file is to have in the end, as far as that can be known yet.
fn mode_to_come(destination: &Destination, settings: &Settings) -> Option<u32> {
    let replaced = destination.at_start.as_ref().filter(|found| found.kind == Kind::File);
    let carried = replaced.filter(|_| settings.preserve_metadata).map(|found| found.mode);
    settings.mode.or(carried)
}
