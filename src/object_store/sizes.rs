//! How large the parts of an upload are.

use std::io;

/// The smallest part that S3 and GCS accept, apart from the last one.
pub(crate) const SMALLEST_PART: usize = 5 << 20;

/// The size of the first parts unless the caller chooses another.
pub(crate) const PART: usize = 8 << 20;

/// The most parts of one upload (Amazon S3, "Multipart upload limits"; GCS and R2 have the same).
const MOST_PARTS: u64 = 10_000;

/// The largest object (as above).
pub(crate) const LARGEST_OBJECT: u64 = 5 << 40;

/// The parts of one upload: how large the next one is.
///
/// With a fixed size, 10,000 parts of 8 MiB end at 78 GiB. Parts that grow reach 5 TiB: after 2,000
/// parts each is eight times as large, after 4,000 sixty-four times, and from 6,000 on as large as the
/// rest needs. Memory grows with them, but not before the output has 2,000 parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    first: u64,
    uniform: bool,
    nth: u64,
}

impl Sizes {
    /// For a size that is known in advance all parts are alike, and as small as it allows.
    pub(crate) fn new(part: usize, uniform: bool, expected: Option<u64>) -> io::Result<Self> {
        let part = part.max(SMALLEST_PART) as u64;
        match expected {
            Some(size) if size > LARGEST_OBJECT => Err(too_large()),
            Some(size) => {
                Ok(Sizes { first: part.max(size.div_ceil(MOST_PARTS)), uniform: true, nth: 0 })
            }
            None => Ok(Sizes { first: part, uniform, nth: 0 }),
        }
    }

    /// The size of the part that is being filled, in bytes.
    pub(crate) fn current(&self) -> u64 {
        if self.uniform {
            return self.first;
        }
        match self.nth / 2_000 {
            0 => self.first,
            1 => self.first * 8,
            2 => self.first * 64,
            _ => LARGEST_OBJECT
                .saturating_sub(self.first * 73 * 2_000)
                .div_ceil(4_000)
                .max(self.first),
        }
    }

    /// To be called when a part is full and more bytes follow.
    pub(crate) fn next(&mut self) -> io::Result<()> {
        self.nth += 1;
        if self.nth < MOST_PARTS { Ok(()) } else { Err(too_large()) }
    }
}

pub(crate) fn too_large() -> io::Error {
    let limit = "an object has at most 5 TiB, and 10,000 parts; `ObjectOptions::part_size` or \
                 `expected_size` makes them larger";
    io::Error::new(io::ErrorKind::FileTooLarge, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(mut sizes: Sizes) -> u64 {
        let mut total = sizes.current();
        while sizes.next().is_ok() {
            total += sizes.current();
        }
        total
    }

    #[test]
    fn growing_parts_reach_the_largest_object() {
        for part in [SMALLEST_PART, PART, 30 << 20] {
            let total = reached(Sizes::new(part, false, None).unwrap());
            assert!(total >= LARGEST_OBJECT, "{part}: {total}");
        }
    }

    #[test]
    fn an_announced_size_is_reached_with_uniform_parts() {
        for size in [1, 1 << 30, 100 << 30, LARGEST_OBJECT] {
            let total = reached(Sizes::new(PART, true, Some(size)).unwrap());
            assert!(total >= size, "{size}: {total}");
        }
        let error = Sizes::new(PART, false, Some(LARGEST_OBJECT + 1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn uniform_parts_stay_as_they_are() {
        assert_eq!(reached(Sizes::new(PART, true, None).unwrap()), MOST_PARTS * PART as u64);
    }
}
