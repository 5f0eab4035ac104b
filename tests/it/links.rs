//! The links in the repository's Markdown: every file and every heading that they name is there.
//! Nothing is fetched.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rstest::rstest;

/// Links that must be absolute, because crates.io and docs.rs show the page without the repository, are
/// looked up here.
const OWN: [&str; 3] = [
    "https://github.com/write-atomically/write-atomically/blob/main/",
    "https://github.com/write-atomically/write-atomically/tree/main/",
    "https://raw.githubusercontent.com/write-atomically/write-atomically/main/",
];

/// Where docs.rs shows the guide.
const GUIDE: &str = "https://docs.rs/write-atomically/latest/write_atomically/guide/";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            pages(&path, into);
        } else if name.ends_with(".md") {
            into.push(path);
        }
    }
}

/// The page's lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// What is between backticks is no link.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The targets of `[text](target)`, `![text](target)` and `[text]: target`.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(text).map(without_code) {
        for rest in line.split("](").skip(1) {
            links.extend(rest.split_once(')').map(|(target, _)| target.to_owned()));
        }
        if let Some((_, target)) = line.split_once("]: ").filter(|_| line.starts_with('[')) {
            if !line.starts_with("[^") {
                links.push(target.trim().to_owned());
            }
        }
    }
    links
}

/// A heading's anchor, as GitHub and rustdoc make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchors = headings.map(|line| {
        let anchor = anchor(line.trim_start_matches('#').trim());
        let nth = seen.entry(anchor.clone()).or_default();
        *nth += 1;
        match nth {
            1 => anchor,
            _ => format!("{anchor}-{}", *nth - 1),
        }
    });
    anchors.collect()
}

/// Where a link leads, and the heading there; `None` if that is not for this test to say.
fn resolve(page: &Path, link: &str) -> Option<(PathBuf, Option<String>)> {
    let (target, heading) = match link.split_once('#') {
        Some((target, heading)) => (target, Some(heading.to_owned())),
        None => (link, None),
    };
    if let Some(own) = OWN.iter().find_map(|own| target.strip_prefix(own)) {
        // A package has not all of the repository.
        return root().join("CONTRIBUTING.md").exists().then(|| (root().join(own), heading));
    }
    if let Some(page) = target.strip_prefix(GUIDE).and_then(|page| page.strip_suffix('/')) {
        return Some((root().join("src/guide").join(page).with_extension("md"), heading));
    }
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    if let Some(sibling) = target.strip_prefix("super::") {
        let guide = page.parent().unwrap();
        return Some((guide.join(sibling).with_extension("md"), heading));
    }
    // rustdoc checks those.
    if target.contains("::") {
        return None;
    }
    let file = match target {
        "" => page.to_owned(),
        _ => page.parent().unwrap().join(target),
    };
    Some((file, heading))
}

fn broken(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let resolved = links(&text).into_iter().filter_map(|link| {
        let (file, heading) = resolve(page, &link)?;
        if !file.exists() {
            return Some(format!("{link}: there is no {}", file.display()));
        }
        let heading = heading?;
        let is_there = anchors(&fs::read_to_string(&file).unwrap()).contains(&heading);
        (!is_there).then(|| format!("{link}: {} has no such heading", file.display()))
    });
    resolved.collect()
}

#[rstest]
fn every_link_leads_somewhere() {
    let mut all = Vec::new();
    pages(root(), &mut all);
    assert!(all.iter().any(|page| page.ends_with("README.md")), "{all:?}");
    let wrong: Vec<_> = all
        .iter()
        .map(|page| (page.strip_prefix(root()).unwrap(), broken(page)))
        .filter(|(_, broken)| !broken.is_empty())
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[rstest]
#[case::a_link("see [a](b.md).", &["b.md"])]
#[case::two("[a](b.md), ![c](d.svg)", &["b.md", "d.svg"])]
#[case::over_there("[a]: https://example.org/", &["https://example.org/"])]
#[case::in_code("`[a](b.md)` [`c`](d.md)", &["d.md"])]
#[case::in_a_block("```\n[a](b.md)\n```\n[c](d.md)", &["d.md"])]
#[case::a_footnote("[^a]: words", &[])]
fn links_are_found(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(links(text), expected);
}

#[rstest]
#[case::nothing_there("[a](missing.md)")]
#[case::no_such_heading("# One\n[a](#two)")]
#[case::no_such_page_of_the_guide("[a](super::nothing)")]
fn a_link_that_leads_nowhere_is_found(#[case] text: &str) {
    let directory = crate::support::Directory::new();
    let page = directory.join("page.md");
    fs::write(&page, text).unwrap();
    assert_eq!(broken(&page).len(), 1, "{text}");
}

#[rstest]
#[case("What it costs", "what-it-costs")]
#[case("`w` has been moved", "w-has-been-moved")]
#[case("Windows, without `unsafe`", "windows-without-unsafe")]
fn anchors_are_made_as_the_sites_make_them(#[case] heading: &str, #[case] expected: &str) {
    assert_eq!(anchor(heading), expected);
}
