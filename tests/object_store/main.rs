//! Objects: what is visible, what stays behind, and what is told, whatever fails.
//!
//! `cargo test --features object_store` runs what needs no server. `tests/object_store/run` starts the
//! servers and runs the rest, too.

mod blocking;
mod cancelled;
mod faults;
mod operations;
#[cfg(feature = "s3")]
mod proxy;
#[cfg(feature = "s3")]
mod servers;
mod store;
