//! Content that tells where in a stream it belongs.

/// Byte number `at` of the endless stream of that seed. Every byte depends on its position, so that lost, doubled,
/// swapped or damaged data shows.
pub const fn byte(seed: u64, at: u64) -> u8 {
    // The finalizer of splitmix64.
    let mut mixed = (seed ^ at).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as u8
}

/// Fills `buffer` with the stream from byte number `at` on.
pub fn fill(seed: u64, at: u64, buffer: &mut [u8]) {
    for (byte_, offset) in buffer.iter_mut().zip(at..) {
        *byte_ = byte(seed, offset);
    }
}

/// Whether `buffer` is the stream from byte number `at` on.
pub fn matches(seed: u64, at: u64, buffer: &[u8]) -> bool {
    buffer.iter().zip(at..).all(|(found, offset)| *found == byte(seed, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misplaced_or_damaged_content_shows() {
        let mut buffer = [0; 64];
        fill(7, 1000, &mut buffer);
        assert!(matches(7, 1000, &buffer));
        assert!(!matches(7, 1001, &buffer));
        assert!(!matches(8, 1000, &buffer));
        buffer[63] ^= 1;
        assert!(!matches(7, 1000, &buffer));
    }
}
