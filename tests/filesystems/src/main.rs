//! What holds on a filesystem: every operation, and what may happen to it, on real mounts.
//!
//! ```text
//! filesystems check NAME DIRECTORY [OTHER_VIEW]   one line for each check: NAME, operation, what holds
//! filesystems table RESULTS                       those lines as a Markdown table
//! ```
//!
//! `OTHER_VIEW` is the same directory by another mount. `WRITE_ATOMICALLY` is the command's path. The
//! status is 1 if a promise does not hold.

mod check;
mod child;
mod operation;
mod report;
mod scratch;
mod views;

use std::env;
use std::path::Path;
use std::process::exit;

use anyhow::{Context, Result, bail};

use crate::report::Report;
use crate::scratch::Scratch;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["check", name, directory] => check(name, Path::new(directory), None),
        ["check", name, directory, view] => {
            check(name, Path::new(directory), Some(Path::new(view)))
        }
        ["table", results] => report::print_table(&fs_err::read_to_string(results)?),
        ["child", what, rest @ ..] => child::run(what, rest),
        _ => bail!("usage: filesystems check NAME DIRECTORY [OTHER_VIEW] | table RESULTS"),
    }
}

fn check(name: &str, directory: &Path, view: Option<&Path>) -> Result<()> {
    let mounts: Vec<&Path> = [Some(directory), view].into_iter().flatten().collect();
    let mut report = Report::new(name, &mounts);
    let scratch = Scratch::new(directory, view).with_context(|| format!("{name} can't be used"))?;
    for operation in operation::ALL {
        check::operation(&scratch, operation, &mut report);
    }
    check::together(&scratch, &mut report);
    if view.is_some() {
        views::all(&scratch, &mut report);
    }
    exit(if report.has_violations { 1 } else { 0 })
}
