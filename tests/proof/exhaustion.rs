//! Running out, for real: of space, quota, inodes, descriptors, file size, and of the filesystem or
//! the directory itself while the closure runs.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use fs_err::{self as fs, File};
use libtest_mimic::Trial;
use rustix::process::{Resource, Rlimit};
use write_atomically::write_atomically;

use crate::content::content;
use crate::disk::{self, Mounted};
use crate::living::{self, Living, Staging};
use crate::operations::{self, OPERATIONS, Operation, Shape, Who};
use crate::state::{self, Progress};
use crate::{Unavailable, subject};

pub fn trials() -> Vec<Trial> {
    let ours = || OPERATIONS.iter().filter(|operation| operation.who == Who::Crate);
    let of_everything = CASES.iter().flat_map(|case| {
        ours().map(move |operation| {
            let name = format!("exhaustion::{}::{}", case.name, operation.name);
            crate::trial(name, move |_| run_out(case, operation))
        })
    });
    let meanwhile = [Staging::Unnamed, Staging::Named].into_iter().flat_map(|staging| {
        let name = |what: &str| format!("meanwhile::{what}, {staging:?} staging");
        [
            crate::trial(name("the filesystem goes read-only"), move |_| goes_read_only(staging)),
            crate::trial(name("the directory is removed"), move |_| directory_is_removed(staging)),
            crate::trial(name("the directory is renamed"), move |_| directory_is_renamed(staging)),
        ]
    });
    let single = [
        crate::trial("exhaustion::the closure takes all descriptors".into(), |_| {
            all_descriptors_taken()
        }),
        crate::trial("exhaustion::of file size, fatal".into(), |_| file_size_is_fatal()),
    ];
    of_everything.chain(meanwhile).chain(single).collect()
}

/// How to run out of something, and how not to any more.
struct Case {
    name: &'static str,
    make: &'static [&'static str],
    kind: &'static str,
    options: &'static str,
    mebibytes: u64,
    exhaust: fn(&Path, &Path) -> anyhow::Result<()>,
    relieve: fn(&Path, &Path) -> anyhow::Result<()>,
    /// What the subject is started with.
    prefix: &'static [&'static str],
    /// Words that the error must contain.
    says: &'static str,
}

const EXT4: &[&str] = &["mkfs.ext4", "-q", "-F"];
const FULL: Case = Case {
    name: "of space on ext4",
    make: EXT4,
    kind: "ext4",
    options: "",
    mebibytes: 16,
    exhaust: fill,
    relieve: unfill,
    prefix: &[],
    says: "No space left on device",
};

static CASES: [Case; 9] = [
    FULL,
    Case {
        name: "of space on xfs",
        make: &["mkfs.xfs", "-q", "-f"],
        kind: "xfs",
        mebibytes: 300,
        ..FULL
    },
    Case {
        name: "of space on btrfs",
        make: &["mkfs.btrfs", "-q", "-f"],
        kind: "btrfs",
        mebibytes: 128,
        ..FULL
    },
    Case { name: "of space on tmpfs", make: &[], kind: "tmpfs", options: "size=4m", ..FULL },
    Case {
        name: "of inodes",
        make: &["mkfs.ext4", "-q", "-F", "-N", "32"],
        exhaust: use_up_inodes,
        relieve: free_inodes,
        ..FULL
    },
    Case {
        name: "of quota on btrfs",
        make: &["mkfs.btrfs", "-q", "-f"],
        kind: "btrfs",
        mebibytes: 128,
        exhaust: limit_subvolume,
        relieve: unlimit_subvolume,
        says: "Disk quota exceeded",
        ..FULL
    },
    Case {
        name: "of quota on ext4",
        make: &["mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"],
        options: "prjquota",
        exhaust: limit_project,
        relieve: unlimit_project,
        // Whoever has this capability may exceed any quota: quotactl(2).
        prefix: &["setpriv", "--inh-caps=-sys_resource", "--bounding-set=-sys_resource"],
        says: "Disk quota exceeded",
        ..FULL
    },
    Case {
        name: "of file size",
        exhaust: |_, _| Ok(()),
        relieve: |_, _| Ok(()),
        // setrlimit(2): EFBIG only for who ignores the signal.
        prefix: &["env", "--ignore-signal=XFSZ", "prlimit", "--fsize=100000"],
        says: "File too large",
        ..FULL
    },
    Case {
        name: "of descriptors",
        exhaust: |_, _| Ok(()),
        relieve: |_, _| Ok(()),
        // Three, and one for the reports, and one for the directory.
        prefix: &["prlimit", "--nofile=5"],
        says: "Too many open files",
        ..FULL
    },
];

/// 300,000 bytes: more than is left, more than may be.
const BIG: u32 = 4;

fn run_out(case: &'static Case, operation: &'static Operation) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let (mounted, directory) = mount(case, scratch.path())?;
    operations::start(operation, &directory)?;
    (case.exhaust)(&mounted.at, &directory)?;

    let reports = scratch.path().join("reports");
    let mut command = match case.prefix {
        [] => Command::new(std::env::current_exe()?),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(std::env::current_exe()?);
            command
        }
    };
    command.args(subject::arguments(operation, &directory, &reports, (BIG, BIG)));
    let status = command.env(subject::ROLE.0, subject::ROLE.1).status()?;
    let said = fs::read_to_string(&reports).unwrap_or_default();
    let last = said.lines().last().unwrap_or_default();
    ensure!(status.success(), "it ended with {status} after {last:?}");
    ensure!(last.starts_with("failed 4 replaced=false"), "it said {last:?}");
    ensure!(last.contains(case.says), "it said {last:?}");
    nothing_has_changed(operation, &directory)?;

    (case.relieve)(&mounted.at, &directory)?;
    operations::one_more_call(operation, &directory, BIG).context("the next call")?;
    let left = state::leftovers(operation, &directory, BIG + 1)?;
    ensure!(left.is_empty(), "left over: {left:?}");
    Ok(())
}

fn mount(case: &Case, scratch: &Path) -> anyhow::Result<(Mounted, PathBuf)> {
    let at = scratch.join("mounted");
    fs::create_dir(&at)?;
    let mounted = match case.make {
        [] => Mounted::without_a_disk(case.kind, case.options, &at)?,
        [program, arguments @ ..] => {
            let image = scratch.join("image");
            File::create(&image)?.set_len(case.mebibytes << 20)?;
            disk::run(Command::new(program).args(arguments).arg(&image))?;
            match Mounted::new(case.kind, case.options, &image, &at) {
                Err(_) if case.options == "prjquota" => {
                    return Err(Unavailable(
                        "a kernel with ext4 quotas (CONFIG_QFMT_V2): tests/proof/vm",
                    )
                    .into());
                }
                mounted => mounted?,
            }
        }
    };
    let directory = at.join("directory");
    fs::create_dir(&directory)?;
    Ok((mounted, directory))
}

fn nothing_has_changed(operation: &Operation, directory: &Path) -> anyhow::Result<()> {
    state::check(operation, directory, Progress { started: 0, done: 0 })
        .map_err(|(wrong, what)| anyhow::anyhow!("{wrong:?}: {what}"))?;
    if operation.shape == Shape::NewFiles {
        ensure!(
            !directory.join(format!("file-{BIG}")).exists(),
            "it is there, but the call failed"
        );
    }
    let left = state::leftovers(operation, directory, BIG)?;
    ensure!(left.is_empty(), "left over: {left:?}");
    Ok(())
}

fn fill(mounted: &Path, _: &Path) -> anyhow::Result<()> {
    // In ever smaller pieces, until less than half of what the subject wants is free.
    let mut filler = File::create(mounted.join("filler"))?;
    for size in [1 << 20, 64 << 10, 4 << 10] {
        let piece = vec![1; size];
        while filler.write_all(&piece).and_then(|()| filler.sync_data()).is_ok() {}
    }
    Ok(())
}

fn unfill(mounted: &Path, _: &Path) -> anyhow::Result<()> {
    fs::remove_file(mounted.join("filler"))?;
    Ok(rustix::fs::syncfs(File::open(mounted)?)?)
}

fn use_up_inodes(mounted: &Path, _: &Path) -> anyhow::Result<()> {
    fs::create_dir(mounted.join("filler.d"))?;
    for n in 0.. {
        if File::create(mounted.join("filler.d").join(n.to_string())).is_err() {
            break;
        }
    }
    Ok(())
}

fn free_inodes(mounted: &Path, _: &Path) -> anyhow::Result<()> {
    Ok(fs::remove_dir_all(mounted.join("filler.d"))?)
}

fn limit_project(mounted: &Path, directory: &Path) -> anyhow::Result<()> {
    disk::run(Command::new("chattr").args(["-R", "-p", "7"]).arg(directory))?;
    // What is created in them later belongs to the project, too. Files do not have that flag: chattr(1).
    let inherit = ["-type", "d", "-exec", "chattr", "+P", "{}", "+"];
    disk::run(Command::new("find").arg(directory).args(inherit))?;
    set_quota(mounted, "100")
}

fn unlimit_project(mounted: &Path, _: &Path) -> anyhow::Result<()> {
    set_quota(mounted, "0")
}

fn limit_subvolume(mounted: &Path, _: &Path) -> anyhow::Result<()> {
    rustix::fs::syncfs(File::open(mounted)?)?;
    disk::run(Command::new("btrfs").args(["quota", "enable"]).arg(mounted))?;
    disk::run(Command::new("btrfs").args(["quota", "rescan", "-w"]).arg(mounted))?;
    disk::run(Command::new("btrfs").args(["qgroup", "limit", "200K", "0/5"]).arg(mounted))?;
    Ok(())
}

fn unlimit_subvolume(mounted: &Path, _: &Path) -> anyhow::Result<()> {
    Ok(disk::run(Command::new("btrfs").args(["qgroup", "limit", "none", "0/5"]).arg(mounted))?)
}

fn set_quota(mounted: &Path, kibibytes: &str) -> anyhow::Result<()> {
    let limits = ["-P", "7", kibibytes, kibibytes, "0", "0"];
    Ok(disk::run(Command::new("setquota").args(limits).arg(mounted))?)
}

/// setrlimit(2): whoever does not ignore SIGXFSZ is killed by it.
fn file_size_is_fatal() -> anyhow::Result<()> {
    for operation in OPERATIONS.iter().filter(|operation| operation.who == Who::Crate) {
        let scratch = tempfile::tempdir()?;
        let (directory, reports) =
            (scratch.path().join("directory"), scratch.path().join("reports"));
        operations::start(operation, &directory)?;
        let mut command = Command::new("prlimit");
        command.arg("--fsize=100000").arg(std::env::current_exe()?);
        command.args(subject::arguments(operation, &directory, &reports, (BIG, BIG)));
        let status = command.env(subject::ROLE.0, subject::ROLE.1).status()?;
        ensure!(
            status.signal() == Some(libc::SIGXFSZ),
            "{}: it ended with {status}",
            operation.name
        );
        state::check(operation, &directory, Progress { started: 0, done: 0 })
            .map_err(|(wrong, what)| anyhow::anyhow!("{}: {wrong:?}: {what}", operation.name))?;
        operations::one_more_call(operation, &directory, BIG)?;
        let left = state::leftovers(operation, &directory, BIG + 1)?;
        ensure!(left.is_empty(), "{}: left over: {left:?}", operation.name);
    }
    Ok(())
}

/// What a full disk and a lost one have in common: a filesystem that was writable before the closure
/// and is not when it is done. (A polite `remount,ro` is refused while a file is open for writing.)
fn goes_read_only(staging: Staging) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let (mounted, directory) = mount(&FULL, scratch.path())?;
    let operation = operations::find("replace").unwrap();
    operations::start(operation, &directory)?;
    rustix::fs::syncfs(File::open(&mounted.at)?)?;
    let writer = Living::start(&directory, "file", staging)?;
    disk::run(Command::new("mount").args(["-o", "remount,abort"]).arg(&mounted.at))?;
    let error = writer.go_on()?.context("it returned Ok")?;
    ensure!(error.contains("is unchanged: "), "it said {error}");
    ensure!(fs::read(directory.join("file"))? == content(0, "file"), "the old content is gone");

    let image = scratch.path().join("image");
    let at = mounted.at.clone();
    drop(mounted);
    let _again = Mounted::new("ext4", "", &image, &at)?;
    ensure!(fs::read(directory.join("file"))? == content(0, "file"), "the old content is gone");
    operations::one_more_call(operation, &directory, 1)?;
    let left = state::leftovers(operation, &directory, 2)?;
    ensure!(left.is_empty(), "left over: {left:?}");
    Ok(())
}

fn directory_is_removed(staging: Staging) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let directory = scratch.path().join("directory");
    fs::create_dir(&directory)?;
    let writer = Living::start(&directory, "file", staging)?;
    fs::remove_dir_all(&directory)?;
    let error = writer.go_on()?.context("it returned Ok, and there is nothing")?;
    ensure!(error.contains("directory/file") && error.contains("No such file"), "it said {error}");
    ensure!(!directory.exists(), "the directory is back");
    Ok(())
}

/// The directory is pinned when the call starts.
fn directory_is_renamed(staging: Staging) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let (directory, renamed) = (scratch.path().join("directory"), scratch.path().join("renamed"));
    fs::create_dir(&directory)?;
    let writer = Living::start(&directory, "file", staging)?;
    fs::rename(&directory, &renamed)?;
    fs::create_dir(&directory)?;
    if let Some(error) = writer.go_on()? {
        bail!("it said {error}");
    }
    ensure!(
        fs::read(renamed.join("file"))? == content(living::VERSION, "file"),
        "not what was written"
    );
    ensure!(fs::read_dir(&directory)?.count() == 0, "something is in the wrong directory");
    Ok(())
}

pub const ROLE: &str = "greedy";

fn all_descriptors_taken() -> anyhow::Result<()> {
    for replaces in [true, false] {
        let scratch = tempfile::tempdir()?;
        let file = scratch.path().join("file");
        if replaces {
            fs::write(&file, "old")?;
        }
        let greedy = Command::new(std::env::current_exe()?)
            .arg(&file)
            .env(subject::ROLE.0, ROLE)
            .output()?;
        let said = String::from_utf8_lossy(&greedy.stderr);
        ensure!(greedy.status.success(), "it ended with {}: {said}", greedy.status);
        ensure!(fs::read(&file)? == b"new", "it is not there");
        ensure!(fs::read_dir(scratch.path())?.count() == 1, "something is left over");
    }
    Ok(())
}

/// A closure that opens files until it can't any more, and keeps them until the call has returned.
pub fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).context("no path")?;
    let limit = Rlimit { current: Some(64), maximum: Some(64) };
    rustix::process::setrlimit(Resource::Nofile, limit)?;
    let kept = write_atomically(path, |w| {
        w.write_all(b"new")?;
        let mut files = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        Ok(files)
    })?;
    ensure!(kept.len() > 10, "that was not all");
    Ok(())
}
