//! A directory of its own for each check, on the filesystem under test.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};
use fs_err as fs;

/// A path below the directory, and what is there: a file's content, or nothing for a directory.
pub type State = BTreeMap<String, Option<String>>;

pub struct Scratch {
    directory: PathBuf,
    view: Option<PathBuf>,
    next: AtomicU32,
}

impl Scratch {
    pub fn new(directory: &Path, view: Option<&Path>) -> Result<Scratch> {
        let (directory, view) = (directory.to_owned(), view.map(Path::to_owned));
        let scratch = Scratch { directory, view, next: AtomicU32::new(0) };
        let probe = scratch.directory()?;
        fs::write(probe.join("file"), "probe")?;
        if fs::read_to_string(probe.join("file"))? != "probe" {
            bail!("a file can't be written and read");
        }
        Ok(scratch)
    }

    /// A new, empty directory.
    pub fn directory(&self) -> Result<PathBuf> {
        let directory = self.directory.join(self.next_name());
        fs::create_dir(&directory)?;
        Ok(directory)
    }

    /// The same by both mounts.
    pub fn in_both_views(&self) -> Result<(PathBuf, PathBuf)> {
        let Some(view) = &self.view else { bail!("there is one view only") };
        let name = self.next_name();
        let directory = self.directory.join(&name);
        fs::create_dir(&directory)?;
        Ok((directory, view.join(name)))
    }

    fn next_name(&self) -> String {
        format!("{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub fn has_hard_links(&self) -> Result<bool> {
        let directory = self.directory()?;
        fs::write(directory.join("one"), "")?;
        Ok(fs::hard_link(directory.join("one"), directory.join("two")).is_ok())
    }
}

/// Whether a directory can have the mode that marks a private staging directory.
pub fn keeps_the_marker(directory: &Path) -> Result<bool> {
    let marked = directory.join("marked");
    DirBuilder::new().mode(0o1700).create(&marked)?;
    // Some drop the bit when a directory is made, and keep it when it is set.
    let _ = fs::set_permissions(&marked, Permissions::from_mode(0o1700));
    let found = fs::metadata(&marked)?.permissions().mode() & 0o7777;
    fs::remove_dir(&marked)?;
    Ok(found != 0o700)
}

/// All that is in a directory.
pub fn state(directory: &Path) -> Result<State> {
    let mut state = State::new();
    collect(directory, "", &mut state)?;
    Ok(state)
}

fn collect(directory: &Path, below: &str, state: &mut State) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        // libfuse keeps a file that is removed while it is open under such a name, until it is closed.
        if name.contains(".fuse_hidden") || name.contains(".nfs0") {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => {
                state.insert(name.clone(), None);
                collect(&entry.path(), &format!("{name}/"), state)?;
            }
            false => match fs::read_to_string(entry.path()) {
                Ok(content) => drop(state.insert(name, Some(content))),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            },
        }
    }
    Ok(())
}

/// What differs, shortly: contents may be long.
pub fn difference(expected: &State, found: &State) -> String {
    let show = |content: &Option<String>| match content {
        None => "a directory".to_owned(),
        Some(text) if text.len() > 30 => format!("{:.30}… ({} bytes)", text, text.len()),
        Some(text) => format!("{text:?}"),
    };
    let mut differences = Vec::new();
    for (name, content) in expected {
        match found.get(name) {
            Some(there) if there == content => {}
            Some(there) => differences.push(format!("{name} is {}", show(there))),
            None => differences.push(format!("{name} is missing")),
        }
    }
    let surplus = found.keys().filter(|name| !expected.contains_key(*name));
    differences.extend(surplus.map(|name| format!("{name} is left")));
    differences.join(", ")
}
