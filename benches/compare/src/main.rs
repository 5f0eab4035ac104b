//! Compares ways to write a file whole, in one run. `benches/README.md` tells how to read it.

mod calls;
mod contenders;
mod copy;
#[path = "../../floor/mod.rs"]
mod floor;
mod headlines;
mod measure;
mod operations;
mod parts;
mod report;
mod windows;

use operations::Effort;
use report::Report;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

const USAGE: &str = "\
compare DIR [--out FILE.md] [--rounds N] [--limit SECONDS] [--only small,streams,pieces,copies,threads,directories]
compare parts DIR [ROUNDS]                            what each call of the protocol costs
compare headlines RESULTS README.md                   writes the headlines of a run
compare windows DIR [MIB] [ROUNDS] [copied|computed]  which buffer and window suit a stream";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let or =
        |at: usize, default: usize| args.get(at).map_or(default, |arg| arg.parse().expect(USAGE));
    match args.first().map(String::as_str) {
        None | Some("--help") => println!("{USAGE}"),
        Some("traced") => calls::traced(&args[1..]),
        Some("parts") => parts::run(&directory(&args[1]), or(2, 200)),
        Some("headlines") => headlines::run(Path::new(&args[1]), Path::new(&args[2])),
        Some("windows") => {
            let computed = args.get(4).is_some_and(|arg| arg == "computed");
            windows::run(&directory(&args[1]), or(2, 512) as u64, or(3, 8), computed);
        }
        Some(dir) => compare(&directory(dir), &args[1..]),
    }
}

fn directory(dir: &str) -> PathBuf {
    Path::new(dir).canonicalize().unwrap_or_else(|error| panic!("{dir}: {error}"))
}

fn compare(dir: &Path, args: &[String]) {
    let mut out = PathBuf::from("comparison.md");
    let mut effort = Effort { rounds: 200, limit: Duration::from_secs(120) };
    let mut only: Vec<String> = ["small", "streams", "pieces", "copies", "threads", "directories"]
        .map(String::from)
        .to_vec();
    for pair in args.chunks(2) {
        match pair {
            [flag, value] if flag == "--out" => out = value.into(),
            [flag, value] if flag == "--rounds" => effort.rounds = value.parse().expect(USAGE),
            [flag, value] if flag == "--limit" => {
                effort.limit = Duration::from_secs(value.parse().expect(USAGE))
            }
            [flag, value] if flag == "--only" => {
                only = value.split(',').map(String::from).collect()
            }
            _ => panic!("{USAGE}"),
        }
    }
    let mut report = Report {
        markdown: File::create(&out).unwrap(),
        values: File::create(out.with_extension("tsv")).unwrap(),
    };
    report.line(&format!("# {}\n\n{}", filesystem(dir), machine()));
    for part in &only {
        match part.as_str() {
            "small" => operations::small(dir, effort, &mut report),
            "streams" => operations::streams(dir, effort, &mut report),
            "copies" => operations::copies(dir, effort, &mut report),
            "pieces" => operations::pieces(dir, effort, &mut report),
            "threads" => operations::threads(dir, effort, &mut report),
            "directories" => operations::directories(dir, effort, &mut report),
            other => panic!("{other}?\n{USAGE}"),
        }
        operations::clean(dir);
    }
}

fn filesystem(dir: &Path) -> String {
    let output = std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(dir).output();
    output.map_or("?".into(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().replace("ext2/ext3", "ext4")
    })
}

/// The machine and the day, which every number needs beside it.
fn machine() -> String {
    let line = |command: &str, args: &[&str]| {
        let output = std::process::Command::new(command).args(args).output();
        output
            .map_or("?".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}, Linux {}, {cores} cores of {cpu}, {}.",
        line("date", &["+%F"]),
        line("uname", &["-r"]),
        line("rustc", &["--version"])
    )
}
