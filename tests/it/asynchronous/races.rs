//! Promises 1 and 8: a thousand tasks write one file, and readers never see a part.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use ::tokio::io::AsyncWriteExt;
use ::tokio::task::JoinSet;
use fs_err as fs;
use rstest::rstest;

use super::{relaxed, runtime};
use crate::support::Directory;

fn content(n: usize) -> Vec<u8> {
    vec![b'a' + (n % 26) as u8; 1000 + n * 200]
}

/// One letter, as often as its writer has written it.
fn is_whole(content: &[u8]) -> bool {
    let first = content.first().copied();
    let number = content.len().wrapping_sub(1000) / 200;
    content.iter().all(|byte| Some(*byte) == first) && *content == *self::content(number)
}

#[rstest]
fn readers_of_a_thousand_writers_see_whole_files(
    #[values("one thread", "threads")] flavour: &str,
    #[values(2, 512)] pool: usize,
) {
    let directory = Directory::new();
    let path = directory.file("file", content(0));
    let (done, seen) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let reader = || {
            while !done.load(Ordering::Relaxed) {
                assert!(is_whole(&fs::read(&path).unwrap()), "a part");
                seen.fetch_add(1, Ordering::Relaxed);
            }
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        runtime(flavour, pool).block_on(async {
            let mut tasks = JoinSet::new();
            for n in 0..1000 {
                let path = path.clone();
                tasks.spawn(async move {
                    let options = relaxed().tokio();
                    let written = options.write(&path, async |w| {
                        for part in content(n).chunks(9_999) {
                            w.write_all(part).await?;
                        }
                        Ok(())
                    });
                    written.await.unwrap();
                });
            }
            tasks.join_all().await;
        });
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert!(is_whole(&fs::read(&path).unwrap()));
    assert!(seen.into_inner() > 0);
    assert_eq!(directory.listing(), ["file"]);
}
