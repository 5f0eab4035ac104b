//! Promise 2 for a future that is dropped: at every place where it waits, by a test executor that drops
//! it at the n-th poll, for all n; and with the runtime.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use ::tokio::io::AsyncWriteExt;
use rstest::rstest;

use super::{CASES, Case, assert_soon, content, relaxed, runtime};
use crate::support::{prepare, read};

/// Polls a future so often, and then drops it: right after the last poll, or when it would be polled
/// again.
async fn poll_times<F: Future>(future: F, polls: usize, when: &str) -> Option<F::Output> {
    let mut left = polls;
    let mut future = pin!(future);
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 && when == "at once" => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// How far a call has come.
struct Progress {
    ran: Cell<bool>,
    finished: bool,
}

fn cancel(
    case: Case,
    directory: &crate::support::Directory,
    polls: usize,
    when: &str,
    pool: usize,
) -> Progress {
    let options = relaxed().tokio();
    let path = directory.join("file");
    let ran = Cell::new(false);
    let runtime = runtime("one thread", pool);
    let call = case.call(&options, &path, async || {
        ran.set(true);
        // So often that one of the numbers ends here, however fast the pool is.
        for _ in 0..10 {
            ::tokio::task::yield_now().await;
        }
        Ok(())
    });
    let finished = runtime.block_on(poll_times(call, polls, when)).map(|result| result.unwrap());
    // The pool goes on while the runtime lives.
    assert_soon("old or new, and nothing left", || {
        case.is_state(directory, case.old) || case.is_state(directory, Some(&content()))
    });
    if !ran.get() {
        case.assert_state(directory, case.old);
    }
    Progress { ran, finished: finished.is_some() }
}

#[rstest]
fn a_future_that_is_dropped_leaves_nothing(
    #[values("at once", "when woken")] when: &str,
    #[values(1, 8)] pool: usize,
) {
    for case in CASES {
        let mut drops_in_closure = 0;
        for polls in 0.. {
            let directory = case.prepare();
            let progress = cancel(case, &directory, polls, when, pool);
            if progress.finished {
                case.assert_state(&directory, Some(&content()));
                assert!(polls > 3, "{case:?} waits for the pool, and in the closure");
                break;
            }
            drops_in_closure += u32::from(progress.ran.get());
            // Nobody is waited for.
            if !case.is_state(&directory, Some(&content())) {
                let again = cancel(case, &directory, usize::MAX, when, pool);
                assert!(again.finished);
            }
            case.assert_state(&directory, Some(&content()));
        }
        assert!(drops_in_closure > 0, "{case:?}");
    }
}

#[rstest]
fn what_a_dropped_future_has_written_is_kept(
    #[values("at once", "when woken")] when: &str,
    #[values(1, 8)] pool: usize,
) {
    let content = content().repeat(3);
    let mut kept_some = 0;
    for polls in 0.. {
        let directory = prepare("here", Some("old"));
        let kept = directory.join("kept");
        let options = relaxed().keep_failed(&kept).tokio();
        let accepted = AtomicUsize::new(0);
        let (path, runtime) = (directory.join("file"), runtime("one thread", pool));
        let call = options.write(&path, async |w| {
            for part in content.as_bytes().chunks(30_011) {
                w.write_all(part).await?;
                accepted.fetch_add(part.len(), Ordering::Relaxed);
                ::tokio::task::yield_now().await;
            }
            Ok(())
        });
        let finished: Option<io::Result<()>> = runtime.block_on(poll_times(call, polls, when));
        let accepted = accepted.into_inner();
        if finished.is_some() {
            assert!(read(&path) == content);
            break;
        }
        if accepted == content.len() {
            continue;
        }
        if accepted > 0 {
            kept_some += 1;
            assert_soon("kept", || kept.exists() && read(&kept).len() >= accepted);
            assert!(content.starts_with(&read(&kept)));
            assert_eq!(directory.listing(), ["file", "kept", "neighbour"]);
        }
        assert_eq!(read(&path), "old");
    }
    assert!(kept_some > 10);
}

#[rstest]
fn a_batch_goes_on_without_the_file_whose_future_was_dropped(
    #[values("at once", "when woken")] when: &str,
) {
    for polls in 0.. {
        let directory = prepare("here", Some("old"));
        let runtime = runtime("one thread", 2);
        let (one, two) = (directory.join("file"), directory.join("two"));
        let options = relaxed().tokio();
        let batch = options.write_batch(async |batch| {
            let dropped = batch.write(&one, async |w| {
                ::tokio::task::yield_now().await;
                w.write_all(b"new").await
            });
            let dropped = poll_times(dropped, polls, when).await;
            batch.write(&two, async |w| w.write_all(b"two").await).await?;
            io::Result::Ok((dropped.is_some(), batch.len()))
        });
        let (finished, files) = runtime.block_on(batch).unwrap();
        assert_eq!(files, 1 + usize::from(finished));
        assert_eq!(read(&one), if finished { "new" } else { "old" });
        assert_eq!(read(&two), "two");
        assert_eq!(directory.listing(), ["file", "neighbour", "two"]);
        if finished {
            assert!(polls > 2);
            break;
        }
    }
}

#[rstest]
fn the_runtime_shuts_down(
    #[values("one thread", "threads")] flavour: &str,
    #[values("drop", "background", "timeout")] how: &str,
    #[values("in the closure", "anywhere")] moment: &str,
) {
    for (number, case) in CASES.into_iter().enumerate() {
        let directory = case.prepare();
        let runtime = runtime(flavour, 4);
        let path = directory.join("file");
        let (tell, told) = ::tokio::sync::oneshot::channel();
        let stays = moment == "in the closure";
        runtime.spawn(async move {
            let options = relaxed().tokio();
            let called = case.call(&options, &path, async || {
                let _ = tell.send(());
                if stays {
                    std::future::pending::<()>().await;
                }
                Ok(())
            });
            called.await
        });
        match stays {
            true => runtime.block_on(told).unwrap(),
            false => std::thread::sleep(Duration::from_micros(50 * number as u64)),
        }
        match how {
            "drop" => drop(runtime),
            "background" => runtime.shutdown_background(),
            _ => runtime.shutdown_timeout(Duration::from_secs(5)),
        }
        assert_soon("old or new, and nothing left", || {
            case.is_state(&directory, case.old)
                || !stays && case.is_state(&directory, Some(&content()))
        });
    }
}

#[test]
fn what_was_written_is_kept_when_the_runtime_shuts_down() {
    let directory = prepare("here", Some("old"));
    let (path, kept) = (directory.join("file"), directory.join("kept"));
    let options = relaxed().keep_failed(&kept).tokio();
    let runtime = runtime("threads", 1);
    let (tell, told) = ::tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        let written: io::Result<()> = options
            .write(&path, async |w| {
                w.write_all(b"some of it").await?;
                let _ = tell.send(());
                std::future::pending().await
            })
            .await;
        written
    });
    runtime.block_on(told).unwrap();
    drop(runtime);
    assert_eq!(read(&kept), "some of it");
    assert_eq!(read(&directory.join("file")), "old");
    assert_eq!(directory.listing(), ["file", "kept", "neighbour"]);
}

#[test]
fn a_timeout_is_a_failure_like_any_other() {
    let directory = prepare("here", Some("old"));
    let path = directory.join("file");
    let runtime = runtime("threads", 2);
    let timed_out = runtime.block_on(async {
        let writing = write_atomically::tokio::write_atomically(&path, async |w| {
            w.write_all(content().as_bytes()).await?;
            std::future::pending::<anyhow::Result<()>>().await
        });
        ::tokio::time::timeout(Duration::from_millis(20), writing).await.is_err()
    });
    assert!(timed_out);
    drop(runtime);
    crate::support::assert_state(&directory, Some("old"));
}

/// The pool's only thread is busy when the closure returns `Ok`.
#[test]
fn publishing_that_has_not_begun_never_does() {
    for case in CASES {
        let directory = case.prepare();
        let path = directory.join("file");
        let runtime = runtime("one thread", 1);
        let options = relaxed().tokio();
        let (free, busy) = std::sync::mpsc::channel::<()>();
        let busy = std::sync::Mutex::new(Some(busy));
        runtime.block_on(async {
            let call = case.call(&options, &path, async || {
                let busy = busy.lock().unwrap().take().unwrap();
                drop(::tokio::task::spawn_blocking(move || busy.recv()));
                Ok(())
            });
            assert!(::tokio::time::timeout(Duration::from_millis(30), call).await.is_err());
            drop(free);
            for _ in 0..3 {
                ::tokio::task::spawn_blocking(|| {}).await.unwrap();
            }
        });
        case.assert_state(&directory, case.old);
    }
}
