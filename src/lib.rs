//! Write files that readers find complete or not at all.
//!
//! One idea: **a file appears at its path only when the closure that wrote it returned `Ok`.**
//!
//! ```
//! use std::io::Write;
//! use write_atomically::write_atomically;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("report.csv");
//! # fn rows() -> anyhow::Result<Vec<(u32, u32)>> { Ok(vec![(1, 100), (2, 200)]) }
//! write_atomically(&path, |w| {
//!     writeln!(w, "id,total")?;
//!     for (id, total) in rows()? { // any error, of any type
//!         writeln!(w, "{id},{total}")?;
//!     }
//!     Ok(())
//! })?;
//! # assert_eq!(std::fs::read_to_string(&path)?, "id,total\n1,100\n2,200\n");
//! # anyhow::Ok(())
//! ```
//!
//! If the closure fails, panics or is killed, the destination is as it was: the old file or none, and
//! nothing beside it. If it returns `Ok`, so does [`write_atomically`], with the closure's value, once
//! the new content would survive a power cut.
//!
//! There is no guard object to commit, drop or forget. Every other operation has the same shape: a
//! path, a closure and a `Result`.
//!
//! | operation | at the root | with [options](WriteOptions) |
//! | --- | --- | --- |
//! | replace or create a file | [`write_atomically`] | [`WriteOptions::write`] |
//! | … from a slice, as [`std::fs::write`] does | [`write()`] | |
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
//! [`sweep`] removes what machines that died have left in a directory that they shared.
//!
//! # In place of `fs::write`
//!
//! [`write()`] has [`std::fs::write`]'s signature: replacing `fs::write` by `write_atomically::write` is
//! all it takes.
//!
//! # Error types
//!
//! The functions at the root speak [`anyhow`], so that `?` takes any error in the closure. The methods
//! of [`WriteOptions`] speak the error type of the options: [`io::Error`](std::io::Error) unless
//! [`WriteOptions::anyhow`] or [`WriteOptions::error`] say otherwise. [`Error::find`] tells this
//! library's errors from the closure's.
//!
//! # The guide
//!
//! The module [`guide`] has what no single item's page can say: the [promises](guide::promises),
//! [recipes](guide::recipes), [what errors say](guide::errors) and why a closure may not compile,
//! [durability](guide::durability) and its cost, [who may read a file](guide::identity_and_access),
//! [races and locks](guide::races_and_locks), [filesystems](guide::filesystems),
//! [platforms](guide::platforms), [the command](guide::the_command), a
//! [comparison](guide::comparison), [the proof](guide::proof), [the architecture](guide::architecture).
//!
//! # Features
//!
//! * `anyhow` (on by default): the functions at the root, except [`write()`].
//! * `tokio`: the same functions with asynchronous closures, for services and downloaders, in the
//!   module `tokio`; it adds the crate of that name.
//! * `cli`: the command `write-atomically`; it adds nothing to the library.
#![forbid(unsafe_code)]
// Without the functions at the root there is nothing that these links could lead to.
#![cfg_attr(not(feature = "anyhow"), allow(rustdoc::broken_intra_doc_links))]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
mod failure;
#[cfg(all(any(doc, doctest), feature = "anyhow"))]
pub mod guide;
mod hash;
mod hint;
#[cfg(feature = "object_store")]
pub mod object_store;
mod operations;
mod options;
mod platform;
mod protocol;
mod reader;
mod settings;
mod sink;
mod sparse;
#[cfg(feature = "tokio")]
pub mod tokio;
mod writer;

pub use crate::error::{Error, Outcome, Step};
pub use crate::hint::Hint;
pub use crate::operations::batch::Batch;
#[cfg(feature = "anyhow")]
pub use crate::operations::batch::write_batch;
#[cfg(feature = "anyhow")]
pub use crate::operations::create::create_atomically;
#[cfg(feature = "anyhow")]
pub use crate::operations::dir::{write_dir_atomically, write_dir_if_missing};
pub use crate::operations::if_changed::Change;
#[cfg(feature = "anyhow")]
pub use crate::operations::if_changed::write_if_changed;
#[cfg(feature = "anyhow")]
pub use crate::operations::if_missing::write_if_missing;
#[cfg(feature = "anyhow")]
pub use crate::operations::path::{write_path_atomically, write_path_if_missing};
pub use crate::operations::sweep::sweep;
#[cfg(feature = "anyhow")]
pub use crate::operations::update::update_atomically;
pub use crate::operations::write::write;
#[cfg(feature = "anyhow")]
pub use crate::operations::write::write_atomically;
pub use crate::options::WriteOptions;
pub use crate::reader::Reader;
pub use crate::settings::Durability;
pub use crate::writer::Writer;

/// Compiles the README's Rust code.
#[cfg(all(doctest, feature = "anyhow"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// Users move these between threads and hold them across panics.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Writer>();
    is_send_and_sync::<Reader>();
    is_send_and_sync::<Batch<std::rc::Rc<()>>>();
    is_send_and_sync::<WriteOptions<std::rc::Rc<()>>>();
    is_send_and_sync::<Error>();
};
