//! The machine of the simulation: it remembers everything.

use coordinator::raft::{Machine, RestoreError};

/// An entry: the number that a client gave it. Larger entries have more bytes behind it.
pub type Fact = u64;

/// All entries that were applied, in order, each with its index.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tape {
    pub facts: Vec<(u64, Fact)>,
    /// How often it was restored from a snapshot.
    pub restored: u64,
}

pub fn encode(fact: Fact, padding: usize) -> Vec<u8> {
    let mut bytes = fact.to_be_bytes().to_vec();
    bytes.resize(8 + padding, 0x5a);
    bytes
}

impl Machine for Tape {
    fn apply(&mut self, index: u64, entry: &[u8]) {
        let fact = entry.first_chunk::<8>().expect("an entry of the simulation");
        self.facts.push((index, u64::from_be_bytes(*fact)));
    }

    fn snapshot(&self) -> Vec<u8> {
        self.facts
            .iter()
            .flat_map(|(index, fact)| [*index, *fact])
            .flat_map(u64::to_be_bytes)
            .collect()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        let (numbers, rest) = snapshot.as_chunks::<8>();
        if !rest.is_empty() || !numbers.len().is_multiple_of(2) {
            return Err(RestoreError("it is no tape".to_owned()));
        }
        let number = |at: usize| u64::from_be_bytes(numbers[at]);
        self.facts = (0..numbers.len() / 2).map(|n| (number(2 * n), number(2 * n + 1))).collect();
        self.restored += 1;
        Ok(())
    }
}
