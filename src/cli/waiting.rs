//! Saying what this program waits for, when others write the destination.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::failure::say;
use super::platform::{self, Holder};

const PATIENCE: Duration = Duration::from_secs(1);

/// From asking for the lock of a destination until it is there, which is when this is dropped.
pub struct Waiting {
    _over: Sender<()>,
}

impl Waiting {
    /// Says after a second what is waited for: to someone who looks at it (`shows`), and to everybody if
    /// the wait can't end.
    pub fn begin(destination: &Path, shows: bool) -> Waiting {
        let (sender, over) = mpsc::channel::<()>();
        let destination = destination.to_owned();
        thread::spawn(move || {
            if over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                if let Some(text) = explain(&destination, shows) {
                    say(format_args!("write-atomically: {text}"));
                }
            }
        });
        Waiting { _over: sender }
    }
}

fn explain(destination: &Path, shows: bool) -> Option<String> {
    let path = destination.display();
    let mut locked = vec![destination.to_owned()];
    locked.extend(staging_entry(destination));
    match locked.iter().find_map(|path| platform::lock_holder(path)) {
        Some(Holder::Ancestor { name, id }) => Some(format!(
            "waiting for the lock of `{path}`, which `{name}` (process {id}) has; that process has started \
             this one: if it waits for this one, neither ever ends"
        )),
        Some(Holder::Inherited) => Some(format!(
            "waiting for the lock of `{path}`, which this process has inherited, as flock(1) lets it: if \
             nobody unlocks it, this never ends"
        )),
        Some(Holder::Other { name, id }) if shows => {
            Some(format!("waiting for `{name}` (process {id}), which has locked `{path}`"))
        }
        None if shows => Some(format!("waiting for another program, which writes `{path}`")),
        _ => None,
    }
}

/// What is locked while a destination is created.
fn staging_entry(destination: &Path) -> Option<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    name.push(destination.file_name()?);
    name.push(".write-atomically");
    Some(destination.with_file_name(name))
}
