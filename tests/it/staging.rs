//! Promise 2 on Linux: what stands at the staging name, and what is left of a process that ends in its closure.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use fs_err as fs;
use rstest::rstest;
use rstest_reuse::apply;
use write_atomically::{write, write_atomically};

use crate::child::{self, Child, Living};
use crate::filesystems::filesystems;
use crate::support::{self, assert_state, new_content, prepare};
use crate::trees;

#[apply(filesystems)]
fn a_process_that_ends_in_the_closure_leaves_everything_as_it_was(
    #[case] filesystem: &str,
    #[values(Some("old content"), None)] old: Option<&str>,
    #[values("exit", "kill", "interrupt", "terminate")] end: &str,
) {
    let directory = prepare(filesystem, old);
    let status = Child::new(module_path!(), end, &directory.join("file")).status();
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
        let left = directory.listing();
        assert!(left[0].starts_with(".file.write-atomically-") && left[1] != left[0], "{left:?}");
        assert_eq!(left.len(), 2 + usize::from(old.is_some()), "{left:?}");
        let failed = write_atomically::<()>(directory.join("file"), |_| anyhow::bail!("no"));
        assert!(failed.is_err());
    }
    assert_state(&directory, old);
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
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
fn access_to_what_appeared_meanwhile_is_not_widened(#[case] filesystem: &str) {
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
fn a_dead_entry_goes_and_a_living_one_stays(#[case] filesystem: &str) {
    let directory = prepare(filesystem, Some("old"));
    let path = directory.join("file");
    let entry = support::staging_name(filesystem, &path);
    let dead = directory.file(&entry, "left by a killed writer");
    write(&path, "1").unwrap();
    assert_state(&directory, Some("1"));

    // Somebody alive holds this one.
    directory.file(&entry, "by somebody alive");
    let living = Living::holding(&dead);
    write(&path, "2").unwrap();
    assert_eq!(support::read(&path), "2");
    assert_eq!(directory.listing(), [&entry, "file", "neighbour"]);
    drop(living);
    write(&path, "3").unwrap();
    assert_state(&directory, Some("3"));
}

/// The holder may be about to rename the entry, which takes microseconds; or its closure runs for hours.
#[rstest]
fn a_writer_that_is_publishing_is_waited_for_but_not_for_ever() {
    let directory = prepare("here", Some("old"));
    let _living = Living::holding(&directory.file(".file.write-atomically", ""));
    let start = Instant::now();
    support::relaxed().write(directory.join("file"), |w| w.write_all(b"new")).unwrap();
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(5), "{waited:?}");
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    assert_eq!(support::read(&directory.join("file")), "new");
    assert_eq!(directory.listing(), [".file.write-atomically", "file", "neighbour"]);
}

#[apply(filesystems)]
fn creating_removes_a_dead_entry_too(#[case] filesystem: &str) {
    let directory = prepare(filesystem, None);
    let entry = support::staging_name(filesystem, &directory.join("file"));
    directory.file(entry, "left by a killed writer");
    write(directory.join("file"), "1").unwrap();
    assert_state(&directory, Some("1"));
}

#[apply(filesystems)]
fn what_is_no_staging_file_is_left_alone(
    #[case] filesystem: &str,
    #[values("directory", "private directory", "link", "fifo")] obstacle: &str,
) {
    let directory = prepare(filesystem, Some("old"));
    let entry = support::staging_name(filesystem, &directory.join("file"));
    let name = directory.join(&entry);
    match obstacle {
        "directory" => fs::create_dir_all(name.join("full")).unwrap(),
        // As another user of a shared directory could rename one there.
        "private directory" => {
            fs::create_dir_all(name.join("full")).unwrap();
            support::set_mode(&name, 0o700);
        }
        "link" => fs_err::os::unix::fs::symlink("neighbour", &name).unwrap(),
        _ => trees::make_fifo(&name),
    }
    write(directory.join("file"), "new").unwrap();
    assert_eq!(support::read(&directory.join("file")), "new");
    assert_eq!(support::read(&directory.join("neighbour")), "untouched");
    assert_eq!(directory.listing(), [&entry, "file", "neighbour"]);
    assert_eq!(name.join("full").exists(), obstacle.ends_with("directory"));
}

#[rstest]
fn nothing_of_a_failure_is_seen_in_the_times(#[values(true, false)] panics: bool) {
    let directory = prepare("here", Some("old"));
    let times = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        let stat = fs::metadata(path).unwrap();
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
