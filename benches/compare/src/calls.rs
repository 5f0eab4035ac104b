//! System calls of one operation, counted exactly: this program again, under `strace`, between
//! two calls that mark where the operation begins and ends.

use crate::contenders::Who;
use crate::floor::Guarantee;
use crate::floor::body::Body;
use fs_err as fs;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const MARK: &str = "/write-atomically/mark";

pub struct Calls(pub BTreeMap<String, usize>);

impl Calls {
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// `close=2 fdatasync=1 …`
    pub fn list(&self) -> String {
        let list: Vec<String> =
            self.0.iter().map(|(name, count)| format!("{name}={count}")).collect();
        list.join(" ")
    }
}

/// `None` if `strace` cannot be run.
pub fn count(
    dir: &Path,
    who: Who,
    guarantee: Guarantee,
    replace: bool,
    size: u64,
) -> Option<Calls> {
    let trace = tempfile::NamedTempFile::new().ok()?;
    let status = Command::new("strace")
        .arg("-f")
        .arg("-o")
        .arg(trace.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "traced",
            &format!("{who:?}"),
            &format!("{guarantee:?}"),
            if replace { "replace" } else { "create" },
            &size.to_string(),
        ])
        .arg(dir)
        .status()
        .ok()?;
    assert!(status.success());
    let trace = fs::read_to_string(trace.path()).unwrap();
    let mut calls = BTreeMap::new();
    for line in trace
        .lines()
        .skip_while(|line| !line.contains(MARK))
        .skip(1)
        .take_while(|line| !line.contains(MARK))
    {
        // 12345 openat(AT_FDCWD, …
        let name =
            line.split_whitespace().nth(1).and_then(|call| call.split('(').next()).unwrap_or("?");
        *calls.entry(name.to_string()).or_insert(0) += 1;
    }
    Some(Calls(calls))
}

/// Runs under `strace`. The first operation is not counted: it may set things up for the whole process.
pub fn traced(args: &[&str]) {
    let who = *Who::ALL.iter().find(|who| format!("{who:?}") == args[0]).unwrap();
    let guarantee =
        *Guarantee::ALL.iter().find(|guarantee| format!("{guarantee:?}") == args[1]).unwrap();
    let replace = args[2] == "replace";
    let size: u64 = args[3].parse().unwrap();
    let body = if size > 16 << 20 {
        Body::Stream { len: size, computed: false }
    } else {
        Body::Whole(vec![b'x'; size as usize])
    };
    let mark = || {
        let _ = rustix::fs::access(MARK, rustix::fs::Access::EXISTS);
    };
    for round in 0..2 {
        let path = Path::new(args[4]).join("traced");
        if replace {
            fs::write(&path, "old").unwrap();
        }
        if round == 1 {
            mark();
        }
        who.write(&path, &body, guarantee, replace).unwrap();
        if round == 1 {
            mark();
        }
        fs::remove_file(&path).unwrap();
    }
}
