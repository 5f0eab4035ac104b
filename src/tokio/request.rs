//! What a call asks for.

use std::path::PathBuf;

use crate::protocol::claim::Asker;
use crate::protocol::lock::{Owner, Wait};
use crate::settings::Settings;

/// What is asked for, for the jobs on the pool.
pub(crate) struct Request {
    pub(crate) path: PathBuf,
    pub(crate) settings: Settings,
    pub(super) number: u64,
    pub(crate) owner: Owner,
}

impl Request {
    /// One who never waits on a thread of the pool.
    pub(crate) fn asker(&self) -> Asker {
        Asker { owner: self.owner, wait: Wait::Never }
    }

    /// Those of a writer without a buffer: the asynchronous one has its own.
    pub(crate) fn unbuffered(&self) -> Settings {
        Settings { buffer_capacity: Some(0), ..self.settings.clone() }
    }
}
