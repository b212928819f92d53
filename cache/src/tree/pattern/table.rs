//! The step of a pattern of fewer than 64 items, for ASCII characters, in a few instructions.

use super::automaton::{Item, Set};

/// For each ASCII character, which items take it.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// Characters that the same items take share a row of `masks`.
    rows: [u8; 128],
    masks: Vec<Masks>,
    /// The items that may be empty.
    nullable: u64,
    /// The items that, once begun, must go on to a `/`.
    dirs: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Masks {
    /// The items that take the character and are over.
    advance: u64,
    /// The items that take the character and go on.
    stay: u64,
}

impl Table {
    /// The table of a pattern; `None` when it has too many items. It knows nothing of places
    /// ([`Item::EdgeAfterWord`]).
    pub(super) fn new(items: &[Item]) -> Option<Self> {
        if items.len() > 63 {
            return None;
        }
        let mut table = Self { rows: [0; 128], masks: Vec::new(), nullable: 0, dirs: 0 };
        for (at, item) in items.iter().enumerate() {
            match item {
                Item::Many(_) => table.nullable |= 1 << at,
                Item::Dirs(_) => {
                    table.nullable |= 1 << at;
                    table.dirs |= 1 << at;
                }
                _ => {}
            }
        }
        for symbol in 0..128u8 {
            let masks = masks(items, symbol);
            let row = table.masks.iter().position(|known| *known == masks);
            let row = row.unwrap_or_else(|| {
                table.masks.push(masks);
                table.masks.len() - 1
            });
            table.rows[usize::from(symbol)] = u8::try_from(row).ok()?;
        }
        Some(table)
    }

    /// The states behind an ASCII character.
    pub(super) fn step(&self, now: u64, symbol: u8) -> u64 {
        let masks = self.masks[usize::from(self.rows[usize::from(symbol & 127)])];
        let stay = now & masks.stay;
        // `Dirs` that go on are not at their beginning any more: what follows them is not reached.
        let inside = stay & self.dirs;
        let mut reached = (now & masks.advance) << 1 | stay & !self.dirs;
        loop {
            let more = reached | (reached & self.nullable) << 1;
            if more == reached {
                return reached | inside;
            }
            reached = more;
        }
    }
}

fn masks(items: &[Item], symbol: u8) -> Masks {
    let mut masks = Masks::default();
    let has = |set: &Set| set.has(u32::from(symbol));
    for (at, item) in items.iter().enumerate() {
        let bit = 1 << at;
        match item {
            Item::Char(set) if has(set) => masks.advance |= bit,
            Item::Many(set) if has(set) => masks.stay |= bit,
            Item::Dirs(set) => {
                if has(set) {
                    masks.stay |= bit;
                }
                if symbol == b'/' {
                    masks.advance |= bit;
                }
            }
            _ => {}
        }
    }
    masks
}

#[cfg(test)]
mod tests {
    use super::super::automaton::Automaton;
    use super::super::compile::compile;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_table_agrees_with_the_items(
            pattern in "([ab./*?]|\\*\\*|\\[ab\\]){1,20}",
            now: u64,
            symbol in 0u8..128,
        ) {
            let items = compile(pattern.as_bytes()).unwrap();
            let now = now & ((1 << (items.len() + 1)) - 1);
            let mut next = [0];
            Automaton::new(items.clone()).step(&[now], u32::from(symbol), &mut next);
            prop_assert_eq!(Table::new(&items).unwrap().step(now, symbol), next[0]);
        }
    }
}
