//! Promises 1 to 6 and 8 on every platform, beside `outcomes`: errors, options, paths, races, a killed process,
//! every operation on a file. Each test looks at the listing of the whole directory.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use fs_err as fs;
use rstest::rstest;
use write_atomically::{
    Change, Durability, Error, Reader, Step, WriteOptions, Writer, write, write_atomically,
    write_if_changed, write_if_missing,
};

use crate::child::{self, Child};
use crate::support::{self, Directory, assert_destination, assert_state, new_content, prepare};

#[derive(Debug)]
enum Mine {
    NoMoreRows(u32),
    Io(#[allow(dead_code)] io::Error),
}

impl From<io::Error> for Mine {
    fn from(error: io::Error) -> Self {
        Mine::Io(error)
    }
}

#[rstest]
fn an_error_of_ones_own_comes_back_as_it_is(#[values(Some("old"), None)] old: Option<&str>) {
    let directory = prepare("here", old);
    let result: Result<(), Mine> = WriteOptions::new().error().write(directory.join("file"), |w| {
        w.write_all(b"half")?;
        Err(Mine::NoMoreRows(7))
    });
    assert!(matches!(result, Err(Mine::NoMoreRows(7))), "{result:?}");
    assert_state(&directory, old);
}

#[rstest]
fn every_option_publishes_the_same_content(
    #[values(Some("old content"), None)] old: Option<&str>,
    #[values(Durability::Durable, Durability::Consistent, Durability::Relaxed)]
    durability: Durability,
    #[values(
        WriteOptions::new(),
        WriteOptions::new().mode(0o600),
        WriteOptions::new().preserve_metadata(false),
        WriteOptions::new().preserve_metadata(false).mode(0o644),
        WriteOptions::new().follow_symlinks(false),
        WriteOptions::new().create_parents(true),
        WriteOptions::new().in_place_fallback(true),
        WriteOptions::new().buffer_capacity(0),
        WriteOptions::new().buffer_capacity(1 << 20)
    )]
    options: WriteOptions,
) {
    let directory = prepare("here", old);
    let content = new_content();
    let write = |w: &mut Writer| w.write_all(content.as_bytes());
    options.durability(durability).write(directory.join("file"), write).unwrap();
    assert_state(&directory, Some(&content));
}

/// Long enough for the buffer to become that of a long stream.
#[rstest]
fn pieces_of_any_size_arrive_whole_and_in_order(
    #[values(None, Some(0), Some(1), Some(7), Some(4096), Some(1 << 20))] capacity: Option<usize>,
    #[values(1, 5000, 300_000)] longest: usize,
    #[values("write", "write_all", "both")] how: &str,
) {
    let directory = prepare("here", None);
    let path = directory.join("file");
    let length = if capacity == Some(1) || longest == 1 { 200_000 } else { 7_000_000 };
    let content: Vec<u8> =
        (0..length).map(|at: u32| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
    let options = WriteOptions::new().durability(Durability::Relaxed);
    let options = match capacity {
        Some(bytes) => options.buffer_capacity(bytes),
        None => options,
    };
    let result = options.write(&path, |w| {
        let (mut at, mut random) = (0, 1u32);
        while at < content.len() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let piece = &content[at..content.len().min(at + 1 + random as usize % longest)];
            if how == "write" || how == "both" && random % 3 == 0 {
                at += w.write(piece)?;
            } else {
                w.write_all(piece)?;
                at += piece.len();
            }
            assert_eq!(w.stream_position()?, at as u64);
        }
        io::Result::Ok(())
    });
    result.unwrap();
    assert!(fs::read(&path).unwrap() == content, "neither whole nor in order");
}

#[rstest]
fn parents_are_made_when_publishing_and_not_before(#[values(true, false)] fails: bool) {
    let directory = prepare("here", None);
    let result = WriteOptions::new().create_parents(true).write(directory.join("a/b/c"), |w| {
        w.write_all(b"deep")?;
        assert!(!directory.join("a").exists());
        if fails { Err(io::Error::other("no")) } else { Ok(()) }
    });
    assert_eq!(result.is_err(), fails);
    match fails {
        true => assert_eq!(directory.listing(), ["neighbour"]),
        false => {
            assert_eq!(directory.listing(), ["a", "neighbour"]);
            assert_eq!(support::listing(&directory.join("a/b")), ["c"]);
            assert_eq!(support::read(&directory.join("a/b/c")), "deep");
        }
    }
}

#[rstest]
fn what_a_failed_closure_wrote_is_kept_where_asked(
    #[values(Some("old"), None)] old: Option<&str>,
    #[values(Some("an earlier one"), None)] kept: Option<&str>,
) {
    let directory = prepare("here", old);
    if let Some(kept) = kept {
        directory.file("partial", kept);
    }
    let options = WriteOptions::new().keep_failed(directory.join("partial"));
    let result: io::Result<()> = options.write(directory.join("file"), |w| {
        w.write_all(b"half")?;
        Err(io::Error::other("no"))
    });
    assert_eq!(result.unwrap_err().to_string(), "no");
    assert_eq!(support::read(&directory.join("partial")), "half");
    fs::remove_file(directory.join("partial")).unwrap();
    assert_state(&directory, old);
}

#[rstest]
#[case::missing_directory("missing/file", &[io::ErrorKind::NotFound])]
#[case::no_name("", &[io::ErrorKind::NotFound])]
#[case::a_directory("directory", &[io::ErrorKind::IsADirectory])]
#[case::only_a_directory("new/", &[io::ErrorKind::IsADirectory])]
#[case::nul("nul\0nul", &[io::ErrorKind::InvalidInput, support::invalid_filename()])]
#[case::below_a_file("neighbour/file", &[io::ErrorKind::NotADirectory, io::ErrorKind::NotFound])]
#[case::too_long(
    "123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890\
     123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890\
     123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890",
    &[support::invalid_filename()]
)]
fn what_can_be_known_is_an_error_before_the_closure_runs(
    #[case] name: &str,
    #[case] kinds: &[io::ErrorKind],
) {
    let directory = prepare("here", None);
    fs::create_dir(directory.join("directory")).unwrap();
    let path = if name.is_empty() { "".into() } else { directory.join(name) };
    for create in [false, true] {
        let mut ran = false;
        let closure = |_: &mut Writer| {
            ran = true;
            io::Result::Ok(())
        };
        let options = WriteOptions::new();
        let error = match create {
            false => options.write(&path, closure),
            true => options.create(&path, closure),
        };
        let error = error.unwrap_err();
        assert!(!ran, "the closure ran in vain");
        let found = Error::find(&error).expect("an error of the library's");
        assert_eq!(found.path(), path);
        assert!(matches!(found.step(), Step::Resolve | Step::Stage), "{found}");
        assert!(!found.replaced());
        let kinds = match (create, name) {
            (true, "directory") => &[io::ErrorKind::AlreadyExists],
            _ => kinds,
        };
        assert!(kinds.contains(&error.kind()), "{:?}: {error}", error.kind());
        assert_eq!(error.kind(), found.io_error().kind());
        assert!(error.to_string().contains(&format!("`{}`", path.display())), "{error}");
        assert_eq!(directory.listing(), ["directory", "neighbour"]);
    }
}

#[rstest]
fn an_io_error_inside_the_closure_names_the_destination() {
    let directory = prepare("here", Some("old"));
    let path = directory.join("file");
    let seek = |w: &mut Writer| w.seek(SeekFrom::Current(-1));
    let error = WriteOptions::new().write(&path, seek).unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    // ERROR_NEGATIVE_SEEK is of no kind that `std` knows.
    assert!(cfg!(windows) || error.kind() == io::ErrorKind::InvalidInput, "{error:?}");
    let found = Error::find(&error).unwrap();
    assert_eq!((found.step(), found.io_error().kind()), (Step::Write, error.kind()));
    assert_state(&directory, Some("old"));
}

#[rstest]
fn the_closure_may_call_the_library_again(#[values(Some("old"), None)] old: Option<&str>) {
    let directory = prepare("here", old);
    write_atomically(directory.join("file"), |outer| {
        write_atomically(directory.join("file"), |inner| Ok(write!(inner, "inner")?))?;
        assert_eq!(support::read(&directory.join("file")), "inner");
        Ok(write!(outer, "outer")?)
    })
    .unwrap();
    assert_state(&directory, Some("outer"));
}

#[rstest]
#[case::short("a")]
#[case::dots("..a..b")]
#[case::spaces(" a b")]
#[case::unicode("Übergröße-数据-🦀.csv")]
#[case::longest(&"n".repeat(255))]
#[case::longest_of_wide_characters(&"ß".repeat(127))]
fn any_name_is_written(#[case] name: &str) {
    let directory = Directory::new();
    for content in ["first", "second"] {
        write(directory.join(name), content).unwrap();
        assert_eq!(support::read(&directory.join(name)), content);
        assert_eq!(directory.listing(), [name]);
    }
}

#[rstest]
fn a_path_of_a_thousand_characters_is_written() {
    let directory = Directory::new();
    let deep = (0..5).fold(directory.path().to_owned(), |path, _| path.join("d".repeat(200)));
    let options = WriteOptions::new().create_parents(true);
    for content in ["first", "second"] {
        options.write(deep.join("file"), |w| write!(w, "{content}")).unwrap();
        assert_eq!(support::read(&deep.join("file")), content);
        assert_eq!(support::listing(&deep), ["file"]);
    }
}

#[rstest]
#[cfg_attr(target_family = "wasm", ignore = "there are no threads")]
fn of_writers_that_race_one_wins_whole(#[values(Some("old"), None)] old: Option<&str>) {
    const WRITERS: u8 = 16;
    let directory = prepare("here", old);
    let path = directory.join("file");
    let is_whole = |content: &[u8]| {
        let first = content.first().copied().unwrap_or_default();
        content == old.unwrap_or("nothing").as_bytes()
            || content.len() == 100_000 && content.iter().all(|&byte| byte == first)
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                match fs::read(&path) {
                    Ok(content) => assert!(is_whole(&content), "{} bytes", content.len()),
                    Err(error) => assert_may_be_unreadable(&error, old),
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..3 {
                        let written = write(path, vec![b'a' + n; 100_000]);
                        assert!(
                            written.is_ok() || support::may_be_starved(&written),
                            "{written:?}"
                        );
                    }
                })
            })
            .collect();
        let writers: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        assert!(writers.iter().all(Result::is_ok));
    });
    assert!(is_whole(&fs::read(&path).unwrap()));
    assert_eq!(directory.listing(), ["file", "neighbour"]);
}

/// Before the first is published, and, under wine, which replaces a file in two steps.
fn assert_may_be_unreadable(error: &io::Error, old: Option<&str>) {
    let missing = error.kind() == io::ErrorKind::NotFound;
    assert!(cfg!(wine) || missing && old.is_none(), "{error}");
}

#[rstest]
#[cfg_attr(target_family = "wasm", ignore = "there are no threads")]
fn of_creators_that_race_one_wins() {
    let directory = prepare("here", None);
    let path = directory.join("file");
    let results: Vec<_> = thread::scope(|scope| {
        let create = |n: usize| {
            let path = &path;
            move || WriteOptions::new().create(path, |w| write!(w, "{n}").map(|()| n))
        };
        let creators: Vec<_> = (0..16).map(|n| scope.spawn(create(n))).collect();
        creators.into_iter().map(|creator| creator.join().unwrap()).collect()
    });
    let created: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(created.len(), 1, "{results:?}");
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}");
    }
    assert_state(&directory, Some(&created[0].to_string()));
}

#[rstest]
#[cfg_attr(target_family = "wasm", ignore = "there are no processes")]
fn a_killed_process_leaves_nothing_or_what_the_next_write_removes(
    #[values(Some("old content"), None)] old: Option<&str>,
    #[values("kill", "exit", "abort")] end: &str,
    #[values("write", "create", "fail")] next: &str,
) {
    let directory = prepare("here", old);
    let path = directory.join("file");
    let (mut child, _answer) = Child::new(module_path!(), end, &path).spawn_staged();
    if end == "kill" {
        child.kill().unwrap();
    }
    assert!(!child.wait().unwrap().success());

    assert_destination(&directory, old);
    let entries = directory.listing().len() - 1 - usize::from(old.is_some());
    assert!(entries <= usize::from(!cfg!(target_os = "linux")), "{:?}", directory.listing());
    let content = match (next, old) {
        ("write", _) | ("create", None) => Some("next"),
        _ => old,
    };
    let options = WriteOptions::new();
    let result = match next {
        "create" => options.create(&path, |w| write!(w, "next")),
        "write" => options.write(&path, |w| write!(w, "next")),
        _ => options.write(&path, |_| Err(io::Error::other("no"))),
    };
    assert_eq!(result.is_ok(), content == Some("next"), "{result:?}");
    if next == "create" && old.is_some() {
        // Refused before it staged anything; the one after that is not.
        write(&path, old.unwrap()).unwrap();
    }
    assert_state(&directory, content);
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    let closure = |w: &mut Writer| {
        w.write_all(new_content().as_bytes())?;
        w.flush()?;
        child::end_while_staged(&role)
    };
    let options = WriteOptions::new();
    let done = match role.as_str() {
        "update" => options.update(path, |_, w| closure(w)),
        _ => options.write(path, closure),
    };
    done.unwrap();
}

#[rstest]
#[cfg_attr(target_family = "wasm", ignore = "there are no locks: nobody knows who is alive")]
fn the_living_are_left_alone_and_the_dead_are_removed(
    #[values(Some("old"), None)] old: Option<&str>,
) {
    let directory = prepare("here", old);
    directory.file(".file.write-atomically", "left by a killed writer");
    write_atomically(directory.join("file"), |slow| {
        write_atomically(directory.join("file"), |fast| Ok(write!(fast, "fast")?))?;
        assert_destination(&directory, Some("fast"));
        Ok(write!(slow, "slow")?)
    })
    .unwrap();
    assert_state(&directory, Some("slow"));
}

#[rstest]
#[cfg_attr(windows, ignore = "making links needs a privilege; wine makes none and says it did")]
#[cfg_attr(target_family = "wasm", ignore = "`std` makes no links there yet")]
#[case::followed(true)]
#[cfg_attr(windows, ignore = "making links needs a privilege; wine makes none and says it did")]
#[cfg_attr(target_family = "wasm", ignore = "`std` makes no links there yet")]
#[case::replaced(false)]
fn a_link_is_followed_unless_it_is_to_be_replaced(#[case] follow: bool) {
    let directory = prepare("here", Some("old"));
    symlink(Path::new("file"), &directory.join("link"));
    let options = WriteOptions::new().follow_symlinks(follow);
    options.write(directory.join("link"), |w| write!(w, "new")).unwrap();
    assert_eq!(directory.join("link").is_symlink(), follow);
    assert_eq!(support::read(&directory.join("link")), "new");
    assert_eq!(support::read(&directory.join("file")), if follow { "new" } else { "old" });
    assert_eq!(directory.listing(), ["file", "link", "neighbour"]);
}

#[cfg(unix)]
fn symlink(to: &Path, link: &Path) {
    fs_err::os::unix::fs::symlink(to, link).unwrap();
}

#[cfg(windows)]
fn symlink(to: &Path, link: &Path) {
    fs_err::os::windows::fs::symlink_file(to, link).unwrap();
}

#[cfg(not(any(unix, windows)))]
fn symlink(_to: &Path, _link: &Path) {
    unreachable!("ignored");
}

fn count(old: Option<&mut Reader>, new: &mut Writer) -> io::Result<()> {
    let old = old.map(io::read_to_string).transpose()?.unwrap_or("0".into());
    write!(new, "{}", old.parse::<u32>().unwrap() + 1)
}

#[rstest]
#[cfg_attr(target_family = "wasm", ignore = "there are no threads")]
fn no_update_is_lost(#[values(Some("0"), None)] old: Option<&str>) {
    let directory = prepare("here", old);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..3 {
                    WriteOptions::new().update(directory.join("file"), count).unwrap();
                }
            });
        }
    });
    assert_state(&directory, Some("24"));
}

#[rstest]
#[cfg(target_family = "wasm")]
fn without_locks_an_update_is_refused_before_the_closure_runs() {
    let directory = prepare("here", Some("0"));
    let error = WriteOptions::new().update(directory.join("file"), |_, _| -> io::Result<()> {
        panic!("the closure ran in vain")
    });
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::Unsupported);
    assert_state(&directory, Some("0"));
}

#[rstest]
#[cfg_attr(target_family = "wasm", ignore = "there are no threads")]
fn of_those_who_write_what_is_missing_one_does_and_the_others_wait() {
    let directory = prepare("here", None);
    let ran = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let done = write_if_missing(directory.join("file"), |w| {
                    ran.fetch_add(1, Ordering::Relaxed);
                    Ok(write!(w, "expensive")?)
                });
                done.unwrap();
                assert_eq!(support::read(&directory.join("file")), "expensive");
            });
        }
    });
    assert_eq!(ran.into_inner(), 1);
    assert_state(&directory, Some("expensive"));
}

#[rstest]
fn what_is_the_same_is_not_written_again() {
    let directory = prepare("here", None);
    let write = |content: &str| {
        write_if_changed(directory.join("file"), |w| Ok(write!(w, "{content}")?)).unwrap()
    };
    let modified = || fs::metadata(directory.join("file")).unwrap().modified().unwrap();
    assert_eq!(write("one"), Change::Written(()));
    let before = modified();
    assert_eq!(write("one"), Change::Unchanged(()));
    assert_eq!(modified(), before);
    assert_state(&directory, Some("one"));
    assert_eq!(write("two"), Change::Written(()));
    assert_state(&directory, Some("two"));
}

#[rstest]
#[cfg_attr(target_family = "wasm", ignore = "there are no locks")]
fn an_update_within_an_update_of_the_same_file_is_a_deadlock_at_once(
    #[values(Some("0"), None)] old: Option<&str>,
) {
    let directory = prepare("here", old);
    let path = directory.join("file");
    let options = WriteOptions::new();
    let outer = options.update(&path, |_, _| {
        // Another file is no problem.
        options.update(directory.join("neighbour"), |_, w| write!(w, "untouched"))?;
        options.update(&path, |_, w| write!(w, "inner"))
    });
    assert_eq!(outer.unwrap_err().kind(), io::ErrorKind::Deadlock);
    assert_state(&directory, old);
}

#[rstest]
#[cfg_attr(target_family = "wasm", ignore = "there are no processes")]
fn who_is_killed_in_an_update_blocks_nobody(#[values(Some("0"), None)] old: Option<&str>) {
    let directory = prepare("here", old);
    let path = directory.join("file");
    let (mut child, _answer) = Child::new(module_path!(), "update", &path).spawn_staged();
    child.kill().unwrap();
    child.wait().unwrap();
    WriteOptions::new().update(&path, count).unwrap();
    assert_state(&directory, Some("1"));
}

#[rstest]
#[cfg(not(any(unix, windows)))]
fn what_needs_a_private_directory_is_refused_before_the_closure_runs(
    #[values("path", "directory", "batch")] what: &str,
    #[values(true, false)] exists: bool,
) {
    let directory = prepare("here", None);
    let path = directory.join("new");
    match (exists, what) {
        (true, "directory") => fs::create_dir(&path).unwrap(),
        (true, _) => fs::write(&path, "old").unwrap(),
        (false, _) => {}
    }
    let before = directory.listing();
    let options = WriteOptions::new();
    let ran = || -> io::Result<()> { panic!("the closure ran in vain") };
    let error = match what {
        "path" => options.write_path(&path, |_| ran()),
        "directory" => options.write_dir(&path, |_| ran()),
        _ => options.write_batch(|_| ran()),
    };
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::Unsupported);
    assert_eq!(directory.listing(), before);
}
