//! What a user can do about an error.

use std::fmt;

/// What the user can do about an [`Error`](crate::Error), or why it is one.
///
/// [`Display`](fmt::Display) says it in a sentence for programmers; a program that has words of its
/// own for its users matches on the variants.
///
/// ```
/// use write_atomically::Hint;
///
/// let hint = Hint::MountPoint;
/// assert!(hint.to_string().contains("in_place_fallback"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hint {
    /// The destination is immutable or append-only.
    Immutable,
    /// Something is mounted at the destination: it can be written in place, but not replaced.
    MountPoint,
    /// The destination is a directory at which something is mounted.
    MountedDirectory,
    /// The destination belongs to another user and its directory is sticky: it can be written in
    /// place, but not replaced.
    StickyDirectory,
    /// As [`StickyDirectory`](Self::StickyDirectory), for a directory.
    StickyParent,
    /// The destination is a device, a FIFO, a socket or an open file, which this operation can't
    /// write into.
    NotReplaceable,
    /// The destination is not replaced but written in place, which can't happen together with the
    /// other files of a batch.
    InPlaceInBatch,
    /// The same batch has written this path already.
    AlreadyInBatch,
    /// The destination is `.`, `..` or `/`.
    NoName,
    /// The destination is a link to an open file, not to a path.
    LinkToOpenFile,
    /// The destination is a symbolic link, and links are not to be followed.
    LinkNotFollowed,
    /// Only a regular file can be updated.
    NotAFile,
    /// The directory comes from a lower layer of an overlay, which does not let it be replaced.
    LowerLayer,
    /// The system or the filesystem has no way to exchange two directories in one step.
    NoExchange,
    /// [`keep_failed`](crate::WriteOptions::keep_failed) saves files, not directories.
    KeepsOnlyFiles,
    /// [`keep_failed`](crate::WriteOptions::keep_failed) names the destination itself.
    KeptAtDestination,
    /// The closure returned `Ok`, but left nothing at the path that it was given.
    NothingWritten,
    /// The closure left something of another kind at the path that it was given.
    WrongKind,
    /// A database's journal is beside the file that the closure left: the database is still open, and
    /// the file alone is not its whole content.
    JournalLeft,
    /// The destination's directory is immutable or append-only: nothing in it can be replaced.
    ImmutableDirectory,
    /// The destination's directory does not let the caller create files: the destination can be written
    /// in place, but not replaced.
    UnwritableDirectory,
    /// The destination was replaced or removed since it was read, by one who does not ask for its
    /// lock.
    ReplacedMeanwhile,
    /// The destination was created since the call started, by one who does not ask for its lock.
    CreatedMeanwhile,
    /// The call is inside a closure that creates or updates the same file.
    WaitsForItself,
    /// The path is a part of a tree that is to be replaced, and the caller can't remove what is in it.
    Unremovable,
    /// The rest of a tree that was replaced is in a hidden directory beside the new one.
    LeftBeside,
    /// The filesystem has no locks.
    NoLocks,
    /// Another program has the file open.
    OpenElsewhere,
    /// Another program may have the file open, or deleting it is not permitted.
    MaybeOpenElsewhere,
    /// The object store does not honour the conditions of a write.
    ConditionsIgnored,
    /// The object store, or its client, can't publish an upload in parts under a condition.
    NoConditionalUpload,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            self.of_the_destination()
                .or_else(|| self.of_the_call())
                .or_else(|| self.of_the_surroundings())
                .unwrap_or_default(),
        )
    }
}

impl Hint {
    fn of_the_destination(self) -> Option<&'static str> {
        Some(match self {
            Hint::Immutable => "it is immutable or append-only; lsattr(1) shows that",
            Hint::MountPoint => {
                "it is a mount point, which can't be renamed over; \
                 `WriteOptions::in_place_fallback(true)` writes it in place"
            }
            Hint::MountedDirectory => "it is a mount point, which can't be renamed",
            Hint::StickyDirectory => {
                "it belongs to another user, in a sticky directory, and can't be renamed over; \
                 `WriteOptions::in_place_fallback(true)` writes it in place"
            }
            Hint::StickyParent => "it belongs to another user, in a sticky directory",
            Hint::NotReplaceable => {
                "it is a device, a FIFO, a socket or an open file, which can't be replaced; \
                 `write_atomically` writes into those"
            }
            Hint::InPlaceInBatch => {
                "it is written in place, and can't appear together with the other files of a batch"
            }
            Hint::AlreadyInBatch => "this batch has written it already",
            Hint::NoName => "`.`, `..` and `/` can't be replaced",
            Hint::LinkToOpenFile => "it is a link to an open file, not to a path",
            Hint::LinkNotFollowed => "it is a symbolic link, and links are not to be followed",
            Hint::NotAFile => "only a regular file can be updated",
            Hint::LowerLayer => {
                "it comes from a lower layer of an overlay (a container's image), and can be \
                 replaced only if the overlay is mounted with redirect_dir=on"
            }
            Hint::NoExchange => {
                "an existing directory can be replaced only where two directories can be exchanged \
                 in one step (on Linux, renameat2(2) with RENAME_EXCHANGE)"
            }
            Hint::KeepsOnlyFiles => "`WriteOptions::keep_failed` saves files, not directories",
            Hint::KeptAtDestination => "`WriteOptions::keep_failed` names the destination itself",
            _ => return None,
        })
    }

    fn of_the_call(self) -> Option<&'static str> {
        Some(match self {
            Hint::NothingWritten => {
                "the closure returned `Ok`, but left nothing at the path it was given"
            }
            Hint::WrongKind => {
                "the closure left something of another kind at the path it was given"
            }
            Hint::JournalLeft => {
                "a journal is beside the file that the closure left, and may hold its last changes: close \
                 the database first (SQLite: `PRAGMA wal_checkpoint(TRUNCATE)`, then close it)"
            }
            Hint::ImmutableDirectory => {
                "its directory is immutable or append-only (lsattr(1) shows that); \
                 `WriteOptions::in_place_fallback(true)` writes a file that exists in place"
            }
            Hint::UnwritableDirectory => {
                "its directory does not let this user create files, so that it can't be replaced; \
                 `WriteOptions::in_place_fallback(true)` writes it in place"
            }
            _ => return None,
        })
    }

    /// What others do, and what the filesystem or the store can't.
    fn of_the_surroundings(self) -> Option<&'static str> {
        Some(match self {
            Hint::ReplacedMeanwhile => {
                "another program, which does not ask for its lock, has replaced or removed it since \
                 it was read; publishing would lose that change"
            }
            Hint::CreatedMeanwhile => {
                "another program, which does not ask for its lock, has created it meanwhile"
            }
            Hint::WaitsForItself => {
                "the call is inside a closure that creates or updates the same file, and would wait \
                 for itself"
            }
            Hint::Unremovable => {
                "it is a part of the tree that is to be replaced, and this user can't remove what is in it"
            }
            Hint::LeftBeside => {
                "the rest of it is in the hidden directory `.NAME.write-atomically` beside it, which the next \
                 write tries to remove"
            }
            Hint::NoLocks => "this filesystem has no locks, so that updates could be lost",
            Hint::OpenElsewhere => {
                "another program has it open and does not share it: a virus scanner, a search \
                 indexer, a backup or an editor is likely"
            }
            Hint::MaybeOpenElsewhere => {
                "another program may have it open (a virus scanner, a search indexer, a backup or \
                 an editor is likely), or deleting it is not permitted"
            }
            Hint::ConditionsIgnored => {
                "only a store that honours `If-Match` and `If-None-Match` can exclude other writers"
            }
            Hint::NoConditionalUpload => {
                "this store's client can't complete an upload in parts under a condition; a larger \
                 `ObjectOptions::part_size`, and on S3 `object_store::Connector`, help"
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Hint::Immutable)]
    #[case(Hint::MountPoint)]
    #[case(Hint::MountedDirectory)]
    #[case(Hint::StickyDirectory)]
    #[case(Hint::StickyParent)]
    #[case(Hint::NotReplaceable)]
    #[case(Hint::InPlaceInBatch)]
    #[case(Hint::AlreadyInBatch)]
    #[case(Hint::NoName)]
    #[case(Hint::LinkToOpenFile)]
    #[case(Hint::LinkNotFollowed)]
    #[case(Hint::NotAFile)]
    #[case(Hint::LowerLayer)]
    #[case(Hint::NoExchange)]
    #[case(Hint::KeepsOnlyFiles)]
    #[case(Hint::KeptAtDestination)]
    #[case(Hint::NothingWritten)]
    #[case(Hint::WrongKind)]
    #[case(Hint::JournalLeft)]
    #[case(Hint::ImmutableDirectory)]
    #[case(Hint::UnwritableDirectory)]
    #[case(Hint::ReplacedMeanwhile)]
    #[case(Hint::CreatedMeanwhile)]
    #[case(Hint::WaitsForItself)]
    #[case(Hint::Unremovable)]
    #[case(Hint::LeftBeside)]
    #[case(Hint::NoLocks)]
    #[case(Hint::OpenElsewhere)]
    #[case(Hint::MaybeOpenElsewhere)]
    #[case(Hint::ConditionsIgnored)]
    #[case(Hint::NoConditionalUpload)]
    fn every_hint_has_its_words_once(#[case] hint: Hint) {
        let words = [hint.of_the_destination(), hint.of_the_call(), hint.of_the_surroundings()];
        assert_eq!(words.iter().flatten().count(), 1, "{words:?}");
    }
}
