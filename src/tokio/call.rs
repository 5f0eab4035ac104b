//! One call: who makes it, how it waits for others, and how it runs its closure.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use ::tokio::time::{self, Instant};

use super::pool::{Held, Pool, shut_down};
use super::request::Request;
use super::writer::Writer;
use crate::error::Error;
use crate::protocol::claim;
use crate::protocol::lock::{Nested, Owner, SHORTEST_PAUSE};
use crate::protocol::output::Output;
use crate::settings::Settings;

::tokio::task_local! {
    /// The innermost call whose closure runs now.
    static AROUND: Owner;
}

/// What became of asking whether it is this call's turn.
pub(crate) enum Turn<T> {
    Mine(T),
    Busy,
}

pub(crate) struct Call {
    pub(crate) request: Arc<Request>,
    pub(crate) pool: Pool,
    _nested: Option<Nested>,
}

impl Call {
    pub(crate) fn start(path: &Path, settings: &Settings) -> Call {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let number = CALLS.fetch_add(1, Ordering::Relaxed);
        let nested = AROUND.try_with(|around| Nested::register(number, *around)).ok();
        let (path, settings) = (path.to_owned(), settings.clone());
        let request = Request { path, settings, number, owner: Owner::Task(number) };
        Call { request: Arc::new(request), pool: Pool::current(), _nested: nested }
    }

    /// Runs a job on the pool.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Request) -> Result<T, Error> + Send + 'static,
    ) -> io::Result<T> {
        let request = self.request.clone();
        self.pool.run(move || job(&request)).await
    }

    /// Asks until it is this call's turn. Between two questions no thread waits.
    pub(crate) async fn turn<T: Send + 'static>(
        &self,
        ask: fn(&Request) -> Result<Turn<T>, Error>,
    ) -> io::Result<T> {
        let mut waiting = None;
        loop {
            if let Turn::Mine(turn) = self.run(ask).await? {
                return Ok(turn);
            }
            let waiting = waiting.get_or_insert_with(|| Waiting::start(&self.request));
            if !waiting.pause().await {
                return Err(claim::timed_out(&self.request.path).into());
            }
        }
    }

    /// Runs the closure of a call that writes.
    pub(crate) async fn fill<T, E>(
        &self,
        output: Box<Output>,
        fill: impl AsyncFnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<(Writer, T), E> {
        let mut writer = Writer::new(output, &self.request, &self.pool);
        match self.inside(fill(&mut writer)).await {
            Ok(Ok(value)) => Ok((writer, value)),
            Ok(Err(error)) => {
                writer.discard().await;
                Err(error)
            }
            Err(panic) => {
                writer.discard().await;
                panic::resume_unwind(panic)
            }
        }
    }

    /// Runs the closure of a call that stages by path.
    pub(crate) async fn produce<W: Send + 'static, T, E>(
        &self,
        write: W,
        path: PathBuf,
        produce: impl AsyncFnOnce(&Path) -> Result<T, E>,
    ) -> Result<(W, T), E>
    where
        E: From<io::Error>,
    {
        let held = Held::new(&self.pool, write);
        let produced = self.inside(produce(&path)).await;
        let write = held.take().ok_or_else(shut_down)?;
        match produced {
            Ok(Ok(value)) => Ok((write, value)),
            Ok(Err(error)) => {
                self.pool.discard(write).await;
                Err(error)
            }
            Err(panic) => {
                self.pool.discard(write).await;
                panic::resume_unwind(panic)
            }
        }
    }

    /// Runs a closure's future so that calls in it know which call is around them, and so that a panic
    /// can be kept until everything is cleaned up.
    pub(crate) async fn inside<F: Future>(
        &self,
        future: F,
    ) -> Result<F::Output, Box<dyn Any + Send>> {
        let mut future = pin!(AROUND.scope(self.request.owner, future));
        poll_fn(|context| {
            let poll = panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
            match poll {
                Ok(poll) => poll.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        })
        .await
    }
}

/// How many calls of this process wait for others.
static WAITING: AtomicUsize = AtomicUsize::new(0);

const LONGEST_PAUSE: Duration = Duration::from_millis(32);

/// The longest pause is this for each call that waits, so that all of them together ask no more than
/// 10,000 times a second, which takes a fraction of a processor.
const PAUSE_FOR_EACH: Duration = Duration::from_micros(100);

/// A call that waits for its turn.
struct Waiting {
    end: Option<Instant>,
    pause: Duration,
    number: u64,
}

impl Waiting {
    fn start(request: &Request) -> Waiting {
        WAITING.fetch_add(1, Ordering::Relaxed);
        let timeout = request.settings.lock_timeout;
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Waiting { end, pause: SHORTEST_PAUSE, number: request.number }
    }

    /// `false` if it is time to give up.
    async fn pause(&mut self) -> bool {
        let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return false;
        }
        let pause = self.pause.mul_f64(self.share());
        time::sleep(left.map_or(pause, |left| left.min(pause))).await;
        let waiting = WAITING.load(Ordering::Relaxed).try_into().unwrap_or(u32::MAX);
        let longest = LONGEST_PAUSE.max(PAUSE_FOR_EACH.saturating_mul(waiting));
        self.pause = (self.pause * 2).min(longest);
        true
    }

    /// From a half to one, spread evenly over the calls, so that those that start to wait together do
    /// not ask together: Knuth, The Art of Computer Programming, 6.4, Fibonacci hashing.
    fn share(&self) -> f64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let fraction = self.number.wrapping_mul(GOLDEN) >> 32;
        0.5 + fraction as f64 / f64::from(u32::MAX) / 2.0
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}
