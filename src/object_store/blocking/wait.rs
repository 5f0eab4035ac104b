//! Waiting for async work on a thread that may or may not belong to a runtime.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::task::unconstrained;

/// The runtime that sends and aborts: one thread, started by the first blocking call. Connections
/// belong to the runtime that has opened them, so one per call would open new ones each time.
fn background() -> io::Result<&'static Handle> {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    if let Some(handle) = RUNTIME.get() {
        return Ok(handle);
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let mut mine = false;
    let handle = RUNTIME.get_or_init(|| {
        mine = true;
        handle
    });
    if mine {
        let run = move || runtime.block_on(std::future::pending::<()>());
        thread::Builder::new().name("write-atomically".to_owned()).spawn(run)?;
    }
    Ok(handle)
}

/// Polls the future on this thread, with the background runtime as the one it spawns on.
///
/// tokio's `block_on` panics on a thread of a runtime. Its budget is left out because nobody would
/// renew it there.
pub(crate) fn wait<F: Future>(future: F) -> io::Result<F::Output> {
    let handle = background()?;
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(signal.clone());
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(unconstrained(future));
    loop {
        let inside = handle.enter();
        let polled = future.as_mut().poll(&mut context);
        drop(inside);
        match polled {
            Poll::Ready(output) => return Ok(output),
            Poll::Pending => signal.wait(),
        }
    }
}

/// Runs the caller's closure in the runtime that the caller was in, if any: not in ours.
pub(crate) fn outside<T>(caller: Option<&Handle>, run: impl FnOnce() -> T) -> T {
    let _inside = caller.map(Handle::enter);
    run()
}

/// Not `thread::park`, whose token the caller's closure may take.
#[derive(Default)]
struct Signal {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn wait(&self) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !*woken {
            woken = self.changed.wait(woken).unwrap_or_else(PoisonError::into_inner);
        }
        *woken = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}
