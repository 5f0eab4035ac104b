//! What users call: one file an operation. Each has the function at the crate's root, the method of
//! [`WriteOptions`](crate::WriteOptions) with the documentation, and what only this operation needs.

pub(crate) mod batch;
pub(crate) mod create;
pub(crate) mod dir;
pub(crate) mod if_changed;
pub(crate) mod if_missing;
pub(crate) mod path;
pub(crate) mod sweep;
pub(crate) mod update;
pub(crate) mod write;
