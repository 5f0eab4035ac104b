//! What is carried over from the file that is replaced, and what is dropped.
//!
//! The rule is that nobody ever gets more access than before, at no instant: a staging file with a
//! name starts with `0o600`, and gets its final mode last.

use std::fs::File;
use std::io;

use crate::platform::{Os, Platform as _, Stat};
use crate::protocol::acl::{Access, Ownership};
use crate::protocol::resolve::Destination;

const ACL: &[u8] = b"system.posix_acl_access";

/// Labels of security modules, carried over where the policy allows it. Not among them:
/// `security.capability`, `security.ima` and `security.evm`, which vouch for the old content.
const LABELS: [&[u8]; 4] =
    [b"security.selinux", b"security.SMACK64", b"security.SMACK64EXEC", b"security.SMACK64MMAP"];

/// Set-user-ID and set-group-ID are never carried over.
const CARRIED_MODE: u32 = 0o1777;

/// Whether others can open the staging file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// It has no name, or one in a private directory.
    Hidden,
    Visible,
}

/// Gives the staging file what the file at the destination has now. With `mode`, it gets exactly
/// those permission bits instead of the old ones, and no ACL.
pub(crate) fn carry_over(
    destination: &Destination,
    old: &Stat,
    file: &File,
    mode: Option<u32>,
    exposure: Exposure,
) -> io::Result<()> {
    let attributes = Attributes::of(destination)?;
    // While the file is still ours: writing `user.*` needs write access.
    attributes.carry(file, |name| name.starts_with(b"user."))?;
    Os::carry_flags_over(&destination.directory, &destination.name, file)?;
    let staged = Os::stat_file(file)?;
    let access = attributes.access(old)?;
    let apply = |now: &Stat, carried: Ownership| match mode {
        Some(mode) => set_exact_mode(file, now, mode),
        None => set_access(destination, file, now, old, access.clone(), carried),
    };
    // chmod(2), EPERM: a process that may give files away (CAP_CHOWN) but not act for their owners
    // (CAP_FOWNER), as in many containers, can't set the mode afterwards.
    let is_given_away = old.uid != staged.uid || old.gid != staged.gid;
    let is_set_before = is_given_away && exposure == Exposure::Hidden;
    if is_set_before {
        apply(&staged, Ownership { owner: true, group: true })?;
    }
    let carried = carry_owner_over(old, &staged, file)?;
    attributes.carry(file, |name| LABELS.contains(&name))?;
    match is_set_before && carried.owner && carried.group {
        true => Ok(()),
        false => apply(&if is_set_before { Os::stat_file(file)? } else { staged }, carried),
    }
}

/// The names of the old file's extended attributes.
struct Attributes<'d> {
    of: &'d Destination,
    names: Vec<Vec<u8>>,
}

impl Attributes<'_> {
    fn of(of: &Destination) -> io::Result<Attributes<'_>> {
        match Os::attributes(&of.directory, &of.name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Attributes { of, names: Vec::new() })
            }
            names => Ok(Attributes { of, names: names? }),
        }
    }

    fn read(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Os::attribute(&self.of.directory, &self.of.name, name)
    }

    fn carry(&self, file: &File, is_wanted: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        for name in self.names.iter().filter(|name| is_wanted(name)) {
            if let Some(value) = self.read(name)? {
                allowed(Os::set_attribute(file, name, &value))?;
            }
        }
        Ok(())
    }

    /// `None` for an ACL that can't be read, and may deny anything.
    fn access(&self, old: &Stat) -> io::Result<Option<Access>> {
        match self.names.iter().any(|name| name == ACL) {
            true => Ok(self.read(ACL)?.as_deref().and_then(Access::from_acl)),
            false => Ok(Some(Access::from_mode(old.mode))),
        }
    }
}

fn set_access(
    destination: &Destination,
    file: &File,
    staged: &Stat,
    old: &Stat,
    access: Option<Access>,
    carried: Ownership,
) -> io::Result<()> {
    let Some(mut access) = access else {
        return set_carried_mode(destination, file, staged, owner_only(old.mode));
    };
    access.narrow(old.uid, carried);
    match access.to_acl() {
        Some(acl) if allowed(Os::set_attribute(file, ACL, &acl))? => Ok(()),
        Some(_) => set_carried_mode(destination, file, staged, owner_only(old.mode)),
        None => set_carried_mode(
            destination,
            file,
            staged,
            access.mode() | old.mode & CARRIED_MODE & !0o777,
        ),
    }
}

/// An ACL that is not known, or can't be set, may have denied anything to anybody but the owner.
fn owner_only(mode: u32) -> u32 {
    mode & CARRIED_MODE & !0o077
}

/// The same for a directory, which also says what new entries in it get: a group, and an ACL.
pub(crate) fn carry_over_directory(
    destination: &Destination,
    old: &Stat,
    directory: &File,
    mode: Option<u32>,
) -> io::Result<()> {
    const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
    const SET_GROUP_ID: u32 = 0o2000;
    carry_over(destination, old, directory, mode, Exposure::Hidden)?;
    let new = Os::stat_file(directory)?;
    let is_same_owner = new.uid == old.uid && new.gid == old.gid;
    match Os::attribute(&destination.directory, &destination.name, DEFAULT_ACL)? {
        // Its entries for owner and group are meant for the old ones.
        Some(acl) if is_same_owner => {
            allowed(Os::set_attribute(directory, DEFAULT_ACL, &acl))?;
        }
        _ => drop(Os::remove_attribute(directory, DEFAULT_ACL)?),
    }
    // inode(7): on a directory this bit is no privilege.
    match mode.is_none() && old.mode & SET_GROUP_ID != 0 && new.gid == old.gid {
        true => Os::set_mode(directory, new.mode | SET_GROUP_ID),
        false => Ok(()),
    }
}

/// These permission bits, whatever the umask and the directory's default ACL; `now` is what the file
/// has at the moment.
pub(crate) fn set_exact_mode(file: &File, now: &Stat, mode: u32) -> io::Result<()> {
    let had_acl = Os::remove_attribute(file, ACL)?;
    match had_acl || now.mode != mode {
        true => Os::set_mode(file, mode),
        false => Ok(()),
    }
}

/// The same for bits that nobody asked for: on filesystems where a mode can't be set (fchmod(2) is ENOSYS or
/// EPERM on some FUSE filesystems and on CIFS), the file keeps the one it has, if that gives nobody more
/// access.
fn set_carried_mode(
    destination: &Destination,
    file: &File,
    now: &Stat,
    mode: u32,
) -> io::Result<()> {
    let is_narrower = now.mode & 0o777 & !mode == 0;
    match set_exact_mode(file, now, mode) {
        Err(error) if is_narrower && destination.realm().is_some() => allowed(Err(error)).map(drop),
        set => set,
    }
}

/// Lets the owner read and write a file, and nobody else, where modes can be set.
pub(crate) fn open_to_owner(file: &File) -> io::Result<()> {
    allowed(Os::set_mode(file, 0o600)).map(drop)
}

/// Gives the staging file the mode of a file that vanished while the closure ran. What ACL it had
/// can't be known any more; its group bits may have been the ACL's mask.
pub(crate) fn carry_mode_over(
    destination: &Destination,
    gone: &Stat,
    file: &File,
) -> io::Result<()> {
    let new = Os::stat_file(file)?;
    set_carried_mode(destination, file, &new, without_group(access_of(gone, &new)))
}

/// The permission bits that a new file's mode and the old file's access have in common.
pub(crate) fn common_mode(new: &Stat, old: &Stat) -> u32 {
    // The user who wrote the content can read it.
    new.mode & (without_group(access_of(old, new)) | 0o600) & 0o777
}

/// What `old` allows, for a file with the owner and group of `new`.
fn access_of(old: &Stat, new: &Stat) -> u32 {
    let mut access = Access::from_mode(old.mode);
    access.narrow(old.uid, Ownership { owner: new.uid == old.uid, group: new.gid == old.gid });
    access.mode()
}

/// Where the group bits may be an ACL's mask, the group has at most what others have.
fn without_group(mode: u32) -> u32 {
    mode & (0o707 | mode << 3 & 0o070)
}

/// Whether something was done, as opposed to being forbidden or impossible here.
fn allowed(done: io::Result<()>) -> io::Result<bool> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match done {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            // chown(2): EINVAL for an id without a mapping in this user namespace.
            PermissionDenied | Unsupported | InvalidInput => Ok(false),
            _ => Err(error),
        },
    }
}

fn carry_owner_over(old: &Stat, staged: &Stat, file: &File) -> io::Result<Ownership> {
    let owner = (old.uid != staged.uid).then_some(old.uid);
    let group = (old.gid != staged.gid).then_some(old.gid);
    if owner.is_none() && group.is_none() || allowed(Os::set_owner(file, owner, group))? {
        return Ok(Ownership { owner: true, group: true });
    }
    // chown(2): an owner may give a file to any group that the owner is in.
    let has_group =
        group.is_none() || owner.is_some() && allowed(Os::set_owner(file, None, group))?;
    Ok(Ownership { owner: owner.is_none(), group: has_group })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Kind;
    use rstest::rstest;

    const ALICE: u32 = 1; // the old owner
    const BOB: u32 = 2;
    const STAFF: u32 = 10; // the old group
    const CREW: u32 = 20;

    /// By the owner and the group of the new file.
    #[rstest]
    #[case::same_owner_and_group(0o466, ALICE, STAFF, 0o466)]
    #[case::another_owner(0o466, BOB, STAFF, 0o444)]
    #[case::another_group(0o664, ALICE, CREW, 0o644)]
    fn the_access_of_a_file_that_is_gone_is_narrowed(
        #[case] old: u32,
        #[case] uid: u32,
        #[case] gid: u32,
        #[case] expected: u32,
    ) {
        let stat = |mode, uid, gid| Stat {
            kind: Kind::File,
            mode,
            uid,
            gid,
            dev: 0,
            ino: 0,
            links: 1,
            len: 0,
            mount_root: false,
            immutable: false,
        };
        let access = access_of(&stat(old, ALICE, STAFF), &stat(0o600, uid, gid));
        assert_eq!(format!("{access:o}"), format!("{expected:o}"));
    }

    #[rstest]
    #[case(0o644, 0o600)]
    #[case(0o4777, 0o700)]
    #[case(0o1640, 0o1600)]
    fn where_an_acl_is_not_known_only_the_owner_gets_in(#[case] old: u32, #[case] new: u32) {
        assert_eq!(format!("{:o}", owner_only(old)), format!("{new:o}"));
    }
}
