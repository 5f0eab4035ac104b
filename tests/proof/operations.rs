//! What is put through the proof. One more operation is one more entry in `OPERATIONS`.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use rustix::fs::{AtFlags, Mode, OFlags};
use write_atomically::{
    Change, Durability, WriteOptions, create_atomically, update_atomically, write_atomically,
    write_batch, write_dir_atomically, write_if_changed, write_if_missing, write_path_atomically,
};

use crate::content::{content, version};

pub struct Operation {
    pub name: &'static str,
    pub who: Who,
    /// What a power cut may do to it.
    pub promise: Promise,
    pub shape: Shape,
    /// Whether there is something at the destination to begin with.
    pub replaces: bool,
    /// What the kernel pretends not to have.
    pub without: &'static [Missing],
    /// Whether a kill may leave a lock entry beside the destination, as well as a staging entry.
    pub locks: bool,
    /// Whether the closure opens and writes files itself, so that their errors are its own.
    pub own_io: bool,
    /// Writes this version into the directory.
    pub run: fn(&Path, u32) -> anyhow::Result<()>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    Crate,
    /// The right calls in the right order, by hand: shows that the machinery accuses nobody falsely.
    ByHand,
    /// Leaves something out, and must be caught on these filesystems.
    Control {
        caught_on: &'static [&'static str],
    },
    Peer {
        documents: &'static str,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promise {
    /// A call that has returned survives.
    Durable,
    /// Old or new, whole.
    Consistent,
}

/// What a version looks like in the directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// `file`, replaced again and again.
    File,
    /// `file-1`, `file-2` and so on: each version is a new file.
    NewFiles,
    /// The files of `tree/`, which change together.
    Tree,
    /// Several files, each of which is old or new.
    Several,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// `O_TMPFILE`, as on NFS, vfat, overlays of old.
    UnnamedFiles,
    /// linkat(2) from a bare descriptor, as before Linux 6.10 without the capability.
    LinkByDescriptor,
    /// renameat2(2), which filesystems may refuse.
    RenameFlags,
}

impl Shape {
    /// The destinations of a version.
    pub fn files(self, version: u32) -> Vec<String> {
        match self {
            Shape::File => vec!["file".into()],
            Shape::NewFiles => vec![format!("file-{version}")],
            Shape::Tree => TREE.map(String::from).to_vec(),
            Shape::Several => SEVERAL.map(String::from).to_vec(),
        }
    }
}

pub const TREE: [&str; 3] = ["tree/first", "tree/second", "tree/below/third"];
pub const SEVERAL: [&str; 2] = ["one", "other/two"];

const CRATE: Operation = Operation {
    name: "",
    who: Who::Crate,
    promise: Promise::Durable,
    shape: Shape::File,
    replaces: true,
    without: &[],
    locks: false,
    own_io: false,
    run: replace,
};

const NEW_AND_LOCKED: Operation =
    Operation { shape: Shape::NewFiles, replaces: false, locks: true, ..CRATE };

/// Everywhere but on ext4 as it comes, whose `auto_da_alloc` writes a renamed file's data out:
/// ext4(5).
const WHERE_DATA_IS_LATE: &[&str] = &["ext4-noauto_da_alloc", "ext4-writeback", "xfs", "btrfs"];
const EVERYWHERE: &[&str] = &["ext4", "ext4-noauto_da_alloc", "ext4-writeback", "xfs", "btrfs"];

pub const OPERATIONS: &[Operation] = &[
    Operation { name: "replace", ..CRATE },
    Operation { name: "create", shape: Shape::NewFiles, replaces: false, run: create, ..CRATE },
    Operation { name: "replace, staged by name", without: &[Missing::UnnamedFiles], ..CRATE },
    Operation {
        name: "create, staged by name",
        shape: Shape::NewFiles,
        replaces: false,
        without: &[Missing::UnnamedFiles],
        run: create,
        ..CRATE
    },
    Operation {
        name: "create, staged by name, no renameat2",
        shape: Shape::NewFiles,
        replaces: false,
        without: &[Missing::UnnamedFiles, Missing::RenameFlags],
        run: create,
        ..CRATE
    },
    Operation { name: "replace, linked by /proc", without: &[Missing::LinkByDescriptor], ..CRATE },
    Operation {
        name: "replace, consistent",
        promise: Promise::Consistent,
        run: consistent,
        ..CRATE
    },
    Operation { name: "replace, no links", run: no_links, ..CRATE },
    Operation {
        name: "replace, no links, staged by name",
        without: &[Missing::UnnamedFiles],
        run: no_links,
        ..CRATE
    },
    Operation { name: "if missing", run: if_missing, ..NEW_AND_LOCKED },
    Operation {
        name: "if missing, staged by name",
        without: &[Missing::UnnamedFiles],
        run: if_missing,
        ..NEW_AND_LOCKED
    },
    Operation { name: "if changed", run: if_changed, ..CRATE },
    Operation {
        name: "if changed, staged by name",
        without: &[Missing::UnnamedFiles],
        run: if_changed,
        ..CRATE
    },
    Operation { name: "update", locks: true, run: update, ..CRATE },
    Operation {
        name: "update, staged by name",
        locks: true,
        without: &[Missing::UnnamedFiles],
        run: update,
        ..CRATE
    },
    Operation { name: "by path", own_io: true, run: by_path, ..CRATE },
    Operation { name: "directory", shape: Shape::Tree, own_io: true, run: tree, ..CRATE },
    Operation { name: "batch", shape: Shape::Several, run: batch, ..CRATE },
    Operation {
        name: "batch, staged by name",
        shape: Shape::Several,
        without: &[Missing::UnnamedFiles],
        run: batch,
        ..CRATE
    },
    Operation { name: "update of nothing", run: update_of_nothing, ..NEW_AND_LOCKED },
    Operation { name: "by hand", who: Who::ByHand, run: |d, v| by_hand(d, v, true, true), ..CRATE },
    Operation {
        name: "by hand, no file sync",
        who: Who::Control { caught_on: WHERE_DATA_IS_LATE },
        run: |d, v| by_hand(d, v, false, true),
        ..CRATE
    },
    Operation {
        name: "by hand, no directory sync",
        who: Who::Control { caught_on: EVERYWHERE },
        run: |d, v| by_hand(d, v, true, false),
        ..CRATE
    },
    Operation {
        name: "by hand, no sync",
        who: Who::Control { caught_on: EVERYWHERE },
        run: |d, v| by_hand(d, v, false, false),
        ..CRATE
    },
    Operation {
        name: "std::fs::write in place",
        who: Who::Control { caught_on: EVERYWHERE },
        run: in_place,
        ..CRATE
    },
    Operation {
        name: "atomic-write-file",
        who: Who::Peer { documents: "durable" },
        run: peer_atomic_write_file,
        ..CRATE
    },
    Operation {
        name: "atomicwrites",
        who: Who::Peer { documents: "durable" },
        run: peer_atomicwrites,
        ..CRATE
    },
    Operation {
        name: "cap-std-ext",
        who: Who::Peer { documents: "durable" },
        run: peer_cap_std_ext,
        ..CRATE
    },
    Operation {
        name: "tempfile, persist",
        who: Who::Peer { documents: "atomic; says nothing of durability" },
        promise: Promise::Consistent,
        run: |d, v| peer_tempfile(d, v, false),
        ..CRATE
    },
    Operation {
        name: "tempfile, sync_all and persist",
        who: Who::Peer { documents: "atomic; the caller syncs the file" },
        promise: Promise::Consistent,
        run: |d, v| peer_tempfile(d, v, true),
        ..CRATE
    },
];

pub fn find(name: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name)
}

/// Neither what a new file gets nor what a staging file has.
pub const START_MODE: u32 = 0o640;

/// What is there before the first version, as any program would have put it.
pub fn start(operation: &Operation, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    if operation.shape == Shape::Several {
        fs::create_dir_all(directory.join("other"))?;
    }
    if operation.replaces {
        for file in operation.shape.files(0) {
            let path = directory.join(&file);
            fs::create_dir_all(path.parent().unwrap())?;
            fs::write(&path, content(0, &file))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(START_MODE))?;
        }
    }
    Ok(())
}

/// One more call of the same kind, after which nothing may be left over. `started` is the version
/// that was being written when the last one ended.
pub fn one_more_call(operation: &Operation, directory: &Path, started: u32) -> anyhow::Result<()> {
    if operation.shape != Shape::NewFiles {
        return (operation.run)(directory, started + 1);
    }
    let file = format!("file-{started}");
    match directory.join(&file).exists() {
        false => (operation.run)(directory, started),
        // Those who lock look for the lock entry of one who was killed.
        true if operation.locks => update_atomically(directory.join(&file), |_, w| {
            Ok(w.write_all(&content(started, &file))?)
        }),
        true => Ok(write_atomically::write(directory.join(&file), content(started, &file))?),
    }
}

fn replace(directory: &Path, version: u32) -> anyhow::Result<()> {
    write_atomically(directory.join("file"), |w| Ok(write_in_parts(w, &content(version, "file"))?))
}

fn create(directory: &Path, version: u32) -> anyhow::Result<()> {
    let file = format!("file-{version}");
    create_atomically(directory.join(&file), |w| Ok(write_in_parts(w, &content(version, &file))?))
}

fn consistent(directory: &Path, version: u32) -> anyhow::Result<()> {
    WriteOptions::new()
        .anyhow()
        .durability(Durability::Consistent)
        .write(directory.join("file"), |w| Ok(write_in_parts(w, &content(version, "file"))?))
}

fn no_links(directory: &Path, version: u32) -> anyhow::Result<()> {
    WriteOptions::new()
        .anyhow()
        .follow_symlinks(false)
        .write(directory.join("file"), |w| Ok(write_in_parts(w, &content(version, "file"))?))
}

fn if_missing(directory: &Path, version: u32) -> anyhow::Result<()> {
    let file = format!("file-{version}");
    let written = write_if_missing(directory.join(&file), |w| {
        Ok(write_in_parts(w, &content(version, &file))?)
    })?;
    written.context("it was not missing")
}

fn if_changed(directory: &Path, version: u32) -> anyhow::Result<()> {
    let written = write_if_changed(directory.join("file"), |w| {
        Ok(write_in_parts(w, &content(version, "file"))?)
    })?;
    match written {
        Change::Written(()) => Ok(()),
        _ => bail!("another version is a change"),
    }
}

fn update(directory: &Path, version: u32) -> anyhow::Result<()> {
    update_atomically(directory.join("file"), |old, w| {
        let mut found = Vec::new();
        old.context("nothing to update")?.read_to_end(&mut found)?;
        self::version(&found, "file", version).context("the old content is not whole")?;
        Ok(write_in_parts(w, &content(version, "file"))?)
    })
}

fn by_path(directory: &Path, version: u32) -> anyhow::Result<()> {
    write_path_atomically(directory.join("file"), |path| {
        Ok(fs::write(path, content(version, "file"))?)
    })
}

fn tree(directory: &Path, version: u32) -> anyhow::Result<()> {
    write_dir_atomically(directory.join("tree"), |staged| {
        fs::create_dir(staged.join("below"))?;
        for file in TREE {
            let path = staged.join(Path::new(file).strip_prefix("tree")?);
            fs::write(path, content(version, file))?;
        }
        Ok(())
    })
}

fn batch(directory: &Path, version: u32) -> anyhow::Result<()> {
    write_batch(|batch| {
        for file in SEVERAL {
            batch.write(directory.join(file), |w| {
                write_in_parts(w, &content(version, file))?;
                Ok(())
            })?;
        }
        Ok(())
    })
}

fn update_of_nothing(directory: &Path, version: u32) -> anyhow::Result<()> {
    let file = format!("file-{version}");
    update_atomically(directory.join(&file), |old, w| {
        ensure!(old.is_none(), "there was nothing to update");
        Ok(write_in_parts(w, &content(version, &file))?)
    })
}

/// More than one write, the last not at the end.
fn write_in_parts(w: &mut (impl Write + Seek), content: &[u8]) -> io::Result<()> {
    let (first, rest) = content.split_at(content.len() / 3);
    w.seek(io::SeekFrom::Start(first.len() as u64))?;
    w.write_all(rest)?;
    w.seek(io::SeekFrom::Start(0))?;
    w.write_all(first)
}

/// open(2) shows the first half, rename(2) and fsync(2) demand the rest.
fn by_hand(directory: &Path, version: u32, sync: bool, sync_directory: bool) -> anyhow::Result<()> {
    let pinned = File::open(directory)?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(&pinned, ".", flags, Mode::from(0o644))?);
    file.write_all(&content(version, "file"))?;
    if sync {
        rustix::fs::fdatasync(&file)?;
    }
    let staged = ".file.staged";
    match rustix::fs::unlinkat(&pinned, staged, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::fs::linkat(&file, "", &pinned, staged, AtFlags::EMPTY_PATH)?;
    rustix::fs::renameat(&pinned, staged, &pinned, "file")?;
    if sync_directory {
        rustix::fs::fsync(&pinned)?;
    }
    Ok(())
}

fn in_place(directory: &Path, version: u32) -> anyhow::Result<()> {
    Ok(fs::write(directory.join("file"), content(version, "file"))?)
}

fn peer_atomic_write_file(directory: &Path, version: u32) -> anyhow::Result<()> {
    let mut file = atomic_write_file::AtomicWriteFile::open(directory.join("file"))?;
    file.write_all(&content(version, "file"))?;
    Ok(file.commit()?)
}

fn peer_atomicwrites(directory: &Path, version: u32) -> anyhow::Result<()> {
    use atomicwrites::{AtomicFile, OverwriteBehavior::AllowOverwrite};
    let file = AtomicFile::new(directory.join("file"), AllowOverwrite);
    Ok(file.write(|f| f.write_all(&content(version, "file")))?)
}

fn peer_cap_std_ext(directory: &Path, version: u32) -> anyhow::Result<()> {
    use cap_std_ext::cap_std::{ambient_authority, fs::Dir};
    use cap_std_ext::dirext::CapStdExtDirExt;
    let directory = Dir::open_ambient_dir(directory, ambient_authority())?;
    Ok(directory.atomic_replace_with("file", |w| w.write_all(&content(version, "file")))?)
}

fn peer_tempfile(directory: &Path, version: u32, sync: bool) -> anyhow::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&content(version, "file"))?;
    if sync {
        file.as_file().sync_all()?;
    }
    file.persist(directory.join("file"))?;
    Ok(())
}
