//! What users call: one file an operation.

pub(crate) mod batch;
pub(crate) mod create;
pub(crate) mod if_changed;
pub(crate) mod if_missing;
pub(crate) mod path;
pub(crate) mod update;
pub(crate) mod write;
