//! Power cuts on real filesystems: write versions onto a disk that writes down what reaches it and
//! when, then look at the images that a power cut could have left.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{bail, ensure};
use fs_err::{self as fs, File};
use libtest_mimic::Trial;

use crate::disk::{self, Disk, Event, Mounted, Pages};
use crate::operations::{OPERATIONS, Operation, Who};
use crate::state::{self, Progress, Verdict, Wrong};
use crate::{operations, report, subject};

struct Filesystem {
    name: &'static str,
    kind: &'static str,
    make: &'static [&'static str],
    mebibytes: u64,
    options: &'static str,
    /// What the filesystem expects the disk to write whole. btrfs's superblock is 4 KiB, and it
    /// keeps no other up to date; ext4's and xfs's journals cope with sectors.
    sector: usize,
    turn: Mutex<Option<Pages>>,
}

const EXT4: &[&str] = &[
    "mkfs.ext4",
    "-q",
    "-F",
    "-E",
    "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
    "-J",
    "size=4",
];

static FILESYSTEMS: [Filesystem; 5] = [
    Filesystem {
        name: "ext4",
        kind: "ext4",
        make: EXT4,
        mebibytes: 64,
        options: "commit=1",
        sector: 512,
        turn: Mutex::new(None),
    },
    Filesystem {
        name: "ext4-noauto_da_alloc",
        kind: "ext4",
        make: EXT4,
        mebibytes: 64,
        options: "commit=1,noauto_da_alloc",
        sector: 512,
        turn: Mutex::new(None),
    },
    Filesystem {
        name: "ext4-writeback",
        kind: "ext4",
        make: EXT4,
        mebibytes: 64,
        options: "commit=1,noauto_da_alloc,data=writeback",
        sector: 512,
        turn: Mutex::new(None),
    },
    Filesystem {
        name: "xfs",
        kind: "xfs",
        make: &["mkfs.xfs", "-q", "-f", "-K"],
        mebibytes: 300,
        options: "",
        sector: 512,
        turn: Mutex::new(None),
    },
    Filesystem {
        name: "btrfs",
        kind: "btrfs",
        make: &["mkfs.btrfs", "-q", "-f", "-K"],
        mebibytes: 256,
        options: "commit=1,nodiscard",
        sector: 4096,
        turn: Mutex::new(None),
    },
];

const VERSIONS: u32 = 14;

/// One trial for each operation on each filesystem.
pub fn trials() -> Vec<Trial> {
    // Neighbours in this order are on different filesystems, and can run at the same time.
    let pairs = OPERATIONS.iter().flat_map(|op| FILESYSTEMS.iter().map(move |fs| (fs, op)));
    let trial = |(filesystem, operation): (&'static Filesystem, &'static Operation)| {
        let name = format!("power_cut::{}::{}", filesystem.name, operation.name);
        crate::trial(name, move |budget| prove(filesystem, operation, budget))
    };
    pairs.map(trial).collect()
}

fn prove(
    filesystem: &'static Filesystem,
    operation: &'static Operation,
    budget: usize,
) -> anyhow::Result<()> {
    let seed = crate::seed();
    let mut turn = filesystem.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let scratch = tempfile::tempdir()?;
    let recording = Recording::new(filesystem, operation, scratch.path(), &mut turn)?;
    let crashes = recording.crashes(budget, &mut fastrand::Rng::with_seed(seed));
    let found = recording.look(&crashes)?;

    let count = |wrong| found.wrong.get(&wrong).map_or(0, Vec::len);
    report::row(
        TABLE,
        vec![
            crate::who(operation),
            operation.name.to_string(),
            filesystem.name.to_string(),
            crashes.len().to_string(),
            count(Wrong::Torn).to_string(),
            count(Wrong::Lost).to_string(),
            found.left.to_string(),
        ],
    );
    let summary: Vec<_> = found
        .wrong
        .iter()
        .map(|(wrong, what)| format!("{} {wrong:?}, such as: {}", what.len(), what[0]))
        .collect();
    match operation.who {
        Who::Crate | Who::ByHand if !summary.is_empty() => {
            bail!("of {} images (seed {seed}), {}", crashes.len(), summary.join("; "))
        }
        Who::Control { caught_on } if caught_on.contains(&filesystem.name) => {
            ensure!(
                count(Wrong::Torn) + count(Wrong::Lost) > 0,
                "was not caught: this proves nothing (seed {seed})"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

const TABLE: &str = "Power cuts: whose, operation, filesystem, images, torn, acknowledged and lost, with a staging entry";

/// A disk, and all that happened to it.
struct Recording<'a> {
    filesystem: &'static Filesystem,
    operation: &'static Operation,
    scratch: &'a Path,
    disk: Disk,
    log: Vec<Event>,
}

/// A moment, and what of the writes since the last flush had made it to the medium.
struct Crash {
    at: usize,
    survivors: Vec<(u64, Vec<u8>)>,
    progress: Progress,
}

#[derive(Default)]
struct Found {
    wrong: BTreeMap<Wrong, Vec<String>>,
    /// Images that held a staging entry.
    left: usize,
}

impl<'a> Recording<'a> {
    fn new(
        filesystem: &'static Filesystem,
        operation: &'static Operation,
        scratch: &'a Path,
        made: &mut MutexGuard<'_, Option<Pages>>,
    ) -> anyhow::Result<Self> {
        let (served, mounted_at) = (scratch.join("served"), scratch.join("mounted"));
        fs::create_dir(&served)?;
        fs::create_dir(&mounted_at)?;
        let image = made.clone().unwrap_or_default();
        let disk = Disk::serve(&served, filesystem.mebibytes << 20, image)?;
        if made.is_none() {
            let [program, arguments @ ..] = filesystem.make else { unreachable!() };
            disk::run(Command::new(program).args(arguments).arg(disk.image_file()))?;
            **made = Some(disk.image());
        }
        let mounted =
            Mounted::new(filesystem.kind, filesystem.options, &disk.image_file(), &mounted_at)?;
        ensure!(mounted.has_a_volatile_cache()?, "this loop device passes no flushes on");
        let directory = mounted_at.join("directory");
        operations::start(operation, &directory)?;
        let unrelated = mounted_at.join("unrelated");
        fs::create_dir(&unrelated)?;
        rustix::fs::syncfs(File::open(&mounted_at)?)?;

        disk.start_recording();
        let result = write_versions(operation, &directory, &disk, &unrelated.join("file"));
        let log = disk.stop_recording();
        drop(mounted);
        result?;
        Ok(Recording { filesystem, operation, scratch, disk, log })
    }

    /// Distinct crashes in the order of the log: after each acknowledgement with nothing of what was
    /// not flushed, and at random moments with nothing, all, the beginning, or some sectors of it.
    fn crashes(&self, budget: usize, random: &mut fastrand::Rng) -> Vec<Crash> {
        let (first, last) = self.interesting();
        let mut seen = HashSet::new();
        let mut crashes = Vec::new();
        let mut add = |at: usize, survivors: Vec<(u64, Vec<u8>)>| {
            let progress = progress(&self.log[..at]);
            let mut hasher = DefaultHasher::new();
            (self.last_flush(at), &survivors, progress).hash(&mut hasher);
            if seen.insert(hasher.finish()) {
                crashes.push(Crash { at, survivors, progress });
            }
            crashes.len()
        };
        for at in first..=last {
            if matches!(&self.log[at - 1], Event::Acknowledged(line) if line.starts_with("done")) {
                add(at, Vec::new());
            }
        }
        for attempt in 0.. {
            let at = random.usize(first..=last);
            let survivors = self.survivors(at, random);
            if add(at, survivors) >= budget || attempt > budget * 20 {
                break;
            }
        }
        crashes.sort_by_key(|crash| crash.at);
        crashes
    }

    /// From the first version's start to a little after the last one's end.
    fn interesting(&self) -> (usize, usize) {
        let is_report = |event: &Event| matches!(event, Event::Acknowledged(_));
        let first = self.log.iter().position(is_report).unwrap_or(0);
        (first + 1, self.log.iter().rposition(is_report).map_or(self.log.len(), |last| last + 1))
    }

    fn last_flush(&self, at: usize) -> usize {
        self.log[..at]
            .iter()
            .rposition(|event| matches!(event, Event::Flush))
            .map_or(0, |flush| flush + 1)
    }

    fn survivors(&self, at: usize, random: &mut fastrand::Rng) -> Vec<(u64, Vec<u8>)> {
        let pending: Vec<(u64, &[u8])> = self.log[self.last_flush(at)..at]
            .iter()
            .filter_map(|event| match event {
                Event::Write { offset, data } => Some((*offset, &data[..])),
                _ => None,
            })
            .collect();
        let whole =
            |writes: &[(u64, &[u8])]| writes.iter().map(|(o, d)| (*o, d.to_vec())).collect();
        match random.u8(0..5) {
            0 => Vec::new(),
            1 => whole(&pending),
            2 => whole(&pending[..random.usize(0..=pending.len())]),
            _ => self.some_sectors(&pending, random),
        }
    }

    /// Each sector shows any one of the writes to it, or none: losses and reorderings alike.
    fn some_sectors(
        &self,
        pending: &[(u64, &[u8])],
        random: &mut fastrand::Rng,
    ) -> Vec<(u64, Vec<u8>)> {
        let mut sectors: BTreeMap<u64, Vec<&[u8]>> = BTreeMap::new();
        for (offset, data) in pending {
            for (n, sector) in data.chunks(self.filesystem.sector).enumerate() {
                sectors
                    .entry(offset + (n * self.filesystem.sector) as u64)
                    .or_default()
                    .push(sector);
            }
        }
        let likely = random.f32();
        let mut survivors = Vec::new();
        for (offset, versions) in sectors {
            if random.f32() < likely {
                let version = versions[random.usize(0..versions.len())];
                survivors.push((offset, version.to_vec()));
            }
        }
        survivors
    }

    /// Mounts what each crash left, and looks.
    fn look(&self, crashes: &[Crash]) -> anyhow::Result<Found> {
        let mut found = Found::default();
        let mut durable = 0;
        for crash in crashes {
            let flushed = self.last_flush(crash.at);
            self.log[durable..flushed].iter().for_each(|event| self.disk.make_durable(event));
            durable = durable.max(flushed);
            let survivors: Vec<(u64, &[u8])> =
                crash.survivors.iter().map(|(o, d)| (*o, &d[..])).collect();
            let image = self.disk.cut(&survivors);
            if let Err((wrong, what)) = self.look_at(&image, crash.progress, &mut found) {
                let what = format!("{what} (cut at event {}, {:?})", crash.at, crash.progress);
                found.wrong.entry(wrong).or_default().push(what);
            }
        }
        Ok(found)
    }

    fn look_at(&self, image: &Path, progress: Progress, found: &mut Found) -> Verdict {
        let at = self.scratch.join("mounted");
        let mounted = Mounted::new(self.filesystem.kind, self.filesystem.options, image, &at)
            .map_err(|error| (Wrong::Unmountable, error.to_string()))?;
        let directory = mounted.at.join("directory");
        state::check(self.operation, &directory, progress)?;
        let left = || {
            state::leftovers(self.operation, &directory, progress.started + 1)
                .map_err(|error| (Wrong::Torn, error.to_string()))
        };
        let entries = left()?;
        found.left += usize::from(!entries.is_empty());
        if self.operation.who != Who::Crate {
            return Ok(());
        }
        let apart =
            |entry: &&String| !entries.iter().any(|other| entry.starts_with(&format!("{other}/")));
        if entries.iter().filter(apart).count()
            > self.operation.shape.files(0).len() + usize::from(self.operation.locks)
        {
            return Err((Wrong::Left, format!("{entries:?}")));
        }
        operations::one_more_call(self.operation, &directory, progress.started.max(1))
            .map_err(|error| (Wrong::Stuck, format!("the next call: {error:#}")))?;
        match left()? {
            none if none.is_empty() => Ok(()),
            some => Err((Wrong::Left, format!("{some:?} after one more call"))),
        }
    }
}

/// Runs the subject while something unrelated keeps syncing, which makes the filesystem commit at
/// all sorts of moments.
fn write_versions(
    operation: &Operation,
    directory: &Path,
    disk: &Disk,
    unrelated: &Path,
) -> anyhow::Result<()> {
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| sync_now_and_then(unrelated, &finished));
        let output =
            subject::command(operation, directory, &disk.acknowledgements(), (1, VERSIONS))?
                .output();
        finished.store(true, Ordering::Relaxed);
        let output = output?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the subject ended with {}: {said}", output.status);
        Ok(())
    })
}

fn sync_now_and_then(path: &Path, finished: &AtomicBool) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    while !finished.load(Ordering::Relaxed) {
        file.write_all(b"unrelated")?;
        file.sync_all()?;
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..6)));
    }
    Ok(())
}

/// How far the subject had come by then.
fn progress(log: &[Event]) -> Progress {
    let mut progress = Progress { started: 0, done: 0 };
    for event in log {
        let Event::Acknowledged(line) = event else { continue };
        let number = line.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
        match line.split(' ').next() {
            Some("start") => progress.started = number,
            Some("done") => progress.done = number,
            _ => {}
        }
    }
    progress
}
