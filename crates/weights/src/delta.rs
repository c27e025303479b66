//! An adapter as its difference from an earlier one, without loss.
//!
//! Numbers are taken as unsigned words; the difference of two of the same place is wound so that
//! small ones of either sign are small words, the words' bytes are gathered plane by plane (all
//! lowest bytes, all next, ...), and that is compressed by zstd. Between two optimizer steps sign,
//! exponent and upper mantissa hardly move, so the upper planes are nearly all zero.
//!
//! ```text
//! 1 byte  format        1
//! 1 byte  word          2 or 4
//! 8 bytes length        of the adapter, little endian
//! rest    zstd frame    planes, then the bytes past the last whole word, xor'd
//! ```

use serde::{Deserialize, Serialize};

/// The layout this build writes and reads.
const FORMAT: u8 = 1;
/// Format, word and length.
const HEADER_BYTES: usize = 10;
/// zstd's level: higher ones gain under 2 % on weights and take several times as long.
const LEVEL: i32 = 1;

/// Bytes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// bf16.
    Two,
    /// f32.
    Four,
}

impl Word {
    /// The word of tensors of this type; `None` where neither fits.
    #[must_use]
    pub fn of(dtype: &str) -> Option<Self> {
        match dtype {
            "BF16" | "F16" => Some(Self::Two),
            "F32" => Some(Self::Four),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// A difference that cannot be made or applied.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The two are not of one length: another rank, or other targets.
    #[error("{new} bytes cannot be a difference from {base}")]
    Length {
        /// Of the earlier.
        base: u64,
        /// Of the later.
        new: u64,
    },
    /// It was not written by [`encode`], or was damaged.
    #[error("the difference cannot be read: {0}")]
    Broken(String),
}

/// The difference of `new` from `base`.
///
/// # Errors
/// [`DeltaError::Length`].
pub fn encode(base: &[u8], new: &[u8], word: Word) -> Result<Vec<u8>, DeltaError> {
    if base.len() != new.len() {
        return Err(DeltaError::Length { base: base.len() as u64, new: new.len() as u64 });
    }
    let mut planes = vec![0; new.len()];
    let whole = new.len() - new.len() % word.bytes();
    match word {
        Word::Two => {
            let (low, high) = planes[..whole].split_at_mut(whole / 2);
            let words =
                base[..whole].as_chunks::<2>().0.iter().zip(new[..whole].as_chunks::<2>().0);
            for (((b, n), low), high) in words.zip(low).zip(high) {
                let moved = u16::from_le_bytes(*n).wrapping_sub(u16::from_le_bytes(*b)) as i16;
                let wound = ((moved << 1) ^ (moved >> 15)) as u16;
                [*low, *high] = wound.to_le_bytes();
            }
        }
        Word::Four => {
            let (lower, upper) = planes[..whole].split_at_mut(whole / 2);
            let ((p0, p1), (p2, p3)) =
                (lower.split_at_mut(whole / 4), upper.split_at_mut(whole / 4));
            let words =
                base[..whole].as_chunks::<4>().0.iter().zip(new[..whole].as_chunks::<4>().0);
            for (((((b, n), p0), p1), p2), p3) in words.zip(p0).zip(p1).zip(p2).zip(p3) {
                let moved = u32::from_le_bytes(*n).wrapping_sub(u32::from_le_bytes(*b)) as i32;
                let wound = ((moved << 1) ^ (moved >> 31)) as u32;
                [*p0, *p1, *p2, *p3] = wound.to_le_bytes();
            }
        }
    }
    for (out, (b, n)) in planes[whole..].iter_mut().zip(base[whole..].iter().zip(&new[whole..])) {
        *out = b ^ n;
    }
    let packed = zstd::bulk::compress(&planes, LEVEL)
        .map_err(|error| DeltaError::Broken(error.to_string()))?;
    let mut out = Vec::with_capacity(HEADER_BYTES + packed.len());
    out.extend([FORMAT, word.bytes() as u8]);
    out.extend((new.len() as u64).to_le_bytes());
    out.extend(packed);
    Ok(out)
}

/// The later adapter, from the earlier and the difference. Whoever calls compares the digest.
///
/// # Errors
/// [`DeltaError`]; bytes from outside cannot make it panic or take more memory than `base` has.
pub fn decode(base: &[u8], delta: &[u8]) -> Result<Vec<u8>, DeltaError> {
    let broken = |what: &str| DeltaError::Broken(what.to_owned());
    let (header, packed) =
        delta.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| broken("it is too short"))?;
    let [format, word, length @ ..] = *header;
    let word = match (format, word) {
        (FORMAT, 2) => Word::Two,
        (FORMAT, 4) => Word::Four,
        _ => return Err(broken("another format")),
    };
    let length = u64::from_le_bytes(length);
    if length != base.len() as u64 {
        return Err(DeltaError::Length { base: base.len() as u64, new: length });
    }
    let planes = zstd::bulk::decompress(packed, base.len())
        .map_err(|error| DeltaError::Broken(error.to_string()))?;
    if planes.len() != base.len() {
        return Err(broken("it is too short"));
    }
    let mut new = vec![0; base.len()];
    let whole = base.len() - base.len() % word.bytes();
    match word {
        Word::Two => {
            let (low, high) = planes[..whole].split_at(whole / 2);
            let (into, _) = new[..whole].as_chunks_mut::<2>();
            let words = into.iter_mut().zip(base[..whole].as_chunks::<2>().0);
            for (((new, b), low), high) in words.zip(low).zip(high) {
                let wound = u16::from_le_bytes([*low, *high]);
                let moved = (wound >> 1) ^ (wound & 1).wrapping_neg();
                *new = u16::from_le_bytes(*b).wrapping_add(moved).to_le_bytes();
            }
        }
        Word::Four => {
            let (lower, upper) = planes[..whole].split_at(whole / 2);
            let ((p0, p1), (p2, p3)) = (lower.split_at(whole / 4), upper.split_at(whole / 4));
            let (into, _) = new[..whole].as_chunks_mut::<4>();
            let words = into.iter_mut().zip(base[..whole].as_chunks::<4>().0);
            for (((((new, b), p0), p1), p2), p3) in words.zip(p0).zip(p1).zip(p2).zip(p3) {
                let wound = u32::from_le_bytes([*p0, *p1, *p2, *p3]);
                let moved = (wound >> 1) ^ (wound & 1).wrapping_neg();
                *new = u32::from_le_bytes(*b).wrapping_add(moved).to_le_bytes();
            }
        }
    }
    for (new, (b, plane)) in new[whole..].iter_mut().zip(base[whole..].iter().zip(&planes[whole..]))
    {
        *new = b ^ plane;
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn floats(values: impl Iterator<Item = f32>) -> Vec<u8> {
        values.flat_map(f32::to_le_bytes).collect()
    }

    /// The same in bf16: rounded to the nearest, ties to even.
    fn halved(floats: &[u8]) -> Vec<u8> {
        let round = |bytes: &[u8; 4]| {
            let bits = u32::from_le_bytes(*bytes);
            ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
        };
        floats.as_chunks::<4>().0.iter().flat_map(|bytes| round(bytes).to_le_bytes()).collect()
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_bit_for_bit(
            (base, new) in (0usize..600).prop_flat_map(|len| (
                prop::collection::vec(any::<u8>(), len),
                prop::collection::vec(any::<u8>(), len),
            )),
            word in prop_oneof![Just(Word::Two), Just(Word::Four)],
        ) {
            let delta = encode(&base, &new, word).expect("one length");
            prop_assert_eq!(decode(&base, &delta).expect("just written"), new);
        }

        #[test]
        fn odd_numbers_come_back_too(base: Vec<f32>, seed: u32) {
            // Infinities, zeros of both signs and payloads of NaN are words like others.
            let odd = [f32::NAN, f32::INFINITY, -0.0, 0.0, f32::MIN_POSITIVE, f32::from_bits(seed)];
            let new = floats(odd.iter().copied().cycle().take(base.len()));
            let base = floats(base.into_iter());
            let delta = encode(&base, &new, Word::Four).expect("one length");
            prop_assert_eq!(decode(&base, &delta).expect("just written"), new);
        }

        #[test]
        fn rubbish_is_an_error_and_no_panic(base: Vec<u8>, delta: Vec<u8>) {
            if let Ok(new) = decode(&base, &delta) {
                prop_assert_eq!(new.len(), base.len());
            }
        }
    }

    #[test]
    fn a_small_step_makes_a_small_difference() {
        let base = floats((0..100_000u32).map(|n| (f64::from(n) * 0.7).sin() as f32 * 0.01));
        let new = floats((0..100_000u32).map(|n| {
            (f64::from(n) * 0.7).sin() as f32 * 0.01 + (f64::from(n) * 1.3).cos() as f32 * 1e-6
        }));
        let delta = encode(&base, &new, Word::Four).expect("one length");
        assert!(delta.len() * 10 < new.len() * 6, "{} of {}", delta.len(), new.len());
    }

    #[test]
    fn in_bf16_most_numbers_of_a_small_step_stay_where_they_are() {
        let at = |n: u32| (f64::from(n) * 0.7).sin() as f32 * 0.01;
        let base = floats((0..100_000u32).map(at));
        let new = floats((0..100_000u32).map(|n| at(n) + (f64::from(n) * 1.3).cos() as f32 * 1e-6));
        let whole = encode(&base, &new, Word::Four).expect("one length");
        let (base, new) = (halved(&base), halved(&new));
        let moved =
            base.as_chunks::<2>().0.iter().zip(new.as_chunks::<2>().0).filter(|(b, n)| b != n);
        let moved = moved.count();
        assert!((100..50_000).contains(&moved), "{moved} of 100000 moved");
        let delta = encode(&base, &new, Word::Two).expect("one length");
        assert!(delta.len() * 4 < new.len(), "{} of {}", delta.len(), new.len());
        assert!(delta.len() * 4 < whole.len(), "{} beside {} in f32", delta.len(), whole.len());
        assert_eq!(decode(&base, &delta).expect("just written"), new);
    }

    #[test]
    fn another_length_has_no_difference() {
        assert!(matches!(
            encode(&[0; 4], &[0; 8], Word::Four),
            Err(DeltaError::Length { base: 4, new: 8 })
        ));
    }
}
