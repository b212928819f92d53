//! From good inputs to bad ones.

use super::Chance;

/// Changes inputs, by the numbers of one seed.
pub struct Mutator<'w> {
    chance: Chance,
    words: &'w [&'w [u8]],
}

/// Numbers where things change: at the ends of types, and around zero.
const EDGES: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

impl<'w> Mutator<'w> {
    /// The changes of a seed. `words` are pieces that mean something.
    pub fn new(seed: u64, words: &'w [&'w [u8]]) -> Self {
        Self { chance: Chance::new(seed), words }
    }

    /// One of `seeds`, changed a few times; now and then bytes by chance only.
    pub fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = match self.chance.below(50) {
            0 => self.noise(),
            _ => self.chance.pick(seeds).cloned().unwrap_or_default(),
        };
        // Few changes leave most inputs good, and so lead further in.
        for _ in 0..1 << self.chance.below(4) {
            self.step(&mut input, seeds);
        }
        input
    }

    fn noise(&mut self) -> Vec<u8> {
        (0..self.chance.below(512)).map(|_| self.chance.number() as u8).collect()
    }

    /// Somewhere between two bytes.
    fn place(&mut self, input: &[u8]) -> usize {
        self.chance.below(input.len() + 1)
    }

    /// A piece of the input, not empty when the input is not.
    fn piece(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let start = self.chance.below(input.len());
        let longest = (input.len() - start).min(if self.chance.below(4) == 0 { 4096 } else { 16 });
        start..start + (1 + self.chance.below(longest)).min(longest)
    }

    fn step(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        match self.chance.below(10) {
            0 => {
                let at = self.chance.below(input.len());
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.chance.below(8);
                }
            }
            1 => {
                let at = self.chance.below(input.len());
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.chance.number() as u8;
                }
            }
            2 => self.edge(input),
            3 => drop(input.drain(self.piece(input))),
            4 => {
                let piece = input[self.piece(input)].to_vec();
                let most = if self.chance.below(8) == 0 { 400 } else { 3 };
                let times = 1 + self.chance.below(most);
                let at = self.place(input);
                input.splice(at..at, piece.repeat(times));
            }
            5 => {
                let other = self.chance.pick(seeds).cloned().unwrap_or_default();
                let piece = other[self.piece(&other)].to_vec();
                let at = self.place(input);
                input.splice(at..at, piece);
            }
            6 => input.truncate(self.place(input)),
            7 => {
                let byte = self.chance.number() as u8;
                let at = self.place(input);
                input.insert(at, byte);
            }
            _ => {
                let word = self.chance.pick(self.words).map_or(&[][..], |word| word);
                let (at, over) = (self.place(input), self.chance.below(2) * word.len());
                let end = (at + over).min(input.len());
                input.splice(at..end, word.iter().copied());
            }
        }
        input.truncate(super::INPUT_BYTES_MAX);
    }

    /// Writes a number that is at the end of a type.
    fn edge(&mut self, input: &mut [u8]) {
        let number = *self.chance.pick(&EDGES).expect("there are some");
        let width = [1, 2, 4, 8][self.chance.below(4)];
        let (small, big) = (number.to_le_bytes(), number.to_be_bytes());
        let bytes = if self.chance.below(2) == 0 { &small[..width] } else { &big[8 - width..] };
        let at = self.chance.below(input.len());
        for (to, from) in input[at..].iter_mut().zip(bytes) {
            *to = *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_those_of_the_seed_and_differ() {
        let seeds = [b"FROM a\nRUN b\n".to_vec(), Vec::new(), vec![0; 300]];
        let of = |seed| Mutator::new(seed, &[b"word"]).mutate(&seeds);
        let inputs: std::collections::BTreeSet<Vec<u8>> = (0..2000).map(of).collect();
        assert!(inputs.len() > 1500, "{} different inputs", inputs.len());
        assert_eq!(of(17), of(17));
        assert!(inputs.iter().all(|input| input.len() <= super::super::INPUT_BYTES_MAX));
        assert!(inputs.iter().any(|input| input.windows(4).any(|w| w == b"word")));
    }

    #[test]
    fn there_need_not_be_seeds() {
        assert!((0..500).any(|seed| !Mutator::new(seed, &[]).mutate(&[]).is_empty()));
    }
}
