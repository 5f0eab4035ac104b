//! Whether an output is what is at the destination already.

use std::future::poll_fn;
use std::pin::Pin;

use ::object_store::{GetOptions, ObjectMeta, PutPayload};
use bytes::Bytes;
use futures_core::Stream;

use super::target::Target;

type Content = Pin<Box<dyn Stream<Item = ::object_store::Result<Bytes>> + Send>>;

/// The old object, read in step with the new content, in constant memory. An object that can't be read
/// counts as different.
pub(crate) struct Comparison {
    old: ObjectMeta,
    content: Content,
    chunk: Bytes,
    compared: u64,
}

impl Comparison {
    pub(crate) async fn open(target: &Target) -> Option<Comparison> {
        let found = target.store.get_opts(&target.key, GetOptions::default()).await.ok()?;
        let old = found.meta.clone();
        Some(Comparison { old, content: found.into_stream(), chunk: Bytes::new(), compared: 0 })
    }

    /// Compares the next bytes.
    pub(crate) async fn continues_with(&mut self, part: &PutPayload) -> bool {
        self.compared += part.content_length() as u64;
        if self.compared > self.old.size {
            return false;
        }
        for bytes in part {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                if self.chunk.is_empty() {
                    match poll_fn(|context| self.content.as_mut().poll_next(context)).await {
                        Some(Ok(chunk)) => self.chunk = chunk,
                        Some(Err(_)) | None => return false,
                    }
                    continue;
                }
                let length = rest.len().min(self.chunk.len());
                if self.chunk.split_to(length) != rest[..length] {
                    return false;
                }
                rest = &rest[length..];
            }
        }
        true
    }

    /// Whether nothing follows, and the object is still the one that was read.
    pub(crate) async fn ends_equal(self, target: &Target) -> bool {
        if self.compared != self.old.size {
            return false;
        }
        match target.head().await {
            Ok(Some((now, _))) => {
                let version = |meta: &ObjectMeta| {
                    (meta.e_tag.clone(), meta.version.clone(), meta.last_modified, meta.size)
                };
                version(&now) == version(&self.old)
            }
            Ok(None) | Err(_) => false,
        }
    }
}
