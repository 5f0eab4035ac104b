//! Promises 4 and 7 where the user is root but may not do everything, or may write a file but not its
//! directory: what is refused is refused early, and what can't be set is no failure.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

use assert_cmd::assert::OutputAssertExt;
use fs_err as fs;
use rstest::rstest;

use crate::support::{self, Directory};

const OWNER: u32 = 1234;
const GROUP: u32 = 5678;

/// The tool below setpriv(1) or unshare(1).
fn below(wrapper: &[&str], directory: &Directory, arguments: &[&str]) -> Command {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(assert_cmd::cargo::cargo_bin!("write-atomically"));
    command.current_dir(directory.path()).args(arguments);
    command
}

fn message(command: &mut Command, status: i32) -> String {
    let assert = command.assert().code(status);
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

const POWERLESS: &[&str] = &["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"];
/// The usual hardened container: it may give files away, but not act for their owners.
const GIVES_AWAY: &[&str] = &[
    "setpriv",
    "--bounding-set",
    "-all,+chown,+setuid,+setgid,+dac_override",
    "--inh-caps",
    "-all",
];
const USER_NAMESPACE: &[&str] = &["unshare", "-Ur"];

#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn a_root_that_may_not_act_for_owners_keeps_owner_and_mode(
    #[values(0o644, 0o640, 0o600, 0o400)] mode: u32,
    #[values("echo new", "echo new >{}")] script: &str,
) {
    let directory = open_directory(0o777);
    let path = directory.file("out", "old");
    chown(&path, Some(OWNER), Some(GROUP)).unwrap();
    support::set_mode(&path, mode);
    below(GIVES_AWAY, &directory, &["out", "--", "sh", "-c", script]).assert().success();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (OWNER, GROUP));
    assert_eq!(format!("{:o}", metadata.permissions().mode() & 0o7777), format!("{mode:o}"));
    assert_eq!(support::read(&path), "new\n");
    assert_eq!(directory.listing(), ["out"]);
}

/// geteuid() == 0 does not say that a file of somebody else's in a sticky directory can be renamed over.
#[rstest]
#[case::without_capabilities(POWERLESS)]
#[case::in_a_user_namespace(USER_NAMESPACE)]
#[ignore = "needs root: run tests/privileged"]
fn a_powerless_root_is_refused_early_in_a_sticky_directory_or_writes_in_place(
    #[case] wrapper: &[&str],
) {
    let directory = open_directory(0o1777);
    chown(directory.path(), Some(OWNER + 1), None).unwrap();
    let path = directory.file("out", "old");
    chown(&path, Some(OWNER), None).unwrap();
    support::set_mode(&path, 0o666);
    let inode = fs::metadata(&path).unwrap().ino();
    let refused = message(&mut below(wrapper, &directory, &["out", "--", "touch", "ran"]), 125);
    assert!(refused.contains("sticky") && refused.contains("--in-place-fallback"), "{refused}");
    assert_eq!(directory.listing(), ["out"]);
    assert_eq!(support::read(&path), "old");
    let written = ["--in-place-fallback", "out", "--", "echo", "new"];
    below(wrapper, &directory, &written).assert().success();
    assert_eq!(support::read(&path), "new\n");
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(directory.listing(), ["out"]);
}

/// The plain case: a service's configuration file in a directory that is not its own.
#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn a_file_in_an_unwritable_directory_is_written_in_place_on_request() {
    let directory = open_directory(0o755);
    let path = directory.file("out", "old");
    chown(&path, Some(OWNER), None).unwrap();
    let user = OWNER.to_string();
    let wrapper = ["setpriv", "--reuid", &user, "--clear-groups"];
    // The user can't enter the build directory.
    let program = directory.join("tool");
    support::run(
        Command::new("cp").args([assert_cmd::cargo::cargo_bin!("write-atomically"), &program]),
    );
    let run = |arguments: &[&str]| {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(&program).args(arguments).current_dir(directory.path());
        command
    };
    let refused = message(&mut run(&["out", "--", "echo", "new"]), 125);
    assert!(refused.contains("--in-place-fallback"), "{refused}");
    assert_eq!(support::read(&path), "old");
    run(&["--in-place-fallback", "out", "--", "echo", "new"]).assert().success();
    assert_eq!(support::read(&path), "new\n");
    // What fails changes nothing.
    run(&["--in-place-fallback", "out", "--", "false"]).assert().code(1);
    assert_eq!(support::read(&path), "new\n");
    assert_eq!(directory.listing(), ["out", "tool"]);
}

/// chattr(1): in an append-only directory nothing can be renamed or removed.
#[rstest]
#[case::append_only("a")]
#[case::immutable("i")]
#[ignore = "needs root: run tests/privileged"]
fn in_a_directory_where_nothing_can_be_removed_nothing_is_left(
    #[case] flag: &str,
    #[values(&["out"], &["--create", "new"], &["--if-missing", "new"], &["-a", "out"], &["-a", "new"])]
    arguments: &[&str],
    #[values("echo new", "echo new >{}")] script: &str,
) {
    let directory = Directory::on("ext4");
    directory.file("out", "old");
    support::run(Command::new("chattr").arg(format!("+{flag}")).arg(directory.path()));
    let mut command = below(&["env"], &directory, arguments);
    let output = command.args(["--", "sh", "-c", script]).output().unwrap();
    let listing = directory.listing();
    support::run(Command::new("chattr").arg(format!("-{flag}")).arg(directory.path()));
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert_eq!(listing, ["out"]);
    assert_eq!(support::read(&directory.join("out")), "old");
}

fn open_directory(mode: u32) -> Directory {
    let directory = Directory::new();
    support::set_mode(directory.path(), mode);
    directory
}
