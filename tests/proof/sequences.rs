//! Any sequence of operations, options and failures, from any state of a directory, against a model of
//! what the directory must look like after each.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::bail;
use proptest::prelude::*;
use write_atomically::{Durability, WriteOptions, Writer};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A directory: what each name leads to.
type Model = BTreeMap<&'static str, Node>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File { content: Vec<u8>, mode: u32 },
    Directory,
    Link(&'static str),
}

#[derive(Clone, Debug)]
struct Step {
    operation: Operation,
    name: &'static str,
    content: Vec<u8>,
    mode: Option<u32>,
    preserve: bool,
    follow: bool,
    durability: Durability,
    closure: Closure,
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Write,
    Create,
    WriteIfMissing,
    WriteIfChanged,
    Update,
    WritePath,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closure {
    Succeeds,
    Fails,
    Panics,
}

fn model() -> impl Strategy<Value = Model> {
    proptest::collection::btree_map(name(), node(), 0..4)
}

fn name() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&NAMES[..])
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        4 => (content(), mode()).prop_map(|(content, mode)| Node::File { content, mode }),
        1 => Just(Node::Directory),
        2 => name().prop_map(Node::Link),
    ]
}

/// Few enough to meet the same content again, and some that do not fit the buffer.
fn content() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![Just(0), Just(5), Just(70_000)], 0..3_u8).prop_map(|(n, byte)| vec![byte; n])
}

fn mode() -> impl Strategy<Value = u32> {
    proptest::sample::select(&[0o600, 0o640, 0o644, 0o755][..])
}

fn step() -> impl Strategy<Value = Step> {
    use Operation::*;
    let operations = [Write, Create, WriteIfMissing, WriteIfChanged, Update, WritePath];
    let durabilities = [Durability::Durable, Durability::Consistent, Durability::Relaxed];
    let closures = prop_oneof![3 => Just(Closure::Succeeds), 1 => Just(Closure::Fails), 1 => Just(Closure::Panics)];
    let options = (proptest::option::of(mode()), any::<bool>(), any::<bool>());
    let durability = proptest::sample::select(durabilities.to_vec());
    (
        proptest::sample::select(operations.to_vec()),
        name(),
        content(),
        options,
        durability,
        closures,
    )
        .prop_map(
            |(operation, name, content, (mode, preserve, follow), durability, closure)| Step {
                operation,
                name,
                content,
                mode,
                preserve,
                follow,
                durability,
                closure,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_directory_looks_as_the_model_says(before in model(), steps in proptest::collection::vec(step(), 1..8)) {
        let directory = tempfile::tempdir().unwrap();
        let mut model = before;
        build(&model, directory.path());
        let new_mode = mode_of_a_new_file();
        for step in &steps {
            let expected = expect(&mut model, step, new_mode);
            let succeeded = perform(step, directory.path());
            prop_assert_eq!(&look(directory.path()), &model, "after {:?}", step);
            prop_assert_eq!(succeeded, expected, "{:?}", step);
        }
    }
}

/// What the step does to the model, and whether it succeeds.
fn expect(model: &mut Model, step: &Step, new_mode: u32) -> bool {
    let follow = step.follow && !matches!(step.operation, Operation::Create);
    let Some(name) = (if follow { resolve(model, step.name) } else { Some(step.name) }) else {
        return false;
    };
    let there = model.get(name).cloned();
    let content = match (step.operation, &there) {
        (Operation::Create, Some(_))
        | (
            Operation::Write | Operation::WritePath | Operation::WriteIfChanged | Operation::Update,
            Some(Node::Directory),
        ) => return false,
        // What it would read is not there to be followed.
        (Operation::Update, Some(Node::Link(_))) => return false,
        (Operation::WriteIfMissing, Some(_)) => return true,
        (Operation::Update, Some(Node::File { content, .. })) => {
            [&content[..], &step.content].concat()
        }
        _ => step.content.clone(),
    };
    if step.closure != Closure::Succeeds {
        return false;
    }
    let mode = match (&there, step.mode) {
        (Some(Node::File { content: old, .. }), _)
            if matches!(step.operation, Operation::WriteIfChanged) && *old == content =>
        {
            return true;
        }
        (_, Some(mode)) => mode,
        (Some(Node::File { mode, .. }), None) if step.preserve => *mode,
        _ => new_mode,
    };
    model.insert(name, Node::File { content, mode });
    true
}

/// Where a chain of links ends, unless it never does.
fn resolve(model: &Model, mut name: &'static str) -> Option<&'static str> {
    for _ in 0..=NAMES.len() {
        match model.get(name) {
            Some(Node::Link(next)) => name = next,
            _ => return Some(name),
        }
    }
    None
}

fn perform(step: &Step, directory: &Path) -> bool {
    let path = directory.join(step.name);
    let mut options = WriteOptions::new()
        .durability(step.durability)
        .preserve_metadata(step.preserve)
        .follow_symlinks(step.follow);
    if let Some(mode) = step.mode {
        options = options.mode(mode);
    }
    let end = || match step.closure {
        Closure::Succeeds => anyhow::Ok(()),
        Closure::Fails => bail!("the closure fails"),
        Closure::Panics => std::panic::resume_unwind(Box::new("the closure panics")),
    };
    let write = |w: &mut Writer| {
        w.write_all(&step.content)?;
        end()
    };
    let result = catch_unwind(AssertUnwindSafe(|| match step.operation {
        Operation::Write => options.write(path, write),
        Operation::Create => options.create(path, write),
        Operation::WriteIfMissing => options.write_if_missing(path, write).map(|_| ()),
        Operation::WriteIfChanged => options.write_if_changed(path, write).map(|_| ()),
        Operation::Update => options.update(path, |old, w| {
            if let Some(old) = old {
                let mut content = Vec::new();
                old.read_to_end(&mut content)?;
                w.write_all(&content)?;
            }
            write(w)
        }),
        Operation::WritePath => options.write_path(path, |path| {
            fs::write(path, &step.content)?;
            end()
        }),
    }));
    matches!(result, Ok(Ok(())))
}

fn build(model: &Model, directory: &Path) {
    for (name, node) in model {
        let path = directory.join(name);
        match node {
            Node::File { content, mode } => {
                fs::write(&path, content).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Node::Directory => fs::create_dir(&path).unwrap(),
            Node::Link(target) => symlink(target, &path).unwrap(),
        }
    }
}

/// Everything that is in the directory, by whatever name.
fn look(directory: &Path) -> Model {
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let known = |path: &Path| NAMES.into_iter().find(|name| Path::new(name) == path);
        let name = known(Path::new(path.file_name().unwrap()))
            .unwrap_or_else(|| panic!("{} is left over", path.display()));
        let node = match metadata.file_type() {
            kind if kind.is_symlink() => Node::Link(known(&fs::read_link(&path).unwrap()).unwrap()),
            kind if kind.is_dir() => Node::Directory,
            _ => Node::File {
                content: fs::read(&path).unwrap(),
                mode: metadata.permissions().mode() & 0o7777,
            },
        };
        (name, node)
    };
    fs::read_dir(directory).unwrap().map(read).collect()
}

fn mode_of_a_new_file() -> u32 {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new");
    fs::write(&path, "").unwrap();
    path.metadata().unwrap().permissions().mode() & 0o7777
}
