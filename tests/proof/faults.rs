//! Every plausible error at every system call.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use fs_err as fs;
use libtest_mimic::Trial;

use crate::kills::{check_after, reset};
use crate::operations::{self, OPERATIONS, Operation, Shape, Who};
use crate::report;
use crate::state::{self, Progress, Wrong};
use crate::strace::{self, Call, Tamper};

pub fn trials() -> Vec<Trial> {
    let who = |operation: &&Operation| !matches!(operation.who, Who::Peer { .. });
    let trial = |operation: &'static Operation| {
        crate::trial(format!("faults::{}", operation.name), move |_| prove(operation))
    };
    OPERATIONS.iter().filter(who).map(trial).collect()
}

/// What a call may answer: section 2 of the manual, and what network and layered filesystems add.
fn plausible(call: &Call) -> &'static [&'static str] {
    match call.name.as_str() {
        "openat" | "open" | "openat2" => &[
            "EACCES",
            "EPERM",
            "EMFILE",
            "ENFILE",
            "ENOMEM",
            "EINTR",
            "ENOENT",
            "ENOSPC",
            "EDQUOT",
            "EROFS",
            "EIO",
            "ENAMETOOLONG",
            "ESTALE",
            "ELOOP",
            "EOPNOTSUPP",
            "EINVAL",
            "EISDIR",
            "ENOTDIR",
            "EEXIST",
            "ETXTBSY",
            "ENXIO",
            "ENODEV",
            "EOVERFLOW",
            "EAGAIN",
        ],
        "write" | "pwrite64" | "copy_file_range" | "sendfile" => &[
            "EIO", "ENOSPC", "EDQUOT", "EFBIG", "EINTR", "EPERM", "ENOMEM", "ESTALE", "EINVAL",
            "EROFS", "ENXIO", "EAGAIN",
        ],
        "read" | "pread64" => &["EIO", "EINTR", "EISDIR", "EINVAL", "ESTALE", "ENOMEM"],
        "fdatasync" | "fsync" | "syncfs" | "sync_file_range" => &[
            "EIO",
            "ENOSPC",
            "EDQUOT",
            "EROFS",
            "EINTR",
            "EINVAL",
            "EOPNOTSUPP",
            "ENOSYS",
            "ESTALE",
            "ENOMEM",
        ],
        "linkat" => &[
            "EACCES",
            "EPERM",
            "EDQUOT",
            "EIO",
            "EMLINK",
            "ENOENT",
            "ENOMEM",
            "ENOSPC",
            "EROFS",
            "EXDEV",
            "ENAMETOOLONG",
            "ESTALE",
            "EOPNOTSUPP",
            "EINVAL",
            "ELOOP",
            "ENOSYS",
            "EEXIST",
            "ENOTDIR",
        ],
        "rename" | "renameat" | "renameat2" => &[
            "EACCES",
            "EPERM",
            "EBUSY",
            "EDQUOT",
            "EIO",
            "ENOMEM",
            "ENOSPC",
            "EROFS",
            "EXDEV",
            "EINVAL",
            "ENOSYS",
            "ESTALE",
            "ENOENT",
            "EISDIR",
            "EMLINK",
            "ENOTDIR",
            "EEXIST",
            "ENOTEMPTY",
        ],
        "unlink" | "unlinkat" | "rmdir" => {
            &["EACCES", "EPERM", "EBUSY", "EIO", "EROFS", "ENOENT", "ESTALE", "ENOMEM", "EISDIR"]
        }
        "mkdir" | "mkdirat" => &[
            "EACCES", "EPERM", "EDQUOT", "EIO", "EEXIST", "EMLINK", "ENOENT", "ENOMEM", "ENOSPC",
            "EROFS",
        ],
        // Not ENOENT: that says something about the file, and is answered accordingly.
        "stat" | "lstat" | "fstat" | "newfstatat" | "statx" => &[
            "EACCES",
            "EIO",
            "ENOMEM",
            "ENOSYS",
            "EPERM",
            "ESTALE",
            "EOVERFLOW",
            "ELOOP",
            "ENOTDIR",
        ],
        "access" | "faccessat" | "faccessat2" => &[
            "EACCES", "EIO", "EROFS", "ENOSYS", "EPERM", "ETXTBSY", "ENOENT", "ENOMEM", "EINVAL",
            "ESTALE",
        ],
        "fchmod" | "fchown" | "fchownat" | "fchmodat" => &[
            "EPERM",
            "EACCES",
            "EIO",
            "EROFS",
            "EOPNOTSUPP",
            "EINVAL",
            "ENOSPC",
            "EDQUOT",
            "ENOMEM",
            "ENOSYS",
            "ESTALE",
        ],
        name if name.ends_with("xattr") => &[
            "EOPNOTSUPP",
            "ENOSPC",
            "EDQUOT",
            "EPERM",
            "EACCES",
            "EIO",
            "ERANGE",
            "ENODATA",
            "E2BIG",
            "ENOMEM",
            "ENOSYS",
            "ENOENT",
            "ESTALE",
        ],
        "flock" | "fcntl" => {
            &["EAGAIN", "EINTR", "ENOLCK", "EINVAL", "EOPNOTSUPP", "ENOSYS", "EIO"]
        }
        "lseek" => &["EINVAL", "EIO", "ESPIPE", "EOVERFLOW", "ENXIO"],
        "fadvise64" | "fallocate" | "ftruncate" => {
            &["EIO", "EINVAL", "ENOSPC", "EOPNOTSUPP", "ENOSYS", "EINTR", "EFBIG"]
        }
        "close" => &["EIO", "EINTR", "ENOSPC", "EDQUOT"],
        "readlink" | "readlinkat" => {
            &["EINVAL", "EACCES", "EIO", "ENOENT", "ELOOP", "ENOMEM", "ESTALE"]
        }
        "fstatfs" | "statfs" => &["EIO", "ENOSYS", "EINTR", "ENOMEM", "ESTALE", "EOVERFLOW"],
        "getdents64" => &["EIO", "ENOENT", "ESTALE"],
        "memfd_create" => &["EMFILE", "ENFILE", "ENOMEM", "ENOSYS"],
        // Memory, signals, ids: nothing of ours to handle.
        _ => &[],
    }
}

/// Whether the errno says "there is no such thing here", so that the other way must have been
/// taken and have worked.
fn must_fall_back(call: &Call, errno: &str) -> bool {
    let unnamed = call.line.contains("O_TMPFILE");
    let swaps = call.line.contains("RENAME_EXCHANGE");
    let from_a_descriptor =
        call.line.contains("AT_EMPTY_PATH") || call.line.contains("/proc/self/fd");
    match call.name.as_str() {
        "openat" if unnamed => ["EOPNOTSUPP", "EISDIR", "EINVAL"].contains(&errno),
        // A new name without a hard link and without renameat2 is more than can be had.
        "linkat" if from_a_descriptor => {
            ["EPERM", "EOPNOTSUPP", "EMLINK", "EXDEV", "ENOSYS", "EINVAL"].contains(&errno)
        }
        // There is no other way to swap two directories in one step.
        "renameat2" if swaps => false,
        "renameat2" => ["EINVAL", "ENOSYS"].contains(&errno),
        "statx" | "faccessat2" => errno == "ENOSYS",
        "flock" => ["ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL"].contains(&errno),
        "fadvise64" | "sync_file_range" => true,
        name if name.ends_with("xattr") => errno == "EOPNOTSUPP",
        _ => {
            errno == "EINTR"
                && ["write", "pwrite64", "fdatasync", "fsync", "openat", "flock"]
                    .contains(&call.name.as_str())
        }
    }
}

/// fsync(2): the data may be gone. `Ok` would be a lie.
fn must_fail(call: &Call, errno: &str) -> bool {
    let is_sync = ["fdatasync", "fsync", "syncfs"].contains(&call.name.as_str());
    is_sync && ["EIO", "ENOSPC", "EDQUOT", "ESTALE", "ENOMEM", "EROFS"].contains(&errno)
}

/// Whether a system may lack this call altogether. It can lack unnamed files, but not files.
fn can_be_missing(call: &Call) -> bool {
    !["openat", "write", "read", "close", "fcntl", "lseek"].contains(&call.name.as_str())
}

const UNSUPPORTED: [&str; 4] = ["EOPNOTSUPP", "ENOSYS", "EINVAL", "EPERM"];
const TABLE: &str = "Faults: whose, operation, system calls, faults, succeeded all the same, failed and old, failed and replaced";

fn prove(operation: &'static Operation) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let (directory, reports) = (scratch.path().join("directory"), scratch.path().join("reports"));
    operations::start(operation, &directory)?;
    let mut calls = strace::list(operation, &directory, &reports)?;
    calls.retain(|call| call.within && !plausible(call).is_empty());

    let mut counts = [0; 3];
    let mut wrong: Vec<String> = Vec::new();
    for call in &calls {
        for errno in plausible(call) {
            for from_then_on in [false, true] {
                if from_then_on && !(UNSUPPORTED.contains(errno) && can_be_missing(call)) {
                    continue;
                }
                reset(operation, &directory, &[])?;
                let tamper = Tamper::Fail { errno, from_then_on };
                strace::tamper(operation, &directory, &reports, call, &tamper)?
                    .with_context(|| format!("never reached {}", call.line))?;
                match look(operation, &directory, &reports, call, errno) {
                    Ok(outcome) => counts[outcome as usize] += 1,
                    Err(error) => {
                        let always = if from_then_on { " from then on" } else { "" };
                        let line: String = call.line.chars().take(120).collect();
                        wrong.push(format!("{errno}{always} at {line}: {error:#}"));
                    }
                }
            }
        }
    }
    let faults = counts.iter().sum::<usize>() + wrong.len();
    let cells = [calls.len(), faults, counts[0], counts[1], counts[2]].map(|n| n.to_string());
    report::row(
        TABLE,
        [crate::who(operation), operation.name.into()].into_iter().chain(cells).collect(),
    );
    match operation.who {
        Who::Crate if !wrong.is_empty() => {
            bail!("{} of {faults} faults:\n{}", wrong.len(), wrong.join("\n"))
        }
        Who::Control { .. } if operation.name.contains("in place") => {
            ensure!(!wrong.is_empty(), "was not caught: this proves nothing");
            Ok(())
        }
        _ => Ok(()),
    }
}

#[derive(Clone, Copy)]
enum Outcome {
    Succeeded,
    FailedAndOld,
    FailedAndReplaced,
}

fn look(
    operation: &Operation,
    directory: &Path,
    reports: &Path,
    call: &Call,
    errno: &str,
) -> anyhow::Result<Outcome> {
    let said = fs::read_to_string(reports).unwrap_or_default();
    let last = said.lines().last().unwrap_or_default();
    let entries = state::leftovers(operation, directory, 3)?;
    let outcome = if last == "done 1" {
        ensure!(!must_fail(call, errno), "returned Ok: a lie");
        Outcome::Succeeded
    } else if last.starts_with("failed 1") {
        let no_locks_no_updates = operation.locks && call.name == "flock";
        let is_answer = operation.locks && errno == "EEXIST";
        let excused = no_locks_no_updates || is_answer;
        ensure!(excused || !must_fall_back(call, errno), "there is another way, but {last}");
        if operation.who == Who::Crate {
            ensure!(
                is_answer || operation.own_io || !last.contains("step=none"),
                "no step: {last}"
            );
            let named = last.contains(&format!("{}/", directory.display()));
            ensure!(is_answer || operation.own_io || named, "no path: {last}");
        }
        let replaced = last.contains("replaced=true");
        if replaced { Outcome::FailedAndReplaced } else { Outcome::FailedAndOld }
    } else {
        bail!("it ended after {last:?}: a panic, or it hung");
    };
    let progress = match outcome {
        // Each file of a batch is old or new.
        Outcome::FailedAndReplaced if operation.shape == Shape::Several => {
            Progress { started: 1, done: 0 }
        }
        Outcome::Succeeded | Outcome::FailedAndReplaced => Progress { started: 1, done: 1 },
        Outcome::FailedAndOld if last.contains("already published") => {
            Progress { started: 1, done: 0 }
        }
        Outcome::FailedAndOld => Progress { started: 0, done: 0 },
    };
    let wrong = |(wrong, what): (Wrong, String)| anyhow::anyhow!("{wrong:?}: {what}, after {last}");
    state::check(operation, directory, progress).map_err(wrong)?;
    if operation.shape == Shape::NewFiles && matches!(outcome, Outcome::FailedAndOld) {
        ensure!(!directory.join("file-1").exists(), "file-1 has appeared, but {last}");
    }
    // Removing a staging directory takes many calls.
    let could_not_remove =
        call.name.starts_with("unlink") || operation.own_io || operation.shape == Shape::Several;
    if operation.who == Who::Crate && !could_not_remove {
        ensure!(entries.is_empty(), "left over: {entries:?}, after {last}");
    }
    check_after(operation, directory, &[], &entries).map_err(wrong)?;
    Ok(outcome)
}
