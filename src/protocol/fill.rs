//! A staging file while the closure fills it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::error::{Error, Step};
use crate::protocol::failed_output::FailedOutput;
use crate::protocol::guard::{CleanUp, Guard};
use crate::protocol::lock::Owner;
use crate::protocol::publish::{Length, Publication, Published, Replace, Written};
use crate::protocol::resolve::Destination;
use crate::protocol::stage::{Content, StagingName, stage};
use crate::settings::{Durability, Settings};
use crate::sink::Writeback;
use crate::writer::Writer;

/// A writer, and what becomes of its content if the closure fails, panics or is cancelled: it is
/// saved where [`keep_failed`](crate::WriteOptions::keep_failed) says, and its staging name removed.
pub(crate) type Filling = Guard<Unfinished>;

pub(crate) struct Unfinished {
    pub(crate) writer: Writer,
    name: Option<StagingName>,
    failed_output: Option<FailedOutput>,
}

impl CleanUp for Unfinished {
    fn clean_up(self) {
        if let Some(failed_output) = self.failed_output {
            failed_output.save(self.writer.salvage());
        }
    }
}

impl Filling {
    pub(crate) fn start(
        destination: &Destination,
        settings: &Settings,
        (file, name): (Arc<File>, Option<StagingName>),
        writeback: Writeback,
    ) -> Result<Filling, Error> {
        let failed_output = FailedOutput::prepare(destination, settings)?;
        let writer = Writer::new(file, &destination.path, settings.buffer_capacity, writeback);
        Ok(Guard::new(Unfinished { writer, name, failed_output }))
    }

    /// The closure has returned `Ok`: the whole content is in the file.
    pub(crate) fn finish(mut self) -> io::Result<Finished> {
        self.writer.finish()?;
        let Unfinished { writer, name, failed_output } = self.disarm();
        let length = if writer.is_short() { Length::Short } else { Length::Unknown };
        let file = writer.into_file();
        Ok(Finished { file, name, failed_output, length })
    }
}

/// What is left of a [`Filling`].
pub(crate) struct Finished {
    pub(crate) file: Arc<File>,
    name: Option<StagingName>,
    pub(crate) failed_output: Option<FailedOutput>,
    length: Length,
}

/// A staging file for a destination that can be renamed over.
pub(crate) struct Staged {
    destination: Destination,
    settings: Settings,
    owner: Owner,
    pub(crate) filling: Filling,
}

impl Staged {
    pub(crate) fn create(
        destination: Destination,
        settings: &Settings,
        owner: Owner,
    ) -> Result<Staged, Error> {
        let content = stage(&destination, settings, owner)
            .map_err(Error::at(Step::Stage, &destination.path))?;
        let staged = match content {
            Content::Unnamed(file) => (file, None),
            Content::Named(file, name) => (file, Some(name)),
        };
        Staged::with(destination, settings, owner, staged)
    }

    /// For a staging file that exists already.
    pub(crate) fn with(
        destination: Destination,
        settings: &Settings,
        owner: Owner,
        staged: (Arc<File>, Option<StagingName>),
    ) -> Result<Staged, Error> {
        let writeback = match settings.durability {
            Durability::Relaxed => Writeback::WithSync,
            _ => Writeback::Early,
        };
        let filling = Filling::start(&destination, settings, staged, writeback)?;
        Ok(Staged { destination, settings: settings.clone(), owner, filling })
    }

    pub(crate) fn finish(self) -> io::Result<Filled> {
        let Staged { destination, settings, owner, filling } = self;
        let Finished { file, name, failed_output, length } = filling.finish()?;
        let content = match name {
            Some(name) => Content::Named(file, name),
            None => Content::Unnamed(file),
        };
        let written = Written::new(destination, settings, content, owner).with_length(length);
        Ok(Filled { written, failed_output })
    }
}

/// The whole content, on its way to the destination.
pub(crate) struct Filled {
    pub(crate) written: Written,
    failed_output: Option<FailedOutput>,
}

impl Filled {
    /// Replaces nothing: that another writer was faster is the error `exists`.
    pub(crate) fn publish_new(self, exists: impl FnOnce() -> Error) -> Result<Published, Error> {
        let (error, content) = match self.written.publish(Replace::Nothing) {
            Ok(Publication::Done(published)) => return Ok(*published),
            Ok(Publication::Exists(content)) => (exists(), *content),
            Err(not_published) => (not_published.error, not_published.content),
        };
        if let Some(failed_output) = self.failed_output {
            failed_output.save(content.file().clone());
        }
        Err(error)
    }

    pub(crate) fn publish(self, replace: Replace) -> Result<Publication, Error> {
        self.written.publish(replace).map_err(|not_published| {
            if let Some(failed_output) = self.failed_output {
                failed_output.save(not_published.content.file().clone());
            }
            not_published.error
        })
    }
}
