//! Compares ways to write a file whole. `benches/README.md` explains how to read the results.

mod batches;
mod calls;
mod contenders;
mod copy;
mod floor;
mod measure;
mod operations;
mod parts;
mod results;
mod tables;
mod windows;

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use operations::Effort;
use results::Results;
use std::path::{Path, PathBuf};
use std::time::Duration;

const USAGE: &str = "\
compare DIR [--out FILE.tsv] [--rounds N] [--limit SECONDS] [--only PART,…]
    measures in DIR; operations that FILE.tsv has already are replaced. Parts:
    small, streams, pieces, copies, threads, directories, batches
compare tables FILE.tsv…                              prints the tables of results, in Markdown
compare headline RESULTS README.md [--check]          writes (or checks) the README's table
compare parts DIR [ROUNDS]                            what each call of the protocol costs
compare windows DIR [MIB] [ROUNDS] [copied|computed]  which buffer and window suit a stream";

const PARTS: &str = "small,streams,pieces,copies,threads,directories,batches";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [] | ["--help"] => println!("{USAGE}"),
        ["traced", ..] => calls::traced(&args[1..]),
        ["tables", first, ..] if !first.is_empty() => tables::print(&args[1..])?,
        ["headline", results, readme] => {
            tables::headline(Path::new(results), Path::new(readme), false)?;
        }
        ["headline", results, readme, "--check"] => {
            tables::headline(Path::new(results), Path::new(readme), true)?;
        }
        ["parts", dir, ref rest @ ..] => {
            parts::run(&fs::canonicalize(dir)?, number(rest.first(), 200)?);
        }
        ["windows", dir, ref rest @ ..] => {
            let (mib, rounds) = (number(rest.first(), 512)?, number(rest.get(1), 8)?);
            let computed = rest.get(2) == Some(&"computed");
            windows::run(&fs::canonicalize(dir)?, mib as u64, rounds, computed);
        }
        ["tables" | "headline" | "parts" | "windows", ..] => bail!("usage:\n{USAGE}"),
        [dir, ref options @ ..] => compare(&fs::canonicalize(dir)?, options)?,
    }
    Ok(())
}

fn number(arg: Option<&&str>, default: usize) -> Result<usize> {
    arg.map_or(Ok(default), |arg| {
        arg.parse().with_context(|| format!("{arg} is not a number. Usage:\n{USAGE}"))
    })
}

fn compare(dir: &Path, options: &[&str]) -> Result<()> {
    let mut out = PathBuf::from("comparison.tsv");
    let mut effort = Effort { rounds: 200, limit: Duration::from_secs(120) };
    let mut only = PARTS;
    for pair in options.chunks(2) {
        match pair {
            ["--out", value] => out = value.into(),
            ["--rounds", value] => effort.rounds = number(Some(value), 0)?,
            ["--limit", value] => {
                effort.limit = Duration::from_secs(number(Some(value), 0)? as u64)
            }
            ["--only", value] => only = value,
            _ => bail!("usage:\n{USAGE}"),
        }
    }
    let (filesystem, machine) = (filesystem(dir), machine()?);
    let mut results = if out.exists() {
        let results = Results::read(&out)?;
        // Times of different machines must not stand in one file.
        ensure!(
            (&results.filesystem, &results.machine) == (&filesystem, &machine),
            "{} has results of {} on another machine or filesystem: {}",
            out.display(),
            results.filesystem,
            results.machine
        );
        results
    } else {
        Results { filesystem, machine, rows: Vec::new() }
    };
    for part in only.split(',') {
        match part {
            "small" => operations::small(dir, effort, &mut results),
            "streams" => operations::streams(dir, effort, &mut results),
            "copies" => operations::copies(dir, effort, &mut results),
            "pieces" => operations::pieces(dir, effort, &mut results),
            "threads" => operations::threads(dir, effort, &mut results),
            "directories" => operations::directories(dir, effort, &mut results),
            "batches" => batches::run(dir, effort, &mut results),
            other => bail!("there is no part {other}. Usage:\n{USAGE}"),
        }
        operations::clean(dir);
        // After each part, so that an interrupted run keeps the parts before.
        results.write(&out)?;
    }
    print!("{}", tables::all(&results));
    Ok(())
}

fn filesystem(dir: &Path) -> String {
    output_of("stat", &["-f", "-c", "%T", &dir.to_string_lossy()]).replace("ext2/ext3", "ext4")
}

/// Kernel, processor and compiler, which every time depends on.
fn machine() -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let cpu = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or("?");
    let cores = std::thread::available_parallelism()?;
    Ok(format!(
        "Linux {}, {cores} cores of {cpu}, {}",
        output_of("uname", &["-r"]),
        output_of("rustc", &["--version"])
    ))
}

/// What a command prints, or `?` if it cannot be run.
pub fn output_of(command: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(command).args(args).output();
    output.map_or("?".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
