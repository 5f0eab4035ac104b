//! Child processes, which end in every way: this test program again, as another process.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
#[cfg(unix)]
use std::os::fd::AsRawFd;
#[cfg(unix)]
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
#[cfg(unix)]
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use fs_err as fs;
#[cfg(unix)]
use rustix::fs::FlockOperation;
use write_atomically::Durability;

use crate::support;

/// This test program again, to run only the test function `child` of one module, which finds out from the
/// environment what it is to do.
pub struct Child {
    command: Command,
}

impl Child {
    /// `module` is that of the test, `module_path!()`: it begins with the program's name, which the names of
    /// tests do not.
    pub fn new(module: &str, role: &str, path: &Path) -> Child {
        let (_program, module) = module.split_once("::").expect("a module below the program's");
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args([
                "--exact",
                &format!("{module}::child"),
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env("WRITE_ATOMICALLY_ROLE", role)
            .env("WRITE_ATOMICALLY_PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Child { command }
    }

    /// As a user without rights, if we have any.
    #[cfg(unix)]
    pub fn by_nobody(self) -> Child {
        match support::is_root() {
            true => self.by_user(support::NOBODY, support::NOBODY),
            false => self,
        }
    }

    #[cfg(unix)]
    pub fn by_user(self, uid: u32, gid: u32) -> Child {
        let mut child = self.through(Command::new(open_program()));
        child.command.uid(uid).gid(gid);
        child
    }

    /// After these shell commands: limits, traps.
    pub fn in_shell(self, commands: &str) -> Child {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{commands}; exec \"$@\"")).arg("sh");
        shell.arg(self.command.get_program());
        self.through(shell)
    }

    /// The same arguments, environment and streams for another command.
    fn through(self, mut command: Command) -> Child {
        command.args(self.command.get_args());
        for (key, value) in self.command.get_envs() {
            command.env(key, value.unwrap_or_default());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Child { command }
    }

    pub fn command(self) -> Command {
        self.command
    }

    /// Waits until the child is inside its closure, which says `staged`. What else it says somebody has
    /// to hear: the second value stays open for that.
    pub fn spawn_staged(mut self) -> (process::Child, impl BufRead + use<>) {
        let mut child = self.command.stdout(Stdio::piped()).spawn().unwrap();
        let mut answer = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("staged") {
            line.clear();
            assert!(answer.read_line(&mut line).unwrap() > 0, "no answer");
        }
        (child, answer)
    }

    pub fn status(mut self) -> process::ExitStatus {
        self.command.status().unwrap()
    }

    /// What the child said with [`say`].
    pub fn answer(mut self) -> String {
        let output = self.command.stdout(Stdio::piped()).output().unwrap();
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer = output.split_once(MARK).unwrap_or_else(|| panic!("no answer: {output}")).1;
        answer.split_once(MARK).expect("a whole answer").0.to_owned()
    }
}

const MARK: &str = "\u{1}";

/// In a child: answers the test.
pub fn say(answer: impl std::fmt::Display) {
    println!("{MARK}{answer}{MARK}");
}

/// In the test function `child`: what to do, and where.
pub fn role() -> Option<(String, PathBuf)> {
    let role = env::var("WRITE_ATOMICALLY_ROLE").ok()?;
    Some((role, env::var_os("WRITE_ATOMICALLY_PATH").unwrap_or_default().into()))
}

/// This program, for users who can't reach its path: proc(5), the links in `/proc/self/fd` lead to the
/// file itself.
#[cfg(unix)]
fn open_program() -> String {
    static PROGRAM: OnceLock<fs::File> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| fs::File::open(env::current_exe().unwrap()).unwrap());
    format!("/proc/self/fd/{}", program.as_raw_fd())
}

/// Somebody alive who holds the lock of an entry.
#[cfg(unix)]
pub struct Living {
    file: fs::File,
}

#[cfg(unix)]
impl Living {
    pub fn holding(entry: &Path) -> Living {
        let file = fs::File::open(entry).unwrap();
        rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
        Living { file }
    }
}

#[cfg(unix)]
impl Drop for Living {
    /// Closing is not enough: a child that another test has just forked has the file open as well, until it
    /// executes its program (flock(2)).
    fn drop(&mut self) {
        rustix::fs::flock(&self.file, FlockOperation::Unlock).unwrap();
    }
}

/// In a child's closure: tells the test that it is there, and ends, or waits to be killed.
pub fn end_while_staged(end: &str) -> io::Result<()> {
    say("staged\n");
    io::stdout().flush()?;
    match end {
        "exit" => process::exit(7),
        "abort" => process::abort(),
        _ => thread::sleep(Duration::from_secs(60)),
    }
    Ok(())
}

/// The durability that a role names, or the default.
pub fn durability(role: &str) -> Durability {
    match role {
        "consistent" => Durability::Consistent,
        "relaxed" => Durability::Relaxed,
        _ => Durability::Durable,
    }
}

/// The most that this process ever had in memory, in KiB: VmHWM, proc_pid_status(5).
pub fn peak_memory() -> String {
    let status = support::read(Path::new("/proc/self/status"));
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix(" kB").unwrap().to_owned()
}

/// SIGKILL, at once.
#[cfg(unix)]
pub fn kill_this_process() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    thread::sleep(Duration::from_secs(60));
}

/// What strace(1) says of a child. `arguments`: options, or the beginning of the command.
pub fn strace(module: &str, arguments: &[&str], role: &str, path: &Path) -> String {
    let child = Child::new(module, role, path).command();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(log.path()).args(arguments);
    strace.arg(child.get_program()).args(child.get_args());
    for (name, value) in child.get_envs() {
        strace.env(name, value.unwrap_or_default());
    }
    support::run(&mut strace);
    support::read(log.path())
}

/// The names of those system calls that bring something to stable storage or move it, in the order in
/// which a child makes them, leaving out what it does before and after `mkdirat`ing and `rmdir`ing.
pub fn calls_that_matter(module: &str, role: &str, path: &Path) -> Vec<String> {
    calls_that_matter_with(module, &[], role, path)
}

/// The same with more options of strace(1).
pub fn calls_that_matter_with(
    module: &str,
    options: &[&str],
    role: &str,
    path: &Path,
) -> Vec<String> {
    let matters = ["-e", "trace=fsync,fdatasync,syncfs,renameat,renameat2,linkat"];
    let log = strace(module, &[&matters, options].concat(), role, path);
    let name =
        |line: &str| Some(line.split_once(' ')?.1.trim_start().split_once('(')?.0.to_owned());
    log.lines().filter(|line| !line.contains("+++")).filter_map(name).collect()
}

/// Lowers a limit of this process: for children.
#[cfg(unix)]
pub fn limit_descriptors(to: u64) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Nofile, Rlimit { current: Some(to), maximum: Some(to) }).unwrap();
}

/// Opens files until there are no descriptors left.
pub fn use_all_descriptors() -> Vec<fs::File> {
    std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect()
}
