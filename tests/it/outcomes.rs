//! Promises 1, 2 and 9: whole or not at all, a failure leaves no trace, any size; on every platform and
//! filesystem.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::{self, AssertUnwindSafe};

use fs_err as fs;
use rstest::rstest;
use rstest_reuse::apply;
use write_atomically::{create_atomically, write, write_atomically};

use crate::filesystems::filesystems;
use crate::support::{
    Directory, assert_destination, assert_state, new_content, prepare, staging_name,
};

#[apply(filesystems)]
fn a_closure_that_returns_ok_is_published_whole(
    #[case] filesystem: &str,
    #[values(Some("old content"), None)] old: Option<&str>,
) {
    let directory = prepare(filesystem, old);
    let entry = staging_name(filesystem, &directory.join("file"));
    let value = write_atomically(directory.join("file"), |w| {
        w.write_all(new_content().as_bytes())?;
        w.flush()?;
        assert_state_while_staged(&directory, filesystem, &entry, old);
        Ok(42)
    });
    assert_eq!(value.unwrap(), 42);
    assert_state(&directory, Some(&new_content()));
}

/// Unnamed staging shows nothing; named staging shows one entry, which is not readable by others.
fn assert_state_while_staged(
    directory: &Directory,
    filesystem: &str,
    entry: &str,
    old: Option<&str>,
) {
    assert_destination(directory, old);
    let is_named = filesystem == "fuse" || !cfg!(target_os = "linux");
    let mut expected = if is_named { vec![entry] } else { vec![] };
    expected.extend(old.map(|_| "file"));
    expected.push("neighbour");
    assert_eq!(directory.listing(), expected);
    #[cfg(unix)]
    if is_named && old.is_some() {
        assert_eq!(crate::support::mode(&directory.join(entry)), 0o600);
    }
}

#[apply(filesystems)]
fn a_closure_that_returns_an_error_leaves_everything_as_it_was(
    #[case] filesystem: &str,
    #[values(Some("old content"), None)] old: Option<&str>,
    #[values(0, 10, 1 << 20)] written: usize,
) {
    let directory = prepare(filesystem, old);
    let error = write_atomically::<()>(directory.join("file"), |w| {
        w.write_all(&vec![b'x'; written])?;
        anyhow::bail!("no more rows")
    });
    assert_eq!(error.unwrap_err().to_string(), "no more rows");
    assert_state(&directory, old);
}

#[apply(filesystems)]
#[cfg_attr(target_family = "wasm", ignore = "a panic ends the program there")]
fn a_closure_that_panics_leaves_everything_as_it_was(
    #[case] filesystem: &str,
    #[values(Some("old content"), None)] old: Option<&str>,
) {
    let directory = prepare(filesystem, old);
    let panic = panic::catch_unwind(AssertUnwindSafe(|| {
        write_atomically::<()>(directory.join("file"), |w| {
            w.write_all(new_content().as_bytes())?;
            panic::resume_unwind(Box::new("a bug"))
        })
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"a bug"));
    assert_state(&directory, old);
}

#[apply(filesystems)]
fn create_publishes_what_is_new_and_refuses_what_is_there(#[case] filesystem: &str) {
    let directory = prepare(filesystem, None);
    let path = directory.join("file");
    create_atomically(&path, |w| Ok(writeln!(w, "first")?)).unwrap();
    let error = create_atomically::<()>(&path, |_| panic!("the closure ran in vain")).unwrap_err();
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::AlreadyExists);
    assert_state(&directory, Some("first\n"));
}

#[apply(filesystems)]
fn create_does_not_clobber_what_appeared_meanwhile(#[case] filesystem: &str) {
    let directory = prepare(filesystem, None);
    let path = directory.join("file");
    let error = create_atomically(&path, |w| {
        directory.file("file", "theirs");
        Ok(writeln!(w, "ours")?)
    });
    let error = error.unwrap_err();
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::AlreadyExists);
    assert_state(&directory, Some("theirs"));
}

#[apply(filesystems)]
fn write_publishes_whatever_happened_meanwhile(
    #[case] filesystem: &str,
    #[values(
        (None, Some("theirs")),
        (Some("old"), None),
        (Some("old"), Some("theirs")),
    )]
    (old, meanwhile): (Option<&str>, Option<&str>),
) {
    let directory = prepare(filesystem, old);
    let path = directory.join("file");
    write_atomically(&path, |w| {
        match meanwhile {
            Some(content) => fs::write(&path, content)?,
            None => fs::remove_file(&path)?,
        }
        Ok(write!(w, "ours")?)
    })
    .unwrap();
    assert_state(&directory, Some("ours"));
}

#[apply(filesystems)]
fn any_size_is_written(
    #[case] filesystem: &str,
    #[values(0, 1, 65_535, 65_536, 65_537, 20 << 20)] size: usize,
) {
    let directory = prepare(filesystem, Some("old"));
    let content: Vec<u8> = (0..size).map(|n| (n / 7) as u8).collect();
    write(directory.join("file"), &content).unwrap();
    assert!(fs::read(directory.join("file")).unwrap() == content);
    assert_eq!(directory.listing(), ["file", "neighbour"]);
}

#[apply(filesystems)]
fn the_writer_seeks_and_lends_its_file(#[case] filesystem: &str) {
    let directory = prepare(filesystem, Some("old"));
    let position = write_atomically(directory.join("file"), |w| {
        w.write_all(b"????body")?;
        assert_eq!(w.stream_position()?, 8);
        w.seek(SeekFrom::Start(0))?;
        w.write_all(b"head")?;
        w.seek(SeekFrom::End(0))?;
        w.write_all(b"tail")?;
        let mut file = w.file()?;
        file.seek(SeekFrom::Start(4))?;
        let mut rest = String::new();
        file.read_to_string(&mut rest)?;
        assert_eq!(rest, "bodytail");
        file.set_len(10)?;
        Ok(w.stream_position()?)
    });
    assert_eq!(position.unwrap(), 12);
    assert_state(&directory, Some("headbodyta"));
}
