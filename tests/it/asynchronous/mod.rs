//! The functions with asynchronous closures: the promises, at every place where a future can end.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::tokio::io::AsyncWriteExt;
use ::tokio::runtime::{Builder, Runtime};
use fs_err as fs;
use write_atomically::WriteOptions;

use crate::support::Directory;
use crate::trees;

mod cancelled;
mod forms;
mod http;
mod locks;
mod outcomes;
mod processes;
mod races;
mod streams;

/// One of the operations, and what is at the destination before.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub operation: &'static str,
    pub old: Option<&'static str>,
}

pub const CASES: [Case; 15] = {
    const fn case(operation: &'static str, old: Option<&'static str>) -> Case {
        Case { operation, old }
    }
    [
        case("write", None),
        case("write", Some("old")),
        case("create", None),
        case("if missing", None),
        case("if changed", None),
        case("if changed", Some("old")),
        case("update", None),
        case("update", Some("old")),
        case("path", None),
        case("path", Some("old")),
        case("path if missing", None),
        case("dir", None),
        case("dir", Some("old")),
        case("dir if missing", None),
        case("batch", Some("old")),
    ]
};

impl Case {
    fn is_directory(self) -> bool {
        self.operation.starts_with("dir")
    }

    /// A neighbour that is to stay as it is and, perhaps, the destination.
    pub fn prepare(self) -> Directory {
        let directory = Directory::new();
        directory.file("neighbour", "untouched");
        match self.old {
            Some(old) if self.is_directory() => {
                fs::create_dir(directory.join("file")).unwrap();
                directory.file("file/content", old);
            }
            Some(old) => drop(directory.file("file", old)),
            None => {}
        }
        directory
    }

    /// Whether the whole state is as it was, with a destination of this content.
    pub fn is_state(self, directory: &Directory, content: Option<&str>) -> bool {
        let mut expected = trees::expected([("neighbour", "untouched")]);
        match content {
            Some(content) if self.is_directory() => {
                expected.insert("file".into(), "directory".into());
                expected.insert("file/content".into(), content.into());
            }
            Some(content) => drop(expected.insert("file".into(), content.into())),
            None => {}
        }
        tree(directory.path()).is_ok_and(|tree| tree == expected)
    }

    #[track_caller]
    pub fn assert_state(self, directory: &Directory, content: Option<&str>) {
        assert!(self.is_state(directory, content), "{self:?}: {:?}", directory.listing());
    }

    /// Makes the call. The closure stages some of the content, calls `between`, and stages the rest.
    pub async fn call<E: From<io::Error>>(
        self,
        options: &write_atomically::tokio::WriteOptions<E>,
        path: &Path,
        between: impl AsyncFnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        if self.operation.starts_with("path") || self.is_directory() {
            return self.call_by_path(options, path, between).await;
        }
        let fill = async |w: &mut write_atomically::tokio::Writer| fill(w, between).await;
        match self.operation {
            "write" => options.write(path, fill).await,
            "create" => options.create(path, fill).await,
            "if missing" => options.write_if_missing(path, fill).await.map(drop),
            "if changed" => options.write_if_changed(path, fill).await.map(drop),
            "update" => options.update(path, async |_, w| fill(w).await).await,
            "batch" => options.write_batch(async |batch| batch.write(path, fill).await).await,
            operation => panic!("{operation}"),
        }
    }

    async fn call_by_path<E: From<io::Error>>(
        self,
        options: &write_atomically::tokio::WriteOptions<E>,
        path: &Path,
        between: impl AsyncFnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let produce = async |staged: &Path| {
            let file = if self.is_directory() { staged.join("content") } else { staged.to_owned() };
            produce(&file, between).await
        };
        match self.operation {
            "path" => options.write_path(path, produce).await,
            "path if missing" => options.write_path_if_missing(path, produce).await.map(drop),
            "dir" => options.write_dir(path, produce).await,
            "dir if missing" => options.write_dir_if_missing(path, produce).await.map(drop),
            operation => panic!("{operation}"),
        }
    }
}

/// As [`trees::tree`], while something may vanish.
fn tree(directory: &Path) -> io::Result<BTreeMap<PathBuf, String>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, name) = (entry.path(), PathBuf::from(entry.file_name()));
        if entry.file_type()?.is_dir() {
            let below = tree(&path)?.into_iter();
            all.extend(below.map(|(path, content)| (name.join(path), content)));
            all.insert(name, "directory".to_owned());
        } else {
            all.insert(name, fs::read_to_string(&path)?);
        }
    }
    Ok(all)
}

/// More than one buffer, in parts of more and of less than one.
async fn fill<E: From<io::Error>>(
    w: &mut write_atomically::tokio::Writer,
    between: impl AsyncFnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let content = content();
    let (first, rest) = content.as_bytes().split_at(100_000);
    w.write_all(first).await?;
    ::tokio::task::yield_now().await;
    w.flush().await?;
    between().await?;
    for part in rest.chunks(10_007) {
        w.write_all(part).await?;
    }
    Ok(())
}

async fn produce<E: From<io::Error>>(
    staged: &Path,
    between: impl AsyncFnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let content = content();
    fs::write(staged, &content[..1000])?;
    between().await?;
    ::tokio::task::yield_now().await;
    Ok(fs::write(staged, content)?)
}

pub fn content() -> String {
    "content ".repeat(40_000)
}

pub fn relaxed() -> WriteOptions {
    crate::support::relaxed()
}

/// With a pool of so many threads.
pub fn runtime(flavour: &str, pool: usize) -> Runtime {
    let mut builder = match flavour {
        "one thread" => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(2).max_blocking_threads(pool).enable_all();
    builder.build().unwrap()
}

/// What is cleaned up on the pool is so soon.
#[track_caller]
pub fn assert_soon(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "not soon: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
