//! DEST is written only if the command succeeds, and what the tool says and returns.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use assert_cmd::assert::OutputAssertExt;
use fs_err as fs;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{self, Directory};
use crate::{assert_only, directory, fed, tool, tool_sh};

#[rstest]
#[case::prints("echo new", 0, "new\n", "")]
#[case::prints_nothing("true", 0, "", "")]
#[case::closes_its_output_early("echo new; exec >&-; sleep 0.1", 0, "new\n", "")]
#[case::fails_before_it_prints("exit 3", 3, "old", "`sh` failed: exit status 3")]
#[case::fails_half_way("echo part; exit 1", 1, "old", "`sh` failed: exit status 1")]
#[case::fails_with_the_largest_status(
    "echo part; exit 255",
    255,
    "old",
    "`sh` failed: exit status 255"
)]
#[case::is_killed("echo part; kill -KILL $$", 137, "old", "`sh` failed: killed by SIGKILL")]
#[case::is_terminated("echo part; kill -TERM $$", 143, "old", "`sh` failed: killed by SIGTERM")]
#[case::breaks_its_pipe("echo part; kill -PIPE $$", 141, "old", "`sh` failed: killed by SIGPIPE")]
fn the_file_is_written_only_if_the_command_succeeds(
    #[case] script: &str,
    #[case] code: i32,
    #[case] content: &str,
    #[case] message: &str,
    #[values(None, Some("old"))] old: Option<&str>,
) {
    let directory = directory(old);
    let output = tool_sh(&directory, &["out"], script).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(code), &b""[..]), "{stderr}");
    match code {
        0 => assert_eq!(stderr, ""),
        _ => assert_eq!(stderr, format!("write-atomically: `out` is unchanged: {message}\n")),
    }
    assert_only(&directory, if code == 0 { Some(content) } else { old });
}

#[rstest]
#[case::missing(
    "no-such-command",
    127,
    "failed to run `no-such-command`: No such file or directory (os error 2)"
)]
#[case::missing_in_a_directory(
    "./no/command",
    127,
    "failed to run `./no/command`: No such file or directory (os error 2)"
)]
#[case::not_executable("./out", 126, "failed to run `./out`: Permission denied (os error 13)")]
#[case::a_directory("/", 126, "failed to run `/`: Permission denied (os error 13)")]
fn a_command_that_cannot_be_started_says_so(
    #[case] command: &str,
    #[case] code: i32,
    #[case] message: &str,
    #[values(&[], &["--quiet"])] options: &[&str],
) {
    let directory = directory(Some("old"));
    let assert = tool(&directory, options).args(["out", "--", command]).assert().code(code);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert_eq!(stderr, format!("write-atomically: `out` is unchanged: {message}\n"));
    assert_only(&directory, Some("old"));
}

#[test]
fn what_the_command_leaves_in_the_background_is_not_waited_for() {
    let directory = directory(None);
    let script = "sleep 60 2>&- & echo $! >&2; echo new";
    let start = Instant::now();
    let output = tool_sh(&directory, &["out"], script).output().unwrap();
    assert!(output.status.success() && start.elapsed() < Duration::from_secs(30));
    assert_only(&directory, Some("new\n"));
    let pid: i32 = String::from_utf8(output.stderr).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[rstest]
#[case::by_a_command(&["out", "--", "tee", "copy"])]
#[case::by_standard_input(&["out"])]
#[case::by_path(&["out", "--", "dd", "status=none", "of={}"])]
fn binary_content_arrives_as_it_is(
    #[case] arguments: &[&str],
    #[values(0, 1, 65_536, 20_000_003)] length: usize,
) {
    let directory = directory(None);
    let mut state = 1_u64;
    let content: Vec<u8> = (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let output = fed(tool(&directory, arguments), &content);
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
    assert!(fs::read(directory.join("out")).unwrap() == content);
}

#[test]
fn standard_input_may_be_a_file() {
    let directory = directory(Some("old"));
    let input = directory.file("input", "12345");
    tool(&directory, ["out"]).stdin(fs::File::open(input).unwrap().into_file()).assert().success();
    assert_eq!(support::read(&directory.join("out")), "12345");
}

#[test]
fn standard_input_that_cannot_be_read_leaves_the_old_content() {
    let directory = directory(Some("old"));
    let input = fs::File::open(directory.path()).unwrap();
    tool(&directory, ["out"]).stdin(input.into_file()).assert().code(125).stderr(
        "write-atomically: `out` is unchanged: failed to copy standard input: Is a directory (os \
         error 21)\n",
    );
    assert_only(&directory, Some("old"));
}

#[rstest]
#[case::missing_directory(&["no/out"], 125, "failed to resolve the path: No such file or directory")]
#[case::a_file_as_directory(&["out/out"], 125, "failed to resolve the path: Not a directory")]
#[case::a_directory(&["."], 125, "Is a directory")]
#[case::a_name_that_means_a_directory(&["new/"], 125, "failed to resolve the path: Is a directory")]
#[case::existing(&["--create", "out"], 123, "")]
#[case::a_device_by_path(&["/dev/null"], 125, "a COMMAND that prints can write it, without --check): ")]
#[case::nowhere_to_keep(&["--keep-failed", "no/kept", "out"], 125, "No such file or directory")]
#[case::nothing_to_keep(&["--keep-failed", "out", "out"], 125, "(--keep-failed names the destination itself)")]
#[case::a_file_in_place_of_a_directory(&["--dir", "out"], 125, "failed to resolve the path: Not a directory")]
fn what_cannot_work_fails_before_the_command_starts(
    #[case] arguments: &[&str],
    #[case] code: i32,
    #[case] message: &str,
    #[values("touch ran", "touch ran {}")] script: &str,
) {
    // These are told by the path in the command that they are refused.
    if matches!(arguments, ["--dir", _] | ["/dev/null"]) && !script.contains("{}") {
        return;
    }
    let directory = directory(Some("old"));
    let mut command = tool(&directory, arguments);
    let assert = command.arg("--").args(script.split(' ')).assert().code(code);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    let subject =
        if arguments.contains(&"no/kept") { "no/kept" } else { arguments.last().unwrap() };
    let start = format!("write-atomically: `{subject}` is unchanged: ");
    assert!(stderr.starts_with(&start) && stderr.contains(message), "{stderr}");
    assert_only(&directory, Some("old"));
}

#[test]
fn an_unwritable_directory_is_an_error_before_the_command_starts() {
    let directory = directory(Some("old"));
    let program = directory.join("tool");
    // By another process: one that is forked meanwhile has a file open that this one writes, and a file
    // that is open for writing can't be executed (execve(2), ETXTBSY).
    support::run(
        Command::new("cp").args([assert_cmd::cargo::cargo_bin!("write-atomically"), &program]),
    );
    support::set_mode(&directory.join("out"), 0o666);
    let mut command = Command::new(&program);
    command.current_dir(directory.path()).args(["out", "--", "touch", "/tmp/ran"]);
    match support::is_root() {
        true => drop(command.uid(support::NOBODY).gid(support::NOBODY)),
        false => support::set_mode(directory.path(), 0o555),
    }
    let assert = command.assert().code(125);
    support::set_mode(directory.path(), 0o755);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert_eq!(
        stderr,
        "write-atomically: `out` is unchanged: failed to create a staging file (its directory does \
         not let this user create files, so that it can't be replaced; --in-place-fallback writes it \
         in place): Permission denied (os error 13)\n"
    );
    assert_eq!(directory.listing(), ["out", "tool"]);
}

#[rstest]
#[case::nothing(&[], "DEST is missing")]
#[case::no_destination(&["--", "echo", "new"], "DEST is missing")]
#[case::empty(&[""], "a value is required")]
#[case::no_dashes(&["out", "echo", "new"], "several DESTs need a COMMAND after `--`")]
#[case::several_without_places(&["out", "b", "--", "echo"], "several DESTs need a COMMAND after `--`")]
#[case::several_and_a_place_missing(&["out", "b", "c", "--", "tee", "{1}", "{3}"], "a place for each")]
#[case::several_and_an_unnumbered_place(&["out", "b", "--", "cp", "{}", "{2}"], "a place for each")]
#[case::several_of_one_name(&["out", "out", "--", "cp", "{1}", "{2}"], "named twice")]
#[case::several_under_a_condition(&["-a", "out", "b", "--", "cp", "{1}", "{2}"], "several DESTs can't be used with")]
#[case::a_check_of_nothing(&["--check", "true", "out"], "`{}` is missing")]
#[case::contradiction(&["--create", "--if-missing", "out"], "cannot be used with")]
#[case::another_contradiction(&["--create", "--append", "out"], "cannot be used with")]
#[case::mode(&["--mode", "rw-r--r--", "out"], "not an octal number")]
#[case::large_mode(&["--mode", "100644", "out"], "not an octal number")]
#[case::durability(&["--durability", "eternal", "out"], "relaxed")]
#[case::directory_without_command(&["--dir", "out"], "--dir needs a COMMAND")]
#[case::directory_without_path(&["--dir", "out", "--", "ls"], "--dir needs a COMMAND")]
#[case::completions_and_more(&["--completions", "bash", "out"], "cannot be used with")]
fn a_command_line_without_sense_is_refused(#[case] arguments: &[&str], #[case] message: &str) {
    let directory = directory(None);
    let assert = tool(&directory, arguments).assert().code(2);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(stderr.contains(message), "{stderr}");
    assert_only(&directory, None);
}

#[rstest]
#[case::dash_after_dashes(&[&b"--"[..], b"-out"], b"-out")]
#[case::option_after_dashes(&[&b"--"[..], b"--help"], b"--help")]
#[case::dash_with_directory(&[&b"./-out"[..]], b"-out")]
#[case::a_dash(&[&b"-"[..]], b"-")]
#[case::spaces(&[&b" a  b "[..]], b" a  b ")]
#[case::newline(&[&b"a\nb"[..]], b"a\nb")]
#[case::not_utf_8(&[&b"\xff\xfe.\xe4"[..]], b"\xff\xfe.\xe4")]
#[case::braces(&[&b"{}"[..]], b"{}")]
fn any_name_will_do(
    #[case] arguments: &[&[u8]],
    #[case] name: &[u8],
    #[values(&["echo", "new"], &["sh", "-c", "echo new > \"$1\"", "sh", "{}"], &[])]
    command: &[&str],
) {
    let directory = directory(None);
    let mut tool = tool(&directory, arguments.iter().map(|bytes| OsStr::from_bytes(bytes)));
    if !command.is_empty() {
        tool.arg("--").args(command);
    }
    let output = fed(tool, b"new\n");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names: Vec<OsString> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [OsStr::from_bytes(name)]);
    assert_eq!(support::read(&directory.join(OsStr::from_bytes(name))), "new\n");
}

#[test]
fn arguments_that_are_not_utf_8_reach_the_command() {
    let directory = directory(None);
    let odd = OsStr::from_bytes(b"\xff{}\xfe");
    tool(&directory, ["out", "--placeholder", "", "--", "printf", "%s"])
        .arg(odd)
        .assert()
        .success();
    assert_eq!(fs::read(directory.join("out")).unwrap(), odd.as_bytes());
    let script = OsStr::from_bytes(b"printf '\xff' > {}");
    tool(&directory, ["out", "--", "sh", "-c"]).arg(script).assert().success();
    assert_eq!(fs::read(directory.join("out")).unwrap(), b"\xff");
}

#[rstest]
#[case::standard_output("/dev/stdout", "echo new", 0, "new\n")]
#[case::standard_output_of_a_failure("/dev/stdout", "echo new; exit 1", 1, "")]
#[case::null("/dev/null", "echo new", 0, "")]
#[case::null_of_a_failure("/dev/null", "echo new; exit 1", 1, "")]
fn a_device_is_written_into(
    #[case] destination: &str,
    #[case] script: &str,
    #[case] code: i32,
    #[case] stdout: &'static str,
    #[values(&[], &["--append"])] options: &[&str],
) {
    let directory = directory(None);
    let mut arguments = options.to_vec();
    arguments.push(destination);
    tool_sh(&directory, &arguments, script).assert().code(code).stdout(stdout);
    assert_only(&directory, None);
    assert!(!fs::symlink_metadata(destination).unwrap().is_file());
}

#[test]
fn standard_output_is_shared_with_those_who_write_before_and_after() {
    let directory = directory(None);
    let tool = assert_cmd::cargo::cargo_bin!("write-atomically").display().to_string();
    let script =
        format!("{{ echo before; {tool} --append /dev/stdout -- echo new; echo after; }} > out");
    Command::new("sh").args(["-c", &script]).current_dir(directory.path()).assert().success();
    assert_only(&directory, Some("before\nnew\nafter\n"));
}

/// What can't be removed would stay beside the new tree, once more with each run.
#[rstest]
#[ignore = "needs root: run tests/privileged"]
#[case::of_another_user(false, 125)]
#[ignore = "needs root: run tests/privileged"]
#[case::empty(true, 0)]
fn a_tree_that_cannot_be_removed_is_refused_before_the_command_starts(
    #[case] is_empty: bool,
    #[case] code: i32,
) {
    let directory = Directory::new();
    fs::create_dir_all(directory.join("site/sub/locked")).unwrap();
    if !is_empty {
        directory.file("site/sub/locked/file", "");
    }
    let nobody = Some(support::NOBODY);
    for owned in ["", "site", "site/sub"] {
        std::os::unix::fs::chown(directory.join(owned), nobody, nobody).unwrap();
    }
    let tool = tool(
        &directory,
        ["--dir", "site", "--", "sh", "-c", "touch \"$1/new\"; touch ran", "sh", "{}"],
    );
    // Where everybody can execute it.
    let program = directory.join("tool");
    fs::copy(tool.get_program(), &program).unwrap();
    for _ in 0..2 {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
        let assert =
            command.args(tool.get_args()).current_dir(directory.path()).assert().code(code);
        let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        let names_it =
            stderr.contains("`site/sub/locked` is unchanged: failed to resolve the path (");
        assert_eq!(names_it, !is_empty, "{stderr}");
        let ran: &[&str] = if is_empty { &["ran"] } else { &[] };
        assert_eq!(directory.listing(), [ran, &["site", "tool"]].concat());
    }
}
