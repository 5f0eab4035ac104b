//! Against real servers, which `tests/object_store/run` starts.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use write_atomically::object_store::{Connector, ObjectOptions, Writer};
use write_atomically::{Change, Error, Outcome, Step};

use crate::operations::{PART, content, increment, never, options};
use crate::proxy::{Proxy, Spoil};
use crate::store::Times::{Always, Once};
use crate::store::{Request, Times};

pub fn endpoint() -> String {
    std::env::var("TEST_S3_ENDPOINT").expect("tests/object_store/run sets it")
}

pub fn builder(endpoint: &str) -> AmazonS3Builder {
    let variable = |name| std::env::var(name).expect("tests/object_store/run sets it");
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(10), ..BackoffConfig::default() };
    let retry = RetryConfig { max_retries: 2, backoff, retry_timeout: Duration::from_secs(20) };
    AmazonS3Builder::new()
        .with_bucket_name("tests")
        .with_region("us-east-1")
        .with_endpoint(endpoint)
        .with_access_key_id(variable("TEST_S3_KEY"))
        .with_secret_access_key(variable("TEST_S3_SECRET"))
        .with_client_options(
            ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_secs(10)),
        )
        .with_http_connector(Connector::default())
        .with_retry(retry)
}

fn store() -> Arc<dyn ObjectStore> {
    Arc::new(builder(&endpoint()).build().unwrap())
}

/// A key that no other test has.
fn fresh(name: &str) -> Path {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{name}-{}-{}/object", std::process::id(), time.as_nanos()).into()
}

async fn found(store: &Arc<dyn ObjectStore>, path: &Path) -> Option<Vec<u8>> {
    match store.get(path).await {
        Ok(found) => Some(found.bytes().await.unwrap().to_vec()),
        Err(object_store::Error::NotFound { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// ListMultipartUploads, which `object_store` does not have: how many there are for this key.
async fn unfinished(path: &Path) -> usize {
    let signer: AmazonS3 = builder(&endpoint()).build().unwrap();
    let query = SignedUrlOptions::default().with_query([("uploads", "")]);
    let url = signer
        .signed_url_opts("GET".parse().unwrap(), &Path::from(""), Duration::from_secs(60), &query)
        .await
        .unwrap();
    let key = path.to_string();
    let answer = tokio::task::spawn_blocking(move || get(url.as_str())).await.unwrap();
    assert!(answer.contains("ListMultipartUploadsResult"), "{answer}");
    answer.matches(&format!("<Key>{key}")).count()
}

fn get(url: &str) -> String {
    use std::io::{Read, Write};
    let (host, target) = url.trim_start_matches("http://").split_once('/').unwrap();
    let mut server = std::net::TcpStream::connect(host).unwrap();
    write!(server, "GET /{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    server.read_to_string(&mut answer).unwrap();
    answer
}

/// That no upload stays, waiting for the task that aborts it.
async fn assert_no_upload(path: &Path, what: &str) {
    for _ in 0..50 {
        if unfinished(path).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}: an upload of {path} stays");
}

#[tokio::test]
#[ignore = "needs servers: tests/object_store/run"]
async fn any_length_is_written_and_a_failure_changes_nothing() {
    let (store, path) = (store(), fresh("lengths"));
    for length in [0, 1, PART, PART + 1, 3 * PART + 7] {
        let bytes = content(length);
        options().write(&store, &path, async |w| w.write_all(&bytes).await).await.unwrap();
        assert_eq!(found(&store, &path).await.as_ref(), Some(&bytes), "{length}");
        let failed = options()
            .write(&store, &path, async |w| {
                w.write_all(&content(2 * PART + 1)).await?;
                Err::<(), _>(io::Error::other("no more rows"))
            })
            .await;
        assert_eq!(failed.unwrap_err().to_string(), "no more rows");
        assert_eq!(unfinished(&path).await, 0, "aborted before the function returned");
        assert_eq!(found(&store, &path).await, Some(bytes));
    }
}

#[rstest]
#[case::small(10)]
#[case::large(2 * PART)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: tests/object_store/run"]
async fn of_32_that_create_one_wins(#[case] length: usize) {
    let path = fresh("race");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..32_u8 {
        let (store, path) = (store(), path.clone());
        tasks.spawn(async move {
            let bytes = vec![n; length];
            let options = options().parts_in_flight(1);
            (n, options.create(&store, &path, async |w| w.write_all(&bytes).await).await)
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
    assert_eq!(found(&store(), &path).await, Some(vec![winners[0]; length]));
    assert_no_upload(&path, "race").await;
}

#[tokio::test]
#[ignore = "needs servers: tests/object_store/run"]
async fn large_updates_and_large_unchanged_outputs() {
    let (store, path) = (store(), fresh("large"));
    for n in 0..3 {
        let piece = vec![n; PART];
        options()
            .update(&store, &path, async |old, new| {
                if let Some(old) = old {
                    tokio::io::copy(old, new).await?;
                }
                new.write_all(&piece).await
            })
            .await
            .unwrap();
    }
    let whole: Vec<u8> = (0..3).flat_map(|n| vec![n; PART]).collect();
    assert_eq!(found(&store, &path).await.as_ref(), Some(&whole));
    let whole_again = async |w: &mut Writer| w.write_all(&whole).await;
    let change = options().write_if_changed(&store, &path, whole_again).await.unwrap();
    assert_eq!(change, Change::Unchanged(()));
    let mut theirs = 0;
    let error = options()
        .update_retries(1)
        .update(&store, &path, async |_, new| {
            theirs += 1;
            store.put(&path, format!("theirs {theirs}").into()).await.map_err(io::Error::other)?;
            new.write_all(&whole).await
        })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    assert_eq!(found(&store, &path).await.unwrap(), b"theirs 2");
    assert_no_upload(&path, "update").await;
}

#[tokio::test]
#[ignore = "needs servers: tests/object_store/run"]
async fn what_is_wrong_with_the_store_is_told_before_the_closure_runs() {
    let unreachable = "http://127.0.0.1:1";
    let cases = [
        ("NoSuchBucket", builder(&endpoint()).with_bucket_name("no-such-bucket")),
        ("InvalidAccessKeyId", builder(&endpoint()).with_access_key_id("nobody")),
        ("SignatureDoesNotMatch", builder(&endpoint()).with_secret_access_key("wrong-secret")),
        (unreachable, builder(unreachable)),
    ];
    for (expected, builder) in cases {
        let store: Arc<dyn ObjectStore> = Arc::new(builder.build().unwrap());
        let start = std::time::Instant::now();
        let result = options().write(&store, &"a".into(), async |_| never(expected)).await;
        let error = result.unwrap_err();
        let error = Error::find(&error).unwrap();
        assert!(start.elapsed() < Duration::from_secs(31));
        assert_eq!((error.step(), error.outcome()), (Step::Resolve, Outcome::Unchanged));
        let text = error.to_string();
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("secret") && !text.contains("Signature="), "{text}");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: tests/object_store/run"]
async fn a_spoilt_request_leaves_the_object_old_or_new(
    #[values(10, 2 * PART + 1)] length: usize,
    #[values(false, true)] creates: bool,
    #[values(Once, Always)] times: Times,
    #[values(
        Spoil::Reset,
        Spoil::AnswerLost,
        Spoil::AnswerCut,
        Spoil::Repeated,
        Spoil::Delayed,
        Spoil::Status(500),
        Spoil::Status(503),
        Spoil::Status(409),
        Spoil::Status(412)
    )]
    spoil: Spoil,
) {
    use Request::*;
    for request in [Get, Put, Begin, Part, Complete, Abort] {
        let what = format!("{length} {creates} {request:?} {spoil:?} {times:?}");
        let (direct, path) = (store(), fresh("spoilt"));
        let proxy = Proxy::start(&endpoint());
        let spoilt: Arc<dyn ObjectStore> = Arc::new(builder(&proxy.endpoint).build().unwrap());
        let bytes = content(length);
        if !creates {
            direct.put(&path, "old".into()).await.unwrap();
        }
        proxy.spoil(request, spoil, times);
        let fill = async |w: &mut Writer| w.write_all(&bytes).await;
        let result = match creates {
            true => options().create(&spoilt, &path, fill).await,
            false => options().write(&spoilt, &path, fill).await,
        };
        proxy.heal();
        let old = (!creates).then(|| b"old".to_vec());
        let now = found(&direct, &path).await;
        let is_new = now.as_ref() == Some(&bytes);
        assert!(is_new || now == old, "{what}: neither old nor new");
        match result {
            Ok(()) => {
                let needed = if length == 10 {
                    request == Put
                } else {
                    matches!(request, Begin | Part | Complete)
                };
                let fails = needed && (spoil, times) == (Spoil::Status(500), Always);
                assert!(is_new && !fails, "{what}: Ok, but not written");
            }
            Err(error) => {
                let error = Error::find(&error).unwrap();
                let wrong = error.outcome() == Outcome::Unchanged && is_new;
                assert!(!wrong && (times == Always || !is_new), "{what}: {error}");
            }
        }
        // Beginning again after a lost answer is the client's own retry: nobody knows the first upload.
        let lost =
            request == Begin && !matches!(spoil, Spoil::Reset | Spoil::Delayed | Spoil::Status(_));
        if !lost && (request, times) != (Abort, Always) {
            assert_no_upload(&path, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: tests/object_store/run"]
async fn a_dropped_write_is_a_failed_one() {
    let store = store();
    for milliseconds in (0..200).step_by(10) {
        let path = fresh("dropped");
        store.put(&path, "old".into()).await.unwrap();
        let bytes = content(4 * PART);
        let options = options();
        let write = options.write(&store, &path, async |w| w.write_all(&bytes).await);
        let ended = tokio::time::timeout(Duration::from_millis(milliseconds), write).await.is_ok();
        assert_no_upload(&path, "dropped").await;
        let now = found(&store, &path).await.unwrap();
        assert!(now == bytes || (!ended && now == b"old"), "after {milliseconds} ms");
    }
}

/// Runs one of this module's tests marked as a child in a process of its own.
fn child(name: &str, path: &Path) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("servers::{name}"), "--ignored", "--nocapture"])
        .env("TEST_CHILD_KEY", path.to_string())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

fn child_key() -> Option<Path> {
    std::env::var("TEST_CHILD_KEY").ok().map(Path::from)
}

#[tokio::test]
#[ignore = "needs servers: tests/object_store/run"]
async fn eight_processes_lose_no_update() {
    let (store, path) = (store(), fresh("counter"));
    let mut children: Vec<_> = (0..8).map(|_| child("a_child_that_increments", &path)).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(found(&store, &path).await.unwrap(), b"1600");
}

#[tokio::test]
#[ignore = "a child of `eight_processes_lose_no_update`"]
async fn a_child_that_increments() {
    let Some(path) = child_key() else { return };
    let (store, options) = (store(), ObjectOptions::new().update_retries(10_000));
    for _ in 0..200 {
        increment(&store, &path, &options).await;
    }
}

#[tokio::test]
#[ignore = "needs servers: tests/object_store/run"]
async fn sigkill_leaves_the_old_object_and_parts_that_a_rule_removes() {
    let (store, path) = (store(), fresh("killed"));
    store.put(&path, "old".into()).await.unwrap();
    let mut child = child("a_child_that_writes_for_ever", &path);
    for _ in 0..200 {
        if unfinished(&path).await > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(found(&store, &path).await.unwrap(), b"old");
    assert_eq!(unfinished(&path).await, 1, "as the guide says");
    options().write(&store, &path, async |w| w.write_all(b"new").await).await.unwrap();
    assert_eq!(found(&store, &path).await.unwrap(), b"new");
}

#[tokio::test]
#[ignore = "a child of `sigkill_leaves_the_old_object_and_parts_that_a_rule_removes`"]
async fn a_child_that_writes_for_ever() {
    let Some(path) = child_key() else { return };
    let store = store();
    let write = async |w: &mut Writer| {
        w.write_all(&content(3 * PART)).await?;
        std::future::pending::<io::Result<()>>().await
    };
    options().write(&store, &path, write).await.unwrap();
}

#[tokio::test]
#[ignore = "needs servers: tests/object_store/run"]
async fn an_update_reads_what_is_there() {
    let (store, path) = (store(), fresh("read"));
    store.put(&path, "old".into()).await.unwrap();
    options()
        .update(&store, &path, async |old, new| {
            let mut text = String::new();
            old.expect("it exists").read_to_string(&mut text).await?;
            new.write_all(format!("{text} and new").as_bytes()).await
        })
        .await
        .unwrap();
    assert_eq!(found(&store, &path).await.unwrap(), b"old and new");
}
