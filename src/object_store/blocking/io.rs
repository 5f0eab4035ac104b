//! What closures write to and read from.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::pin::Pin;

use ::object_store::ObjectMeta;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wait::wait;

/// The object that a closure writes: [`object_store::Writer`](super::super::Writer) for
/// [`std::io::Write`].
///
/// ```
/// # use std::sync::Arc;
/// # use object_store::{ObjectStore, memory::InMemory};
/// use std::io::Write;
/// use write_atomically::object_store::blocking::write_atomically;
///
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// write_atomically(&store, &"a.txt".into(), |w| Ok(writeln!(w, "a")?))?;
/// # anyhow::Ok(())
/// ```
pub struct Writer<'a> {
    inner: &'a mut super::super::Writer,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(inner: &'a mut super::super::Writer) -> Self {
        Writer { inner }
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        wait(poll_fn(|context| Pin::new(&mut *self.inner).poll_write(context, bytes)))?
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.inner, f)
    }
}

/// The old content of an object that is being updated: [`object_store::Reader`](super::super::Reader)
/// for [`std::io::Read`].
pub struct Reader<'a> {
    inner: &'a mut super::super::Reader,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(inner: &'a mut super::super::Reader) -> Self {
        Reader { inner }
    }

    /// The old object's size, time and ETag.
    pub fn meta(&self) -> &ObjectMeta {
        self.inner.meta()
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(bytes);
        wait(poll_fn(|context| Pin::new(&mut *self.inner).poll_read(context, &mut buffer)))??;
        Ok(buffer.filled().len())
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.inner, f)
    }
}
