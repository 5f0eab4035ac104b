//! Staging entries: what they are called, who holds them, and who may remove a dead one.
//!
//! A staging entry is a name in the destination's directory that leads to content which is not
//! published yet. Its name is derived from the destination's, so that the next writer finds a dead
//! one without a scan. The one who holds the lock of what it leads to is alive.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::platform::{self, Code, Directory, Kind, Lock, Stat};
use crate::target::Target;
use crate::tree;

/// A name that goes when it is dropped, unless it has been published.
#[derive(Debug)]
pub(crate) struct StagingEntry {
    pub(crate) directory: Arc<Directory>,
    pub(crate) name: PathBuf,
}

impl StagingEntry {
    /// The name is somebody else's concern now: it has been renamed to the destination's.
    pub(crate) fn published(self) {
        self.keep();
    }

    /// The name stays, and is the caller's to remove.
    pub(crate) fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.name)
    }
}

impl Drop for StagingEntry {
    fn drop(&mut self) {
        if !self.name.as_os_str().is_empty() {
            let _ = platform::remove(&self.directory, &self.name);
        }
    }
}

/// Creates a staging file that has a name from the start.
pub(crate) fn create(target: &Target, mode: u32) -> io::Result<(File, StagingEntry)> {
    let claim = Claim { target };
    let staged = claim.try_names(Patience::NONE, |name| {
        let file = platform::stage_named(&target.directory, name, mode)?;
        let entry = StagingEntry { directory: target.directory.clone(), name: name.to_owned() };
        match platform::try_lock(&file) {
            Lock::Held if leads_to(&target.directory, name, &file)? => {}
            Lock::Unsupported => {}
            // Another writer locked it between its creation and our lock, took it for dead, and
            // removes it.
            Lock::Held | Lock::Busy => {
                entry.published();
                return Err(io::ErrorKind::AlreadyExists.into());
            }
        }
        Ok((file, entry))
    })?;
    claim.sweep_except(&staged.1.name);
    Ok(staged)
}

/// The mode of a staging directory. The sticky bit means nothing to a directory that only its owner can
/// enter, and so tells ours from a user's own: in a shared directory, others could rename one of those
/// to a staging name, and nobody but us would then remove it with all that is in it.
const PRIVATE: u32 = 0o1700;

/// Creates a directory that only the caller's user can enter, for what has to be staged by path, or
/// in numbers. It is alive as long as the descriptor is open.
pub(crate) fn create_directory(target: &Target) -> io::Result<(Directory, PathBuf)> {
    if !platform::HAS_PRIVATE_DIRECTORIES {
        return Err(platform::error(Code::Unsupported));
    }
    let claim = Claim { target };
    let (staged, name) = claim.try_names(Patience::NONE, |name| {
        platform::make_directory(&target.directory, name, PRIVATE)?;
        use io::ErrorKind::{AlreadyExists, NotFound, WouldBlock};
        let (directory, lock) = match platform::hold_directory(&target.directory, name) {
            Ok(held) => held,
            // Another writer took it for dead before our lock, and removes it.
            Err(e) if matches!(e.kind(), NotFound | WouldBlock) => return Err(AlreadyExists.into()),
            Err(error) => {
                let _ = platform::remove_directory(&target.directory, name);
                return Err(error);
            }
        };
        if lock == Lock::Held && !leads_to_directory(&target.directory, name, &directory)? {
            return Err(AlreadyExists.into());
        }
        mark(&directory);
        Ok((directory, name.to_owned()))
    })?;
    claim.sweep_except(&name);
    Ok((staged, name))
}

/// mkdir(2): how the sticky bit is honored is for the system to say; some BSDs and some FUSE filesystems
/// drop it. Without it the directory does all but be found when it is dead.
fn mark(directory: &Directory) {
    if let Ok(stat) = platform::stat_directory(directory) {
        if stat.mode & 0o1777 != PRIVATE {
            let _ = platform::set_directory_mode(directory, stat.mode & 0o7000 | PRIVATE);
        }
    }
}

/// The name of a file inside a staging directory whose lock says, as the directory's own does, that
/// the writer is alive: links to one file can stand in more directories than there are descriptors.
pub(crate) const ALIVE: &str = "alive";

/// Gives an unnamed staging file a name, for as long as it takes to rename it.
pub(crate) fn link(target: &Target, file: &File) -> io::Result<StagingEntry> {
    // Nobody else has this file: the lock is ours, or there are no locks here.
    platform::try_lock(file);
    Claim { target }.try_names(Patience::BRIEF, |name| {
        platform::link(file, &target.directory, name)?;
        Ok(StagingEntry { directory: target.directory.clone(), name: name.to_owned() })
    })
}

/// Removes what a killed writer may have left of an earlier attempt on this destination.
pub(crate) fn sweep(target: &Target) {
    let claim = Claim { target };
    let _ = claim.clear_dead(&claim.name(0));
}

/// Removes the entry of that name, if nobody alive holds it.
pub(crate) fn remove_dead(target: &Target, name: &Path) {
    let _ = Claim { target }.clear_dead(name);
}

/// The same, unless the caller itself holds that name.
pub(crate) fn sweep_unless(target: &Target, held: &Path) {
    if staging_name(target.file_name(), 0) != held {
        sweep(target);
    }
}

/// How long to wait for the one who holds a name.
struct Patience {
    tries: u32,
}

impl Patience {
    /// The holder's closure may run for hours.
    const NONE: Patience = Patience { tries: 0 };
    /// The holder is about to rename it: between the two calls it does nothing else. One that was
    /// stopped there must not stop others, so there is an end.
    const BRIEF: Patience = Patience { tries: 500 };

    fn wait(&mut self) -> bool {
        if self.tries == 0 {
            return false;
        }
        self.tries -= 1;
        match self.tries > 400 {
            true => thread::yield_now(),
            false => thread::sleep(Duration::from_millis(1)),
        }
        true
    }
}

/// What is known of the entry at a staging name.
#[derive(PartialEq, Eq)]
enum Found {
    Nothing,
    Alive,
    /// Another user's, or nothing that can be locked: not ours to judge.
    Foreign,
}

/// The attempt to take one of a destination's staging names.
struct Claim<'t> {
    target: &'t Target,
}

/// So many writers of one destination can be killed at once without leaving anything that the next
/// one would not find.
const NAMES: u32 = 4;

impl Claim<'_> {
    fn name(&self, nth: u32) -> PathBuf {
        staging_name(self.target.file_name(), nth)
    }

    /// Takes the first name that is free, or whose entry is dead.
    fn try_names<T>(
        &self,
        mut patience: Patience,
        mut take: impl FnMut(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        for nth in 0..NAMES {
            let name = self.name(nth);
            loop {
                match take(&name) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    taken => return taken,
                }
                match self.clear_dead(&name)? {
                    Found::Nothing => {}
                    Found::Alive if patience.wait() => {}
                    Found::Alive | Found::Foreign => break,
                }
            }
        }
        // All taken, by the living or by somebody who plants entries: use a name that nobody knows.
        take(&staging_name(self.target.file_name(), random()))
    }

    fn sweep_except(&self, taken: &Path) {
        for nth in 0..NAMES {
            let name = self.name(nth);
            if name != taken {
                let _ = self.clear_dead(&name);
            }
        }
    }

    /// Removes the entry at a staging name if nobody alive holds it.
    ///
    /// Only who has its lock may: the lock goes with the process. And only after looking again,
    /// locked: the name may lead to somebody else's file by now.
    fn clear_dead(&self, name: &Path) -> io::Result<Found> {
        let directory = &self.target.directory;
        let Some(stat) = platform::stat(directory, name)? else { return Ok(Found::Nothing) };
        if !self.may_remove(&stat) {
            return Ok(Found::Foreign);
        }
        if stat.kind == Kind::Directory {
            return self.clear_dead_directory(name);
        }
        let file = match platform::open_to_lock(directory, name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Found::Alive),
            Err(_) => return Ok(Found::Foreign),
        };
        match platform::try_lock(&file) {
            Lock::Held => {}
            Lock::Busy => return Ok(Found::Alive),
            Lock::Unsupported => return Ok(Found::Foreign),
        }
        if leads_to(directory, name, &file)? {
            platform::remove(directory, name)?;
        }
        Ok(Found::Nothing)
    }

    fn clear_dead_directory(&self, name: &Path) -> io::Result<Found> {
        let parent = &self.target.directory;
        let directory = match platform::seize_directory(parent, name) {
            Ok((directory, Lock::Held)) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Found::Alive),
            Ok(_) | Err(_) => return Ok(Found::Foreign),
        };
        if !leads_to_directory(parent, name, &directory)? {
            return Ok(Found::Nothing);
        }
        let alive = platform::open_to_lock(&directory, Path::new(ALIVE));
        if alive.is_ok_and(|file| platform::try_lock(&file) == Lock::Busy) {
            return Ok(Found::Alive);
        }
        // What a killed writer's children still fill, or nobody may remove, must not stop others.
        match tree::remove(parent, name, Arc::new(directory)) {
            Ok(()) => Ok(Found::Nothing),
            Err(_) => Ok(Found::Foreign),
        }
    }

    /// In a directory that is shared, only one's own. Root hands its staging file to the
    /// destination's owner before it publishes, and may find it again like that.
    fn may_remove(&self, entry: &Stat) -> bool {
        let destinations_owner = self.target.found.as_ref().map(|found| found.uid);
        let user = platform::user();
        let mine = entry.uid == user;
        let handed_over = user == 0 && Some(entry.uid) == destinations_owner;
        let could_be_ours = match entry.kind {
            Kind::File => true,
            // As it was made; set-group-ID comes from the directory around it.
            Kind::Directory => entry.mode & 0o1777 == PRIVATE && !entry.mount_root,
            Kind::Symlink | Kind::Other => false,
        };
        could_be_ours && (mine || handed_over)
    }
}

fn leads_to(directory: &Directory, name: &Path, file: &File) -> io::Result<bool> {
    let opened = platform::stat_file(file)?;
    let there = platform::stat(directory, name)?;
    Ok(there.is_some_and(|there| there.is_same_file(&opened)))
}

pub(crate) fn leads_to_directory(
    parent: &Directory,
    name: &Path,
    directory: &Directory,
) -> io::Result<bool> {
    let opened = platform::stat_directory(directory)?;
    let there = platform::stat(parent, name)?;
    Ok(there.is_some_and(|there| there.is_same_file(&opened)))
}

/// `.report.csv.write-atomically`, for `report.csv`.
fn staging_name(file_name: &Path, nth: u32) -> PathBuf {
    match nth {
        0 => derived_name(file_name, ".write-atomically"),
        _ => derived_name(file_name, &format!(".write-atomically-{nth}")),
    }
}

/// A hidden name that is derived from the destination's.
///
/// Long names are cut and told apart by a hash, so that the result fits where 143 bytes are the
/// limit (eCryptfs; 255 is the usual one), and is cut between two UTF-8 characters, for the
/// filesystems that insist on them.
pub(crate) fn derived_name(file_name: &Path, suffix: &str) -> PathBuf {
    const LONGEST: usize = 80;
    let bytes = platform::name_bytes(file_name.as_os_str());
    let mut name = vec![b'.'];
    if bytes.len() <= LONGEST {
        name.extend_from_slice(bytes);
    } else {
        let is_continuation = |&byte: &u8| byte & 0xc0 == 0x80;
        let mut end = LONGEST - 17;
        while end > 0 && is_continuation(&bytes[end]) {
            end -= 1;
        }
        name.extend_from_slice(&bytes[..end]);
        name.extend_from_slice(format!("-{:016x}", hash(bytes)).as_bytes());
    }
    name.extend_from_slice(suffix.as_bytes());
    platform::name_from_bytes(name)
}

/// Fowler, Noll and Vo's hash: the same in every process and version, as `std`'s is not.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A number that others can't guess, from the system's own source by way of `std`.
pub(crate) fn random() -> u32 {
    (RandomState::new().build_hasher().finish() as u32) | 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::short("report.csv", ".report.csv.tmp")]
    #[case::the_longest_that_fits(&"n".repeat(80), &format!(".{}.tmp", "n".repeat(80)))]
    #[case::longer(&"n".repeat(81), &format!(".{}-f8d19761002fddb1.tmp", "n".repeat(63)))]
    #[case::not_within_a_character(&"ß".repeat(41), &format!(".{}-2db210a158db9a87.tmp", "ß".repeat(31)))]
    fn a_derived_name_is_the_destinations_or_its_beginning_and_a_hash(
        #[case] file_name: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(derived_name(Path::new(file_name), ".tmp"), Path::new(expected));
    }

    #[rstest]
    fn a_derived_name_fits_where_143_bytes_are_the_limit(#[values(0x80, b'n', 0xff)] byte: u8) {
        let lengths = (1..=255).map(|length| {
            let name = platform::name_from_bytes(vec![byte; length]);
            derived_name(&name, ".write-atomically-4294967295").as_os_str().len()
        });
        assert!(lengths.max() <= Some(143));
    }

    /// The test vectors of the hash's authors (draft-eastlake-fnv, FNV-1a, 64 bits).
    #[rstest]
    #[case("", 0xcbf2_9ce4_8422_2325)]
    #[case("a", 0xaf63_dc4c_8601_ec8c)]
    #[case("foobar", 0x8594_4171_f739_67e8)]
    fn the_hash_is_the_one_of_fowler_noll_and_vo(#[case] of: &str, #[case] expected: u64) {
        assert_eq!(hash(of.as_bytes()), expected);
    }

    /// Those are told by their small numbers.
    #[rstest]
    fn a_random_name_is_none_that_is_tried_first() {
        assert!((0..1000).map(|_| random()).all(|number| number >= 1 << 31));
    }
}
