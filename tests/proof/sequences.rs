//! Any sequence of operations, options and failures, from any state of a directory, against a model of
//! what the directory must look like after each.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::bail;
use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use proptest::prelude::*;
use write_atomically::{Durability, WriteOptions, Writer};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// The one entry that a directory may have.
const BELOW: &str = "below";

/// A directory: what each name leads to.
type Model = BTreeMap<&'static str, Node>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File(File),
    Directory { mode: u32, below: Option<File> },
    Link(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    content: Vec<u8>,
    mode: u32,
    acl: Option<Vec<u8>>,
}

/// Where links have led to: a name, or the entry of the directory of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    name: &'static str,
    below: bool,
}

#[derive(Clone, Debug)]
struct Step {
    operation: Operation,
    name: &'static str,
    /// Not the name itself is written, but an entry in it.
    below: bool,
    content: Vec<u8>,
    options: Options,
    closure: Closure,
}

#[derive(Clone, Debug)]
struct Options {
    mode: Option<u32>,
    preserve: bool,
    follow: bool,
    parents: bool,
    keep: Option<&'static str>,
    durability: Durability,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Write,
    Create,
    WriteIfMissing,
    WriteIfChanged,
    Update,
    WritePath,
    WriteDirectory,
    /// Of this name, too.
    Batch(&'static str),
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
    let directory = (proptest::sample::select(&[0o700, 0o750, 0o755][..]), option(file()));
    prop_oneof![
        4 => file().prop_map(Node::File),
        2 => directory.prop_map(|(mode, below)| Node::Directory { mode, below }),
        2 => name().prop_map(Node::Link),
    ]
}

fn file() -> impl Strategy<Value = File> {
    let acl = prop_oneof![3 => Just(None), 1 => mode().prop_map(Some)];
    (content(), mode(), acl).prop_map(|(content, mode, acl)| match acl {
        None => File { content, mode, acl: None },
        // acl(5): the group bits are the mask.
        Some(entries) => File { content, mode: entries | 0o040, acl: Some(acl_of(entries)) },
    })
}

/// What linux/posix_acl_xattr.h says: these permissions, and one more user who may read.
fn acl_of(mode: u32) -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    let [owner, group, other] = [6, 3, 0].map(|shift| (mode >> shift & 7) as u16);
    let entries = [
        (1, owner, NO_ID),
        (2, 4, 1234),
        (4, group, NO_ID),
        (16, group | 4, NO_ID),
        (32, other, NO_ID),
    ];
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        acl.extend(u16::to_le_bytes(tag));
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// Few enough to meet the same content again, and some that do not fit the buffer.
fn content() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![Just(0), Just(5), Just(70_000)], 0..3_u8).prop_map(|(n, byte)| vec![byte; n])
}

fn mode() -> impl Strategy<Value = u32> {
    proptest::sample::select(&[0o600, 0o640, 0o644, 0o755][..])
}

fn option<T: std::fmt::Debug>(some: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    proptest::option::weighted(0.3, some)
}

fn step() -> impl Strategy<Value = Step> {
    use Operation::*;
    let operations =
        [Write, Create, WriteIfMissing, WriteIfChanged, Update, WritePath, WriteDirectory];
    let operation = prop_oneof![
        7 => proptest::sample::select(operations.to_vec()),
        1 => name().prop_map(Batch),
    ];
    let durabilities = [Durability::Durable, Durability::Consistent, Durability::Relaxed];
    let durability = proptest::sample::select(durabilities.to_vec());
    let options =
        (option(mode()), any::<bool>(), any::<bool>(), any::<bool>(), option(name()), durability);
    let options = options.prop_map(|(mode, preserve, follow, parents, keep, durability)| Options {
        mode,
        preserve,
        follow,
        parents,
        keep,
        durability,
    });
    let closure = prop_oneof![3 => Just(Closure::Succeeds), 1 => Just(Closure::Fails), 1 => Just(Closure::Panics)];
    (operation, name(), proptest::bool::weighted(0.3), content(), options, closure).prop_map(
        |(operation, name, below, content, options, closure)| {
            let below = below && operation != WriteDirectory;
            Step { operation, name, below, content, options, closure }
        },
    )
}

/// Some, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..Default::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 300;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_directory_looks_as_the_model_says(before in model(), steps in proptest::collection::vec(step(), 1..8)) {
        let directory = tempfile::tempdir().unwrap();
        let mut model = before;
        build(&mut model, directory.path());
        let new = New::find();
        for step in &steps {
            let expected = expect(&mut model, step, &new);
            let succeeded = perform(step, directory.path());
            prop_assert_eq!(&look(directory.path()), &model, "after {:?}", step);
            prop_assert_eq!(succeeded, expected, "{:?}", step);
        }
    }
}

/// What the step does to the model, and whether it succeeds.
fn expect(model: &mut Model, step: &Step, new: &New) -> bool {
    match step.operation {
        Operation::WriteDirectory => expect_directory(model, step, new),
        Operation::Batch(other) => expect_batch(model, step, other, new),
        _ => expect_file(model, step, new),
    }
}

fn expect_file(model: &mut Model, step: &Step, new: &New) -> bool {
    let Some(place) = locate(model, step) else { return false };
    let there = get(model, place);
    match (step.operation, &there) {
        (Operation::WriteIfMissing, Some(_)) => return true,
        (Operation::Create, Some(_)) | (_, Some(Node::Directory { .. })) => return false,
        // What it would read is not there to be followed.
        (Operation::Update, Some(Node::Link(_))) => return false,
        _ => {}
    }
    let Some(keep) = locate_kept(model, step, place) else { return false };
    let mut written = step.content.clone();
    if let (Operation::Update, Some(Node::File(old))) = (step.operation, &there) {
        written = [&old.content[..], &step.content].concat();
    }
    if step.closure != Closure::Succeeds {
        put_kept(model, keep, written, &there, step, new);
        return false;
    }
    match &there {
        Some(Node::File(old))
            if step.operation == Operation::WriteIfChanged && old.content == written => {}
        _ => put(model, place, published(written, &there, step, new), new),
    }
    true
}

fn expect_directory(model: &mut Model, step: &Step, new: &New) -> bool {
    let Some(place) = locate(model, step) else { return false };
    let there = get(model, place);
    // Only a file can be kept.
    if matches!(there, Some(Node::File(_))) || step.options.keep.is_some() {
        return false;
    }
    if step.closure != Closure::Succeeds {
        return false;
    }
    let mode = match (there, step.options.mode) {
        (_, Some(mode)) => mode | SEARCHABLE,
        (Some(Node::Directory { mode, .. }), None) if step.options.preserve => mode,
        _ => new.directory_mode,
    };
    let below = Some(File { content: step.content.clone(), mode: new.mode, acl: None });
    model.insert(place.name, Node::Directory { mode, below });
    true
}

fn expect_batch(model: &mut Model, step: &Step, other: &'static str, new: &New) -> bool {
    let other = Step { name: other, below: false, ..step.clone() };
    let mut published_later = Vec::new();
    for step in [step, &other] {
        let Some(place) = locate(model, step) else { return false };
        let there = get(model, place);
        let is_twice = published_later.iter().any(|(earlier, _)| *earlier == place);
        if is_twice || matches!(there, Some(Node::Directory { .. })) {
            return false;
        }
        let Some(keep) = locate_kept(model, step, place) else { return false };
        if step.closure != Closure::Succeeds {
            put_kept(model, keep, step.content.clone(), &there, step, new);
            return false;
        }
        published_later.push((place, published(step.content.clone(), &there, step, new)));
    }
    for (place, file) in published_later {
        // It was made for the one before.
        if matches!(get(model, place), Some(Node::Directory { .. })) {
            return false;
        }
        put(model, place, file, new);
    }
    true
}

fn published(content: Vec<u8>, there: &Option<Node>, step: &Step, new: &New) -> File {
    match (there, step.options.mode) {
        (_, Some(mode)) => File { content, mode, acl: None },
        (Some(Node::File(old)), None) if step.options.preserve => File { content, ..old.clone() },
        _ => File { content, mode: new.mode, acl: None },
    }
}

/// What is kept of a failure is as a new file, and shows nobody more than the destination does. What
/// the old group may do can't be told from what an ACL allows at most.
fn put_kept(
    model: &mut Model,
    keep: Option<Place>,
    content: Vec<u8>,
    there: &Option<Node>,
    step: &Step,
    new: &New,
) {
    let Some(place) = keep else { return };
    let mut mode = new.mode;
    if let Some(Node::File(old)) = there {
        let others = old.mode & 0o007;
        mode &= 0o600 | old.mode & (0o700 | others << 3 | others);
    }
    if let Some(exact) = step.options.mode {
        mode &= 0o600 | exact;
    }
    put(model, place, File { content, mode, acl: None }, new);
}

fn locate(model: &Model, step: &Step) -> Option<Place> {
    if step.below {
        let name = resolve(model, step.name)?;
        let may_be_made = step.options.parents && name == step.name;
        return match model.get(name) {
            Some(Node::Directory { .. }) => Some(Place { name, below: true }),
            None if may_be_made => Some(Place { name, below: true }),
            _ => None,
        };
    }
    let follow = step.options.follow && step.operation != Operation::Create;
    let name = if follow { resolve(model, step.name)? } else { step.name };
    Some(Place { name, below: false })
}

/// Where a failure is to be kept, if anywhere; unless that is impossible.
fn locate_kept(model: &Model, step: &Step, destination: Place) -> Option<Option<Place>> {
    let Some(name) = step.options.keep else { return Some(None) };
    let place = Place { name: resolve(model, name)?, below: false };
    let is_directory = matches!(get(model, place), Some(Node::Directory { .. }));
    (place != destination && !is_directory).then_some(Some(place))
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

fn get(model: &Model, place: Place) -> Option<Node> {
    match (model.get(place.name), place.below) {
        (node, false) => node.cloned(),
        (Some(Node::Directory { below, .. }), true) => below.clone().map(Node::File),
        _ => None,
    }
}

fn put(model: &mut Model, place: Place, file: File, new: &New) {
    let node = match (place.below, model.get(place.name)) {
        (false, _) => Node::File(file),
        (true, Some(Node::Directory { mode, .. })) => {
            Node::Directory { mode: *mode, below: Some(file) }
        }
        (true, _) => Node::Directory { mode: new.directory_mode, below: Some(file) },
    };
    model.insert(place.name, node);
}

/// What the test must be able to do to look at a directory.
const SEARCHABLE: u32 = 0o700;

fn perform(step: &Step, directory: &Path) -> bool {
    let mut path = directory.join(step.name);
    if step.below {
        path.push(BELOW);
    }
    let options = options(step, directory);
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
        Operation::WriteDirectory => options.write_dir(path, |path| {
            fs::write(path.join(BELOW), &step.content)?;
            end()
        }),
        Operation::Batch(other) => options.write_batch(|batch| {
            batch.write(path, write)?;
            batch.write(directory.join(other), write)
        }),
    }));
    matches!(result, Ok(Ok(())))
}

fn options(step: &Step, directory: &Path) -> WriteOptions<anyhow::Error> {
    let Options { mode, preserve, follow, parents, keep, durability } = step.options.clone();
    let mut options = WriteOptions::new()
        .anyhow()
        .durability(durability)
        .preserve_metadata(preserve)
        .follow_symlinks(follow)
        .create_parents(parents);
    if let Some(mode) = mode {
        let searchable = if step.operation == Operation::WriteDirectory { SEARCHABLE } else { 0 };
        options = options.mode(mode | searchable);
    }
    if let Some(name) = keep {
        options = options.keep_failed(directory.join(name));
    }
    options
}

/// Where there are no ACLs, the model has none, either.
fn build(model: &mut Model, directory: &Path) {
    for (name, node) in model {
        let path = directory.join(name);
        match node {
            Node::File(file) => build_file(file, &path),
            Node::Directory { mode, below } => {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
                below.iter_mut().for_each(|file| build_file(file, &path.join(BELOW)));
            }
            Node::Link(target) => symlink(target, &path).unwrap(),
        }
    }
}

fn build_file(file: &mut File, path: &Path) {
    fs::write(path, &file.content).unwrap();
    fs::set_permissions(path, std::fs::Permissions::from_mode(file.mode)).unwrap();
    if file.acl.as_ref().is_some_and(|acl| !acls::set(path, acl)) {
        file.acl = None;
    }
}

/// Everything that is in the directory, by whatever name.
fn look(directory: &Path) -> Model {
    let known = |path: &Path| {
        let known = NAMES.into_iter().find(|name| Path::new(name) == path);
        known.unwrap_or_else(|| panic!("{} is left over", path.display()))
    };
    let node = |path: &Path| {
        let metadata = path.symlink_metadata().unwrap();
        match metadata.file_type() {
            kind if kind.is_symlink() => Node::Link(known(&fs::read_link(path).unwrap())),
            kind if kind.is_dir() => {
                let mut below = entries(path);
                let file = below.iter().position(|path| path.ends_with(BELOW));
                let file = file.map(|n| look_at_file(&below.swap_remove(n)));
                assert!(below.is_empty(), "{below:?} is left over");
                Node::Directory { mode: mode_of(path), below: file }
            }
            _ => Node::File(look_at_file(path)),
        }
    };
    entries(directory)
        .iter()
        .map(|path| (known(Path::new(path.file_name().unwrap())), node(path)))
        .collect()
}

fn look_at_file(path: &Path) -> File {
    File { content: fs::read(path).unwrap(), mode: mode_of(path), acl: acls::get(path) }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn mode_of(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// What new files and directories get.
struct New {
    mode: u32,
    directory_mode: u32,
}

impl New {
    fn find() -> New {
        let directory = tempfile::tempdir().unwrap();
        let [file, below] = ["file", "directory"].map(|name| directory.path().join(name));
        fs::write(&file, "").unwrap();
        fs::create_dir(&below).unwrap();
        New { mode: mode_of(&file), directory_mode: mode_of(&below) }
    }
}

#[cfg(target_os = "linux")]
mod acls {
    use std::path::Path;

    const ACCESS: &str = "system.posix_acl_access";

    /// Whether there are ACLs here.
    pub fn set(path: &Path, acl: &[u8]) -> bool {
        rustix::fs::setxattr(path, ACCESS, acl, rustix::fs::XattrFlags::empty()).is_ok()
    }

    pub fn get(path: &Path) -> Option<Vec<u8>> {
        let mut acl = [0; 256];
        let length = rustix::fs::getxattr(path, ACCESS, &mut acl[..]).ok()?;
        Some(acl[..length].to_vec())
    }
}

#[cfg(not(target_os = "linux"))]
mod acls {
    use std::path::Path;

    pub fn set(_: &Path, _: &[u8]) -> bool {
        false
    }

    pub fn get(_: &Path) -> Option<Vec<u8>> {
        None
    }
}
