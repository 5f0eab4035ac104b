//! Promise 7: the destination keeps its identity, and access is never widened.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fs_err as fs;
use fs_err::os::unix::fs::chown;
use rstest::rstest;
use rustix::fs::Mode;
use write_atomically::{WriteOptions, write, write_atomically};

use crate::child::{self, Child};
use crate::support::{self, Directory, NOBODY, mode, run, set_mode};

/// The umask belongs to the process, so it is a child's.
#[rstest]
#[case("022", 0o644)]
#[case("027", 0o640)]
#[case("077", 0o600)]
fn a_new_file_has_the_mode_of_any_new_file(#[case] umask: &str, #[case] expected: u32) {
    let directory = Directory::new();
    let path = directory.join("file");
    assert!(Child::new(module_path!(), &format!("umask {umask}"), &path).status().success());
    assert_eq!(format!("{:o}", mode(&path)), format!("{expected:o}"));
}

#[rstest]
#[case::private(0o600)]
#[case::group(0o660)]
#[case::everyone(0o666)]
#[case::executable(0o755)]
#[case::odd(0o604)]
#[case::sticky(0o1644)]
fn the_old_mode_is_kept_whatever_the_umask(#[case] old: u32, #[values("022", "077")] umask: &str) {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    set_mode(&path, old);
    assert!(Child::new(module_path!(), &format!("umask {umask}"), &path).status().success());
    assert_eq!(format!("{:o}", mode(&path)), format!("{old:o}"));
    assert_eq!(support::read(&path), "new");
}

#[rstest]
#[case(0o4755, 0o755)]
#[case(0o2755, 0o755)]
#[case(0o6711, 0o711)]
fn set_id_bits_are_dropped(#[case] old: u32, #[case] expected: u32) {
    let directory = Directory::new();
    let path = directory.file("program", "old");
    set_mode(&path, old);
    write(&path, "new").unwrap();
    assert_eq!(format!("{:o}", mode(&path)), format!("{expected:o}"));
}

#[rstest]
fn an_exact_mode_is_exact_whatever_the_umask(
    #[values(0o600, 0o666, 0o640, 0o4755)] exact: u32,
    #[values("022", "077")] umask: &str,
    #[values(Some(0o644), Some(0o600), None)] old: Option<u32>,
) {
    let directory = Directory::new();
    let path = directory.join("file");
    if let Some(old) = old {
        directory.file("file", "old");
        set_mode(&path, old);
    }
    let role = format!("umask {umask} mode {exact}");
    assert!(Child::new(module_path!(), &role, &path).status().success());
    assert_eq!(format!("{:o}", mode(&path)), format!("{exact:o}"));
}

#[rstest]
fn metadata_is_not_carried_over_if_not_wanted() {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    set_mode(&path, 0o600);
    let fresh = mode(&directory.file("fresh", ""));
    WriteOptions::new().preserve_metadata(false).write(&path, |w| w.write_all(b"new")).unwrap();
    assert_eq!(mode(&path), fresh);
}

#[rstest]
fn a_mode_that_was_tightened_meanwhile_stays_tight() {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    set_mode(&path, 0o644);
    write_atomically(&path, |w| {
        set_mode(&path, 0o600);
        Ok(w.write_all(b"new")?)
    })
    .unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[rstest]
fn the_mode_of_a_file_that_went_away_is_kept(#[values(0o644, 0o600, 0o640)] old: u32) {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    set_mode(&path, old);
    write_atomically(&path, |w| Ok(fs::remove_file(&path).and(w.write_all(b"new"))?)).unwrap();
    // What the group had may have been an ACL's mask, which nobody can tell any more.
    let known = old & 0o707 | old << 3 & old & 0o070;
    assert_eq!(format!("{:o}", mode(&path)), format!("{known:o}"));
}

/// Looks at the staging file all the time, until after it is published.
#[rstest]
fn the_staging_file_is_never_more_open_than_the_destination(
    #[values(0o600, 0o640, 0o604, 0o666)] old: u32,
) {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    set_mode(&path, old);
    for _ in 0..50 {
        let published = AtomicBool::new(false);
        let staged = std::sync::Mutex::new(None);
        thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let file: std::fs::File = loop {
                    match staged.lock().unwrap().take() {
                        Some(file) => break file,
                        None => thread::yield_now(),
                    }
                };
                let mut seen = Vec::new();
                while !published.load(Ordering::Relaxed) {
                    seen.push(file.metadata().unwrap().mode() & 0o7777);
                }
                seen
            });
            write_atomically(&path, |w| {
                w.write_all(b"new")?;
                *staged.lock().unwrap() = Some(w.file()?.try_clone()?);
                Ok(())
            })
            .unwrap();
            published.store(true, Ordering::Relaxed);
            for seen in watch.join().unwrap() {
                assert!(seen == 0o600 || seen & !old == 0, "{seen:o}");
            }
        });
    }
    assert_eq!(mode(&path), old);
}

#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn root_keeps_owner_and_group(
    #[values("here", "xfs", "btrfs", "tmpfs", "overlay")] on: &str,
    #[values((1234, 2345), (1234, 0), (0, 2345))] owner_and_group: (u32, u32),
) {
    let directory = Directory::on(on);
    let path = directory.file("file", "old");
    set_mode(&path, 0o640);
    let (uid, gid) = owner_and_group;
    chown(&path, Some(uid), Some(gid)).unwrap();
    write(&path, "new").unwrap();
    let stat = fs::metadata(&path).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (uid, gid, 0o640));
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn root_keeps_owner_and_group_with_an_exact_mode() {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    chown(&path, Some(1234), Some(2345)).unwrap();
    WriteOptions::new().mode(0o600).write(&path, |w| w.write_all(b"new")).unwrap();
    let stat = fs::metadata(&path).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (1234, 2345, 0o600));
}

/// Someone who may write a file, but not give one away.
#[rstest]
#[case::everyone(0o666, 0o666)]
#[case::what_the_group_alone_had(0o676, 0o666)]
#[case::what_only_the_owner_could_do(0o766, 0o666)]
#[case::the_old_owner_gains_nothing(0o466, 0o444)]
#[case::nor_does_the_old_group(0o606, 0o600)]
#[case::nor_does_the_new_one(0o646, 0o644)]
#[ignore = "needs root: run tests/privileged"]
fn a_user_over_somebody_elses_file_widens_nothing(#[case] old: u32, #[case] expected: u32) {
    let directory = Directory::new();
    set_mode(directory.path(), 0o777);
    let path = directory.file("file", "old");
    set_mode(&path, old);
    chown(&path, Some(1234), Some(2345)).unwrap();
    assert_eq!(Child::new(module_path!(), "write", &path).by_nobody().answer(), "Ok(())");
    let stat = fs::metadata(&path).unwrap();
    assert_eq!((stat.uid(), stat.gid()), (NOBODY, NOBODY));
    assert_eq!(format!("{:o}", stat.mode() & 0o7777), format!("{expected:o}"));
    assert_eq!(support::read(&path), "new");
    assert_eq!(directory.listing(), ["file"]);
}

/// chown(2): an owner may give a file to a group that the owner is in.
#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn a_user_keeps_a_group_of_their_own() {
    let directory = Directory::new();
    set_mode(directory.path(), 0o2777);
    chown(directory.path(), None, Some(2345)).unwrap();
    let path = directory.file("file", "old");
    set_mode(&path, 0o664);
    chown(&path, Some(1234), Some(NOBODY)).unwrap();
    assert_eq!(Child::new(module_path!(), "write", &path).by_nobody().answer(), "Ok(())");
    let stat = fs::metadata(&path).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (NOBODY, NOBODY, 0o664));
}

#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn a_new_file_takes_the_group_of_a_set_group_id_directory(
    #[values("here", "xfs", "btrfs", "tmpfs", "fuse")] on: &str,
) {
    let directory = Directory::on(on);
    chown(directory.path(), None, Some(2345)).unwrap();
    set_mode(directory.path(), 0o2775);
    let ordinary = directory.file("ordinary", "");
    write(directory.join("file"), "new").unwrap();
    let (stat, ordinary) =
        (fs::metadata(directory.join("file")).unwrap(), fs::metadata(ordinary).unwrap());
    assert_eq!(stat.gid(), ordinary.gid());
    assert_eq!((stat.gid(), stat.mode()), (2345, ordinary.mode()));
}

fn acl(path: &Path) -> String {
    run(Command::new("getfacl").args(["-cpE", "--omit-header", "-n"]).arg(path))
}

#[rstest]
#[ignore = "needs root and setfacl: run tests/privileged"]
fn a_new_file_takes_the_default_acl_of_the_directory(
    #[values("ext4", "xfs", "btrfs", "tmpfs", "overlay")] on: &str,
) {
    let directory = Directory::on(on);
    run(Command::new("setfacl").args(["-dm", "u:1234:rwx,g:2345:r,o::-"]).arg(directory.path()));
    let ordinary = directory.file("ordinary", "");
    let path = directory.join("file");
    write(&path, "new").unwrap();
    assert_eq!(acl(&path), acl(&ordinary));
    assert!(acl(&path).contains("user:1234:rw"), "{}", acl(&path));
}

#[rstest]
#[case::an_acl_of_its_own(&["-m", "u:1234:rw,g:2345:r,m::rw"])]
#[case::without_one_in_a_directory_that_gives_one(&["-b"])]
#[case::one_that_denies(&["-m", "u:1234:-,g::r"])]
#[ignore = "needs root and setfacl: run tests/privileged"]
fn the_old_acl_is_kept(
    #[case] set: &[&str],
    #[values("ext4", "xfs", "btrfs", "tmpfs", "overlay")] on: &str,
    #[values(true, false)] default_acl: bool,
) {
    let directory = Directory::on(on);
    if default_acl {
        run(Command::new("setfacl").args(["-dm", "u:4321:rwx"]).arg(directory.path()));
    }
    let path = directory.file("file", "old");
    run(Command::new("setfacl").args(set).arg(&path));
    let (old_acl, old_mode) = (acl(&path), mode(&path));
    write(&path, "new").unwrap();
    assert_eq!((acl(&path), mode(&path)), (old_acl, old_mode));
}

#[rstest]
#[ignore = "needs root and setfacl: run tests/privileged"]
fn an_exact_mode_lets_nobody_in_by_an_acl(#[values(true, false)] existing: bool) {
    let directory = Directory::on("ext4");
    run(Command::new("setfacl").args(["-dm", "u:4321:rwx"]).arg(directory.path()));
    let path = directory.join("file");
    if existing {
        fs::write(&path, "old").unwrap();
        run(Command::new("setfacl").args(["-m", "u:1234:rw"]).arg(&path));
    }
    WriteOptions::new().mode(0o640).write(&path, |w| w.write_all(b"new")).unwrap();
    assert_eq!(
        acl(&path).split_whitespace().collect::<Vec<_>>(),
        ["user::rw-", "group::r--", "other::---"]
    );
}

/// An ACL goes with the file even when its owner can't: less what somebody would gain.
#[rstest]
#[ignore = "needs root and setfacl: run tests/privileged"]
fn a_user_over_somebody_elses_file_keeps_the_acl() {
    let directory = Directory::on("ext4");
    set_mode(directory.path(), 0o777);
    let path = directory.file("file", "old");
    chown(&path, Some(1234), Some(2345)).unwrap();
    let set = format!("u::rw,u:{NOBODY}:rw,u:77:r,g::rw,m::rw,o::-");
    run(Command::new("setfacl").args(["--set", &set]).arg(&path));
    assert_eq!(Child::new(module_path!(), "write", &path).by_nobody().answer(), "Ok(())");
    let acl = acl(&path);
    for line in ["user::rw-", "user:65534:rw-", "user:77:r--", "group::---", "other::---"] {
        assert!(acl.lines().any(|l| l.trim() == line), "{line} is not in\n{acl}");
    }
}

#[rstest]
#[ignore = "needs root and setfattr: run tests/privileged"]
fn attributes_of_the_user_are_kept_and_those_that_vouch_for_the_content_are_not(
    #[values("ext4", "xfs", "btrfs", "tmpfs", "overlay")] on: &str,
    #[values(3, 3000)] length: usize,
) {
    let directory = Directory::on(on);
    let path = directory.file("file", "old");
    let long = "v".repeat(length);
    let capability = "0x0100000200040000000000000000000000000000";
    for (name, value) in
        [("user.author", "Ada"), ("user.long", &long), ("security.capability", capability)]
    {
        run(Command::new("setfattr").args(["-n", name, "-v", value]).arg(&path));
    }
    write(&path, "new").unwrap();
    let get = |name: &str| {
        let mut get = Command::new("getfattr");
        let output = get.args(["--only-values", "-n", name]).arg(&path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!((get("user.author"), get("user.long")), ("Ada".into(), long));
    assert_eq!(get("security.capability"), "");
}

/// A producer's file has the mode that the producer gave it, as long as nothing was there.
#[rstest]
#[case::new("write", None, "022", 0o640)]
#[case::less_the_umask("write", None, "077", 0o600)]
#[case::what_is_replaced_keeps_its_own("write", Some(0o664), "022", 0o664)]
#[case::the_exact_mode_goes_first("write mode", None, "077", 0o604)]
#[case::created("create", None, "022", 0o640)]
#[case::missing("if-missing", None, "022", 0o640)]
#[case::changed("if-changed", None, "022", 0o640)]
#[case::changed_and_replaced("if-changed", Some(0o604), "022", 0o604)]
#[case::updated("update", None, "022", 0o640)]
#[case::updated_and_replaced("update", Some(0o604), "022", 0o604)]
#[case::in_a_batch("batch", None, "022", 0o640)]
#[case::replaced_in_a_batch("batch", Some(0o604), "022", 0o604)]
fn a_new_file_gets_the_mode_that_is_set_for_new_ones(
    #[case] operation: &str,
    #[case] old: Option<u32>,
    #[case] umask: &str,
    #[case] expected: u32,
) {
    let directory = Directory::new();
    let path = directory.join("file");
    if let Some(old) = old {
        directory.file("file", "old");
        set_mode(&path, old);
    }
    let role = format!("new-file-mode {umask} {operation}");
    assert!(Child::new(module_path!(), &role, &path).status().success());
    assert_eq!(format!("{:o}", mode(&path)), format!("{expected:o}"));
    assert_eq!((support::read(&path), directory.listing().len()), ("new".into(), 1));
}

/// Where the staging file has a name, others could open it, too.
#[rstest]
#[ignore = "needs root and FUSE: run tests/privileged"]
fn a_named_staging_file_is_private_until_it_is_published(#[values(0o600, 0o644)] old: u32) {
    let directory = Directory::on("fuse");
    let path = directory.file("file", "old");
    set_mode(&path, old);
    let staged = directory.join(support::staging_name("fuse", &path));
    write_atomically(&path, |w| {
        w.write_all(b"new")?;
        assert_eq!(mode(&staged), 0o600);
        Ok(())
    })
    .unwrap();
    assert_eq!(mode(&path), old);
}

#[rstest]
#[case::no_more_than_the_destination(Some(0o600), 0o600)]
#[case::no_more_than_a_new_file(Some(0o666), 0o644)]
#[case::nothing_there(None, 0o644)]
fn what_is_kept_of_a_failure_is_no_more_open_than_the_destination(
    #[case] old: Option<u32>,
    #[case] expected: u32,
    #[values("same directory", "other filesystem")] keep: &str,
) {
    let directory = Directory::new();
    let other = Directory::on_memory();
    let path = directory.join("file");
    if let Some(old) = old {
        directory.file("file", "old");
        set_mode(&path, old);
    }
    let partial = match keep {
        "same directory" => directory.join("partial"),
        _ => other.join("partial"),
    };
    fs::write(&partial, "of an earlier failure").unwrap();
    let role = format!("umask 022 keep {}", partial.display());
    assert!(!Child::new(module_path!(), &role, &path).status().success());
    assert_eq!(support::read(&partial), "new");
    assert_eq!(format!("{:o}", mode(&partial)), format!("{expected:o}"));
    assert_eq!(path.exists(), old.is_some());
    assert!(other.listing().len() <= 1 && directory.listing().len() <= 2);
}

#[rstest]
fn what_is_kept_of_a_failure_is_no_more_open_than_the_mode_that_was_asked_for() {
    let directory = Directory::new();
    let partial = directory.join("partial");
    let options = WriteOptions::new().mode(0o640).keep_failed(&partial);
    let failed: io::Result<()> = options.write(directory.join("file"), |w| {
        w.write_all(b"new")?;
        Err(io::Error::other("no"))
    });
    assert!(failed.is_err());
    assert_eq!(mode(&partial) & 0o027, 0, "{:o}", mode(&partial));
    assert_eq!(directory.listing(), ["partial"]);
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    let words: Vec<&str> = role.split(' ').collect();
    let umask = |octal| {
        let mask = u32::from_str_radix(octal, 8).unwrap();
        rustix::process::umask(Mode::from_raw_mode(mask))
    };
    match words[..] {
        ["umask", octal] => {
            umask(octal);
            write(&path, "new").unwrap();
        }
        ["umask", octal, "mode", exact] => {
            umask(octal);
            let options = WriteOptions::new().mode(exact.parse().unwrap());
            options.write(&path, |w| w.write_all(b"new")).unwrap();
        }
        ["umask", octal, "keep", partial] => {
            umask(octal);
            let options = WriteOptions::new().keep_failed(partial);
            let result: io::Result<()> = options.write(&path, |w| {
                w.write_all(b"new")?;
                panic!("of which the content is kept, too")
            });
            drop(result);
        }
        ["new-file-mode", octal, operation, ref exact @ ..] => {
            umask(octal);
            let options = WriteOptions::new().new_file_mode(0o640);
            let options = if exact.is_empty() { options } else { options.mode(0o604) };
            let fill = |w: &mut write_atomically::Writer| w.write_all(b"new");
            match operation {
                "write" => options.write(&path, fill).unwrap(),
                "create" => options.create(&path, fill).unwrap(),
                "if-missing" => options.write_if_missing(&path, fill).unwrap().unwrap(),
                "if-changed" => drop(options.write_if_changed(&path, fill).unwrap()),
                "update" => options.update(&path, |_, w| fill(w)).unwrap(),
                _ => options.write_batch(|batch| batch.write(&path, fill)).unwrap(),
            }
        }
        ["write"] => child::say(format!("{:?}", write(&path, "new"))),
        _ => panic!("{role}"),
    }
}
