//! Single operations and a batch, with `criterion`'s statistics: did a change make this crate slower?
//! `compare/` measures it beside other crates and beside the fewest system calls.
//!
//!     WRITE_ATOMICALLY_BENCH_DIR=/mnt/ext4 cargo bench

use std::io::Write;
use std::path::PathBuf;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use fs_err as fs;
use write_atomically::{Durability, WriteOptions};

const CONTENT: [u8; 4096] = [b'x'; 4096];
const FILES: usize = 100;
const LEVELS: [(&str, Durability); 3] = [
    ("durable", Durability::Durable),
    ("consistent", Durability::Consistent),
    ("relaxed", Durability::Relaxed),
];

fn directory() -> PathBuf {
    let parent = std::env::var_os("WRITE_ATOMICALLY_BENCH_DIR")
        .map_or(env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let directory = parent.join("write-atomically-single");
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn replace(criterion: &mut Criterion) {
    let directory = directory();
    let path = directory.join("replaced");
    fs::write(&path, "old").unwrap();
    let mut group = criterion.benchmark_group("replace 4 KiB");
    for (name, durability) in LEVELS {
        let options = WriteOptions::new().durability(durability);
        group.bench_function(name, |bencher| {
            bencher.iter(|| options.write(&path, |w| w.write_all(&CONTENT)).unwrap());
        });
    }
    group.finish();
    fs::remove_dir_all(directory).unwrap();
}

fn create(criterion: &mut Criterion) {
    let directory = directory();
    let path = directory.join("created");
    let mut group = criterion.benchmark_group("create 4 KiB");
    for (name, durability) in LEVELS {
        let options = WriteOptions::new().durability(durability);
        group.bench_function(name, |bencher| {
            let remove = || {
                if path.exists() {
                    fs::remove_file(&path).unwrap();
                }
            };
            let write = |()| options.write(&path, |w| w.write_all(&CONTENT)).unwrap();
            bencher.iter_batched(remove, write, BatchSize::PerIteration);
        });
    }
    group.finish();
    fs::remove_dir_all(directory).unwrap();
}

fn batch(criterion: &mut Criterion) {
    let directory = directory();
    let paths: Vec<PathBuf> = (0..FILES).map(|n| directory.join(format!("{n}"))).collect();
    let mut group = criterion.benchmark_group(format!("replace {FILES} files of 4 KiB"));
    for (name, durability) in LEVELS {
        let options = WriteOptions::new().durability(durability);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let all = options.write_batch(|batch| {
                    paths.iter().try_for_each(|path| batch.write(path, |w| w.write_all(&CONTENT)))
                });
                all.unwrap();
            });
        });
    }
    group.finish();
    fs::remove_dir_all(directory).unwrap();
}

criterion_group!(benches, replace, create, batch);
criterion_main!(benches);
