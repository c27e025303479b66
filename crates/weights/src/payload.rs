//! Bytes cut into chunks, each with its hash: what was verified of an interrupted transfer is kept,
//! and a flipped bit costs one chunk.

use std::ops::Range;

use crrl_types::Digest;
use serde::{Deserialize, Serialize};

/// Size of a chunk, as long as there are not too many of them. Smaller wastes less on a flipped bit
/// and lets a relay begin sooner; each costs a hash in the offer.
const CHUNK_BYTES: u32 = 256 * 1024;
/// Chunks of one payload: 32 KiB of hashes, which fit a control frame with room to spare.
const CHUNKS_MAX: u64 = 1024;
/// Most bytes of a chunk, so that whoever receives one knows what to make room for: a payload is
/// 64 GiB at most.
const CHUNK_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// What bytes are, chunk by chunk, without the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// BLAKE3 of all of them.
    pub digest: Digest,
    /// Their number.
    pub bytes: u64,
    /// Bytes of every chunk but the last, which may be shorter.
    pub chunk_bytes: u32,
    /// BLAKE3 of each chunk, in order.
    pub chunks: Vec<Digest>,
}

impl Payload {
    /// Cuts and hashes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut chunk_bytes = CHUNK_BYTES;
        while bytes.len() as u64 > u64::from(chunk_bytes) * CHUNKS_MAX {
            chunk_bytes *= 2;
        }
        Self {
            digest: Digest::of(bytes),
            bytes: bytes.len() as u64,
            chunk_bytes,
            chunks: bytes.chunks(chunk_bytes as usize).map(Digest::of).collect(),
        }
    }

    /// Whether its numbers go together; asked of everything that comes from outside.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        (1..=CHUNK_BYTES_MAX).contains(&self.chunk_bytes)
            && self.chunks.len() as u64 <= CHUNKS_MAX
            && self.bytes.div_ceil(u64::from(self.chunk_bytes)) == self.chunks.len() as u64
    }

    /// Number of chunks.
    #[must_use]
    pub fn count(&self) -> usize {
        self.chunks.len()
    }

    /// Where a chunk lies in the bytes; empty past the end.
    #[must_use]
    pub fn range(&self, index: usize) -> Range<usize> {
        let whole = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        let start = index.saturating_mul(self.chunk_bytes as usize).min(whole);
        start..start.saturating_add(self.chunk_bytes as usize).min(whole)
    }

    /// Whether these are the bytes of that chunk.
    #[must_use]
    pub fn fits(&self, index: usize, bytes: &[u8]) -> bool {
        self.chunks.get(index).is_some_and(|hash| *hash == Digest::of(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_bytes_and_each_has_its_own_hash() {
        let bytes: Vec<u8> = (0..700_001u32).map(|n| (n % 251) as u8).collect();
        let payload = Payload::of(&bytes);
        assert!(payload.is_sound());
        assert_eq!(payload.count(), 3);
        let joined: Vec<u8> =
            (0..3).flat_map(|index| bytes[payload.range(index)].to_vec()).collect();
        assert_eq!(joined, bytes);
        let mut last = bytes[payload.range(2)].to_vec();
        assert!(payload.fits(2, &last));
        last[5] ^= 1;
        assert!(!payload.fits(2, &last));
        assert!(!payload.fits(3, &[]), "there is no such chunk");
    }

    #[test]
    fn what_is_large_has_larger_chunks_and_not_more() {
        let payload = Payload::of(&vec![0; 300 << 20]);
        assert!(payload.count() <= 1024 && payload.is_sound(), "{}", payload.count());
    }

    #[test]
    fn numbers_that_do_not_go_together_are_not_sound() {
        let good = Payload::of(&[7; 1000]);
        let spoil: [fn(&mut Payload); 3] = [
            |payload| payload.bytes = u64::MAX,
            |payload| payload.chunk_bytes = 0,
            |payload| payload.chunks.push(Digest::default()),
        ];
        for (spoil, index) in spoil.into_iter().zip(0..) {
            let mut payload = good.clone();
            spoil(&mut payload);
            assert!(!payload.is_sound(), "{index}");
        }
    }
}
