//! What content must be like to be published: --refuse-empty and --check.

use assert_cmd::assert::OutputAssertExt;
use fs_err as fs;
use rstest::rstest;

use crate::support::{self, Directory};
use crate::{assert_only, directory, fed, tool};

/// The options that say when DEST is written.
const WHEN: [Option<&str>; 5] =
    [None, Some("--create"), Some("--if-missing"), Some("--if-changed"), Some("--append")];

fn old_content(when: Option<&str>) -> Option<&'static str> {
    match when {
        Some("--create" | "--if-missing") => None,
        _ => Some("old\n"),
    }
}

/// The three ways in which content comes.
#[derive(Clone, Copy, Debug)]
enum Way {
    Input,
    Output,
    Path,
}

/// Runs the tool, which is given this content; returns its exit status and what it said.
fn write(
    directory: &Directory,
    options: &[&str],
    when: Option<&str>,
    way: Way,
    content: &str,
) -> (i32, String) {
    let mut command = tool(directory, options);
    command.args(when).arg("out");
    let script = "printf \"$1\" > \"$2\"";
    match way {
        Way::Input => &mut command,
        Way::Output => command.args(["--", "printf", content]),
        Way::Path => command.args(["--", "sh", "-c", script, "sh", content, "{}"]),
    };
    let output = fed(command, content.as_bytes());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[rstest]
fn an_empty_result_is_refused_if_asked_for(
    #[values(0, 1, 2, 3, 4)] when: usize,
    #[values(Way::Input, Way::Output, Way::Path)] way: Way,
    #[values("", "new\n")] content: &str,
) {
    let when = WHEN[when];
    let old = old_content(when);
    let directory = directory(old);
    let (code, said) = write(&directory, &["--refuse-empty"], when, way, content);
    if content.is_empty() {
        let message = "`out` is unchanged: there is no content, and --refuse-empty refuses that";
        assert_eq!((code, &*said), (122, &*format!("write-atomically: {message}\n")));
        assert_only(&directory, old);
        return;
    }
    assert_eq!((code, &*said), (0, ""));
    let before = if when == Some("--append") { "old\n" } else { "" };
    assert_only(&directory, Some(&format!("{before}new\n")));
}

#[rstest]
fn a_check_decides_whether_content_is_published(
    #[values(0, 1, 2, 3, 4)] when: usize,
    #[values(Way::Input, Way::Output, Way::Path)] way: Way,
    #[values("good\n", "bad\n")] content: &str,
) {
    let when = WHEN[when];
    let old = old_content(when);
    let directory = directory(old);
    // It sees the whole of the new content, before it is published.
    let check = "cat {} > seen; cat out > before 2>&1; ! grep -q bad {}";
    let (code, said) = write(&directory, &["--check", check], when, way, content);
    let whole = match when {
        Some("--append") => format!("old\n{content}"),
        _ => content.to_owned(),
    };
    assert_eq!(support::read(&directory.join("seen")), whole);
    match old {
        Some(old) => assert_eq!(support::read(&directory.join("before")), old),
        None => assert!(support::read(&directory.join("before")).contains("out")),
    }
    fs::remove_file(directory.join("seen")).unwrap();
    fs::remove_file(directory.join("before")).unwrap();
    if content.starts_with("good") {
        assert_eq!((code, &*said), (0, ""));
        assert_only(&directory, Some(&whole));
    } else {
        let message = format!("`out` is unchanged: `{check}` refused the content: exit status 1");
        assert_eq!((code, said), (122, format!("write-atomically: {message}\n")));
        assert_only(&directory, old);
    }
}

#[test]
fn the_path_of_a_check_is_quoted_for_the_shell_and_has_the_name_of_the_file() {
    let directory = Directory::new();
    let name = "it's $(touch no) \"here\".conf";
    let arguments = ["--check", "basename {} > ../name", name, "--", "echo", "new"];
    fs::create_dir(directory.join("in")).unwrap();
    let mut command = tool(&directory, arguments);
    command.current_dir(directory.join("in")).assert().success();
    assert_eq!(support::read(&directory.join("name")), format!("{name}\n"));
    assert_eq!(support::listing(&directory.join("in")), [name]);
}

#[test]
fn a_directory_is_checked_and_refused_if_it_is_empty() {
    let directory = Directory::new();
    let run = |options: &[&str], script: &str| {
        let mut command = tool(&directory, options);
        command.args(["--dir", "site", "--", "sh", "-c", script, "sh", "{}"]);
        command.output().unwrap().status.code()
    };
    assert_eq!(run(&["--refuse-empty"], "mkdir -p \"$1\""), Some(122));
    assert_eq!(run(&["--check", "test -e {}/index"], "touch \"$1/other\""), Some(122));
    assert_eq!(directory.listing(), [""; 0]);
    let both = ["--refuse-empty", "--check", "test -e {}/index"];
    assert_eq!(run(&both, "touch \"$1/index\""), Some(0));
    assert_eq!(support::listing(&directory.join("site")), ["index"]);
}

#[rstest]
fn refused_content_is_kept_where_asked_for(#[values(Way::Input, Way::Output, Way::Path)] way: Way) {
    let directory = directory(Some("old\n"));
    let options = ["--keep-failed", "kept", "--check", "grep -q good {}"];
    assert_eq!(write(&directory, &options, None, way, "bad\n").0, 122);
    assert_eq!(directory.listing(), ["kept", "out"]);
    assert_eq!(support::read(&directory.join("kept")), "bad\n");
    assert_eq!(support::read(&directory.join("out")), "old\n");
}

#[rstest]
fn a_check_leaves_the_mode_as_it_is_without_one(
    #[values(Way::Input, Way::Output)] way: Way,
    #[values(None, Some("--mode=604"), Some("--new-file-mode=640"))] mode: Option<&str>,
) {
    let modes = [vec![], vec!["--check", "test -s {}"]].map(|mut options| {
        let directory = directory(None);
        options.extend(mode);
        assert_eq!(write(&directory, &options, None, way, "new\n"), (0, String::new()));
        support::mode(&directory.join("out"))
    });
    assert_eq!(format!("{:o}", modes[0]), format!("{:o}", modes[1]));
}
