//! Running the closure: its error, its panic and its end.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::Poll;

use super::target::Plan;
use super::writer::{Filled, Writer};

/// Runs the closure on the caller's task. After an error or a panic the upload is aborted, and that is
/// waited for; if the future is dropped, the upload's task aborts it.
pub(crate) async fn fill<T, E: From<io::Error>>(
    plan: Plan,
    compares: bool,
    fill: impl AsyncFnOnce(&mut Writer) -> Result<T, E>,
) -> Result<(Filled, T), E> {
    let mut writer = Writer::new(plan, compares);
    match caught(fill(&mut writer)).await {
        Ok(Ok(value)) => match writer.finish().await {
            Ok(filled) => Ok((filled, value)),
            Err(error) => Err(io::Error::from(error).into()),
        },
        Ok(Err(error)) => {
            writer.abort().await;
            Err(error)
        }
        Err(panic) => {
            writer.abort().await;
            resume_unwind(panic)
        }
    }
}

/// The panic is passed on when everything is cleaned up: nobody sees a state that it has left.
pub(crate) async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}
