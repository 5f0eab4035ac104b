//! What was found, as lines of three fields, and as a table.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    /// An error before the closure ran, and why.
    Refused(String),
    /// It holds as far as the documentation says; this is what does not.
    Documented(String),
    Violation(String),
}

impl Verdict {
    /// Worse ones win.
    pub fn and(self, other: impl FnOnce() -> Verdict) -> Verdict {
        match self {
            Verdict::Holds => other(),
            Verdict::Documented(first) => match other() {
                Verdict::Holds => Verdict::Documented(first),
                Verdict::Documented(second) if second != first => {
                    Verdict::Documented(format!("{first}; {second}"))
                }
                worse => worse,
            },
            _ => self,
        }
    }

    /// What went wrong in the check itself is a violation, too.
    pub fn of(checked: Result<Verdict>) -> Verdict {
        checked.unwrap_or_else(|error| Verdict::Violation(format!("{error:#}")))
    }
}

pub struct Report {
    filesystem: String,
    /// What is left out of messages, the longest first: where things are mounted.
    mounts: Vec<String>,
    pub has_violations: bool,
}

impl Report {
    pub fn new(filesystem: &str, mounts: &[&Path]) -> Report {
        let mut mounts: Vec<_> =
            mounts.iter().map(|mount| format!("{}/", mount.display())).collect();
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.len()));
        Report { filesystem: filesystem.to_owned(), mounts, has_violations: false }
    }

    pub fn add(&mut self, check: &str, verdict: Verdict) {
        let text = match verdict {
            Verdict::Holds => "holds".to_owned(),
            Verdict::Refused(why) => format!("refused: {why}"),
            Verdict::Documented(what) => format!("but: {what}"),
            Verdict::Violation(what) => {
                self.has_violations = true;
                format!("VIOLATION: {what}")
            }
        };
        let mut text = text.replace(['\n', '\t'], " ");
        for mount in &self.mounts {
            text = text.replace(mount, "");
        }
        // What `Debug` adds to a chain's last cause.
        let text = text.split(": io::ErrorKind::").next().unwrap_or_default();
        println!("{}\t{check}\t{text}", self.filesystem);
    }
}

/// One row a filesystem, one column a check, in the order in which they come; below it, what a cell's
/// number means.
pub fn print_table(results: &str) -> Result<()> {
    let (mut filesystems, mut checks) = (Vec::new(), Vec::new());
    let mut cells = BTreeMap::new();
    for line in results.lines() {
        let mut fields = line.splitn(3, '\t');
        let mut next = || fields.next().context("a result has three fields");
        let (filesystem, check, text) = (next()?, next()?, next()?);
        if !filesystems.contains(&filesystem) {
            filesystems.push(filesystem);
        }
        if !checks.contains(&check) && check != "skipped" {
            checks.push(check);
        }
        cells.insert((filesystem, check), text);
    }
    println!("| filesystem | {} |", checks.join(" | "));
    println!("| --- |{}", " --- |".repeat(checks.len()));
    let mut notes: Vec<&str> = Vec::new();
    for filesystem in filesystems {
        if let Some(why) = cells.get(&(filesystem, "skipped")) {
            println!(
                "| {filesystem} | not tested: {why} |{}",
                " |".repeat(checks.len().saturating_sub(1))
            );
            continue;
        }
        let mut row = Vec::new();
        for check in &checks {
            row.push(match cells.get(&(filesystem, *check)) {
                None => "–".to_owned(),
                Some(&"holds") => "yes".to_owned(),
                Some(text) => {
                    let known = notes.iter().position(|note| note == text);
                    let number = known.unwrap_or_else(|| {
                        notes.push(text);
                        notes.len() - 1
                    });
                    let word = match *text {
                        text if text.starts_with("refused") => "refused",
                        text if text.starts_with("but") => "yes, but",
                        _ => "**no**",
                    };
                    format!("{word} ({})", number + 1)
                }
            });
        }
        println!("| {filesystem} | {} |", row.join(" | "));
    }
    println!();
    for (number, note) in notes.iter().enumerate() {
        println!("{}. {note}", number + 1);
    }
    Ok(())
}
