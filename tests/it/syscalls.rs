//! Promises 3 and 9 by counting: which system calls a write makes, and in which order; how much memory it takes.
//! The numbers depend on no machine's speed.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use fs_err as fs;
use rstest::rstest;
use write_atomically::{Change, WriteOptions, create_atomically};

use crate::child::{self, Child};
use crate::support::{self, Directory};

/// The calls that a role makes between its two marks, in order.
fn trace(role: &str, path: &Path) -> Vec<String> {
    trace_below(&[], role, path)
}

/// The same for a process that is started by another command.
fn trace_below(command: &[&str], role: &str, path: &Path) -> Vec<String> {
    let log = child::strace(module_path!(), command, role, path);
    let mark = log.lines().find(|line| line.contains("/mark\"")).expect("a mark");
    let thread = mark.split(' ').next().unwrap().to_owned();
    let calls = log.lines().filter_map(|line| line.strip_prefix(&thread)).map(str::trim_start);
    let calls = calls.skip_while(|call| !call.contains("/mark\"")).skip(1);
    calls
        .take_while(|call| !call.contains("/mark\""))
        // What std does in a debug build before it closes a descriptor.
        .filter(|call| !call.starts_with("fcntl(") || !call.contains("F_GETFD"))
        // The allocator's.
        .filter(|call| {
            !["brk(", "mmap(", "mprotect(", "munmap("].iter().any(|of| call.starts_with(of))
        })
        .map(|call| call.to_owned())
        .collect()
}

fn names(calls: &[String]) -> Vec<&str> {
    calls.iter().map(|call| call.split('(').next().unwrap()).collect()
}

fn syncs_or_names(call: &str) -> bool {
    ["sync", "rename", "link"].iter().any(|part| call.contains(part))
}

#[rstest]
#[case::durable("replace durable", &["fdatasync", "linkat", "renameat", "fsync"])]
#[case::consistent("replace consistent", &["fdatasync", "linkat", "renameat"])]
#[case::relaxed("replace relaxed", &["linkat", "renameat"])]
#[case::durable_create("create durable", &["fdatasync", "linkat", "renameat2", "fsync"])]
#[case::consistent_create("create consistent", &["fdatasync", "linkat", "renameat2"])]
#[case::relaxed_create("create relaxed", &["linkat", "renameat2"])]
#[ignore = "needs strace: run tests/privileged"]
fn what_is_promised_is_synced_in_order_and_nothing_else(
    #[case] role: &str,
    #[case] expected: &[&str],
) {
    let directory = Directory::new();
    let path = directory.join("file");
    let calls = trace(role, &path);
    let mut made = names(&calls);
    made.retain(|name| syncs_or_names(name));
    assert_eq!(made, expected);

    // The file first, then the directory.
    let descriptor = |call: &str| {
        let call = calls.iter().find(|line| line.starts_with(call)).unwrap();
        call.split(['(', ')', ',']).nth(1).unwrap().to_owned()
    };
    if expected.contains(&"fsync") {
        assert_eq!(descriptor("fdatasync"), descriptor("write"));
        assert_eq!(descriptor("fsync"), descriptor("statx"), "the directory");
    }
}

/// There, syncing a file without a name does not make it durable (`tests/proof/vm` shows it on such a
/// kernel). setarch(8) makes this kernel say that it is an old one.
#[rstest]
#[case::replace("btrfs", "replace durable", &["fdatasync", "linkat", "fdatasync", "renameat", "fsync"])]
#[case::create("btrfs", "create durable", &["fdatasync", "linkat", "fdatasync", "renameat2", "fsync"])]
#[case::consistent("btrfs", "replace consistent", &["fdatasync", "linkat", "fdatasync", "renameat"])]
#[case::relaxed("btrfs", "replace relaxed", &["linkat", "renameat"])]
#[case::on_btrfs_perhaps("overlay", "create consistent", &["fdatasync", "linkat", "fdatasync", "renameat2"])]
#[case::on_xfs("xfs", "replace durable", &["fdatasync", "linkat", "renameat", "fsync"])]
#[case::in_memory("tmpfs", "create durable", &["fdatasync", "linkat", "renameat2", "fsync"])]
#[ignore = "needs strace and filesystems: run tests/privileged"]
fn before_linux_6_17_btrfs_syncs_what_has_a_name(
    #[case] filesystem: &str,
    #[case] role: &str,
    #[case] expected: &[&str],
) {
    let directory = Directory::on(filesystem);
    let calls = trace_below(&["setarch", "--uname-2.6"], role, &directory.join("file"));
    let mut made = names(&calls);
    made.retain(|name| syncs_or_names(name));
    assert_eq!(made, expected);
    assert_eq!(directory.listing(), ["file"]);
}

/// Whoever wrote it may not have synced it.
#[rstest]
#[case("unchanged durable", &["fdatasync", "fsync"])]
#[case("unchanged consistent", &["fdatasync"])]
#[case("unchanged relaxed", &[])]
#[ignore = "needs strace: run tests/privileged"]
fn what_has_not_changed_is_synced_all_the_same(#[case] role: &str, #[case] expected: &[&str]) {
    let directory = Directory::new();
    let calls = trace(role, &directory.join("file"));
    let mut made = names(&calls);
    made.retain(|name| syncs_or_names(name));
    assert_eq!(made, expected);
}

/// The lock is there before the file is read, and stays until its successor is durable.
#[rstest]
#[case("update durable", &["flock", "read", "fdatasync", "renameat", "fsync", "flock"])]
#[case("update relaxed", &["flock", "read", "renameat", "flock"])]
#[ignore = "needs strace: run tests/privileged"]
fn an_update_is_locked_from_reading_to_settling(#[case] role: &str, #[case] expected: &[&str]) {
    let directory = Directory::new();
    let calls = trace(role, &directory.join("file"));
    let relevant = ["read", "fdatasync", "renameat", "fsync"];
    // The staging file's lock is asked for without waiting.
    let calls = calls.iter().filter(|call| !call.contains("LOCK_NB")).cloned().collect::<Vec<_>>();
    let mut names = names(&calls);
    names.retain(|name| relevant.contains(name) || *name == "flock");
    names.dedup();
    assert_eq!(names, expected);
}

/// Where closing a file writes it, only syncing it tells whether that worked.
#[rstest]
#[case::local("here", false)]
#[case::by_a_server("fuse", true)]
#[ignore = "needs strace and FUSE: run tests/privileged"]
fn relaxed_syncs_only_where_closing_would(#[case] filesystem: &str, #[case] syncs: bool) {
    let directory = Directory::on(filesystem);
    let calls = trace("create relaxed", &directory.join("file"));
    assert_eq!(names(&calls).contains(&"fdatasync"), syncs, "{calls:?}");
}

/// statfs(2) has XFS take stock of what was removed lately, which costs more than all the rest.
#[rstest]
#[case::on_a_disk("xfs", false)]
#[case::in_memory("tmpfs", true)]
#[ignore = "needs strace and filesystems: run tests/privileged"]
fn a_disk_is_not_asked_what_it_holds(
    #[case] filesystem: &str,
    #[case] asks: bool,
    #[values("create relaxed", "replace relaxed")] role: &str,
) {
    let directory = Directory::on(filesystem);
    let calls = trace(role, &directory.join("file"));
    assert_eq!(names(&calls).contains(&"fstatfs"), asks, "{calls:?}");
}

/// Pins the directory, looks; stages; fills; looks at what is replaced; syncs; gives the file a name, locks it, and lets go of the descriptor that can write; publishes; syncs.
#[rstest]
#[case(
    "create durable",
    "here",
    "openat statx statx openat write fdatasync openat flock linkat close renameat2 fsync close close"
)]
#[case(
    "create consistent",
    "here",
    "openat statx statx openat write fdatasync openat flock linkat close renameat2 close close"
)]
#[case(
    "create relaxed",
    "xfs",
    "openat statx statx openat write openat flock linkat close renameat2 close close"
)]
#[case(
    "create relaxed",
    "tmpfs",
    "openat statx statx fstatfs openat write openat flock linkat close renameat2 close close"
)]
#[case(
    "replace durable",
    "here",
    "openat statx statx geteuid openat write fadvise64 statx llistxattr statx flistxattr fdatasync openat flock linkat close renameat fsync close close"
)]
#[case(
    "replace consistent",
    "here",
    "openat statx statx geteuid openat write fadvise64 statx llistxattr statx flistxattr fdatasync openat flock linkat close renameat close close"
)]
#[case(
    "replace relaxed",
    "xfs",
    "openat statx statx geteuid openat write statx llistxattr statx flistxattr openat flock linkat close renameat close close"
)]
#[case(
    "replace relaxed",
    "tmpfs",
    "openat statx statx geteuid fstatfs openat write statx llistxattr statx flistxattr openat flock linkat close renameat close close"
)]
#[case(
    "update durable",
    "here",
    "openat statx statx openat statx flock statx geteuid openat read read write fadvise64 statx llistxattr statx flistxattr fdatasync openat flock linkat close statx renameat fsync close close flock close"
)]
#[case(
    "if-missing durable",
    "here",
    "statx openat statx statx openat openat flock statx statx statx statx write statx fdatasync close statx renameat2 fsync close flock close"
)]
#[case("hit durable", "here", "statx")]
#[ignore = "needs strace and filesystems: run tests/privileged"]
fn a_write_makes_these_calls_and_no_others(
    #[case] role: &str,
    #[case] filesystem: &str,
    #[case] expected: &str,
) {
    let directory = Directory::on(filesystem);
    let calls = trace(role, &directory.join("file"));
    assert_eq!(names(&calls).join(" "), expected, "{}", calls.join("\n"));
}

#[rstest]
#[ignore = "needs strace: run tests/privileged"]
fn small_writes_are_buffered() {
    let directory = Directory::new();
    let path = directory.join("file");
    let calls = trace("small writes", &path);
    let writes = names(&calls).into_iter().filter(|name| *name == "write").count();
    assert!((1..200).contains(&writes), "{writes} writes");
    assert_eq!(fs::metadata(&path).unwrap().len(), 1_000_000);
}

/// As the large pieces of the page cache do, whatever the sizes of the closure's writes.
#[rstest]
#[case::of_blocks("long")]
#[case::of_odd_blocks("odd")]
#[ignore = "needs strace: run tests/privileged"]
fn the_requests_of_a_long_stream_begin_at_multiples_of_their_size(#[case] role: &str) {
    const LARGE: u64 = 256 << 10;
    let directory = Directory::new();
    let calls = trace(role, &directory.join("file"));
    let sizes = calls.iter().filter(|call| call.starts_with("write("));
    let sizes: Vec<u64> =
        sizes.map(|call| call.rsplit(" = ").next().unwrap().parse().unwrap()).collect();
    let mut position = 0;
    for (index, size) in sizes.iter().enumerate() {
        let is_large = position >= 5 << 20 && index + 1 < sizes.len();
        assert!(!is_large || (position % LARGE, *size) == (0, LARGE), "{position}: {sizes:?}");
        position += size;
    }
    assert_eq!(fs::metadata(directory.join("file")).unwrap().len(), position);
}

#[rstest]
#[ignore = "needs strace: run tests/privileged"]
fn the_directory_is_never_listed(
    #[values("replace durable", "create durable", "recover", "parents")] role: &str,
) {
    let directory = Directory::new();
    directory.file(".file.write-atomically", "left by a killed writer");
    let calls = trace(role, &directory.join("file"));
    // To remove it, a private staging directory is listed: it is opened once more, as `.`.
    for (index, call) in calls.iter().enumerate().filter(|(_, call)| call.starts_with("getdents")) {
        let listed = call.split(['(', ',']).nth(1).unwrap();
        let opened = |call: &&String| call.ends_with(&format!(" = {listed}"));
        let opening = calls[..index].iter().rfind(opened).unwrap();
        assert!(role == "parents" && opening.contains(", \".\","), "{opening}: {calls:?}");
    }
    assert!(!directory.listing().contains(&".file.write-atomically".to_owned()));
}

/// The first attempt to open it finds nothing, and the next look says that it is there.
#[rstest]
#[ignore = "needs strace: run tests/privileged"]
fn a_parent_that_appears_between_two_calls_is_the_parent() {
    let directory = Directory::new();
    directory.file(".file.write-atomically", "left by a killed writer");
    let parent = directory.join("a/b");
    fs::create_dir_all(&parent).unwrap();
    let options = ["-P", parent.to_str().unwrap(), "-e", "inject=openat:error=ENOENT:when=1"];
    let log = child::strace(module_path!(), &options, "parents", &directory.join("file"));
    assert!(log.contains("INJECTED"));
    assert_eq!(support::listing(&parent), ["file"]);
}

/// statx(2) is there since Linux 4.11, and some sandboxes forbid it.
#[rstest]
#[ignore = "needs strace: run tests/privileged"]
fn without_statx_a_write_does_the_same(
    #[values("ENOSYS", "EPERM")] error: &str,
    #[values("replace durable", "update durable")] role: &str,
) {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    support::set_mode(&path, 0o640);
    let inject = format!("inject=statx:error={error}");
    let options = ["-e", "trace=statx", "-e", &inject];
    let log = child::strace(module_path!(), &options, role, &path);
    assert!(log.contains("INJECTED"));
    assert_eq!(support::read(&path), "some content");
    assert_eq!(support::mode(&path), 0o640);
    assert_eq!(directory.listing(), ["file"]);
}

/// Long outputs start their writeback while the closure runs, relaxed ones never.
#[rstest]
#[case("long durable", 31)]
#[case("long relaxed", 0)]
#[case("create durable", 0)]
#[ignore = "needs strace: run tests/privileged"]
fn writeback_starts_early_where_it_helps(#[case] role: &str, #[case] expected: usize) {
    let directory = Directory::new();
    let calls = trace(role, &directory.join("file"));
    let started = names(&calls).into_iter().filter(|name| *name == "fadvise64").count();
    assert_eq!(started, expected);
}

/// What a replaced file hands on is looked up while the disk writes the new content.
#[rstest]
#[case("replace durable", &["write", "fadvise64", "llistxattr", "fdatasync"])]
#[case("replace consistent", &["write", "fadvise64", "llistxattr", "fdatasync"])]
#[case("replace relaxed", &["write", "llistxattr"])]
#[case("update durable", &["write", "fadvise64", "llistxattr", "fdatasync"])]
#[case("unchanged durable", &["write", "fdatasync"])]
#[case::nothing("empty durable", &["llistxattr", "fdatasync"])]
// The header is written last, the rest is no concern of the disk's any more.
#[case::long("header durable", &["write", "llistxattr", "fdatasync"])]
#[case::lent("lent durable", &["write", "llistxattr", "fdatasync"])]
#[ignore = "needs strace: run tests/privileged"]
fn a_short_output_is_written_back_while_metadata_is_looked_up(
    #[case] role: &str,
    #[case] expected: &[&str],
) {
    let directory = Directory::new();
    let calls = trace(role, &directory.join("file"));
    let relevant = ["write", "fadvise64", "llistxattr", "fdatasync"];
    let mut names = names(&calls);
    names.retain(|name| relevant.contains(name));
    names.dedup();
    assert_eq!(names, expected);
}

#[rstest]
#[ignore = "slow, writes 1 GiB: run tests/privileged"]
fn a_stream_of_any_length_takes_little_memory() {
    let directory = Directory::new();
    let path = directory.join("file");
    let kilobytes: u64 = Child::new(module_path!(), "stream", &path).answer().parse().unwrap();
    assert!(kilobytes < 16 << 10, "{kilobytes} kB");
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 30);
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    let mark = || drop(fs::metadata("/mark"));
    let (what, durability) = role.split_once(' ').unwrap_or((&role, ""));
    let options = WriteOptions::new().durability(child::durability(durability));
    let write_some = |path: &Path| options.write(path, |w| w.write_all(b"some content")).unwrap();
    // The first call of its kind asks the kernel what it can; and the old file is there.
    let warm_up = path.with_file_name("warm-up");
    write_some(&warm_up);
    write_some(&warm_up);
    fs::remove_file(&warm_up).unwrap();
    if matches!(what, "replace" | "unchanged" | "update" | "empty" | "header" | "lent" | "hit") {
        write_some(&path);
    }
    match what {
        "replace" | "create" => {
            mark();
            write_some(&path);
            mark();
        }
        "empty" | "header" | "lent" => {
            mark();
            let result = options.write(&path, |w| match what {
                "header" => {
                    w.write_all(&[1; 2 << 20])?;
                    w.seek(SeekFrom::Start(0))?;
                    w.write_all(b"header")
                }
                "lent" => {
                    w.file()?;
                    w.seek(SeekFrom::Start(0))?;
                    w.write_all(b"some content")
                }
                _ => Ok(()),
            });
            mark();
            result.unwrap();
        }
        "if-missing" | "hit" => {
            mark();
            let written = options.write_if_missing(&path, |w| w.write_all(b"some content"));
            mark();
            assert_eq!(written.unwrap().is_none(), what == "hit");
        }
        "unchanged" => {
            mark();
            let change = options.write_if_changed(&path, |w| w.write_all(b"some content"));
            mark();
            assert_eq!(change.unwrap(), Change::Unchanged(()));
        }
        "update" => {
            mark();
            let updated = options.update(&path, |old, new| std::io::copy(old.unwrap(), new));
            mark();
            assert_eq!(updated.unwrap(), 12);
        }
        "small" | "long" | "odd" => {
            let (size, count) = match what {
                "small" => (10, 100_000),
                "long" => (1 << 16, 31 << 4),
                _ => (77_777, 100),
            };
            let block = vec![1; size];
            mark();
            let result: std::io::Result<()> =
                options.write(&path, |w| (0..count).try_for_each(|_| w.write_all(&block)));
            mark();
            result.unwrap();
        }
        "recover" => {
            mark();
            let created = create_atomically(&path, |_| Ok(()));
            mark();
            created.unwrap();
        }
        "parents" => {
            fs::remove_file(path.with_file_name(".file.write-atomically")).unwrap();
            mark();
            let path = path.with_file_name("a").join("b/file");
            let result = options.create_parents(true).write(&path, |w| w.write_all(b"some"));
            mark();
            result.unwrap();
        }
        "stream" => {
            let block = [1; 10_000];
            let written = options.write(&path, |w| {
                let mut left = 1usize << 30;
                while left > 0 {
                    let length = left.min(block.len());
                    w.write_all(&block[..length])?;
                    left -= length;
                }
                std::io::Result::Ok(())
            });
            written.unwrap();
            child::say(child::peak_memory());
        }
        what => panic!("{what}"),
    }
}
