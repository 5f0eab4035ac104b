//! What each operation does when nothing fails but its closure.

use std::io;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use object_store::path::Path;
use object_store::{Attribute, Attributes};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use write_atomically::object_store::{
    ObjectOptions, create_atomically, write, write_atomically, write_batch, write_if_missing,
};
use write_atomically::{Change, Error, Hint, Outcome, Step};

use crate::store::{Request, Store};

/// The smallest part, and so the largest output that is one PUT.
pub const PART: usize = 5 << 20;

pub fn options() -> ObjectOptions {
    ObjectOptions::new().part_size(PART)
}

/// Bytes of which no two pieces are alike.
pub fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    for (n, piece) in bytes.chunks_mut(64).enumerate() {
        piece[0] = n as u8;
        piece[piece.len() / 2] = (n >> 8) as u8;
        piece[piece.len() - 1] ^= (n >> 16) as u8;
    }
    bytes
}

/// In closures that must not run.
pub fn never(why: &str) -> io::Result<()> {
    unreachable!("{why}")
}

/// Lengths on both sides of every limit.
const LENGTHS: [usize; 6] = [0, 1, PART, PART + 1, 2 * PART, 3 * PART + 7];

#[tokio::test]
async fn any_length_is_written_whole() {
    for length in LENGTHS {
        let store = Store::new();
        let bytes = content(length);
        options()
            .write(&store.shared(), &"a/b".into(), async |w| w.write_all(&bytes).await)
            .await
            .unwrap();
        assert_eq!(store.content("a/b").await, Some(bytes), "{length}");
        assert_eq!((store.unfinished(), store.listing().await), (0, vec!["a/b".to_owned()]));
    }
}

#[tokio::test]
async fn a_small_output_is_one_put_and_a_look_before() {
    let store = Store::new();
    store.put_old("a", "old").await;
    options()
        .write(&store.shared(), &"a".into(), async |w| w.write_all(&content(PART)).await)
        .await
        .unwrap();
    assert_eq!(store.requests(), [Request::Get, Request::Put]);
    write(&store.shared(), &"b".into(), "x").await.unwrap();
    assert_eq!(store.requests()[2..], [Request::Put]);
}

#[tokio::test]
async fn nothing_is_visible_while_the_closure_runs() {
    let store = Store::new();
    store.put_old("a", "old").await;
    options()
        .write(&store.shared(), &"a".into(), async |w| {
            w.write_all(&content(3 * PART)).await?;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            assert!(store.requests().contains(&Request::Part), "parts go up while it runs");
            assert_eq!(store.content("a").await.unwrap(), b"old");
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(store.content("a").await.unwrap(), content(3 * PART));
}

#[tokio::test]
async fn no_more_parts_are_in_flight_than_allowed() {
    let store = Store::new();
    store.be_slow();
    let options = options().parts_in_flight(2);
    let bytes = content(9 * PART);
    options.write(&store.shared(), &"a".into(), async |w| w.write_all(&bytes).await).await.unwrap();
    assert_eq!(store.most_parts_in_flight(), 2);
    assert_eq!(store.content("a").await, Some(bytes));
}

#[rstest]
#[case::small(10)]
#[case::large(3 * PART)]
#[tokio::test]
async fn a_failed_or_panicking_closure_leaves_everything_as_it_was(#[case] length: usize) {
    let store = Store::new();
    store.put_old("a", "old").await;
    let bytes = content(length);
    let failed: anyhow::Result<()> = write_atomically(&store.shared(), &"a".into(), async |w| {
        w.write_all(&bytes).await?;
        anyhow::bail!("no more rows")
    })
    .await;
    let error = failed.unwrap_err();
    assert_eq!(error.to_string(), "no more rows");
    assert_eq!(store.unfinished(), 0, "aborted before the function returned");

    let shared = store.shared();
    let path = Path::from("a");
    let options = options();
    let panics = options.write(&shared, &path, async |w| {
        w.write_all(&bytes).await?;
        if length > 0 {
            panic!("rows are gone");
        }
        Ok(())
    });
    let panic = AssertUnwindSafe(panics).catch_unwind().await.unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"rows are gone"));
    assert_eq!((store.unfinished(), store.listing().await), (0, vec!["a".to_owned()]));
    assert_eq!(store.content("a").await.unwrap(), b"old");
}

#[rstest]
#[case::small(10)]
#[case::large(2 * PART)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_32_that_create_one_wins(#[case] length: usize) {
    let store = Store::new();
    store.be_slow();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..32_u8 {
        let store = store.shared();
        tasks.spawn(async move {
            let bytes = vec![n; length];
            let created =
                options().create(&store, &"a".into(), async |w| w.write_all(&bytes).await).await;
            (n, created)
        });
    }
    let results = tasks.join_all().await;
    let winners: Vec<u8> = results.iter().filter(|(_, r)| r.is_ok()).map(|(n, _)| *n).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    for (_, result) in &results {
        assert!(
            result.as_ref().err().is_none_or(|e| e.kind() == io::ErrorKind::AlreadyExists),
            "{result:?}"
        );
    }
    assert_eq!(store.content("a").await, Some(vec![winners[0]; length]));
    assert_eq!((store.unfinished(), store.listing().await), (0, vec!["a".to_owned()]));
}

#[tokio::test]
async fn an_object_that_exists_is_told_before_the_closure_runs() {
    let store = Store::new();
    store.put_old("a", "old").await;
    let error = create_atomically(&store.shared(), &"a".into(), async |_| -> anyhow::Result<()> {
        unreachable!("the object exists")
    })
    .await
    .unwrap_err();
    let error = Error::find(error.as_ref()).unwrap();
    assert_eq!((error.step(), error.kind()), (Step::Resolve, io::ErrorKind::AlreadyExists));
    assert_eq!(
        error.to_string(),
        "`memory:///a` is unchanged: failed to resolve the path: the object exists"
    );
    let none = write_if_missing(&store.shared(), &"a".into(), async |_| Ok(())).await.unwrap();
    assert_eq!(none, None);
    assert_eq!(store.content("a").await.unwrap(), b"old");
}

#[rstest]
#[case::small(10)]
#[case::large(2 * PART + 1)]
#[tokio::test]
async fn what_does_not_change_is_not_touched(#[case] length: usize) {
    let store = Store::new();
    let mut bytes = content(length);
    for (change, expected) in [(0, true), (0, false), (length - 1, true), (length - 1, false)] {
        if expected {
            bytes[change] ^= 1;
        }
        let options = options();
        let change = options
            .write_if_changed(&store.shared(), &"a".into(), async |w| w.write_all(&bytes).await)
            .await
            .unwrap();
        assert_eq!(matches!(change, Change::Written(())), expected);
        assert_eq!(store.content("a").await.as_ref(), Some(&bytes));
        assert_eq!(store.unfinished(), 0);
    }
    let shorter = &bytes[..length - 1];
    let change = options()
        .write_if_changed(&store.shared(), &"a".into(), async |w| w.write_all(shorter).await)
        .await
        .unwrap();
    assert_eq!(change, Change::Written(()));
    assert_eq!(store.content("a").await.unwrap(), shorter);
}

pub async fn increment(
    store: &std::sync::Arc<dyn object_store::ObjectStore>,
    path: &Path,
    options: &ObjectOptions,
) {
    options
        .update(store, path, async |old, new| {
            let mut text = String::new();
            if let Some(old) = old {
                old.read_to_string(&mut text).await?;
            }
            let count: u32 = text.parse().unwrap_or(0);
            new.write_all((count + 1).to_string().as_bytes()).await
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_update_is_lost() {
    let store = Store::new();
    store.be_slow();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = store.shared();
        tasks.spawn(async move {
            let options = options().update_retries(1000);
            for _ in 0..25 {
                increment(&store, &"counter".into(), &options).await;
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(store.content("counter").await.unwrap(), b"200");
}

#[tokio::test]
async fn an_update_gives_up_after_its_retries() {
    let store = Store::new();
    store.put_old("a", "old").await;
    let mut runs = 0;
    let error = options()
        .update_retries(3)
        .update(&store.shared(), &"a".into(), async |_, w| {
            runs += 1;
            store.put_old("a", &format!("theirs {runs}")).await;
            w.write_all(b"ours").await
        })
        .await
        .unwrap_err();
    assert_eq!((runs, error.kind()), (4, io::ErrorKind::ResourceBusy));
    assert_eq!(store.content("a").await.unwrap(), b"theirs 4");
}

#[tokio::test]
async fn a_large_update_without_conditional_completes_is_refused_before_anything_goes_up() {
    let store = Store::new();
    store.put_old("a", "old").await;
    let large = content(2 * PART);
    let write = async |_: Option<&mut _>, w: &mut write_atomically::object_store::Writer| {
        w.write_all(&large).await
    };
    let error = options().update(&store.shared(), &"a".into(), write).await.unwrap_err();
    let error = Error::find(&error).unwrap();
    assert_eq!((error.kind(), error.outcome()), (io::ErrorKind::Unsupported, Outcome::Unchanged));
    assert_eq!(error.hint(), Some(Hint::NoConditionalUpload));
    assert!(!store.requests().contains(&Request::Begin));

    let announced = options().expected_size(large.len() as u64);
    let error = announced
        .update(&store.shared(), &"a".into(), async |_, _| never("refused"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_found_out_before_the_closure_runs() {
    for exists in [false, true] {
        let store = Store::new();
        store.ignore_conditions();
        if exists {
            store.put_old("a", "old").await;
        }
        let shared = store.shared();
        let error = match exists {
            false => options()
                .create(&shared, &"a".into(), async |_| never("refused"))
                .await
                .unwrap_err(),
            true => options()
                .update(&shared, &"a".into(), async |_, _| never("refused"))
                .await
                .unwrap_err(),
        };
        assert_eq!(Error::find(&error).unwrap().hint(), Some(Hint::ConditionsIgnored));
        assert_eq!(store.listing().await, if exists { vec!["a".to_owned()] } else { vec![] });
    }
}

#[tokio::test]
async fn conditions_are_tried_out_once_for_the_same_options() {
    let (store, options) = (Store::new(), options());
    for n in 0..3 {
        let path = Path::from(format!("{n}"));
        options.create(&store.shared(), &path, async |w| w.write_all(b"x").await).await.unwrap();
    }
    let puts = store.requests().iter().filter(|request| **request == Request::Put).count();
    assert_eq!(puts, 4);
}

#[tokio::test]
async fn an_announced_size_beyond_the_largest_object_is_refused_before_the_closure_runs() {
    let store = Store::new();
    let options = options().expected_size((5 << 40) + 1);
    let error =
        options.write(&store.shared(), &"a".into(), async |_| never("refused")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
}

#[tokio::test]
async fn attributes_are_set_and_kept_where_asked() {
    let store = Store::new();
    let csv = Attributes::from_iter([(Attribute::ContentType, "text/csv")]);
    for length in [3, 2 * PART] {
        let bytes = content(length);
        let with = options().attributes(csv.clone());
        with.write(&store.shared(), &"a".into(), async |w| w.write_all(&bytes).await)
            .await
            .unwrap();
        let keep = options().preserve_metadata(true);
        keep.write(&store.shared(), &"a".into(), async |w| w.write_all(&bytes).await)
            .await
            .unwrap();
        let kind = store.attributes("a").await.get(&Attribute::ContentType).cloned();
        assert_eq!(kind.as_deref(), Some("text/csv"));
        options()
            .write(&store.shared(), &"a".into(), async |w| w.write_all(&bytes).await)
            .await
            .unwrap();
        assert!(store.attributes("a").await.get(&Attribute::ContentType).is_none());
    }
}

#[tokio::test]
async fn a_producers_file_is_uploaded_and_removed() {
    for length in [3, 2 * PART + 1] {
        let (store, staging) = (Store::new(), tempfile::tempdir().unwrap());
        let bytes = content(length);
        let options = options().staging_directory(staging.path());
        let path = Path::from("x/model.onnx");
        let write = async |staged: &std::path::Path| {
            assert!(staged.ends_with("model.onnx"));
            std::fs::write(staged, &bytes)
        };
        options.write_path(&store.shared(), &path, write).await.unwrap();
        assert_eq!(store.content("x/model.onnx").await.as_ref(), Some(&bytes));
        let error = options.write_path(&store.shared(), &path, async |_| Ok(())).await.unwrap_err();
        assert_eq!(Error::find(&error).unwrap().hint(), Some(Hint::NothingWritten));
        assert_eq!(store.content("x/model.onnx").await.as_ref(), Some(&bytes));
        assert_eq!(std::fs::read_dir(staging.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_batch_appears_when_all_of_it_is_complete() {
    let store = Store::new();
    let lengths = [10, 3 * PART, PART, PART];
    options()
        .write_batch(&store.shared(), async |batch| {
            for (n, length) in lengths.into_iter().enumerate() {
                let bytes = content(length);
                batch.write(&format!("{n}").into(), async |w| w.write_all(&bytes).await).await?;
            }
            let again = batch.write(&"0".into(), async |_| never("refused")).await;
            assert_eq!(
                Error::find(&again.unwrap_err()).unwrap().hint(),
                Some(Hint::AlreadyInBatch)
            );
            assert_eq!((batch.len(), store.listing().await.len()), (4, 0));
            Ok(())
        })
        .await
        .unwrap();
    for (n, length) in lengths.into_iter().enumerate() {
        assert_eq!(store.content(&n.to_string()).await, Some(content(length)));
    }
    assert_eq!(store.unfinished(), 0);

    let failed: anyhow::Result<()> = write_batch(&store.shared(), async |batch| {
        batch.write(&"4".into(), async |w| Ok(w.write_all(&content(20 << 20)).await?)).await?;
        anyhow::bail!("no more")
    })
    .await;
    assert_eq!(failed.unwrap_err().to_string(), "no more");
    assert_eq!((store.unfinished(), store.listing().await.len()), (0, 4));
}

#[tokio::test]
async fn local_directories_take_no_attributes_and_are_written_nevertheless() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let store = Store::new().shared();
    let path = Path::from("a");
    let options = options();
    is_send(options.write(&store, &path, async |w| w.write_all(b"x").await)).await.unwrap();
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let store = Store::new().shared();
    let path = Path::from("a");
    let written = write(&store, &path, "x");
    let error = written.now_or_never().expect("it does not wait").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}
