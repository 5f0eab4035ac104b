//! What the tests share: directories to look at, child processes to end in every way.
#![allow(dead_code)] // Each test file uses a part.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
#[cfg(unix)]
use std::os::fd::AsRawFd;
#[cfg(unix)]
use std::os::unix::fs::{MetadataExt, PermissionsExt};
#[cfg(unix)]
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
#[cfg(unix)]
use std::sync::OnceLock;

#[cfg(unix)]
use rustix::fs::FlockOperation;
use tempfile::TempDir;

/// A directory that goes with the test, and says what is in it.
pub struct Directory {
    directory: TempDir,
}

impl Directory {
    /// On whatever filesystem temporary files are on.
    pub fn new() -> Directory {
        match cfg!(target_os = "wasi") {
            // `std::env::temp_dir` panics there.
            true => Directory::in_parent(Path::new("/tmp")),
            false => Directory::in_parent(&env::temp_dir()),
        }
    }

    /// On one of the filesystems that `tests/privileged` mounts; `here` is where that is not needed.
    pub fn on(filesystem: &str) -> Directory {
        match filesystem {
            "here" => Directory::new(),
            mounted => Directory::in_parent(&mounts().join(mounted)),
        }
    }

    /// In memory, and so on another filesystem than ordinary files are.
    pub fn on_memory() -> Directory {
        Directory::in_parent(Path::new("/dev/shm"))
    }

    fn in_parent(parent: &Path) -> Directory {
        let directory = TempDir::new_in(parent).expect("a temporary directory");
        // `TempDir` makes it private; the tests that act as other users need to get in.
        #[cfg(unix)]
        set_mode(directory.path(), 0o755);
        Directory { directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// The path of a new file.
    pub fn file(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// The names in it, in order.
    pub fn listing(&self) -> Vec<String> {
        listing(self.path())
    }
}

pub fn listing(directory: &Path) -> Vec<String> {
    let names = || {
        let names = fs::read_dir(directory).unwrap();
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<_> = names.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    };
    // libfuse renames a file that is open instead of removing it, and removes it once the kernel has
    // told it that the file was closed, which may be a moment later.
    for _ in 0..1000 {
        if !names().iter().any(|name| name.starts_with(".fuse_hidden")) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    names()
}

/// A directory with a neighbour that is to stay as it is and, perhaps, a destination.
pub fn prepare(filesystem: &str, name: &str, old: Option<&str>) -> Directory {
    let directory = Directory::on(filesystem);
    directory.file("neighbour", "untouched");
    if let Some(old) = old {
        directory.file(name, old);
    }
    directory
}

/// The whole state: the listing, the destination's content, and its neighbour's.
#[track_caller]
pub fn assert_state(directory: &Directory, name: &str, content: Option<&str>) {
    let expected: &[&str] = if content.is_some() { &[name, "neighbour"] } else { &["neighbour"] };
    assert_eq!(directory.listing(), expected);
    assert_destination(directory, name, content);
}

/// The same, whatever else may be there.
#[track_caller]
pub fn assert_destination(directory: &Directory, name: &str, content: Option<&str>) {
    let path = directory.join(name);
    assert_eq!(path.exists(), content.is_some());
    if let Some(content) = content {
        assert!(read(&path) == content, "neither whole nor expected");
    }
    assert_eq!(read(&directory.join("neighbour")), "untouched");
}

/// Where `tests/privileged` has mounted its filesystems.
pub fn mounts() -> PathBuf {
    env::var_os("WRITE_ATOMICALLY_MOUNTS").expect("run by tests/privileged").into()
}

#[cfg(unix)]
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Permission bits, set-ID and sticky bits included.
#[cfg(unix)]
pub fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[cfg(unix)]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A user without any rights; the tests that act as a user do so as this one when they run as root.
pub const NOBODY: u32 = 65534;

/// This test program again, to run only the test function `child`, which finds out from the
/// arguments what it is to do.
pub struct Child {
    command: Command,
}

impl Child {
    pub fn new(role: &str, path: &Path) -> Child {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
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
        match is_root() {
            true => self.by_user(NOBODY, NOBODY),
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

/// A mount that goes with the test. Needs root, in a mount namespace of its own.
#[cfg(unix)]
pub struct Mount {
    at: PathBuf,
}

#[cfg(unix)]
impl Mount {
    pub fn bind(from: &Path, at: &Path) -> Mount {
        run(Command::new("mount").arg("--bind").args([from, at]));
        Mount { at: at.to_owned() }
    }

    /// A filesystem in memory, of so many bytes.
    pub fn memory(at: &Path, size: u64) -> Mount {
        let size = format!("size={size}");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(at));
        Mount { at: at.to_owned() }
    }

    /// An overlay: `upper` and `work` have to be on one filesystem.
    pub fn overlay(lower: &Path, upper: &Path, work: &Path, at: &Path) -> Mount {
        let [lower, upper, work] = [lower, upper, work].map(Path::display);
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        run(Command::new("mount").args(["-t", "overlay", "-o", &options, "none"]).arg(at));
        Mount { at: at.to_owned() }
    }

    pub fn make_read_only(&self) {
        run(Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&self.at));
    }
}

#[cfg(unix)]
impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(stdout).unwrap()
}

/// What strace(1) says of a child. `arguments`: options, or the beginning of the command.
pub fn strace(arguments: &[&str], role: &str, path: &Path) -> String {
    let child = Child::new(role, path).command();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(log.path()).args(arguments);
    strace.arg(child.get_program()).args(child.get_args());
    for (name, value) in child.get_envs() {
        strace.env(name, value.unwrap_or_default());
    }
    run(&mut strace);
    read(log.path())
}
