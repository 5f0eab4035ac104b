//! The operations that are measured: one for each guarantee, size and situation.

use crate::calls;
use crate::contenders::Who;
use crate::copy;
use crate::floor::Guarantee;
use crate::floor::body::Body;
use crate::measure::{Entry, Sample, interleave};
use crate::results::{Results, Row};
use crate::windows::warmth;
use fs_err::{self as fs, File};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Duration;

/// How long a table may take.
#[derive(Clone, Copy)]
pub struct Effort {
    pub rounds: usize,
    pub limit: Duration,
}

/// Sizes 0 B, 4 KiB and 1 MiB, to a new and to an existing destination, at each guarantee.
pub fn small(dir: &Path, effort: Effort, results: &mut Results) {
    for guarantee in Guarantee::ALL {
        for (size, size_name) in [(0, "0 B"), (4 << 10, "4 KiB"), (1 << 20, "1 MiB")] {
            for replace in [true, false] {
                let body = Body::Whole(vec![b'x'; size]);
                let whos = contenders(guarantee, &body, replace);
                let settle = guarantee != Guarantee::Relaxed || size >= 1 << 20;
                let rounds = if settle { effort.rounds } else { effort.rounds * 5 };
                let samples = operation(
                    dir,
                    &whos,
                    &body,
                    guarantee,
                    replace,
                    settle,
                    Effort { rounds, ..effort },
                );
                let title = format!("{guarantee:?} {} of {size_name}", situation(replace));
                let mut rows = Row::of_samples(&title, &whos, guarantee, &body, &samples);
                for (row, &who) in rows.iter_mut().zip(&whos) {
                    if let Some(calls) = calls::count(dir, who, guarantee, replace, size as u64) {
                        row.set_calls(&calls);
                    }
                }
                results.put(rows);
            }
        }
    }
}

/// 512 MiB as a stream, computed on the way and copied only.
pub fn streams(dir: &Path, effort: Effort, results: &mut Results) {
    for guarantee in [Guarantee::Durable, Guarantee::Consistent, Guarantee::Relaxed] {
        for computed in [false, true] {
            if computed && guarantee == Guarantee::Consistent {
                continue;
            }
            let body = Body::Stream { len: 512 << 20, computed };
            let whos = contenders(guarantee, &body, true);
            let whos: Vec<Who> = whos.into_iter().filter(|who| *who != Who::FloorKeeping).collect();
            let effort = Effort { rounds: (effort.rounds / 20).max(5), ..effort };
            let samples = operation(dir, &whos, &body, guarantee, true, true, effort);
            let title = format!(
                "{guarantee:?} replace by a stream of 512 MiB, {}",
                if computed { "computed on the way" } else { "copied only" }
            );
            let mut rows = Row::of_samples(&title, &whos, guarantee, &body, &samples);
            for (row, &who) in rows.iter_mut().zip(&whos) {
                if let Some(calls) = calls::count(dir, who, guarantee, true, body.len()) {
                    row.set_calls(&calls);
                }
                let path = dir.join("warm");
                fs::write(&path, "old").unwrap();
                who.write(&path, &body, guarantee, true).unwrap();
                let (cached, reread) = warmth(&path);
                (row.cached, row.reread) = (cached, Some(reread));
                fs::remove_file(&path).unwrap();
            }
            results.put(rows);
        }
    }
}

/// 10 million writes of 10 bytes.
pub fn pieces(dir: &Path, effort: Effort, results: &mut Results) {
    for guarantee in [Guarantee::Durable, Guarantee::Relaxed] {
        let body = Body::Pieces { piece: b"123456789\n".to_vec(), count: 10_000_000 };
        let whos: Vec<Who> = contenders(guarantee, &body, true)
            .into_iter()
            .filter(|who| !matches!(who, Who::FloorKeeping | Who::FloorRange | Who::FloorPlain))
            // Contenders with the level durable only do the same work again.
            .filter(|who| {
                guarantee == Guarantee::Durable || who.gives(guarantee, &body) != Some("durable")
            })
            .collect();
        // A bare file takes a hundred times as long: its rounds would use up the time limit.
        let (bare, buffered): (Vec<Who>, Vec<Who>) = whos.into_iter().partition(|who| {
            matches!(
                who,
                Who::Tempfile
                    | Who::AtomicWrites
                    | Who::AtomicWriteFile
                    | Who::AtomicWriteFileUnnamed
            )
        });
        let rounds = Effort { rounds: (effort.rounds / 3).max(9), ..effort };
        let mut samples = operation(dir, &buffered, &body, guarantee, true, true, rounds);
        samples.extend(operation(
            dir,
            &bare,
            &body,
            guarantee,
            true,
            true,
            Effort { rounds: 2, ..effort },
        ));
        let whos = [buffered, bare].concat();
        let title = format!("{guarantee:?} replace by 10 million writes of 10 bytes");
        results.put(Row::of_samples(&title, &whos, guarantee, &body, &samples));
    }
}

/// 1, 4 and 16 threads, each replacing a file of its own in one directory.
pub fn threads(dir: &Path, effort: Effort, results: &mut Results) {
    for guarantee in [Guarantee::Durable, Guarantee::Relaxed] {
        for threads in [1usize, 4, 16] {
            let body = Body::Whole(vec![b'x'; 4 << 10]);
            let whos: Vec<Who> = contenders(guarantee, &body, true)
                .into_iter()
                .filter(|who| *who != Who::FloorKeeping)
                .collect();
            let each = if guarantee == Guarantee::Relaxed { 64 } else { 4 };
            let paths: Vec<PathBuf> =
                (0..threads).map(|thread| dir.join(format!("thread-{thread}"))).collect();
            let directory = File::open(dir).unwrap();
            let mut entries: Vec<Entry> = whos
                .iter()
                .map(|&who| {
                    let (paths, body, directory) = (&paths, &body, &directory);
                    Entry {
                        name: who.name().to_string(),
                        prepare: Box::new(move || {
                            for path in paths {
                                fs::write(path, "old").unwrap();
                            }
                            rustix::fs::syncfs(directory).unwrap();
                        }),
                        run: Box::new(move || {
                            let barrier = Barrier::new(paths.len());
                            std::thread::scope(|scope| {
                                for path in paths {
                                    let barrier = &barrier;
                                    scope.spawn(move || {
                                        barrier.wait();
                                        for _ in 0..each {
                                            who.write(path, body, guarantee, true).unwrap();
                                        }
                                    });
                                }
                            });
                        }),
                    }
                })
                .collect();
            let effort = Effort { rounds: (effort.rounds / 5).max(5), ..effort };
            let mut samples = interleave(&mut entries, 2, effort.rounds, effort.limit);
            drop(entries);
            for sample in &mut samples {
                for seconds in &mut sample.seconds {
                    *seconds /= (threads * each) as f64;
                }
            }
            for path in &paths {
                fs::remove_file(path).unwrap();
            }
            let plural = if threads == 1 { "" } else { "s" };
            let title = format!(
                "{guarantee:?} replace of 4 KiB by {threads} thread{plural}, time per file"
            );
            results.put(Row::of_samples(&title, &whos, guarantee, &body, &samples));
        }
    }
}

/// The whole content is another file's.
pub fn copies(dir: &Path, effort: Effort, results: &mut Results) {
    const MIB: u64 = 512;
    let (source, path) = (dir.join("source"), dir.join("copied"));
    Who::FloorPlain
        .write(&source, &Body::Stream { len: MIB << 20, computed: true }, Guarantee::Durable, false)
        .unwrap();
    let directory = File::open(dir).unwrap();
    let ways: Vec<(&str, copy::Way)> = copy::ways()
        .into_iter()
        .filter(|(_, way)| way(&source, &dir.join("copied")).is_ok())
        .collect();
    let mut entries: Vec<Entry> = ways
        .iter()
        .map(|(name, way)| {
            let (source, path, directory) = (&source, &path, &directory);
            Entry {
                name: name.to_string(),
                prepare: Box::new(move || {
                    fs::remove_file(path).unwrap();
                    fs::write(path, "old").unwrap();
                    rustix::fs::syncfs(directory).unwrap();
                }),
                run: Box::new(move || way(source, path).unwrap()),
            }
        })
        .collect();
    let samples = interleave(&mut entries, 1, (effort.rounds / 20).max(5), effort.limit);
    drop(entries);
    fs::remove_file(source).unwrap();
    fs::remove_file(path).unwrap();
    let title = format!("Durable replace by a copy of a file of {MIB} MiB");
    let rows = samples
        .iter()
        .map(|sample| {
            let gives = if sample.name.contains("syncs nothing") { "relaxed" } else { "durable" };
            Row::of_sample(&title, &sample.name, gives, MIB << 20, sample)
        })
        .collect();
    results.put(rows);
}

/// A directory of 10 entries and one of 100,000, in the same rounds.
pub fn directories(dir: &Path, effort: Effort, results: &mut Results) {
    let (few, many) = (dir.join("few"), dir.join("many"));
    for (dir, count) in [(&few, 10), (&many, 100_000)] {
        fs::create_dir(dir).unwrap();
        for entry in 0..count {
            File::create(dir.join(format!("entry-{entry}"))).unwrap();
        }
    }
    let directory = File::open(dir).unwrap();
    rustix::fs::syncfs(&directory).unwrap();
    for guarantee in [Guarantee::Durable, Guarantee::Relaxed] {
        for replace in [true, false] {
            let body = Body::Whole(vec![b'x'; 4 << 10]);
            let whos: Vec<Who> = contenders(guarantee, &body, replace);
            let mut entries: Vec<Entry> = Vec::new();
            for &who in &whos {
                for dir in [&few, &many] {
                    entries.push(entry(
                        dir,
                        who,
                        &body,
                        guarantee,
                        replace,
                        guarantee != Guarantee::Relaxed,
                        &directory,
                    ));
                }
            }
            let rounds =
                if guarantee == Guarantee::Relaxed { effort.rounds * 3 } else { effort.rounds };
            let samples = interleave(&mut entries, 3, rounds, effort.limit);
            drop(entries);
            // Two samples for each contender: few entries, many entries.
            let (few, many): (Vec<_>, Vec<_>) =
                samples.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).unzip();
            for (entries, samples) in [("10", few), ("100,000", many)] {
                let situation = situation(replace);
                let title = format!("{guarantee:?} {situation} of 4 KiB, among {entries} entries");
                results.put(Row::of_samples(&title, &whos, guarantee, &body, &samples));
            }
        }
    }
    for dir in [few, many] {
        fs::remove_dir_all(dir).unwrap();
    }
}

fn situation(replace: bool) -> &'static str {
    if replace { "replace" } else { "create" }
}

fn contenders(guarantee: Guarantee, body: &Body, replace: bool) -> Vec<Who> {
    Who::ALL
        .into_iter()
        .filter(|who| who.gives(guarantee, body).is_some())
        .filter(|who| match who {
            Who::OursCreate => !replace,
            Who::FloorKeeping => replace,
            _ => true,
        })
        .collect()
}

fn operation(
    dir: &Path,
    whos: &[Who],
    body: &Body,
    guarantee: Guarantee,
    replace: bool,
    settle: bool,
    effort: Effort,
) -> Vec<Sample> {
    let directory = File::open(dir).unwrap();
    let mut entries: Vec<Entry> = whos
        .iter()
        .map(|&who| entry(dir, who, body, guarantee, replace, settle, &directory))
        .collect();
    let warm_up = if body.len() > 16 << 20 { 1 } else { 5 };
    let samples = interleave(&mut entries, warm_up, effort.rounds, effort.limit);
    drop(entries);
    rustix::fs::syncfs(&directory).unwrap();
    samples
}

/// Each contender writes to a path of its own; long files share one. `syncfs` before each run writes
/// the dirty pages of the contender before, so that the next one does not have to.
fn entry<'a>(
    dir: &Path,
    who: Who,
    body: &'a Body,
    guarantee: Guarantee,
    replace: bool,
    settle: bool,
    directory: &'a File,
) -> Entry<'a> {
    let big = body.len() > 16 << 20;
    // Room for one long file at a time.
    let path = dir.join(if big { "contender-long".into() } else { format!("contender-{who:?}") });
    let prepared = path.clone();
    Entry {
        name: who.name().to_string(),
        prepare: Box::new(move || {
            if big && prepared.exists() {
                fs::remove_file(&prepared).unwrap();
            }
            if replace {
                if !prepared.exists() {
                    fs::write(&prepared, "old").unwrap();
                }
            } else if prepared.exists() {
                fs::remove_file(&prepared).unwrap();
            }
            if settle {
                rustix::fs::syncfs(directory).unwrap();
            }
        }),
        run: Box::new(move || who.write(&path, body, guarantee, replace).unwrap()),
    }
}

/// Removes the contenders' files.
pub fn clean(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("contender-") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}
