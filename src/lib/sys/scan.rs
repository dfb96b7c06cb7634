//! Where lines end, 64 bytes at a time: what the search of a logger for newlines rests on.
//!
//! Nothing is detected at run time, which a virtual machine makes dear at every start: SSE2 is part of every x86-64.

/// Bytes that are looked at together.
pub const BLOCK: usize = 64;

/// The newlines and NULs of a block, as bits: the first byte is the lowest.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn line_ends(block: &[u8; BLOCK]) -> u64 {
    use core::arch::x86_64::*;

    let (parts, _) = block.as_chunks::<16>();
    let mut ends = 0;
    for (i, part) in parts.iter().enumerate() {
        // SAFETY: SSE2 is there; the load takes 16 bytes, wherever they lie, and the part has as many.
        let found = unsafe {
            let bytes = _mm_loadu_si128(part.as_ptr().cast());
            let newlines = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\n' as i8));
            let nuls = _mm_cmpeq_epi8(bytes, _mm_setzero_si128());
            _mm_movemask_epi8(_mm_or_si128(newlines, nuls))
        };
        ends |= u64::from(found as u16) << (16 * i);
    }
    ends
}

/// The newlines and NULs of a block, as bits: the first byte is the lowest.
#[cfg(not(target_arch = "x86_64"))]
pub fn line_ends(block: &[u8; BLOCK]) -> u64 {
    portable_line_ends(block)
}

/// The same by arithmetic on eight bytes at a time.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable_line_ends(block: &[u8; BLOCK]) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = 0x7f * EACH;
    /// The highest bit of each byte that is zero.
    fn zeros(bytes: u64) -> u64 {
        !(((bytes & LOW) + LOW) | bytes | LOW)
    }
    let (parts, _) = block.as_chunks::<8>();
    parts.iter().enumerate().fold(0, |ends, (i, part)| {
        let bytes = u64::from_le_bytes(*part);
        let found = (zeros(bytes) | zeros(bytes ^ (u64::from(b'\n') * EACH))) >> 7;
        // Brings the lowest bits of the eight bytes together in the highest byte.
        ends | (found.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_end_is_found_and_nothing_else(
            bytes in prop::collection::vec(prop::sample::select(b"\n\0\x01\x0b\x8a\x80\xff a".to_vec()), BLOCK)
        ) {
            let block: &[u8; BLOCK] = bytes[..].try_into().unwrap();
            let want = (0..BLOCK).fold(0, |ends, i| ends | u64::from(b"\n\0".contains(&block[i])) << i);
            prop_assert_eq!(line_ends(block), want);
            prop_assert_eq!(portable_line_ends(block), want);
        }
    }
}
