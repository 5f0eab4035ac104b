//! A connector that puts the condition into the completing request.

use std::future::Future;

use super::connector::{Offer, condition};
use ::object_store::HeaderValue;
use ::object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use ::object_store::{ClientOptions, Result};
use std::pin::Pin;

/// Makes the end of large uploads conditional on Amazon S3 and compatible stores: for
/// `AmazonS3Builder::with_http_connector`.
///
/// `object_store` completes every upload with "overwrite". This connector adds `If-None-Match` or
/// `If-Match` to the completing requests of this module, and leaves all others alone. Without it,
/// large outputs are created by way of a copy, and can't be updated (see
/// [the module](super#conditions)).
///
/// ```
/// use object_store::aws::AmazonS3Builder;
/// use write_atomically::object_store::Connector;
///
/// let store = AmazonS3Builder::from_env()
///     .with_bucket_name("reports")
///     .with_http_connector(Connector::default())
///     .build()?;
/// # assert_eq!(store.to_string(), "AmazonS3(reports)");
/// # Ok::<(), object_store::Error>(())
/// ```
#[derive(Debug)]
pub struct Connector {
    inner: Box<dyn HttpConnector>,
}

impl Default for Connector {
    fn default() -> Self {
        Connector::over(ReqwestConnector::default())
    }
}

impl Connector {
    /// Over another connector, which sends the requests.
    pub fn over(inner: impl HttpConnector) -> Self {
        Connector { inner: Box::new(inner) }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        Ok(HttpClient::new(Service { inner: self.inner.connect(options)? }))
    }
}

#[derive(Debug)]
struct Service {
    inner: HttpClient,
}

impl HttpService for Service {
    fn call<'s, 'f>(
        &'s self,
        mut request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        if let Some(offer) = request.extensions().get::<Offer>() {
            offer.take();
        }
        // `async_trait` futures start when they are polled; this one is made in the same poll.
        if completes(&request) {
            let header = condition();
            if let Some((name, value)) = header {
                // S3 has no use for a signature of it; SigV4 demands those of `host` and `x-amz-*` only.
                if let Ok(value) = HeaderValue::from_str(&value) {
                    request.headers_mut().insert(name, value);
                }
            }
        }
        Box::pin(self.inner.execute(request))
    }
}

/// CompleteMultipartUpload: `POST /key?uploadId=…`.
fn completes(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.method().as_str() == "POST" && query.contains("uploadId=")
}
