//! Which buffer and which window of early writeback suit a long durable stream best, and how much
//! of the file stays in the page cache.

use crate::floor::body::compute_block;
use crate::floor::{Window, pin};
use crate::measure::{Entry, interleave, time};
use fs_err as fs;
use rustix::fs::{Advice, AtFlags, Mode, OFlags};
use std::fs::File;
use std::io::Write;
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq)]
enum Early {
    Nothing,
    /// `posix_fadvise(POSIX_FADV_DONTNEED)` on each window as it fills, in steps: the shorter the
    /// step, the less of it has been written, and so can be evicted, by the end of the call.
    Advise(u64, u64),
    /// `sync_file_range(SYNC_FILE_RANGE_WRITE)` on each window as it fills.
    Range(u64),
    /// The same, and wait for the window before.
    RangeBounded(u64),
    /// `fdatasync` every so many bytes.
    Sync(u64),
}

const MIB: u64 = 1 << 20;

pub fn run(dir: &Path, mib: u64, rounds: usize, compute: bool) {
    let variants = [
        ("plain, 8 KiB buffer", 8, Early::Nothing),
        ("plain, 64 KiB", 64, Early::Nothing),
        ("plain, 64 KiB, again (noise)", 64, Early::Nothing),
        ("plain, 128 KiB", 128, Early::Nothing),
        ("plain, 256 KiB", 256, Early::Nothing),
        ("plain, 1 MiB", 1024, Early::Nothing),
        ("DONTNEED 1 MiB, 256 KiB", 256, Early::Advise(MIB, MIB)),
        ("DONTNEED 2 MiB, 256 KiB", 256, Early::Advise(2 * MIB, 2 * MIB)),
        ("DONTNEED 4 MiB, 256 KiB", 256, Early::Advise(4 * MIB, 4 * MIB)),
        ("DONTNEED 8 MiB, 64 KiB", 64, Early::Advise(8 * MIB, 8 * MIB)),
        ("DONTNEED 8 MiB, 128 KiB", 128, Early::Advise(8 * MIB, 8 * MIB)),
        ("DONTNEED 8 MiB, 256 KiB", 256, Early::Advise(8 * MIB, 8 * MIB)),
        ("DONTNEED 8 MiB, 1 MiB", 1024, Early::Advise(8 * MIB, 8 * MIB)),
        ("DONTNEED 8 MiB in steps of 1 MiB, 256 KiB", 256, Early::Advise(8 * MIB, MIB)),
        ("DONTNEED 8 MiB in steps of 256 KiB, 256 KiB", 256, Early::Advise(8 * MIB, MIB / 4)),
        ("DONTNEED 32 MiB, 256 KiB", 256, Early::Advise(32 * MIB, 32 * MIB)),
        ("sync_file_range 1 MiB, 256 KiB", 256, Early::Range(MIB)),
        ("sync_file_range 8 MiB, 256 KiB", 256, Early::Range(8 * MIB)),
        ("sync_file_range 8 MiB, bounded, 256 KiB", 256, Early::RangeBounded(8 * MIB)),
        ("fdatasync every 32 MiB, 256 KiB", 256, Early::Sync(32 * MIB)),
    ];
    let directory = fs::File::open(dir).unwrap();
    let path = dir.join("windows");
    let final_sync = vec![std::cell::RefCell::new(Vec::new()); variants.len()];
    let mut entries: Vec<Entry> = variants
        .iter()
        .zip(&final_sync)
        .map(|(&(name, buffer, early), final_sync)| {
            let (path, directory) = (&path, &directory);
            Entry {
                name: name.to_string(),
                prepare: Box::new(move || {
                    let _ = fs::remove_file(path);
                    rustix::fs::syncfs(directory).unwrap();
                }),
                run: Box::new(move || {
                    final_sync.borrow_mut().push(stream(
                        path,
                        buffer << 10,
                        mib * MIB,
                        early,
                        compute,
                    ));
                }),
            }
        })
        .collect();
    let samples = interleave(&mut entries, 1, rounds, Duration::from_secs(420));
    drop(entries);
    println!(
        "\n{mib} MiB, durable, {}, {} rounds\n",
        if compute { "computed" } else { "copied" },
        samples[0].seconds.len()
    );
    println!(
        "| variant | median | quartiles | MiB/s | final sync | speed to plain 64 KiB | in page cache | re-read |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let base = samples[1].median();
    for (at, sample) in samples.iter().enumerate() {
        let mut syncs = final_sync[at].borrow().clone();
        syncs.sort_by(f64::total_cmp);
        let _ = fs::remove_file(&path);
        stream(&path, variants[at].1 << 10, mib * MIB, variants[at].2, compute);
        let (cached, reread) = warmth(&path);
        println!(
            "| {} | {} | {} – {} | {:.0} | {} | {:.2} | {} | {} |",
            sample.name,
            time(sample.median()),
            time(sample.quantile(0.25)),
            time(sample.quantile(0.75)),
            mib as f64 / sample.median(),
            time(syncs[syncs.len() / 2]),
            base / sample.median(),
            cached.map_or("–".into(), |cached| format!("{:.0} %", cached * 100.0)),
            time(reread)
        );
    }
    let _ = fs::remove_file(&path);
}

/// Writes `len` bytes durably under a new name; says how long the last sync took.
fn stream(path: &Path, buffer: usize, len: u64, early: Early, compute: bool) -> f64 {
    let (dir, name) = pin(path).unwrap();
    let file = rustix::fs::openat(
        &dir,
        ".",
        OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o666),
    )
    .unwrap();
    let mut file = File::from(file);
    let mut block = vec![0x5au8; buffer];
    let (mut written, mut begun) = (0, 0);
    let mut state = 1u64;
    while written < len {
        if compute {
            compute_block(&mut block, &mut state);
        } else {
            block[..8].copy_from_slice(&written.to_le_bytes());
        }
        file.write_all(&block).unwrap();
        written += buffer as u64;
        match early {
            Early::Nothing => {}
            Early::Advise(window, step) => {
                if written - begun >= window {
                    while begun < written {
                        rustix::fs::fadvise(&file, begun, NonZeroU64::new(step), Advice::DontNeed)
                            .unwrap();
                        begun += step;
                    }
                }
            }
            Early::Range(window) => {
                if written - begun >= window {
                    sync_file_range(&file, begun, written - begun, libc::SYNC_FILE_RANGE_WRITE);
                    begun = written;
                }
            }
            Early::RangeBounded(window) => {
                if written - begun >= window {
                    sync_file_range(&file, begun, written - begun, libc::SYNC_FILE_RANGE_WRITE);
                    if begun >= window {
                        sync_file_range(
                            &file,
                            begun - window,
                            window,
                            libc::SYNC_FILE_RANGE_WAIT_BEFORE
                                | libc::SYNC_FILE_RANGE_WRITE
                                | libc::SYNC_FILE_RANGE_WAIT_AFTER,
                        );
                    }
                    begun = written;
                }
            }
            Early::Sync(window) => {
                if written - begun >= window {
                    rustix::fs::fdatasync(&file).unwrap();
                    begun = written;
                }
            }
        }
    }
    let started = Instant::now();
    rustix::fs::fdatasync(&file).unwrap();
    let taken = started.elapsed().as_secs_f64();
    rustix::fs::linkat(&file, "", &dir, name, AtFlags::EMPTY_PATH).unwrap();
    rustix::fs::fsync(&dir).unwrap();
    taken
}

impl Window {
    /// Databases use it; it needs `unsafe`.
    pub fn range(bytes: u64) -> Self {
        Window {
            bytes,
            start: |file, offset, len| {
                sync_file_range(file, offset, len, libc::SYNC_FILE_RANGE_WRITE)
            },
        }
    }
}

fn sync_file_range(file: &File, offset: u64, len: u64, flags: u32) {
    // SAFETY: the call takes a descriptor and numbers, and accesses no memory of this process.
    let result =
        unsafe { libc::sync_file_range(file.as_raw_fd(), offset as i64, len as i64, flags) };
    assert_eq!(result, 0);
}

/// The share of the file in the page cache (`None` without `fincore`), and how long reading it takes.
pub fn warmth(path: &Path) -> (Option<f64>, f64) {
    let output = Command::new("fincore")
        .args(["--bytes", "--noheadings", "--output", "RES,SIZE"])
        .arg(path)
        .output();
    let cached = output.ok().and_then(|output| {
        let text = String::from_utf8(output.stdout).ok()?;
        let mut numbers = text.split_whitespace().map(str::parse::<f64>);
        Some(numbers.next()?.ok()? / numbers.next()?.ok()?)
    });
    let started = Instant::now();
    let mut file = fs::File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    while std::io::Read::read(&mut file, &mut buffer).unwrap() > 0 {}
    (cached, started.elapsed().as_secs_f64())
}
