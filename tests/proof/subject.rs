//! The program that is killed, faulted and cut off: it writes versions and says when it starts and
//! when a call has returned.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use write_atomically::Error;

use crate::operations::{self, Missing, Operation};

/// The arguments with which this same program becomes a subject. What it has to say goes to
/// `reports`, one line a write.
pub fn arguments(
    operation: &Operation,
    directory: &Path,
    reports: &Path,
    versions: (u32, u32),
) -> Vec<OsString> {
    vec![
        operation.name.into(),
        directory.into(),
        reports.into(),
        versions.0.to_string().into(),
        versions.1.to_string().into(),
    ]
}

pub const ROLE: (&str, &str) = ("PROOF_ROLE", "subject");

pub fn command(
    operation: &Operation,
    directory: &Path,
    reports: &Path,
    versions: (u32, u32),
) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments(operation, directory, reports, versions)).env(ROLE.0, ROLE.1);
    Ok(command)
}

pub fn started(version: u32) -> String {
    format!("start {version}")
}

pub fn done(version: u32) -> String {
    format!("done {version}")
}

/// The subject itself.
pub fn main() -> anyhow::Result<()> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let text =
        |n: usize| arguments.get(n).and_then(|a| a.to_str()).context("an argument is missing");
    let operation = operations::find(text(0)?).context("no such operation")?;
    let directory = PathBuf::from(text(1)?);
    let mut reports = File::options().append(true).create(true).open(text(2)?)?;
    let (first, last): (u32, u32) = (text(3)?.parse()?, text(4)?.parse()?);
    let mut report = |line: String| reports.write_all(format!("{line}\n").as_bytes());
    for missing in operation.without {
        pretend(*missing)?;
    }
    for version in first..=last {
        report(started(version))?;
        match (operation.run)(&directory, version) {
            Ok(()) => report(done(version))?,
            Err(error) => report(describe(version, &error))?,
        }
        if version != last {
            std::thread::sleep(Duration::from_millis(u64::from(version % 4) * 3));
        }
    }
    Ok(())
}

fn describe(version: u32, error: &anyhow::Error) -> String {
    let found = Error::find(error.as_ref());
    let replaced = found.is_some_and(Error::replaced);
    let step = found.map_or("none".to_string(), |error| format!("{:?}", error.step()));
    format!("failed {version} replaced={replaced} step={step} {error:#}").replace('\n', " ")
}

/// The role in which the program does nothing but install a filter: `tests/proof/run` looks whether that
/// ends.
pub const FILTER_ROLE: &str = "filter";

/// Lets the kernel answer as if it, or the filesystem, lacked something.
pub fn pretend(missing: Missing) -> anyhow::Result<()> {
    let bits_set = |argument, bits: u64| {
        let set = SeccompCmpOp::MaskedEq(bits);
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, set, bits)
    };
    let (call, errno, condition) = match missing {
        Missing::UnnamedFiles => {
            (libc::SYS_openat, Errno::OPNOTSUPP, bits_set(2, u64::from(OFlags::TMPFILE.bits()))?)
        }
        Missing::LinkByDescriptor => {
            (libc::SYS_linkat, Errno::NOENT, bits_set(4, u64::from(AtFlags::EMPTY_PATH.bits()))?)
        }
        Missing::RenameFlags => {
            let some = SeccompCmpOp::Ne;
            (
                libc::SYS_renameat2,
                Errno::INVAL,
                SeccompCondition::new(4, SeccompCmpArgLen::Dword, some, 0)?,
            )
        }
    };
    let rules = BTreeMap::from([(call, vec![SeccompRule::new(vec![condition])?])]);
    let answer = SeccompAction::Errno(errno.raw_os_error() as u32);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        answer,
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}
