//! Promise 5 in types: closures need no type annotation at the root, any error type that takes an `io::Error`
//! works with `WriteOptions`, and whatever writes to a `Write` writes to a `Writer`.

use std::error::Error as StdError;
use std::io::{self, BufRead, Seek, Write};
use std::path::Path;

use fs_err::File;
use rstest::rstest;
use write_atomically::{WriteOptions, Writer, write_atomically};

use crate::support::{self, Directory};

#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("output: {0}")]
    Io(#[from] io::Error),
    #[error("number: {0}")]
    Number(#[from] std::num::ParseIntError),
}

/// Three error types, one closure, no annotation.
fn one_liner(path: &Path, number: &str, bytes: &[u8]) -> anyhow::Result<i64> {
    write_atomically(path, |w| {
        let number: i64 = number.parse()?;
        let text = std::str::from_utf8(bytes)?;
        writeln!(w, "{text}: {number}")?;
        Ok(number)
    })
}

fn in_io(path: &Path, number: &str) -> io::Result<()> {
    WriteOptions::new().write(path, |w| writeln!(w, "{number}"))
}

fn in_box(path: &Path, number: &str) -> Result<i64, Box<dyn StdError>> {
    WriteOptions::new().error().write(path, |w| {
        let number = number.parse()?;
        writeln!(w, "{number}")?;
        Ok(number)
    })
}

fn in_enum(path: &Path, number: &str) -> Result<i64, ReportError> {
    WriteOptions::new().error().create(path, |w| {
        let number = number.parse()?;
        writeln!(w, "{number}")?;
        Ok(number)
    })
}

#[rstest]
fn the_closure_needs_no_annotation() {
    let directory = Directory::new();
    let path = directory.join("file");
    assert_eq!(one_liner(&path, "42", b"answer").unwrap(), 42);
    assert_eq!(support::read(&path), "answer: 42\n");
    assert!(one_liner(&path, "x", b"").unwrap_err().is::<std::num::ParseIntError>());
    assert!(one_liner(&path, "1", b"\xff").unwrap_err().is::<std::str::Utf8Error>());
    assert_eq!(support::read(&path), "answer: 42\n");

    in_io(&directory.join("io"), "1").unwrap();
    assert_eq!(in_box(&directory.join("box"), "2").unwrap(), 2);
    assert!(in_box(&directory.join("box"), "x").unwrap_err().is::<std::num::ParseIntError>());
    assert_eq!(in_enum(&directory.join("enum"), "3").unwrap(), 3);
    assert!(matches!(in_enum(&directory.join("other"), "x"), Err(ReportError::Number(_))));
    assert!(matches!(in_enum(&directory.join("enum"), "3"), Err(ReportError::Io(_))));
    assert_eq!(directory.listing(), ["box", "enum", "file", "io"]);
}

#[rstest]
fn a_writer_can_be_sent_to_another_thread() {
    let directory = Directory::new();
    let path = directory.join("file");
    write_atomically(&path, |w| {
        std::thread::scope(|scope| scope.spawn(|| w.write_all(b"from a thread")).join().unwrap())?;
        Ok(())
    })
    .unwrap();
    assert_eq!(support::read(&path), "from a thread");
}

#[rstest]
fn what_the_closure_borrows_it_may_change() {
    let directory = Directory::new();
    let mut lines = 0;
    write_atomically(directory.join("file"), |w| {
        for n in 0..10 {
            writeln!(w, "{n}")?;
            lines += 1;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(lines, 10);
}

/// What serializers, compressors and archivers ask of an output; archivers seek back to fill in sizes.
#[rstest]
fn whatever_writes_to_a_writer_writes_to_this_one() {
    fn takes<W: Write + Seek + Send>(mut output: W) -> io::Result<()> {
        output.write_all(b"????body")?;
        output.rewind()?;
        output.write_all(b"head")
    }
    let directory = Directory::new();
    let path = directory.join("file");
    WriteOptions::new().write(&path, |w| takes(w)).unwrap();
    assert_eq!(support::read(&path), "headbody");
}

#[rstest]
#[case::whole(0, 0)]
#[case::after_something(3, 0)]
#[case::from_the_middle(0, 50_000)]
fn a_file_is_appended(#[case] before: usize, #[case] from: u64) {
    let directory = Directory::new();
    let content = "line\n".repeat(100_000);
    let source = directory.file("source", &content);
    let path = directory.join("file");
    let appended = write_atomically(&path, |w| {
        w.write_all(&b"abc"[..before])?;
        let mut source = File::open(&source)?;
        source.seek(io::SeekFrom::Start(from))?;
        let bytes = w.copy_from(source.file_mut())?;
        writeln!(w, "end")?;
        Ok(bytes)
    });
    assert_eq!(appended.unwrap(), content.len() as u64 - from);
    let expected = format!("{}{}end\n", &"abc"[..before], &content[from as usize..]);
    assert!(support::read(&path) == expected);
}

#[rstest]
fn the_position_is_known_in_every_state() {
    let directory = Directory::new();
    write_atomically(directory.join("file"), |w: &mut Writer| {
        assert_eq!(w.stream_position()?, 0);
        w.write_all(&[1; 100_000])?;
        assert_eq!(w.stream_position()?, 100_000);
        w.seek(io::SeekFrom::Current(-40_000))?;
        assert_eq!(w.stream_position()?, 60_000);
        w.file()?.set_len(7)?;
        w.write_all(&[2; 10])?;
        assert_eq!(w.stream_position()?, 60_010);
        w.rewind()?;
        assert_eq!(w.stream_position()?, 0);
        Ok(())
    })
    .unwrap();
    let lines = io::BufReader::new(File::open(directory.join("file")).unwrap()).split(2).count();
    assert_eq!(lines, 10);
}
