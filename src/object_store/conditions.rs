//! Conditions: what the store is asked to check in the same step in which it acts, and whether it does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::object_store::path::Path as Key;
use ::object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, UpdateVersion,
};

use super::connector::{Offer, conditional};

/// What must be true of the destination at the instant in which it is published.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    Anything,
    Missing,
    Unchanged(UpdateVersion),
}

impl Condition {
    pub(crate) fn mode(&self) -> PutMode {
        match self {
            Condition::Anything => PutMode::Overwrite,
            Condition::Missing => PutMode::Create,
            Condition::Unchanged(version) => PutMode::Update(version.clone()),
        }
    }

    /// The header that a completing request carries.
    pub(crate) fn header(&self) -> Option<(&'static str, &str)> {
        match self {
            Condition::Anything => None,
            Condition::Missing => Some(("if-none-match", "*")),
            Condition::Unchanged(version) => Some(("if-match", version.e_tag.as_deref()?)),
        }
    }
}

/// How an output that is larger than one part is published under a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Large {
    /// The request that completes the upload has no condition.
    Complete,
    /// It has one: the store's client has our [`Connector`](super::Connector).
    ConditionalComplete,
    /// The upload goes to another key, from which the store copies it if the destination is missing.
    Copy,
    /// The store has no way.
    Unsupported,
}

impl Large {
    pub(crate) fn of(condition: &Condition, offer: &Offer) -> Self {
        match condition {
            Condition::Anything => Large::Complete,
            _ if offer.is_taken() => Large::ConditionalComplete,
            Condition::Missing => Large::Copy,
            Condition::Unchanged(_) => Large::Unsupported,
        }
    }
}

/// What has been found out about a store, so that it is found out once.
#[derive(Debug, Default)]
pub(crate) struct Known {
    puts: AtomicBool,
    completes: AtomicBool,
}

/// An ETag that no object has.
const NO_TAG: &str = "\"00000000000000000000000000000000\"";

fn impossible() -> UpdateVersion {
    // A generation of GCS, where ETags are no condition of a PUT.
    UpdateVersion { e_tag: Some(NO_TAG.to_owned()), version: Some("1".to_owned()) }
}

/// The key at which conditions are tried out: in the same directory, because access may be limited to it.
fn trial_key(key: &Key) -> Key {
    Key::from(format!("{key}.write-atomically-trial"))
}

/// Finds out whether the store honours the conditions of a PUT.
///
/// It asks for the impossible: to replace an object of that ETag where there is none. A store that
/// honours conditions refuses, and nothing was written. One that ignores them creates the object.
pub(crate) async fn check_puts(
    store: &Arc<dyn ObjectStore>,
    key: &Key,
    known: &Known,
) -> Result<(), Denial> {
    if known.puts.load(Ordering::Relaxed) {
        return Ok(());
    }
    let trial = trial_key(key);
    let update = PutOptions { mode: PutMode::Update(impossible()), ..PutOptions::default() };
    match store.put_opts(&trial, PutPayload::default(), update).await {
        Err(StoreError::Precondition { .. } | StoreError::AlreadyExists { .. }) => {}
        Err(StoreError::NotFound { .. }) => {}
        Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => {
            check_creation(store, &trial).await?
        }
        Err(error) => return Err(Denial::Failed(error)),
        Ok(_) => {
            let _ = store.delete(&trial).await;
            return Err(Denial::Ignored);
        }
    }
    known.puts.store(true, Ordering::Relaxed);
    Ok(())
}

/// For stores that can create but not update (local directories): creating twice must fail.
async fn check_creation(store: &Arc<dyn ObjectStore>, trial: &Key) -> Result<(), Denial> {
    let create = || PutOptions::from(PutMode::Create);
    let first = store.put_opts(trial, PutPayload::default(), create()).await;
    if let Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) = first {
        return Err(Denial::NotThere);
    }
    let second = store.put_opts(trial, PutPayload::default(), create()).await;
    let _ = store.delete(trial).await;
    match second {
        Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(()),
        Err(error) => Err(Denial::Failed(error)),
        Ok(_) => Err(Denial::Ignored),
    }
}

/// The same for the request that completes an upload.
pub(crate) async fn check_completes(
    store: &Arc<dyn ObjectStore>,
    key: &Key,
    known: &Known,
) -> Result<(), Denial> {
    if known.completes.load(Ordering::Relaxed) {
        return Ok(());
    }
    let trial = trial_key(key);
    let upload = store.put_multipart_opts(&trial, PutMultipartOptions::default()).await;
    let mut upload = upload.map_err(Denial::Failed)?;
    let completed = match upload.put_part(PutPayload::from_static(b"trial")).await {
        Ok(()) => conditional(Condition::Unchanged(impossible()).header(), upload.complete()).await,
        Err(error) => Err(error),
    };
    if completed.is_ok() {
        let _ = store.delete(&trial).await;
        return Err(Denial::Ignored);
    }
    let _ = upload.abort().await;
    match completed {
        Err(StoreError::Precondition { .. } | StoreError::NotFound { .. }) => {
            known.completes.store(true, Ordering::Relaxed);
            Ok(())
        }
        Err(error) => Err(Denial::Failed(error)),
        Ok(_) => Ok(()),
    }
}

/// Why a condition can't be relied upon.
pub(crate) enum Denial {
    /// The store acts as if there were none.
    Ignored,
    /// The store, or its client, has none.
    NotThere,
    Failed(StoreError),
}

impl From<Denial> for io::Error {
    fn from(denial: Denial) -> Self {
        let unsupported = |text: &str| io::Error::new(io::ErrorKind::Unsupported, text.to_owned());
        match denial {
            Denial::Ignored => unsupported("the store ignores conditions"),
            Denial::NotThere => unsupported("the store has no conditional writes"),
            Denial::Failed(error) => super::reason::to_io(error),
        }
    }
}
