//! The closures and futures that compile, and where they run.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use ::tokio::io::AsyncWriteExt;
use ::tokio::runtime::{Builder, Runtime};
use ::tokio::task::{JoinSet, LocalSet};
use rstest::rstest;
use write_atomically::WriteOptions;
use write_atomically::tokio::{Batch, Writer, write_atomically, write_batch, write_if_missing};

use super::CASES;
use crate::support::{Directory, assert_state, prepare, read};

#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("no rows")]
    NoRows,
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn runtime(flavour: &str) -> Runtime {
    match flavour {
        "one thread" => Builder::new_current_thread().enable_all().build().unwrap(),
        _ => Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
    }
}

#[rstest]
fn a_future_is_spawned_joined_and_boxed(#[values("one thread", "threads")] flavour: &str) {
    let directory = Directory::new();
    let path = |name: &str| directory.join(name);
    runtime(flavour).block_on(async {
        let one = path("spawned");
        let task = ::tokio::spawn(async move {
            let text = String::from("borrowed");
            write_atomically(&one, async |w| Ok(w.write_all(text.as_bytes()).await?)).await
        });
        let mut set = JoinSet::new();
        for n in 0..8 {
            let path = path(&n.to_string());
            set.spawn(async move {
                let options = WriteOptions::new().error::<ExportError>().tokio();
                let written = options.write(path, async |w| match n {
                    3 => Err(ExportError::NoRows),
                    _ => Ok(w.write_all(b"joined").await?),
                });
                written.await
            });
        }
        let boxed: Pin<Box<dyn Future<Output = anyhow::Result<Option<u32>>> + Send>> =
            Box::pin(write_if_missing(path("boxed"), async |w| {
                w.write_all(b"boxed").await?;
                Ok(7)
            }));
        assert_eq!(boxed.await.unwrap(), Some(7));
        task.await.unwrap().unwrap();
        let results = set.join_all().await;
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
    });
    let mut expected = vec!["boxed", "spawned", "0", "1", "2", "4", "5", "6", "7"];
    expected.sort_unstable();
    assert_eq!(directory.listing(), expected);
    assert_eq!(read(&directory.join("spawned")), "borrowed");
}

async fn add(batch: &mut Batch<anyhow::Error>, path: PathBuf) -> anyhow::Result<()> {
    batch.write(path, async |w| Ok(w.write_all(b"one of them").await?)).await
}

#[rstest]
fn a_batch_is_passed_on(#[values("one thread", "threads")] flavour: &str) {
    let directory = Directory::new();
    let paths: Vec<_> = (0..20).map(|n| directory.join(format!("{n:02}"))).collect();
    let task = {
        let paths = paths.clone();
        async move {
            write_batch(async |batch| {
                for path in &paths {
                    add(batch, path.clone()).await?;
                }
                Ok(batch.len())
            })
            .await
        }
    };
    let runtime = runtime(flavour);
    assert_eq!(runtime.block_on(runtime.spawn(task)).unwrap().unwrap(), 20);
    assert_eq!(directory.listing().len(), 20);
    assert!(paths.iter().all(|path| read(path) == "one of them"));
}

#[test]
fn a_closure_that_can_not_be_sent_runs_in_a_local_set() {
    let directory = prepare("here", Some("old"));
    let path = directory.join("file");
    let local = LocalSet::new();
    local.spawn_local(async move {
        let text = std::rc::Rc::new("new");
        let here = text.clone();
        write_atomically(&path, async |w| {
            ::tokio::task::yield_now().await;
            Ok(w.write_all(here.as_bytes()).await?)
        })
        .await
        .unwrap();
        drop(text);
    });
    runtime("one thread").block_on(local);
    assert_state(&directory, Some("new"));
}

#[test]
fn without_a_runtime_the_panic_is_that_of_tokio() {
    let directory = prepare("here", Some("old"));
    let path = directory.join("file");
    let writing = write_atomically(&path, async |_| Ok(()));
    let mut writing = pin!(writing);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut context = Context::from_waker(Waker::noop());
        writing.as_mut().poll(&mut context).is_ready()
    }));
    let panic = panic.unwrap_err();
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    assert!(message.unwrap().contains("must be called from the context of a Tokio 1.x runtime"));
    assert_state(&directory, Some("old"));
}

/// Wakes the thread that waits in [`run_without_tokio`], and counts how often.
struct Unpark(Thread, AtomicUsize);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.unpark();
    }
}

/// What a future ends in, and how often it was woken.
fn run_without_tokio<F: Future>(future: F) -> (F::Output, usize) {
    let unpark = Arc::new(Unpark(thread::current(), AtomicUsize::new(0)));
    let waker = unpark.clone().into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return (output, unpark.1.load(Ordering::Relaxed)),
            Poll::Pending => thread::park(),
        }
    }
}

/// A task that waits for a job is woken when it ends.
#[test]
fn a_small_file_takes_two_jobs_on_the_pool_and_a_slice_one() {
    for case in CASES {
        if case.operation == "batch" {
            continue;
        }
        let directory = case.prepare();
        let (path, options) = (directory.join("file"), super::relaxed().tokio());
        let runtime = runtime("threads");
        let _entered = runtime.enter();
        let small = async |w: &mut Writer| w.write_all(b"small").await;
        let produce = async |staged: &Path| match case.operation.starts_with("dir") {
            true => io::Result::Ok(()),
            false => Ok(fs_err::write(staged, "small")?),
        };
        let (done, jobs) = match case.operation {
            "write" => run_without_tokio(options.write(&path, small)),
            "create" => run_without_tokio(options.create(&path, small)),
            "path" => run_without_tokio(options.write_path(&path, produce)),
            "dir" => run_without_tokio(options.write_dir(&path, produce)),
            "update" => run_without_tokio(options.update(&path, async |_, w| small(w).await)),
            "if changed" => {
                let (change, jobs) = run_without_tokio(options.write_if_changed(&path, small));
                (change.map(|change| change.into_inner()), jobs)
            }
            "if missing" => some(run_without_tokio(options.write_if_missing(&path, small))),
            "path if missing" => {
                some(run_without_tokio(options.write_path_if_missing(&path, produce)))
            }
            _ => some(run_without_tokio(options.write_dir_if_missing(&path, produce))),
        };
        done.unwrap();
        assert!(jobs <= 2, "{case:?}: {jobs}");
        assert_eq!(directory.listing(), ["file", "neighbour"]);
        if !path.is_dir() {
            let (done, jobs) = run_without_tokio(write_atomically::tokio::write(&path, "slice"));
            done.unwrap();
            assert!(jobs <= 1, "{jobs}");
            assert_state(&directory, Some("slice"));
        }
    }
}

fn some((done, jobs): (io::Result<Option<()>>, usize)) -> (io::Result<()>, usize) {
    (done.map(|done| done.expect("it was missing")), jobs)
}

#[test]
fn another_executor_awaits_what_a_runtime_runs() {
    let directory = prepare("here", Some("old"));
    let runtime = runtime("threads");
    let writing = runtime.spawn(write_atomically::tokio::write(directory.join("file"), "new"));
    run_without_tokio(writing).0.unwrap().unwrap();
    assert_state(&directory, Some("new"));
}

/// The runtime is entered here, and another executor polls.
#[test]
fn another_executor_polls_within_a_runtime() {
    let directory = prepare("here", Some("old"));
    let runtime = runtime("threads");
    let _entered = runtime.enter();
    run_without_tokio(write_atomically(directory.join("file"), async |w| {
        Ok(w.write_all(b"new").await?)
    }))
    .0
    .unwrap();
    assert_state(&directory, Some("new"));
}
