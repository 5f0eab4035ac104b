//! One schedule after the other, each from a fresh directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::operations::{self, DESTINATION, Operation, SECOND, State, look, name};
use crate::scenario::{Done, Scenario, Violation, check_end, check_instant, left_over, violation};
use crate::world::{Mode, Process, Variant, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Run(usize),
    Kill(usize),
}

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub preemptions: usize,
    pub kills: usize,
    /// Random schedules after the systematic ones.
    pub random: usize,
    pub time: Duration,
}

/// A decision, and what else could have been decided.
struct Decision {
    options: Vec<Choice>,
    taken: usize,
}

pub struct Explorer {
    pub scenario: Scenario,
    pub mode: Mode,
    pub variant: Variant,
    root: PathBuf,
}

/// What came of one schedule.
pub struct Run {
    pub violations: Vec<Violation>,
    pub schedule: Vec<Choice>,
    pub killed: bool,
    pub trace: Vec<String>,
}

#[derive(Default)]
pub struct Summary {
    pub schedules: usize,
    pub with_kill: usize,
    pub random: usize,
    /// By kind: how many schedules, and the first of them.
    pub violations: BTreeMap<&'static str, (usize, String, String)>,
    pub is_complete: bool,
    pub seconds: f64,
    pub diverged: usize,
}

/// What decides at each step: from the options that are allowed, one.
enum Guide<'a> {
    /// A path of decisions, then the first option.
    Systematic {
        decisions: &'a mut Vec<Decision>,
        bounds: Bounds,
        diverged: &'a mut usize,
    },
    Random {
        draw: &'a mut fastrand::Rng,
        kills: bool,
    },
    Replay {
        schedule: &'a [Choice],
    },
}

/// More steps than any operation takes, many times over.
const ENDLESS: usize = 3000;

impl Explorer {
    pub fn new(scenario: Scenario, mode: Mode, variant: Variant, root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Explorer { scenario, mode, variant, root })
    }

    /// All schedules within the bounds, then random ones.
    pub fn explore(&self, bounds: Bounds, seed: u64) -> Result<Summary> {
        let started = Instant::now();
        let mut summary = Summary::default();
        let mut decisions: Vec<Decision> = Vec::new();
        loop {
            let diverged = &mut summary.diverged;
            let mut guide = Guide::Systematic { decisions: &mut decisions, bounds, diverged };
            let run = self.run(&mut guide)?;
            summary.count(run);
            while let Some(last) = decisions.last_mut() {
                last.taken += 1;
                if last.taken < last.options.len() {
                    break;
                }
                decisions.pop();
            }
            if decisions.is_empty() {
                summary.is_complete = true;
                break;
            }
            if started.elapsed() > bounds.time {
                break;
            }
        }
        let mut draw = fastrand::Rng::with_seed(seed);
        let latest = started.elapsed() + bounds.time / 3;
        for _ in 0..bounds.random {
            if started.elapsed() > latest {
                break;
            }
            let kills = bounds.kills > 0 && draw.bool();
            let run = self.run(&mut Guide::Random { draw: &mut draw, kills })?;
            summary.random += 1;
            summary.count(run);
        }
        summary.seconds = started.elapsed().as_secs_f64();
        Ok(summary)
    }

    pub fn replay(&self, schedule: &[Choice]) -> Result<Run> {
        self.run(&mut Guide::Replay { schedule })
    }

    fn run(&self, guide: &mut Guide) -> Result<Run> {
        let base = self.root.join("base");
        match fs::remove_dir_all(&base) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("removing the last schedule's directory");
            }
            _ => {}
        }
        fs::create_dir(&base)?;
        let scenario = &self.scenario;
        let world = World {
            base: base.clone(),
            mode: self.mode,
            variant: self.variant,
            directories_change: scenario.directories_change(),
            modes_change: scenario.modes_change(),
        };
        if !scenario.parents {
            fs::create_dir(base.join(operations::PARENT))?;
        }
        // Before there is a destination: `write_if_missing` would do nothing.
        if let Some(dead) = scenario.dead {
            self.leave_dead(&world, dead)?;
        }
        operations::set_up(&base, &scenario.initial, scenario.is_batch(), scenario.is_link())?;
        let mut processes = Vec::new();
        for (index, &operation) in scenario.operations.iter().enumerate() {
            processes.push(self.start(&world, operation, index, &name(index))?);
        }
        let mut run =
            Run { violations: Vec::new(), schedule: Vec::new(), killed: false, trace: Vec::new() };
        self.schedule(&world, &mut processes, guide, &mut run)?;
        let is_stuck = run.violations.iter().any(|v| matches!(v.kind, "deadlock" | "endless"));
        if is_stuck {
            return Ok(run);
        }
        let done = processes.iter().zip(&scenario.operations).enumerate();
        let done: Vec<_> = done
            .map(|(index, (process, &operation))| Done {
                operation,
                name: name(index),
                result: process.result().map(str::to_owned),
                first_step: process.first_step.unwrap_or(0),
                last_step: process.last_step,
                began: process.first_step.is_some() || process.result().is_some(),
            })
            .collect();
        for done in &done {
            run.trace.push(format!(
                "{}: {}",
                done.name,
                done.result.as_deref().unwrap_or("killed")
            ));
        }
        let exclusion = self.mode != Mode::Hosts;
        run.violations.extend(check_end(scenario, &base, &done, exclusion));
        if let Some(index) = processes.iter().position(|process| process.is_killed) {
            self.write_once_more(&world, index, &mut run)?;
        }
        let left = left_over(scenario, &base);
        if !left.is_empty() {
            run.violations.push(violation("left", left.join(", ")));
        }
        run.violations.sort();
        run.violations.dedup_by(|a, b| a.kind == b.kind);
        Ok(run)
    }

    fn start(
        &self,
        world: &World,
        operation: Operation,
        index: usize,
        name: &str,
    ) -> Result<Process> {
        let (base, parents) = (world.base.clone(), self.scenario.parents);
        let parents = parents && !operation.is_counterpart();
        let is_update = operation == Operation::Update;
        let name = name.to_owned();
        let run = move || operation.run(&base, &name, parents);
        Process::start(world, index, is_update, run)
    }

    fn schedule(
        &self,
        world: &World,
        processes: &mut [Process],
        guide: &mut Guide,
        run: &mut Run,
    ) -> Result<()> {
        let mut current: Option<usize> = None;
        let (mut preemptions, mut kills, mut step) = (0, 0, 0);
        let there = |path| look(&world.base.join(path)) != State::Missing;
        let mut before = [there(DESTINATION), there(SECOND)];
        loop {
            let running = |i: usize| !processes[i].has_ended();
            let unfinished: Vec<_> = (0..processes.len()).filter(|&i| running(i)).collect();
            if unfinished.is_empty() {
                return Ok(());
            }
            let mut enabled: Vec<_> =
                unfinished.iter().copied().filter(|&i| !processes[i].is_blocked(world)).collect();
            if enabled.is_empty() {
                let waiting: Vec<_> = unfinished
                    .iter()
                    .filter_map(|&i| {
                        processes[i].pending.as_ref().map(|c| format!("{}: {}", name(i), c.label))
                    })
                    .collect();
                run.violations.push(violation("deadlock", waiting.join("; ")));
                return Ok(());
            }
            // One that only yields waits until another has done something.
            if enabled.iter().any(|&i| !processes[i].yielded) {
                enabled.retain(|&i| !processes[i].yielded);
            }
            let goes_on = current.filter(|i| enabled.contains(i));
            let mut options: Vec<Choice> = goes_on.map(Choice::Run).into_iter().collect();
            let (may_preempt, may_kill) = match guide {
                Guide::Systematic { bounds, .. } => {
                    (preemptions < bounds.preemptions, kills < bounds.kills)
                }
                Guide::Random { kills: may_kill, .. } => (true, *may_kill && kills == 0),
                Guide::Replay { .. } => (true, true),
            };
            if goes_on.is_none() || may_preempt {
                let others = enabled.iter().copied().filter(|&i| Some(i) != goes_on);
                options.extend(others.map(Choice::Run));
            }
            // Before the first step it would be as if it had never been there.
            let killable = |i: usize| {
                may_kill
                    && processes[i].first_step.is_some()
                    && !scenario_is_counterpart(&self.scenario, i)
            };
            if let Some(current) = current.filter(|&i| running(i) && killable(i)) {
                options.push(Choice::Kill(current));
            }
            let choice = guide.choose(options, goes_on.is_some(), run.schedule.len())?;
            run.schedule.push(choice);
            step += 1;
            match choice {
                Choice::Kill(i) => {
                    if processes[i].has_ended() {
                        bail!("the schedule kills {}, which has ended", name(i));
                    }
                    processes[i].kill()?;
                    processes[i].last_step = step;
                    kills += 1;
                    run.killed = true;
                    run.trace.push(format!("{} killed", name(i)));
                    for process in &mut *processes {
                        process.yielded = false;
                    }
                }
                Choice::Run(i) => {
                    if !enabled.contains(&i) {
                        bail!("the schedule runs {}, which can't go on", name(i));
                    }
                    if goes_on.is_some() && goes_on != Some(i) {
                        preemptions += 1;
                    }
                    let is_yield = processes[i].is_yield();
                    let looks = processes[i].changes_something();
                    processes[i].first_step.get_or_insert(step);
                    let label = processes[i].step(world)?;
                    processes[i].last_step = step;
                    run.trace.push(format!("{} {label}", name(i)));
                    if !is_yield {
                        for (j, process) in processes.iter_mut().enumerate() {
                            process.yielded &= j == i;
                        }
                        processes[i].yielded = false;
                    }
                    if looks && !self.scenario.parents {
                        let seen = check_instant(&self.scenario, &world.base, &mut before);
                        if let Some(seen) = seen.filter(|_| run.violations.is_empty()) {
                            run.trace.push(format!("  !! {}: {}", seen.kind, seen.detail));
                            run.violations.push(seen);
                        }
                    }
                    if processes[i].steps > ENDLESS {
                        let detail = format!("{} made {ENDLESS} steps", name(i));
                        run.violations.push(violation("endless", detail));
                        return Ok(());
                    }
                    current = Some(i);
                }
            }
        }
    }

    /// A process that is killed while it writes.
    fn leave_dead(&self, world: &World, operation: Operation) -> Result<()> {
        let world = World { mode: named(world.mode), variant: Variant::Real, ..world.clone() };
        // Longer than what comes after it: nothing of it may show.
        let mut process = self.start(&world, operation, 0, "ZZZZ")?;
        let mut writes = 0;
        while let Some(call) = &process.pending {
            writes += usize::from(call.label.starts_with("write "));
            if writes == 2 {
                return process.kill();
            }
            process.step(&world)?;
        }
        bail!("{operation:?} never wrote")
    }

    /// On the host of the one that was killed: what a dead host left is for `sweep`.
    fn write_once_more(&self, world: &World, index: usize, run: &mut Run) -> Result<()> {
        let operation = self.scenario.ordinary();
        let mut process = self.start(world, operation, index, "W")?;
        while !process.has_ended() {
            if process.is_blocked(world) {
                let label = process.pending.as_ref().map(|call| call.label.clone());
                let detail = format!("the ordinary write waits: {}", label.unwrap_or_default());
                run.violations.push(violation("deadlock", detail));
                return process.kill();
            }
            let label = process.step(world)?;
            run.trace.push(format!("W {label}"));
            if process.steps > ENDLESS {
                run.violations.push(violation("endless", "the ordinary write"));
                return process.kill();
            }
        }
        let result = process.result().unwrap_or("killed").to_owned();
        run.trace.push(format!("W: {result}"));
        // The parent may have gone, the destination may be a directory.
        let at = look(&world.base.join(DESTINATION));
        let is_there = matches!(&at, State::File(names) | State::Dir(names) if names == "W");
        let of_another_kind =
            result.starts_with("error IsADirectory") || result.starts_with("error NotADirectory");
        let has_moved = self.scenario.moves_parent() && result.starts_with("error NotFound");
        if !(result == "ok" && is_there || of_another_kind || has_moved) {
            run.violations
                .push(violation("error", format!("the ordinary write: {result}, {at:?}")));
        }
        Ok(())
    }
}

fn scenario_is_counterpart(scenario: &Scenario, index: usize) -> bool {
    scenario.operations[index].is_counterpart()
}

fn named(mode: Mode) -> Mode {
    if mode == Mode::Unnamed { Mode::Named } else { mode }
}

impl Drop for Explorer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Guide<'_> {
    fn choose(&mut self, options: Vec<Choice>, goes_on: bool, at: usize) -> Result<Choice> {
        let first = options[0];
        match self {
            Guide::Systematic { decisions, diverged, .. } => {
                if let Some(decision) = decisions.get(at) {
                    if decision.options == options {
                        return Ok(options[decision.taken]);
                    }
                    // It went another way than the last time.
                    decisions.truncate(at);
                    **diverged += 1;
                }
                decisions.push(Decision { options, taken: 0 });
                Ok(first)
            }
            Guide::Random { draw, .. } => {
                // Mostly on, so that there are few preemptions, at any place.
                let (run, kill): (Vec<Choice>, Vec<Choice>) =
                    options.into_iter().partition(|choice| matches!(choice, Choice::Run(_)));
                Ok(match () {
                    () if !kill.is_empty() && draw.u32(..40) == 0 => kill[0],
                    () if goes_on && draw.u32(..4) != 0 => first,
                    () => run[draw.usize(..run.len())],
                })
            }
            Guide::Replay { schedule } => Ok(schedule.get(at).copied().unwrap_or(first)),
        }
    }
}

impl Summary {
    fn count(&mut self, run: Run) {
        self.schedules += 1;
        self.with_kill += usize::from(run.killed);
        for violation in run.violations {
            let schedule = show(&run.schedule);
            let entry =
                self.violations.entry(violation.kind).or_insert((0, String::new(), String::new()));
            entry.0 += 1;
            // The shortest is the easiest to read.
            if entry.1.is_empty() || schedule.len() < entry.1.len() {
                (entry.1, entry.2) = (schedule, violation.detail);
            }
        }
    }
}

/// `A12B3A!`: twelve steps of A, three of B, and A is killed.
pub fn show(schedule: &[Choice]) -> String {
    let mut shown = String::new();
    for part in schedule.chunk_by(|a, b| a == b) {
        match part[0] {
            Choice::Run(i) => shown.push_str(&format!("{}{}", name(i), part.len())),
            Choice::Kill(i) => shown.push_str(&format!("{}!", name(i))),
        }
    }
    shown
}

pub fn parse(text: &str) -> Option<Vec<Choice>> {
    let mut schedule = Vec::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let index = usize::try_from(u32::from(letter).checked_sub(u32::from('A'))?).ok()?;
        rest = &rest[letter.len_utf8()..];
        if let Some(after) = rest.strip_prefix('!') {
            schedule.push(Choice::Kill(index));
            rest = after;
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let count = rest[..end].parse().ok()?;
        schedule.extend(std::iter::repeat_n(Choice::Run(index), count));
        rest = &rest[end..];
    }
    Some(schedule)
}
