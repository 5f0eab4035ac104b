//! Fowler, Noll and Vo's hash (FNV-1a, 64 bits): the same in every process and version, which `std`
//! does not promise of its own, and for the same bytes in whatever pieces they come.

/// The hash of no bytes.
pub(crate) const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

pub(crate) fn hash(bytes: &[u8]) -> u64 {
    extend(EMPTY, bytes)
}

pub(crate) fn extend(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// The test vectors of the hash's authors (draft-eastlake-fnv).
    #[rstest]
    #[case("", 0xcbf2_9ce4_8422_2325)]
    #[case("a", 0xaf63_dc4c_8601_ec8c)]
    #[case("foobar", 0x8594_4171_f739_67e8)]
    fn the_hash_is_the_one_of_fowler_noll_and_vo(#[case] of: &str, #[case] expected: u64) {
        assert_eq!(hash(of.as_bytes()), expected);
    }
}
