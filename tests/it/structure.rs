//! The library's floors: a module uses only its own floor or the ones below, and nothing in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fs_err as fs;
use rstest::rstest;

/// From the bottom to the top. A name is a module at the crate's root, with all below it.
const FLOORS: [&[&str]; 5] = [
    &["hash", "platform"],
    &["settings", "hint", "error", "failure", "options", "reader", "sink", "sparse", "writer"],
    &["protocol"],
    &["operations"],
    &["tokio", "object_store", "guide"],
];

/// A module, by its path below the crate: `protocol::entry`. The platform's implementations inherit
/// from one another as their folders show, and count as one.
fn module_of(file: &Path) -> String {
    let parts: Vec<_> = file.iter().map(|part| part.to_str().unwrap()).collect();
    let name = parts.join("::");
    let name = name.strip_suffix(".rs").unwrap();
    match name.strip_suffix("::mod").unwrap_or(name) {
        name if name.starts_with("platform") => "platform".to_owned(),
        name => name.to_owned(),
    }
}

fn files_below(directory: &Path, base: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, base, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = path.strip_prefix(base).unwrap();
            into.push((module_of(file), fs::read_to_string(&path).unwrap()));
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    files_below(&base, &base, &mut sources);
    sources
        .retain(|(module, _)| !matches!(&**module, "lib" | "main") && !module.starts_with("cli"));
    assert!(sources.len() > 30, "{}", sources.len());
    sources
}

/// Which modules each module names in its code, by `crate::` or `super::`.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources();
    let modules: BTreeSet<String> = sources.iter().map(|(module, _)| module.clone()).collect();
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, text) in &sources {
        let used = imports.entry(module.clone()).or_default();
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let from_root = line.split("crate::").skip(1).map(str::to_owned);
            let from_parent = line.split("super::").skip(1).map(|rest| format!("{parent}::{rest}"));
            for path in from_root.chain(from_parent.filter(|_| module != "platform")) {
                let path: String =
                    path.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
                let named = modules.iter().filter(|name| {
                    path.strip_prefix(&***name).is_some_and(|r| r.is_empty() || r.starts_with("::"))
                });
                used.extend(
                    named.max_by_key(|name| name.len()).filter(|name| *name != module).cloned(),
                );
            }
        }
    }
    imports
}

fn floor_of(module: &str) -> usize {
    let root = module.split("::").next().unwrap();
    let floor = FLOORS.iter().position(|floor| floor.contains(&root));
    floor.unwrap_or_else(|| panic!("`{module}` stands on no floor"))
}

#[rstest]
fn no_module_uses_one_of_a_higher_floor() {
    let imports = imports();
    assert!(imports["operations::write"].contains("protocol::output"), "{imports:?}");
    for (module, used) in &imports {
        let higher: Vec<_> = used.iter().filter(|used| floor_of(used) > floor_of(module)).collect();
        assert!(higher.is_empty(), "`{module}` uses {higher:?}");
    }
}

#[rstest]
fn no_modules_use_each_other_in_a_circle() {
    let mut left = imports();
    // Takes away, again and again, the modules that use none of those that are left.
    loop {
        let names: BTreeSet<_> = left.keys().cloned().collect();
        let free: Vec<_> = left
            .iter()
            .filter(|(_, used)| used.is_disjoint(&names))
            .map(|(name, _)| name.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        left.retain(|name, _| !free.contains(name));
    }
    assert!(left.is_empty(), "in circles, or above one: {left:#?}");
}
