//! Access control lists: reading, writing and narrowing them (acl(5)).

/// Whether the staging file has the old file's owner, and its group.
#[derive(Clone, Copy)]
pub(crate) struct Ownership {
    pub(crate) owner: bool,
    pub(crate) group: bool,
}

/// Who may do what: an ACL, or a mode seen as one (acl(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

// The numbers and the layout are those of linux/posix_acl_xattr.h: a version, then entries of
// eight bytes, all little-endian.
const VERSION: [u8; 4] = [2, 0, 0, 0];
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NO_ID: u32 = u32::MAX;

impl Access {
    pub(crate) fn from_mode(mode: u32) -> Self {
        let entry =
            |tag, shift: u32| Entry { tag, permissions: (mode >> shift & 7) as u16, id: NO_ID };
        Access { entries: vec![entry(OWNER, 6), entry(OWNING_GROUP, 3), entry(OTHER, 0)] }
    }

    pub(crate) fn from_acl(acl: &[u8]) -> Option<Self> {
        let entries = acl.strip_prefix(&VERSION)?.chunks(8).map(|chunk| {
            let [t0, t1, p0, p1, id @ ..] = *<&[u8; 8]>::try_from(chunk).ok()?;
            let (tag, permissions) = (u16::from_le_bytes([t0, t1]), u16::from_le_bytes([p0, p1]));
            Some(Entry { tag, permissions, id: u32::from_le_bytes(id) })
        });
        let access = Access { entries: entries.collect::<Option<_>>()? };
        let has = |tag| access.entries.iter().any(|entry| entry.tag == tag);
        (has(OWNER) && has(OWNING_GROUP) && has(OTHER)).then_some(access)
    }

    /// `None` if a mode says it all.
    pub(crate) fn to_acl(&self) -> Option<Vec<u8>> {
        if self.entries.len() == 3 {
            return None;
        }
        let mut acl = VERSION.to_vec();
        for Entry { tag, permissions, id } in &self.entries {
            acl.extend_from_slice(&tag.to_le_bytes());
            acl.extend_from_slice(&permissions.to_le_bytes());
            acl.extend_from_slice(&id.to_le_bytes());
        }
        Some(acl)
    }

    pub(crate) fn mode(&self) -> u32 {
        let bits = |tag| u32::from(self.permissions(tag));
        bits(OWNER) << 6 | bits(OWNING_GROUP) << 3 | bits(OTHER)
    }

    fn permissions(&self, tag: u16) -> u16 {
        self.entries.iter().find(|entry| entry.tag == tag).map_or(0, |entry| entry.permissions)
    }

    /// Takes away what the file's new owner and group would otherwise gain, and what the old ones
    /// would gain by falling into another class.
    pub(crate) fn narrow(&mut self, old_owner: u32, carried: Ownership) {
        let owner = self.permissions(OWNER);
        let mask = self.entries.iter().find(|entry| entry.tag == MASK).map_or(7, |m| m.permissions);
        let owning_group = self.permissions(OWNING_GROUP) & mask;
        let other = self.permissions(OTHER);
        let named = || self.entries.iter().filter(|e| matches!(e.tag, USER | GROUP));
        let any = named().fold(owning_group | other, |all, entry| all | entry.permissions & mask);
        let every_group = named()
            .filter(|entry| entry.tag == GROUP)
            .fold(owning_group & other, |all, entry| all & entry.permissions);
        for entry in &mut self.entries {
            if !carried.group {
                entry.permissions &= match entry.tag {
                    // The new group's members were in other groups, or in none.
                    OWNING_GROUP => every_group,
                    // The old group's members may be in no other.
                    OTHER => owning_group,
                    _ => 7,
                };
            }
            if !carried.owner {
                entry.permissions &= match entry.tag {
                    // The new owner wrote the content: reading and writing it is nothing new.
                    OWNER => any | 6,
                    // The old owner is in the other classes now.
                    USER if entry.id == old_owner => owner,
                    OWNING_GROUP | GROUP | OTHER => owner,
                    _ => 7,
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// What a user is to a file: being its owner, and the groups, decide (acl(5)).
    #[derive(Clone, Copy, Debug)]
    struct Person {
        uid: u32,
        gids: &'static [u32],
    }

    const ALICE: u32 = 1; // the old owner
    const BOB: u32 = 2; // who writes, and owns the new file unless the owner is carried
    const STAFF: u32 = 10; // the old group
    const CREW: u32 = 20; // the new group unless the group is carried

    const PEOPLE: [Person; 8] = [
        Person { uid: ALICE, gids: &[] },
        Person { uid: ALICE, gids: &[STAFF] },
        Person { uid: ALICE, gids: &[CREW] },
        Person { uid: 3, gids: &[] },
        Person { uid: 3, gids: &[STAFF] },
        Person { uid: 3, gids: &[CREW] },
        Person { uid: 3, gids: &[STAFF, CREW] },
        Person { uid: 4, gids: &[30] },
    ];

    /// acl(5), ACCESS CHECK ALGORITHM, for one permission.
    fn has(access: &Access, owner: u32, group: u32, who: Person, bit: u16) -> bool {
        let mask = access.entries.iter().find(|e| e.tag == MASK).map_or(7, |e| e.permissions);
        if who.uid == owner {
            return access.permissions(OWNER) & bit != 0;
        }
        let named = |e: &&Entry| e.tag == USER && e.id == who.uid;
        if let Some(entry) = access.entries.iter().find(named) {
            return entry.permissions & mask & bit != 0;
        }
        let is_in = |e: &&Entry| match e.tag {
            OWNING_GROUP => who.gids.contains(&group),
            GROUP => who.gids.contains(&e.id),
            _ => false,
        };
        let mut groups = access.entries.iter().filter(is_in).peekable();
        match groups.peek() {
            Some(_) => groups.any(|e| e.permissions & mask & bit != 0),
            None => access.permissions(OTHER) & bit != 0,
        }
    }

    fn assert_nobody_gains(old: &Access, carried: Ownership) {
        let mut new = old.clone();
        new.narrow(ALICE, carried);
        let owner = if carried.owner { ALICE } else { BOB };
        let group = if carried.group { STAFF } else { CREW };
        for who in PEOPLE {
            for bit in [4, 2, 1] {
                let before = has(old, ALICE, STAFF, who, bit);
                let after = has(&new, owner, group, who, bit);
                assert!(before || !after, "{who:?} gains {bit}: {old:?} -> {new:?}");
            }
        }
        if carried.owner && carried.group {
            assert_eq!(&new, old);
        }
    }

    #[rstest]
    fn nobody_gains_access_whatever_the_mode(
        #[values(true, false)] owner: bool,
        #[values(true, false)] group: bool,
    ) {
        for mode in 0..=0o777 {
            assert_nobody_gains(&Access::from_mode(mode), Ownership { owner, group });
        }
    }

    #[rstest]
    fn nobody_gains_access_whatever_the_acl(
        #[values(true, false)] owner: bool,
        #[values(true, false)] group: bool,
        #[values(ALICE, 3)] named_user: u32,
        #[values(CREW, 30)] named_group: u32,
    ) {
        let values = [0, 4, 6, 7];
        for permissions in (0..4096).map(|n| [0, 1, 2, 3, 4, 5].map(|i| values[n >> (2 * i) & 3])) {
            let [a, b, c, d, e, f] = permissions;
            let entries = [
                (OWNER, a, NO_ID),
                (USER, b, named_user),
                (OWNING_GROUP, c, NO_ID),
                (GROUP, d, named_group),
                (MASK, e, NO_ID),
                (OTHER, f, NO_ID),
            ];
            let entries = entries.map(|(tag, permissions, id)| Entry { tag, permissions, id });
            assert_nobody_gains(&Access { entries: entries.to_vec() }, Ownership { owner, group });
        }
    }

    #[rstest]
    #[case::owner_and_group_carried(0o664, true, true, 0o664)]
    #[case::what_the_group_alone_had_goes(0o664, true, false, 0o644)]
    #[case::what_the_owner_alone_had_goes(0o640, false, true, 0o640)]
    #[case::execution_is_not_gained(0o744, false, true, 0o644)]
    #[case::the_old_owner_gains_nothing_as_other(0o466, false, true, 0o444)]
    #[case::private_stays_private(0o600, false, false, 0o600)]
    #[case::execution_by_all_is_carried(0o755, false, true, 0o755)]
    #[case::execution_by_the_group_is_carried(0o754, false, true, 0o754)]
    fn a_mode_is_narrowed(
        #[case] old: u32,
        #[case] owner: bool,
        #[case] group: bool,
        #[case] new: u32,
    ) {
        let mut access = Access::from_mode(old);
        access.narrow(ALICE, Ownership { owner, group });
        assert_eq!(format!("{:o}", access.mode()), format!("{new:o}"));
    }

    /// Of owner, named user, owning group, mask and others, when somebody else becomes the owner.
    #[rstest]
    #[case::what_a_named_user_may(3, [7, 5, 4, 7, 4], [7, 5, 4, 7, 4])]
    #[case::what_a_named_user_and_the_group_may(3, [7, 5, 5, 7, 4], [7, 5, 5, 7, 4])]
    #[case::execution_that_is_masked_is_not_gained(3, [7, 5, 4, 6, 4], [6, 5, 4, 6, 4])]
    #[case::a_named_user_keeps_more_than_the_owner_had(3, [4, 6, 4, 7, 4], [4, 6, 4, 7, 4])]
    #[case::the_old_owner_by_name_does_not(ALICE, [4, 6, 4, 7, 4], [4, 4, 4, 7, 4])]
    fn an_acl_is_narrowed_by_no_more_than_has_to_be(
        #[case] named_user: u32,
        #[case] old: [u16; 5],
        #[case] new: [u16; 5],
    ) {
        let access = |permissions: [u16; 5]| {
            let tags = [OWNER, USER, OWNING_GROUP, MASK, OTHER].into_iter();
            let id = |tag| if tag == USER { named_user } else { NO_ID };
            let entry = |(tag, permissions)| Entry { tag, permissions, id: id(tag) };
            Access { entries: tags.zip(permissions).map(entry).collect() }
        };
        let mut narrowed = access(old);
        narrowed.narrow(ALICE, Ownership { owner: false, group: true });
        assert_eq!(narrowed, access(new));
    }

    #[rstest]
    fn an_acl_survives_the_round_trip() {
        let acl = [
            &VERSION[..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[2, 0, 4, 0, 232, 3, 0, 0],
            &[4, 0, 4, 0, 255, 255, 255, 255],
            &[16, 0, 4, 0, 255, 255, 255, 255],
            &[32, 0, 0, 0, 255, 255, 255, 255],
        ]
        .concat();
        assert_eq!(Access::from_acl(&acl).and_then(|access| access.to_acl()), Some(acl));
    }

    #[rstest]
    #[case::empty(&[])]
    #[case::another_version(&[3, 0, 0, 0])]
    #[case::no_entries(&VERSION)]
    #[case::cut_off(&[2, 0, 0, 0, 1, 0, 6])]
    #[case::without_an_owner(&acl_of([OWNING_GROUP, OTHER]))]
    #[case::without_a_group(&acl_of([OWNER, OTHER]))]
    #[case::without_others(&acl_of([OWNER, OWNING_GROUP]))]
    fn an_acl_that_makes_no_sense_is_none(#[case] acl: &[u8]) {
        assert_eq!(Access::from_acl(acl), None);
    }

    fn acl_of(tags: [u16; 2]) -> Vec<u8> {
        let entry = |tag: u16| [&tag.to_le_bytes()[..], &[6, 0, 255, 255, 255, 255]].concat();
        [VERSION.to_vec(), entry(tags[0]), entry(tags[1])].concat()
    }
}
