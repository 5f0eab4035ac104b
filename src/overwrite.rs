//! Destinations that are never replaced: devices, FIFOs, open files behind `/dev/stdout`, and, where
//! that was asked for, what can't be renamed over.

use std::fs::File;
use std::io::{self, Seek};

use crate::error::{Error, Step};
use crate::keep::Keep;
use crate::options::{Durability, WriteOptions};
use crate::platform::{self, Code, Kind};
use crate::staged;
use crate::target::Target;
use crate::writer::Writer;

/// A destination that is open, to be written into once the closure has returned `Ok`.
pub(crate) struct Overwrite {
    pub(crate) target: Target,
    file: File,
    /// What the new content leaves of the old is cut off.
    truncate: bool,
}

impl Overwrite {
    /// Opens the destination before the closure runs: whether it can be is known then, and
    /// afterwards there may be no descriptor left.
    pub(crate) fn open(target: Target) -> Result<Overwrite, Error> {
        let (directory, name) = (&target.directory, &target.name);
        let opened = match target.is_magic_link {
            true => platform::open_to_append(directory, name),
            false => platform::open_to_overwrite(directory, name),
        };
        let file = opened.map_err(Error::at(Step::Resolve, &target.path))?;
        let stat = platform::stat_file(&file).map_err(Error::at(Step::Resolve, &target.path))?;
        if stat.kind == Kind::Directory {
            let error = platform::error(Code::IsADirectory);
            return Err(Error::new(Step::Resolve, &target.path, error));
        }
        let truncate = stat.kind == Kind::File && !target.is_magic_link;
        Ok(Overwrite { target, file, truncate })
    }

    pub(crate) fn write<T, E: From<io::Error>>(
        self,
        options: &WriteOptions,
        write: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let (filled, value) = self.fill(options, write)?;
        filled.copy(options).map_err(io::Error::from)?;
        Ok(value)
    }

    pub(crate) fn fill<T, E: From<io::Error>>(
        self,
        options: &WriteOptions,
        write: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<(Filled, T), E> {
        let (writer, keep) = self.stage(options).map_err(io::Error::from)?;
        let (writer, value) = staged::run(writer, write, keep)?;
        let staged = writer.finish()?;
        Ok((Filled { overwrite: self, staged }, value))
    }

    /// There may be no directory to stage in, or none that the caller may write.
    fn stage(&self, options: &WriteOptions) -> Result<(Writer, Option<Keep>), Error> {
        let path = &self.target.path;
        let keep = Keep::open(&self.target, options)?;
        let file = platform::stage_elsewhere().map_err(Error::at(Step::Stage, path))?;
        Ok((Writer::new(file, path, options.buffer_capacity, false), keep))
    }

    fn copy(&mut self, staged: &mut File) -> io::Result<()> {
        staged.rewind()?;
        let length = io::copy(staged, &mut self.file)?;
        match self.truncate {
            true => self.file.set_len(length),
            false => Ok(()),
        }
    }

    fn failed(&self, step: Step, error: io::Error) -> Error {
        Error::new(step, &self.target.path, error).while_overwriting()
    }
}

/// The whole content, and the destination that it is to be copied into.
pub(crate) struct Filled {
    pub(crate) overwrite: Overwrite,
    pub(crate) staged: File,
}

impl Filled {
    pub(crate) fn copy(self, options: &WriteOptions) -> Result<(), Error> {
        let Filled { mut overwrite, mut staged } = self;
        overwrite.copy(&mut staged).map_err(|error| overwrite.failed(Step::Overwrite, error))?;
        if options.durability != Durability::Relaxed {
            platform::sync_overwritten(&overwrite.file)
                .map_err(|error| overwrite.failed(Step::Sync, error))?;
        }
        Ok(())
    }
}
