//! How to write objects: what the caller may choose, apart from what to write and where.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::object_store::{Attributes, TagSet};

use super::conditions::Known;
use super::sizes::PART;

/// How to write objects, and with which error type: the functions of this module as methods, with
/// settings.
///
/// `E` is the error type of the closures and of the results, as for
/// [`WriteOptions`](crate::WriteOptions). Clones share what has been found out about the store's
/// conditions: use one `ObjectOptions` for one store.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
/// use object_store::{Attribute, Attributes};
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::object_store::ObjectOptions;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// let csv = Attributes::from_iter([(Attribute::ContentType, "text/csv")]);
/// let options = ObjectOptions::new().attributes(csv);
/// options.write(&store, &"a.csv".into(), async |w| w.write_all(b"id\n").await).await?;
/// # let found = store.get(&"a.csv".into()).await?;
/// # assert_eq!(&**found.attributes.get(&Attribute::ContentType).unwrap(), "text/csv");
/// # std::io::Result::Ok(()) })?;
/// # std::io::Result::Ok(())
/// ```
pub struct ObjectOptions<E = io::Error> {
    settings: Settings,
    error: PhantomData<fn() -> E>,
}

/// The settings without the error type.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) part_size: usize,
    pub(crate) parts_in_flight: usize,
    pub(crate) uniform_parts: bool,
    pub(crate) expected_size: Option<u64>,
    pub(crate) attributes: Attributes,
    pub(crate) tags: TagSet,
    pub(crate) preserve_metadata: bool,
    pub(crate) update_retries: u32,
    pub(crate) timeout: Duration,
    pub(crate) trust_conditions: bool,
    pub(crate) staging_directory: Option<PathBuf>,
    pub(crate) known: Arc<Known>,
}

impl<E> Clone for ObjectOptions<E> {
    fn clone(&self) -> Self {
        self.with_error()
    }
}

impl<E> fmt::Debug for ObjectOptions<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectOptions").field("settings", &self.settings).finish()
    }
}

impl<E> Default for ObjectOptions<E> {
    fn default() -> Self {
        let settings = Settings {
            part_size: PART,
            parts_in_flight: 4,
            uniform_parts: false,
            expected_size: None,
            attributes: Attributes::new(),
            tags: TagSet::default(),
            preserve_metadata: false,
            update_retries: 100,
            timeout: Duration::from_secs(30),
            trust_conditions: false,
            staging_directory: None,
            known: Arc::default(),
        };
        ObjectOptions { settings, error: PhantomData }
    }
}

impl ObjectOptions {
    /// The options that the functions of this module use, with [`io::Error`] as error type.
    ///
    /// ```
    /// use write_atomically::object_store::ObjectOptions;
    ///
    /// let options = ObjectOptions::new().part_size(16 << 20).parts_in_flight(8);
    /// # assert!(format!("{options:?}").contains("parts_in_flight: 8"));
    /// ```
    pub fn new() -> Self {
        ObjectOptions::default()
    }
}

impl<E> ObjectOptions<E> {
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    fn with_error<F>(&self) -> ObjectOptions<F> {
        ObjectOptions { settings: self.settings.clone(), error: PhantomData }
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// The same options for closures that return [`anyhow::Error`].
    #[cfg(feature = "anyhow")]
    pub fn anyhow(self) -> ObjectOptions<anyhow::Error> {
        self.with_error()
    }

    /// The same options for closures that return another error type.
    pub fn error<F: From<io::Error>>(self) -> ObjectOptions<F> {
        self.with_error()
    }

    /// The size of the first parts of an upload, in bytes, and the largest output that is one PUT:
    /// 8 MiB by default, at least 5 MiB.
    ///
    /// A write needs memory for [`parts_in_flight`](Self::parts_in_flight) parts and the one that is
    /// being filled: 40 MiB by default. From the 2,001st part on (16 GiB by default) parts grow,
    /// because an upload has at most 10,000 of them and an object may have 5 TiB.
    pub fn part_size(self, bytes: usize) -> Self {
        self.set(|settings| settings.part_size = bytes)
    }

    /// How many parts are sent at the same time: 4 by default, at least 1. The closure's writes wait
    /// while that many are on their way.
    pub fn parts_in_flight(self, parts: usize) -> Self {
        self.set(|settings| settings.parts_in_flight = parts.max(1))
    }

    /// Whether all parts but the last have one size, as Cloudflare R2 demands; no by default. An output
    /// of more than 10,000 parts is then an error; see [`expected_size`](Self::expected_size).
    pub fn uniform_parts(self, uniform: bool) -> Self {
        self.set(|settings| settings.uniform_parts = uniform)
    }

    /// Announces how large the output will be, in bytes, so that parts are as large as that demands,
    /// and that a size that can't be written is an error before the closure runs.
    pub fn expected_size(self, bytes: u64) -> Self {
        self.set(|settings| settings.expected_size = Some(bytes))
    }

    /// What the store keeps beside the content: the content type, user metadata and others.
    ///
    /// The user metadata `writeid` is added to them, by which a write recognizes its own object when
    /// the store's answer was lost; not for stores that take no attributes.
    pub fn attributes(self, attributes: Attributes) -> Self {
        self.set(|settings| settings.attributes = attributes)
    }

    /// The object's tags; stores without tags ignore them.
    pub fn tags(self, tags: TagSet) -> Self {
        self.set(|settings| settings.tags = tags)
    }

    /// Whether attributes of the object that is replaced are kept where
    /// [`attributes`](Self::attributes) does not name them; no by default. They are read, with a
    /// request of its own, when the upload begins. Tags are not kept.
    pub fn preserve_metadata(self, preserve: bool) -> Self {
        self.set(|settings| settings.preserve_metadata = preserve)
    }

    /// How often [`update`](Self::update) runs the closure again because others have changed the object
    /// meanwhile: 100 times by default.
    pub fn update_retries(self, retries: u32) -> Self {
        self.set(|settings| settings.update_retries = retries)
    }

    /// How long the look at the store before the closure runs may take: 30 seconds by default. Later
    /// requests have the limits of the store's own `RetryConfig` and `ClientOptions`.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set(|settings| settings.timeout = timeout)
    }

    /// Whether the store is known to honour conditions, so that they need not be tried out (see
    /// [the module](super#conditions)); no by default.
    pub fn trust_conditions(self, trust: bool) -> Self {
        self.set(|settings| settings.trust_conditions = trust)
    }

    /// Where [`write_path`](Self::write_path) stages its file: in [`std::env::temp_dir`] by default, which
    /// may be too small, or in memory.
    pub fn staging_directory(self, directory: impl Into<PathBuf>) -> Self {
        self.set(|settings| settings.staging_directory = Some(directory.into()))
    }
}
