//! The same functions with asynchronous closures, for [tokio](https://tokio.rs).
//!
//! The closure runs in the caller's task and may borrow; the future is `Send` when the closure's is. No
//! call that may block runs on a worker thread: they run on the runtime's blocking pool, two jobs for a
//! small file.
//!
//! | operation | at the root | with [options](WriteOptions) |
//! | --- | --- | --- |
//! | replace or create a file | [`write_atomically`] | [`WriteOptions::write`] |
//! | … from a slice, as `tokio::fs::write` does | [`write()`] | |
//! | create one that must not exist | [`create_atomically`] | [`WriteOptions::create`] |
//! | compute one once, however many ask | [`write_if_missing`] | [`WriteOptions::write_if_missing`] |
//! | leave alone a file that would not change | [`write_if_changed`] | [`WriteOptions::write_if_changed`] |
//! | read, modify, write; no lost update | [`update_atomically`] | [`WriteOptions::update`] |
//! | serve a producer that insists on a path | [`write_path_atomically`] | [`WriteOptions::write_path`] |
//! | … once | [`write_path_if_missing`] | [`WriteOptions::write_path_if_missing`] |
//! | replace a whole directory tree | [`write_dir_atomically`] | [`WriteOptions::write_dir`] |
//! | … once | [`write_dir_if_missing`] | [`WriteOptions::write_dir_if_missing`] |
//! | write many files, synced together | [`write_batch`] | [`WriteOptions::write_batch`] |
//!
//! # A response body becomes a file
//!
//! Whole or not at all: a body that is cut off is an error of the closure, and the old file stays.
//!
//! ```
//! use http_body_util::BodyExt;
//! use hyper::{Response, body::Incoming};
//! use tokio::io::AsyncWriteExt;
//! use write_atomically::tokio::write_atomically;
//!
//! async fn download(response: Response<Incoming>, path: &str) -> anyhow::Result<usize> {
//!     let mut body = response.into_body();
//!     write_atomically(path, async |w| {
//!         let mut length = 0;
//!         while let Some(frame) = body.frame().await {
//!             if let Some(chunk) = frame?.data_ref() {
//!                 w.write_all(chunk).await?;
//!                 length += chunk.len();
//!             }
//!         }
//!         Ok(length)
//!     }).await
//! }
//! ```
//!
//! With `reqwest` the loop is `while let Some(chunk) = response.chunk().await? { … }`; anything that is
//! an `AsyncRead` is written with `tokio::io::copy`.
//!
//! # A cache of downloads
//!
//! Of all tasks and processes that want the same file, one fetches it while the others wait. A waiting
//! task takes no thread, and can be cancelled. If the one that fetches fails or is killed, the next one
//! fetches.
//!
//! ```
//! use std::path::{Path, PathBuf};
//! use tokio::io::AsyncWriteExt;
//! use write_atomically::WriteOptions;
//!
//! # async fn fetch(name: &str) -> anyhow::Result<Vec<u8>> { Ok(name.into()) }
//! async fn cached(cache: &Path, name: &str) -> anyhow::Result<PathBuf> {
//!     let path = cache.join(name);
//!     let options = WriteOptions::new().anyhow().create_parents(true).tokio();
//!     options.write_if_missing(&path, async |w| {
//!         let body = fetch(name).await?;
//!         Ok(w.write_all(&body).await?)
//!     }).await?;
//!     Ok(path)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! # let cache = tempfile::tempdir()?;
//! let (one, two) = tokio::try_join!(cached(cache.path(), "a"), cached(cache.path(), "a"))?;
//! assert_eq!(one, two);
//! assert_eq!(std::fs::read_to_string(one)?, "a");
//! # Ok(())
//! # }
//! ```
//!
//! # Timeouts and other cancellation
//!
//! A future that is dropped (by `tokio::time::timeout`, `select!`, an aborted task or a runtime that
//! shuts down) is a failure like any other: the destination is as it was, nothing is left, locks are
//! released, and [`keep_failed`](crate::WriteOptions::keep_failed) saves what has been written. `Drop`
//! can't wait, so the clean-up is on its way to the blocking pool when the future is gone; with a runtime
//! that is shut down, it is done. After an error or a panic, by contrast, nothing is left when the call
//! returns.
//!
//! Once publishing has begun on the pool it goes on to its end: the file is the old one or the new one,
//! whole, and which one is not known. (Into a FIFO it takes as long as nobody reads, and a thread of the
//! pool.)
//!
//! ```
//! use std::time::Duration;
//! use tokio::{io::AsyncWriteExt, time::timeout};
//! use write_atomically::tokio::write_atomically;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("report");
//! # std::fs::write(&path, "old")?;
//! # async fn slow_rows() -> anyhow::Result<Vec<u8>> { std::future::pending().await }
//! let writing = write_atomically(&path, async |w| {
//!     let rows = slow_rows().await?;
//!     Ok(w.write_all(&rows).await?)
//! });
//! assert!(timeout(Duration::from_millis(10), writing).await.is_err());
//! assert_eq!(std::fs::read_to_string(&path)?, "old");
//! # Ok(())
//! # }
//! ```
//!
//! [`lock_timeout`](crate::WriteOptions::lock_timeout) limits only the wait for others.
//!
//! # Runtimes
//!
//! Both flavours of tokio's runtime will do, and a `LocalSet`; timers must be enabled
//! (`Builder::enable_time`), because those who wait for others ask again from time to time.
//!
//! # Panics
//!
//! Outside a runtime, polling one of these futures panics, with tokio's own message. On another executor,
//! let a tokio runtime run the call; its `JoinHandle` can be awaited anywhere:
//!
//! ```
//! use std::{io, path::PathBuf};
//! use write_atomically::tokio::write;
//!
//! async fn save(to: &tokio::runtime::Handle, path: PathBuf, bytes: Vec<u8>) -> io::Result<()> {
//!     to.spawn(write(path, bytes)).await?
//! }
//! # let runtime = tokio::runtime::Runtime::new()?;
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("saved");
//! # runtime.block_on(save(runtime.handle(), path.clone(), b"bytes".to_vec()))?;
//! # assert_eq!(std::fs::read(path)?, b"bytes");
//! # io::Result::Ok(())
//! ```
//!
//! # Costs
//!
//! Each call holds one buffer of 64 KiB, or two while it streams, of 256 KiB for long streams
//! ([`buffer_capacity`](crate::WriteOptions::buffer_capacity) changes that); the future itself is 1 to
//! 2 KiB and the closure's. A job on the pool takes some 20 µs: that is nothing beside a sync of a disk,
//! and as much again as writing a small file to memory.

mod batch;
mod call;
mod dir;
mod if_missing;
mod options;
mod path;
mod pool;
mod reader;
mod request;
mod rest;
mod update;
mod write;
mod writer;

pub use batch::Batch;
#[cfg(feature = "anyhow")]
pub use batch::write_batch;
#[cfg(feature = "anyhow")]
pub use dir::{write_dir_atomically, write_dir_if_missing};
#[cfg(feature = "anyhow")]
pub use if_missing::write_if_missing;
pub use options::WriteOptions;
#[cfg(feature = "anyhow")]
pub use path::{write_path_atomically, write_path_if_missing};
pub use reader::Reader;
#[cfg(feature = "anyhow")]
pub use update::update_atomically;
pub use write::write;
#[cfg(feature = "anyhow")]
pub use write::{create_atomically, write_atomically, write_if_changed};
pub use writer::Writer;

/// Users move these between tasks, and poll them where they are.
const _: () = {
    const fn is_ready_for_tasks<T: Send + Sync + Unpin>() {}
    is_ready_for_tasks::<Writer>();
    is_ready_for_tasks::<Reader>();
    is_ready_for_tasks::<Batch<std::rc::Rc<()>>>();
    is_ready_for_tasks::<WriteOptions<std::rc::Rc<()>>>();
};
