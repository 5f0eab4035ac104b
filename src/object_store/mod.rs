//! The same for objects: S3 and compatibles, Google Cloud Storage, Azure, in memory (feature
//! `object_store`).
//!
//! An object appears at its path only when the async closure that wrote it returned `Ok`. Built on the
//! crate `object_store`, for any of its stores:
//!
//! ```
//! use std::sync::Arc;
//!
//! use object_store::{ObjectStore, memory::InMemory};
//! use tokio::io::AsyncWriteExt;
//! use write_atomically::object_store::write_atomically;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
//! write_atomically(&store, &"daily/2026-11-27.csv".into(), async |w| {
//!     w.write_all(b"id,total\n").await?;
//!     Ok(())
//! }).await?;
//! # use object_store::ObjectStoreExt;
//! # assert_eq!(store.get(&"daily/2026-11-27.csv".into()).await?.bytes().await?, "id,total\n");
//! # anyhow::Ok(()) })?;
//! # anyhow::Ok(())
//! ```
//!
//! | operation | here | with [options](ObjectOptions) |
//! | --- | --- | --- |
//! | replace or create an object | [`write_atomically`] | [`ObjectOptions::write`] |
//! | … from bytes in memory | [`write()`] | [`ObjectOptions::write_bytes`] |
//! | create one that must not exist | [`create_atomically`] | [`ObjectOptions::create`] |
//! | compute one unless it exists | [`write_if_missing`] | [`ObjectOptions::write_if_missing`] |
//! | leave alone one that would not change | [`write_if_changed`] | [`ObjectOptions::write_if_changed`] |
//! | read, modify, write; no lost update | [`update_atomically`] | [`ObjectOptions::update`] |
//! | serve a producer that insists on a path | [`write_path_atomically`] | [`ObjectOptions::write_path`] |
//! | … unless the object exists | [`write_path_if_missing`] | [`ObjectOptions::write_path_if_missing`] |
//! | write many objects | [`write_batch`] | [`ObjectOptions::write_batch`] |
//!
//! [`blocking`] has the same for programs without async code. The others need a tokio runtime with its time and
//! I/O drivers, as `object_store`'s clients do; outside of one they return an error.
//!
//! # Outcomes
//!
//! Up to one part (8 MiB) is a single PUT after the closure's end. More goes up in parts while the
//! closure runs, and a last request puts them together. It is sent only after `Ok`.
//!
//! | what happens | the object | the parts |
//! | --- | --- | --- |
//! | the closure fails or panics, a request fails | as it was | removed before the function returns |
//! | the future is dropped | as it was, or whole if publishing had begun | removed by a task of the runtime |
//! | the runtime ends, SIGKILL, power cut | as it was, or whole | stay |
//!
//! Parts that stay are not visible, but paid for. Every bucket should have a life-cycle rule that
//! removes them; on S3 and GCS that is `AbortIncompleteMultipartUpload` after one day:
//!
//! ```json
//! {"Rules": [{"ID": "parts", "Status": "Enabled", "Filter": {"Prefix": ""},
//!   "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}]}
//! ```
//!
//! Azure removes uncommitted blocks after a week by itself. `object_store` cannot list unfinished
//! uploads; `aws s3api list-multipart-uploads` does.
//!
//! # Lost answers
//!
//! A request may succeed although its answer is lost; the client's retry then meets its own object. Each
//! write has an id in the user metadata `writeid`. After an error the object is asked for it, and the
//! write succeeds if the id is its own. If it is not, and the request could still arrive, the error's
//! outcome is [`Outcome::Unknown`](crate::Outcome::Unknown).
//!
//! # Conditions
//!
//! [`create`](ObjectOptions::create), [`write_if_missing`](ObjectOptions::write_if_missing) and
//! [`update`](ObjectOptions::update) send the store's own conditions with the request that publishes,
//! and never only look first. Some stores accept conditions and ignore them. Therefore the first such
//! write with an [`ObjectOptions`] asks the store to replace, at a key of its own beside the
//! destination (`.write-atomically-trial` is appended), an object with an ETag that no object has. A
//! store that honours conditions refuses that, and nothing is written; with one that does not, the
//! trial is removed, and the call fails with [`Unsupported`](std::io::ErrorKind::Unsupported) before
//! the closure runs. The same is tried with the request that completes an upload, before the first
//! large output. [`trust_conditions`](ObjectOptions::trust_conditions) leaves these trials out. They
//! show that `If-Match` is honoured; a store that honoured it, but not `If-None-Match`, is not known.
//!
//! Outputs larger than one part are published under a condition
//! - on S3 and compatible stores by a conditional completing request, if the client has our `Connector`
//!   (feature `s3`);
//! - otherwise, to create: by an upload to another key (`.write-atomically-` and the write's id are
//!   appended), from which the store copies it if nothing is at the destination. GCS and Azure can do
//!   that, S3 with `S3CopyIfNotExists`; SIGKILL may leave that object. `S3CopyIfNotExists::Multipart`
//!   copies up to 5 GiB, and loses attributes: prefer the `Connector`;
//! - otherwise not at all: the error is of kind `Unsupported`, before the second part is sent, or before
//!   the closure runs if [`expected_size`](ObjectOptions::expected_size) says so.

pub mod blocking;
mod compare;
mod conditions;
mod connector;
mod fill;
#[cfg(feature = "s3")]
mod http;
mod operations;
mod options;
mod publish;
mod reader;
mod reason;
mod sizes;
mod target;
mod upload;
mod writer;

#[cfg(feature = "s3")]
pub use self::http::Connector;
pub use self::operations::batch::Batch;
#[cfg(feature = "anyhow")]
pub use self::operations::batch::write_batch;
#[cfg(feature = "anyhow")]
pub use self::operations::create::create_atomically;
#[cfg(feature = "anyhow")]
pub use self::operations::if_changed::write_if_changed;
#[cfg(feature = "anyhow")]
pub use self::operations::if_missing::write_if_missing;
#[cfg(feature = "anyhow")]
pub use self::operations::path::{write_path_atomically, write_path_if_missing};
#[cfg(feature = "anyhow")]
pub use self::operations::update::update_atomically;
pub use self::operations::write::write;
#[cfg(feature = "anyhow")]
pub use self::operations::write::write_atomically;
pub use self::options::ObjectOptions;
pub use self::reader::Reader;
pub use self::writer::Writer;
