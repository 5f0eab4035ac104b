//! The content: the same bytes for every contender.

use std::io::{Result, Write};

pub enum Body {
    /// In memory already, in one call.
    Whole(Vec<u8>),
    /// The same few bytes again and again, as a program without a buffer writes.
    Pieces { piece: Vec<u8>, count: u64 },
    /// A long stream in calls of 64 KiB; computed on the way, or copied only.
    Stream { len: u64, computed: bool },
}

impl Body {
    pub fn len(&self) -> u64 {
        match self {
            Body::Whole(bytes) => bytes.len() as u64,
            Body::Pieces { piece, count } => piece.len() as u64 * count,
            Body::Stream { len, .. } => *len,
        }
    }

    pub fn fill<W: Write>(&self, writer: &mut W) -> Result<()> {
        match self {
            Body::Whole(bytes) => writer.write_all(bytes),
            Body::Pieces { piece, count } => {
                for _ in 0..*count {
                    writer.write_all(piece)?;
                }
                Ok(())
            }
            Body::Stream { len, computed } => {
                let mut block = vec![0x5a; 64 << 10];
                let (mut written, mut state) = (0, 1);
                while written < *len {
                    if *computed {
                        compute_block(&mut block, &mut state);
                    } else {
                        block[..8].copy_from_slice(&written.to_le_bytes());
                    }
                    writer.write_all(&block)?;
                    written += block.len() as u64;
                }
                Ok(())
            }
        }
    }
}

pub fn compute_block(block: &mut [u8], state: &mut u64) {
    // Four rounds of shift and multiply for each 8 bytes: about the work of a fast checksum.
    for word in block.chunks_exact_mut(8) {
        for _ in 0..4 {
            *state ^= *state >> 29;
            *state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
        word.copy_from_slice(&state.to_le_bytes());
    }
}
