//! The runtime's blocking pool, where everything that may block runs, and is dropped.

use std::future::Future;
use std::io;
use std::panic;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::runtime::Handle;
use ::tokio::task::JoinHandle;

use crate::error::Error;

/// The blocking pool of the runtime in which the call was made.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Handle);

impl Pool {
    /// Panics outside a runtime, with tokio's own message.
    pub(crate) fn current() -> Pool {
        Pool(Handle::current())
    }

    pub(crate) fn start<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Job<T> {
        Job { pool: self.clone(), running: Some(self.0.spawn_blocking(job)) }
    }

    /// Runs a job that ends in one of the library's errors, or in none.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> io::Result<T> {
        Ok(self.start(job).await??)
    }

    /// Drops a value, and waits until that is done: nothing of a call that has failed is left when it
    /// returns.
    pub(crate) async fn discard<T: Send + 'static>(&self, value: T) {
        // If the runtime is shut down, the value has been dropped with the job.
        let _ = self.start(move || drop(value)).await;
    }

    /// Drops a value without waiting for it. If the runtime is shut down, it is dropped here: tokio
    /// drops a job that it can't run.
    pub(crate) fn drop_later<T: Send + 'static>(&self, value: T) {
        drop(self.0.spawn_blocking(move || drop(value)));
    }

    /// Finishes what a job has begun, without waiting for it here. A thread of the pool does: the pool
    /// begins its jobs in the order in which they were started, so that this one runs or has ended.
    pub(crate) fn finish_later<T: Send + 'static>(
        &self,
        job: Job<T>,
        finish: impl FnOnce(T) + Send + 'static,
    ) {
        let runtime = self.0.clone();
        let wait = move || {
            if let Ok(value) = runtime.block_on(job) {
                finish(value);
            }
        };
        drop(self.0.spawn_blocking(wait));
    }
}

/// A job on the blocking pool. If it has not begun when this is dropped, it never will; if it runs, it
/// runs to its end. Either way, what it would have returned is dropped on the pool.
#[derive(Debug)]
pub(crate) struct Job<T: Send + 'static> {
    pool: Pool,
    /// `None` once its value has been taken.
    running: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Future for Job<T> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(running) = &mut self.running else { return Poll::Ready(Err(shut_down())) };
        let joined = ready!(Pin::new(running).poll(context));
        self.running = None;
        Poll::Ready(joined.map_err(|error| match error.try_into_panic() {
            Ok(panic) => panic::resume_unwind(panic),
            // Nobody else aborts it.
            Err(_) => shut_down(),
        }))
    }
}

impl<T: Send + 'static> Drop for Job<T> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            // Not here: if the job has ended meanwhile, its value would be dropped here as well.
            self.pool.drop_later(running);
        }
    }
}

/// The runtime does not run jobs any more.
pub(crate) fn shut_down() -> io::Error {
    io::Error::other("the runtime is shutting down")
}

/// A value that is dropped on the blocking pool.
#[derive(Debug)]
pub(crate) struct Held<T: Send + 'static> {
    pool: Pool,
    /// `None` once it has been taken.
    value: Option<T>,
}

impl<T: Send + 'static> Held<T> {
    pub(crate) fn new(pool: &Pool, value: T) -> Self {
        Held { pool: pool.clone(), value: Some(value) }
    }

    pub(crate) fn take(mut self) -> Option<T> {
        self.value.take()
    }
}

impl<T: Send + 'static> Drop for Held<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.pool.drop_later(value);
        }
    }
}
