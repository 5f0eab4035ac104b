//! The request that makes an output visible, and what is true when its answer is an error or lost.

use std::io;
use std::time::Duration;

use ::object_store::path::Path as Key;
use ::object_store::{
    Attributes, CopyMode, CopyOptions, Error as StoreError, MultipartUpload, ObjectStoreExt,
    PutOptions, PutPayload,
};

use super::conditions::{Condition, Large};
use super::connector::conditional;
use super::reason::Verdict;
use super::target::{Author, Plan, Target};
use crate::error::{Error, Outcome, Step};
use crate::hint::Hint;

/// Whether the destination holds this write's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    Written,
    /// It was there already.
    Same,
}

/// Why an output was not published.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The condition did not hold: others have written the destination.
    Condition(Error),
    Failed(Error),
}

impl Refusal {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Refusal::Condition(error) | Refusal::Failed(error) => error,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Failed(error)
    }
}

/// How often cleaning up is tried: each attempt has the retries of the store's client inside.
pub(crate) const ATTEMPTS: u32 = 3;

/// How often a request is made again that the store could not serve because of another one.
const CONFLICTS: u32 = 8;

/// Writes a small output: one PUT.
pub(crate) async fn put(plan: &Plan, content: PutPayload) -> Result<Published, Refusal> {
    let target = &plan.target;
    let mut attributes = target.attributes().await?;
    let mut attempt = 0;
    loop {
        let options = PutOptions {
            mode: plan.condition.mode(),
            tags: target.settings.tags.clone(),
            attributes: attributes.clone(),
            ..PutOptions::default()
        };
        let error = match target.store.put_opts(&target.key, content.clone(), options).await {
            Ok(_) => return Ok(Published::Written),
            Err(error) => error,
        };
        if takes_no_id(&error, target, &attributes) {
            attributes = Attributes::new();
            continue;
        }
        attempt += 1;
        match settle(plan, error).await {
            Settled::Published => return Ok(Published::Written),
            Settled::Refused(refusal) => return Err(refusal),
            Settled::Busy(refusal) if attempt == CONFLICTS => return Err(refusal),
            Settled::Busy(_) => pause(attempt).await,
        }
    }
}

/// Stores that take no attributes (local directories) say so before they do anything. They do without
/// the id, but not without what the caller asks for.
pub(crate) fn takes_no_id(error: &StoreError, target: &Target, attributes: &Attributes) -> bool {
    let refused =
        matches!(error, StoreError::NotImplemented { .. } | StoreError::NotSupported { .. });
    refused && !attributes.is_empty() && target.settings.attributes.is_empty()
}

/// Waits a random time, longer with each attempt.
pub(crate) async fn pause(attempt: u32) {
    use std::hash::{BuildHasher, RandomState};
    let most = 10_u64 << attempt.min(6);
    let random = RandomState::new().hash_one(attempt) % most;
    tokio::time::sleep(Duration::from_millis(1 + random)).await;
}

enum Settled {
    Published,
    Refused(Refusal),
    /// Another request was in the way, and nothing is there: the same request may succeed.
    Busy(Refusal),
}

/// Finds out what is true after an error: the store may have acted although its answer was lost, and
/// the client's own retry then finds this write's object in its way.
async fn settle(plan: &Plan, error: StoreError) -> Settled {
    let target = &plan.target;
    let verdict = Verdict::of(&error);
    if matches!(verdict, Verdict::Refused | Verdict::Missing) {
        return Settled::Refused(target.error(Step::Publish, error).into());
    }
    let author = target.author().await;
    match (verdict, author) {
        (_, Author::This) => Settled::Published,
        (Verdict::Condition, Author::Unknown) => {
            let error = condition_failed(plan).with_outcome(Outcome::Unknown);
            Settled::Refused(Refusal::Condition(error))
        }
        (Verdict::Condition, Author::Nobody) if matches!(plan.condition, Condition::Missing) => {
            Settled::Busy(target.error(Step::Publish, error).into())
        }
        (Verdict::Condition, _) => Settled::Refused(Refusal::Condition(condition_failed(plan))),
        _ => {
            // A request whose answer was lost may still be on its way.
            let error = target.error(Step::Publish, error).with_outcome(Outcome::Unknown);
            Settled::Refused(error.into())
        }
    }
}

pub(crate) fn condition_failed(plan: &Plan) -> Error {
    let (kind, text) = match plan.condition {
        Condition::Unchanged(_) => {
            (io::ErrorKind::ResourceBusy, "others have replaced or removed it since it was read")
        }
        _ => (io::ErrorKind::AlreadyExists, "the object exists"),
    };
    plan.target.io_error(Step::Publish, io::Error::new(kind, text))
}

/// Completes an upload of which all parts have arrived.
pub(crate) async fn complete(
    plan: &Plan,
    upload: &mut dyn MultipartUpload,
    staged: Option<&Key>,
) -> Result<Published, Refusal> {
    if let Some(staged) = staged {
        return complete_by_copy(plan, upload, staged).await;
    }
    let completed = match plan.large {
        Large::ConditionalComplete => conditional(plan.condition.header(), upload.complete()).await,
        _ => upload.complete().await,
    };
    let Err(error) = completed else { return Ok(Published::Written) };
    let aborted = upload.abort().await;
    settle_completion(plan, error, aborted).await
}

/// Once an upload is aborted, no request of it that is still on its way can publish it.
async fn settle_completion(
    plan: &Plan,
    error: StoreError,
    aborted: ::object_store::Result<()>,
) -> Result<Published, Refusal> {
    let target = &plan.target;
    let author = target.author().await;
    if author == Author::This {
        return Ok(Published::Written);
    }
    let verdict = Verdict::of(&error);
    // S3 answers "no such key" to `If-Match` where there is no object.
    let removed = verdict == Verdict::Missing && error.to_string().contains("NoSuchKey");
    if verdict == Verdict::Condition && author != Author::Nobody || removed {
        let error = condition_failed(plan);
        let unknown = author == Author::Unknown;
        return Err(Refusal::Condition(if unknown {
            error.with_outcome(Outcome::Unknown)
        } else {
            error
        }));
    }
    let certain = author != Author::Unknown
        && (aborted.is_ok() || matches!(verdict, Verdict::Refused | Verdict::Condition));
    let error = target.error(Step::Publish, error);
    Err(Refusal::Failed(if certain { error } else { error.with_outcome(Outcome::Unknown) }))
}

/// Copies the completed upload from its own key, if nothing is at the destination.
async fn complete_by_copy(
    plan: &Plan,
    upload: &mut dyn MultipartUpload,
    staged: &Key,
) -> Result<Published, Refusal> {
    let target = &plan.target;
    if let Err(error) = upload.complete().await {
        let _ = upload.abort().await;
        let _ = remove(target, staged).await;
        return Err(target.error(Step::Stage, error).into());
    }
    let copied = copy_if_missing(plan, staged).await;
    let removed = remove(target, staged).await;
    copied?;
    removed.map_err(|error| target.error(Step::Remove, error).with_outcome(Outcome::Replaced))?;
    Ok(Published::Written)
}

/// Removes the staged object; a leftover would be paid for.
async fn remove(target: &Target, staged: &Key) -> ::object_store::Result<()> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match target.store.delete(staged).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(_) => pause(attempt).await,
        }
    }
}

async fn copy_if_missing(plan: &Plan, staged: &Key) -> Result<(), Refusal> {
    let target = &plan.target;
    let mut attempt = 0;
    loop {
        let options = CopyOptions::new().with_mode(CopyMode::Create);
        let copied = target.store.copy_opts(staged, &target.key, options).await;
        let Err(error) = copied else { return Ok(()) };
        attempt += 1;
        match settle(plan, error).await {
            Settled::Published => return Ok(()),
            Settled::Refused(refusal) => return Err(refusal),
            Settled::Busy(refusal) if attempt == CONFLICTS => return Err(refusal),
            Settled::Busy(_) => pause(attempt).await,
        }
    }
}

/// Asks for a copy of what is not there yet: a store that has no conditional copy says so.
pub(crate) async fn check_copy(plan: &Plan, staged: &Key) -> Result<(), Error> {
    let target = &plan.target;
    let options = CopyOptions::new().with_mode(CopyMode::Create);
    match target.store.copy_opts(staged, &target.key, options).await {
        Err(error @ (StoreError::NotSupported { .. } | StoreError::NotImplemented { .. })) => {
            Err(target.error(Step::Stage, error).with_hint(Hint::NoConditionalUpload))
        }
        _ => Ok(()),
    }
}
