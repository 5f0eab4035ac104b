//! What the closure writes to.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::object_store::PutPayload;
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::sync::{AcquireError, OwnedSemaphorePermit};

use super::conditions::Large;
use super::publish::{Published, Refusal, put};
use super::sizes::{LARGEST_OBJECT, too_large};
use super::target::Plan;
use super::upload::Uploader;
use crate::error::{Error, Outcome, Step};

/// The most that is kept in one piece of memory, in bytes.
const CHUNK: usize = 1 << 20;

/// The object that a closure writes: nothing of it is visible at the destination until the closure
/// returns `Ok`.
///
/// Up to one part ([`part_size`](super::ObjectOptions::part_size)) is kept in memory, and written as a
/// whole at the end. From then on parts are sent while the closure runs; its writes wait while
/// [`parts_in_flight`](super::ObjectOptions::parts_in_flight) of them are on their way. Flushing does
/// nothing: stores have no smaller unit than a part.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::object_store::write_atomically;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// write_atomically(&store, &"squares.csv".into(), async |w| {
///     for n in 1..=3 {
///         w.write_all(format!("{n},{}\n", n * n).as_bytes()).await?;
///     }
///     Ok(())
/// }).await?;
/// # assert_eq!(store.get(&"squares.csv".into()).await?.bytes().await?, "1,1\n2,4\n3,9\n");
/// # anyhow::Ok(()) })?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// Errors from writing name the destination; they are [`Error`]s inside the [`io::Error`]. The writer
/// remembers the first one: if the closure returns `Ok` nevertheless, nothing is published, and the
/// call returns that error.
pub struct Writer {
    plan: Plan,
    /// The part that is being filled: full chunks, and the last one.
    chunks: Vec<Bytes>,
    chunk: BytesMut,
    held: u64,
    total: u64,
    compares: bool,
    uploader: Option<Uploader>,
    sending: Sending,
    failure: Option<Error>,
}

type Acquire = dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send + Sync;

/// What a write waits for before the full part can be sent.
enum Sending {
    Nothing,
    Permit(Pin<Box<Acquire>>),
    /// The upload has ended by itself: for the reason.
    Reason(Pin<Box<dyn Future<Output = Option<Error>> + Send + Sync>>),
}

impl Writer {
    pub(crate) fn new(plan: Plan, compares: bool) -> Self {
        Writer {
            plan,
            chunks: Vec::new(),
            chunk: BytesMut::new(),
            held: 0,
            total: 0,
            compares,
            uploader: None,
            sending: Sending::Nothing,
            failure: None,
        }
    }

    fn take_part(&mut self) -> PutPayload {
        let last = self.chunk.split().freeze();
        let chunks = std::mem::take(&mut self.chunks);
        self.held = 0;
        chunks.into_iter().chain((!last.is_empty()).then_some(last)).collect()
    }

    /// Sends the part that is held, as soon as fewer than the allowed number are on their way.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            match &mut self.sending {
                Sending::Nothing => {
                    let permits = self.uploader()?.permits.clone();
                    self.sending = Sending::Permit(Box::pin(permits.acquire_owned()));
                }
                Sending::Permit(permit) => {
                    let permit = ready!(permit.as_mut().poll(context));
                    self.sending = Sending::Nothing;
                    match (permit, self.uploader.take()) {
                        (Ok(permit), Some(uploader)) => {
                            uploader.send(self.take_part(), permit);
                            self.uploader = Some(uploader);
                            return Poll::Ready(Ok(()));
                        }
                        (_, uploader) => {
                            self.sending = Sending::Reason(reason(&self.plan, uploader))
                        }
                    }
                }
                Sending::Reason(reason) => {
                    let reason = ready!(reason.as_mut().poll(context));
                    self.sending = Sending::Nothing;
                    let other =
                        || self.plan.target.io_error(Step::Write, io::ErrorKind::Other.into());
                    return Poll::Ready(Err(reason.unwrap_or_else(other)));
                }
            }
        }
    }

    /// Writes all bytes, for operations that have them already.
    pub(crate) async fn write_whole(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |context: &mut Context<'_>| Pin::new(&mut *self).poll_write(context, bytes);
            let length = std::future::poll_fn(write).await?;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    fn uploader(&mut self) -> Result<&Uploader, Error> {
        if self.plan.large == Large::Unsupported {
            return Err(self.plan.target.too_large_for_condition());
        }
        let (plan, compares) = (&self.plan, self.compares);
        Ok(self.uploader.get_or_insert_with(|| Uploader::start(plan.clone(), compares)))
    }

    /// Makes room for the next byte.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.total == LARGEST_OBJECT {
            return Poll::Ready(Err(self.plan.target.io_error(Step::Write, too_large())));
        }
        if self.held == self.plan.sizes.current() {
            let next = self.plan.sizes;
            let mut following = next;
            if let Err(error) = following.next() {
                return Poll::Ready(Err(self.plan.target.io_error(Step::Write, error)));
            }
            ready!(self.poll_send(context))?;
            self.plan.sizes = following;
        }
        Poll::Ready(Ok(()))
    }

    fn keep(&mut self, bytes: &[u8]) -> usize {
        let room = (self.plan.sizes.current() - self.held).min(LARGEST_OBJECT - self.total);
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(CHUNK - self.chunk.len());
        let length = bytes.len().min(room);
        self.chunk.extend_from_slice(&bytes[..length]);
        self.held += length as u64;
        self.total += length as u64;
        if self.chunk.len() == CHUNK {
            self.chunks.push(std::mem::take(&mut self.chunk).freeze());
            self.chunk.reserve(CHUNK);
        }
        length
    }

    /// The whole output, once the closure has returned `Ok`.
    pub(crate) async fn finish(mut self) -> Result<Filled, Error> {
        if let Some(failure) = self.failure.take() {
            self.abort().await;
            return Err(failure);
        }
        if self.uploader.is_none() {
            return Ok(Filled::Small(self.take_part(), self.plan));
        }
        if self.held > 0 {
            let sent = std::future::poll_fn(|context| self.poll_send(context)).await;
            if let Err(error) = sent {
                self.abort().await;
                return Err(error);
            }
        }
        match self.uploader {
            Some(uploader) => Ok(Filled::Large(uploader, self.plan)),
            None => Ok(Filled::Small(PutPayload::default(), self.plan)),
        }
    }

    /// Aborts the upload, if there is one, and waits for that.
    pub(crate) async fn abort(self) {
        if let Some(uploader) = self.uploader {
            uploader.abort(&self.plan).await;
        }
    }
}

fn reason(
    plan: &Plan,
    uploader: Option<Uploader>,
) -> Pin<Box<dyn Future<Output = Option<Error>> + Send + Sync>> {
    let plan = plan.clone();
    Box::pin(async move { uploader?.abort(&plan).await })
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let writer = self.get_mut();
        if let Some(failure) = &writer.failure {
            return Poll::Ready(Err(failure.copy().into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match ready!(writer.poll_room(context)) {
            Ok(()) => Poll::Ready(Ok(writer.keep(bytes))),
            Err(error) => {
                writer.failure = Some(error.copy());
                Poll::Ready(Err(error.into()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("path", &self.plan.target.name).finish_non_exhaustive()
    }
}

/// A whole output, which is not visible yet.
pub(crate) enum Filled {
    Small(PutPayload, Plan),
    Large(Uploader, Plan),
}

impl Filled {
    /// Publishes it: by a task, so that a caller who goes away finds it either published or not.
    pub(crate) async fn publish(self) -> Result<Published, Refusal> {
        match self {
            Filled::Large(uploader, plan) => uploader.publish(&plan).await,
            Filled::Small(content, plan) => {
                let target = plan.target.clone();
                let task = tokio::spawn(async move { put(&plan, content).await });
                task.await.unwrap_or_else(|error| {
                    let error = target.io_error(Step::Publish, io::Error::other(error));
                    Err(error.with_outcome(Outcome::Unknown).into())
                })
            }
        }
    }

    pub(crate) async fn abort(self) {
        if let Filled::Large(uploader, plan) = self {
            uploader.abort(&plan).await;
        }
    }

    pub(crate) fn plan(&self) -> &Plan {
        match self {
            Filled::Small(_, plan) | Filled::Large(_, plan) => plan,
        }
    }

    /// How many bytes it keeps in memory.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Filled::Small(content, _) => content.content_length() as u64,
            Filled::Large(..) => 0,
        }
    }

    /// Sends a small output as an upload of one part, which leaves memory.
    pub(crate) async fn into_upload(self) -> Result<Filled, Error> {
        let (content, plan) = match self {
            Filled::Small(content, plan) => (content, plan),
            large @ Filled::Large(..) => return Ok(large),
        };
        let uploader = Uploader::start(plan.clone(), false);
        match uploader.permits.clone().acquire_owned().await {
            Ok(permit) => uploader.send(content, permit),
            Err(_) => {
                let other = || plan.target.io_error(Step::Write, io::ErrorKind::Other.into());
                return Err(uploader.abort(&plan).await.unwrap_or_else(other));
            }
        }
        // All permits are free again when the part has arrived.
        let all = plan.target.settings.parts_in_flight as u32;
        let _ = uploader.permits.acquire_many(all).await;
        Ok(Filled::Large(uploader, plan))
    }
}
