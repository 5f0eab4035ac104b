//! What every local write does, in the order in which it happens: resolve the path, find out how the
//! destination can be written, create a staging file, let the closure fill it, carry over the
//! metadata, sync, publish.
//!
//! Three looks at a destination have one name each: `at_start` is what was there when the call
//! started, `current` what is there when it is published, `old` the one that is replaced.

pub(crate) mod acl;
pub(crate) mod batch_dirs;
pub(crate) mod claim;
pub(crate) mod dead;
pub(crate) mod destination;
pub(crate) mod entry;
pub(crate) mod exchange;
pub(crate) mod failed_output;
pub(crate) mod fill;
pub(crate) mod guard;
pub(crate) mod in_place;
pub(crate) mod lock;
pub(crate) mod metadata;
pub(crate) mod names;
pub(crate) mod output;
pub(crate) mod parents;
pub(crate) mod private_dir;
pub(crate) mod publish;
pub(crate) mod resolve;
pub(crate) mod stage;
pub(crate) mod tree;
