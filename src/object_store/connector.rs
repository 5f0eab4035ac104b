//! The condition of the request that completes an upload, which `object_store` has no argument for.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Travels with the first look at a destination, in the request's extensions. A [`Connector`] that sees
/// it knows that this library asks, and takes it: completing requests will have their conditions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offer(Arc<AtomicBool>);

impl Offer {
    pub(crate) fn is_taken(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    #[cfg(feature = "s3")]
    pub(crate) fn take(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) type Header = (&'static str, String);

thread_local! {
    /// The condition of the request that is being polled on this thread.
    static CONDITION: RefCell<Option<Header>> = const { RefCell::new(None) };
}

/// Runs a completing request under a condition: while it is polled, a [`Connector`] finds it.
pub(crate) async fn conditional<F: Future>(
    header: Option<(&'static str, &str)>,
    request: F,
) -> F::Output {
    let mut header = header.map(|(name, value)| (name, value.to_owned()));
    let mut request = pin!(request);
    std::future::poll_fn(move |context| {
        let _scope = Scope::enter(&mut header);
        request.as_mut().poll(context)
    })
    .await
}

/// Also a panic must not leave the condition to another task of this thread.
struct Scope<'a>(&'a mut Option<Header>);

impl<'a> Scope<'a> {
    fn enter(header: &'a mut Option<Header>) -> Self {
        CONDITION.with_borrow_mut(|current| std::mem::swap(current, header));
        Scope(header)
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        CONDITION.with_borrow_mut(|current| std::mem::swap(current, self.0));
    }
}

/// What the request that is being polled on this thread has.
#[cfg(feature = "s3")]
pub(crate) fn condition() -> Option<Header> {
    CONDITION.with_borrow(Clone::clone)
}
