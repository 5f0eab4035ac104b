//! How a writer ends: with its closure, or without it. The pool publishes what is left, or drops it.

use std::future::poll_fn;
use std::io;
use std::mem;

use super::pool::shut_down;
use super::request::Request;
use super::writer::{Returned, Staged, Writer};
use crate::error::Error;
use crate::protocol::output::{Complete, Output};

impl Writer {
    /// The closure has returned `Ok`: writes the rest, and publishes the content, in one job.
    pub(crate) async fn publish<T: Send + 'static>(
        self,
        publish: impl FnOnce(Complete, &Request) -> Result<T, Error> + Send + 'static,
    ) -> io::Result<T> {
        let (request, pool) = (self.request.clone(), self.pool.clone());
        let rest = self.complete().await?;
        let job = move || {
            let complete = rest.finish()?;
            Ok(publish(complete, &request)?)
        };
        pool.start(job).await?
    }

    /// Waits for the pool, and for what it has to say of earlier buffers.
    pub(crate) async fn complete(mut self) -> io::Result<Rest> {
        let mut written = poll_fn(|context| self.poll_sought(context)).await.map(drop);
        if written.is_ok() {
            written = poll_fn(|context| self.poll_returned(context)).await;
        }
        match written {
            Ok(()) => self.take_rest().ok_or_else(shut_down),
            Err(error) => {
                self.discard().await;
                Err(error)
            }
        }
    }

    /// The closure has failed: waits until nothing is left.
    pub(crate) async fn discard(mut self) {
        // A failure here does not hide the closure's.
        let _ = poll_fn(|context| self.poll_returned(context)).await;
        if let Some(rest) = self.take_rest() {
            self.pool.discard(rest).await;
        }
    }

    fn take_rest(&mut self) -> Option<Rest> {
        match mem::replace(&mut self.staged, Staged::Gone) {
            Staged::Here(output) => Some(self.rest(output)),
            Staged::Away(_) | Staged::Gone => None,
        }
    }

    fn rest(&mut self, output: Box<Output>) -> Rest {
        let keeps = self.request.settings.keep_failed.is_some();
        Rest::new(output, mem::take(&mut self.buffer), keeps)
    }
}

impl Drop for Writer {
    /// The closure has been cancelled.
    fn drop(&mut self) {
        match mem::replace(&mut self.staged, Staged::Gone) {
            Staged::Here(output) => {
                let rest = self.rest(output);
                self.pool.drop_later(rest);
            }
            Staged::Away(job) if self.request.settings.keep_failed.is_some() => {
                let mut last = mem::take(&mut self.buffer);
                self.pool.finish_later(job, move |Returned { output, mut buffer, .. }| {
                    buffer.append(&mut last);
                    drop(Rest::new(output, buffer, true));
                });
            }
            Staged::Away(job) => drop(job),
            Staged::Gone => {}
        }
    }
}

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
