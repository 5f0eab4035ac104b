//! A write that failed, remembered until a later one has made up for it.

use std::io;

use crate::hash::{self, EMPTY};

/// What failed.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: io::ErrorKind,
    os_code: Option<i32>,
    text: String,
    call: Call,
}

#[derive(Debug)]
enum Call {
    Write(Lost),
    Seek,
    SetLen,
    /// A later call can't be known to make up for it.
    Other,
}

/// Bytes that are not in the file, known by their place and a hash.
#[derive(Debug)]
struct Lost {
    start: u64,
    length: u64,
    hash: u64,
    /// How many of them have been written meanwhile, from the start on, and the hash of those.
    rewritten: u64,
    rewritten_hash: u64,
}

impl Failure {
    fn new(error: &io::Error, call: Call) -> Self {
        let (kind, os_code, text) = (error.kind(), error.raw_os_error(), error.to_string());
        Failure { kind, os_code, text, call }
    }

    pub(crate) fn of_write(error: &io::Error, position: Option<u64>, bytes: &[u8]) -> Self {
        let Some(start) = position else { return Failure::for_good(error) };
        let (length, hash) = (bytes.len() as u64, hash::hash(bytes));
        let lost = Lost { start, length, hash, rewritten: 0, rewritten_hash: EMPTY };
        Failure::new(error, Call::Write(lost))
    }

    pub(crate) fn of_seek(error: &io::Error) -> Self {
        Failure::new(error, Call::Seek)
    }

    pub(crate) fn of_set_len(error: &io::Error) -> Self {
        Failure::new(error, Call::SetLen)
    }

    pub(crate) fn for_good(error: &io::Error) -> Self {
        Failure::new(error, Call::Other)
    }

    /// What is left to mend after another failure. The same write tried again is the same failure;
    /// two different ones are not kept apart.
    pub(crate) fn and(self, later: Failure) -> Self {
        match (&self.call, &later.call) {
            (Call::Write(one), Call::Write(two))
                if (one.start, one.length, one.hash) == (two.start, two.length, two.hash) =>
            {
                later
            }
            (Call::Seek, Call::Seek) | (Call::SetLen, Call::SetLen) => later,
            _ => Failure { call: Call::Other, ..self },
        }
    }

    pub(crate) fn is_of_seek(&self) -> bool {
        matches!(self.call, Call::Seek)
    }

    pub(crate) fn is_of_set_len(&self) -> bool {
        matches!(self.call, Call::SetLen)
    }

    /// Takes note of bytes that have been written at a position.
    pub(crate) fn note_written(&mut self, position: Option<u64>, bytes: &[u8]) {
        let (Call::Write(lost), Some(position)) = (&mut self.call, position) else { return };
        let next = lost.start + lost.rewritten;
        let Some(skip) = next.checked_sub(position).filter(|&skip| skip < bytes.len() as u64)
        else {
            return;
        };
        let rest = &bytes[skip as usize..];
        let take = (lost.length - lost.rewritten).min(rest.len() as u64);
        lost.rewritten += take;
        lost.rewritten_hash = hash::extend(lost.rewritten_hash, &rest[..take as usize]);
        if lost.rewritten == lost.length && lost.rewritten_hash != lost.hash {
            (lost.rewritten, lost.rewritten_hash) = (0, EMPTY);
        }
    }

    /// Whether a later attempt has written the same bytes at the same place.
    pub(crate) fn is_mended(&self) -> bool {
        matches!(&self.call, Call::Write(lost) if lost.rewritten == lost.length)
    }

    pub(crate) fn into_error(self) -> io::Error {
        match self.os_code {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.kind, self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::at_once(&[(10, "abcd")], true)]
    #[case::in_pieces(&[(10, "ab"), (12, "c"), (13, "d")], true)]
    #[case::within_more(&[(8, "xxabcdyy")], true)]
    #[case::a_part(&[(10, "abc")], false)]
    #[case::other_bytes(&[(10, "abcx")], false)]
    #[case::other_bytes_first(&[(10, "abcx"), (10, "abcd")], true)]
    #[case::elsewhere(&[(14, "abcd")], false)]
    #[case::after_a_gap(&[(10, "ab"), (13, "d")], false)]
    fn a_failed_write_is_mended_by_the_same_bytes_at_the_same_place(
        #[case] writes: &[(u64, &str)],
        #[case] mended: bool,
    ) {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let mut failure = Failure::of_write(&full, Some(10), b"abcd");
        for (position, bytes) in writes {
            failure.note_written(Some(*position), bytes.as_bytes());
        }
        assert_eq!(failure.is_mended(), mended);
        assert_eq!(failure.into_error().kind(), io::ErrorKind::StorageFull);
    }
}
