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
    /// The destination was replaced or removed since it was read, by one who does not ask for its
    /// lock.
    ReplacedMeanwhile,
    /// The destination was created since the call started, by one who does not ask for its lock.
    CreatedMeanwhile,
    /// The call is inside a closure that creates or updates the same file.
    WaitsForItself,
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
        f.write_str(match self {
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
            Hint::NothingWritten => {
                "the closure returned `Ok`, but left nothing at the path it was given"
            }
            Hint::WrongKind => {
                "the closure left something of another kind at the path it was given"
            }
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
        })
    }
}
