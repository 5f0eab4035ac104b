//! What the crate promises about operations that meet, tried over every schedule.
//!
//! Two or three real processes, each with one operation, are stopped before every system call that another
//! could notice. The explorer decides which of them goes on. It tries all schedules with up to a number of
//! preemptions, a kill at each step as one more choice, and then random schedules with more.
//!
//! ```text
//! cd tests/proof/explore
//! cargo run -- ci                    what CI runs: three minutes on two processors
//! cargo run -- long                  3 preemptions, triples, all pairs: hours
//! cargo run -- variants              only those that must be caught
//! cargo run -- run write,write@missing named real --preemptions 3 --kills 1 --random 1000 --seconds 60
//! cargo run -- replay write,write@missing named real A12B3A2B!
//! ```
//!
//! A scenario is `OPERATION,OPERATION[,OPERATION]@missing|file|same|dir[+dead=OPERATION][+parents]`. A
//! schedule is read from left to right: `A12B3A2B!` has A do twelve steps, B three, A two, and kills B.
//! Afterwards everybody goes on as long as it can. After a kill, one ordinary write follows, alone.
//!
//! # What must hold
//!
//! | violation | what was seen |
//! | --- | --- |
//! | `torn` | at some instant the destination is not whole |
//! | `vanished` | at some instant the destination is not there, though nobody removes it |
//! | `order` | no order of the operations explains the results and the content; orders that contradict who ended before whom began do not count |
//! | `error` | the same, and an operation has failed: nothing was wrong |
//! | `left` | something is left beside the destination, after the ordinary write if one was killed |
//! | `mode` | a mode that was set before a write began is not the new file's |
//! | `deadlock`, `endless` | all wait for each other; one never ends |
//!
//! An update may be overtaken by operations that ask for no lock, between its reading and its publishing:
//! it then fails, or replaces what it did not see (the guide says so). On two hosts, locks exclude nobody,
//! and updates may be overtaken by updates.
//!
//! # How
//!
//! - ptrace(2) stops the processes, shows their calls and changes them (`tracee.rs`). A *mode* is a
//!   filesystem that lacks something: the call is told so. A *variant* is a library with one check left
//!   out: the call that makes the check is told what it wants to hear. The library's source is not touched,
//!   so variants work with any version of it. They must be caught.
//! - Each schedule starts from a fresh directory. The processes are forked, not executed, and pinned to one
//!   processor: that is ten times faster.
//! - A `flock` that would wait is found out before the call: the explorer asks for the lock itself. All
//!   waiting is a deadlock.
//! - Sleeps are skipped. A process that only yields waits until another has done something (Musuvathi and
//!   Qadeer, "Fair Stateless Model Checking", 2008), else loops that try again never end.
//! - Calls that nobody else can notice are no steps (`World::is_visible`).
//! - `warm_up` has the library find out what it finds out once for each process; random numbers are the
//!   explorer's. So the same schedule always gives the same run.
//!
//! # What it does not show
//!
//! Threads of one process; power cuts; a reader that lists a tree while it is exchanged; NFS itself: the modes
//! imitate what was seen on such filesystems, on tmpfs. A call that waits in the kernel for another reason than
//! a lock (opening a FIFO) stops the explorer.
//!
//! # What it found
//!
//! In version 0.1.0, with `ci`, 45,000 schedules:
//!
//! | scenario | mode | schedules | violations |
//! | --- | --- | --- | --- |
//! | `fail,write,write@missing`, 3 preemptions | named | 4,200 (not all) | torn 49, error 524: a failing writer closes its file, and removes by name what is another's by then |
//! | `fail,write@missing` | named | 325 | error 8: the same, with two |
//! | `if_missing,if_missing@missing`, a kill | each | 234 to 996 | left 10 or 12: the `-lock` entry |
//! | seven operations on a dead `if_missing` | both | 14 to 65 | left, in each: no plain write looks for `-lock` |
//! | five operations `+parents`, a kill | both | 457 to 1,101 | left 10 to 331: the entry lies above the parents |
//! | `write,batch@file`, `if_changed,write_path@file` … | named | 90 to 130 | error 1 or 2, in random ones with more preemptions: ENOTDIR, its directory was taken for dead |
//! | `write,write@missing` | hosts | 392 | torn 98, error 214 |
//! | `write,write@missing` | inodes | 376 | torn 14, error 14 |
//! | `update,update@file` | inodes | 138 | order 58: lost updates |

mod explorer;
mod operations;
mod profiles;
mod scenario;
mod tracee;
mod world;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use explorer::{Bounds, Explorer};
use scenario::Scenario;
use world::{MODES, VARIANTS};

/// 0: nothing found; 1: a violation, or a variant that was not caught; 2: it could not be tried.
fn main() -> ExitCode {
    command().unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::from(2)
    })
}

fn command() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["ci"] => profiles::run(&profiles::ci()),
        ["long"] => profiles::run(&profiles::long()),
        ["variants"] => profiles::run(&profiles::variants()),
        ["run", scenario, mode, variant, ref options @ ..] => run(scenario, mode, variant, options),
        ["replay", scenario, mode, variant, schedule] => replay(scenario, mode, variant, schedule),
        _ => bail!("see the top of src/main.rs for what it can be asked to do"),
    }
}

fn run(scenario: &str, mode: &str, variant: &str, options: &[&str]) -> Result<ExitCode> {
    let (mut bounds, mut seed) =
        (Bounds { preemptions: 2, kills: 0, random: 0, time: Duration::from_secs(60) }, 1);
    let mut processor = 0;
    for option in options.chunks(2) {
        let [option, value] = option else { bail!("`{}` needs a value", option[0]) };
        let number: usize = value.parse().with_context(|| format!("{option} {value}"))?;
        match *option {
            "--preemptions" => bounds.preemptions = number,
            "--kills" => bounds.kills = number,
            "--random" => bounds.random = number,
            "--seconds" => bounds.time = Duration::from_secs(number as u64),
            "--seed" => seed = number as u64,
            "--processor" => processor = number,
            _ => bail!("unknown option {option}"),
        }
    }
    let explorer = prepare(scenario, mode, variant, processor)?;
    let summary = explorer.explore(bounds, seed)?;
    println!("{}", profiles::row(scenario, mode, variant, bounds, &summary));
    for (kind, (count, schedule, detail)) in &summary.violations {
        let detail = detail.replace('\n', " ");
        println!("  {kind} {count}: {detail}");
        println!("    explore replay {scenario} {mode} {variant} {schedule}");
    }
    if summary.diverged > 0 {
        println!("  {} schedules went another way the second time", summary.diverged);
    }
    Ok(ExitCode::from(u8::from(!summary.violations.is_empty())))
}

fn replay(scenario: &str, mode: &str, variant: &str, schedule: &str) -> Result<ExitCode> {
    let explorer = prepare(scenario, mode, variant, 0)?;
    let schedule = explorer::parse(schedule).context("that is no schedule")?;
    let run = explorer.replay(&schedule)?;
    for line in &run.trace {
        println!("{line}");
    }
    for violation in &run.violations {
        println!("{}: {}", violation.kind, violation.detail);
    }
    Ok(ExitCode::from(u8::from(!run.violations.is_empty())))
}

fn prepare(scenario: &str, mode: &str, variant: &str, processor: usize) -> Result<Explorer> {
    let scenario = Scenario::parse(scenario).context("that is no scenario")?;
    let mode = find(&MODES, mode).context("that is no mode")?;
    let variant = find(&VARIANTS, variant).context("that is no variant")?;
    let mut processors = CpuSet::new();
    processors.set(processor)?;
    // Where there are fewer processors, one is chosen by the system.
    let _ = sched_setaffinity(Pid::from_raw(0), &processors);
    let above = env::var_os("EXPLORE_DIR").map_or_else(|| "/dev/shm".into(), PathBuf::from);
    // The same length each time, so that paths are of one length.
    let root = above.join(format!("explore-{:07}", std::process::id()));
    warm_up(&root)?;
    // What panics in a tracee is its result.
    std::panic::set_hook(Box::new(|_| {}));
    Explorer::new(scenario, mode, variant, root)
}

fn find<T: Copy>(known: &[(T, &str)], name: &str) -> Option<T> {
    known.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
}

/// rustix asks once whether there is `statx`, std whether there is `copy_file_range`. But nothing that draws a
/// random number: the tracees would all draw the same.
fn warm_up(root: &std::path::Path) -> Result<()> {
    let base = root.join("warm");
    std::fs::create_dir_all(base.join(operations::PARENT))?;
    for operation in [operations::Operation::Write, operations::Operation::Update] {
        let result = operation.run(&base, "A", false);
        if result != "ok" {
            bail!("warming up: {operation:?}: {result}");
        }
    }
    Ok(std::fs::remove_dir_all(&base)?)
}
