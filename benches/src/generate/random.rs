//! Random numbers that stay the same over versions and machines: `SplitMix64` (Steele, Lea and Flood, 2014).
//!
//! Good enough to spread test data, and its stream is fixed by its definition, which no library promises.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, or 0 when `bound` is 0. The bias, bound / 2^64, is nothing here.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// True with probability `share`.
    pub fn chance(&mut self, share: f64) -> bool {
        // 53 bits are what a float holds exactly, so the comparison is the same everywhere.
        ((self.next() >> 11) as f64) < share * (1u64 << 53) as f64
    }

    /// A whole number with a long tail: each size in bits up to `bits` is equally likely.
    pub fn long_tailed(&mut self, bits: u32) -> u64 {
        let size = self.below(u64::from(bits)) + 1;
        self.below(1 << size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn chances_are_kept_at_their_ends() {
        let mut random = Random::new(7);
        assert!((0..1000).all(|_| !random.chance(0.0) && random.chance(1.0)));
        assert!((0..1000).all(|_| random.below(3) < 3 && random.long_tailed(4) < 16));
    }
}
