//! `write-atomically`, the command: only write the file if the command succeeds.
#![forbid(unsafe_code)]

mod cli {
    pub mod accept;
    pub mod args;
    pub mod failure;
    pub mod help;
    pub mod job;
    pub mod platform;
    pub mod progress;
    pub mod several;
    pub mod values;
    pub mod waiting;
}

use std::process;

use cli::args::Request;
use cli::failure::Failure;
use cli::platform::Signals;
use cli::progress::Progress;

fn main() {
    let job = match Request::from_command_line() {
        Request::Write(job) => job,
        Request::Sweep { directory, older_than } => {
            process::exit(cli::args::sweep(&directory, older_than))
        }
        Request::Print(text) => process::exit(cli::args::print(&text)),
    };
    let progress = Progress::new(job.progress);
    let outcome =
        Signals::catch().map_err(Failure::Io).and_then(|signals| job.run(&signals, &progress));
    drop(progress);
    process::exit(match outcome {
        Ok(()) => 0,
        Err(failure) => failure.report(&job.subject(), job.quiet),
    })
}
