//! An upload in parts: a task of the runtime, which outlives the write that was dropped, and aborts it.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use ::object_store::path::Path as Key;
use ::object_store::{
    Attributes, Error as StoreError, MultipartUpload, PutMultipartOptions, PutPayload,
};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinHandle, JoinSet};

use super::compare::Comparison;
use super::conditions::{Large, check_completes};
use super::publish::{ATTEMPTS, Published, Refusal, check_copy, complete, pause, takes_no_id};
use super::target::{Plan, unsupported};
use crate::error::{Error, Outcome, Step};

enum Message {
    /// The permit is given back when the part has arrived.
    Part(PutPayload, OwnedSemaphorePermit),
    Publish,
}

/// The write's end of the task. If it is dropped before [`publish`](Self::publish), the task aborts the
/// upload.
pub(crate) struct Uploader {
    messages: UnboundedSender<Message>,
    pub(crate) permits: Arc<Semaphore>,
    task: JoinHandle<Result<Published, Refusal>>,
}

impl Uploader {
    pub(crate) fn start(plan: Plan, compares: bool) -> Self {
        let (messages, receiver) = mpsc::unbounded_channel();
        let permits = Arc::new(Semaphore::new(plan.target.settings.parts_in_flight));
        let closes = CloseOnDrop(permits.clone());
        let task = tokio::spawn(async move {
            // Whoever waits for a permit learns that the task has ended.
            let _closes = closes;
            run(plan, receiver, compares).await
        });
        Uploader { messages, permits, task }
    }

    /// The task may have ended; then the next permit is refused.
    pub(crate) fn send(&self, part: PutPayload, permit: OwnedSemaphorePermit) {
        let _ = self.messages.send(Message::Part(part, permit));
    }

    /// Completes the upload. From here on it is either completed or not, also if the caller goes away.
    pub(crate) async fn publish(self, plan: &Plan) -> Result<Published, Refusal> {
        let _ = self.messages.send(Message::Publish);
        ended(plan, self.task.await)
    }

    /// Aborts the upload and waits for that; returns why it had ended before, if it had.
    pub(crate) async fn abort(self, plan: &Plan) -> Option<Error> {
        drop(self.messages);
        ended(plan, self.task.await).err().map(Refusal::into_error)
    }
}

/// The task never ends by itself but by an error; it panics only if the store does, and is cancelled
/// only with the runtime.
fn ended(
    plan: &Plan,
    result: Result<Result<Published, Refusal>, JoinError>,
) -> Result<Published, Refusal> {
    result.unwrap_or_else(|error| {
        let error = plan.target.io_error(Step::Publish, io::Error::other(error));
        Err(error.with_outcome(Outcome::Unknown).into())
    })
}

struct CloseOnDrop(Arc<Semaphore>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn run(
    plan: Plan,
    mut messages: UnboundedReceiver<Message>,
    compares: bool,
) -> Result<Published, Refusal> {
    let staged = prepare(&plan).await?;
    let mut upload = begin(&plan, staged.as_ref()).await?;
    let mut comparison = match compares {
        true => Comparison::open(&plan.target).await,
        false => None,
    };
    let mut parts = JoinSet::new();
    let asked = send_parts(&plan, &mut messages, &mut *upload, &mut parts, &mut comparison).await;
    let same = match (&asked, comparison) {
        (Ok(Asked::Publish), Some(comparison)) => comparison.ends_equal(&plan.target).await,
        _ => false,
    };
    match asked {
        Ok(Asked::Publish) if !same => complete(&plan, &mut *upload, staged.as_ref()).await,
        asked => {
            abort(&mut *upload, parts).await;
            asked?;
            Ok(Published::Same)
        }
    }
}

enum Asked {
    Publish,
    /// The write has failed, or was dropped.
    Abort,
}

/// Checks that the upload can be published as it must be, before its first part is sent.
async fn prepare(plan: &Plan) -> Result<Option<Key>, Error> {
    let target = &plan.target;
    match plan.large {
        Large::Complete => Ok(None),
        Large::Unsupported => Err(target.too_large_for_condition()),
        Large::ConditionalComplete if target.settings.trust_conditions => Ok(None),
        Large::ConditionalComplete => {
            let check = check_completes(&target.store, &target.key, &target.settings.known).await;
            check.map_err(|denial| unsupported(target.io_error(Step::Stage, denial.into())))?;
            Ok(None)
        }
        Large::Copy => {
            let staged = Key::from(format!("{}.write-atomically-{}", target.key, target.id));
            check_copy(plan, &staged).await?;
            Ok(Some(staged))
        }
    }
}

async fn begin(plan: &Plan, staged: Option<&Key>) -> Result<Box<dyn MultipartUpload>, Error> {
    let target = &plan.target;
    let key = staged.unwrap_or(&target.key);
    let mut attributes = target.attributes().await?;
    loop {
        let options = PutMultipartOptions {
            tags: target.settings.tags.clone(),
            attributes: attributes.clone(),
            ..PutMultipartOptions::default()
        };
        match target.store.put_multipart_opts(key, options).await {
            Ok(upload) => return Ok(upload),
            Err(error) if takes_no_id(&error, target, &attributes) => {
                attributes = Attributes::new()
            }
            Err(error) => return Err(target.error(Step::Stage, error)),
        }
    }
}

type Arrived = Result<Result<(), StoreError>, JoinError>;

/// Sends parts until all have arrived that the write has, or one has failed.
async fn send_parts(
    plan: &Plan,
    messages: &mut UnboundedReceiver<Message>,
    upload: &mut dyn MultipartUpload,
    parts: &mut JoinSet<Result<(), StoreError>>,
    comparison: &mut Option<Comparison>,
) -> Result<Asked, Error> {
    let mut publishes = false;
    loop {
        match next(messages, parts, publishes).await {
            Event::Arrived(result) => arrived(plan, result)?,
            Event::Message(Message::Part(part, permit)) => {
                if let Some(comparing) = comparison {
                    if !comparing.continues_with(&part).await {
                        *comparison = None;
                    }
                }
                let sent = upload.put_part(part);
                parts.spawn(async move {
                    let result = sent.await;
                    drop(permit);
                    result
                });
            }
            Event::Message(Message::Publish) => publishes = true,
            Event::Dropped => return Ok(Asked::Abort),
            Event::AllArrived => return Ok(Asked::Publish),
        }
    }
}

fn arrived(plan: &Plan, result: Arrived) -> Result<(), Error> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(plan.target.error(Step::Write, error)),
        Err(error) => Err(plan.target.io_error(Step::Write, io::Error::other(error))),
    }
}

enum Event {
    Arrived(Arrived),
    Message(Message),
    Dropped,
    AllArrived,
}

async fn next(
    messages: &mut UnboundedReceiver<Message>,
    parts: &mut JoinSet<Result<(), StoreError>>,
    publishes: bool,
) -> Event {
    std::future::poll_fn(|context| {
        match parts.poll_join_next(context) {
            Poll::Ready(Some(result)) => return Poll::Ready(Event::Arrived(result)),
            Poll::Ready(None) if publishes => return Poll::Ready(Event::AllArrived),
            Poll::Ready(None) | Poll::Pending => {}
        }
        if publishes {
            return Poll::Pending;
        }
        messages.poll_recv(context).map(|message| match message {
            Some(message) => Event::Message(message),
            None => Event::Dropped,
        })
    })
    .await
}

/// Aborts an upload. Parts that are on their way are stopped first: one that arrives later would stay
/// (Amazon S3, AbortMultipartUpload).
async fn abort(upload: &mut dyn MultipartUpload, mut parts: JoinSet<Result<(), StoreError>>) {
    parts.shutdown().await;
    for attempt in 1..=ATTEMPTS {
        match upload.abort().await {
            Ok(()) | Err(StoreError::NotFound { .. }) => return,
            Err(_) => pause(attempt).await,
        }
    }
}
