//! How long 2,000 files of 4 KiB take: one by one, as a batch, and without any promise. Prints a row
//! of a Markdown table for each directory given:
//!
//! ```text
//! cargo bench --bench batch -- DIRECTORY…
//! ```

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use write_atomically::{Durability, WriteOptions};

const CONTENT: [u8; 4096] = [7; 4096];

type Way = (&'static str, fn(&Path, usize) -> io::Result<()>);

const WAYS: [Way; 6] = [
    ("`fs::write`", plain),
    ("durable, one by one", one_by_one),
    ("durable batch, by hand", by_hand),
    ("durable batch", durable_batch),
    ("relaxed batch", relaxed_batch),
    ("durable directory", directory),
];

fn paths(directory: &Path, files: usize) -> impl Iterator<Item = PathBuf> {
    let directory = directory.to_owned();
    (0..files).map(move |n| directory.join(format!("{n:05}.bin")))
}

fn plain(directory: &Path, files: usize) -> io::Result<()> {
    paths(directory, files).try_for_each(|path| fs::write(path, CONTENT))
}

fn one_by_one(directory: &Path, files: usize) -> io::Result<()> {
    paths(directory, files).try_for_each(|path| write_atomically::write(path, CONTENT))
}

fn batch(directory: &Path, files: usize, durability: Durability) -> io::Result<()> {
    WriteOptions::new().durability(durability).write_batch(|batch| {
        paths(directory, files).try_for_each(|path| batch.write(path, |w| w.write_all(&CONTENT)))
    })
}

/// The fewest system calls that give a batch's guarantee to files of one directory: nothing is looked
/// at, nothing kept, no error cleaned up after.
fn by_hand(directory: &Path, files: usize) -> io::Result<()> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty())
    };
    let directory = open(directory)?;
    rustix::fs::mkdirat(&directory, ".staged", Mode::RWXU)?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let staged = rustix::fs::openat(&directory, ".staged", flags, Mode::empty())?;
    let name = |n: usize| format!("{n:05}.bin");
    for n in 0..files {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&staged, name(n), flags, Mode::from_raw_mode(0o666))?;
        fs::File::from(file).write_all(&CONTENT)?;
    }
    rustix::fs::syncfs(&staged)?;
    for n in 0..files {
        rustix::fs::renameat(&staged, name(n), &directory, name(n))?;
    }
    rustix::fs::fsync(&directory)?;
    Ok(rustix::fs::unlinkat(&directory, ".staged", AtFlags::REMOVEDIR)?)
}

fn durable_batch(directory: &Path, files: usize) -> io::Result<()> {
    batch(directory, files, Durability::Durable)
}

fn relaxed_batch(directory: &Path, files: usize) -> io::Result<()> {
    batch(directory, files, Durability::Relaxed)
}

fn directory(directory: &Path, files: usize) -> io::Result<()> {
    WriteOptions::new().write_dir(directory, |staged| plain(staged, files))
}

fn main() -> io::Result<()> {
    let mut files = 2000;
    let mut rounds = 5;
    let mut directories = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse().ok()).expect("a number");
        match argument.as_str() {
            "--files" => files = number(),
            "--rounds" => rounds = number(),
            // What cargo adds.
            "--bench" => {}
            _ => directories.push(PathBuf::from(argument)),
        }
    }
    if directories.is_empty() {
        println!("usage: batch [--files N] [--rounds N] DIRECTORY…");
        return Ok(());
    }
    println!("Median of {rounds} rounds, interleaved, {files} files of 4 KiB each, in ms:\n");
    println!("| directory | files | {} |", WAYS.map(|(name, _)| name).join(" | "));
    println!("|---|---|{}", "---:|".repeat(WAYS.len()));
    for directory in directories {
        for new in [true, false] {
            let times = measure(&directory, files, rounds, new)?;
            let cells = times.map(|time| format!("{:.1}", time.as_secs_f64() * 1e3)).join(" | ");
            let kind = if new { "new" } else { "replaced" };
            println!("| {} | {kind} | {cells} |", directory.display());
        }
    }
    Ok(())
}

fn measure(
    directory: &Path,
    files: usize,
    rounds: usize,
    new: bool,
) -> io::Result<[Duration; WAYS.len()]> {
    let mut times = WAYS.map(|_| Vec::new());
    for _ in 0..rounds {
        for (index, (_, way)) in WAYS.iter().enumerate() {
            let at = directory.join(format!("bench-{}", std::process::id()));
            fs::create_dir(&at)?;
            if !new {
                plain(&at, files)?;
            }
            // What is not part of it is not to be waited for in it.
            rustix::fs::syncfs(fs::File::open(&at)?)?;
            let start = Instant::now();
            way(&at, files)?;
            times[index].push(start.elapsed());
            fs::remove_dir_all(&at)?;
        }
    }
    Ok(times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    }))
}
