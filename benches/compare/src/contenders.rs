//! The crates that are compared, used as their documentation says: with `std::fs`, because the time
//! that a wrapper adds would be counted.

use crate::floor::body::Body;
use crate::floor::{self, Guarantee, Parts, Window};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Floor,
    FloorAgain,
    FloorKeeping,
    FloorRange,
    FloorPlain,
    Ours,
    OursCreate,
    Tempfile,
    AtomicWrites,
    AtomicWriteFile,
    AtomicWriteFileUnnamed,
    WriteAtomic,
    CapStdExt,
    FsWrite,
}

use Who::*;

/// The best for all filesystems, together with the buffer that the floor uses: see `compare windows`.
const STREAM_WINDOW: u64 = 1 << 20;

impl Who {
    pub const ALL: [Who; 14] = [
        Floor,
        FloorAgain,
        FloorKeeping,
        FloorRange,
        FloorPlain,
        Ours,
        OursCreate,
        Tempfile,
        AtomicWrites,
        AtomicWriteFile,
        AtomicWriteFileUnnamed,
        WriteAtomic,
        CapStdExt,
        FsWrite,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Floor => "floor",
            FloorAgain => "floor, again (noise)",
            FloorKeeping => "floor that keeps mode",
            FloorRange => "floor, `sync_file_range`",
            FloorPlain => "floor, no early writeback",
            Ours => "**write-atomically**",
            OursCreate => "**write-atomically**, `create`",
            Tempfile => "tempfile",
            AtomicWrites => "atomicwrites",
            AtomicWriteFile => "atomic-write-file",
            AtomicWriteFileUnnamed => "atomic-write-file 0.2, unnamed",
            WriteAtomic => "write_atomic",
            CapStdExt => "cap-std-ext",
            FsWrite => "std::fs::write",
        }
    }

    /// Which metadata of the replaced file it keeps.
    pub fn keeps(self) -> &'static str {
        match self {
            Floor | FloorAgain | FloorRange | FloorPlain => "nothing",
            FloorKeeping => "mode",
            Ours | OursCreate => "mode, owner, ACL, xattrs, links",
            Tempfile | AtomicWrites => "nothing",
            AtomicWriteFile | AtomicWriteFileUnnamed | WriteAtomic => "mode, owner",
            CapStdExt => "mode",
            FsWrite => "all but the content",
        }
    }

    /// The guarantee that it gives when `wanted` is asked for; `None` if it cannot give that, unless
    /// it is `std::fs::write`, which is measured to show the price of a guarantee.
    pub fn gives(self, wanted: Guarantee, body: &Body) -> Option<&'static str> {
        let named = match wanted {
            Guarantee::Durable => "durable",
            Guarantee::Consistent => "consistent",
            Guarantee::Relaxed => "relaxed",
        };
        match self {
            FsWrite => Some("nothing"),
            // They have no other level.
            AtomicWrites | AtomicWriteFile | AtomicWriteFileUnnamed | CapStdExt => Some("durable"),
            // It syncs nothing, and takes a slice only.
            WriteAtomic => {
                (wanted == Guarantee::Relaxed && matches!(body, Body::Whole(_))).then_some(named)
            }
            FloorRange | FloorPlain => {
                (!matches!(body, Body::Whole(_)) && wanted != Guarantee::Relaxed).then_some(named)
            }
            Ours | OursCreate if cfg!(not(feature = "ours")) => None,
            _ => Some(named),
        }
    }

    /// Writes `body` to `path`, which exists if `replace`.
    pub fn write(
        self,
        path: &Path,
        body: &Body,
        guarantee: Guarantee,
        replace: bool,
    ) -> io::Result<()> {
        let advise = Some(Window::advise(STREAM_WINDOW));
        match self {
            Floor | FloorAgain => by_hand(
                path,
                body,
                guarantee,
                replace,
                Parts { stream_window: advise, ..Parts::default() },
            ),
            FloorKeeping => by_hand(
                path,
                body,
                guarantee,
                replace,
                Parts { mode: true, stream_window: advise, ..Parts::default() },
            ),
            FloorRange => {
                let range = Some(Window::range(STREAM_WINDOW));
                by_hand(
                    path,
                    body,
                    guarantee,
                    replace,
                    Parts { stream_window: range, ..Parts::default() },
                )
            }
            FloorPlain => by_hand(path, body, guarantee, replace, Parts::default()),
            Ours => ours(path, body, guarantee, false),
            OursCreate => ours(path, body, guarantee, true),
            Tempfile => {
                let dir = path.parent().unwrap();
                let mut file = tempfile::NamedTempFile::new_in(dir)?;
                body.fill(&mut file)?;
                if guarantee != Guarantee::Relaxed {
                    file.as_file().sync_all()?;
                }
                file.persist(path)?;
                if guarantee == Guarantee::Durable {
                    File::open(dir)?.sync_all()?;
                }
                Ok(())
            }
            AtomicWrites => {
                let file = atomicwrites::AtomicFile::new(path, atomicwrites::AllowOverwrite);
                file.write(|file| body.fill(file)).map_err(io::Error::from)
            }
            AtomicWriteFile => {
                let mut file = atomic_write_file::AtomicWriteFile::open(path)?;
                body.fill(&mut file)?;
                file.commit()
            }
            AtomicWriteFileUnnamed => {
                let mut file = atomic_write_file_unnamed::AtomicWriteFile::open(path)?;
                body.fill(&mut file)?;
                file.commit()
            }
            WriteAtomic => match body {
                Body::Whole(bytes) => write_atomic::write_file(path, bytes),
                _ => unreachable!(),
            },
            CapStdExt => {
                use cap_std_ext::cap_std::{ambient_authority, fs::Dir};
                use cap_std_ext::dirext::CapStdExtDirExt;
                let dir = Dir::open_ambient_dir(path.parent().unwrap(), ambient_authority())?;
                dir.atomic_replace_with(path.file_name().unwrap(), |writer| body.fill(writer))
            }
            FsWrite => match body {
                Body::Whole(bytes) => std::fs::write(path, bytes),
                _ => {
                    let mut writer = io::BufWriter::new(File::create(path)?);
                    body.fill(&mut writer)?;
                    writer.flush()
                }
            },
        }
    }
}

fn by_hand(
    path: &Path,
    body: &Body,
    guarantee: Guarantee,
    replace: bool,
    parts: Parts,
) -> io::Result<()> {
    if replace {
        floor::replace(path, body, guarantee, parts)
    } else {
        floor::create(path, body, guarantee, parts)
    }
}

#[cfg(feature = "ours")]
fn ours(path: &Path, body: &Body, guarantee: Guarantee, create: bool) -> io::Result<()> {
    let options = write_atomically::WriteOptions::new().durability(match guarantee {
        Guarantee::Durable => write_atomically::Durability::Durable,
        Guarantee::Consistent => write_atomically::Durability::Consistent,
        Guarantee::Relaxed => write_atomically::Durability::Relaxed,
    });
    if create {
        options.create(path, |writer| body.fill(writer))
    } else {
        options.write(path, |writer| body.fill(writer))
    }
}

#[cfg(not(feature = "ours"))]
fn ours(_: &Path, _: &Body, _: Guarantee, _: bool) -> io::Result<()> {
    unreachable!()
}
