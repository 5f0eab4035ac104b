//! The blocking functions, with and without a runtime around them.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rstest::rstest;
use write_atomically::Change;

use crate::operations::{PART, content, options};
use crate::store::Store;

/// Where the call comes from.
#[derive(Clone, Copy, Debug)]
enum Around {
    Nothing,
    /// A task of a runtime with one thread, which is blocked meanwhile.
    OneThread,
    ManyThreads,
    /// The context of a runtime that nobody runs.
    Entered,
}

fn call(around: Around, run: impl FnOnce() + Send + 'static) {
    use tokio::runtime::Builder;
    match around {
        Around::Nothing => run(),
        Around::OneThread => {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { tokio::spawn(async { run() }).await.unwrap() });
        }
        Around::ManyThreads => {
            let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
            runtime.block_on(async { tokio::spawn(async { run() }).await.unwrap() });
        }
        Around::Entered => {
            let runtime = Builder::new_current_thread().build().unwrap();
            let _inside = runtime.enter();
            run();
        }
    }
}

fn content_of(store: &Store, path: &str) -> Option<Vec<u8>> {
    futures_util::FutureExt::now_or_never(store.content(path)).expect("it does not wait")
}

#[rstest]
fn every_operation_does_the_same_wherever_it_is_called(
    #[values(Around::Nothing, Around::OneThread, Around::ManyThreads, Around::Entered)]
    around: Around,
    #[values(10, 6 * PART)] length: usize,
) {
    call(around, move || {
        let (store, bytes) = (Store::new(), content(length));
        store.be_slow();
        let (shared, options) = (store.shared(), options().parts_in_flight(2).blocking());
        options.write(&shared, &"a".into(), |w| w.write_all(&bytes)).unwrap();
        assert_eq!(content_of(&store, "a").as_ref(), Some(&bytes));
        options.create(&shared, &"b".into(), |w| w.write_all(&bytes)).unwrap();
        let again = options.create(&shared, &"b".into(), |w| w.write_all(&bytes)).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(options.write_if_missing(&shared, &"b".into(), |_| Ok(())).unwrap(), None);
        let same = options.write_if_changed(&shared, &"a".into(), |w| w.write_all(&bytes)).unwrap();
        assert_eq!(same, Change::Unchanged(()));
        options.write_path(&shared, &"c".into(), |staged| std::fs::write(staged, &bytes)).unwrap();
        assert_eq!(content_of(&store, "c").as_ref(), Some(&bytes));
        for expected in ["1", "2"] {
            options
                .update(&shared, &"counter".into(), |old, new| {
                    let mut text = String::new();
                    if let Some(old) = old {
                        old.read_to_string(&mut text)?;
                    }
                    write!(new, "{}", text.parse().unwrap_or(0) + 1)
                })
                .unwrap();
            assert_eq!(content_of(&store, "counter").unwrap(), expected.as_bytes());
        }
        let batch = options.write_batch(&shared, |batch| {
            batch.write(&"d".into(), |w| w.write_all(&bytes))?;
            batch.write(&"e".into(), |w| w.write_all(&bytes))
        });
        batch.unwrap();
        assert_eq!((content_of(&store, "e"), store.unfinished()), (Some(bytes), 0));
    });
}

#[rstest]
fn a_failed_or_panicking_closure_leaves_everything_as_it_was(
    #[values(Around::Nothing, Around::OneThread)] around: Around,
) {
    call(around, || {
        let (store, bytes) = (Store::new(), content(3 * PART));
        let (shared, options) = (store.shared(), options().blocking());
        let failed = options.write(&shared, &"a".into(), |w| {
            w.write_all(&bytes)?;
            Err::<(), _>(io::Error::other("no more rows"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more rows");
        let panics = || {
            options.write(&shared, &"a".into(), |w| {
                w.write_all(&bytes)?;
                if !bytes.is_empty() {
                    panic!("rows are gone");
                }
                Ok(())
            })
        };
        let panic = catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"rows are gone"));
        assert_eq!((content_of(&store, "a"), store.unfinished()), (None, 0));
    });
}

#[test]
fn the_closure_finds_the_runtime_that_it_was_called_from() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let id = runtime.handle().id();
    let _inside = runtime.enter();
    let store = Store::new().shared();
    options()
        .blocking()
        .write(&store, &"a".into(), |w| {
            assert_eq!(tokio::runtime::Handle::current().id(), id);
            w.write_all(b"x")
        })
        .unwrap();
}
