//! Where an object is written: the store, the key, and what is known of them before the closure runs.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::object_store::path::Path as Key;
use ::object_store::{
    Attribute, Attributes, Error as StoreError, Extensions, GetOptions, GetResult, ObjectMeta,
    ObjectStore,
};

use super::conditions::{Condition, Large, check_puts};
use super::connector::Offer;
use super::options::Settings;
use super::reason::{self, Verdict};
use super::sizes::Sizes;
use crate::error::{Error, Step};
use crate::hint::Hint;

/// The user metadata that holds a write's id. Azure allows letters, digits and underscores only, and
/// proxies drop headers with underscores.
const ID: &str = "writeid";

/// One write to one destination.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) key: Key,
    pub(crate) name: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) id: String,
}

impl Target {
    /// Outside a runtime there is nothing that could send, wait or abort: an error, not tokio's panic.
    pub(crate) fn new(
        store: &Arc<dyn ObjectStore>,
        key: &Key,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let (store, key, settings) = (store.clone(), key.clone(), settings.clone());
        let target = Target { name: name_of(&store, &key), store, key, settings, id: new_id() };
        match tokio::runtime::Handle::try_current() {
            Ok(_) => Ok(target),
            Err(error) => {
                let error = io::Error::new(io::ErrorKind::Unsupported, error);
                Err(target.io_error(Step::Resolve, error))
            }
        }
    }

    pub(crate) fn error(&self, step: Step, error: StoreError) -> Error {
        Error::new(step, &self.name, reason::to_io(error))
    }

    pub(crate) fn io_error(&self, step: Step, error: io::Error) -> Error {
        Error::new(step, &self.name, error)
    }

    /// Looks at the destination before any work is done, within bounded time: with one request that
    /// transfers no content, and a second one where there is no object.
    ///
    /// It is a GET under a condition that no object fulfils, not a HEAD, whose answers have no body:
    /// they do not tell a missing bucket from a missing object. SeaweedFS does not tell it under a
    /// condition either.
    pub(crate) async fn look(&self) -> Result<Found, Error> {
        let target = self.clone();
        self.in_task(async move { target.look_now().await }).await
    }

    async fn look_now(&self) -> Result<Found, Error> {
        let offer = Offer::default();
        let options = GetOptions { if_match: Some("\"write-atomically\"".into()), ..with(&offer) };
        let mut answer = self.bounded(self.store.get_opts(&self.key, options)).await?;
        if matches!(answer, Err(StoreError::NotFound { .. })) {
            answer = self.bounded(self.store.get_opts(&self.key, with(&offer))).await?;
        }
        let exists = match answer {
            Ok(_) => true,
            Err(error) if Verdict::of(&error) == Verdict::Condition => true,
            Err(error) => self.tell_missing(error)?,
        };
        Ok(Found { exists, offer })
    }

    fn tell_missing(&self, error: StoreError) -> Result<bool, Error> {
        match &error {
            StoreError::NotFound { .. } if !reason::no_bucket(&error) => Ok(false),
            error if reason::is_unreadable(error) => Ok(false),
            _ => Err(self.error(Step::Resolve, error)),
        }
    }

    /// Opens the old object for an update.
    pub(crate) async fn open(&self) -> Result<(Option<GetResult>, Offer), Error> {
        let target = self.clone();
        self.in_task(async move { target.open_now().await }).await
    }

    async fn open_now(&self) -> Result<(Option<GetResult>, Offer), Error> {
        let offer = Offer::default();
        match self.bounded(self.store.get_opts(&self.key, with(&offer))).await? {
            Ok(found) => Ok((Some(found), offer)),
            Err(error @ StoreError::NotFound { .. }) if !reason::no_bucket(&error) => {
                Ok((None, offer))
            }
            Err(error) => Err(self.error(Step::Read, error)),
        }
    }

    /// Runs requests by a task of the runtime. A trial that has begun is cleaned up also if the caller goes
    /// away; and a blocking call inside another runtime's task must not poll the store itself, because
    /// that runtime defers some wake-ups until the task returns (tokio, `yield_now`).
    async fn in_task<T: Send + 'static>(
        &self,
        requests: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        tokio::spawn(requests)
            .await
            .unwrap_or_else(|error| Err(self.io_error(Step::Resolve, io::Error::other(error))))
    }

    async fn bounded<T>(&self, request: impl Future<Output = T>) -> Result<T, Error> {
        let limit = self.settings.timeout;
        tokio::time::timeout(limit, request).await.map_err(|_| {
            let text = format!("the store has not answered within {limit:?}");
            self.io_error(Step::Resolve, io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    /// The write's plan, once it is known that the store can do it.
    pub(crate) async fn plan(&self, condition: Condition, offer: &Offer) -> Result<Plan, Error> {
        let settings = &self.settings;
        if matches!(&condition, Condition::Unchanged(v) if v.e_tag.is_none() && v.version.is_none())
        {
            let error =
                io::Error::new(io::ErrorKind::Unsupported, "the store gives objects no ETag");
            return Err(unsupported(self.io_error(Step::Resolve, error)));
        }
        let checked = !matches!(condition, Condition::Anything) && !settings.trust_conditions;
        if checked {
            let target = self.clone();
            self.in_task(async move { target.check_puts().await }).await?;
        }
        let expected = settings.expected_size;
        let sizes = Sizes::new(settings.part_size, settings.uniform_parts, expected)
            .map_err(|error| self.io_error(Step::Resolve, error))?;
        let large = Large::of(&condition, offer);
        if large == Large::Unsupported && expected.is_some_and(|size| size > sizes.current()) {
            return Err(self.too_large_for_condition());
        }
        Ok(Plan { target: self.clone(), condition, large, sizes })
    }

    async fn check_puts(&self) -> Result<(), Error> {
        let check = check_puts(&self.store, &self.key, &self.settings.known);
        let answer = self.bounded(check).await?.map_err(io::Error::from);
        answer.map_err(|error| unsupported(self.io_error(Step::Resolve, error)))
    }

    pub(crate) fn too_large_for_condition(&self) -> Error {
        let text = "the output is larger than one part";
        let error = io::Error::new(io::ErrorKind::Unsupported, text);
        self.io_error(Step::Stage, error).with_hint(Hint::NoConditionalUpload)
    }

    /// What the store keeps beside the content.
    pub(crate) async fn attributes(&self) -> Result<Attributes, Error> {
        let mut attributes = Attributes::new();
        if self.settings.preserve_metadata {
            if let Some((_, old)) = self.head().await.map_err(|e| self.error(Step::Metadata, e))? {
                attributes = old;
            }
        }
        for (name, value) in &self.settings.attributes {
            attributes.insert(name.clone(), value.clone());
        }
        attributes.insert(Attribute::Metadata(ID.into()), self.id.clone().into());
        Ok(attributes)
    }

    pub(crate) async fn head(&self) -> ::object_store::Result<Option<(ObjectMeta, Attributes)>> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.store.get_opts(&self.key, options).await {
            Ok(found) => Ok(Some((found.meta, found.attributes))),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Who has written what is at the destination now.
    pub(crate) async fn author(&self) -> Author {
        match self.head().await {
            Err(_) => Author::Unknown,
            Ok(None) => Author::Nobody,
            Ok(Some((_, attributes))) => match attributes.get(&Attribute::Metadata(ID.into())) {
                Some(id) if **id == *self.id => Author::This,
                _ => Author::Another,
            },
        }
    }
}

/// Who has written the object at the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Author {
    This,
    Another,
    Nobody,
    Unknown,
}

/// What the first look has shown.
pub(crate) struct Found {
    pub(crate) exists: bool,
    pub(crate) offer: Offer,
}

/// A write that can begin.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) condition: Condition,
    pub(crate) large: Large,
    pub(crate) sizes: Sizes,
}

fn with(offer: &Offer) -> GetOptions {
    let mut extensions = Extensions::new();
    extensions.insert(offer.clone());
    GetOptions { extensions, ..GetOptions::default() }
}

pub(crate) fn unsupported(error: Error) -> Error {
    match error.kind() {
        io::ErrorKind::Unsupported => error.with_hint(Hint::ConditionsIgnored),
        _ => error,
    }
}

/// The destination's URL, for messages; stores say their bucket only in `Display`.
fn name_of(store: &Arc<dyn ObjectStore>, key: &Key) -> PathBuf {
    let store = store.to_string();
    let inside = |prefix: &str| Some(store.strip_prefix(prefix)?.trim_end_matches(')'));
    let url = match store.as_str() {
        "InMemory" => format!("memory:///{key}"),
        _ if store.starts_with("MicrosoftAzure") => {
            let container = store.split("container: ").nth(1).unwrap_or_default();
            format!("az://{}/{key}", container.trim_end_matches([' ', '}']))
        }
        other => match (inside("AmazonS3("), inside("GoogleCloudStorage(")) {
            (Some(bucket), _) => format!("s3://{bucket}/{key}"),
            (_, Some(bucket)) => format!("gs://{bucket}/{key}"),
            _ => format!("{other}/{key}"),
        },
    };
    Path::new(&url).to_owned()
}

/// An id that no other write has. `RandomState` has keys from the system's random source.
fn new_id() -> String {
    let now = std::time::SystemTime::now();
    let half = || RandomState::new().hash_one((now, std::process::id()));
    format!("{:016x}{:016x}", half(), half())
}
