//! The asynchronous functions beside the synchronous ones and `tokio::fs`, in one run: medians of rounds
//! in which each has its turn, and ratios to the first of each table.
//!
//!     WRITE_ATOMICALLY_BENCH_DIR=/mnt/ext4 cargo bench --features tokio --bench tokio [-- small streams pieces concurrent memory]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ::tokio::fs::File;
use ::tokio::io::{AsyncWriteExt, BufWriter};
use ::tokio::runtime::{Builder, Runtime};
use ::tokio::sync::Notify;
use ::tokio::task::JoinSet;
use write_atomically::{WriteOptions, tokio as asynchronous};

const MIB: usize = 1 << 20;
const POOL: usize = 16;

fn main() {
    let parent = std::env::var_os("WRITE_ATOMICALLY_BENCH_DIR")
        .map_or(env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let directory = parent.join("write-atomically-tokio");
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("file");
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(POOL)
        .enable_all()
        .build()
        .unwrap();
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |part: &str| only.is_empty() || only.iter().any(|only| only == part);
    for part in ["small", "streams", "pieces", "concurrent", "memory"] {
        match part {
            _ if !is_wanted(part) => {}
            "small" => small(&runtime, &path),
            "streams" => {
                [64 << 10, MIB].into_iter().for_each(|piece| stream(&runtime, &path, piece))
            }
            "pieces" => pieces(&runtime, &path),
            "concurrent" => concurrent(&runtime, &directory),
            _ => memory(&runtime, &directory),
        }
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

type Contender<'c> = (&'c str, Box<dyn FnMut() -> Duration + 'c>);

fn contender<'c>(name: &'c str, mut run: impl FnMut() + 'c) -> Contender<'c> {
    let timed = move || {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (name, Box::new(timed))
}

fn on<'c>(runtime: &'c Runtime, name: &'c str, run: impl AsyncFn() + 'c) -> Contender<'c> {
    contender(name, move || runtime.block_on(run()))
}

fn compare(what: &str, rounds: usize, mut contenders: Vec<Contender>) {
    let mut times = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let time = contender.1();
            // The first one warms up.
            if round > 0 {
                times.push(time);
            }
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let medians: Vec<_> = times.iter_mut().map(median).collect();
    println!("\n{what}, {rounds} rounds");
    for ((name, _), median) in contenders.iter().zip(&medians) {
        let ratio = median.as_secs_f64() / medians[0].as_secs_f64();
        println!("  {name:40} {median:>12.1?}  {ratio:6.3}");
    }
}

fn small(runtime: &Runtime, path: &Path) {
    let contents = [b'x'; 4096];
    let paths = [(); 3].map(|()| path.to_owned());
    let [one, two, three] = paths;
    let contenders = vec![
        contender("synchronous", || write_atomically::write(path, contents).unwrap()),
        on(runtime, "asynchronous, write", async move || {
            asynchronous::write(&one, contents).await.unwrap();
        }),
        on(runtime, "asynchronous, closure", async move || {
            let options = WriteOptions::new().tokio();
            options.write(&two, async |w| w.write_all(&contents).await).await.unwrap();
        }),
        on(runtime, "tokio::fs, sync_all", async move || {
            let mut file = File::create(&three).await.unwrap();
            file.write_all(&contents).await.unwrap();
            file.sync_all().await.unwrap();
        }),
    ];
    compare("replace 4 KiB, durable", 400, contenders);
}

fn stream(runtime: &Runtime, path: &Path, piece: usize) {
    const LENGTH: usize = 512 * MIB;
    let (one, two) = (path.to_owned(), path.to_owned());
    let contenders = vec![
        contender("synchronous", || {
            let bytes = vec![b'x'; piece];
            let write = |w: &mut write_atomically::Writer| {
                (0..LENGTH / piece).try_for_each(|_| w.write_all(&bytes))
            };
            WriteOptions::new().write(path, write).unwrap();
        }),
        on(runtime, "asynchronous", async move || {
            let bytes = vec![b'x'; piece];
            let writing = WriteOptions::new().tokio();
            let writing = writing.write(&one, async |w| {
                for _ in 0..LENGTH / piece {
                    w.write_all(&bytes).await?;
                }
                Ok(())
            });
            writing.await.unwrap();
        }),
        on(runtime, "tokio::fs, sync_all", async move || {
            let bytes = vec![b'x'; piece];
            let mut file = File::create(&two).await.unwrap();
            for _ in 0..LENGTH / piece {
                file.write_all(&bytes).await.unwrap();
            }
            file.sync_all().await.unwrap();
        }),
    ];
    compare(&format!("stream of 512 MiB, {} KiB at a time", piece >> 10), 7, contenders);
}

fn pieces(runtime: &Runtime, path: &Path) {
    const PIECES: usize = 10_000_000;
    const UNBUFFERED: usize = PIECES / 100;
    let [one, two, three] = [(); 3].map(|()| path.to_owned());
    let relaxed = || WriteOptions::new().durability(write_atomically::Durability::Relaxed);
    let mut unbuffered = on(runtime, "tokio::fs::File, a hundredth, times 100", async move || {
        let mut file = File::create(&three).await.unwrap();
        for _ in 0..UNBUFFERED {
            file.write_all(b"0123456789").await.unwrap();
        }
        file.flush().await.unwrap();
    });
    let run = move || (unbuffered.1)() * 100;
    let contenders = vec![
        contender("synchronous", || {
            let write = |w: &mut write_atomically::Writer| {
                (0..PIECES).try_for_each(|_| w.write_all(b"0123456789"))
            };
            relaxed().write(path, write).unwrap();
        }),
        on(runtime, "asynchronous", async move || {
            let options = relaxed().tokio();
            let writing = options.write(&one, async |w| {
                for _ in 0..PIECES {
                    w.write_all(b"0123456789").await?;
                }
                Ok(())
            });
            writing.await.unwrap();
        }),
        on(runtime, "tokio::io::BufWriter", async move || {
            let mut file = BufWriter::new(File::create(&two).await.unwrap());
            for _ in 0..PIECES {
                file.write_all(b"0123456789").await.unwrap();
            }
            file.flush().await.unwrap();
        }),
        ("tokio::fs::File, a hundredth, times 100", Box::new(run)),
    ];
    compare("10 million write_alls of 10 bytes, relaxed", 5, contenders);
}

fn concurrent(runtime: &Runtime, directory: &Path) {
    const WRITES: usize = 1000;
    let contents = [b'x'; 4096];
    let target = directory.to_owned();
    let contenders = vec![
        contender("synchronous, as many threads", || {
            let next = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..POOL {
                    scope.spawn(|| {
                        loop {
                            let n = next.fetch_add(1, Ordering::Relaxed);
                            if n >= WRITES {
                                return;
                            }
                            let path = directory.join(n.to_string());
                            WriteOptions::new().write(path, |w| w.write_all(&contents)).unwrap();
                        }
                    });
                }
            });
        }),
        on(runtime, "asynchronous", async move || {
            let mut tasks = JoinSet::new();
            for n in 0..WRITES {
                let path = target.join(n.to_string());
                tasks.spawn(async move {
                    let options = WriteOptions::new().tokio();
                    options.write(path, async |w| w.write_all(&contents).await).await.unwrap();
                });
            }
            tasks.join_all().await;
        }),
    ];
    compare("1,000 durable writes of 4 KiB at once", 9, contenders);
}

/// What each of many calls takes whose closures wait, after a few bytes and in the middle of a stream.
fn memory(runtime: &Runtime, directory: &Path) {
    const CALLS: usize = 500;
    println!("\nmemory for each of {CALLS} calls");
    for (name, bytes) in [("10 bytes", 10), ("1 MiB", MIB), ("8 MiB", 8 * MIB)] {
        let (before, waiting) = (resident(), Arc::new(Waiting::default()));
        let mut calls = JoinSet::new();
        let mut future = 0;
        for n in 0..CALLS {
            let call = write_and_wait(directory.join(n.to_string()), bytes, waiting.clone());
            future = size_of_val(&call);
            calls.spawn_on(call, runtime.handle());
        }
        while waiting.calls.load(Ordering::Relaxed) < CALLS {
            thread::sleep(Duration::from_millis(10));
        }
        let each = (resident() - before) / CALLS;
        println!("  after {name:8} {:>6} KiB; the future is {future} bytes", each >> 10);
        waiting.end.notify_waiters();
        runtime.block_on(calls.join_all());
    }
}

#[derive(Default)]
struct Waiting {
    calls: AtomicUsize,
    end: Notify,
}

async fn write_and_wait(path: PathBuf, bytes: usize, waiting: Arc<Waiting>) {
    let options = WriteOptions::new().durability(write_atomically::Durability::Relaxed).tokio();
    let written = options.write(path, async |w| {
        for _ in 0..bytes / 10 {
            w.write_all(b"0123456789").await?;
        }
        let end = waiting.end.notified();
        waiting.calls.fetch_add(1, Ordering::Relaxed);
        end.await;
        Ok(())
    });
    written.await.unwrap();
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
