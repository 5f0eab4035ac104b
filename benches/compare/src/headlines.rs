//! The rows that matter, out of all tables, into the README; and, so that none is overlooked, those
//! that are lost.

use crate::contenders::Who;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const BEGIN: &str = "<!-- headlines: written by `compare headlines` -->\n";
const END: &str = "<!-- end of headlines -->";

const OPERATIONS: [&str; 14] = [
    "Durable replace of 4 KiB",
    "Durable create of 4 KiB",
    "Consistent replace of 4 KiB",
    "Consistent create of 4 KiB",
    "Relaxed replace of 4 KiB",
    "Relaxed create of 4 KiB",
    "Durable replace of 1 MiB",
    "Durable replace by a stream of 512 MiB, copied only",
    "Durable replace by a stream of 512 MiB, computed on the way",
    "Relaxed replace by a stream of 512 MiB, copied only",
    "Durable replace by 10 million writes of 10 bytes",
    "Durable replace of 4 KiB by 4 threads: time for each file",
    "Durable replace of 4 KiB by 16 threads: time for each file",
    "Relaxed replace of 4 KiB by 16 threads: time for each file",
];

const COLUMNS: [Who; 9] = [
    Who::FloorAgain,
    Who::FloorRange,
    Who::Ours,
    Who::Tempfile,
    Who::AtomicWrites,
    Who::AtomicWriteFile,
    Who::AtomicWriteFileUnnamed,
    Who::WriteAtomic,
    Who::CapStdExt,
];

/// Slower than this is lost, unless the run's own noise is larger.
const TIE: f64 = 1.03;

/// How far the floor and its twin may be apart, in lower quartiles, for a row to mean anything.
const NOISE: f64 = 1.15;

/// In seconds. The lower quartile is what a busy machine disturbs least.
#[derive(Clone, Copy)]
struct Times {
    median: f64,
    low: f64,
}

impl Times {
    fn to(self, other: Times) -> (f64, f64) {
        (self.median / other.median, self.low / other.low)
    }
}

/// Operation, then contender.
type Run = BTreeMap<String, BTreeMap<String, Times>>;

pub fn run(results: &Path, readme: &Path) {
    let mut text = String::new();
    for fs in ["ext4", "xfs", "btrfs", "tmpfs", "disk"] {
        let Ok(values) = std::fs::read_to_string(results.join(fs).with_extension("tsv")) else {
            continue;
        };
        let markdown = std::fs::read_to_string(results.join(fs).with_extension("md")).unwrap();
        let run = parse(&values);
        let mut lines = markdown.lines();
        let kind = lines.next().unwrap().trim_start_matches("# ");
        let title = if fs == kind { fs.to_owned() } else { format!("{fs} ({kind})") };
        writeln!(text, "### {title}\n\n{}\n", lines.nth(1).unwrap()).unwrap();
        table(&run, &mut text);
        lost(&run, &mut text);
    }
    let old = std::fs::read_to_string(readme).unwrap();
    let (before, rest) = old.split_once(BEGIN).expect("the README has a place for headlines");
    let (_, after) = rest.split_once(END).expect("the place for headlines has an end");
    std::fs::write(readme, format!("{before}{BEGIN}\n{text}{END}{after}")).unwrap();
}

fn parse(values: &str) -> Run {
    let mut run = Run::new();
    for line in values.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let times = Times { median: fields[2].parse().unwrap(), low: fields[3].parse().unwrap() };
        run.entry(fields[0].into()).or_default().insert(fields[1].into(), times);
    }
    run
}

fn is_noise(row: &BTreeMap<String, Times>) -> bool {
    let low = row.get("FloorAgain").map_or(1.0, |again| again.to(row["Floor"]).1);
    low.max(1.0 / low) > NOISE
}

fn table(run: &Run, text: &mut String) {
    let heads: Vec<String> =
        COLUMNS.iter().map(|who| who.name().replace(", again (noise)", ", again")).collect();
    writeln!(text, "| operation | floor | {} |", heads.join(" | ")).unwrap();
    writeln!(text, "| --- | ---: |{}", " ---: |".repeat(COLUMNS.len())).unwrap();
    for operation in OPERATIONS {
        let Some(row) = run.get(operation) else { continue };
        if is_noise(row) {
            let dashes = " – |".repeat(COLUMNS.len());
            writeln!(text, "| {operation} | noise only |{dashes}").unwrap();
            continue;
        }
        let floor = row["Floor"];
        let cell = |times: &Times| {
            let (median, low) = times.to(floor);
            format!("{median:.2} · {low:.2}")
        };
        let cells: Vec<String> = COLUMNS
            .iter()
            .map(|who| row.get(&format!("{who:?}")).map_or("–".into(), cell))
            .collect();
        writeln!(
            text,
            "| {operation} | {} | {} |",
            crate::measure::time(floor.median),
            cells.join(" | ")
        )
        .unwrap();
    }
}

/// Against everyone who gives what was asked for, or more.
fn lost(run: &Run, text: &mut String) {
    writeln!(text, "\nSlower than a peer that gives the same guarantee, or a higher one, by more than 3 % and the run's noise:\n").unwrap();
    let before = text.len();
    for (operation, row) in run.iter().filter(|(operation, _)| !operation.contains("entries")) {
        let Some(ours) = row.get("Ours").filter(|_| !is_noise(row)) else { continue };
        let (median_noise, low_noise) =
            row.get("FloorAgain").map_or((1.0, 1.0), |again| again.to(row["Floor"]));
        let is_slower = |ratio: f64, noise: f64| ratio > TIE.max(noise).max(1.0 / noise);
        let faster: Vec<String> = COLUMNS[3..]
            .iter()
            .filter_map(|who| Some((who, ours.to(*row.get(&format!("{who:?}"))?))))
            .filter(|(_, (median, low))| {
                is_slower(*median, median_noise) || is_slower(*low, low_noise)
            })
            .map(|(who, (median, low))| {
                format!("{} ({median:.2} · {low:.2} ×; keeps {})", who.name(), who.keeps())
            })
            .collect();
        if !faster.is_empty() {
            writeln!(text, "- {operation}: {}", faster.join(", ")).unwrap();
        }
    }
    if text.len() == before {
        writeln!(text, "- none").unwrap();
    }
    writeln!(text).unwrap();
}
