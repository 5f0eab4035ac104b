//! Several destinations of one command.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use fs_err as fs;

use super::args::Complaint;
use super::failure::Failure;
use super::job::{Producer, Program, Run, copy_with_mode};

/// The command of so many destinations: each has its place among the arguments.
pub fn producer(program: Option<Program>, destinations: usize) -> Result<Producer, Complaint> {
    let is_complete = |program: &Program| {
        (1..=destinations).all(|number| program.has(&numbered(&program.placeholder, number)))
    };
    match program.filter(is_complete) {
        Some(program) => Ok(Producer::Files(program)),
        None => Err((
            ErrorKind::MissingRequiredArgument,
            "several DESTs need a COMMAND after `--`, with a place for each among its arguments: `{1}`, \
             `{2}` and so on",
        )),
    }
}

/// What stands for the path of the destination with this number: `{1}`, `@1`; for nothing if nothing
/// stands for a path.
fn numbered(placeholder: &str, number: usize) -> String {
    match placeholder.char_indices().next_back() {
        None => String::new(),
        Some((last, '}' | ']' | ')' | '>')) if last > 0 => {
            format!("{}{number}{}", &placeholder[..last], &placeholder[last..])
        }
        Some(_) => format!("{placeholder}{number}"),
    }
}

impl Run<'_> {
    /// The command writes to a staging path beside each destination. What it has left there is copied into
    /// a batch, whose files are complete and synced before the first is published.
    pub fn fill_several(&self, program: &Program) -> Result<(), Failure> {
        let destinations: Vec<&Path> = self.job.destinations().collect();
        self.stage(program, &destinations, &mut Vec::new())
    }

    /// Each staging path lives as long as a closure runs: one in the other.
    fn stage(
        &self,
        program: &Program,
        destinations: &[&Path],
        staged: &mut Vec<PathBuf>,
    ) -> Result<(), Failure> {
        match destinations.get(staged.len()) {
            None => self.publish_together(program, destinations, staged),
            Some(destination) => self.aside(destination, |path| {
                staged.push(path.to_owned());
                self.stage(program, destinations, staged)
            }),
        }
    }

    fn publish_together(
        &self,
        program: &Program,
        destinations: &[&Path],
        staged: &[PathBuf],
    ) -> Result<(), Failure> {
        self.begin();
        // From the last, so that `@1` is not taken out of `@10`.
        let places = staged.iter().enumerate().rev();
        let places: Vec<(String, &Path)> = places
            .map(|(before, path)| (numbered(&program.placeholder, before + 1), &**path))
            .collect();
        self.succeed(&mut program.command_for(&places))?;
        for path in staged {
            self.check_written(program, path)?;
            self.accept(path)?;
        }
        self.go_on()?;
        self.options().write_batch(|batch| {
            for (destination, path) in destinations.iter().zip(staged) {
                batch.write(destination, |w| {
                    Ok(copy_with_mode(&mut fs::File::open(path)?.into_file(), w)?)
                })?;
            }
            self.go_on()
        })
    }
}
