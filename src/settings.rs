//! What may be chosen of a write: plain data, which the protocol reads.

use std::path::PathBuf;
use std::time::Duration;

/// What survives a power cut after `Ok`.
///
/// If only the process dies (a kill, a crash), all three leave either the old or the new file,
/// complete.
///
/// ```
/// use std::io::Write;
/// use write_atomically::{Durability, WriteOptions};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("thumbnail.png");
/// // It can be made again: a power cut may take it away, but not leave half of it.
/// let cache = WriteOptions::new().durability(Durability::Consistent);
/// cache.write(&path, |w| w.write_all(b"\x89PNG"))?;
/// # assert_eq!(std::fs::read(&path)?, b"\x89PNG");
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// The new content is there: the content is synced, then published, then its name is synced.
    #[default]
    Durable,
    /// The old content or the new is there, complete: the content is synced before it is published,
    /// its name is not.
    Consistent,
    /// Undefined: old, new, truncated or empty, depending on the filesystem. Nothing is synced,
    /// except on filesystems that may lose content when a file is closed (NFS, SMB, FUSE and other
    /// network filesystems), where syncing is the only way to learn of it.
    Relaxed,
}

/// The settings of [`WriteOptions`] without its error type, as the protocol sees them.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    pub(crate) mode: Option<u32>,
    pub(crate) new_file_mode: Option<u32>,
    pub(crate) preserve_metadata: bool,
    pub(crate) follow_symlinks: bool,
    pub(crate) create_parents: bool,
    pub(crate) in_place_fallback: bool,
    pub(crate) keep_hard_links: bool,
    pub(crate) lock_timeout: Option<Duration>,
    pub(crate) keep_failed: Option<PathBuf>,
    pub(crate) buffer_capacity: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            durability: Durability::Durable,
            mode: None,
            new_file_mode: None,
            preserve_metadata: true,
            follow_symlinks: true,
            create_parents: false,
            in_place_fallback: false,
            keep_hard_links: false,
            lock_timeout: None,
            keep_failed: None,
            buffer_capacity: None,
        }
    }
}
