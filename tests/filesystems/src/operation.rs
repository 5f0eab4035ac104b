//! The operations, with one shape: a destination that is to get this content, with something in the
//! middle of writing it.

use std::io::{Read, Write};
use std::{env, path, process};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use write_atomically::WriteOptions;

use crate::scratch::State;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    New,
    Replace,
    Create,
    IfMissing,
    IfChanged,
    Update,
    Path,
    DirNew,
    DirReplace,
    Batch,
    Command,
    Append,
}

use Operation::*;

pub const ALL: [Operation; 12] = [
    New, Replace, Create, IfMissing, IfChanged, Update, Path, DirNew, DirReplace, Batch, Command,
    Append,
];

/// The destination's name.
pub const FILE: &str = "file.txt";
/// What there is before, where there is something.
pub const OLD: &str = "old content, and more of it\n";

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            New => "write, new",
            Replace => "write, replace",
            Create => "create",
            IfMissing => "if_missing",
            IfChanged => "if_changed",
            Update => "update",
            Path => "write_path",
            DirNew => "write_dir, new",
            DirReplace => "write_dir, replace",
            Batch => "batch",
            Command => "command",
            Append => "command --append",
        }
    }

    pub fn by_name(name: &str) -> Result<Operation> {
        ALL.into_iter().find(|operation| operation.name() == name).context("no such operation")
    }

    pub fn is_command(self) -> bool {
        matches!(self, Command | Append)
    }

    pub fn is_directory(self) -> bool {
        matches!(self, DirNew | DirReplace)
    }

    /// What is in the directory before.
    pub fn prepare(self, directory: &path::Path) -> Result<State> {
        let file = directory.join(FILE);
        match self {
            New | Create | IfMissing | DirNew => {}
            Replace | IfChanged | Update | Path | Batch | Command | Append => {
                fs::write(&file, OLD)?
            }
            DirReplace => {
                fs::create_dir(&file)?;
                fs::write(file.join("part"), OLD)?;
            }
        }
        crate::scratch::state(directory)
    }

    /// What is there when it has succeeded.
    pub fn expected(self, content: &str) -> State {
        let file = FILE.to_owned();
        let content = Some(content.to_owned());
        match self {
            DirNew | DirReplace => {
                State::from([(file.clone(), None), (format!("{file}/part"), content)])
            }
            Batch => State::from([(file, content.clone()), ("second".to_owned(), content)]),
            Append => State::from([(file, content.map(|content| format!("{OLD}{content}")))]),
            _ => State::from([(file, content)]),
        }
    }

    /// `during` is called with half of the content written.
    pub fn run(
        self,
        file: &path::Path,
        content: &str,
        during: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let (first, second) = content.split_at(content.len() / 2);
        let mut during = Some(during);
        let mut fill = |w: &mut dyn Write| -> Result<()> {
            w.write_all(first.as_bytes())?;
            w.flush()?;
            during.take().map_or(Ok(()), |during| during())?;
            Ok(w.write_all(second.as_bytes())?)
        };
        let options = WriteOptions::new().anyhow();
        match self {
            New | Replace => options.write(file, |w| fill(w)),
            Create => options.create(file, |w| fill(w)),
            IfMissing => options.write_if_missing(file, |w| fill(w)).map(drop),
            IfChanged => options.write_if_changed(file, |w| fill(w)).map(drop),
            Update => options.update(file, |old, w| {
                let mut text = String::new();
                if let Some(old) = old {
                    old.read_to_string(&mut text)?;
                }
                match text.as_str() {
                    OLD | "" => fill(w),
                    other => bail!("the old content is {other:?}"),
                }
            }),
            Path => options.write_path(file, |path| fill(&mut fs::File::create(path)?)),
            DirNew | DirReplace => {
                options.write_dir(file, |path| fill(&mut fs::File::create(path.join("part"))?))
            }
            Batch => options.write_batch(|batch| {
                batch.write(file.with_file_name("second"), |w| {
                    Ok(w.write_all(content.as_bytes())?)
                })?;
                batch.write(file, |w| fill(w))
            }),
            Command | Append => bail!("the command is a process of its own"),
        }
    }

    /// The command, whose producer runs `middle` with half of the content written.
    pub fn command(
        self,
        file: &path::Path,
        content: &str,
        middle: &str,
    ) -> Result<process::Command> {
        let program = env::var_os("WRITE_ATOMICALLY").context("WRITE_ATOMICALLY is the command")?;
        let (first, second) = content.split_at(content.len() / 2);
        let script = format!("printf %s \"$1\" || exit; {middle}; printf %s \"$2\" || exit");
        let mut command = process::Command::new(program);
        if self == Append {
            command.arg("--append");
        }
        command
            .arg("--placeholder=")
            .arg(file)
            .args(["--", "sh", "-c", &script, "sh", first, second]);
        Ok(command)
    }
}
