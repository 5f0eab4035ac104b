//! Promises 1 to 4 for `write_batch`: no file is published before all are staged.

use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process;

use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use rstest::rstest;
use rstest_reuse::apply;
use write_atomically::{
    Batch, Durability, Error, Step, WriteOptions, write, write_batch, write_path_atomically,
};

use crate::child::{self, Child};
use crate::filesystems::filesystems;
use crate::support::{self, Directory, Mount, NOBODY};
use crate::trees;

/// Two directories, with a file to be replaced in each.
fn prepare(filesystem: &str) -> Directory {
    let directory = Directory::on(filesystem);
    for name in ["one", "two"] {
        fs::create_dir(directory.join(name)).unwrap();
        directory.file(format!("{name}/old"), "old");
        directory.file(format!("{name}/neighbour"), "untouched");
    }
    directory
}

const PATHS: [&str; 4] = ["one/new", "two/old", "one/old", "two/new"];

fn write_all<E: From<io::Error>>(batch: &mut Batch<E>, directory: &Directory) -> Result<(), E> {
    for path in PATHS {
        batch.write(directory.join(path), |w| Ok(w.write_all(b"new")?))?;
    }
    Ok(())
}

fn assert_old(directory: &Directory) {
    assert_eq!(
        trees::tree(directory.path()),
        trees::expected([
            ("one", "directory"),
            ("one/neighbour", "untouched"),
            ("one/old", "old"),
            ("two", "directory"),
            ("two/neighbour", "untouched"),
            ("two/old", "old"),
        ])
    );
}

fn assert_new(directory: &Directory) {
    assert_eq!(
        trees::tree(directory.path()),
        trees::expected([
            ("one", "directory"),
            ("one/neighbour", "untouched"),
            ("one/new", "new"),
            ("one/old", "new"),
            ("two", "directory"),
            ("two/neighbour", "untouched"),
            ("two/new", "new"),
            ("two/old", "new"),
        ])
    );
}

/// Of the first file in each directory.
fn staging_names(directory: &Directory, filesystem: &str) -> [String; 2] {
    ["one/new", "two/old"].map(|path| support::staging_name(filesystem, &directory.join(path)))
}

fn names(path: &Path) -> Vec<String> {
    support::listing(path).into_iter().filter(|name| name.contains("write-atomically")).collect()
}

#[apply(filesystems)]
fn all_are_published_and_none_before_the_end(
    #[case] filesystem: &str,
    #[values(Durability::Durable, Durability::Consistent, Durability::Relaxed)]
    durability: Durability,
    #[values(1, 3)] times: usize,
) {
    let directory = prepare(filesystem);
    let options = WriteOptions::new().durability(durability);
    let [of_new, of_old] = staging_names(&directory, filesystem);
    let value: io::Result<i32> = options.write_batch(|batch| {
        write_all(batch, &directory)?;
        for name in ["one", "two"] {
            assert_eq!(support::read(&directory.join(name).join("old")), "old");
            assert!(!directory.join(name).join("new").exists());
        }
        // One staging entry a directory, named after the first file there.
        assert_eq!(names(&directory.join("one")), [&*of_new]);
        assert_eq!(names(&directory.join("two")), [&*of_old]);
        assert_eq!(support::mode(&directory.join("one").join(&of_new)), 0o1700);
        for n in 4..4 * times {
            batch.write(directory.join(format!("one/more-{n}")), |w| writeln!(w, "{n}"))?;
        }
        Ok(42)
    });
    assert_eq!(value.unwrap(), 42);
    for n in 4..4 * times {
        let more = directory.join(format!("one/more-{n}"));
        assert_eq!(support::read(&more), format!("{n}\n"));
        fs::remove_file(more).unwrap();
    }
    assert_new(&directory);
}

#[apply(filesystems)]
fn a_closure_that_fails_leaves_everything_as_it_was(
    #[case] filesystem: &str,
    #[values("error", "panic", "error inside", "panic inside")] end: &str,
) {
    let directory = prepare(filesystem);
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        write_batch::<()>(|batch| {
            write_all(batch, &directory)?;
            let last = directory.join("one/last");
            match end {
                "error" => anyhow::bail!("no more rows"),
                "panic" => panic::resume_unwind(Box::new("a bug")),
                "error inside" => batch.write(last, |_| anyhow::bail!("no more rows")),
                _ => batch.write(last, |_| panic::resume_unwind(Box::new("a bug"))),
            }
        })
    }));
    support::assert_failed(result);
    assert_old(&directory);
}

#[apply(filesystems)]
fn what_a_killed_process_leaves_goes_with_the_next_write(
    #[case] filesystem: &str,
    #[values("exit", "kill")] end: &str,
    #[values("batch", "batch in another order", "plain", "by path")] next: &str,
) {
    let directory = prepare(filesystem);
    let [of_new, of_old] = staging_names(&directory, filesystem);
    assert!(!Child::new(module_path!(), end, directory.path()).status().success());
    assert_eq!(names(&directory.join("one")), [of_new]);
    assert_eq!(names(&directory.join("two")), [of_old]);
    assert_eq!(support::read(&directory.join("two/old")), "old");
    let all = PATHS.map(|path| directory.join(path));
    match next {
        "batch" => write_batch(|batch| write_all(batch, &directory)).unwrap(),
        "batch in another order" => write_batch(|batch| {
            all.iter().rev().try_for_each(|path| batch.write(path, |w| Ok(w.write_all(b"new")?)))
        })
        .unwrap(),
        "plain" => all.iter().try_for_each(|path| write(path, "new")).unwrap(),
        _ => all
            .iter()
            .try_for_each(|path| write_path_atomically(path, |at| Ok(fs::write(at, "new")?)))
            .unwrap(),
    }
    assert_new(&directory);
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    let relaxed = WriteOptions::new().durability(Durability::Relaxed);
    let number = |path: PathBuf, batch: &mut Batch<io::Error>, n: usize| {
        batch.write(path, |w| write!(w, "{n}"))
    };
    match role.as_str() {
        "exit" | "kill" => write_batch(|batch| {
            for name in PATHS {
                batch.write(path.join(name), |w| Ok(w.write_all(b"new")?))?;
            }
            if role == "exit" {
                process::exit(7);
            }
            child::kill_this_process();
            Ok(())
        })
        .unwrap(),
        "many files" | "many more files" => {
            child::limit_descriptors(256);
            let files = if role == "many files" { 5_000 } else { 100_000 };
            let all = |batch: &mut Batch<_>| {
                (0..files).try_for_each(|n| number(path.join(n.to_string()), batch, n))
            };
            relaxed.write_batch(all).unwrap();
            child::say("done");
        }
        "many directories" => {
            child::limit_descriptors(64);
            for round in 0..2 {
                let used = WriteOptions::new().create_parents(round == 1).write_batch(|batch| {
                    for file in 0..3 {
                        for n in 0..100 {
                            let below = path.join(n.to_string()).join("x".repeat(round));
                            number(below.join(file.to_string()), batch, n)?;
                        }
                        // They are alive although most of them are closed.
                        let first = path.join("7/0");
                        if round == 0 {
                            write(&first, "meanwhile")?;
                        }
                        assert!(!names(first.parent().unwrap()).is_empty());
                    }
                    Ok::<_, io::Error>(child::use_all_descriptors())
                });
                assert!(!used.unwrap().is_empty());
            }
            child::say("done");
        }
        "removed meanwhile" => {
            child::limit_descriptors(64);
            let result = WriteOptions::new().write_batch(|batch| {
                (0..100).try_for_each(|n| number(path.join(n.to_string()).join("0"), batch, n))?;
                fs::rename(path.join("0"), path.join("moved"))
            });
            let error = result.unwrap_err();
            child::say(Error::find(&error).unwrap().published().len());
        }
        "as nobody" => {
            let mut ran = false;
            let error = relaxed
                .write_batch(|batch| {
                    batch.write(&path, |_| {
                        ran = true;
                        io::Result::Ok(())
                    })
                })
                .unwrap_err();
            child::say(format!("{:?} {ran}", error.kind()));
        }
        "durable" | "consistent" | "relaxed" | "few" => {
            let options = WriteOptions::new().durability(child::durability(&role));
            let files = if role == "few" { 2 } else { 20 };
            let all = |batch: &mut Batch<_>| {
                (0..files).try_for_each(|n| {
                    number(path.join(["one", "two"][n % 2]).join(n.to_string()), batch, n)
                })
            };
            options.write_batch(all).unwrap();
        }
        role => panic!("{role}"),
    }
}

#[rstest]
#[case::many_files("many files", 5_000)]
#[ignore = "slow: 100,000 files"]
#[case::many_more_files("many more files", 100_000)]
fn descriptors_do_not_limit_the_files(#[case] role: &str, #[case] files: usize) {
    let directory = Directory::new();
    assert_eq!(Child::new(module_path!(), role, directory.path()).answer(), "done");
    assert_eq!(directory.listing().len(), files);
    for n in [0, 1, files / 2, files - 1] {
        assert_eq!(support::read(&directory.join(n.to_string())), n.to_string());
    }
}

#[rstest]
fn descriptors_do_not_limit_the_directories() {
    let directory = Directory::new();
    for n in 0..100 {
        fs::create_dir(directory.join(n.to_string())).unwrap();
    }
    assert_eq!(Child::new(module_path!(), "many directories", directory.path()).answer(), "done");
    assert_eq!(directory.listing().len(), 100);
    for n in 0..100 {
        let below = directory.join(n.to_string());
        assert_eq!(support::listing(&below), ["0", "1", "2", "x"]);
        for path in ["0", "1", "2", "x/0", "x/1", "x/2"] {
            assert_eq!(support::read(&below.join(path)), n.to_string());
        }
    }
}

#[rstest]
fn a_closed_directory_that_was_moved_is_an_error() {
    let directory = Directory::new();
    for n in 0..100 {
        fs::create_dir(directory.join(n.to_string())).unwrap();
    }
    assert_eq!(Child::new(module_path!(), "removed meanwhile", directory.path()).answer(), "0");
    for n in 1..100 {
        assert_eq!(support::listing(&directory.join(n.to_string())), [""; 0]);
    }
}

#[rstest]
#[case::same("one/new", "one/new")]
#[case::through_a_link("one/new", "link")]
#[case::through_a_linked_directory("two/old", "to-two/old")]
#[case::in_a_missing_directory("made/file", "made/file")]
#[case::by_a_detour("one/new", "two/../one/new")]
fn the_same_path_twice_is_an_error(
    #[case] first: &str,
    #[case] second: &str,
    #[values(true, false)] swallow: bool,
) {
    let directory = prepare("here");
    symlink("one/new", directory.join("link")).unwrap();
    symlink("two", directory.join("to-two")).unwrap();
    let before = trees::tree(directory.path());
    let mut ran = false;
    let options = WriteOptions::new().create_parents(true);
    let result = options.write_batch(|batch| {
        batch.write(directory.join(first), |w| w.write_all(b"first"))?;
        let again = batch.write(directory.join(second), |_| {
            ran = true;
            Ok(())
        });
        assert_eq!(again.as_ref().unwrap_err().kind(), ErrorKind::InvalidInput);
        if swallow { Ok(()) } else { again }
    });
    assert!(!ran, "the closure ran in vain");
    assert_eq!(result.is_ok(), swallow);
    match swallow {
        true => assert_eq!(support::read(&directory.join(first)), "first"),
        false => assert_eq!(trees::tree(directory.path()), before),
    }
    assert_eq!(names(&directory.join("one")), [""; 0]);
}

#[rstest]
fn a_file_that_failed_is_no_part_of_the_batch(#[values(true, false)] again: bool) {
    let directory = prepare("here");
    write_batch(|batch| {
        write_all(batch, &directory)?;
        let failed = batch.write::<()>(directory.join("one/failed"), |w| {
            w.write_all(b"half")?;
            anyhow::bail!("no more rows")
        });
        assert!(failed.is_err());
        if again {
            batch.write(directory.join("one/failed"), |w| Ok(w.write_all(b"whole")?))?;
        }
        Ok(())
    })
    .unwrap();
    if again {
        assert_eq!(support::read(&directory.join("one/failed")), "whole");
        fs::remove_file(directory.join("one/failed")).unwrap();
    }
    assert_new(&directory);
}

#[rstest]
#[case::missing_directory("missing/file", ErrorKind::NotFound)]
#[case::directory("two", ErrorKind::IsADirectory)]
#[case::trailing_slash("one/new/", ErrorKind::IsADirectory)]
#[case::fifo("fifo", ErrorKind::Unsupported)]
#[case::null("/dev/null", ErrorKind::Unsupported)]
#[case::standard_output("/dev/stdout", ErrorKind::Unsupported)]
fn what_can_be_known_is_refused_before_the_closure(#[case] path: &str, #[case] kind: ErrorKind) {
    let directory = prepare("here");
    trees::make_fifo(&directory.join("fifo"));
    let before = trees::tree(directory.path());
    let mut ran = false;
    let result = WriteOptions::new().write_batch(|batch| {
        write_all(batch, &directory)?;
        batch.write(directory.join(path), |_| {
            ran = true;
            io::Result::Ok(())
        })
    });
    assert_eq!((result.unwrap_err().kind(), ran), (kind, false));
    assert_eq!(trees::tree(directory.path()), before);
}

#[rstest]
#[case::directory(0o555, 0o644, "PermissionDenied false")]
#[case::file(0o777, 0o444, "PermissionDenied false")]
fn what_may_not_be_written_is_refused(
    #[case] directory_mode: u32,
    #[case] mode: u32,
    #[case] expected: &str,
) {
    let directory = prepare("here");
    let path = directory.join("one/old");
    if support::is_root() {
        fs_err::os::unix::fs::chown(&path, Some(NOBODY), None).unwrap();
    }
    support::set_mode(&path, mode);
    support::set_mode(&directory.join("one"), directory_mode);
    assert_eq!(Child::new(module_path!(), "as nobody", &path).by_nobody().answer(), expected);
    support::set_mode(&directory.join("one"), 0o755);
    assert_old(&directory);
}

/// What comes into the way while the closure runs: before anything is published if that can be seen.
#[rstest]
#[case::directory_in_the_way("directory", Step::Publish, &[])]
#[case::file_where_a_parent_is_to_be("", Step::Publish, &["one/new", "two/old", "made"])]
fn a_batch_that_fails_to_publish_says_what_it_has_published(
    #[case] obstacle: &str,
    #[case] step: Step,
    #[case] published: &[&str],
) {
    let directory = prepare("here");
    let options = WriteOptions::new().create_parents(true);
    let error = options
        .write_batch(|batch| {
            // The fourth can't be where the third is; only publishing finds out.
            for path in ["one/new", "two/old", "made", "made/file", "two/new"] {
                batch.write(directory.join(path), |w| w.write_all(b"new"))?;
            }
            match obstacle {
                "directory" => fs::create_dir(directory.join("two/new")),
                _ => Ok(()),
            }
        })
        .unwrap_err();
    let error = Error::find(&error).unwrap();
    assert_eq!(error.step(), step, "{error}");
    let published: Vec<_> = published.iter().map(|path| directory.join(path)).collect();
    assert_eq!(error.published(), published);
    assert!(!error.replaced());
    for path in ["one/new", "two/old", "made"] {
        let new = published.contains(&directory.join(path));
        let content = fs::read_to_string(directory.join(path)).unwrap_or_default();
        assert_eq!(content == "new", new, "{path}");
    }
    assert!(names(&directory.join("one")).is_empty() && names(&directory.join("two")).is_empty());
    assert!(names(directory.path()).is_empty());
    let message = error.to_string();
    for path in published {
        assert!(message.contains(&format!("`{}`", path.display())), "{message}");
    }
}

#[rstest]
#[case::old_mode_is_kept(Some(0o640), None, 0o640)]
#[case::exact(Some(0o640), Some(0o604), 0o604)]
#[case::new(None, None, 0o644)]
#[case::new_exact(None, Some(0o600), 0o600)]
#[case::tightened_meanwhile(Some(0o644), None, 0o600)]
#[case::came_meanwhile(None, None, 0o600)]
fn the_mode_is_carried_over(
    #[case] old: Option<u32>,
    #[case] option: Option<u32>,
    #[case] expected: u32,
    #[values(1, 20)] files: usize,
) {
    let directory = Directory::new();
    let paths: Vec<_> = (0..files).map(|n| directory.join(n.to_string())).collect();
    let meanwhile = expected == 0o600 && option.is_none();
    if let Some(old) = old {
        for path in &paths {
            fs::write(path, "old").unwrap();
            support::set_mode(path, old);
        }
    }
    let options = option.map_or(WriteOptions::new(), |mode| WriteOptions::new().mode(mode));
    let result: io::Result<()> = options.write_batch(|batch| {
        for path in &paths {
            batch.write(path, |w| w.write_all(b"new"))?;
        }
        for path in paths.iter().filter(|_| meanwhile) {
            fs::write(path, "other")?;
            fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        }
        Ok(())
    });
    result.unwrap();
    for path in &paths {
        assert_eq!(format!("{:o}", support::mode(path)), format!("{expected:o}"));
        assert_eq!(support::read(path), "new");
        assert_eq!(fs::metadata(path).unwrap().nlink(), 1);
    }
    assert_eq!(directory.listing().len(), files);
}

#[rstest]
fn links_are_followed_and_stay() {
    let directory = prepare("here");
    let links = [
        ("link-1", "one/old"),
        ("link-2", "two/old"),
        ("link-3", "one/new"),
        ("link-4", "two/new"),
    ];
    for (link, to) in links {
        symlink(to, directory.join(link)).unwrap();
    }
    write_batch(|batch| {
        links.iter().try_for_each(|(link, _)| {
            batch.write(directory.join(link), |w| Ok(w.write_all(b"new")?))
        })
    })
    .unwrap();
    for (link, to) in links {
        assert_eq!(fs::read_link(directory.join(link)).unwrap(), Path::new(to));
        fs::remove_file(directory.join(link)).unwrap();
    }
    assert_new(&directory);
}

#[rstest]
fn missing_parents_are_made_when_publishing(#[values(true, false)] fails: bool) {
    let directory = prepare("here");
    let result = WriteOptions::new().create_parents(true).write_batch(|batch| {
        for path in ["a/b/1", "a/b/2", "a/3", "one/4"] {
            batch.write(directory.join(path), |w| w.write_all(path.as_bytes()))?;
        }
        assert!(!directory.join("a").exists());
        if fails { Err(io::Error::other("no")) } else { Ok(()) }
    });
    assert_eq!(result.is_err(), fails);
    if !fails {
        for path in ["a/b/1", "a/b/2", "a/3", "one/4"] {
            assert_eq!(support::read(&directory.join(path)), path);
        }
        fs::remove_dir_all(directory.join("a")).unwrap();
        fs::remove_file(directory.join("one/4")).unwrap();
    }
    assert_old(&directory);
}

#[rstest]
fn a_batch_may_span_filesystems() {
    let (here, memory) = (prepare("here"), Directory::on_memory());
    write_batch(|batch| {
        for n in 0..20 {
            batch.write(memory.join(n.to_string()), |w| Ok(write!(w, "{n}")?))?;
        }
        write_all(batch, &here)
    })
    .unwrap();
    assert_new(&here);
    assert_eq!(memory.listing().len(), 20);
}

#[rstest]
fn batches_of_the_same_files_do_not_disturb_each_other() {
    let directory = prepare("here");
    write_batch(|batch| {
        write_all(batch, &directory)?;
        write_batch(|inner| {
            PATHS.iter().try_for_each(|path| {
                inner.write(directory.join(path), |w| Ok(w.write_all(b"inner")?))
            })
        })?;
        assert_eq!(support::read(&directory.join("one/old")), "inner");
        write(directory.join("one/new"), "plain")?;
        Ok(())
    })
    .unwrap();
    assert_new(&directory);
}

#[rstest]
fn what_failed_is_kept_where_that_was_asked_for() {
    let directory = prepare("here");
    let options = WriteOptions::new().keep_failed(directory.join("kept"));
    let result = options.write_batch(|batch| {
        write_all(batch, &directory)?;
        batch.write(directory.join("one/failed"), |w| {
            w.write_all(b"partial")?;
            io::Result::<()>::Err(io::ErrorKind::Other.into())
        })
    });
    assert!(result.is_err());
    assert_eq!(support::read(&directory.join("kept")), "partial");
    fs::remove_file(directory.join("kept")).unwrap();
    assert_old(&directory);
}

#[rstest]
fn an_empty_batch_does_nothing() {
    let directory = prepare("here");
    assert_eq!(write_batch(|_| Ok(42)).unwrap(), 42);
    assert_old(&directory);
}

#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn what_is_mounted_is_refused(#[values(true, false)] overwrite: bool) {
    let directory = prepare("here");
    let _mount = Mount::bind(&directory.join("two/old"), &directory.join("one/old"));
    let mut ran = false;
    let result = WriteOptions::new().in_place_fallback(overwrite).write_batch(|batch| {
        batch.write(directory.join("one/old"), |_| {
            ran = true;
            io::Result::Ok(())
        })
    });
    let kind = if overwrite { ErrorKind::Unsupported } else { ErrorKind::ResourceBusy };
    assert_eq!((result.unwrap_err().kind(), ran), (kind, false));
    assert_old(&directory);
}

/// Needs a small filesystem, which fills up in the middle.
#[rstest]
#[ignore = "needs a full filesystem: run tests/privileged"]
fn a_full_disk_leaves_everything_as_it_was() {
    let directory = prepare("small");
    let content = vec![7; 1 << 20];
    let error = WriteOptions::new().write_batch(|batch| {
        write_all(batch, &directory)?;
        (0..30).try_for_each(|n| {
            batch.write(directory.join(format!("one/{n}")), |w| w.write_all(&content))
        })
    });
    let error: io::Error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_old(&directory);
    write_batch(|batch| write_all(batch, &directory)).unwrap();
    assert_new(&directory);
}

#[rstest]
#[ignore = "needs strace: run tests/privileged"]
#[case::durable("durable", 1, "syncfs", 20, 2)]
#[ignore = "needs strace: run tests/privileged"]
#[case::few_files("few", 2, "fdatasync", 2, 2)]
#[ignore = "needs strace: run tests/privileged"]
#[case::consistent("consistent", 1, "syncfs", 20, 0)]
#[ignore = "needs strace: run tests/privileged"]
#[case::relaxed("relaxed", 0, "", 20, 0)]
fn durability_is_what_was_asked_for(
    #[case] role: &str,
    #[case] syncs: usize,
    #[case] sync: &str,
    #[case] renames: usize,
    #[case] directory_syncs: usize,
) {
    let directory = prepare("here");
    let made = child::calls_that_matter(module_path!(), role, directory.path());
    let mut expected = vec!["linkat"];
    expected.extend(vec![sync; syncs]);
    expected.extend(vec!["renameat2"; renames]);
    expected.extend(vec!["fsync"; directory_syncs]);
    assert_eq!(made, expected);
}

/// Where syncing the whole filesystem may not tell what was lost, each file is synced by itself, before any is
/// published.
#[rstest]
#[ignore = "needs strace and filesystems: run tests/privileged"]
#[case::overlay("overlay", 20)]
#[ignore = "needs strace and filesystems: run tests/privileged"]
#[case::ext4("ext4", 0)]
fn where_losses_could_be_missed_each_file_is_synced(
    #[case] filesystem: &str,
    #[case] at_least: usize,
) {
    let directory = prepare(filesystem);
    let made = child::calls_that_matter(module_path!(), "consistent", directory.path());
    let synced = made.iter().filter(|call| *call == "fdatasync").count();
    assert!(synced >= at_least, "{made:?}");
    assert_eq!(made.contains(&"syncfs".to_owned()), at_least == 0, "{made:?}");
    let published = made.iter().position(|call| call == "renameat2").unwrap();
    assert!(!made[published..].contains(&"fdatasync".to_owned()), "{made:?}");
}
