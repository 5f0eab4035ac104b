//! What each part of the protocol costs: the floors, with one call more a row.

use crate::floor::body::Body;
use crate::floor::{self, Guarantee, Parts};
use crate::measure::{Entry, interleave, time};
use fs_err as fs;
use std::path::Path;
use std::time::Duration;

/// The parts that a new name can have, too.
const IN_CREATE: [&str; 5] =
    ["unnamed", "named", "AT_EMPTY_PATH", "before it is written", "+ fsync"];

pub fn run(dir: &Path, rounds: usize) {
    let body = Body::Whole(vec![b'x'; 4096]);
    let none = Parts::default();
    let variants: &[(&str, Parts)] = &[
        ("named: O_EXCL, renameat", Parts { named: true, ..none }),
        ("named + flock", Parts { named: true, flock: true, ..none }),
        ("unnamed: O_TMPFILE, linkat, renameat", none),
        ("unnamed, again (noise)", none),
        ("+ /proc/self/fd instead of AT_EMPTY_PATH", Parts { proc_link: true, ..none }),
        ("+ flock", Parts { flock: true, ..none }),
        ("+ fstat of the staged file before it is written", Parts { fstat: true, ..none }),
        ("+ statx of its inode number only", Parts { statx_inode: true, ..none }),
        ("+ statx of the destination, fchmod", Parts { mode: true, ..none }),
        ("+ faccessat of the destination", Parts { access: true, ..none }),
        ("+ llistxattr of the destination", Parts { xattr: true, ..none }),
        ("+ llistxattr by way of /proc/self/fd", Parts { proc_xattr: true, ..none }),
        ("+ openat, flistxattr, close of the destination", Parts { open_xattr: true, ..none }),
        (
            "+ statx of the destination, fchmod, fstat of the written file",
            Parts { mode: true, fstat_after: true, ..none },
        ),
        (
            "+ statx of the destination, fchmod, fremovexattr of an ACL that isn't there",
            Parts { mode: true, remove_acl: true, ..none },
        ),
        (
            "+ statx of the destination, fchmod, fgetxattr of an ACL that isn't there",
            Parts { mode: true, get_acl: true, ..none },
        ),
        ("+ fsync, not fdatasync", Parts { fsync: true, ..none }),
        ("+ a second fdatasync once linked", Parts { sync_again: true, ..none }),
        (
            "+ all of flock, statx, fchmod, faccessat, llistxattr",
            Parts { flock: true, mode: true, access: true, xattr: true, ..none },
        ),
    ];
    for guarantee in Guarantee::ALL {
        for replace in [true, false] {
            let directory = fs::File::open(dir).unwrap();
            let mut entries: Vec<Entry> = variants
                .iter()
                .enumerate()
                .filter(|(_, (name, _))| {
                    replace || IN_CREATE.iter().any(|part| name.contains(part))
                })
                .map(|(at, (name, parts))| {
                    let path = dir.join(format!("parts-{at}"));
                    let (prepared, body, directory) = (path.clone(), &body, &directory);
                    Entry {
                        name: name.to_string(),
                        prepare: Box::new(move || {
                            if replace {
                                if !prepared.exists() {
                                    fs::write(&prepared, b"old").unwrap();
                                }
                            } else {
                                let _ = fs::remove_file(&prepared);
                            }
                            if guarantee != Guarantee::Relaxed {
                                rustix::fs::syncfs(directory).unwrap();
                            }
                        }),
                        run: Box::new(move || {
                            if replace {
                                floor::replace(&path, body, guarantee, *parts).unwrap()
                            } else {
                                floor::create(&path, body, guarantee, *parts).unwrap()
                            }
                        }),
                    }
                })
                .collect();
            let rounds = if guarantee == Guarantee::Relaxed { rounds * 5 } else { rounds };
            let samples = interleave(&mut entries, 10, rounds, Duration::from_secs(120));
            println!(
                "\n{guarantee:?} {}, 4 KiB, {} rounds\n",
                if replace { "replace" } else { "create" },
                samples[0].seconds.len()
            );
            println!("| variant | median | quartiles | to unnamed |\n| --- | ---: | ---: | ---: |");
            let base = samples.iter().find(|s| s.name.starts_with("unnamed:")).unwrap().median();
            for sample in &samples {
                println!(
                    "| {} | {} | {} – {} | {:.3} |",
                    sample.name,
                    time(sample.median()),
                    time(sample.quantile(0.25)),
                    time(sample.quantile(0.75)),
                    sample.median() / base
                );
            }
        }
        for entry in fs::read_dir(dir).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("parts-") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}
