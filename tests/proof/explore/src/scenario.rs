//! Which operations meet, on what, and how to tell that something went wrong.

use std::fs;
use std::path::Path;

use crate::operations::{DESTINATION, Operation, PARENT, SECOND, State, look};
use Operation::*;

#[derive(Clone, Debug)]
pub struct Scenario {
    pub operations: Vec<Operation>,
    pub initial: State,
    /// What a killed process left: its operation.
    pub dead: Option<Operation>,
    /// The destination's parent is missing, and `create_parents` is set.
    pub parents: bool,
}

/// `write,if_missing` on `missing`, `file`, `same` (the second one's content) or `dir`; `+dead=OPERATION`,
/// `+parents`.
impl Scenario {
    pub fn parse(text: &str) -> Option<Scenario> {
        let (operations, rest) = text.split_once('@')?;
        let mut parts = rest.split('+');
        let initial = match parts.next()? {
            "missing" => State::Missing,
            "file" => State::File(crate::operations::INITIAL.into()),
            "same" => State::File("B".into()),
            "dir" => State::Dir(crate::operations::INITIAL.into()),
            _ => return None,
        };
        let operations: Option<Vec<_>> = operations.split(',').map(operation).collect();
        let mut scenario =
            Scenario { operations: operations?, initial, dead: None, parents: false };
        for part in parts {
            match part.strip_prefix("dead=") {
                Some(dead) => scenario.dead = Some(operation(dead)?),
                None if part == "parents" => scenario.parents = true,
                None => return None,
            }
        }
        Some(scenario)
    }

    pub fn is_batch(&self) -> bool {
        self.operations.contains(&Batch)
    }

    pub fn is_link(&self) -> bool {
        self.operations.contains(&Retarget)
    }

    pub fn moves_parent(&self) -> bool {
        self.operations.contains(&RenameParent)
    }

    pub fn directories_change(&self) -> bool {
        self.is_link() || self.moves_parent() || self.parents
    }

    pub fn modes_change(&self) -> bool {
        self.operations.contains(&Chmod)
    }

    /// The write that follows a kill.
    pub fn ordinary(&self) -> Operation {
        match () {
            () if self.is_batch() => Batch,
            () if self.operations.contains(&WriteDir) => WriteDir,
            () => Write,
        }
    }

    /// Somebody takes it away.
    fn may_vanish(&self) -> bool {
        self.operations.iter().any(|o| matches!(o, Unlink | RenameParent)) || self.is_link()
    }
}

const OPERATIONS: [(&str, Operation); 15] = [
    ("write", Write),
    ("create", Create),
    ("fail", Fail),
    ("if_missing", IfMissing),
    ("if_changed", IfChanged),
    ("update", Update),
    ("write_path", WritePath),
    ("write_dir", WriteDir),
    ("batch", Batch),
    ("unlink", Unlink),
    ("replace", Replace),
    ("chmod", Chmod),
    ("read", Read),
    ("rename_parent", RenameParent),
    ("retarget", Retarget),
];

fn operation(text: &str) -> Option<Operation> {
    OPERATIONS.iter().find(|(name, _)| *name == text).map(|(_, operation)| *operation)
}

/// One operation, when all is over.
#[derive(Clone, Debug)]
pub struct Done {
    pub operation: Operation,
    pub name: String,
    /// `None`: killed.
    pub result: Option<String>,
    pub first_step: usize,
    pub last_step: usize,
    /// It made a step before it was killed, or ended.
    pub began: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    pub kind: &'static str,
    pub detail: String,
}

pub fn violation(kind: &'static str, detail: impl Into<String>) -> Violation {
    Violation { kind, detail: detail.into() }
}

/// After each step: whole, and there if nobody takes it away.
pub fn check_instant(scenario: &Scenario, base: &Path, before: &mut [bool]) -> Option<Violation> {
    let paths = [DESTINATION, SECOND];
    for (at, was_there) in paths.iter().zip(before) {
        let state = look(&base.join(at));
        if let State::Torn(content) = &state {
            return Some(violation("torn", format!("`{at}` holds {content}")));
        }
        let is_there = state != State::Missing;
        if *was_there && !is_there && !scenario.may_vanish() {
            return Some(violation("vanished", format!("`{at}` is not there for an instant")));
        }
        *was_there = is_there;
    }
    None
}

/// What is there beside the destination.
pub fn left_over(scenario: &Scenario, base: &Path) -> Vec<String> {
    let mut left = Vec::new();
    collect(base, base, &mut left);
    left.retain(|path| {
        let path = path.replacen("q", PARENT, usize::from(scenario.moves_parent()));
        let is_destination = path == PARENT || path == DESTINATION;
        let is_second = path == SECOND && scenario.is_batch();
        let in_tree = matches!(path.as_str(), "p/d/a" | "p/d/b");
        let is_linked = scenario.is_link() && matches!(path.as_str(), "p/x" | "p/y");
        // What a killed counterpart leaves is none of the library's.
        let is_theirs = path.ends_with(".editor") || path == "p/new";
        !(is_destination || is_second || in_tree || is_linked || is_theirs)
    });
    left
}

fn collect(base: &Path, directory: &Path, into: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let shown = path.strip_prefix(base).unwrap_or(&path);
        into.push(shown.to_string_lossy().into_owned());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(base, &path, into);
        }
    }
    into.sort();
}

/// Whether some order explains what all were told and what is there.
pub fn check_end(
    scenario: &Scenario,
    base: &Path,
    done: &[Done],
    exclusion: bool,
) -> Option<Violation> {
    if let Some(violation) = done.iter().find_map(|done| check_error(scenario, done)) {
        return Some(violation);
    }
    if scenario.is_link() || scenario.moves_parent() {
        return check_moved(scenario, base, done);
    }
    if let Some(violation) = check_mode(base, done) {
        return Some(violation);
    }
    let mut destinations = vec![(DESTINATION, done.to_vec())];
    if scenario.is_batch() {
        // One that was refused for the other destination has not touched this one.
        let refused = |result: &String| result.starts_with("error");
        let batches = done.iter().filter(|done| done.operation == Batch);
        let batches = batches
            .map(|done| Done {
                result: done.result.clone().filter(|r| !refused(r)),
                ..done.clone()
            })
            .collect();
        destinations.push((SECOND, batches));
    }
    for (path, done) in destinations {
        let last = look(&base.join(path));
        if !is_explained(&scenario.initial, &done, &last, exclusion) {
            let results: Vec<_> = done
                .iter()
                .map(|done| {
                    let result = done.result.as_deref().unwrap_or("killed");
                    format!("{} {:?}: {result}", done.name, done.operation)
                })
                .collect();
            let detail = format!("`{path}` is {last:?} after {}", results.join("; "));
            let is_error = done.iter().any(|done| {
                let result = done.result.as_deref();
                result.is_some_and(|result| result.starts_with("error") || result == "panic")
            });
            return Some(violation(if is_error { "error" } else { "order" }, detail));
        }
    }
    None
}

/// Errors that no state of the destination explains.
fn check_error(scenario: &Scenario, done: &Done) -> Option<Violation> {
    let result = done.result.as_deref()?;
    let is_failure = result == "panic" || result.starts_with("error");
    let is_known = [
        "error NotFound",
        "error AlreadyExists",
        "error IsADirectory",
        "error NotADirectory",
        "error ResourceBusy",
    ];
    let may_be = is_known.iter().any(|known| result.starts_with(known));
    // With a parent that has moved, what is found by path is not found.
    let detail = || format!("{} {:?}: {result}", done.name, done.operation);
    let is_meant = done.operation == Fail && result.starts_with("error Other");
    let is_unknown = is_failure && !may_be && !is_meant;
    let is_wrong = is_unknown
        || (!scenario.moves_parent()
            && !done.operation.is_counterpart()
            && result.starts_with("error NotFound")
            && done.operation != Update);
    is_wrong.then(|| violation("error", detail()))
}

/// A mode that was set before a write began is the new file's.
fn check_mode(base: &Path, done: &[Done]) -> Option<Violation> {
    use std::os::unix::fs::PermissionsExt;
    let chmod = done.iter().find(|done| done.operation == Chmod)?;
    let is_before = |other: &Done| chmod.last_step < other.first_step || !other.began;
    let others_follow = done.iter().filter(|done| done.operation != Chmod).all(is_before);
    if !others_follow || chmod.result.as_deref() != Some("ok") {
        return None;
    }
    let mode = fs::metadata(base.join(DESTINATION)).ok()?.permissions().mode() & 0o777;
    (mode != 0o600).then(|| violation("mode", format!("it was set to 600, and is {mode:o}")))
}

/// Each operation's content is where its path led while it ran.
fn check_moved(scenario: &Scenario, base: &Path, done: &[Done]) -> Option<Violation> {
    let places: &[&str] = match scenario.is_link() {
        true => &["p/x", "p/y"],
        false => &["p/d", "q/d"],
    };
    let states: Vec<_> = places.iter().map(|place| look(&base.join(place))).collect();
    for (place, state) in places.iter().zip(&states) {
        if let State::Torn(content) = state {
            return Some(violation("torn", format!("`{place}` holds {content}")));
        }
    }
    let writers: Vec<_> = done.iter().filter(|done| !done.operation.is_counterpart()).collect();
    if let [writer] = writers[..] {
        let holds = |state: &State| match state {
            State::File(names) | State::Dir(names) => names.ends_with(&writer.name),
            _ => false,
        };
        let count = states.iter().filter(|state| holds(state)).count();
        let wanted = match writer.result.as_deref() {
            Some("ok") => 1..=1,
            Some(_) => 0..=0,
            None => 0..=1,
        };
        if !wanted.contains(&count) {
            let result = writer.result.as_deref().unwrap_or("killed");
            let detail =
                format!("{} {:?}: {result}, but {states:?}", writer.name, writer.operation);
            return Some(violation("order", detail));
        }
        if let Some(result) = writer.result.as_deref() {
            let moved = result.starts_with("error NotFound") && scenario.moves_parent();
            let (expected, _) = writer.operation.apply(&writer.name, &scenario.initial);
            if result.starts_with("error") && !moved && !result.starts_with(&expected) {
                return Some(violation("error", format!("{}: {result}", writer.name)));
            }
        }
    }
    None
}

/// An event: an operation, or one of the two halves of an update, which others than those who ask for the
/// lock may come between (the guide says so).
#[derive(Clone, Copy)]
struct Event {
    done: usize,
    half: Half,
}

#[derive(Clone, Copy, PartialEq)]
enum Half {
    Whole,
    Read,
    Publish,
}

struct Search<'a> {
    done: &'a [Done],
    last: &'a State,
    exclusion: bool,
    events: Vec<Event>,
}

fn is_explained(initial: &State, done: &[Done], last: &State, exclusion: bool) -> bool {
    let events = done
        .iter()
        .enumerate()
        .filter(|(_, done)| done.began)
        .flat_map(|(at, done)| match done.operation {
            Update => {
                vec![Event { done: at, half: Half::Read }, Event { done: at, half: Half::Publish }]
            }
            _ => vec![Event { done: at, half: Half::Whole }],
        })
        .collect();
    let search = Search { done, last, exclusion, events };
    let used = vec![false; search.events.len()];
    search.go(initial.clone(), used, vec![None; done.len()])
}

impl Search<'_> {
    /// `read`: what an update that has not published yet has read.
    fn go(&self, state: State, used: Vec<bool>, read: Vec<Option<State>>) -> bool {
        if used.iter().all(|&used| used) {
            return state == *self.last;
        }
        (0..self.events.len()).any(|at| {
            if used[at] || !self.may_be_next(at, &used) {
                return false;
            }
            let Event { done, half } = self.events[at];
            let operation = &self.done[done];
            let mut used = used.clone();
            used[at] = true;
            let next = |state, read| self.go(state, used.clone(), read);
            // Killed: it may have had no effect.
            let is_killed = operation.result.is_none();
            if is_killed && next(state.clone(), read.clone()) {
                return true;
            }
            let result = operation.result.as_deref();
            let says = |expected: &str| match result {
                None => true,
                Some(result) => {
                    result == expected
                        || expected.starts_with("error ") && result.starts_with(expected)
                }
            };
            match half {
                Half::Whole => {
                    let (expected, after) = operation.operation.apply(&operation.name, &state);
                    says(&expected) && next(after, read.clone())
                }
                Half::Read => {
                    let mut read = read.clone();
                    read[done] = Some(state.clone());
                    next(state.clone(), read)
                }
                Half::Publish => {
                    let Some(old) = &read[done] else { return false };
                    let (expected, after) = operation.operation.apply(&operation.name, old);
                    let gave_up = ["error ResourceBusy", "error AlreadyExists", "error NotFound"];
                    let gave_up = result.is_some_and(|result| {
                        gave_up.iter().any(|known| result.starts_with(known))
                    });
                    // Somebody who asks for no lock was faster, which is seen, or not.
                    if gave_up {
                        return *old != state && next(state.clone(), read.clone());
                    }
                    says(&expected)
                        && next(if expected == "ok" { after } else { state.clone() }, read.clone())
                }
            }
        })
    }

    fn may_be_next(&self, at: usize, used: &[bool]) -> bool {
        let Event { done, half } = self.events[at];
        let me = &self.done[done];
        self.events.iter().enumerate().all(|(other_at, other)| {
            if other_at == at {
                return true;
            }
            let they = &self.done[other.done];
            if other.done == done {
                // Reading comes first.
                return half == Half::Read || used[other_at];
            }
            // One that ended before this one began comes before it.
            let before = they.result.is_some() && they.last_step < me.first_step;
            if before && !used[other_at] {
                return false;
            }
            // Nobody who asks for the lock comes between the halves of an update.
            let mut halves = self.events.iter().enumerate().filter(|(_, e)| e.done == other.done);
            let is_between = other.half != Half::Whole
                && halves.clone().any(|(i, _)| used[i])
                && halves.any(|(i, _)| !used[i]);
            let both = self.exclusion && me.operation.is_exclusive();
            !(both && is_between && they.result.is_some())
        })
    }
}
