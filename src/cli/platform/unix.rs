//! Unix: the signals that ask a program to end, and what wait(2) says of a child.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level;

/// One that asked this program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// Ends the program by this signal, as if it had never been caught. Returns the exit status that
    /// stands for it where that is not possible: pid_namespaces(7), no signal that is not caught has an
    /// effect on process 1, as which containers run their command.
    pub fn die(self) -> i32 {
        if process::id() != 1 {
            let _ = low_level::emulate_default_handler(self.0);
        }
        128 + self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match low_level::signal_name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// The signals that ask this program to end, held back until it has cleaned up.
pub struct Signals {
    /// Set by the handler itself: when a signal to the group has ended the child, it is known here
    /// before the child's end is.
    caught: Arc<AtomicUsize>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Who is to hear of a signal.
#[derive(Default)]
struct Waiting {
    held_back: bool,
    child: Option<Pid>,
    wake: Option<Box<dyn Fn() + Send>>,
    /// Came for the child while there was none.
    undelivered: Vec<i32>,
}

impl Signals {
    pub fn catch() -> io::Result<Signals> {
        let ignored = ignored();
        let signals: Vec<i32> = [SIGINT, SIGTERM, SIGHUP]
            .into_iter()
            .filter(|signal| ignored & (1 << (signal - 1)) == 0)
            .collect();
        let caught = Arc::new(AtomicUsize::new(0));
        for &signal in &signals {
            signal_hook::flag::register_usize(signal, caught.clone(), signal as usize)?;
        }
        // waitpid(2): a child's status is thrown away where this one is ignored.
        signal_hook::flag::register(SIGCHLD, Arc::default())?;
        let mut arriving = SignalsInfo::<WithOrigin>::new(&signals)?;
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let shared = waiting.clone();
        thread::spawn(move || {
            for origin in arriving.forever() {
                // What the terminal sends (sigaction(2), SI_KERNEL: no sender) goes to the whole
                // foreground group. The command has got it, and may take a second one for "at once".
                let for_us_alone = origin.process.is_some();
                lock(&shared).deliver(origin.signal, for_us_alone);
            }
        });
        Ok(Signals { caught, waiting })
    }

    /// Until now, a signal has ended the program at once: waiting for a lock can't be interrupted, and
    /// there was nothing to clean up. From now on there is.
    pub fn hold_back(&self) {
        lock(&self.waiting).held_back = true;
    }

    /// The signal that came, if one did.
    pub fn caught(&self) -> Option<Signal> {
        match self.caught.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(Signal(signal as i32)),
        }
    }

    /// Runs a command to its end, and passes on what is sent to us meanwhile.
    pub fn run(&self, command: &mut Command) -> io::Result<ExitStatus> {
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let mut waiting = lock(&self.waiting);
        waiting.child = Some(pid);
        for signal in std::mem::take(&mut waiting.undelivered) {
            waiting.deliver(signal, true);
        }
        drop(waiting);
        self.wait(&mut child, pid)
    }

    /// While the child is not reaped, nobody else has its number.
    fn wait(&self, child: &mut Child, pid: Pid) -> io::Result<ExitStatus> {
        let until_it_ends = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let waitid = || rustix::process::waitid(WaitId::Pid(pid), until_it_ends);
        while matches!(waitid(), Err(Errno::INTR)) {}
        lock(&self.waiting).child = None;
        child.wait()
    }

    /// Does something that can't be interrupted, on a thread that is left behind when a signal comes.
    pub fn unless_caught<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Signal> {
        let (done, next) = mpsc::channel();
        let wake = done.clone();
        lock(&self.waiting).wake = Some(Box::new(move || drop(wake.send(None))));
        thread::spawn(move || done.send(Some(work())));
        loop {
            if let Some(signal) = self.caught() {
                return Err(signal);
            }
            if let Ok(Some(value)) = next.recv() {
                return Ok(value);
            }
        }
    }
}

impl Waiting {
    fn deliver(&mut self, signal: i32, for_us_alone: bool) {
        if !self.held_back {
            process::exit(Signal(signal).die());
        }
        if let Some(wake) = &self.wake {
            wake();
        }
        match self.child {
            None => self.undelivered.push(signal),
            Some(_) if !for_us_alone => {}
            Some(pid) => {
                if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
                    let _ = rustix::process::kill_process(pid, signal);
                }
            }
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The signals that this program was started to ignore (by nohup(1), or as a shell's background
/// job), as a set of bits: they stay ignored, here and in the command.
fn ignored() -> u64 {
    // proc(5). Elsewhere there is no way to ask that is not `unsafe`.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

/// As a shell has it.
pub fn exit_code(status: ExitStatus) -> i32 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    }
}

pub fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("killed by {}", Signal(signal)),
        None => format!("exit status {}", exit_code(status)),
    }
}

/// Creates a file with a mode, less the umask.
pub fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(mode).open(path)
}

/// The shell, with a path in a text for it. Standard input is empty.
pub fn shell(text: &str, path: &Path) -> Command {
    let mut script = OsString::new();
    for (nth, piece) in text.split("{}").enumerate() {
        if nth > 0 {
            script.push(quoted(path));
        }
        script.push(piece);
    }
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).stdin(Stdio::null());
    shell
}

/// In single quotes, everything but a single quote stands for itself (POSIX, "Shell Command Language").
fn quoted(path: &Path) -> OsString {
    let pieces: Vec<_> = path.as_os_str().as_bytes().split(|byte| *byte == b'\'').collect();
    OsString::from_vec([b"'", &*pieces.join(&b"'\\''"[..]), b"'"].concat())
}

/// Who has the lock of a file that this process waits for.
#[derive(Debug, PartialEq, Eq)]
pub enum Holder {
    /// This process, through a descriptor that it was started with.
    Inherited,
    /// One that has started this process, or has started one that has.
    Ancestor {
        name: String,
        id: u32,
    },
    Other {
        name: String,
        id: u32,
    },
}

/// `None` if nobody has its lock, or if the system does not tell: proc(5), `/proc/locks` and
/// `/proc/pid/fdinfo`.
pub fn lock_holder(path: &Path) -> Option<Holder> {
    let inode = fs::metadata(path).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let id = locks.lines().find_map(|line| lock_on(line, inode))?;
    if has_inherited_lock(inode) {
        return Some(Holder::Inherited);
    }
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default().trim().to_owned();
    match ancestors().any(|ancestor| ancestor == id) {
        true => Some(Holder::Ancestor { name, id }),
        false => Some(Holder::Other { name, id }),
    }
}

/// The process that has a lock of flock(2) on this file: `1: FLOCK  ADVISORY  WRITE 708 00:13:3264 0 EOF`
fn lock_on(line: &str, inode: u64) -> Option<u32> {
    let mut fields = line.split_whitespace().skip_while(|field| *field != "FLOCK").skip(3);
    let id = fields.next()?.parse().ok()?;
    (fields.next()?.rsplit(':').next()?.parse() == Ok(inode)).then_some(id)
}

fn has_inherited_lock(inode: u64) -> bool {
    let Ok(descriptors) = fs::read_dir("/proc/self/fdinfo") else { return false };
    descriptors.flatten().any(|descriptor| {
        let described = fs::read_to_string(descriptor.path()).unwrap_or_default();
        described.lines().any(|line| line.starts_with("lock:") && lock_on(line, inode).is_some())
    })
}

/// From the parent on.
fn ancestors() -> impl Iterator<Item = u32> {
    let parent = |id: &u32| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        line.trim().parse().ok().filter(|parent| *parent != 0)
    };
    std::iter::successors(Some(process::id()), parent).skip(1)
}
