//! A pattern as a list of items, and the set of those that are alive while a path goes by.

use super::table::Table;
use std::sync::Arc;

/// Positions of one pattern. No path of Linux has more bytes.
pub(super) const STATES_MAX: usize = 4096;

const WORDS_MAX: usize = STATES_MAX / 64;

/// A character of a path: its code point, or [`NOT_TEXT`] and the byte.
pub(super) type Symbol = u32;

/// What bytes that are not UTF-8 are counted from.
pub(super) const NOT_TEXT: Symbol = 0x11_0000;

const REPLACEMENT: Symbol = 0xfffd;

/// The characters of `text`.
pub(super) fn symbols(text: &[u8]) -> impl Iterator<Item = Symbol> {
    text.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(u32::from);
        valid.chain(chunk.invalid().iter().map(|b| NOT_TEXT + u32::from(*b)))
    })
}

/// Ranges of characters. What many patterns have in common they share.
pub(super) type Ranges = Arc<[(Symbol, Symbol)]>;

/// Some characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Set {
    /// One.
    One(Symbol),
    /// U+FFFD, and bytes that are not UTF-8.
    NotText,
    /// All but `/`.
    NotSlash,
    /// All but the end of a line.
    NotNewline,
    /// All.
    Any,
    /// A class.
    Class {
        /// Whether it is all but these.
        negated: bool,
        /// From, to: in order, and none meets another.
        ranges: Ranges,
    },
}

impl Set {
    pub(super) fn has(&self, symbol: Symbol) -> bool {
        match self {
            Self::One(one) => *one == symbol,
            Self::NotText => symbol == REPLACEMENT || symbol >= NOT_TEXT,
            Self::NotSlash => symbol != u32::from(b'/'),
            Self::NotNewline => symbol != u32::from(b'\n'),
            Self::Any => true,
            Self::Class { negated, ranges } => {
                let symbol = if symbol >= NOT_TEXT { REPLACEMENT } else { symbol };
                let next = ranges.partition_point(|(low, _)| *low <= symbol);
                let is_in = next.checked_sub(1).is_some_and(|at| symbol <= ranges[at].1);
                is_in != *negated
            }
        }
    }
}

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// One character.
    Char(Set),
    /// Any number of characters.
    Many(Set),
    /// Nothing, or any text that ends with a `/`.
    Dirs(Set),
    /// The path's beginning.
    Start,
    /// The path's end.
    End,
    /// A place where a word begins or ends, or (`false`) one where none does. It takes two
    /// positions, this one and [`Item::EdgeAfterOther`]: which of them is alive says what stands
    /// before the place, and what stands behind it is known with the next character.
    EdgeAfterWord(bool),
    /// The second position of an edge: before it is no character of a word.
    EdgeAfterOther(bool),
}

impl Item {
    /// How many ranges of characters it names.
    pub(super) fn ranges(&self) -> usize {
        match self {
            Self::Char(Set::Class { ranges, .. }) | Self::Many(Set::Class { ranges, .. }) => {
                ranges.len()
            }
            _ => 0,
        }
    }
}

/// What stands before a place in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Word,
    Other,
}

impl Before {
    fn of(symbol: Symbol) -> Self {
        if is_word(symbol) { Self::Word } else { Self::Other }
    }
}

/// Whether a character is part of a word, as Go's expressions have it: of ASCII alone.
fn is_word(symbol: Symbol) -> bool {
    let byte = u8::try_from(symbol).unwrap_or(b' ');
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Room for one step.
pub(super) struct Scratch {
    now: [u64; WORDS_MAX],
    next: [u64; WORDS_MAX],
}

impl Default for Scratch {
    fn default() -> Self {
        Self { now: [0; WORDS_MAX], next: [0; WORDS_MAX] }
    }
}

/// A pattern that was compiled. Bit `i` of its states: everything before item `i` has matched.
#[derive(Debug, Clone)]
pub(super) struct Automaton {
    items: Vec<Item>,
    /// How the last name of a path that matches must end.
    tail: Vec<u8>,
    table: Option<Box<Table>>,
    /// Whether some items match a place and not a character.
    has_places: bool,
}

impl Automaton {
    pub(super) fn new(items: Vec<Item>) -> Self {
        let tail = tail(&items);
        let is_place = |item: &Item| matches!(item, Item::End | Item::EdgeAfterWord(_));
        let has_places = items.iter().any(is_place);
        let table = Table::new(&items).filter(|_| !has_places).map(Box::new);
        Self { items, tail, table, has_places }
    }

    /// 64-bit words that its states need.
    pub(super) fn words(&self) -> usize {
        self.items.len() / 64 + 1
    }

    /// The states before the path begins.
    pub(super) fn start(&self, states: &mut [u64]) {
        self.reach(0, Before::Nothing, states);
    }

    /// Comes to item `at`, and over all that may be empty.
    fn reach(&self, mut at: usize, before: Before, states: &mut [u64]) {
        loop {
            let item = self.items.get(at);
            if matches!(item, Some(Item::EdgeAfterWord(_))) && before != Before::Word {
                at += 1;
            }
            states[at / 64] |= 1 << (at % 64);
            match item {
                Some(Item::Many(_) | Item::Dirs(_)) => at += 1,
                Some(Item::Start) if before == Before::Nothing => at += 1,
                _ => return,
            }
        }
    }

    /// Goes on from the places that are what they should be, now that it is known what follows
    /// them: a character, or the path's end.
    fn pass(&self, states: &mut [u64], next: Option<Symbol>) {
        if !self.has_places {
            return;
        }
        // In order, since one place may follow the other.
        for at in 0..self.items.len() {
            if states[at / 64] >> (at % 64) & 1 == 0 {
                continue;
            }
            let is_word = next.is_some_and(is_word);
            match self.items[at] {
                Item::EdgeAfterWord(wanted) if is_word != wanted => {
                    self.reach(at + 2, Before::Word, states);
                }
                Item::EdgeAfterOther(wanted) if is_word == wanted => {
                    self.reach(at + 1, Before::Other, states);
                }
                Item::End if next.is_none() => self.reach(at + 1, Before::Other, states),
                _ => {}
            }
        }
    }

    /// The states behind a character.
    pub(super) fn step(&self, now: &[u64], symbol: Symbol, next: &mut [u64]) {
        if self.has_places {
            let mut room = [0; WORDS_MAX];
            let passed = &mut room[..now.len()];
            passed.copy_from_slice(now);
            self.pass(passed, Some(symbol));
            return self.take(passed, symbol, next);
        }
        self.take(now, symbol, next);
    }

    fn take(&self, now: &[u64], symbol: Symbol, next: &mut [u64]) {
        let before = Before::of(symbol);
        next.fill(0);
        for (word, bits) in now.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let at = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                match self.items.get(at) {
                    Some(Item::Char(set)) if set.has(symbol) => self.reach(at + 1, before, next),
                    Some(Item::Many(set)) if set.has(symbol) => self.reach(at, before, next),
                    Some(Item::Dirs(set)) => {
                        if set.has(symbol) {
                            next[word] |= 1 << (at % 64);
                        }
                        if symbol == u32::from(b'/') {
                            self.reach(at + 1, before, next);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn is_accepted(&self, states: &[u64]) -> bool {
        let end = self.items.len();
        if self.has_places {
            let mut room = [0; WORDS_MAX];
            let passed = &mut room[..states.len()];
            passed.copy_from_slice(states);
            self.pass(passed, None);
            return passed[end / 64] >> (end % 64) & 1 == 1;
        }
        states[end / 64] >> (end % 64) & 1 == 1
    }

    /// Whether a path whose last name is `name` may match: a quick look before the exact one.
    pub(super) fn may_end(&self, name: &[u8]) -> bool {
        name.ends_with(&self.tail)
    }

    /// Whether `name` after `states` is a match.
    pub(super) fn accepts(&self, states: &[u64], name: &[u8], scratch: &mut Scratch) -> bool {
        self.run(states, name, scratch) && self.is_accepted(&scratch.now[..self.words()])
    }

    /// As [`Automaton::accepts`]; `below` gets the states behind `name` and a `/`.
    pub(super) fn enter(
        &self,
        states: &[u64],
        name: &[u8],
        below: &mut [u64],
        scratch: &mut Scratch,
    ) -> bool {
        if !self.run(states, name, scratch) {
            return false;
        }
        let now = &scratch.now[..self.words()];
        self.step(now, u32::from(b'/'), below);
        self.is_accepted(now)
    }

    /// Runs over a name; `false` when no state is left.
    fn run(&self, states: &[u64], name: &[u8], scratch: &mut Scratch) -> bool {
        if let (Some(table), [now], true) = (&self.table, states, name.is_ascii()) {
            let mut now = *now;
            for byte in name {
                if now == 0 {
                    return false;
                }
                now = table.step(now, *byte);
            }
            scratch.now[0] = now;
            return now != 0;
        }
        let words = self.words();
        let Scratch { now, next } = scratch;
        let (mut now, mut next) = (&mut now[..words], &mut next[..words]);
        now.copy_from_slice(states);
        let mut is_odd = false;
        for symbol in symbols(name) {
            if is_dead(now) {
                return false;
            }
            self.step(now, symbol, next);
            std::mem::swap(&mut now, &mut next);
            is_odd = !is_odd;
        }
        if is_odd {
            next.copy_from_slice(now);
            std::mem::swap(&mut now, &mut next);
        }
        !is_dead(now)
    }

    /// Whether a path, or a directory that it is in, is a match.
    pub(super) fn accepts_any_parent(&self, path: &[u8]) -> bool {
        let mut scratch = Scratch::default();
        let mut states = vec![0; self.words()];
        self.start(&mut states);
        for name in path.split(|b| *b == b'/') {
            let mut below = vec![0; self.words()];
            if self.enter(&states, name, &mut below, &mut scratch) {
                return true;
            }
            states = below;
        }
        false
    }
}

fn is_dead(states: &[u64]) -> bool {
    states.iter().all(|word| *word == 0)
}

/// The bytes that the last name of a match ends with, as far as they are certain.
fn tail(items: &[Item]) -> Vec<u8> {
    let mut tail = Vec::new();
    for item in items.iter().rev() {
        let Item::Char(Set::One(symbol)) = item else { break };
        match symbol.checked_sub(NOT_TEXT).map(u8::try_from) {
            Some(Ok(byte)) => tail.push(byte),
            Some(Err(_)) => break,
            None if *symbol == u32::from(b'/') => break,
            None => {
                let Some(c) = char::from_u32(*symbol) else { break };
                let mut bytes = [0; 4];
                tail.extend(c.encode_utf8(&mut bytes).bytes().rev());
            }
        }
    }
    tail.reverse();
    tail
}
