//! What staging entries are called.

use std::path::{Path, PathBuf};

use crate::hash::hash;
use crate::platform::{Os, Platform as _};

/// `.report.csv.write-atomically` for `report.csv`; `.report.csv.write-atomically-1` and so on where
/// that is taken.
///
/// Below parents that are missing, there may be many destinations of one file name: a hash of the
/// whole path below the directory tells them apart. `realm` tells apart those who can't see one
/// another's locks.
pub(crate) fn staging_name(destination: &Path, realm: Option<u64>, nth: u32) -> PathBuf {
    let file_name = destination.file_name().map_or(destination, Path::new);
    let mut suffix = String::new();
    if destination.parent().is_some_and(|parent| !parent.as_os_str().is_empty()) {
        let hash = hash(Os::name_bytes(destination.as_os_str()));
        suffix += &format!("-{hash:016x}");
    }
    suffix += ".write-atomically";
    if let Some(realm) = realm {
        suffix += &format!("-{realm:016x}");
    }
    if nth > 0 {
        suffix += &format!("-{nth}");
    }
    hidden_name(file_name, &suffix)
}

/// The realm in a staging name, which has none where the filesystem is local to its maker; `None` if it
/// is no staging name.
pub(crate) fn realm_of(name: &Path) -> Option<Option<u64>> {
    let name = name.to_string_lossy();
    let (stem, rest) = name.strip_prefix('.')?.rsplit_once(".write-atomically")?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
    let is_realm = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = rest.split('-').collect();
    let realm = match parts.as_slice() {
        [""] => None,
        ["", realm] | ["", realm, _] if is_realm(realm) => u64::from_str_radix(realm, 16).ok(),
        ["", nth] if is_number(nth) => None,
        _ => return None,
    };
    match parts.as_slice() {
        ["", _, nth] if !is_number(nth) => None,
        _ => (!stem.is_empty()).then_some(realm),
    }
}

/// A hidden name that is derived from the destination's.
///
/// Long names are cut and told apart by a hash, so that the result fits where 143 bytes are the
/// limit (eCryptfs; 255 is the usual one). They are cut between two UTF-8 characters, because some
/// filesystems refuse invalid UTF-8.
fn hidden_name(file_name: &Path, suffix: &str) -> PathBuf {
    const HASH: usize = "-0123456789abcdef".len();
    // What the dot and the longest suffix (62 bytes) leave of 143.
    const LONGEST: usize = 80;
    let bytes = Os::name_bytes(file_name.as_os_str());
    let mut name = vec![b'.'];
    if bytes.len() <= LONGEST {
        name.extend_from_slice(bytes);
    } else {
        let is_continuation = |&byte: &u8| byte & 0xc0 == 0x80;
        let mut end = LONGEST - HASH;
        while end > 0 && is_continuation(&bytes[end]) {
            end -= 1;
        }
        name.extend_from_slice(&bytes[..end]);
        name.extend_from_slice(format!("-{:016x}", hash(bytes)).as_bytes());
    }
    name.extend_from_slice(suffix.as_bytes());
    Os::name_from_bytes(name)
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
        assert_eq!(hidden_name(Path::new(file_name), ".tmp"), Path::new(expected));
    }

    #[rstest]
    #[case::first("a", None, 0, ".a.write-atomically")]
    #[case::second("a", None, 1, ".a.write-atomically-1")]
    #[case::of_a_realm("a", Some(0xf), 0, ".a.write-atomically-000000000000000f")]
    #[case::below_missing_parents("b/a", None, 0, ".a-ff73471912906bad.write-atomically")]
    fn a_staging_name_says_whose_it_is(
        #[case] destination: &str,
        #[case] realm: Option<u64>,
        #[case] nth: u32,
        #[case] expected: &str,
    ) {
        assert_eq!(staging_name(Path::new(destination), realm, nth), Path::new(expected));
    }

    #[rstest]
    fn a_staging_name_tells_its_realm(
        #[values("a", "b/a", "n.write-atomically", &"ß".repeat(100))] destination: &str,
        #[values(None, Some(0xf), Some(u64::MAX))] realm: Option<u64>,
        #[values(0, 1, 3, u32::MAX)] nth: u32,
    ) {
        assert_eq!(realm_of(&staging_name(Path::new(destination), realm, nth)), Some(realm));
    }

    #[rstest]
    #[case("a")]
    #[case(".a")]
    #[case("a.write-atomically")]
    #[case(".write-atomically")]
    #[case(".a.write-atomically-")]
    #[case(".a.write-atomically-x")]
    #[case(".a.write-atomically-1-2")]
    #[case(".a.write-atomically-000000000000000f-x")]
    #[case(".a.write-atomically-000000000000000f-1-2")]
    #[case(".a.write-atomically.bak")]
    fn other_names_are_no_staging_names(#[case] name: &str) {
        assert_eq!(realm_of(Path::new(name)), None);
    }

    #[rstest]
    fn a_staging_name_fits_where_143_bytes_are_the_limit(
        #[values(0x80, b'n', 0xff)] byte: u8,
        #[values(None, Some(u64::MAX))] realm: Option<u64>,
        #[values("", "missing")] parent: &str,
    ) {
        let lengths = (1..=255).map(|length| {
            let name = Path::new(parent).join(Os::name_from_bytes(vec![byte; length]));
            staging_name(&name, realm, u32::MAX).as_os_str().len()
        });
        assert!(lengths.max() <= Some(143));
    }
}
