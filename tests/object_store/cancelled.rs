//! The future is dropped at each of its await points.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use rstest::rstest;
use tokio::io::AsyncWriteExt;

use crate::operations::{PART, content, options};
use crate::store::Store;

/// Polls up to `polls` times; whether it has ended by then.
async fn poll_and_drop(future: impl Future, polls: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    false
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn a_dropped_write_is_a_failed_one(
    #[values(10, 3 * PART)] length: usize,
    #[values(false, true)] creates: bool,
) {
    let bytes = content(length);
    for polls in 0.. {
        let store = Store::new();
        store.be_slow();
        if !creates {
            store.put_old("a", "old").await;
        }
        let (shared, path, options) = (store.shared(), "a".into(), options());
        let fill = async |w: &mut write_atomically::object_store::Writer| {
            for piece in bytes.chunks(PART / 2) {
                w.write_all(piece).await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        let ended = match creates {
            true => poll_and_drop(options.create(&shared, &path, fill), polls).await,
            false => poll_and_drop(options.write(&shared, &path, fill), polls).await,
        };
        tokio::time::sleep(Duration::from_secs(10)).await;
        let found = store.content("a").await;
        let old = (!creates).then(|| b"old".to_vec());
        assert!(found.as_ref() == Some(&bytes) || (!ended && found == old), "after {polls} polls");
        assert_eq!(store.unfinished(), 0, "after {polls} polls");
        let listing = store.listing().await;
        assert!(listing.iter().all(|key| key == "a"), "after {polls} polls: {listing:?}");
        if ended {
            return;
        }
    }
}
