//! The command-line tool: DEST is written only if the command succeeds.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // The library's tests use the rest.
#[path = "../support/mod.rs"]
mod support;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use assert_cmd::assert::OutputAssertExt;
use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use rexpect::session::{PtySession, spawn_command};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use support::{Directory, Mount};

/// The tool, in a directory, with arguments.
fn tool<A: AsRef<OsStr>>(directory: &Directory, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("write-atomically"));
    command.current_dir(directory.path()).args(arguments).stdin(Stdio::null());
    command
}

/// The tool with a shell script as its command.
fn tool_sh(directory: &Directory, arguments: &[&str], script: &str) -> Command {
    let mut command = tool(directory, arguments);
    command.args(["--", "sh", "-c", script]);
    command
}

/// The tool with this on its standard input.
fn fed(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Not every command reads it.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// A directory that holds `out`, or nothing.
fn directory(old: Option<&str>) -> Directory {
    let directory = Directory::new();
    if let Some(old) = old {
        directory.file("out", old);
    }
    directory
}

/// The whole state: what `out` holds, and that nothing else is there.
#[track_caller]
fn assert_only(directory: &Directory, content: Option<&str>) {
    let expected: &[&str] = if content.is_some() { &["out"] } else { &[] };
    assert_eq!(directory.listing(), expected);
    if let Some(content) = content {
        assert_eq!(support::read(&directory.join("out")), content);
    }
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[rstest]
#[case::prints("echo new", 0, "new\n", "")]
#[case::prints_nothing("true", 0, "", "")]
#[case::closes_its_output_early("echo new; exec >&-; sleep 0.1", 0, "new\n", "")]
#[case::fails_before_it_prints("exit 3", 3, "old", "`sh` failed: exit status 3")]
#[case::fails_half_way("echo part; exit 1", 1, "old", "`sh` failed: exit status 1")]
#[case::fails_with_the_largest_status("echo part; exit 255", 255, "old", "exit status 255")]
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
        _ => {
            assert!(
                stderr.starts_with("write-atomically: ") && stderr.contains(message),
                "{stderr}"
            );
            assert!(stderr.ends_with("; `out` is unchanged\n"), "{stderr}");
        }
    }
    assert_only(&directory, if code == 0 { Some(content) } else { old });
}

#[rstest]
#[case::missing("no-such-command", 127, "failed to run `no-such-command`: No such file")]
#[case::missing_in_a_directory("./no/command", 127, "failed to run `./no/command`: No such file")]
#[case::not_executable("./out", 126, "failed to run `./out`: Permission denied")]
#[case::a_directory("/", 126, "failed to run `/`: Permission denied")]
fn a_command_that_cannot_be_started_says_so(
    #[case] command: &str,
    #[case] code: i32,
    #[case] message: &str,
    #[values(&[], &["--quiet"])] options: &[&str],
) {
    let directory = directory(Some("old"));
    let assert = tool(&directory, options).args(["out", "--", command]).assert().code(code);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(stderr.contains(message) && stderr.ends_with("; `out` is unchanged\n"), "{stderr}");
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
        "write-atomically: failed to copy standard input to `out`: Is a directory (os error 21); \
         `out` is unchanged\n",
    );
    assert_only(&directory, Some("old"));
}

#[rstest]
#[case::missing_directory(&["no/out"], "No such file or directory")]
#[case::a_file_as_directory(&["out/out"], "Not a directory")]
#[case::a_directory(&["."], "Is a directory")]
#[case::a_name_that_means_a_directory(&["new/"], "Is a directory")]
#[case::existing(&["--create", "out"], "File exists")]
#[case::a_device_by_path(&["/dev/null"], "a COMMAND that prints can write those")]
#[case::nowhere_to_keep(&["--keep-failed", "no/kept", "out"], "No such file or directory")]
#[case::a_file_in_place_of_a_directory(&["--dir", "out"], "Not a directory")]
fn what_cannot_work_fails_before_the_command_starts(
    #[case] arguments: &[&str],
    #[case] message: &str,
    #[values("touch ran", "touch ran {}")] script: &str,
) {
    // These are told by the path in the command that they are refused.
    if matches!(arguments, ["--dir", _] | ["/dev/null"]) && !script.contains("{}") {
        return;
    }
    let directory = directory(Some("old"));
    let mut command = tool(&directory, arguments);
    let assert = command.arg("--").args(script.split(' ')).assert().code(125);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(stderr.contains(message) && stderr.ends_with(" is unchanged\n"), "{stderr}");
    assert_only(&directory, Some("old"));
}

#[test]
fn an_unwritable_directory_is_an_error_before_the_command_starts() {
    let directory = directory(Some("old"));
    let program = directory.join("tool");
    fs::copy(assert_cmd::cargo::cargo_bin!("write-atomically"), &program).unwrap();
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
        "write-atomically: failed to create a staging file for `out`: Permission denied (os error \
         13); `out` is unchanged\n"
    );
    assert_eq!(directory.listing(), ["out", "tool"]);
}

#[rstest]
#[case::nothing(&[], "DEST is missing")]
#[case::no_destination(&["--", "echo", "new"], "DEST is missing")]
#[case::empty(&[""], "a value is required")]
#[case::no_dashes(&["out", "echo", "new"], "unexpected argument 'echo'")]
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

#[rstest]
#[case::a_whole_argument(&["cp", "source.csv", "{}"], 0, "new\n")]
#[case::part_of_an_argument(&["dd", "status=none", "if=source.csv", "of={}"], 0, "new\n")]
#[case::twice(&["sh", "-c", "echo a > \"$1\"; echo b >> \"$2\"", "sh", "{}", "{}"], 0, "a\nb\n")]
#[case::the_extension(&["sh", "-c", "basename \"$1\" | grep -o '[.]csv$' > \"$1\"", "sh", "{}"], 0, ".csv\n")]
#[case::fails(&["sh", "-c", "echo part > \"$1\"; exit 4", "sh", "{}"], 4, "")]
#[case::is_killed(&["sh", "-c", "echo part > \"$1\"; kill -KILL $$", "sh", "{}"], 137, "")]
#[case::writes_nothing(&["true", "{}"], 125, "")]
fn a_command_that_wants_a_path_gets_one(
    #[case] command: &[&str],
    #[case] code: i32,
    #[case] content: &str,
    #[values("", "old\n")] old: &str,
    #[values("", "--create", "--if-missing", "--if-changed", "--append")] option: &str,
) {
    let directory = Directory::new();
    directory.file("source.csv", "new\n");
    let may_exist = !matches!(option, "--create" | "--if-missing");
    let old = if may_exist && !old.is_empty() { Some(old) } else { None };
    if let Some(old) = old {
        directory.file("out.csv", old);
    }
    let options: &[&str] = if option.is_empty() { &[] } else { &[option] };
    let output = tool(&directory, options).args(["out.csv", "--"]).args(command).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(code), &b""[..]), "{stderr}");
    let expected = match (code, option, old) {
        (0, "--append", Some(old)) => Some(format!("{old}{content}")),
        (0, _, _) => Some(content.to_owned()),
        (_, _, old) => old.map(str::to_owned),
    };
    match expected {
        Some(content) => {
            assert_eq!(directory.listing(), ["out.csv", "source.csv"]);
            assert_eq!(support::read(&directory.join("out.csv")), content);
        }
        None => assert_eq!(directory.listing(), ["source.csv"]),
    }
}

#[rstest]
fn a_new_file_made_by_path_has_the_mode_that_its_command_gave_it(
    #[values(None, Some("--create"), Some("--if-missing"), Some("--if-changed"), Some("--append"))]
    option: Option<&str>,
) {
    let directory = directory(None);
    let script = "echo '#!/bin/sh' > \"$1\"; chmod 750 \"$1\"";
    let mut tool = tool(&directory, option);
    tool.args(["out", "--", "sh", "-c", script, "sh", "{}"]).assert().success();
    assert_eq!(support::mode(&directory.join("out")), 0o750);
}

#[test]
fn the_command_that_gets_a_path_keeps_its_standard_output() {
    let directory = directory(None);
    let script = "echo said; echo new > \"$1\"";
    tool(&directory, ["out", "--", "sh", "-c", script, "sh", "{}"]).assert().stdout("said\n");
    assert_only(&directory, Some("new\n"));
}

#[rstest]
#[case::other("@", "cp source @", "new")]
#[case::none("", "echo {}", "{}\n")]
#[case::other_leaves_braces("@", "echo {}", "{}\n")]
fn the_placeholder_can_be_another(
    #[case] placeholder: &str,
    #[case] command: &str,
    #[case] content: &str,
) {
    let directory = directory(None);
    directory.file("source", "new");
    let arguments = ["--placeholder", placeholder, "out", "--"];
    tool(&directory, arguments).args(command.split(' ')).assert().success();
    assert_eq!(support::read(&directory.join("out")), content);
}

#[rstest]
fn a_directory_is_filled_and_replaced_as_a_whole(
    #[values(false, true)] succeeds: bool,
    #[values(false, true)] exists: bool,
) {
    let directory = Directory::new();
    if exists {
        fs::create_dir_all(directory.join("site/old")).unwrap();
    }
    let script = "mkdir -p \"$1/a/b\" && echo x > \"$1/a/b/c\" && [ yes = \"$2\" ]";
    let yes = if succeeds { "yes" } else { "no" };
    tool(&directory, ["--dir", "site", "--", "sh", "-c", script, "sh", "{}", yes])
        .assert()
        .code(if succeeds { 0 } else { 1 });
    match (succeeds, exists) {
        (true, _) => {
            assert_eq!(directory.listing(), ["site"]);
            assert_eq!(support::listing(&directory.join("site")), ["a"]);
            assert_eq!(support::read(&directory.join("site/a/b/c")), "x\n");
        }
        (false, true) => assert_eq!(support::listing(&directory.join("site")), ["old"]),
        (false, false) => assert_eq!(directory.listing(), [""; 0]),
    }
}

#[rstest]
#[case::file(&["out"], &["touch", "ran"])]
#[case::by_path(&["out"], &["touch", "ran", "{}"])]
#[case::directory(&["--dir", "."], &["touch", "ran", "{}"])]
fn if_missing_does_nothing_when_it_is_there(#[case] arguments: &[&str], #[case] command: &[&str]) {
    let directory = directory(Some("old"));
    let before = fs::metadata(directory.join("out")).unwrap();
    let mut tool = tool(&directory, ["--if-missing"]);
    tool.args(arguments).arg("--").args(command).assert().success().stdout("").stderr("");
    assert_only(&directory, Some("old"));
    let after = fs::metadata(directory.join("out")).unwrap();
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
}

#[test]
fn of_those_who_find_it_missing_one_runs_its_command() {
    let directory = directory(None);
    let script = "echo ran >&2; sleep 0.3; echo new";
    let children: Vec<Child> = (0..6)
        .map(|_| {
            let mut command = tool_sh(&directory, &["--if-missing", "out"], script);
            command.stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let said: String = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .inspect(|output| assert!(output.status.success()))
        .map(|output| String::from_utf8(output.stderr).unwrap())
        .collect();
    assert_eq!(said, "ran\n");
    assert_only(&directory, Some("new\n"));
}

#[rstest]
fn if_changed_leaves_alone_what_is_the_same(#[values("same", "other")] new: &str) {
    let directory = directory(Some("same"));
    let before = fs::metadata(directory.join("out")).unwrap();
    tool(&directory, ["--if-changed", "out", "--", "printf", new]).assert().success();
    let after = fs::metadata(directory.join("out")).unwrap();
    assert_eq!(before.ino() == after.ino(), new == "same");
    assert_eq!(before.ctime_nsec() == after.ctime_nsec(), new == "same");
    assert_only(&directory, Some(new));
}

#[rstest]
#[case::by_a_command(&["echo", "new"])]
#[case::by_path(&["sh", "-c", "echo new > \"$1\"", "sh", "{}"])]
#[case::by_standard_input(&[])]
fn append_keeps_the_old_content(
    #[case] command: &[&str],
    #[values(None, Some("old\n"))] old: Option<&str>,
    #[values("-a", "--append")] option: &str,
) {
    let directory = directory(old);
    let mut tool = tool(&directory, [option, "out"]);
    if !command.is_empty() {
        tool.arg("--").args(command);
    }
    assert!(fed(tool, b"new\n").status.success());
    assert_only(&directory, Some(&format!("{}new\n", old.unwrap_or_default())));
}

#[test]
fn appending_at_once_loses_nothing() {
    let directory = directory(None);
    let numbers: Vec<String> = (0..8).map(|number| number.to_string()).collect();
    let children: Vec<Child> = numbers
        .iter()
        .map(|number| tool(&directory, ["-a", "out", "--", "echo", number]).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let content = support::read(&directory.join("out"));
    let mut lines: Vec<&str> = content.lines().collect();
    lines.sort();
    assert_eq!(lines, numbers);
    assert_eq!(directory.listing(), ["out"]);
}

#[test]
fn it_does_what_sponge_does() {
    let directory = directory(Some("b\nc\na\n"));
    let tool = assert_cmd::cargo::cargo_bin!("write-atomically").display().to_string();
    let script = format!("sort out | {tool} out");
    Command::new("sh").args(["-c", &script]).current_dir(directory.path()).assert().success();
    assert_only(&directory, Some("a\nb\nc\n"));
}

#[rstest]
#[case::three_digits("640", 0o640)]
#[case::four_digits("0600", 0o600)]
#[case::prefix("0o755", 0o755)]
fn the_mode_is_exact(#[case] text: &str, #[case] mode: u32) {
    let directory = directory(None);
    tool(&directory, ["--mode", text, "out", "--", "echo"]).assert().success();
    assert_eq!(support::mode(&directory.join("out")), mode);
}

#[rstest]
fn every_durability_writes(#[values("durable", "consistent", "relaxed")] durability: &str) {
    let directory = directory(Some("old"));
    let script = "head -c 9000000 /dev/zero";
    tool_sh(&directory, &["--durability", durability, "out"], script).assert().success();
    assert_eq!(fs::metadata(directory.join("out")).unwrap().len(), 9_000_000);
    assert_eq!(directory.listing(), ["out"]);
}

#[rstest]
fn parents_are_made_only_for_what_succeeds(#[values(0, 1)] code: i32) {
    let directory = directory(None);
    let script = format!("echo new; exit {code}");
    tool_sh(&directory, &["--create-parents", "a/b/out"], &script).assert().code(code);
    match code {
        0 => assert_eq!(support::read(&directory.join("a/b/out")), "new\n"),
        _ => assert_eq!(directory.listing(), [""; 0]),
    }
}

#[rstest]
#[case::followed(&["link"], true)]
#[case::not_followed(&["--no-follow", "link"], false)]
fn a_link_stays_unless_it_is_not_to_be_followed(#[case] arguments: &[&str], #[case] stays: bool) {
    let directory = directory(Some("old"));
    symlink("out", directory.join("link")).unwrap();
    tool_sh(&directory, arguments, "echo new").assert().success();
    assert_eq!(fs::symlink_metadata(directory.join("link")).unwrap().is_symlink(), stays);
    assert_eq!(support::read(&directory.join("link")), "new\n");
    assert_eq!(support::read(&directory.join("out")), if stays { "new\n" } else { "old" });
}

#[rstest]
#[case::by_a_command(&["sh", "-c", "echo part; exit $0"])]
#[case::by_path(&["sh", "-c", "echo part > \"$1\"; exit $2", "sh", "{}"])]
fn what_a_failed_command_wrote_is_kept_where_asked_for(
    #[case] command: &[&str],
    #[values("0", "5")] code: &str,
    #[values(None, Some("--if-changed"))] option: Option<&str>,
) {
    let directory = directory(Some("old"));
    let mut tool = tool(&directory, ["--keep-failed", "kept", "out"]);
    tool.args(option).arg("--").args(command).arg(code).assert().code(code.parse::<i32>().unwrap());
    match code {
        "0" => assert_only(&directory, Some("part\n")),
        _ => {
            assert_eq!(directory.listing(), ["kept", "out"]);
            assert_eq!(support::read(&directory.join("out")), "old");
            assert_eq!(support::read(&directory.join("kept")), "part\n");
        }
    }
}

#[test]
fn quiet_leaves_the_explaining_to_the_command() {
    let directory = directory(None);
    let script = "echo why >&2; exit 1";
    tool_sh(&directory, &["--quiet", "out"], script).assert().code(1).stderr("why\n");
}

#[rstest]
#[ignore = "needs root and a mount namespace: run tests/privileged"]
#[case::refused(&["out"], 125)]
#[ignore = "needs root and a mount namespace: run tests/privileged"]
#[case::written_into(&["--in-place-fallback", "out"], 0)]
fn a_file_that_cannot_be_renamed_over(#[case] arguments: &[&str], #[case] code: i32) {
    let directory = directory(Some("old"));
    let elsewhere = Directory::new();
    let below = elsewhere.file("below", "old");
    let _mount = Mount::bind(&below, &directory.join("out"));
    let assert = tool_sh(&directory, arguments, "echo new").assert().code(code);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert_eq!(stderr.contains("`--in-place-fallback` writes into it"), code != 0, "{stderr}");
    assert_eq!(support::read(&below), if code == 0 { "new\n" } else { "old" });
}

/// A command that says in `pid` who it is, writes a part, and runs until a signal comes; it then
/// adds a line to `got`.
const WAITS: &str = "
    trap 'echo got >> got; exit 0' INT TERM HUP
    echo part
    echo $$ > pid.new; mv pid.new pid
    while :; do sleep 0.02; done";

/// The tool while it runs; what is left of it and its command goes with the test.
struct Running {
    child: Option<Child>,
    group: Pid,
}

impl Running {
    /// Starts it as a process group of its own.
    fn start(command: &mut Command) -> Running {
        let child = command.stderr(Stdio::piped()).process_group(0).spawn().unwrap();
        Running { group: Pid::from_child(&child), child: Some(child) }
    }

    /// Starts it with [`WAITS`], and lets its command start.
    fn waiting(directory: &Directory, command: &mut Command) -> Running {
        let running = Running::start(command);
        wait_until("the command starts", || directory.join("pid").exists());
        running
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.group, signal).unwrap();
    }

    fn status(&mut self) -> ExitStatus {
        self.child.as_mut().unwrap().wait().unwrap()
    }

    fn output(mut self) -> Output {
        self.child.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

#[rstest]
fn a_signal_reaches_the_command_and_nothing_is_published(
    #[values(Signal::INT, Signal::TERM, Signal::HUP)] signal: Signal,
    #[values(false, true)] to_the_group: bool,
    #[values(false, true)] by_path: bool,
) {
    let directory = directory(Some("old"));
    let mut command = tool_sh(&directory, &["out"], WAITS);
    if by_path {
        command.arg("{}");
    }
    let tool = Running::waiting(&directory, &mut command);
    match to_the_group {
        true => kill_process_group(tool.group, signal).unwrap(),
        false => tool.signal(signal),
    }
    let output = tool.output();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.signal(), Some(signal.as_raw()), "{stderr}");
    assert!(
        stderr.contains("ended by SIG") && stderr.ends_with("; `out` is unchanged\n"),
        "{stderr}"
    );
    assert_eq!(directory.listing(), ["got", "out", "pid"]);
    assert_eq!(support::read(&directory.join("out")), "old");
}

/// As an interactive shell has it: a signal that ends the command, but that we know nothing of.
#[test]
fn a_signal_to_the_command_alone_is_its_own_affair() {
    let directory = directory(Some("old"));
    let tool = Running::waiting(&directory, &mut tool_sh(&directory, &["out"], WAITS));
    let pid: i32 = support::read(&directory.join("pid")).trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    assert_eq!(tool.output().status.code(), Some(137));
    assert_eq!(support::read(&directory.join("out")), "old");
}

#[rstest]
#[case::unnamed("here")]
#[ignore = "needs a mounted FUSE filesystem: run tests/privileged"]
#[case::named("fuse")]
fn a_signal_while_standard_input_is_read_leaves_nothing(
    #[case] filesystem: &str,
    #[values(Signal::INT, Signal::TERM, Signal::HUP)] signal: Signal,
) {
    let directory = Directory::on(filesystem);
    directory.file("out", "old");
    let mut command = tool(&directory, ["out"]);
    let mut tool = Running::start(command.stdin(Stdio::piped()));
    // Taken, so that waiting does not close it.
    let mut input = tool.child.as_mut().unwrap().stdin.take().unwrap();
    input.write_all(b"part").unwrap();
    thread::sleep(Duration::from_millis(200));
    tool.signal(signal);
    assert_eq!(tool.status().signal(), Some(signal.as_raw()));
    assert_only(&directory, Some("old"));
}

#[test]
fn killing_the_tool_leaves_nothing() {
    let directory = directory(Some("old"));
    let mut tool = Running::waiting(&directory, &mut tool_sh(&directory, &["out"], WAITS));
    tool.signal(Signal::KILL);
    tool.status();
    assert_eq!(directory.listing(), ["out", "pid"]);
    assert_eq!(support::read(&directory.join("out")), "old");
}

#[rstest]
#[case::hangup("HUP", Signal::HUP)]
#[case::interrupt("INT", Signal::INT)]
#[case::termination("TERM", Signal::TERM)]
fn a_signal_that_is_ignored_from_the_start_stays_ignored(
    #[case] name: &str,
    #[case] signal: Signal,
) {
    let directory = directory(Some("old"));
    let tool = assert_cmd::cargo::cargo_bin!("write-atomically").display().to_string();
    let script = format!(
        "trap '' {name}; exec {tool} out -- sh -c 'echo > pid; until [ -e go ]; do sleep 0.02; done; echo new'"
    );
    let mut command = Command::new("sh");
    let mut tool = Running::start(command.args(["-c", &script]).current_dir(directory.path()));
    wait_until("the command starts", || directory.join("pid").exists());
    tool.signal(signal);
    thread::sleep(Duration::from_millis(100));
    directory.file("go", "");
    assert!(tool.status().success());
    assert_eq!(support::read(&directory.join("out")), "new\n");
}

/// waitpid(2): where SIGCHLD is ignored, a child's status is thrown away.
#[rstest]
fn the_status_is_seen_where_children_are_ignored(#[values(0, 7)] code: i32) {
    let directory = directory(None);
    let tool = assert_cmd::cargo::cargo_bin!("write-atomically").display().to_string();
    let script = format!("trap '' CHLD; exec {tool} out -- sh -c 'echo new; exit {code}'");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(directory.path()).assert().code(code);
    assert_only(&directory, if code == 0 { Some("new\n") } else { None });
}

#[test]
fn nobody_needs_to_listen_to_what_it_says() {
    let directory = directory(Some("old"));
    let mut command = tool_sh(&directory, &["out"], "sleep 0.3; exit 5");
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_only(&directory, Some("old"));
}

#[test]
fn a_signal_ends_the_wait_for_others() {
    let directory = directory(None);
    let mut holder = tool_sh(&directory, &["--if-missing", "out"], WAITS);
    let mut holder = Running::waiting(&directory, &mut holder);
    let mut waiter =
        Running::start(&mut tool_sh(&directory, &["--if-missing", "out"], "touch ran"));
    thread::sleep(Duration::from_millis(200));
    waiter.signal(Signal::TERM);
    assert_eq!(waiter.status().signal(), Some(Signal::TERM.as_raw()));
    holder.signal(Signal::TERM);
    holder.status();
    assert_eq!(directory.listing(), ["got", "pid"]);
}

/// The tool on a terminal of its own.
fn on_terminal(mut command: Command) -> PtySession {
    command.stdin(Stdio::inherit()).env("TERM", "xterm");
    spawn_command(command, Some(20_000)).unwrap()
}

/// What it showed, and how it ended, as in `Exited(Pid(7), 0)`.
fn end(mut session: PtySession) -> (String, String) {
    let shown = session.exp_eof().unwrap();
    (shown, format!("{:?}", session.process().wait().unwrap()))
}

#[rstest]
#[case::long(&[], "1.6", true)]
#[case::short(&[], "0.2", false)]
#[case::short_but_asked_for(&["--progress"], "0.4", true)]
#[case::long_but_not_wanted(&["--no-progress"], "1.6", false)]
#[case::long_but_quiet(&["--quiet"], "1.6", false)]
#[case::the_last_word_counts(&["--no-progress", "--progress"], "0.4", true)]
fn on_a_terminal_progress_shows_when_it_takes_long(
    #[case] options: &[&str],
    #[case] seconds: &str,
    #[case] shows: bool,
) {
    let directory = directory(None);
    let script = format!("head -c 3145728 /dev/zero; sleep {seconds}");
    let mut arguments = options.to_vec();
    arguments.push("out");
    let (shown, status) = end(on_terminal(tool_sh(&directory, &arguments, &script)));
    assert!(status.starts_with("Exited") && status.ends_with(", 0)"), "{status}");
    assert_eq!(shown.contains("3.00 MiB") && shown.contains("/s"), shows, "{shown:?}");
    if shows {
        // It goes: what is shown last is an empty line.
        assert!(shown.trim_end_matches('\r').ends_with("\u{1b}[2K"), "{shown:?}");
    } else {
        assert_eq!(shown, "");
    }
}

#[test]
fn without_a_terminal_nothing_shows() {
    let directory = directory(None);
    tool_sh(&directory, &["out"], "echo new; sleep 1.3").assert().success().stdout("").stderr("");
}

#[test]
fn without_a_terminal_progress_is_lines() {
    let directory = directory(None);
    let script = "head -c 3145728 /dev/zero";
    let assert = tool_sh(&directory, &["--progress", "out"], script).assert().success();
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(stderr.starts_with("3.00 MiB  ") && stderr.lines().count() == 1, "{stderr:?}");
}

#[test]
fn the_terminals_interrupt_reaches_the_command_once() {
    let directory = directory(Some("old"));
    let mut session = on_terminal(tool_sh(
        &directory,
        &["out"],
        "trap 'echo got >> got' INT; echo > pid; until [ -e go ]; do sleep 0.02; done",
    ));
    wait_until("the command starts", || directory.join("pid").exists());
    session.send_control('c').unwrap();
    wait_until("the command hears of it", || directory.join("got").exists());
    thread::sleep(Duration::from_millis(300));
    directory.file("go", "");
    let (shown, status) = end(session);
    assert!(shown.contains("ended by SIGINT; `out` is unchanged"), "{shown:?}");
    assert!(status.starts_with("Signaled") && status.contains("SIGINT"), "{status}");
    assert_eq!(support::read(&directory.join("got")), "got\n");
    assert_eq!(support::read(&directory.join("out")), "old");
}

#[rstest]
#[case::help(&["--help"], "a producer that fails can't be seen through a pipe")]
#[case::examples(&["--help"], "crontab")]
#[case::makefile(&["--help"], "%.json: %.yaml")]
#[case::short_help(&["-h"], "can't be seen through a pipe")]
#[case::version(&["--version"], concat!("write-atomically ", env!("CARGO_PKG_VERSION")))]
#[case::man(&["--man"], ".SH EXAMPLES")]
#[case::man_name(&["--man"], ".TH write-atomically 1")]
#[case::bash(&["--completions", "bash"], "complete -F")]
#[case::zsh(&["--completions", "zsh"], "#compdef write-atomically")]
#[case::fish(&["--completions", "fish"], "complete -c write-atomically")]
#[case::powershell(&["--completions", "powershell"], "Register-ArgumentCompleter")]
#[case::elvish(&["--completions", "elvish"], "edit:completion")]
fn it_explains_itself(#[case] arguments: &[&str], #[case] expected: &str) {
    let directory = directory(None);
    let assert = tool(&directory, arguments).assert().success().stderr("");
    let stdout = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    let in_one_line = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(stdout.contains(expected) || in_one_line.contains(expected), "{stdout}");
    assert_only(&directory, None);
}
