//! 2,000 files of 4 KiB: one by one, as a batch, as a directory, and without any guarantee.

use crate::floor::pin;
use crate::measure::{Entry, interleave};
use crate::operations::Effort;
use crate::results::{Results, Row};
use fs_err as fs;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
#[cfg(feature = "ours")]
use write_atomically::{Durability, WriteOptions};

const FILES: usize = 2000;
const CONTENT: [u8; 4096] = [7; 4096];

/// The name, the guarantee, and the function that writes all files into a directory.
type Way = (&'static str, &'static str, fn(&Path) -> io::Result<()>);

const WAYS: &[Way] = &[
    ("Floor", "durable", by_hand),
    ("FloorAgain", "durable", by_hand),
    #[cfg(feature = "ours")]
    ("Ours", "durable", |directory| batch(directory, Durability::Durable)),
    #[cfg(feature = "ours")]
    ("durable, one by one", "durable", |directory| {
        paths(directory).try_for_each(|path| write_atomically::write(path, CONTENT))
    }),
    #[cfg(feature = "ours")]
    ("relaxed batch", "relaxed", |directory| batch(directory, Durability::Relaxed)),
    #[cfg(feature = "ours")]
    ("durable directory", "durable", |directory| WriteOptions::new().write_dir(directory, plain)),
    ("FsWrite", "nothing", plain),
];

pub fn run(dir: &Path, effort: Effort, results: &mut Results) {
    for (kind, replace) in [("new", false), ("replaced", true)] {
        let at = dir.join("contender-batch");
        let mut entries: Vec<Entry> = WAYS
            .iter()
            .map(|(name, _, way)| {
                let (prepared, at) = (at.clone(), at.clone());
                Entry {
                    name: name.to_string(),
                    prepare: Box::new(move || {
                        if prepared.exists() {
                            fs::remove_dir_all(&prepared).unwrap();
                        }
                        fs::create_dir(&prepared).unwrap();
                        if replace {
                            plain(&prepared).unwrap();
                        }
                        // The syncs of the next contender must not write this.
                        rustix::fs::syncfs(fs::File::open(&prepared).unwrap()).unwrap();
                    }),
                    run: Box::new(move || way(&at).unwrap()),
                }
            })
            .collect();
        let rounds = (effort.rounds / 40).max(5);
        let samples = interleave(&mut entries, 1, rounds, effort.limit);
        drop(entries);
        fs::remove_dir_all(&at).unwrap();
        let title = format!("Durable batch of 2,000 {kind} files of 4 KiB");
        let bytes = (FILES * CONTENT.len()) as u64;
        let rows = WAYS
            .iter()
            .zip(&samples)
            .map(|((name, gives, _), sample)| Row::of_sample(&title, name, gives, bytes, sample))
            .collect();
        results.put(rows);
    }
}

fn name(n: usize) -> String {
    format!("{n:05}.bin")
}

fn paths(directory: &Path) -> impl Iterator<Item = PathBuf> {
    (0..FILES).map(move |n| directory.join(name(n)))
}

/// `std`'s own function, because its time is what is compared.
fn plain(directory: &Path) -> io::Result<()> {
    paths(directory).try_for_each(|path| std::fs::write(path, CONTENT))
}

#[cfg(feature = "ours")]
fn batch(directory: &Path, durability: Durability) -> io::Result<()> {
    WriteOptions::new().durability(durability).write_batch(|batch| {
        paths(directory).try_for_each(|path| batch.write(path, |w| w.write_all(&CONTENT)))
    })
}

/// The fewest system calls that give a batch's guarantee to files of one directory. It handles no
/// error, keeps no metadata and follows no links.
fn by_hand(directory: &Path) -> io::Result<()> {
    let (directory, _) = pin(&directory.join("any"))?;
    rustix::fs::mkdirat(&directory, ".staged", Mode::RWXU)?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let staged = rustix::fs::openat(&directory, ".staged", flags, Mode::empty())?;
    for n in 0..FILES {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&staged, name(n), flags, Mode::from_raw_mode(0o666))?;
        std::fs::File::from(file).write_all(&CONTENT)?;
    }
    rustix::fs::syncfs(&staged)?;
    for n in 0..FILES {
        rustix::fs::renameat(&staged, name(n), &directory, name(n))?;
    }
    rustix::fs::fsync(&directory)?;
    Ok(rustix::fs::unlinkat(&directory, ".staged", AtFlags::REMOVEDIR)?)
}
