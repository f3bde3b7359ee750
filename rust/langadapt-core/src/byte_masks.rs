//! Which of 64 bytes are of a class, as one bit for each, the first byte's the lowest.
//!
//! What depends on neighbouring bytes then follows from shifts of such masks, for all bytes at once and without a
//! branch. With SSE2, which every x86-64 processor has, a mask costs about 20 instructions.

/// Bytes of a block.
pub const BLOCK: usize = 64;

/// The bytes in `first..=last`.
#[inline(always)]
pub fn between(block: &[u8; BLOCK], first: u8, last: u8) -> u64 {
    within(block, 0, first, last)
}

/// The bytes that are `byte`.
#[inline(always)]
pub fn equal(block: &[u8; BLOCK], byte: u8) -> u64 {
    within(block, 0, byte, byte)
}

/// The ASCII letters.
#[inline(always)]
pub fn letters(block: &[u8; BLOCK]) -> u64 {
    within(block, 0x20, b'a', b'z')
}

/// The bytes that are in `first..=last` once the bits of `set` are set.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn within(block: &[u8; BLOCK], set: u8, first: u8, last: u8) -> u64 {
    // SAFETY: every x86-64 processor has SSE2.
    unsafe { within_by_sse2(block, set, first, last) }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn within_by_sse2(block: &[u8; BLOCK], set: u8, first: u8, last: u8) -> u64 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8, _mm_sub_epi8,
    };
    let mut mask = 0;
    for (n, bytes) in block.chunks_exact(16).enumerate() {
        let word = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let bytes = _mm_or_si128(_mm_set_epi64x(word(8), word(0)), _mm_set1_epi8(set as i8));
        let above = _mm_sub_epi8(bytes, _mm_set1_epi8(first as i8));
        let found = _mm_cmpeq_epi8(_mm_min_epu8(above, _mm_set1_epi8((last - first) as i8)), above);
        mask |= u64::from(_mm_movemask_epi8(found) as u16) << (16 * n);
    }
    mask
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn within(block: &[u8; BLOCK], set: u8, first: u8, last: u8) -> u64 {
    let bits = block.iter().map(|byte| u64::from((first..=last).contains(&(byte | set))));
    bits.enumerate().fold(0, |mask, (at, bit)| mask | bit << at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place() {
        for byte in 0..=255u8 {
            for place in 0..BLOCK {
                let mut block = [b'Z'.wrapping_add(7); BLOCK];
                block[place] = byte;
                let bit = 1 << place;
                assert_eq!(letters(&block) & bit != 0, byte.is_ascii_alphabetic(), "{byte}");
                assert_eq!(between(&block, b'0', b'9') & bit != 0, byte.is_ascii_digit(), "{byte}");
                assert_eq!(between(&block, 0x80, 0xFF) & bit != 0, byte >= 0x80, "{byte}");
                assert_eq!(equal(&block, b' ') & bit != 0, byte == b' ', "{byte}");
                assert_eq!(letters(&block) | bit, u64::MAX);
            }
        }
    }
}
