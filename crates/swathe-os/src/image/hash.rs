//! The hash behind identities of objects and builds.

/// A fast hash that is the same in every process (which the standard library's is not promised to be).
///
/// Words go in turn to independent lanes, each a multiply-and-rotate chain, so that the lanes run in parallel; at
/// the end the lanes are mixed into each other with the output function of SplitMix64 (Steele, Lea and Flood 2014).
pub(super) struct Hash {
    lanes: [u64; 4],
    words: u64,
}

impl Hash {
    /// Odd, so that multiplying loses nothing: 2^64 divided by the golden ratio.
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

    pub(super) fn new() -> Self {
        Self {
            lanes: [1, 2, 3, 4].map(|lane: u64| lane.wrapping_mul(Self::MULTIPLIER)),
            words: 0,
        }
    }

    pub(super) fn word(&mut self, word: u64) {
        let lane = &mut self.lanes[(self.words % 4) as usize];
        *lane = (*lane ^ word).wrapping_mul(Self::MULTIPLIER).rotate_left(29);
        self.words += 1;
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
        // The length keeps "ab" then "c" apart from "a" then "bc", and trailing zeros apart from padding.
        self.word(bytes.len() as u64);
    }

    pub(super) fn finish(self) -> [u64; 4] {
        let mut carry = self.words;
        let mut mix = |lane: u64| {
            carry = splitmix(carry ^ lane);
            carry
        };
        // Twice, so that the first word of the result depends on the last lane too.
        self.lanes.map(&mut mix).map(&mut mix)
    }
}

fn splitmix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_sees_every_byte_and_every_border() {
        let hash = |parts: &[&[u8]]| {
            let mut hash = Hash::new();
            parts.iter().for_each(|part| hash.bytes(part));
            hash.finish()
        };
        let bytes: Vec<u8> = (0..100).collect();
        let whole = hash(&[&bytes]);
        assert_eq!(whole, hash(&[&bytes]));
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 0x80;
            let other = hash(&[&changed]);
            assert!(whole.iter().zip(other).all(|(a, b)| *a != b), "byte {position}");
        }
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"a"]), hash(&[b"a\0"]));
        assert_ne!(hash(&[&bytes[..50], &bytes[50..]]), whole);
    }
}
