//! Content from which its offset in a stream can be computed.

/// Eight bytes are made at once: one by one they would take longer than all else that a bulk transfer does in an emulated
/// guest.
const WORD: usize = 8;

/// Word number `at` of the endless stream of that seed. Every byte depends on its position, so that lost, doubled,
/// swapped or damaged data shows.
const fn word(seed: u64, at: u64) -> [u8; WORD] {
    // The finalizer of splitmix64.
    let mut mixed = (seed ^ at).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).to_le_bytes()
}

/// Byte number `at` of that stream.
pub const fn byte(seed: u64, at: u64) -> u8 {
    word(seed, at / WORD as u64)[(at % WORD as u64) as usize]
}

/// Bytes before the first whole word, of so many from byte number `at` on.
fn head(at: u64, length: usize) -> usize {
    (at.next_multiple_of(WORD as u64) - at).min(length as u64) as usize
}

/// Fills `buffer` with the stream from byte number `at` on.
pub fn fill(seed: u64, at: u64, buffer: &mut [u8]) {
    let (first, rest) = buffer.split_at_mut(head(at, buffer.len()));
    let whole = at + first.len() as u64;
    first.iter_mut().zip(at..).for_each(|(place, at)| *place = byte(seed, at));
    for (place, number) in rest.chunks_mut(WORD).zip(whole / WORD as u64..) {
        place.copy_from_slice(&word(seed, number)[..place.len()]);
    }
}

/// Whether `buffer` is the stream from byte number `at` on.
pub fn matches(seed: u64, at: u64, buffer: &[u8]) -> bool {
    let (first, rest) = buffer.split_at(head(at, buffer.len()));
    let whole = at + first.len() as u64;
    let mut words = rest.chunks(WORD).zip(whole / WORD as u64..);
    first.iter().zip(at..).all(|(found, at)| *found == byte(seed, at))
        && words.all(|(found, number)| *found == word(seed, number)[..found.len()])
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

    #[test]
    fn pieces_of_any_length_make_one_stream() {
        let whole: Vec<u8> = (0..100).map(|at| byte(3, at)).collect();
        for from in 0..20 {
            for length in 0..=40 {
                let mut piece = vec![0; length];
                fill(3, from as u64, &mut piece);
                assert_eq!(piece, whole[from..from + length]);
                assert!(matches(3, from as u64, &piece));
                if let Some(last) = piece.last_mut() {
                    *last ^= 0x80;
                    assert!(!matches(3, from as u64, &piece));
                }
            }
        }
    }
}
