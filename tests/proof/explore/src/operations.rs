//! The operations, and what they mean: what each may return, and what becomes of the destination.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use write_atomically::WriteOptions;

/// The directory of each schedule is this one's, `base`; the destination is `base/p/d`, and that of a
/// batch also `base/p/e`.
pub const PARENT: &str = "p";
pub const DESTINATION: &str = "p/d";
pub const SECOND: &str = "p/e";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Write,
    Create,
    IfMissing,
    IfChanged,
    Update,
    WritePath,
    WriteDir,
    Batch,
    /// A write whose closure fails half-way.
    Fail,
    /// Counterparts, which know nothing of the library.
    Unlink,
    Replace,
    Chmod,
    Read,
    /// `p` becomes `q`.
    RenameParent,
    /// `p/d` is a link to `x`, and becomes one to `y`.
    Retarget,
}
use Operation::*;

/// What stands at a destination, by what was written: `02` is the content of 0, to which 2 has added its
/// own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Missing,
    File(String),
    Dir(String),
    /// Half of something, or a mixed tree.
    Torn(String),
}

/// The content before the first operation.
pub const INITIAL: &str = "-";

pub fn name(index: usize) -> String {
    char::from(b'A' + index as u8).to_string()
}

/// In two calls, so that half of it can be seen.
fn fill(w: &mut impl io::Write, name: &str) -> io::Result<()> {
    write!(w, "[{name}")?;
    w.flush()?;
    write!(w, "{name}]")?;
    w.flush()
}

pub fn whole(name: &str) -> String {
    format!("[{name}{name}]")
}

pub fn parse(content: &str) -> Option<String> {
    let bytes = content.as_bytes();
    let is_whole = |c: &[u8]| matches!(c, [b'[', a, b, b']'] if a == b);
    let parts = bytes.chunks(4);
    (!bytes.is_empty() && parts.clone().all(is_whole))
        .then(|| parts.map(|part| char::from(part[1])).collect())
}

/// What stands at a path now.
pub fn look(path: &Path) -> State {
    match fs::metadata(path) {
        Err(_) => State::Missing,
        Ok(metadata) if metadata.is_dir() => {
            let read = |file| fs::read_to_string(path.join(file)).unwrap_or_default();
            let (a, b) = (read("a"), read("b"));
            match parse(&a) {
                Some(names) if a == b => State::Dir(names),
                _ => State::Torn(format!("a: {a:?}, b: {b:?}")),
            }
        }
        Ok(_) => {
            let content = fs::read_to_string(path).unwrap_or_default();
            parse(&content).map_or(State::Torn(format!("{content:?}")), State::File)
        }
    }
}

impl Operation {
    /// Does it, in the tracee; what it says is what the model answers with.
    pub fn run(self, base: &Path, name: &str, parents: bool) -> String {
        let path = base.join(DESTINATION);
        let result = match self {
            _ if parents => self.with_parents(&path, name),
            Write => write_atomically::write_atomically(&path, |w| Ok(fill(w, name)?)).map(ok),
            Create => write_atomically::create_atomically(&path, |w| Ok(fill(w, name)?)).map(ok),
            IfMissing => {
                let value = write_atomically::write_if_missing(&path, |w| Ok(fill(w, name)?));
                value.map(|value| if value.is_some() { "ok" } else { "none" })
            }
            IfChanged => {
                write_atomically::write_if_changed(&path, |w| Ok(fill(w, name)?)).map(|change| {
                    match change {
                        write_atomically::Change::Unchanged(()) => "unchanged",
                        _ => "ok",
                    }
                })
            }
            Update => write_atomically::update_atomically(&path, |old, w| {
                if let Some(old) = old {
                    io::copy(old, w)?;
                }
                Ok(fill(w, name)?)
            })
            .map(ok),
            WritePath => {
                let fill = |path: &Path| Ok(fill(&mut fs::File::create(path)?, name)?);
                write_atomically::write_path_atomically(&path, fill).map(ok)
            }
            WriteDir => {
                write_atomically::write_dir_atomically(&path, |path| Ok(fill_tree(path, name)?))
                    .map(ok)
            }
            Batch => write_atomically::write_batch(|batch| {
                batch.write(&path, |w| Ok(fill(w, name)?))?;
                batch.write(base.join(SECOND), |w| Ok(fill(w, name)?))
            })
            .map(ok),
            Fail => write_atomically::write_atomically(&path, |w| {
                write!(w, "[{name}")?;
                w.flush()?;
                anyhow::bail!("as it was told")
            }),
            Unlink => fs::remove_file(&path).map(ok).map_err(Into::into),
            Replace => replace(base, name).map(ok).map_err(Into::into),
            Chmod => {
                let private = fs::Permissions::from_mode(0o600);
                fs::set_permissions(&path, private).map(ok).map_err(Into::into)
            }
            Read => match fs::read_to_string(&path) {
                Ok(content) => return format!("read {content}"),
                Err(error) => Err(error.into()),
            },
            RenameParent => {
                fs::rename(base.join(PARENT), base.join("q")).map(ok).map_err(Into::into)
            }
            Retarget => symlink("y", base.join("p/new"))
                .and_then(|()| fs::rename(base.join("p/new"), &path))
                .map(ok)
                .map_err(Into::into),
        };
        describe(result)
    }

    /// The only place that knows of options.
    fn with_parents(self, path: &Path, name: &str) -> anyhow::Result<&'static str> {
        let options = WriteOptions::new().create_parents(true);
        let done: io::Result<&'static str> = match self {
            IfMissing => options
                .write_if_missing(path, |w| fill(w, name))
                .map(|value| if value.is_some() { "ok" } else { "none" }),
            Update => options
                .update(path, |old, w| {
                    if let Some(old) = old {
                        io::copy(old, w)?;
                    }
                    fill(w, name)
                })
                .map(ok),
            WritePath => {
                options.write_path(path, |path| fill(&mut fs::File::create(path)?, name)).map(ok)
            }
            WriteDir => options.write_dir(path, |path| fill_tree(path, name)).map(ok),
            _ => options.write(path, |w| fill(w, name)).map(ok),
        };
        Ok(done?)
    }

    pub fn is_counterpart(self) -> bool {
        matches!(self, Unlink | Replace | Chmod | Read | RenameParent | Retarget)
    }

    /// Asks for the lock that `update` and `write_if_missing` exclude each other by.
    pub fn is_exclusive(self) -> bool {
        matches!(self, Update | IfMissing)
    }

    /// What it returns, and what it leaves, if it happens at once. A counterpart that has nothing to do with
    /// the content leaves it.
    pub fn apply(self, name: &str, before: &State) -> (String, State) {
        use State::*;
        let ok = |state| ("ok".to_owned(), state);
        let new = || File(name.to_owned());
        let error = |kind: &str| (format!("error {kind}"), before.clone());
        match (self, before) {
            (RenameParent | Retarget, _) => ok(before.clone()),
            (Replace, _) => ok(new()),
            (Chmod | Read | Unlink, Missing) => error("NotFound"),
            (Chmod, _) => ok(before.clone()),
            (Read, File(names)) => {
                let content: String = names.chars().map(|name| whole(&name.to_string())).collect();
                (format!("read {content}"), before.clone())
            }
            (Read | Unlink, Dir(_) | Torn(_)) => error("IsADirectory"),
            (Unlink, File(_)) => ok(Missing),
            (WriteDir, Missing | Dir(_)) => ok(Dir(name.to_owned())),
            (WriteDir, _) => error("NotADirectory"),
            (IfMissing, Missing) => ok(new()),
            (IfMissing, _) => ("none".to_owned(), before.clone()),
            (Create, Missing) => ok(new()),
            (Create, _) => error("AlreadyExists"),
            (_, Dir(_) | Torn(_)) => error("IsADirectory"),
            (IfChanged, File(old)) if old == name => ("unchanged".to_owned(), before.clone()),
            (Fail, _) => error("Other"),
            (Update, File(old)) => ok(File(format!("{old}{name}"))),
            (Write | IfChanged | Update | WritePath | Batch, Missing | File(_)) => ok(new()),
        }
    }
}

fn ok<T>(_: T) -> &'static str {
    "ok"
}

fn describe(result: anyhow::Result<&'static str>) -> String {
    let error = match result {
        Ok(result) => return result.to_owned(),
        Err(error) => error,
    };
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).next();
    match io {
        Some(io) => format!("error {:?}: {error:#}", io.kind()),
        None => format!("error Other: {error:#}"),
    }
}

fn fill_tree(path: &Path, name: &str) -> io::Result<()> {
    fs::write(path.join("a"), whole(name))?;
    fs::write(path.join("b"), whole(name))
}

/// As editors do it.
fn replace(base: &Path, name: &str) -> io::Result<()> {
    let other = base.join(format!("p/{name}.editor"));
    fs::write(&other, whole(name))?;
    fs::rename(other, base.join(DESTINATION))
}

/// Makes what the first operation finds.
pub fn set_up(base: &Path, initial: &State, batch: bool, is_link: bool) -> io::Result<()> {
    let path = base.join(DESTINATION);
    match initial {
        State::File(names) if is_link => {
            fs::write(base.join("p/x"), whole(names))?;
            fs::write(base.join("p/y"), whole(names))?;
            symlink("x", &path)?;
        }
        State::File(names) => {
            fs::write(&path, whole(names))?;
            if batch {
                fs::write(base.join(SECOND), whole(names))?;
            }
        }
        State::Dir(names) => {
            fs::create_dir(&path)?;
            fill_tree(&path, names)?;
        }
        State::Missing | State::Torn(_) => {}
    }
    Ok(())
}
