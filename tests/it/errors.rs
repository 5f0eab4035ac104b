//! Promises 5 and 6: the closure's error comes back untouched; the library's errors say what, where and why.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rstest::rstest;
use write_atomically::{
    Durability, Error, Step, WriteOptions, create_atomically, update_atomically, write,
    write_atomically, write_batch,
};

#[cfg(target_os = "linux")]
use crate::child::{self, Child};
use crate::support::{self, Directory};

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("row {row} is bad")]
struct BadRow {
    row: usize,
}

#[derive(Debug, thiserror::Error)]
enum PipelineError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    BadRow(#[from] BadRow),
}

#[rstest]
fn an_anyhow_error_is_still_what_it_was() {
    let directory = Directory::new();
    let result = write_atomically(directory.join("file"), |_| {
        Err::<(), _>(BadRow { row: 7 }).context("while adding up")
    });
    let error = result.unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&BadRow { row: 7 }));
    assert_eq!(error.to_string(), "while adding up");
    assert!(Error::find(error.as_ref()).is_none());
}

/// The three ways in which the library's errors travel.
#[rstest]
fn a_library_error_is_found_in_whatever_carries_it(
    #[values("io", "anyhow", "context", "box", "enum", "twice")] carrier: &str,
) {
    let directory = Directory::new();
    let path = directory.join("missing/file");
    let io: io::Error = write(&path, "").unwrap_err();
    let kind = io.kind();
    let error: Box<dyn StdError> = match carrier {
        "io" => io.into(),
        "anyhow" => write_atomically(&path, |_| Ok(())).unwrap_err().into(),
        "context" => anyhow::Error::from(io).context("outer").context("outermost").into(),
        "box" => Box::<dyn StdError>::from(io),
        "enum" => PipelineError::from(io).into(),
        _ => io::Error::other(io::Error::other(io)).into(),
    };
    let error = Error::find(error.as_ref()).expect(carrier);
    assert_eq!((kind, error.io_error().kind()), (ErrorKind::NotFound, ErrorKind::NotFound));
    assert_eq!(error.io_error().raw_os_error(), Some(2));
    assert_eq!((error.step(), error.path()), (Step::Resolve, &*path));
    assert!(!error.replaced() && error.published().is_empty());
}

#[rstest]
fn a_message_says_what_where_and_why() {
    let error = write("no-such-directory/out.csv", "").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`no-such-directory/out.csv` is unchanged: failed to resolve the path: No such file or \
         directory (os error 2)"
    );
}

/// Also the way in which a `main` that returns an `anyhow::Result` shows it.
#[rstest]
fn a_chain_says_nothing_twice() {
    let error = write_atomically("no-such-directory/out.csv", |_| Ok(())).unwrap_err();
    let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
    assert_eq!(causes, ["io::ErrorKind::NotFound"]);
}

#[rstest]
fn an_error_can_cross_threads() {
    fn assert_can_cross<T: Send + Sync + 'static>() {}
    assert_can_cross::<Error>();
}

/// The whole state after a failure: the content, and nothing beside it.
fn assert_untouched(path: &Path, beside: usize) {
    assert_eq!(support::read(path), "old");
    let listing = support::listing(path.parent().unwrap());
    assert_eq!(listing.len(), 1 + beside, "{listing:?}");
}

/// What an answer of a child must have: it names the destination, and the step.
fn assert_names(answer: &str, path: &Path, step: Step, kind: ErrorKind) {
    assert!(answer.contains(path.to_str().unwrap()), "{answer}");
    assert!(answer.contains(&format!("{step:?} {kind:?}")), "{answer}");
}

fn describe(error: &(dyn StdError + 'static)) -> String {
    let found = Error::find(error).expect("an error of the library");
    format!("{:?} {:?} {error}", found.step(), found.io_error().kind())
}

#[rstest]
#[case::in_the_closure("tmpfs", 4 << 20)]
#[case::in_the_closure_on_a_disk("small", 64 << 20)]
#[ignore = "needs root: run tests/privileged"]
fn a_full_filesystem_leaves_the_old_content(#[case] on: &str, #[case] size: usize) {
    let directory = Directory::on(on);
    let at = directory.join("full");
    fs_err::create_dir(&at).unwrap();
    let _mount = (on == "tmpfs").then(|| support::Mount::memory(&at, 1 << 20));
    let path = at.join("file");
    fs_err::write(&path, "old").unwrap();
    let error = write_atomically(&path, |w| Ok(w.write_all(&vec![1; size])?)).unwrap_err();
    assert_names(&describe(error.as_ref()), &path, Step::Write, ErrorKind::StorageFull);
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), ErrorKind::StorageFull);
    assert_untouched(&path, 0);
}

/// What only comes out when the buffer is flushed, after the closure.
#[rstest]
#[ignore = "needs root: run tests/privileged"]
fn a_filesystem_that_is_full_at_the_end_leaves_the_old_content() {
    let directory = Directory::new();
    let _mount = support::Mount::memory(directory.path(), 64 << 10);
    let path = directory.file("file", "old");
    let filler = directory.join("filler");
    let error = write_atomically(&path, |w| {
        w.write_all(&[1; 60 << 10])?;
        fs_err::write(&filler, vec![0; 60 << 10]).unwrap_or_default();
        Ok(())
    });
    let answer = describe(error.unwrap_err().as_ref());
    assert_names(&answer, &path, Step::Write, ErrorKind::StorageFull);
    assert_untouched(&path, 1);
}

#[rstest]
#[cfg(target_os = "linux")]
fn a_file_size_limit_leaves_the_old_content() {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    let answer = Child::new(module_path!(), "size limit", &path)
        .in_shell("trap '' XFSZ; ulimit -f 8")
        .answer();
    assert_names(&answer, &path, Step::Write, ErrorKind::FileTooLarge);
    assert_untouched(&path, 0);
}

#[rstest]
#[cfg(target_os = "linux")]
fn no_descriptors_left_is_an_error_before_the_closure() {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    let answer = Child::new(module_path!(), "no descriptors", &path).answer();
    assert!(answer.contains("os error 24") && answer.contains(path.to_str().unwrap()), "{answer}");
    assert_untouched(&path, 0);
}

#[rstest]
#[cfg(target_os = "linux")]
fn a_closure_that_used_up_all_descriptors_is_published(#[values(true, false)] existing: bool) {
    let directory = Directory::new();
    let path = directory.join("file");
    if existing {
        directory.file("file", "old");
    }
    assert_eq!(Child::new(module_path!(), "use up descriptors", &path).answer(), "Ok(())");
    assert_eq!(support::read(&path), "new");
    assert_eq!(directory.listing(), ["file"]);
}

#[rstest]
fn keeping_at_the_destination_itself_is_refused() {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    let result: io::Result<()> = WriteOptions::new().keep_failed(&path).write(&path, |_| panic!());
    assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_untouched(&path, 0);
}

#[rstest]
fn keeping_where_there_is_no_directory_is_refused_before_the_closure() {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    let options = WriteOptions::new().keep_failed(directory.join("missing/partial"));
    let result: io::Result<()> = options.write(&path, |_| panic!());
    let error = result.unwrap_err();
    assert!(describe(&error).contains("missing/partial"), "{error}");
    assert_untouched(&path, 0);
}

#[rstest]
fn what_is_there_already_is_said_with_its_path() {
    let directory = Directory::new();
    let path = directory.file("file", "old");
    let error = create_atomically(&path, |_| Ok(())).unwrap_err();
    assert_names(&describe(error.as_ref()), &path, Step::Resolve, ErrorKind::AlreadyExists);
    assert_untouched(&path, 0);
}

#[rstest]
fn debug_output_names_the_destination() {
    let directory = Directory::new();
    let path = directory.join("file");
    let text = write_atomically(&path, |w| Ok(format!("{w:?}"))).unwrap();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    struct Shown<T>(T);
    impl<T: fmt::Debug> fmt::Display for Shown<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{:?}", self.0)
        }
    }
    assert!(Shown(WriteOptions::new()).to_string().contains("Durable"));
    write(&path, "old").unwrap();
    let text = update_atomically(&path, |old, _| Ok(format!("{:?}", old.unwrap()))).unwrap();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    let text = write_batch(|batch| Ok(format!("{batch:?}"))).unwrap();
    assert!(text.contains("files: 0"), "{text}");
}

#[rstest]
fn each_option_leaves_the_others_as_they_are() {
    let options = [
        |options: WriteOptions| options.durability(Durability::Relaxed),
        |options: WriteOptions| options.mode(0o600),
        |options: WriteOptions| options.preserve_metadata(false),
        |options: WriteOptions| options.follow_symlinks(false),
        |options: WriteOptions| options.create_parents(true),
        |options: WriteOptions| options.in_place_fallback(true),
        |options: WriteOptions| options.keep_failed("partial"),
        |options: WriteOptions| options.buffer_capacity(1),
        |options: WriteOptions| options.new_file_mode(0o640),
        |options: WriteOptions| options.keep_hard_links(true),
        |options: WriteOptions| options.lock_timeout(Duration::from_secs(1)),
    ];
    let all = options.iter().fold(WriteOptions::new(), |all, set| set(all));
    let reversed = options.iter().rev().fold(WriteOptions::new(), |all, set| set(all));
    let shown = |options: &WriteOptions| format!("{options:?}");
    assert_eq!(shown(&all), shown(&reversed));
    assert_eq!(shown(&all), shown(&all.anyhow().error()));
    for set in options {
        assert_ne!(shown(&set(WriteOptions::new())), shown(&WriteOptions::new()));
        assert_eq!(shown(&set(all.clone())), shown(&all));
    }
    assert_eq!(all.get_durability(), Durability::Relaxed);
    assert_eq!((all.get_mode(), all.get_new_file_mode()), (Some(0o600), Some(0o640)));
    assert!(!all.get_preserve_metadata() && !all.get_follow_symlinks());
    assert!(all.get_create_parents() && all.get_in_place_fallback() && all.get_keep_hard_links());
    assert_eq!(all.get_lock_timeout(), Some(Duration::from_secs(1)));
    assert_eq!(all.get_keep_failed(), Some(Path::new("partial")));
    assert_eq!(all.get_buffer_capacity(), Some(1));
}

#[rstest]
#[ignore = "what other tests run as a child process"]
#[cfg(target_os = "linux")]
fn child() {
    let Some((role, path)) = child::role() else { return };
    match role.as_str() {
        "size limit" => {
            let error = write(&path, vec![1; 1 << 20]).unwrap_err();
            child::say(describe(&error));
        }
        "no descriptors" => {
            child::limit_descriptors(64);
            let files = child::use_all_descriptors();
            assert!(!files.is_empty());
            let result: io::Result<()> = WriteOptions::new().write(&path, |_| panic!());
            drop(files);
            child::say(describe(&result.unwrap_err()));
        }
        "use up descriptors" => {
            child::limit_descriptors(64);
            let mut files = Vec::new();
            let result = write_atomically(&path, |w| {
                files = child::use_all_descriptors();
                Ok(w.write_all(b"new")?)
            });
            assert!(!files.is_empty());
            drop(files);
            child::say(format!("{result:?}"));
        }
        role => panic!("{role}"),
    }
}
