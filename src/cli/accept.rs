//! What is required of new content before it is published: --refuse-empty and --check.

use std::io::{self, Seek, SeekFrom};
use std::path::Path;

use fs_err as fs;
use write_atomically::Writer;

use super::failure::Failure;
use super::job::{Run, When};
use super::platform;

impl Run<'_> {
    /// Accepts or refuses what a command has left at a path.
    pub fn accept(&self, path: &Path) -> Result<(), Failure> {
        if self.job.requirements.refuse_empty && is_empty(path)? {
            return Err(Failure::Empty);
        }
        self.check(path)
    }

    /// The same for what has been written after so many bytes. Only old content with new content after it has
    /// still to be checked: all other content that is to be checked has been at a path before.
    pub fn accept_new_part(&self, before: u64, w: &mut Writer) -> Result<(), Failure> {
        if self.job.requirements.refuse_empty && w.file()?.metadata()?.len() <= before {
            return Err(Failure::Empty);
        }
        match (self.job.when, &self.job.requirements.check) {
            (When::Append, Some(_)) => self.check_copy(w),
            _ => Ok(()),
        }
    }

    /// A check needs a path with the destination's name.
    fn check_copy(&self, w: &mut Writer) -> Result<(), Failure> {
        self.aside(&self.job.destination, |path| {
            let mut staged = w.file()?;
            staged.seek(SeekFrom::Start(0))?;
            let mut copy = fs::File::create_new(path)?;
            io::copy(&mut staged, copy.file_mut())?;
            drop(copy);
            self.check(path)
        })
    }

    fn check(&self, path: &Path) -> Result<(), Failure> {
        let Some(check) = &self.job.requirements.check else { return Ok(()) };
        match self.succeed(&mut platform::shell(check, path)) {
            Err(Failure::Command { status, .. }) => {
                Err(Failure::Refused { check: check.clone(), status })
            }
            done => done,
        }
    }
}

fn is_empty(path: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    match found.is_dir() {
        true => Ok(fs::read_dir(path)?.next().is_none()),
        false => Ok(found.len() == 0),
    }
}
