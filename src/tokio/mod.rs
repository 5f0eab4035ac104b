//! The same functions with asynchronous closures.

mod batch;
mod call;
mod dir;
mod if_missing;
mod options;
mod path;
mod pool;
mod reader;
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
