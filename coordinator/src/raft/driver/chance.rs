//! Election timeouts from a seed.

use std::ops::Range;

/// A generator of numbers that look random: SplitMix64 (Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", 2014). No secrets may be made of it.
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of the range, which is short and not empty.
    pub fn within(&mut self, range: Range<usize>) -> usize {
        let span = (range.end - range.start) as u64;
        range.start + (self.next() % span) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_published_numbers() {
        let mut chance = Chance::new(1234567);
        let numbers = [chance.next(), chance.next(), chance.next()];
        assert_eq!(numbers, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn all_of_a_range_comes() {
        let mut chance = Chance::new(1);
        let mut seen = [false; 10];
        (0..200).for_each(|_| seen[chance.within(10..20) - 10] = true);
        assert_eq!(seen, [true; 10]);
    }
}
