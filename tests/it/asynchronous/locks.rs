//! Promise 8 for tasks: one closure runs, the others wait without a thread, and nobody for itself.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ::tokio::task::JoinSet;
use fs_err as fs;
use rstest::rstest;
use write_atomically::tokio::{update_atomically, write_dir_if_missing, write_if_missing};
use write_atomically::{Error, Hint, Step, WriteOptions};

use super::{CASES, Case, relaxed, runtime};
use crate::child::{self, Child};
use crate::support::{Directory, read};

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    let _ = relaxed().write_if_missing(path, |w| {
        io::Write::write_all(w, b"child's")?;
        child::end_while_staged(&role)
    });
}

const TASKS: u32 = 10_000;

/// Starts them all. How many have run their closure, and how many have been answered `None`.
async fn ask_all(path: PathBuf, runs: Arc<AtomicU32>) -> JoinSet<Option<()>> {
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (path, runs) = (path.clone(), runs.clone());
        tasks.spawn(async move {
            let options = relaxed().tokio();
            let asked = options.write_if_missing(&path, async |w| {
                runs.fetch_add(1, Ordering::Relaxed);
                ::tokio::time::sleep(Duration::from_millis(300)).await;
                w.write_all(b"ours").await
            });
            asked.await.unwrap()
        });
    }
    tasks
}

#[rstest]
fn of_ten_thousand_tasks_one_runs(#[values("one thread", "threads")] flavour: &str) {
    let directory = Directory::new();
    let (path, runs) = (directory.join("file"), Arc::new(AtomicU32::new(0)));
    let answers = runtime(flavour, 2)
        .block_on(async { ask_all(path.clone(), runs.clone()).await.join_all().await });
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert_eq!(answers.len(), TASKS as usize);
    assert_eq!(answers.into_iter().flatten().count(), 1);
    assert_eq!(read(&path), "ours");
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
fn while_another_process_holds_the_lock_the_pool_is_free(
    #[values("killed", "canceled")] end: &str,
) {
    let directory = Directory::new();
    let (path, runs) = (directory.join("file"), Arc::new(AtomicU32::new(0)));
    let (mut holder, _answer) = Child::new(module_path!(), "wait", &path).spawn_staged();
    runtime("threads", 2).block_on(async {
        let mut tasks = ask_all(path.clone(), runs.clone()).await;
        ::tokio::time::sleep(Duration::from_millis(500)).await;
        // All of them have asked by now, and both threads of the pool have time for others.
        let start = Instant::now();
        for _ in 0..20 {
            ::tokio::task::spawn_blocking(|| {}).await.unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(runs.load(Ordering::Relaxed), 0);
        if end == "canceled" {
            tasks.shutdown().await;
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
        let ran = tasks.join_all().await.into_iter().flatten().count();
        assert_eq!(ran, usize::from(end == "killed"));
    });
    if end == "canceled" {
        assert_eq!(runs.load(Ordering::Relaxed), 0);
        // What the killed one has left, the next write removes.
        relaxed().write_if_missing(&path, |w| io::Write::write_all(w, b"ours")).unwrap();
    }
    assert_eq!(read(&path), "ours");
    assert_eq!(directory.listing(), ["file"]);
}

fn that_lock() -> impl Iterator<Item = Case> {
    let locks = |case: &Case| case.operation == "update" || case.operation.ends_with("missing");
    CASES.into_iter().filter(locks)
}

#[rstest]
fn waiting_ends_after_the_timeout(#[values(0, 100)] milliseconds: u64) {
    for case in that_lock() {
        let directory = case.prepare();
        let path = directory.join("file");
        let timeout = Duration::from_millis(milliseconds);
        runtime("threads", 1).block_on(async {
            let (holding, hurried) = (relaxed().tokio(), relaxed().lock_timeout(timeout).tokio());
            let held = case.call(&holding, &path, async || {
                let start = Instant::now();
                let (path, hurried) = (path.clone(), hurried.clone());
                let other = ::tokio::spawn(async move {
                    case.call(&hurried, &path, async || panic!("the closure ran")).await
                });
                let error = other.await.unwrap().unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{case:?}");
                assert_eq!(Error::find(&error).unwrap().step(), Step::Lock);
                assert!(start.elapsed() >= timeout && start.elapsed() < Duration::from_secs(20));
                Ok(())
            });
            held.await.unwrap();
        });
        case.assert_state(&directory, Some(&super::content()));
    }
}

#[rstest]
fn the_same_path_in_its_own_closure_is_a_deadlock(
    #[values("block_on", "spawned")] place: &str,
    #[values("directly", "behind another")] how: &'static str,
) {
    for case in that_lock() {
        let directory = case.prepare();
        let (path, other) = (directory.join("file"), directory.join("other"));
        let runtime = runtime("threads", 1);
        let call = async move {
            let options = relaxed().lock_timeout(Duration::from_secs(20)).tokio();
            let inner = async || case.call(&options, &path, async || Ok(())).await;
            let outer = case.call(&options, &path, async || {
                let result = match how {
                    "directly" => inner().await,
                    _ => {
                        let behind = options.write_if_missing(&other, async |_| inner().await);
                        behind.await.map(drop)
                    }
                };
                let error = result.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::Deadlock, "{case:?}");
                assert_eq!(Error::find(&error).unwrap().hint(), Some(Hint::WaitsForItself));
                Ok(())
            });
            outer.await
        };
        match place {
            "block_on" => runtime.block_on(call).unwrap(),
            _ => runtime.block_on(runtime.spawn(call)).unwrap().unwrap(),
        }
        case.assert_state(&directory, Some(&super::content()));
    }
}

/// Both are in one task, and none waits for itself.
#[rstest]
fn two_calls_of_one_task_wait_for_each_other(#[values(true, false)] are_nested: bool) {
    for case in that_lock() {
        let directory = case.prepare();
        let path = directory.join("file");
        let options = relaxed().tokio();
        let call = async || {
            let call = || case.call(&options, &path, async || Ok(()));
            let (one, two) = ::tokio::join!(call(), call());
            one.and(two)
        };
        runtime("one thread", 1).block_on(async {
            match are_nested {
                true => {
                    let around = Directory::new();
                    let outer =
                        options.write_if_missing(around.join("around"), async |_| call().await);
                    outer.await.unwrap().unwrap();
                }
                false => call().await.unwrap(),
            }
        });
        case.assert_state(&directory, Some(&super::content()));
    }
}

#[rstest]
fn no_update_is_lost(#[values("one thread", "threads")] flavour: &str) {
    let directory = Directory::new();
    let path = directory.join("counter");
    runtime(flavour, 2).block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..100 {
            let path = path.clone();
            tasks.spawn(async move {
                let updated = update_atomically(&path, async |old, new| {
                    let mut text = String::new();
                    if let Some(old) = old {
                        old.read_to_string(&mut text).await?;
                    }
                    let count = text.parse().unwrap_or(0) + 1;
                    new.write_all(count.to_string().as_bytes()).await?;
                    Ok(())
                });
                updated.await.unwrap();
            });
        }
        tasks.join_all().await;
    });
    assert_eq!(read(&path), "100");
    assert_eq!(directory.listing(), ["counter"]);
}

/// The parents are missing when they start: some of the entries are above, some below.
#[test]
fn missing_parents_do_not_let_two_run() {
    for _ in 0..20 {
        let directory = Directory::new();
        let path = directory.join("a/b/c/file");
        let runs = Arc::new(AtomicU32::new(0));
        runtime("threads", 4).block_on(async {
            let mut tasks = JoinSet::new();
            for n in 0..20 {
                let (path, runs, base) = (path.clone(), runs.clone(), directory.join("a"));
                tasks.spawn(async move {
                    let options = relaxed().create_parents(true).tokio();
                    if n % 7 == 3 {
                        let _ = fs::create_dir(base);
                    }
                    let asked = options.write_if_missing(&path, async |w| {
                        runs.fetch_add(1, Ordering::Relaxed);
                        ::tokio::task::yield_now().await;
                        w.write_all(b"once").await
                    });
                    asked.await.unwrap();
                });
            }
            tasks.join_all().await;
        });
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert_eq!(read(&path), "once");
        assert_eq!(directory.listing(), ["a"]);
    }
}

#[test]
fn a_failure_hands_over() {
    let directory = Directory::new();
    let runs = AtomicU32::new(0);
    let (file, tree) = (directory.join("file"), directory.join("tree"));
    runtime("one thread", 2).block_on(async {
        let ask = async || {
            write_if_missing(&file, async |w| {
                ::tokio::task::yield_now().await;
                anyhow::ensure!(runs.fetch_add(1, Ordering::Relaxed) > 0, "the first fails");
                Ok(w.write_all(b"second").await?)
            })
            .await
        };
        let (one, two, three) = ::tokio::join!(ask(), ask(), ask());
        let all = [one, two, three];
        assert_eq!(all.iter().filter(|one| one.is_err()).count(), 1);
        assert_eq!(all.iter().filter(|one| matches!(one, Ok(Some(())))).count(), 1);
        let build = async || {
            write_dir_if_missing(&tree, async |at| Ok(fs::write(at.join("content"), "tree")?)).await
        };
        let (one, two) = ::tokio::join!(build(), build());
        assert_eq!([one.unwrap(), two.unwrap()].into_iter().flatten().count(), 1);
    });
    assert_eq!(read(&file), "second");
    assert_eq!(read(&tree.join("content")), "tree");
    assert_eq!(directory.listing(), ["file", "tree"]);
    assert!(WriteOptions::new().write_if_missing(&file, |_| Ok(())).unwrap().is_none());
}
