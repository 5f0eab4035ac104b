//! What the tests of the library and of the command share: directories to look at, and mounts.

use std::env;
#[cfg(unix)]
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
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

/// Where `tests/privileged` has mounted its filesystems.
pub fn mounts() -> PathBuf {
    env::var_os("WRITE_ATOMICALLY_MOUNTS").expect("run by tests/privileged").into()
}

#[cfg(unix)]
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
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
