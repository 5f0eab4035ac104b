//! What each option does.

use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::assert::OutputAssertExt;
use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use rstest::rstest;

use crate::support::{self, Directory, Mount};
use crate::{assert_only, directory, fed, tool, tool_sh, wait_until};

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
#[case::new(None, "640", "022", 0o640)]
#[case::less_the_umask(None, "666", "027", 0o640)]
#[case::an_old_file_keeps_its_own(Some("old"), "640", "022", 0o604)]
fn a_new_file_gets_the_mode_for_new_files(
    #[case] old: Option<&str>,
    #[case] text: &str,
    #[case] umask: &str,
    #[case] mode: u32,
) {
    let directory = directory(old);
    if old.is_some() {
        support::set_mode(&directory.join("out"), 0o604);
    }
    let tool = assert_cmd::cargo::cargo_bin!("write-atomically").display().to_string();
    let script = format!("umask {umask}; {tool} --new-file-mode {text} out -- echo new");
    Command::new("sh").args(["-c", &script]).current_dir(directory.path()).assert().success();
    assert_eq!(format!("{:o}", support::mode(&directory.join("out"))), format!("{mode:o}"));
    assert_only(&directory, Some("new\n"));
}

/// One that runs inside the other's command waits for it in vain.
#[rstest]
#[case::file("--if-missing", "out", None, "echo new", &["echo", "new"])]
#[case::path("--if-missing", "out", None, "echo new > {}", &["cp", "/dev/null", "{}"])]
#[case::append_to_nothing("--append", "out", None, "echo new", &["echo", "new"])]
#[case::append("--append", "out", Some("old\n"), "echo new", &["echo", "new"])]
#[case::directory("--if-missing --dir", "out", None, "echo new > {}/file", &["touch", "{}/file"])]
fn it_waits_no_longer_than_it_is_told(
    #[case] options: &str,
    #[case] destination: &str,
    #[case] old: Option<&str>,
    #[case] script: &str,
    #[case] inner: &[&str],
    #[values("0", "0.2")] seconds: &str,
) {
    let directory = directory(old);
    let options: Vec<&str> = options.split(' ').collect();
    let holds = format!("{script}; echo > held; until [ -e go ]; do sleep 0.02; done");
    let mut holder = tool_sh(&directory, &[&options[..], &[destination]].concat(), &holds);
    let mut holder = holder.spawn().unwrap();
    wait_until("the holder's command runs", || directory.join("held").exists());
    let before = directory.listing();
    let start = Instant::now();
    let mut waiter = tool(&directory, &options);
    waiter.args(["--wait", seconds, destination, "--", "sh", "-c", "touch ran; exec \"$@\"", "sh"]);
    waiter
        .args(inner)
        .assert()
        .code(124)
        .stdout("")
        .stderr("write-atomically: `out` is unchanged: failed to lock: timed out\n");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs_f64(seconds.parse().unwrap()), "{waited:?}");
    assert!(waited < Duration::from_secs(15), "{waited:?}");
    assert_eq!(directory.listing(), before);
    directory.file("go", "");
    assert!(holder.wait().unwrap().success());
    assert_eq!(directory.listing(), ["go", "held", "out"]);
    match options.contains(&"--dir") {
        true => assert_eq!(support::read(&directory.join("out/file")), "new\n"),
        false => {
            let expected = format!("{}new\n", old.unwrap_or_default());
            assert_eq!(support::read(&directory.join("out")), expected);
        }
    }
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
    assert_eq!(
        stderr.contains("; --in-place-fallback writes it in place): "),
        code != 0,
        "{stderr}"
    );
    assert_eq!(support::read(&below), if code == 0 { "new\n" } else { "old" });
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

#[rstest]
fn a_sweep_prints_what_it_removes() {
    let directory = Directory::new();
    directory.file("out", "old\n");
    directory.file(".out.write-atomically", "left by a killed writer");
    directory.file(".out.write-atomically-00000000deadbeef", "of another machine, and new");
    let output = tool(&directory, ["--sweep", ".", "--older-than", "1d"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "./.out.write-atomically\n");
    assert_eq!(directory.listing(), [".out.write-atomically-00000000deadbeef", "out"]);
}

#[rstest]
#[case::without_an_age(&["--sweep", "."])]
#[case::of_no_unit(&["--sweep", ".", "--older-than", "1"])]
#[case::of_nothing(&["--sweep", ".", "--older-than", ""])]
#[case::with_a_destination(&["--sweep", ".", "--older-than", "1d", "out"])]
#[case::an_age_alone(&["--older-than", "1d", "out"])]
fn a_sweep_that_makes_no_sense_removes_nothing(#[case] arguments: &[&str]) {
    let directory = Directory::new();
    directory.file(".out.write-atomically", "left by a killed writer");
    assert_eq!(tool(&directory, arguments).output().unwrap().status.code(), Some(2));
    assert_eq!(directory.listing(), [".out.write-atomically"]);
}

#[test]
fn appending_keeps_the_holes_of_the_old_content() {
    let directory = directory(Some("old\n"));
    let length = 256 << 20;
    fs::OpenOptions::new()
        .write(true)
        .open(directory.join("out"))
        .unwrap()
        .set_len(length)
        .unwrap();
    tool(&directory, ["-a", "out", "--", "echo", "new"]).assert().success();
    let metadata = fs::metadata(directory.join("out")).unwrap();
    assert_eq!(metadata.len(), length + 4);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    assert_eq!(directory.listing(), ["out"]);
}
