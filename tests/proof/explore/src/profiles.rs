//! Which scenarios are run for how long, side by side, and the table.

use std::collections::VecDeque;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result};

use crate::explorer::{Bounds, Summary};

/// One row of the table: a process of its own, because the explorer forks.
pub struct Job {
    pub scenario: String,
    pub mode: &'static str,
    pub variant: &'static str,
    pub preemptions: usize,
    pub kills: usize,
    pub random: usize,
    pub seconds: usize,
}

const fn job(
    mode: &'static str,
    variant: &'static str,
    preemptions: usize,
    kills: usize,
    seconds: usize,
) -> Job {
    Job { scenario: String::new(), mode, variant, preemptions, kills, random: 0, seconds }
}

impl Job {
    fn of(self, scenario: impl Into<String>) -> Job {
        Job { scenario: scenario.into(), ..self }
    }

    fn random(self, random: usize) -> Job {
        Job { random, ..self }
    }
}

const MODES: [&str; 6] = ["unnamed", "named", "no-links", "no-flags", "hosts", "inodes"];

/// The variants, each where it shows.
pub fn variants() -> Vec<Job> {
    [
        ("no-identity", "named", "write,write@missing", 2),
        ("no-identity", "unnamed", "write,write_path@missing", 2),
        ("sweeps-without-lock", "named", "write,write@missing", 2),
        ("updates-without-lock", "unnamed", "update,update@file", 1),
        ("updates-without-lock", "named", "update,update@file", 1),
        ("no-excl", "named", "write,write@missing+dead=write", 2),
        ("no-excl", "hosts", "write,write@missing", 2),
        ("replaces", "named", "create,create@missing", 2),
    ]
    .into_iter()
    .map(|(variant, mode, scenario, preemptions)| {
        job(mode, variant, preemptions, 0, 20).of(scenario)
    })
    .collect()
}

pub fn ci() -> Vec<Job> {
    let mut jobs = variants();
    for mode in MODES {
        for scenario in [
            "write,write@missing",
            "fail,write@missing",
            "if_missing,if_missing@missing",
            "update,update@file",
        ] {
            jobs.push(job(mode, "real", 2, 0, 8).of(scenario));
        }
        jobs.push(job(mode, "real", 1, 1, 5).of("write,write@file"));
        jobs.push(job(mode, "real", 1, 1, 5).of("if_missing,if_missing@missing"));
    }
    for mode in ["unnamed", "named"] {
        for scenario in pairs(&["missing", "file"]) {
            jobs.push(job(mode, "real", 1, 0, 4).of(scenario).random(50));
        }
        for operation in FILES.iter().chain(&["write_dir"]) {
            let initial = if *operation == "write_dir" { "dir" } else { "file" };
            for (other, initial) in COUNTERPARTS.iter().chain(&[("write_dir", initial)]) {
                let scenario = format!("{operation},{other}@{initial}");
                jobs.push(job(mode, "real", 1, 0, 3).of(scenario));
            }
            for dead in DEAD {
                let scenario = format!("{operation},write@{initial}+dead={dead}");
                jobs.push(job(mode, "real", 1, 0, 3).of(scenario));
            }
            // A kill at each step.
            let scenario = format!("{operation},{operation}@missing");
            jobs.push(job(mode, "real", 0, 1, 4).of(scenario));
        }
        for operation in WITH_PARENTS {
            let scenario = format!("{operation},{operation}@missing+parents");
            jobs.push(job(mode, "real", 1, 1, 4).of(scenario));
        }
    }
    jobs.push(job("named", "real", 3, 0, 12).of("fail,write,write@missing").random(500));
    jobs
}

const FILES: [&str; 8] =
    ["write", "create", "if_missing", "if_changed", "update", "write_path", "batch", "fail"];

const DEAD: [&str; 4] = ["write", "if_missing", "write_path", "write_dir"];

/// What they meet, and where.
const COUNTERPARTS: [(&str, &str); 8] = [
    ("unlink", "file"),
    ("replace", "file"),
    ("chmod", "file"),
    ("read", "file"),
    ("retarget", "file"),
    ("rename_parent", "file"),
    ("rename_parent", "missing"),
    ("write_dir", "missing"),
];

const WITH_PARENTS: [&str; 5] = ["write", "if_missing", "update", "write_path", "write_dir"];

fn pairs(initials: &[&str]) -> Vec<String> {
    let all = FILES.iter().enumerate();
    all.flat_map(|(at, a)| FILES[at..].iter().map(move |b| (a, b)))
        .flat_map(|(a, b)| initials.iter().map(move |initial| format!("{a},{b}@{initial}")))
        .collect()
}

pub fn long() -> Vec<Job> {
    let mut jobs = variants();
    for mode in MODES {
        for scenario in pairs(&["missing", "file"]) {
            jobs.push(job(mode, "real", 2, 0, 120).of(&scenario).random(5000));
            jobs.push(job(mode, "real", 1, 1, 120).of(&scenario));
        }
        for operation in FILES {
            for (with, initial) in COUNTERPARTS {
                let scenario = format!("{operation},{with}@{initial}");
                jobs.push(job(mode, "real", 2, 0, 60).of(&scenario).random(2000));
                jobs.push(job(mode, "real", 1, 1, 60).of(&scenario));
            }
            for dead in DEAD {
                for initial in ["missing", "file"] {
                    let scenario = format!("{operation},write@{initial}+dead={dead}");
                    jobs.push(job(mode, "real", 2, 0, 60).of(&scenario));
                }
            }
        }
        for operation in WITH_PARENTS {
            let scenario = format!("{operation},{operation}@missing+parents");
            jobs.push(job(mode, "real", 2, 1, 60).of(&scenario));
        }
        for initial in ["dir", "missing"] {
            let scenario = format!("write_dir,write_dir@{initial}");
            jobs.push(job(mode, "real", 2, 1, 300).of(&scenario).random(5000));
            for other in ["write", "read", "chmod"] {
                let scenario = format!("write_dir,{other}@{initial}");
                jobs.push(job(mode, "real", 2, 0, 60).of(&scenario));
            }
        }
        jobs.push(job(mode, "real", 2, 0, 60).of("if_changed,if_changed@same"));
        for triple in TRIPLES {
            jobs.push(job(mode, "real", 3, 0, 600).of(triple).random(20_000));
        }
    }
    jobs
}

const TRIPLES: [&str; 12] = [
    "write,write,write@missing",
    "write,write,write@file",
    "fail,write,write@missing",
    "create,create,write@missing",
    "if_missing,if_missing,if_missing@missing",
    "update,update,update@file",
    "update,update,update@missing",
    "write,update,if_missing@missing",
    "write,write_path,if_missing@missing",
    "write,write,unlink@file",
    "write,write,write@file+dead=write",
    "create,if_missing,update@missing",
];

/// One job a processor at a time; says whether all is as it must be.
pub fn run(jobs: &[Job]) -> Result<ExitCode> {
    let queue: Mutex<VecDeque<&Job>> = Mutex::new(jobs.iter().collect());
    let failures: Mutex<Vec<String>> = Mutex::new(Vec::new());
    println!("{HEADER}");
    let processors = thread::available_parallelism()?.get();
    let next = || queue.lock().ok()?.pop_front();
    let fail = |failure: String| {
        if let Ok(mut failures) = failures.lock() {
            failures.push(failure);
        }
    };
    thread::scope(|scope| {
        for processor in 0..processors {
            let (next, fail) = (&next, &fail);
            scope.spawn(move || {
                while let Some(job) = next() {
                    match one(job, processor) {
                        Ok(None) => {}
                        Ok(Some(failure)) => fail(failure),
                        Err(error) => fail(format!("{}: {error:#}", job.scenario)),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    for failure in &failures {
        println!("{failure}");
    }
    Ok(ExitCode::from(u8::from(!failures.is_empty())))
}

fn one(job: &Job, processor: usize) -> Result<Option<String>> {
    let numbers = [job.preemptions, job.kills, job.random, job.seconds, processor];
    let options = ["--preemptions", "--kills", "--random", "--seconds", "--processor"];
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", &job.scenario, job.mode, job.variant]);
    for (option, number) in options.iter().zip(numbers) {
        command.arg(option).arg(number.to_string());
    }
    let output = command.output().context("running a job")?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    let Job { scenario, mode, variant, .. } = job;
    Ok(match (output.status.code(), *variant == "real") {
        (Some(0), true) | (Some(1), false) => None,
        (Some(0), false) => Some(format!("NOT CAUGHT {scenario} {mode} {variant}")),
        (Some(1), true) => Some(format!("VIOLATED {scenario} {mode}")),
        _ => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            Some(format!("FAILED {scenario} {mode} {variant}: {text}"))
        }
    })
}

const HEADER: &str = "\
| scenario | mode | variant | preemptions | kills | schedules | with a kill | random | violations | s |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

pub fn row(scenario: &str, mode: &str, variant: &str, bounds: Bounds, summary: &Summary) -> String {
    let all = if summary.is_complete { "" } else { ", not all" };
    let violations: Vec<_> =
        summary.violations.iter().map(|(kind, (count, ..))| format!("{kind} {count}")).collect();
    let violations = if violations.is_empty() { "0".into() } else { violations.join(", ") };
    format!(
        "| {scenario} | {mode} | {variant} | {} | {} | {}{all} | {} | {} | {violations} | {:.1} |",
        bounds.preemptions,
        bounds.kills,
        summary.schedules - summary.random,
        summary.with_kill,
        summary.random,
        summary.seconds,
    )
}
