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
    if std::env::var_os(subject::ROLE.0).is_some_and(|role| role == subject::ROLE.1) {
        return match subject::main() {
            Ok(()) => std::process::ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                std::process::ExitCode::FAILURE
            }
        };
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let trials = [power_cut::trials()].into_iter().flatten().collect();
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
