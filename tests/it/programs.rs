//! Programs as one would first write them: none needs a type annotation, and `?` takes every error that
//! the function's own type takes. Programs that can't compile are in the guide, with the reason.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::io::{self, BufRead, BufWriter, LineWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rstest::rstest;
use write_atomically::{
    Batch, Change, Durability, Error, WriteOptions, Writer, create_atomically, update_atomically,
    write, write_atomically, write_batch, write_dir_atomically, write_if_changed, write_if_missing,
    write_path_atomically, write_path_if_missing,
};

use crate::support::Directory;

/// In a function that returns `io::Result`.
fn in_io(path: &Path) -> io::Result<()> {
    WriteOptions::new().write(path, |w| {
        writeln!(w, "a")?;
        Ok(())
    })?;
    WriteOptions::new().write_batch(|batch| {
        batch.write(path.with_extension("1"), |w| writeln!(w, "a"))?;
        batch.write(path.with_extension("2"), |w| {
            writeln!(w, "a")?;
            Ok(())
        })
    })?;
    Ok(())
}

/// In a function that returns `anyhow::Result`, with options that speak `io::Error`.
fn in_anyhow(path: &Path) -> anyhow::Result<u64> {
    let written = WriteOptions::new().durability(Durability::Relaxed).write(path, |w| {
        w.write_all(b"a\n")?;
        w.stream_position()
    })?;
    let number: u64 = WriteOptions::new().anyhow().write(path, |w| {
        let number = "2".parse()?;
        writeln!(w, "a")?;
        Ok(number)
    })?;
    anyhow::ensure!(written == number, "{written} bytes");
    Ok(number)
}

/// A sentence as an error.
fn in_words(path: &Path, fail: bool) -> Result<(), Box<dyn StdError>> {
    WriteOptions::new().error().write(path, |w| {
        if fail {
            return Err("the second row is empty".into());
        }
        writeln!(w, "a")?;
        Ok(())
    })
}

#[derive(Debug)]
enum Mine {
    Io(io::Error),
    Empty,
}

impl From<io::Error> for Mine {
    fn from(error: io::Error) -> Self {
        Mine::Io(error)
    }
}

impl fmt::Display for Mine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mine::Io(error) => error.fmt(f),
            Mine::Empty => f.write_str("nothing to write"),
        }
    }
}

/// An error type of one's own.
fn in_mine(path: &Path, rows: &[&str]) -> Result<usize, Mine> {
    WriteOptions::new()
        .error()
        .write_if_changed(path, |w| {
            let first = rows.first().ok_or(Mine::Empty)?;
            writeln!(w, "{first}")?;
            Ok(rows.len())
        })
        .map(Change::into_inner)
}

/// A helper that takes any writer.
fn rows(out: &mut impl Write, rows: &BTreeMap<&str, u32>) -> io::Result<()> {
    rows.iter().try_for_each(|(name, total)| writeln!(out, "{name},{total}"))
}

/// A helper that takes a writer as a trait object, and boxes its errors.
fn boxed(out: &mut dyn Write) -> Result<(), Box<dyn StdError + Send + Sync>> {
    out.write_all(b"a\n")?;
    Ok(())
}

/// A function instead of a closure.
fn by_name(w: &mut Writer) -> anyhow::Result<()> {
    Ok(writeln!(w, "a")?)
}

struct Report {
    path: PathBuf,
    lines: Vec<String>,
}

impl Report {
    /// The closure borrows what is around it, mutably, too.
    fn save(&mut self) -> io::Result<()> {
        let lines = &mut self.lines;
        WriteOptions::new().mode(0o600).write(&self.path, |w| {
            for line in lines.drain(..) {
                writeln!(w, "{line}")?;
            }
            Ok(())
        })
    }
}

fn add(batch: &mut Batch, path: &Path) -> io::Result<()> {
    batch.write(path, |w| writeln!(w, "a"))
}

type Program = fn(&Path) -> anyhow::Result<()>;

const PROGRAMS: [(&str, Program); 20] = [
    ("io::Result", |path| Ok(in_io(path)?)),
    ("anyhow", |path| in_anyhow(path).map(drop)),
    ("Box<dyn Error>", |path| in_words(path, false).map_err(|error| anyhow::anyhow!("{error}"))),
    ("an enum", |path| {
        in_mine(path, &["a"]).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(())
    }),
    ("the root function", |path| write_atomically(path, |w| Ok(writeln!(w, "a")?))),
    ("a slice", |path| Ok(write(path, "a\n")?)),
    ("a helper with any writer", |path| {
        write_atomically(path, |w| Ok(rows(w, &BTreeMap::from([("a", 1)]))?))?;
        write_atomically(path, |w| Ok(w.write_all(b"a\n")?))
    }),
    ("a helper with a trait object", |path| {
        write_atomically(path, |w| boxed(w).map_err(anyhow::Error::from_boxed))
    }),
    ("a helper that says what is wrong in a String", |path| {
        write_atomically(path, |w| {
            let text: Result<&str, String> = Ok("a");
            Ok(writeln!(w, "{}", text.map_err(anyhow::Error::msg)?)?)
        })
    }),
    ("a function by name", |path| write_atomically(path, by_name)),
    ("a closure by name", |path| {
        let fill = |w: &mut Writer| Ok(writeln!(w, "a")?);
        write_atomically(path, fill)
    }),
    ("a buffer around the writer", |path| {
        write_atomically(path, |w| {
            let mut buffered = BufWriter::new(&mut *w);
            writeln!(buffered, "a")?;
            buffered.flush()?;
            drop(buffered);
            Ok(w.flush()?)
        })
    }),
    ("a wrapper that takes the writer by value", |path| {
        write_atomically(path, |w| {
            let mut lines = LineWriter::new(w);
            Ok(writeln!(lines, "a")?)
        })
    }),
    ("a method that borrows", |path| {
        Ok(Report { path: path.to_owned(), lines: vec!["a".to_owned()] }.save()?)
    }),
    ("seeking back", |path| {
        write_atomically(path, |w| {
            w.write_all(b"?\n")?;
            w.seek(SeekFrom::Start(0))?;
            Ok(w.write_all(b"a")?)
        })
    }),
    ("a cache", |path| {
        let text = match write_if_missing(path, |w| Ok(w.write_all(b"a\n")?))? {
            Some(()) | None => fs::read_to_string(path)?,
        };
        anyhow::ensure!(text == "a\n");
        anyhow::ensure!(write_path_if_missing(path, |_| Ok(()))?.is_none());
        anyhow::ensure!(create_atomically(path, |_| Ok(())).is_err());
        Ok(())
    }),
    ("an update, line by line", |path| {
        for _ in 0..2 {
            update_atomically(path, |old, new| {
                if let Some(old) = old {
                    for line in old.lines() {
                        anyhow::ensure!(line? == "a");
                    }
                }
                Ok(writeln!(new, "a")?)
            })?;
        }
        Ok(())
    }),
    ("a generator", |path| {
        write_if_changed(path, |w| Ok(io::copy(&mut "a\n".as_bytes(), w)?)).map(drop)
    }),
    ("a path, a directory", |path| {
        write_path_atomically(path, |staged| Ok(fs::write(staged, "a\n")?))?;
        write_dir_atomically(path.with_extension("d"), |tree| Ok(fs::write(tree.join("a"), "a")?))
    }),
    ("a batch, helpers and all", |path| {
        WriteOptions::new().write_batch(|batch| add(batch, &path.with_extension("1")))?;
        write_batch(|batch| {
            for number in 2..4 {
                batch.write(path.with_extension(number.to_string()), |w| {
                    let mut text = String::new();
                    "a\n".as_bytes().read_to_string(&mut text)?;
                    Ok(w.write_all(text.as_bytes())?)
                })?;
            }
            batch.write(path, |w| Ok(w.write_all(b"a\n")?))
        })
    }),
];

#[rstest]
fn a_program_as_one_would_first_write_it_works() {
    for (name, program) in PROGRAMS {
        let directory = Directory::new();
        let path = directory.join("file.txt");
        program(&path).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let written =
            ["txt", "1"].map(|extension| fs::read_to_string(path.with_extension(extension)));
        assert!(written.iter().flatten().all(|text| text == "a\n"), "{name}: {written:?}");
        assert!(written.iter().any(Result::is_ok), "{name}");
    }
}

#[rstest]
fn an_error_in_words_or_of_ones_own_comes_back() {
    let directory = Directory::new();
    let path = directory.join("file.txt");
    assert_eq!(in_words(&path, true).unwrap_err().to_string(), "the second row is empty");
    assert!(matches!(in_mine(&path, &[]), Err(Mine::Empty)));
    let error = in_mine(&directory.join("missing/file"), &["a"]).unwrap_err();
    assert!(matches!(&error, Mine::Io(error) if Error::find(error).is_some()), "{error:?}");
    assert!(!path.exists());
}
