//! What is left of a writer when its closure has ended: for the pool, to publish or to drop.

use std::io;

use super::pool::shut_down;
use crate::protocol::output::{Complete, Output};

/// What is left of a writer whose closure has ended.
pub(crate) struct Rest {
    /// `None` once it is complete.
    output: Option<Box<Output>>,
    buffer: Vec<u8>,
    /// Whether the content is saved if it is not published.
    keeps: bool,
}

impl Rest {
    pub(crate) fn new(output: Box<Output>, buffer: Vec<u8>, keeps: bool) -> Rest {
        Rest { output: Some(output), buffer, keeps }
    }

    pub(crate) fn finish(mut self) -> io::Result<Complete> {
        let Some(output) = &mut self.output else { return Err(shut_down()) };
        output.writer().write_buffer(&mut self.buffer)?;
        match self.output.take() {
            Some(output) => output.finish(),
            None => Err(shut_down()),
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if let (Some(output), true) = (&mut self.output, self.keeps) {
            let _ = output.writer().write_buffer(&mut self.buffer);
        }
    }
}
