//! A store that fails as it is told, over one in memory; and what is in it.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::*;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Get,
    Put,
    Begin,
    Part,
    Complete,
    Abort,
    Copy,
    Delete,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks before the store has seen the request.
    Reset,
    /// The store acts, and its answer is lost; the client gives up.
    AnswerLost,
    /// The store acts, its answer is lost, and the client sends the request again.
    Repeated,
    Denied,
    /// 409: another request is in the way.
    Conflict,
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Once,
    Always,
}

#[derive(Debug, Default)]
struct Behaviour {
    fault: Mutex<Option<(Request, Fault, Times)>>,
    ignores_conditions: Mutex<bool>,
    yields: Mutex<bool>,
    unfinished: AtomicI64,
    requests: Mutex<Vec<Request>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<InMemory>,
    behaviour: Arc<Behaviour>,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InMemory")
    }
}

fn error(text: &str) -> Error {
    Error::Generic { store: "test", source: text.to_owned().into() }
}

impl Store {
    pub fn new() -> Self {
        Store { inner: Arc::default(), behaviour: Arc::default() }
    }

    pub fn shared(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.clone())
    }

    pub fn fail(&self, request: Request, fault: Fault, times: Times) {
        *self.behaviour.fault.lock().unwrap() = Some((request, fault, times));
    }

    pub fn heal(&self) {
        *self.behaviour.fault.lock().unwrap() = None;
    }

    pub fn ignore_conditions(&self) {
        *self.behaviour.ignores_conditions.lock().unwrap() = true;
    }

    /// Every request takes two polls more.
    pub fn be_slow(&self) {
        *self.behaviour.yields.lock().unwrap() = true;
    }

    pub fn requests(&self) -> Vec<Request> {
        self.behaviour.requests.lock().unwrap().clone()
    }

    pub fn most_parts_in_flight(&self) -> usize {
        self.behaviour.most_in_flight.load(Ordering::SeqCst)
    }

    /// How many uploads have been begun and neither completed nor aborted.
    pub fn unfinished(&self) -> i64 {
        self.behaviour.unfinished.load(Ordering::SeqCst)
    }

    pub async fn content(&self, path: &str) -> Option<Vec<u8>> {
        let found = self.inner.get(&path.into()).await.ok()?;
        Some(found.bytes().await.unwrap().to_vec())
    }

    pub async fn attributes(&self, path: &str) -> Attributes {
        self.inner.get(&path.into()).await.unwrap().attributes
    }

    /// The keys of all objects.
    pub async fn listing(&self) -> Vec<String> {
        let list: Vec<ObjectMeta> = self.inner.list(None).try_collect().await.unwrap();
        list.into_iter().map(|object| object.location.to_string()).collect()
    }

    pub async fn put_old(&self, path: &str, content: &str) {
        self.inner.put(&path.into(), content.to_owned().into()).await.unwrap();
    }

    async fn pause(&self) {
        if *self.behaviour.yields.lock().unwrap() {
            tokio::task::yield_now().await;
        }
    }

    fn due(&self, request: Request) -> Option<Fault> {
        let mut due = self.behaviour.fault.lock().unwrap();
        let (which, fault, times) = (*due)?;
        if which != request {
            return None;
        }
        if times == Times::Once {
            *due = None;
        }
        Some(fault)
    }

    /// Makes a request, or fails as it is told.
    async fn ask<T, F: Future<Output = Result<T>>>(
        &self,
        request: Request,
        path: &Path,
        act: impl Fn() -> F,
    ) -> Result<T> {
        self.behaviour.requests.lock().unwrap().push(request);
        self.pause().await;
        let fault = self.due(request);
        let result = match fault {
            None => act().await,
            Some(Fault::Reset) => Err(error("connection reset")),
            Some(Fault::AnswerLost) => act().await.and(Err(error("answer lost"))),
            Some(Fault::Repeated) => match act().await {
                Ok(_) => act().await,
                error => error,
            },
            Some(Fault::Denied) => Err(Error::PermissionDenied {
                path: path.to_string(),
                source: "<Code>AccessDenied</Code>".into(),
            }),
            Some(Fault::Conflict) => {
                Err(Error::AlreadyExists { path: path.to_string(), source: "409".into() })
            }
        };
        self.pause().await;
        result
    }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(
        &self,
        path: &Path,
        content: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let act = || async {
            let mut options = options.clone();
            if *self.behaviour.ignores_conditions.lock().unwrap() {
                options.mode = PutMode::Overwrite;
            }
            self.inner.put_opts(path, content.clone(), options).await
        };
        self.ask(Request::Put, path, act).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let act = || async {
            let upload = self.inner.put_multipart_opts(path, options.clone()).await?;
            self.behaviour.unfinished.fetch_add(1, Ordering::SeqCst);
            Ok(upload)
        };
        let begun = self.ask(Request::Begin, path, act).await;
        let inner = Arc::new(tokio::sync::Mutex::new(begun?));
        let upload =
            Upload { store: self.clone(), path: path.clone(), inner, open: Arc::default() };
        upload.open.store(1, Ordering::SeqCst);
        Ok(Box::new(upload))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let act = || self.inner.get_opts(path, options.clone());
        self.ask(Request::Get, path, act).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        paths
            .then(move |path| {
                let store = store.clone();
                async move {
                    let path = path?;
                    store.ask(Request::Delete, &path, || store.inner.delete(&path)).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let act = || self.inner.copy_opts(from, to, options.clone());
        self.ask(Request::Copy, to, act).await
    }
}

#[derive(Debug)]
struct Upload {
    store: Store,
    path: Path,
    inner: Arc<tokio::sync::Mutex<Box<dyn MultipartUpload>>>,
    open: Arc<AtomicI64>,
}

impl Upload {
    fn close(&self) -> Result<()> {
        match self.open.swap(0, Ordering::SeqCst) {
            1 => {
                self.store.behaviour.unfinished.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
            _ => {
                Err(Error::NotFound { path: self.path.to_string(), source: "NoSuchUpload".into() })
            }
        }
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, content: PutPayload) -> UploadPart {
        // The order of parts is that of the calls.
        let part =
            self.inner.try_lock().expect("parts are begun one after the other").put_part(content);
        let part = Arc::new(Mutex::new(Some(part)));
        let (store, path) = (self.store.clone(), self.path.clone());
        Box::pin(async move {
            let flying = store.behaviour.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            store.behaviour.most_in_flight.fetch_max(flying, Ordering::SeqCst);
            let act = || async {
                let first = part.lock().unwrap().take();
                match first {
                    Some(part) => part.await,
                    None => Ok(()),
                }
            };
            let result = store.ask(Request::Part, &path, act).await;
            store.behaviour.in_flight.fetch_sub(1, Ordering::SeqCst);
            result
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let act = || async {
            self.close()?;
            self.inner.lock().await.complete().await
        };
        self.store.ask(Request::Complete, &self.path, act).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.ask(Request::Abort, &self.path, || async { self.close() }).await
    }
}
