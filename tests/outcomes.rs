//! Promises 1 and 2: whole or not at all, and a failure leaves no trace; on every filesystem.
#![cfg(all(target_os = "linux", feature = "anyhow"))]

#[path = "support/filesystems.rs"]
mod filesystems;
mod support;

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use filesystems::filesystems;
use rstest::rstest;
use rstest_reuse::apply;
use support::{Child, Directory, Living};
use write_atomically::{Writer, create_atomically, write, write_atomically};

/// More than a buffer, and no multiple of a block.
fn new_content() -> String {
    "new content ".repeat(20_000)
}

fn prepare(filesystem: &str, old: Option<&str>) -> Directory {
    support::prepare(filesystem, "file", old)
}

#[track_caller]
fn assert_state(directory: &Directory, content: Option<&str>) {
    support::assert_state(directory, "file", content);
}

#[apply(filesystems)]
fn a_closure_that_returns_ok_is_published_whole(
    #[case] filesystem: &str,
    #[values(Some("old content"), None)] old: Option<&str>,
) {
    let directory = prepare(filesystem, old);
    let value = write_atomically(directory.join("file"), |w| {
        w.write_all(new_content().as_bytes())?;
        assert_state_while_staged(&directory, filesystem, old);
        Ok(42)
    });
    assert_eq!(value.unwrap(), 42);
    assert_state(&directory, Some(&new_content()));
}

/// Unnamed staging shows nothing; named staging shows one entry, which is not readable by others.
fn assert_state_while_staged(directory: &Directory, filesystem: &str, old: Option<&str>) {
    if filesystem != "fuse" {
        return assert_state(directory, old);
    }
    let mut expected = vec![".file.write-atomically", "neighbour"];
    expected.extend(old.map(|_| "file"));
    expected.sort();
    assert_eq!(directory.listing(), expected);
    if old.is_some() {
        assert_eq!(support::mode(&directory.join(".file.write-atomically")), 0o600);
    }
}

#[apply(filesystems)]
fn a_closure_that_returns_an_error_leaves_everything_as_it_was(
    #[case] filesystem: &str,
    #[values(Some("old content"), None)] old: Option<&str>,
) {
    let directory = prepare(filesystem, old);
    let error = write_atomically::<()>(directory.join("file"), |w| {
        w.write_all(new_content().as_bytes())?;
        anyhow::bail!("no more rows")
    });
    assert_eq!(error.unwrap_err().to_string(), "no more rows");
    assert_state(&directory, old);
}

#[apply(filesystems)]
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
fn a_process_that_ends_in_the_closure_leaves_everything_as_it_was(
    #[case] filesystem: &str,
    #[values(Some("old content"), None)] old: Option<&str>,
    #[values("exit", "kill", "interrupt", "terminate")] end: &str,
) {
    let directory = prepare(filesystem, old);
    let status = Child::new(end, &directory.join("file")).status();
    let signal = match end {
        "exit" => None,
        "kill" => Some(9),
        "interrupt" => Some(2),
        _ => Some(15),
    };
    assert_eq!(status.signal(), signal, "{status}");
    assert_eq!(status.code(), signal.is_none().then_some(7));
    if filesystem == "fuse" {
        // One entry, which the next writer removes, be it one that fails.
        assert_eq!(directory.listing()[0], ".file.write-atomically");
        let failed = write_atomically::<()>(directory.join("file"), |_| anyhow::bail!("no"));
        assert!(failed.is_err());
    }
    assert_state(&directory, old);
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = support::role() else { return };
    let signal = |name| {
        let pid = process::id().to_string();
        support::run(process::Command::new("kill").args(["-s", name, &pid]));
        std::thread::sleep(Duration::from_secs(60));
    };
    write_atomically(path, |w| {
        w.write_all(new_content().as_bytes())?;
        match role.as_str() {
            "exit" => process::exit(7),
            "kill" => signal("KILL"),
            "interrupt" => signal("INT"),
            "terminate" => signal("TERM"),
            role => panic!("{role}"),
        }
        Ok(())
    })
    .unwrap();
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
fn write_replaces_what_appeared_meanwhile(#[case] filesystem: &str) {
    let directory = prepare(filesystem, None);
    write_atomically(directory.join("file"), |w| {
        directory.file("file", "theirs");
        support::set_mode(&directory.join("file"), 0o600);
        Ok(write!(w, "ours")?)
    })
    .unwrap();
    assert_state(&directory, Some("ours"));
    assert_eq!(support::mode(&directory.join("file")), 0o600, "access was widened");
}

#[apply(filesystems)]
fn write_creates_what_went_away_meanwhile(#[case] filesystem: &str) {
    let directory = prepare(filesystem, Some("old"));
    write_atomically(directory.join("file"), |w| {
        std::fs::remove_file(directory.join("file"))?;
        Ok(write!(w, "new")?)
    })
    .unwrap();
    assert_state(&directory, Some("new"));
}

#[apply(filesystems)]
fn any_size_is_written(
    #[case] filesystem: &str,
    #[values(0, 1, 65_535, 65_536, 65_537, 20 << 20)] size: usize,
) {
    let directory = prepare(filesystem, Some("old"));
    let content: Vec<u8> = (0..size).map(|n| (n / 7) as u8).collect();
    write(directory.join("file"), &content).unwrap();
    assert!(std::fs::read(directory.join("file")).unwrap() == content);
    assert_eq!(directory.listing(), ["file", "neighbour"]);
}

#[apply(filesystems)]
fn a_dead_entry_goes_and_a_living_one_stays(#[case] filesystem: &str) {
    let directory = prepare(filesystem, Some("old"));
    let path = directory.join("file");
    let dead = directory.file(".file.write-atomically", "left by a killed writer");
    write(&path, "1").unwrap();
    assert_state(&directory, Some("1"));

    // Somebody alive holds this one.
    directory.file(".file.write-atomically", "by somebody alive");
    let living = Living::holding(&dead);
    write(&path, "2").unwrap();
    assert_eq!(support::read(&path), "2");
    assert_eq!(directory.listing(), [".file.write-atomically", "file", "neighbour"]);
    drop(living);
    write(&path, "3").unwrap();
    assert_state(&directory, Some("3"));
}

/// Who holds a staging entry of this kind is about to rename it, and does nothing else.
#[rstest]
fn a_writer_that_is_publishing_is_waited_for_but_not_for_ever() {
    let directory = prepare("here", Some("old"));
    let _living = Living::holding(&directory.file(".file.write-atomically", ""));
    let start = Instant::now();
    write(directory.join("file"), "new").unwrap();
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    assert!(waited < Duration::from_secs(60), "{waited:?}");
    assert_eq!(support::read(&directory.join("file")), "new");
    assert_eq!(directory.listing(), [".file.write-atomically", "file", "neighbour"]);
}

#[apply(filesystems)]
fn creating_removes_a_dead_entry_too(#[case] filesystem: &str) {
    let directory = prepare(filesystem, None);
    directory.file(".file.write-atomically", "left by a killed writer");
    write(directory.join("file"), "1").unwrap();
    assert_state(&directory, Some("1"));
}

#[apply(filesystems)]
fn what_is_no_staging_file_is_left_alone(
    #[case] filesystem: &str,
    #[values("directory", "private directory", "link", "fifo")] obstacle: &str,
) {
    let directory = prepare(filesystem, Some("old"));
    let name = directory.join(".file.write-atomically");
    match obstacle {
        "directory" => std::fs::create_dir_all(name.join("full")).unwrap(),
        // As another user of a shared directory could rename one there.
        "private directory" => {
            std::fs::create_dir_all(name.join("full")).unwrap();
            support::set_mode(&name, 0o700);
        }
        "link" => std::os::unix::fs::symlink("neighbour", &name).unwrap(),
        _ => support::run(process::Command::new("mkfifo").arg(&name)).clear(),
    }
    write(directory.join("file"), "new").unwrap();
    assert_eq!(support::read(&directory.join("file")), "new");
    assert_eq!(support::read(&directory.join("neighbour")), "untouched");
    assert_eq!(directory.listing(), [".file.write-atomically", "file", "neighbour"]);
    assert_eq!(name.join("full").exists(), obstacle.ends_with("directory"));
}

#[apply(filesystems)]
fn the_writer_seeks_and_lends_its_file(#[case] filesystem: &str) {
    use std::io::{Read, Seek, SeekFrom};
    let directory = prepare(filesystem, Some("old"));
    let header_last = |w: &mut Writer| -> anyhow::Result<u64> {
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
    };
    assert_eq!(write_atomically(directory.join("file"), header_last).unwrap(), 12);
    assert_state(&directory, Some("headbodyta"));
}

#[rstest]
fn nothing_of_a_failure_is_seen_in_the_times(#[values(true, false)] panics: bool) {
    let directory = prepare("here", Some("old"));
    let times = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        let stat = std::fs::metadata(path).unwrap();
        [stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()]
    };
    let before = (times(directory.path()), times(&directory.join("file")));
    let _ = panic::catch_unwind(AssertUnwindSafe(|| {
        write_atomically::<()>(directory.join("file"), |w| {
            w.write_all(b"new")?;
            match panics {
                true => panic::resume_unwind(Box::new("a bug")),
                false => anyhow::bail!("an error"),
            }
        })
    }));
    assert_eq!((times(directory.path()), times(&directory.join("file"))), before);
}
