//! What programs do to which a path is given.

use std::io;
use std::path::Path;

use fs_err as fs;
use write_atomically::write;

/// Ways to leave a whole file at a path, and more.
pub fn produce(how: &str, staged: &Path) -> io::Result<()> {
    let beside = |name: &str| staged.with_file_name(name);
    match how {
        "plain" => {}
        "by renaming another over it" => {
            fs::write(staged, "half")?;
            fs::write(beside("other"), "new")?;
            return fs::rename(beside("other"), staged);
        }
        "with side files" => {
            fs::write(beside("file.bak"), "journal")?;
            set_read_only(&beside("file.bak"));
            fs::create_dir_all(beside("parts/1/2/3/4/5/6/7"))?;
            fs::write(beside("parts/1/2/3/4/5/6/7/8"), "part")?;
            set_read_only(&beside("parts/1/2/3"));
            leave_what_only_unix_has(&beside("parts"))?;
        }
        "with a backup that is a link" => {
            fs::write(staged, "new")?;
            return fs::hard_link(staged, beside("file~"));
        }
        "without write permission" => {
            fs::write(staged, "new")?;
            set_read_only(staged);
            return Ok(());
        }
        "calling the library" => return write(staged, "new"),
        how => panic!("{how}"),
    }
    fs::write(staged, "new")
}

/// Links, a FIFO, and directories that are closed to their owner.
#[cfg(unix)]
fn leave_what_only_unix_has(parts: &Path) -> io::Result<()> {
    use fs_err::os::unix::fs::symlink;
    symlink("../neighbour", parts.with_file_name("link"))?;
    symlink("..", parts.join("up"))?;
    crate::trees::make_fifo(&parts.with_file_name("fifo"));
    crate::support::set_mode(&parts.join("1"), 0o500);
    crate::support::set_mode(parts, 0o000);
    Ok(())
}

#[cfg(not(unix))]
fn leave_what_only_unix_has(_: &Path) -> io::Result<()> {
    Ok(())
}

pub fn set_read_only(path: &Path) {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(path, permissions).unwrap();
}
