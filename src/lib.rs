//! One idea: **a file appears at its path only when the closure that wrote it returned `Ok`.**
//!
//! ```
//! use std::io::Write;
//! use write_atomically::write_atomically;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("report.csv");
//! write_atomically(&path, |w| {
//!     writeln!(w, "id,total")?;
//!     for id in 1..=3 {
//!         writeln!(w, "{id},{}", id * 100)?;
//!     }
//!     Ok(())
//! })?;
//! # anyhow::Ok(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod error;
mod keep;
mod metadata;
mod options;
mod overwrite;
mod platform;
mod staged;
mod staging;
mod target;
mod writer;

use std::io::{self, Write};
use std::path::Path;

pub use crate::error::{Error, Step};
pub use crate::options::{Durability, WriteOptions};
pub use crate::writer::Writer;

/// Writes a file that appears at `path` only when `write` has returned `Ok`.
///
/// # Errors
///
/// todo
#[cfg(feature = "anyhow")]
pub fn write_atomically<T>(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().write(path, write)
}

/// Writes a file that must not exist.
#[cfg(feature = "anyhow")]
pub fn create_atomically<T>(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut Writer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    WriteOptions::new().create(path, write)
}

/// Writes a slice as the whole content of a file: [`std::fs::write`], but atomically.
pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    WriteOptions::new().write(path, |w| w.write_all(contents.as_ref()))
}
