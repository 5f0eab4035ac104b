//! Single operations beside their floors, with `criterion`'s statistics. `compare/` has the peers,
//! and whatever depends on what the others do meanwhile.
//!
//!     WRITE_ATOMICALLY_BENCH_DIR=/mnt/ext4 cargo bench --bench single

use std::path::PathBuf;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use write_atomically::{Durability, WriteOptions};

#[cfg(target_os = "linux")]
#[allow(dead_code)]
mod floor;

const LEVELS: [(&str, Durability); 3] = [
    ("durable", Durability::Durable),
    ("consistent", Durability::Consistent),
    ("relaxed", Durability::Relaxed),
];

fn directory() -> PathBuf {
    let parent = std::env::var_os("WRITE_ATOMICALLY_BENCH_DIR")
        .map_or(env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let directory = parent.join("write-atomically-single");
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// 4 KiB over a file that exists.
fn replace(criterion: &mut Criterion) {
    let (directory, contents) = (directory(), vec![b'x'; 4096]);
    let mut group = criterion.benchmark_group("replace 4 KiB");
    for (name, durability) in LEVELS {
        let path = directory.join("replaced");
        std::fs::write(&path, "old").unwrap();
        let options = WriteOptions::new().durability(durability);
        group.bench_function(format!("{name}, write-atomically"), |bencher| {
            bencher.iter(|| {
                options.write(&path, |w| std::io::Write::write_all(w, &contents)).unwrap()
            });
        });
        #[cfg(target_os = "linux")]
        group.bench_function(format!("{name}, floor"), |bencher| {
            let (body, guarantee) =
                (floor::body::Body::Whole(contents.clone()), guarantee(durability));
            bencher
                .iter(|| floor::replace(&path, &body, guarantee, floor::Parts::default()).unwrap());
        });
    }
    group.finish();
    std::fs::remove_dir_all(directory).unwrap();
}

/// 4 KiB under a new name.
fn create(criterion: &mut Criterion) {
    let (directory, contents) = (directory(), vec![b'x'; 4096]);
    let mut group = criterion.benchmark_group("create 4 KiB");
    for (name, durability) in LEVELS {
        let path = directory.join("created");
        let gone = || {
            let _ = std::fs::remove_file(&path);
        };
        let options = WriteOptions::new().durability(durability);
        group.bench_function(format!("{name}, write-atomically"), |bencher| {
            let write =
                |()| options.write(&path, |w| std::io::Write::write_all(w, &contents)).unwrap();
            bencher.iter_batched(gone, write, BatchSize::PerIteration);
        });
        #[cfg(target_os = "linux")]
        group.bench_function(format!("{name}, floor"), |bencher| {
            let (body, guarantee) =
                (floor::body::Body::Whole(contents.clone()), guarantee(durability));
            let write =
                |()| floor::create(&path, &body, guarantee, floor::Parts::default()).unwrap();
            bencher.iter_batched(gone, write, BatchSize::PerIteration);
        });
        gone();
    }
    group.finish();
    std::fs::remove_dir_all(directory).unwrap();
}

#[cfg(target_os = "linux")]
fn guarantee(durability: Durability) -> floor::Guarantee {
    match durability {
        Durability::Relaxed => floor::Guarantee::Relaxed,
        Durability::Consistent => floor::Guarantee::Consistent,
        _ => floor::Guarantee::Durable,
    }
}

criterion_group!(benches, replace, create);
criterion_main!(benches);
