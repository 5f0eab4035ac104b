//! What the closure of an update reads.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::object_store::{GetResult, ObjectMeta};
use bytes::Bytes;
use futures_core::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use super::reason;
use crate::error::{Error, Step};

/// The old content of an object that is being updated, from the start.
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
/// use tokio::io::AsyncWriteExt;
/// use write_atomically::object_store::update_atomically;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// # for line in ["started\n", "stopped\n"] {
/// update_atomically(&store, &"log".into(), async |old, new| {
///     if let Some(old) = old {
///         tokio::io::copy(old, new).await?;
///     }
///     new.write_all(line.as_bytes()).await?;
///     Ok(())
/// }).await?;
/// # }
/// # assert_eq!(store.get(&"log".into()).await?.bytes().await?, "started\nstopped\n");
/// # anyhow::Ok(()) })?;
/// # anyhow::Ok(())
/// ```
pub struct Reader {
    meta: ObjectMeta,
    content: Pin<Box<dyn Stream<Item = ::object_store::Result<Bytes>> + Send>>,
    chunk: Bytes,
    name: PathBuf,
}

impl Reader {
    pub(crate) fn new(found: GetResult, name: PathBuf) -> Self {
        let meta = found.meta.clone();
        Reader { meta, content: found.into_stream(), chunk: Bytes::new(), name }
    }

    /// The old object's size, time and ETag.
    pub fn meta(&self) -> &ObjectMeta {
        &self.meta
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let reader = self.get_mut();
        while reader.chunk.is_empty() {
            match ready!(reader.content.as_mut().poll_next(context)) {
                Some(Ok(chunk)) => reader.chunk = chunk,
                Some(Err(error)) => {
                    let error = Error::new(Step::Read, &reader.name, reason::to_io(error));
                    return Poll::Ready(Err(error.into()));
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = reader.chunk.len().min(buffer.remaining());
        buffer.put_slice(&reader.chunk.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("path", &self.name).finish_non_exhaustive()
    }
}
