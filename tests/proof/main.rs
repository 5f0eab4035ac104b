//! The proof: kills, faults, power cuts. `tests/proof/run` runs it; README.md says what it shows.

#![cfg_attr(not(target_os = "linux"), allow(unused))]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the proof is ignored here: it needs Linux");
}

#[cfg(target_os = "linux")]
mod content;
#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod kills;
#[cfg(target_os = "linux")]
mod strace;
#[cfg(target_os = "linux")]
mod operations;
#[cfg(target_os = "linux")]
mod power_cut;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod state;
#[cfg(target_os = "linux")]
mod subject;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    if let Some(role) = std::env::var_os(subject::ROLE.0) {
        let played = if role == subject::ROLE.1 { subject::main() } else { kills::live() };
        return match played {
            Ok(()) => std::process::ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                std::process::ExitCode::FAILURE
            }
        };
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let trials = [power_cut::trials(), kills::trials(), faults::trials()].into_iter().flatten().collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    report::print();
    conclusion.exit_code()
}

/// Crash images a trial, if the proof is to run at all.
#[cfg(target_os = "linux")]
fn budget() -> Option<usize> {
    std::env::var("PROOF_IMAGES").ok()?.parse().ok()
}

/// What is drawn at random is the same for the same seed.
#[cfg(target_os = "linux")]
fn seed() -> u64 {
    std::env::var("PROOF_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

#[cfg(target_os = "linux")]
const NEEDS: &str = "needs root, FUSE, loop devices, strace and mkfs: tests/proof/run";

/// Whose an operation is, for the tables.
#[cfg(target_os = "linux")]
fn who(operation: &operations::Operation) -> String {
    match operation.who {
        operations::Who::Crate => "ours".into(),
        operations::Who::ByHand => "reference".into(),
        operations::Who::Control { .. } => "control".into(),
        operations::Who::Peer { documents } => format!("peer ({documents})"),
    }
}
