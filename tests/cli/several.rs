//! Several destinations of one command.

use std::process::Command;

use assert_cmd::assert::OutputAssertExt;
use fs_err as fs;
use rstest::rstest;

use crate::support::{self, Directory};
use crate::tool;

const BOTH: &str = "echo one > \"$1\"; echo two > \"$2\"; ";

/// The tool with a script that gets two paths.
fn two(directory: &Directory, arguments: &[&str], script: &str) -> Command {
    let mut command = tool(directory, arguments);
    command.args(["--", "sh", "-c", script, "sh", "{1}", "{2}"]);
    command
}

#[rstest]
#[case::new(&[], "")]
#[case::old(&["a", "sub/b"], "old\n")]
fn all_are_written_if_the_command_succeeds_and_none_if_not(
    #[case] there: &[&str],
    #[case] old: &str,
    #[values(0, 3)] code: i32,
) {
    let directory = Directory::new();
    fs::create_dir(directory.join("sub")).unwrap();
    for name in there {
        directory.file(name, old);
    }
    let before = (directory.listing(), support::listing(&directory.join("sub")));
    let script = format!("{BOTH} cat a sub/b > seen 2>/dev/null; exit {code}");
    two(&directory, &["a", "sub/b"], &script).assert().code(code).stdout("");
    assert_eq!(support::read(&directory.join("seen")), old.repeat(2));
    fs::remove_file(directory.join("seen")).unwrap();
    if code == 0 {
        assert_eq!(directory.listing(), ["a", "sub"]);
        assert_eq!(support::listing(&directory.join("sub")), ["b"]);
        assert_eq!(support::read(&directory.join("a")), "one\n");
        assert_eq!(support::read(&directory.join("sub/b")), "two\n");
    } else {
        assert_eq!((directory.listing(), support::listing(&directory.join("sub"))), before);
        for name in there {
            assert_eq!(support::read(&directory.join(name)), old);
        }
    }
}

#[test]
fn a_failure_names_them_all() {
    let directory = Directory::new();
    let message = "write-atomically: `a` and `b` are unchanged: `sh` failed: exit status 4\n";
    two(&directory, &["a", "b"], "exit 4").assert().code(4).stderr(message);
    assert_eq!(directory.listing(), [""; 0]);
}

#[rstest]
#[case::one_is_not_written(&[], "echo one > \"$1\"", 125)]
#[case::one_is_empty(&["--refuse-empty"], "echo one > \"$1\"; touch \"$2\"", 122)]
#[case::one_is_refused(&["--check", "grep -q one {}"], BOTH, 122)]
fn one_that_is_not_as_it_must_be_keeps_back_the_other(
    #[case] options: &[&str],
    #[case] script: &str,
    #[case] code: i32,
) {
    let directory = Directory::new();
    directory.file("a", "old");
    two(&directory, &[options, &["a", "b"]].concat(), script).assert().code(code);
    assert_eq!(directory.listing(), ["a"]);
    assert_eq!(support::read(&directory.join("a")), "old");
}

#[rstest]
#[case::missing_directory("no/b", "failed to resolve the path")]
#[case::a_directory(".", "Is a directory")]
#[case::a_device("/dev/null", "can't be replaced")]
fn what_cannot_work_fails_before_the_command_starts(#[case] second: &str, #[case] message: &str) {
    let directory = Directory::new();
    let assert = two(&directory, &["a", second], "touch ran").assert().code(125);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(stderr.contains(message), "{stderr}");
    assert_eq!(directory.listing(), [""; 0]);
}

#[test]
fn more_than_nine_have_two_digits() {
    let directory = Directory::new();
    let names: Vec<String> = (1..=11).map(|number| format!("f{number}")).collect();
    let mut arguments = vec!["--placeholder".to_owned(), "@".to_owned()];
    arguments.extend(names.iter().cloned());
    arguments.extend(
        ["--", "sh", "-c", "for p; do basename \"$p\" > \"$p\"; done", "sh"].map(str::to_owned),
    );
    arguments.extend((1..=11).map(|number| format!("@{number}")));
    tool(&directory, arguments).assert().success();
    assert_eq!(directory.listing().len(), 11);
    for name in names {
        assert_eq!(support::read(&directory.join(&name)), format!("{name}\n"));
    }
}

#[test]
fn the_modes_are_those_of_the_old_files_and_of_the_command() {
    let directory = Directory::new();
    directory.file("a", "old");
    support::set_mode(&directory.join("a"), 0o604);
    two(&directory, &["a", "b"], &format!("{BOTH} chmod 750 \"$1\" \"$2\"")).assert().success();
    assert_eq!(support::mode(&directory.join("a")), 0o604);
    assert_eq!(support::mode(&directory.join("b")), 0o750);
}

#[test]
fn names_that_begin_with_a_dash_go_after_two_of_them() {
    let directory = Directory::new();
    let arguments = ["--", "-a", "-b", "--", "sh", "-c", BOTH, "sh", "{1}", "{2}"];
    tool(&directory, arguments).assert().success();
    assert_eq!(directory.listing(), ["-a", "-b"]);
}
