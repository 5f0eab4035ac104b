//! What a directory may look like.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;

use crate::content;
use crate::operations::{Operation, Promise, START_MODE, Shape, Who};

/// What is wrong with a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// Neither the old content nor the new: cut short, empty, mixed.
    Torn,
    /// A version that had been acknowledged is not there.
    Lost,
    /// More left over than one staging entry a destination, or left over after one more call.
    Left,
    /// The next call did not work.
    Stuck,
    /// The filesystem could not be mounted.
    Unmountable,
}

pub type Verdict = Result<(), (Wrong, String)>;

/// How far the writing had come: the last version that was started and the last that was
/// acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Progress {
    pub started: u32,
    pub done: u32,
}

/// Whether what is there is what `progress` allows.
pub fn check(operation: &Operation, directory: &Path, progress: Progress) -> Verdict {
    if operation.shape == Shape::NewFiles {
        return (1..=progress.started).try_for_each(|version| {
            let file = format!("file-{version}");
            let may_be_missing =
                version > progress.done || operation.promise == Promise::Consistent;
            match read(directory, &file)? {
                None if may_be_missing => Ok(()),
                None => Err((Wrong::Lost, format!("{file} is missing"))),
                Some(bytes) if bytes == content::content(version, &file) => Ok(()),
                Some(bytes) => Err((Wrong::Torn, format!("{file} has {} bytes", bytes.len()))),
            }
        });
    }
    let mut seen = BTreeSet::new();
    for file in operation.shape.files(0) {
        let version = match read(directory, &file)? {
            None if !operation.replaces && progress.done == 0 => content::START,
            None => return Err((Wrong::Lost, format!("{file} is missing"))),
            Some(bytes) => content::version(&bytes, &file, progress.started)
                .ok_or_else(|| (Wrong::Torn, format!("{file} has {} bytes", bytes.len())))?,
        };
        if version < progress.done && operation.promise == Promise::Durable {
            // Some versions are empty; out of their turn, an empty file is one that lost its content.
            let empty = content::content(version, &file).is_empty();
            let wrong = if empty { Wrong::Torn } else { Wrong::Lost };
            return Err((wrong, format!("{file} is at version {version}")));
        }
        let mode =
            fs::metadata(directory.join(&file)).map_or(0, |metadata| metadata.permissions().mode());
        let keeps_mode = operation.replaces && operation.shape != Shape::Tree;
        if operation.who == Who::Crate && keeps_mode && mode & 0o7777 != START_MODE {
            return Err((Wrong::Torn, format!("{file} has mode {mode:o}")));
        }
        seen.insert(version);
    }
    match operation.shape {
        Shape::Tree if seen.len() > 1 => {
            Err((Wrong::Torn, format!("versions {seen:?} in one tree")))
        }
        _ => Ok(()),
    }
}

fn read(directory: &Path, file: &str) -> Result<Option<Vec<u8>>, (Wrong, String)> {
    match fs::read(directory.join(file)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err((Wrong::Torn, format!("{file}: {error}"))),
    }
}

/// What is in the directory besides the destinations.
pub fn leftovers(operation: &Operation, directory: &Path, newest: u32) -> io::Result<Vec<String>> {
    let mut expected = BTreeSet::new();
    for version in 0..=newest {
        for file in operation.shape.files(version) {
            let mut path = Path::new(&file);
            expected.insert(file.clone());
            while let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
                expected.insert(parent.to_str().unwrap().to_string());
                path = parent;
            }
        }
    }
    let mut found = Vec::new();
    list(directory, directory, &mut found)?;
    found.retain(|name| !expected.contains(name));
    Ok(found)
}

fn list(root: &Path, directory: &Path, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        found.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
        if path.is_dir() && !path.is_symlink() {
            list(root, &path, found)?;
        }
    }
    Ok(())
}
