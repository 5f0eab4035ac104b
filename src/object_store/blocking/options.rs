//! The same operations with synchronous closures.

use std::fmt;
use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;

use ::object_store::ObjectStore;
use ::object_store::path::Path;
use tokio::runtime::Handle;

use super::io::{Reader, Writer};
use super::wait::{outside, wait};
use crate::Change;
use crate::object_store::operations::batch::Batch as AsyncBatch;
use crate::object_store::{
    ObjectOptions as AsyncOptions, Reader as AsyncReader, Writer as AsyncWriter,
};

/// How to write objects from programs without async code: [`ObjectOptions`](AsyncOptions) with
/// synchronous methods.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, memory::InMemory};
/// use std::io::Write;
/// use write_atomically::object_store::ObjectOptions;
///
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// let options = ObjectOptions::new().part_size(16 << 20).blocking();
/// options.write(&store, &"a.txt".into(), |w| writeln!(w, "a"))?;
/// # std::io::Result::Ok(())
/// ```
pub struct ObjectOptions<E = io::Error> {
    inner: AsyncOptions<E>,
}

impl<E> Clone for ObjectOptions<E> {
    fn clone(&self) -> Self {
        ObjectOptions { inner: self.inner.clone() }
    }
}

impl<E> fmt::Debug for ObjectOptions<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}

impl<E> AsyncOptions<E> {
    /// The same options for programs without async code.
    pub fn blocking(self) -> ObjectOptions<E> {
        ObjectOptions { inner: self }
    }
}

fn caller() -> Option<Handle> {
    Handle::try_current().ok()
}

impl<E: From<io::Error>> ObjectOptions<E> {
    /// Writes an object that appears at `path` only when the closure `fill` has returned `Ok`; see
    /// [`ObjectOptions::write`](AsyncOptions::write).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let caller = caller();
        let fill =
            async |w: &mut AsyncWriter| outside(caller.as_ref(), || fill(&mut Writer::new(w)));
        wait(self.inner.write(store, path, fill))?
    }

    /// Writes a whole object from bytes in memory; see
    /// [`ObjectOptions::write_bytes`](AsyncOptions::write_bytes).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_bytes(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        bytes: impl Into<bytes::Bytes>,
    ) -> Result<(), E> {
        wait(self.inner.write_bytes(store, path, bytes))?
    }

    /// Creates an object; one that exists is an error; see
    /// [`ObjectOptions::create`](AsyncOptions::create).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn create<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let caller = caller();
        let fill =
            async |w: &mut AsyncWriter| outside(caller.as_ref(), || fill(&mut Writer::new(w)));
        wait(self.inner.create(store, path, fill))?
    }

    /// Writes an object unless it exists; see
    /// [`ObjectOptions::write_if_missing`](AsyncOptions::write_if_missing).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_if_missing<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let caller = caller();
        let fill =
            async |w: &mut AsyncWriter| outside(caller.as_ref(), || fill(&mut Writer::new(w)));
        wait(self.inner.write_if_missing(store, path, fill))?
    }

    /// Writes an object unless the same bytes are there already; see
    /// [`ObjectOptions::write_if_changed`](AsyncOptions::write_if_changed).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_if_changed<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<T, E>,
    ) -> Result<Change<T>, E> {
        let caller = caller();
        let fill =
            async |w: &mut AsyncWriter| outside(caller.as_ref(), || fill(&mut Writer::new(w)));
        wait(self.inner.write_if_changed(store, path, fill))?
    }

    /// Reads an object and writes its new content; the closure runs again if others have written it
    /// meanwhile; see [`ObjectOptions::update`](AsyncOptions::update).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn update<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        mut fill: impl FnMut(Option<&mut Reader<'_>>, &mut Writer<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let caller = caller();
        let fill = async |old: Option<&mut AsyncReader>, w: &mut AsyncWriter| {
            let mut old = old.map(Reader::new);
            outside(caller.as_ref(), || fill(old.as_mut(), &mut Writer::new(w)))
        };
        wait(self.inner.update(store, path, fill))?
    }

    /// Lets a producer write a local file at a path, and uploads it when the closure has returned `Ok`;
    /// see [`ObjectOptions::write_path`](AsyncOptions::write_path).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_path<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        produce: impl FnOnce(&FilePath) -> Result<T, E>,
    ) -> Result<T, E> {
        let caller = caller();
        let produce = async |staged: &FilePath| outside(caller.as_ref(), || produce(staged));
        wait(self.inner.write_path(store, path, produce))?
    }

    /// As [`write_path`](Self::write_path), unless the object exists; see
    /// [`ObjectOptions::write_path_if_missing`](AsyncOptions::write_path_if_missing).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_path_if_missing<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        produce: impl FnOnce(&FilePath) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let caller = caller();
        let produce = async |staged: &FilePath| outside(caller.as_ref(), || produce(staged));
        wait(self.inner.write_path_if_missing(store, path, produce))?
    }

    /// Writes many objects, none of which appears before the closure `fill` has returned `Ok`; see
    /// [`ObjectOptions::write_batch`](AsyncOptions::write_batch).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_batch<T>(
        &self,
        store: &Arc<dyn ObjectStore>,
        fill: impl FnOnce(&mut Batch<'_, E>) -> Result<T, E>,
    ) -> Result<T, E> {
        let caller = caller();
        let fill = async |inner: &mut AsyncBatch<E>| {
            let mut batch = Batch { inner, caller: caller.clone() };
            outside(caller.as_ref(), || fill(&mut batch))
        };
        wait(self.inner.write_batch(store, fill))?
    }
}

/// The objects of one [`write_batch`](ObjectOptions::write_batch).
pub struct Batch<'a, E = io::Error> {
    inner: &'a mut AsyncBatch<E>,
    caller: Option<Handle>,
}

impl<E> Batch<'_, E> {
    /// The number of objects that are complete.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether no object is complete yet.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }
}

impl<E: From<io::Error>> Batch<'_, E> {
    /// Writes one of the batch's objects, which will appear at `path` with the others.
    ///
    /// # Errors
    ///
    /// As [`Batch::write`](AsyncBatch::write).
    pub fn write<T>(
        &mut self,
        path: &Path,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let caller = self.caller.as_ref();
        let fill = async |w: &mut AsyncWriter| outside(caller, || fill(&mut Writer::new(w)));
        wait(self.inner.write(path, fill))?
    }
}

impl<E> fmt::Debug for Batch<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.inner, f)
    }
}
