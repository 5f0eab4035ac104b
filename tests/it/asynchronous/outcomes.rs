//! Promises 1, 2 and 5: `Ok` publishes, an error and a panic leave everything as it was, at once.

use std::io;
use std::panic::{self, AssertUnwindSafe};

use ::tokio::io::AsyncWriteExt;
use fs_err as fs;
use rstest::rstest;
use write_atomically::tokio::{write, write_if_changed};
use write_atomically::{Change, Error, Step, WriteOptions};

use super::{CASES, content, relaxed, runtime};
use crate::support::{assert_state, prepare, read};

#[rstest]
fn ok_publishes(
    #[values("one thread", "threads")] flavour: &str,
    #[values(1, 512)] pool: usize,
    #[values(None, Some(0), Some(1000))] capacity: Option<usize>,
) {
    for case in CASES {
        let directory = case.prepare();
        let options = match capacity {
            Some(capacity) => WriteOptions::new().buffer_capacity(capacity),
            None => WriteOptions::new(),
        };
        let options = options.tokio();
        let path = directory.join("file");
        let call = case.call(&options, &path, async || {
            case.assert_destination_is_old(&directory);
            Ok(())
        });
        runtime(flavour, pool).block_on(call).unwrap();
        case.assert_state(&directory, Some(&content()));
    }
}

impl super::Case {
    #[track_caller]
    fn assert_destination_is_old(self, directory: &crate::support::Directory) {
        let path = directory.join(if self.is_directory() { "file/content" } else { "file" });
        assert_eq!(fs::read_to_string(path).ok().as_deref(), self.old);
    }
}

#[rstest]
fn a_failure_leaves_everything_as_it_was_when_the_call_returns(
    #[values("one thread", "threads")] flavour: &str,
    #[values(1, 512)] pool: usize,
    #[values("error", "panic")] failure: &str,
) {
    for case in CASES {
        let directory = case.prepare();
        let runtime = runtime(flavour, pool);
        let options = relaxed().tokio();
        let path = directory.join("file");
        let call = case.call(&options, &path, async || match failure {
            "error" => Err(io::Error::other("no more rows")),
            _ => panic::resume_unwind(Box::new("a bug")),
        });
        let result = panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(call)));
        case.assert_state(&directory, case.old);
        crate::support::assert_failed(result);
        // No lock is left.
        let again = options.clone();
        let call = case.call(&again, &path, async || Ok(()));
        runtime.block_on(call).unwrap();
        case.assert_state(&directory, Some(&content()));
    }
}

#[test]
fn what_is_there_is_neither_replaced_nor_touched() {
    let directory = prepare("here", Some("old"));
    let path = directory.join("file");
    let never = async |_: &mut write_atomically::tokio::Writer| -> io::Result<()> {
        panic!("the closure ran")
    };
    runtime("threads", 1).block_on(async {
        let options = WriteOptions::new().tokio();
        let error = options.create(&path, never).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(options.write_if_missing(&path, never).await.unwrap(), None);
        let same = write_if_changed(&path, async |w| Ok(w.write_all(b"old").await?)).await;
        assert_eq!(same.unwrap(), Change::Unchanged(()));
        let other = options.update(&path, async |_, w| {
            fs::write(directory.join("theirs"), "theirs")?;
            fs::rename(directory.join("theirs"), &path)?;
            w.write_all(b"ours").await
        });
        assert_eq!(other.await.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    });
    assert_state(&directory, Some("theirs"));
}

#[rstest]
fn a_slice_is_written_whole(
    #[values(0, 1, 65_536, 262_144, 262_145, 20 << 20)] size: usize,
    #[values("one thread", "threads")] flavour: &str,
) {
    let directory = prepare("here", Some("old"));
    let content: Vec<u8> = (0..size).map(|n| (n / 7) as u8).collect();
    runtime(flavour, 1).block_on(write(directory.join("file"), &content)).unwrap();
    assert!(fs::read(directory.join("file")).unwrap() == content);
    assert_eq!(directory.listing(), ["file", "neighbour"]);
}

#[test]
fn errors_before_the_closure_are_those_of_the_library() {
    let directory = prepare("here", None);
    let missing = directory.join("missing/file");
    runtime("one thread", 1).block_on(async {
        for case in CASES {
            let options = WriteOptions::new().tokio();
            let called = case.call(&options, &missing, async || panic!("the closure ran"));
            let error = called.await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{case:?}");
            assert_eq!(Error::find(&error).unwrap().path(), missing);
        }
        let error = write(&missing, "x").await.unwrap_err();
        assert_eq!(Error::find(&error).unwrap().step(), Step::Resolve);
    });
    assert_state(&directory, None);
}

#[rstest]
fn content_that_is_not_published_is_kept(#[values("error", "panic", "publishing")] failure: &str) {
    for case in CASES {
        if case.is_directory() {
            continue;
        }
        let directory = case.prepare();
        let kept = directory.join("kept");
        let options = relaxed().keep_failed(&kept).tokio();
        let path = directory.join("file");
        let call = case.call(&options, &path, async || match failure {
            "error" => Err(io::Error::other("no more rows")),
            "panic" => panic::resume_unwind(Box::new("a bug")),
            _ => {
                let _ = fs::remove_file(&path);
                Ok(fs::create_dir(&path)?)
            }
        });
        let result = panic::catch_unwind(AssertUnwindSafe(|| runtime("threads", 1).block_on(call)));
        let is_kept = match (failure, case.operation) {
            // The batch's files belong to the batch; what others have created is left alone.
            ("publishing", "batch" | "create" | "if missing" | "path if missing") => false,
            ("publishing", "update") if case.old.is_none() => false,
            _ => {
                assert!(!matches!(result, Ok(Ok(()))), "{case:?}");
                true
            }
        };
        assert_eq!(kept.exists(), is_kept, "{case:?}");
        if is_kept {
            let kept = read(&kept);
            assert!(content().starts_with(&kept) && kept.len() >= 1000, "{case:?}");
            assert!(failure != "publishing" || kept == content(), "{case:?}");
        }
    }
}
