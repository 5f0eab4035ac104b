//! The same for programs without async code, with [`std::io::Write`].
//!
//! ```
//! use std::io::Write;
//! use std::sync::Arc;
//!
//! use object_store::{ObjectStore, memory::InMemory};
//! use write_atomically::object_store::blocking::write_atomically;
//!
//! let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
//! write_atomically(&store, &"daily/2026-11-27.csv".into(), |w| {
//!     writeln!(w, "id,total")?;
//!     Ok(())
//! })?;
//! # anyhow::Ok(())
//! ```
//!
//! The closure runs on the calling thread. Requests are sent by one thread that the first call starts,
//! and that lives as long as the program. A runtime around the call is neither needed nor used; as with
//! any blocking call, its thread is blocked meanwhile.

mod io;
mod options;
mod wait;

#[cfg(feature = "anyhow")]
use std::path::Path as FilePath;
use std::sync::Arc;

use ::object_store::ObjectStore;
use ::object_store::path::Path;

#[cfg(feature = "anyhow")]
use crate::Change;

pub use self::io::{Reader, Writer};
pub use self::options::{Batch, ObjectOptions};

/// Writes a whole object from bytes in memory; see [`object_store::write`](super::write()).
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, memory::InMemory};
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// write_atomically::object_store::blocking::write(&store, &"state.json".into(), "{}")?;
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
///
/// As there.
pub fn write(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    bytes: impl Into<bytes::Bytes>,
) -> std::io::Result<()> {
    super::ObjectOptions::new().blocking().write_bytes(store, path, bytes)
}

#[cfg(feature = "anyhow")]
fn options() -> ObjectOptions<anyhow::Error> {
    super::ObjectOptions::new().anyhow().blocking()
}

/// Writes an object that appears at `path` only when the closure `fill` has returned `Ok`.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, memory::InMemory};
/// use std::io::Write;
/// use write_atomically::object_store::blocking::write_atomically;
///
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// write_atomically(&store, &"a".into(), |w| Ok(writeln!(w, "a")?))?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::write`](super::ObjectOptions::write).
#[cfg(feature = "anyhow")]
pub fn write_atomically<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    fill: impl FnOnce(&mut Writer<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    options().write(store, path, fill)
}

/// Creates an object; one that exists is an error, and is never replaced.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, memory::InMemory};
/// use std::io::Write;
/// use write_atomically::object_store::blocking::create_atomically;
///
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// create_atomically(&store, &"a".into(), |w| Ok(writeln!(w, "a")?))?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::create`](super::ObjectOptions::create).
#[cfg(feature = "anyhow")]
pub fn create_atomically<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    fill: impl FnOnce(&mut Writer<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    options().create(store, path, fill)
}

/// Writes an object unless it exists; the closure runs only if it does not.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, memory::InMemory};
/// use std::io::Write;
/// use write_atomically::object_store::blocking::write_if_missing;
///
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// let written = write_if_missing(&store, &"a".into(), |w| Ok(writeln!(w, "a")?))?;
/// assert_eq!(written, Some(()));
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::write_if_missing`](super::ObjectOptions::write_if_missing).
#[cfg(feature = "anyhow")]
pub fn write_if_missing<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    fill: impl FnOnce(&mut Writer<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    options().write_if_missing(store, path, fill)
}

/// Writes an object unless the same bytes are there already.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, memory::InMemory};
/// use std::io::Write;
/// use write_atomically::object_store::blocking::write_if_changed;
///
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// let change = write_if_changed(&store, &"a".into(), |w| Ok(writeln!(w, "a")?))?;
/// assert_eq!(change, write_atomically::Change::Written(()));
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::write_if_changed`](super::ObjectOptions::write_if_changed).
#[cfg(feature = "anyhow")]
pub fn write_if_changed<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    fill: impl FnOnce(&mut Writer<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<Change<T>> {
    options().write_if_changed(store, path, fill)
}

/// Reads an object and writes its new content; the closure runs again if others have written it meanwhile.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, memory::InMemory};
/// use std::io::Write;
/// use write_atomically::object_store::blocking::update_atomically;
///
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// update_atomically(&store, &"log".into(), |old, new| {
///     if let Some(old) = old {
///         std::io::copy(old, new)?;
///     }
///     Ok(writeln!(new, "started")?)
/// })?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::update`](super::ObjectOptions::update).
#[cfg(feature = "anyhow")]
pub fn update_atomically<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    fill: impl FnMut(Option<&mut Reader<'_>>, &mut Writer<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    options().update(store, path, fill)
}

/// Lets a producer write a local file at a path, and uploads it when the closure has returned `Ok`.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, memory::InMemory};
/// use write_atomically::object_store::blocking::write_path_atomically;
///
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// write_path_atomically(&store, &"a".into(), |staged| Ok(std::fs::write(staged, "a")?))?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::write_path`](super::ObjectOptions::write_path).
#[cfg(feature = "anyhow")]
pub fn write_path_atomically<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    produce: impl FnOnce(&FilePath) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    options().write_path(store, path, produce)
}

/// The same, unless the object exists: then the closure does not run.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, memory::InMemory};
/// use write_atomically::object_store::blocking::write_path_if_missing;
///
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// write_path_if_missing(&store, &"a".into(), |staged| Ok(std::fs::write(staged, "a")?))?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::write_path_if_missing`](super::ObjectOptions::write_path_if_missing).
#[cfg(feature = "anyhow")]
pub fn write_path_if_missing<T>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    produce: impl FnOnce(&FilePath) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    options().write_path_if_missing(store, path, produce)
}

/// Writes many objects, none of which appears before the closure `fill` has returned `Ok`.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, memory::InMemory};
/// use std::io::Write;
/// use write_atomically::object_store::blocking::write_batch;
///
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// write_batch(&store, |batch| {
///     batch.write(&"a".into(), |w| Ok(writeln!(w, "a")?))?;
///     batch.write(&"b".into(), |w| Ok(writeln!(w, "b")?))
/// })?;
/// # anyhow::Ok(())
/// ```
///
/// # Errors
///
/// As [`ObjectOptions::write_batch`](super::ObjectOptions::write_batch).
#[cfg(feature = "anyhow")]
pub fn write_batch<T>(
    store: &Arc<dyn ObjectStore>,
    fill: impl FnOnce(&mut Batch<'_, anyhow::Error>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    options().write_batch(store, fill)
}
