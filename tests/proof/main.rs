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
mod exhaustion;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod kills;
#[cfg(target_os = "linux")]
mod living;
#[cfg(target_os = "linux")]
mod neighbours;
#[cfg(target_os = "linux")]
mod operations;
#[cfg(target_os = "linux")]
mod power_cut;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod state;
#[cfg(target_os = "linux")]
mod strace;
#[cfg(target_os = "linux")]
mod subject;
#[cfg(target_os = "linux")]
mod swaps;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    if let Some(role) = std::env::var_os(subject::ROLE.0) {
        let played = match role.to_str() {
            Some(living::ROLE) => living::main(),
            Some(exhaustion::ROLE) => exhaustion::main(),
            Some(neighbours::ROLE) => neighbours::main(),
            Some(subject::FILTER_ROLE) => subject::pretend(operations::Missing::UnnamedFiles),
            _ => subject::main(),
        };
        return match played {
            Ok(()) => std::process::ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                std::process::ExitCode::FAILURE
            }
        };
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let trials = [
        exhaustion::trials(),
        neighbours::trials(),
        swaps::trials(),
        kills::trials(),
        faults::trials(),
        power_cut::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
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

/// In the names of the trials whose subject runs under a seccomp(2) filter.
#[cfg(target_os = "linux")]
const FILTERED: [&str; 5] = [
    "staged by name",
    "linked by /proc",
    "beside a living writer",
    "Named staging",
    "of file size, fatal",
];

/// A trial that is counted as ignored, and says what it needs, unless `tests/proof/run` runs it.
#[cfg(target_os = "linux")]
fn trial(
    name: String,
    prove: impl FnOnce(usize) -> anyhow::Result<()> + Send + 'static,
) -> libtest_mimic::Trial {
    let is_filtered = FILTERED.iter().any(|filtered| name.contains(filtered));
    libtest_mimic::Trial::ignorable_test(name, move || match budget() {
        None => Ok(libtest_mimic::Completion::ignored_with(NEEDS)),
        Some(_) if is_filtered && std::env::var("PROOF_FILTERS").as_deref() == Ok("no") => {
            Ok(libtest_mimic::Completion::ignored_with("needs a kernel that answers seccomp(2)"))
        }
        Some(budget) => match prove(budget) {
            Ok(()) => Ok(libtest_mimic::Completion::Completed),
            Err(error) => match error.downcast_ref::<Unavailable>() {
                Some(missing) => Ok(libtest_mimic::Completion::ignored_with(missing)),
                None => Err(format!("{error:#}").into()),
            },
        },
    })
}

/// Something that `tests/proof/run` can't install.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Unavailable(&'static str);

#[cfg(target_os = "linux")]
impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "needs {}", self.0)
    }
}

#[cfg(target_os = "linux")]
impl std::error::Error for Unavailable {}
