//! Each request fails in each way, once and always: the object is old or new, whole, and the error says
//! which; nothing else stays in the store.

use rstest::rstest;
use tokio::io::AsyncWriteExt;
use write_atomically::{Error, Outcome};

use crate::operations::{PART, content, never, options};
use crate::store::Times::{Always, Once};
use crate::store::{Fault, Request, Store, Times};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Write,
    Create,
    Update,
}

async fn run(store: &Store, operation: Operation, bytes: &[u8]) -> std::io::Result<()> {
    let (shared, path) = (store.shared(), "a".into());
    let options = options().update_retries(2);
    match operation {
        Operation::Write => options.write(&shared, &path, async |w| w.write_all(bytes).await).await,
        Operation::Create => {
            options.create(&shared, &path, async |w| w.write_all(bytes).await).await
        }
        Operation::Update => {
            options.update(&shared, &path, async |_, w| w.write_all(bytes).await).await
        }
    }
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn the_object_is_old_or_new_and_the_outcome_is_right(
    #[values(Operation::Write, Operation::Create, Operation::Update)] operation: Operation,
    #[values(10, 3 * PART)] length: usize,
    #[values(Once, Always)] times: Times,
    #[values(Fault::Reset, Fault::AnswerLost, Fault::Repeated, Fault::Denied, Fault::Conflict)]
    fault: Fault,
) {
    use Request::*;
    if operation == Operation::Update && length > PART {
        return; // refused: `a_large_update_without_conditional_completes_is_refused…`
    }
    for request in [Get, Put, Begin, Part, Complete, Abort, Copy, Delete] {
        let what = format!("{operation:?} {length} {request:?} {fault:?} {times:?}");
        let (store, bytes) = (Store::new(), content(length));
        if operation != Operation::Create {
            store.put_old("a", "old").await;
        }
        store.fail(request, fault, times);
        let result = run(&store, operation, &bytes).await;
        store.heal();
        check(&store, &what, operation, &bytes, result).await;
        let lost = request == Begin && matches!(fault, Fault::AnswerLost | Fault::Repeated);
        if !lost && (request, times) != (Abort, Always) {
            assert_eq!(store.unfinished(), 0, "{what}: an upload stays");
        }
        let stays = request == Delete && times == Always;
        let listing = store.listing().await;
        assert!(stays || listing.iter().all(|key| key == "a"), "{what}: {listing:?}");
    }
}

async fn check(
    store: &Store,
    what: &str,
    operation: Operation,
    bytes: &[u8],
    result: std::io::Result<()>,
) {
    let old = (operation != Operation::Create).then(|| b"old".to_vec());
    let found = store.content("a").await;
    let is_new = found.as_deref() == Some(bytes);
    assert!(is_new || found == old, "{what}: neither old nor new");
    match result {
        Ok(()) => assert!(is_new, "{what}: Ok, but not written"),
        Err(error) => {
            let error = Error::find(&error).unwrap_or_else(|| panic!("{what}: {error:?}"));
            match error.outcome() {
                Outcome::Unchanged => assert!(!is_new, "{what}: {error}"),
                Outcome::Replaced => assert!(is_new, "{what}: {error}"),
                Outcome::Unknown => {}
                other => panic!("{what}: {other:?}"),
            }
            assert!(!error.to_string().contains("<Code>"), "{error}");
        }
    }
}

#[rstest]
#[case::put(10, Request::Put)]
#[case::complete(3 * PART, Request::Complete)]
#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_is_found_out(
    #[case] length: usize,
    #[case] request: Request,
    #[values(Fault::AnswerLost, Fault::Repeated)] fault: Fault,
    #[values(Operation::Write, Operation::Create)] operation: Operation,
) {
    let (store, bytes) = (Store::new(), content(length));
    store.fail(request, fault, Once);
    let conditions_cost_a_put = operation == Operation::Create && request == Request::Put;
    let large_creation = operation == Operation::Create && request == Request::Complete;
    if conditions_cost_a_put || large_creation {
        return; // the table above covers them; the fault would hit the trial, or the staged upload
    }
    run(&store, operation, &bytes).await.unwrap();
    assert_eq!(store.content("a").await, Some(bytes));
    assert_eq!(store.unfinished(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_creation_is_no_conflict() {
    let (store, options) = (Store::new(), options().trust_conditions(true));
    store.fail(Request::Put, Fault::Repeated, Once);
    options.create(&store.shared(), &"a".into(), async |w| w.write_all(b"x").await).await.unwrap();
    assert_eq!(store.content("a").await.unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_an_error_within_bounded_time() {
    let store = Store::new();
    store.fail(Request::Get, Fault::Reset, Always);
    let error = options()
        .write(&store.shared(), &"a".into(), async |_| never("the store can't be reached"))
        .await
        .unwrap_err();
    assert_eq!(Error::find(&error).unwrap().outcome(), Outcome::Unchanged);
}
