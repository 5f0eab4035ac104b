//! Ways to publish a copy of a whole file, durably. With `std::fs`, because the time that a wrapper
//! adds would be counted.

use crate::floor::pin;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

pub type Way = fn(&Path, &Path) -> io::Result<()>;

pub fn ways() -> Vec<(&'static str, Way)> {
    vec![
        ("by hand: copy_file_range", |from, to| by_hand(from, to, copy_range)),
        ("by hand: FICLONE, where it works", |from, to| {
            by_hand(from, to, |from, to| Ok(fs::ioctl_ficlone(to, from)?))
        }),
        ("by hand: read and write, 256 KiB", |from, to| by_hand(from, to, read_and_write)),
        #[cfg(feature = "ours")]
        ("**write-atomically**, `copy_from`", |from, to| {
            write_atomically::WriteOptions::new()
                .write(to, |w| w.copy_from(&mut File::open(from)?).map(drop))
        }),
        #[cfg(feature = "ours")]
        ("**write-atomically**, `io::copy`", |from, to| {
            write_atomically::WriteOptions::new()
                .write(to, |w| io::copy(&mut File::open(from)?, w).map(drop))
        }),
        ("tempfile, `io::copy` to its file", |from, to| {
            let dir = to.parent().unwrap();
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            io::copy(&mut File::open(from)?, file.as_file_mut())?;
            file.as_file().sync_all()?;
            file.persist(to)?;
            File::open(dir)?.sync_all()
        }),
        ("atomicwrites, `io::copy`", |from, to| {
            let file = atomicwrites::AtomicFile::new(to, atomicwrites::AllowOverwrite);
            file.write(|file| io::copy(&mut File::open(from)?, file).map(drop))
                .map_err(io::Error::from)
        }),
        ("atomic-write-file, `io::copy`", |from, to| {
            let mut file = atomic_write_file::AtomicWriteFile::open(to)?;
            io::copy(&mut File::open(from)?, file.as_file_mut())?;
            file.commit()
        }),
        ("write_atomic::copy_file, which syncs nothing", |from, to| {
            write_atomic::copy_file(from, to)
        }),
    ]
}

fn by_hand(from: &Path, to: &Path, copy: fn(&File, &OwnedFd) -> io::Result<()>) -> io::Result<()> {
    let (dir, name) = pin(to)?;
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = fs::openat(&dir, ".", flags, Mode::from_raw_mode(0o666))?;
    copy(&File::open(from)?, &file)?;
    fs::fdatasync(&file)?;
    let staging = format!(".{name}.staged");
    fs::linkat(&file, "", &dir, &staging, AtFlags::EMPTY_PATH)?;
    fs::renameat(&dir, &staging, &dir, name)?;
    fs::fsync(&dir)?;
    Ok(())
}

fn copy_range(from: &File, to: &OwnedFd) -> io::Result<()> {
    while fs::copy_file_range(from, None, to, None, 1 << 30)? > 0 {}
    Ok(())
}

fn read_and_write(mut from: &File, to: &OwnedFd) -> io::Result<()> {
    let mut to = File::from(to.try_clone()?);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match io::Read::read(&mut from, &mut buffer)? {
            0 => return Ok(()),
            read => to.write_all(&buffer[..read])?,
        }
    }
}
