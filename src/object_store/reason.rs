//! A store's errors in this library's words.

use std::io;

use ::object_store::Error as StoreError;

/// What a failed request means for what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The store has refused it because of its condition.
    Condition,
    /// The store has refused it, and nothing has happened.
    Refused,
    /// What the request names is not there.
    Missing,
    /// It may have happened, or may yet.
    Unknown,
}

impl Verdict {
    pub(crate) fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Precondition { .. }
            | StoreError::AlreadyExists { .. }
            | StoreError::NotModified { .. } => Verdict::Condition,
            StoreError::NotFound { .. } => Verdict::Missing,
            StoreError::PermissionDenied { .. }
            | StoreError::Unauthenticated { .. }
            | StoreError::InvalidPath { .. }
            | StoreError::NotSupported { .. }
            | StoreError::NotImplemented { .. }
            | StoreError::UnknownConfigurationKey { .. } => Verdict::Refused,
            _ if is_status(error, "400") => Verdict::Refused,
            _ => Verdict::Unknown,
        }
    }
}

/// `object_store` tells a status that has no variant only in its message.
fn is_status(error: &StoreError, status: &str) -> bool {
    error.to_string().contains(&format!("status code: {status}"))
}

/// Whether the error is that of a missing bucket or container, not of a missing object.
pub(crate) fn no_bucket(error: &StoreError) -> bool {
    let text = error.to_string();
    ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"]
        .iter()
        .any(|code| text.contains(code))
}

/// Whether the store knows who asks, and only refuses to show the object: whoever may write need not
/// be allowed to read.
pub(crate) fn is_unreadable(error: &StoreError) -> bool {
    let denied = matches!(error, StoreError::PermissionDenied { .. });
    let text = error.to_string();
    let unknown = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"];
    denied && !unknown.iter().any(|code| text.contains(code))
}

/// The store's own message. Its error is not kept as a source: that prints request URLs and whatever the
/// server has echoed, and programs print whole chains.
pub(crate) fn to_io(error: StoreError) -> io::Error {
    let kind = match &error {
        StoreError::NotFound { .. } => io::ErrorKind::NotFound,
        StoreError::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
        StoreError::Precondition { .. } | StoreError::NotModified { .. } => {
            io::ErrorKind::ResourceBusy
        }
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => {
            io::ErrorKind::Unsupported
        }
        StoreError::InvalidPath { .. } => io::ErrorKind::InvalidInput,
        _ if error.to_string().contains("timed out") => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, shorten(&full_text(&error)))
}

/// The message with those of its sources that it does not repeat.
fn full_text(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

/// `Code: Message` of an S3, GCS or Azure answer; else the text without the query strings of URLs,
/// which may hold a signature.
fn shorten(text: &str) -> String {
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.trim())
    };
    match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => without_queries(text),
    }
}

fn without_queries(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.find("://") {
        Some(_) => word.split('?').next().unwrap_or(word),
        None => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_stores_own_and_holds_no_signature() {
        let xml = "status code: 403: <Error><Code>AccessDenied</Code><Message>Access Denied.\
                   </Message><SignatureProvided>secret</SignatureProvided></Error>";
        assert_eq!(shorten(xml), "AccessDenied: Access Denied.");
        let url = "Error performing PUT http://h/b/k?X-Amz-Signature=secret in 1s - reset";
        assert_eq!(shorten(url), "Error performing PUT http://h/b/k in 1s - reset");
    }
}
