//! The tests of the library, a module for each behaviour. Promises are numbered as in the guide.
//!
//! Tests that need root, mounted filesystems or strace are ignored, with the reason; `tests/privileged` runs them.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))] // Most of it is shared by the tests for Linux.

mod child;
mod filesystems;
#[cfg(any(unix, windows))]
mod producers;
mod support;
mod trees;

mod everywhere;
mod outcomes;
#[cfg(any(unix, windows))]
mod private;
#[cfg(windows)]
mod windows;

#[cfg(all(feature = "tokio", target_os = "linux"))]
mod asynchronous;

#[cfg(unix)]
mod errors;
#[cfg(unix)]
mod programs;
#[cfg(unix)]
mod typed;

#[cfg(target_os = "linux")]
mod batch;
#[cfg(target_os = "linux")]
mod by_path;
#[cfg(target_os = "linux")]
mod directory;
#[cfg(target_os = "linux")]
mod holes;
#[cfg(target_os = "linux")]
mod if_changed;
#[cfg(target_os = "linux")]
mod if_missing;
#[cfg(target_os = "linux")]
mod in_place;
#[cfg(target_os = "linux")]
mod kept;
#[cfg(target_os = "linux")]
mod links;
#[cfg(target_os = "linux")]
mod metadata;
#[cfg(target_os = "linux")]
mod numbers;
#[cfg(target_os = "linux")]
mod parents;
#[cfg(target_os = "linux")]
mod paths;
#[cfg(target_os = "linux")]
mod races;
#[cfg(target_os = "linux")]
mod shared;
#[cfg(target_os = "linux")]
mod staging;
#[cfg(target_os = "linux")]
mod structure;
#[cfg(target_os = "linux")]
mod sweep;
#[cfg(target_os = "linux")]
mod syscalls;
#[cfg(target_os = "linux")]
mod tree_races;
#[cfg(target_os = "linux")]
mod update;
#[cfg(target_os = "linux")]
mod waiting;
#[cfg(target_os = "linux")]
mod watchers;
