//! Promises 1 to 4 and 8 for content that is staged in a private directory (files by path, trees, batches), on
//! every platform that has one.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::thread;

use fs_err as fs;
use rstest::rstest;
use rstest_reuse::apply;
use write_atomically::{Durability, Error, Step, WriteOptions, write};

use crate::child::{self, Child};
use crate::filesystems::filesystems;
use crate::producers::{self, produce};
use crate::support::{self, Directory, assert_state, prepare};
use crate::trees;

#[apply(filesystems)]
fn what_the_producer_leaves_is_published_and_nothing_else(
    #[case] filesystem: &str,
    #[values(Some("old"), None)] old: Option<&str>,
    #[values(
        "plain",
        "by renaming another over it",
        "with side files",
        "with a backup that is a link",
        "without write permission",
        "calling the library"
    )]
    how: &str,
    #[values(Durability::Durable, Durability::Relaxed)] durability: Durability,
) {
    let directory = prepare(filesystem, old);
    let options = WriteOptions::new().durability(durability);
    let value = options.write_path(directory.join("file"), |staged| {
        produce(how, staged)?;
        if let Some(old) = old {
            assert_eq!(support::read(&directory.join("file")), old);
        }
        io::Result::Ok(42)
    });
    assert_eq!(value.unwrap(), 42);
    assert_state(&directory, Some("new"));
}

#[rstest]
fn a_file_with_another_name_is_published_as_a_copy(#[values(Some("old"), None)] old: Option<&str>) {
    let directory = prepare("here", old);
    let neighbour = directory.join("neighbour");
    let link = |staged: &Path| fs::hard_link(&neighbour, staged);
    WriteOptions::new().write_path(directory.join("file"), link).unwrap();
    assert_state(&directory, Some("untouched"));
    fs::write(directory.join("file"), "changed").unwrap();
    assert_state(&directory, Some("changed"));
}

#[apply(filesystems)]
fn what_is_no_regular_file_is_an_error(
    #[case] filesystem: &str,
    #[values(Some("old"), None)] old: Option<&str>,
    #[values("nothing", "directory")] left: &str,
) {
    let directory = prepare(filesystem, old);
    let error = WriteOptions::new().write_path(directory.join("file"), |staged| match left {
        "nothing" => Ok(()),
        _ => fs::create_dir(staged),
    });
    let error = error.unwrap_err();
    let error = Error::find(&error).unwrap();
    assert_eq!((error.step(), error.replaced()), (Step::Publish, false), "{error}");
    assert_state(&directory, old);
}

#[rstest]
fn the_staging_path_is_plain_and_empty_and_keeps_the_name() {
    let directory = Directory::new();
    let write = |staged: &Path| {
        let around = staged.parent().unwrap();
        assert!(staged.is_absolute());
        assert!(!staged.to_string_lossy().starts_with(r"\\?\"), "many programs don't know that");
        assert_eq!(staged.file_name().unwrap(), "file.txt");
        assert_eq!(
            around.parent().unwrap().canonicalize()?,
            directory.path().canonicalize()?,
            "not beside the destination"
        );
        assert_eq!(support::listing(around), [""; 0]);
        #[cfg(target_os = "linux")]
        assert_eq!(support::mode(around), 0o1700);
        fs::write(staged, "new")
    };
    let path = directory.file("file.txt", "old");
    WriteOptions::new().write_path(&path, write).unwrap();
    assert_eq!(
        (support::read(&path), directory.listing()),
        ("new".into(), vec!["file.txt".into()])
    );
}

/// How closures fail.
fn fail(end: &str) -> io::Result<()> {
    match end {
        "panic" => panic::resume_unwind(Box::new("a bug")),
        _ => Err(io::Error::other("no more rows")),
    }
}

#[apply(filesystems)]
fn a_closure_that_fails_leaves_everything_as_it_was(
    #[case] filesystem: &str,
    #[values(Some("old"), None)] old: Option<&str>,
    #[values("error", "panic")] end: &str,
    #[values("path", "path with side files", "directory", "batch")] what: &str,
) {
    let directory = prepare(filesystem, old);
    let result = panic::catch_unwind(AssertUnwindSafe(|| -> io::Result<()> {
        let options = WriteOptions::new();
        match what {
            "path" | "path with side files" => {
                options.write_path(directory.join("file"), |staged| {
                    produce(if what == "path" { "plain" } else { "with side files" }, staged)?;
                    fail(end)
                })
            }
            "directory" => options.write_dir(directory.join("out"), |out| {
                build(out)?;
                fail(end)
            }),
            _ => options.write_batch(|batch| {
                batch.write(directory.join("file"), |w| w.write_all(b"new"))?;
                batch.write(directory.join("another"), |w| w.write_all(b"new"))?;
                fail(end)
            }),
        }
    }));
    support::assert_failed(result);
    assert_state(&directory, old);
}

#[rstest]
fn what_a_failed_closure_wrote_is_kept_where_asked(
    #[values("path", "batch")] what: &str,
    #[values("error", "panic")] end: &str,
) {
    let directory = prepare("here", Some("old"));
    let options = WriteOptions::new().keep_failed(directory.join("partial"));
    let result = panic::catch_unwind(AssertUnwindSafe(|| match what {
        "path" => options.write_path(directory.join("file"), |staged| {
            fs::write(staged, "half")?;
            fail(end)
        }),
        _ => options.write_batch(|batch| {
            batch.write(directory.join("file"), |w| {
                w.write_all(b"half")?;
                fail(end)
            })
        }),
    }));
    support::assert_failed(result);
    assert_eq!(support::read(&directory.join("partial")), "half");
    fs::remove_file(directory.join("partial")).unwrap();
    assert_state(&directory, Some("old"));
}

/// A tree of every depth at which something may go wrong.
fn build(out: &Path) -> io::Result<()> {
    fs::create_dir_all(out.join("a/b/c/d/e/f"))?;
    fs::create_dir(out.join("empty"))?;
    fs::write(out.join("index"), "index")?;
    fs::write(out.join("a/b/c/d/e/f/deep"), "deep")?;
    fs::write(out.join("a/fixed"), "fixed")?;
    producers::set_read_only(&out.join("a/fixed"));
    Ok(())
}

fn built(at: &str) -> BTreeMap<PathBuf, String> {
    let mut tree = trees::expected([("neighbour", "untouched")]);
    let directories = ["", "a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/e", "a/b/c/d/e/f", "empty"];
    let files = [("index", "index"), ("a/b/c/d/e/f/deep", "deep"), ("a/fixed", "fixed")];
    tree.extend(directories.map(|path| (Path::new(at).join(path), "directory".to_owned())));
    tree.extend(files.map(|(path, content)| (Path::new(at).join(path), content.to_owned())));
    tree
}

#[rstest]
fn a_tree_appears_whole(
    #[values(Durability::Durable, Durability::Consistent, Durability::Relaxed)]
    durability: Durability,
    #[values("out", "made/on/the/way")] path: &str,
) {
    let directory = prepare("here", None);
    let options = WriteOptions::new().durability(durability).create_parents(true);
    let value = options.write_dir(directory.join(path), |out| {
        build(out)?;
        assert!(!directory.join(path).exists());
        io::Result::Ok(42)
    });
    assert_eq!(value.unwrap(), 42);
    let mut expected = built(path);
    let above = Path::new(path).ancestors().skip(1).filter(|above| *above != Path::new(""));
    expected.extend(above.map(|above| (above.to_owned(), "directory".to_owned())));
    assert_eq!(trees::tree(directory.path()), expected);
}

/// Where no system call swaps two directories, that is known before the closure runs.
#[rstest]
fn an_existing_tree_is_replaced_or_refused_before_the_closure_runs() {
    let directory = prepare("here", None);
    fs::create_dir(directory.join("out")).unwrap();
    directory.file("out/old", "old");
    let before = trees::tree(directory.path());
    let mut ran = false;
    let result = WriteOptions::new().write_dir(directory.join("out"), |out| {
        ran = true;
        build(out)
    });
    let can_swap = cfg!(any(target_os = "linux", target_vendor = "apple"));
    assert_eq!((ran, result.is_ok()), (can_swap, can_swap), "{result:?}");
    if let Err(error) = result {
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
    let expected = if can_swap { built("out") } else { before };
    assert_eq!(trees::tree(directory.path()), expected);
}

#[rstest]
fn a_tree_does_not_clobber_what_appeared_meanwhile() {
    let directory = prepare("here", None);
    let error = WriteOptions::new().write_dir(directory.join("file"), |out| {
        build(out)?;
        fs::write(directory.join("file"), "theirs")
    });
    let error = error.unwrap_err();
    assert_eq!(Error::find(&error).unwrap().step(), Step::Publish, "{error}");
    assert_state(&directory, Some("theirs"));
}

#[rstest]
#[case::path_in_a_missing_directory("path", "missing/file", io::ErrorKind::NotFound)]
#[case::path_of_a_directory("path", "directory", io::ErrorKind::IsADirectory)]
#[case::tree_in_a_missing_directory("directory", "missing/out", io::ErrorKind::NotFound)]
#[case::tree_at_a_file("directory", "neighbour", io::ErrorKind::NotADirectory)]
#[case::batch_in_a_missing_directory("batch", "missing/file", io::ErrorKind::NotFound)]
#[case::batch_of_a_directory("batch", "directory", io::ErrorKind::IsADirectory)]
fn what_can_be_known_is_an_error_before_the_closure_runs(
    #[case] what: &str,
    #[case] path: &str,
    #[case] kind: io::ErrorKind,
) {
    let directory = prepare("here", Some("old"));
    fs::create_dir(directory.join("directory")).unwrap();
    let before = trees::tree(directory.path());
    let path = directory.join(path);
    let ran = || -> io::Result<()> { panic!("the closure ran in vain") };
    let options = WriteOptions::new();
    let error = match what {
        "path" => options.write_path(path, |_| ran()),
        "directory" => options.write_dir(path, |_| ran()),
        _ => options.write_batch(|batch| batch.write(path, |_| ran())),
    };
    assert_eq!(error.unwrap_err().kind(), kind);
    assert_eq!(trees::tree(directory.path()), before);
}

const DIRECTORIES: usize = 20;

/// In more directories, and of more files in each, than are kept open.
fn write_many(directory: &Directory, files: usize, fails: bool) -> io::Result<()> {
    WriteOptions::new().write_batch(|batch| {
        for file in 0..files {
            for n in 0..DIRECTORIES {
                let path = directory.join(n.to_string()).join(file.to_string());
                batch.write(path, |w| write!(w, "new {n} {file}"))?;
            }
        }
        assert_eq!(support::read(&directory.join("0/0")), "old");
        assert!(!directory.join("0/1").exists());
        if fails { Err(io::Error::other("no")) } else { Ok(()) }
    })
}

#[rstest]
fn a_batch_is_published_together_or_not_at_all(
    #[values(true, false)] fails: bool,
    #[values(1, 3)] files: usize,
) {
    let directory = Directory::new();
    let mut expected = BTreeMap::new();
    for n in 0..DIRECTORIES {
        fs::create_dir(directory.join(n.to_string())).unwrap();
        directory.file(format!("{n}/0"), "old");
        expected.insert(PathBuf::from(n.to_string()), "directory".to_owned());
        for file in 0..files {
            let new = format!("new {n} {file}");
            let content = if fails { "old".to_owned() } else { new };
            if !fails || file == 0 {
                expected.insert(PathBuf::from(format!("{n}/{file}")), content);
            }
        }
    }
    assert_eq!(write_many(&directory, files, fails).is_err(), fails);
    assert_eq!(trees::tree(directory.path()), expected);
}

#[rstest]
fn the_living_are_left_alone(#[values("path", "directory", "batch")] what: &str) {
    let directory = prepare("here", Some("old"));
    let path = directory.join("file");
    let inner = || {
        let options = WriteOptions::new();
        write(&path, "plain")?;
        options.write_path(&path, |staged| fs::write(staged, "by path"))?;
        options.write_batch(|batch| batch.write(&path, |w| w.write_all(b"batch")))?;
        assert_eq!(support::read(&path), "batch");
        io::Result::Ok(())
    };
    let options = WriteOptions::new();
    match what {
        "path" => options.write_path(&path, |staged| {
            fs::write(staged, "outer")?;
            inner()
        }),
        "directory" => {
            // Of the same name, and so with the same staging names, as the file.
            fs::remove_file(&path).unwrap();
            options.write_dir(&path, |out| {
                fs::write(out.join("outer"), "outer")?;
                inner()?;
                fs::remove_file(&path)
            })
        }
        _ => options.write_batch(|batch| {
            batch.write(&path, |w| w.write_all(b"outer"))?;
            inner()
        }),
    }
    .unwrap();
    if what == "directory" {
        assert_eq!(support::listing(&path), ["outer"]);
        fs::remove_dir_all(&path).unwrap();
        directory.file("file", "outer");
    }
    assert_state(&directory, Some("outer"));
}

#[rstest]
fn of_writers_that_race_one_wins_whole(
    #[values(Some("old"), None)] old: Option<&str>,
    #[values("path", "batch")] what: &str,
) {
    let directory = prepare("here", old);
    let path = directory.join("file");
    let options = WriteOptions::new().durability(Durability::Relaxed);
    thread::scope(|scope| {
        for n in 0..8 {
            let (path, options) = (&path, &options);
            scope.spawn(move || {
                for _ in 0..5 {
                    let written = match what {
                        "path" => options.write_path(path, |staged| fs::write(staged, [n; 1000])),
                        _ => options
                            .write_batch(|batch| batch.write(path, |w| w.write_all(&[n; 1000]))),
                    };
                    assert!(written.is_ok() || support::may_be_starved(&written), "{written:?}");
                }
            });
        }
    });
    let content = fs::read(&path).unwrap();
    assert!(content.len() == 1000 && content.iter().all(|byte| *byte == content[0]));
    assert_eq!(directory.listing(), ["file", "neighbour"]);
}

#[apply(filesystems)]
fn what_a_killed_process_leaves_goes_with_the_next_write(
    #[case] filesystem: &str,
    #[values(Some("old"), None)] old: Option<&str>,
    #[values("path", "directory", "batch")] what: &str,
    #[values("kill", "exit", "abort")] end: &str,
    #[values("plain", "path", "path that fails", "batch")] next: &str,
) {
    // What was to be a directory was no file before.
    let old = old.filter(|_| what != "directory");
    let directory = prepare(filesystem, old);
    let path = directory.join("file");
    let entry = support::staging_name(filesystem, &path);
    let (mut child, _answer) =
        Child::new(module_path!(), &format!("{what} {end}"), &path).spawn_staged();
    if end == "kill" {
        child.kill().unwrap();
    }
    assert!(!child.wait().unwrap().success());
    let left = directory.listing();
    assert!(left.contains(&entry), "{left:?}");
    assert_eq!(left.len(), 2 + usize::from(old.is_some()), "{left:?}");

    let options = WriteOptions::new();
    let result = match next {
        "plain" => write(&path, "next"),
        "path" => options.write_path(&path, |staged| fs::write(staged, "next")),
        "path that fails" => options.write_path(&path, |_| Err(io::Error::other("no"))),
        _ => options.write_batch(|batch| batch.write(&path, |w| w.write_all(b"next"))),
    };
    assert_eq!(result.is_ok(), next != "path that fails", "{result:?}");
    assert_state(&directory, if result.is_ok() { Some("next") } else { old });
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    let (what, end) = role.split_once(' ').unwrap();
    let end = || child::end_while_staged(end);
    let options = WriteOptions::new();
    let done = match what {
        "path" => options.write_path(path, |staged| {
            produce("with side files", staged)?;
            end()
        }),
        "directory" => options.write_dir(path, |out| {
            build(out)?;
            end()
        }),
        _ => options.write_batch(|batch| {
            batch.write(&path, |w| w.write_all(b"new"))?;
            for n in 0..10 {
                batch.write(path.with_file_name(n.to_string()), |w| w.write_all(b"new"))?;
            }
            end()
        }),
    };
    done.unwrap();
}
