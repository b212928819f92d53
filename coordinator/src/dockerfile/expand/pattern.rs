//! The patterns of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`.
//!
//! `*` stands for any text and `?` for one character, neither of them over the end of a line;
//! `\*`, `\?` and `\\` stand for themselves. All matching is one pass over the value, with the set
//! of the pattern's live positions as bits: the cost is the value's length times the number of
//! 64-bit words that the pattern needs, whatever the two are.

use super::name;
use std::collections::BTreeMap;

/// Characters of one pattern.
const CHARS_MAX: usize = 1024;

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A backslash before a character that needs none.
    #[error("`\\{0}` is no escape; only `\\*`, `\\?` and `\\\\` are")]
    Escape(char),
    /// A backslash at the end.
    #[error("it ends with a single `\\`")]
    OpenEscape,
    /// Too long.
    #[error("it is longer than {CHARS_MAX} characters")]
    TooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Char(char),
    One,
    Many,
}

/// A pattern that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    items: Vec<Item>,
}

/// How much of the value is taken, where there is a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Shortest,
    Longest,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut items = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let item = match c {
                '*' => Item::Many,
                '?' => Item::One,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Item::Char(c),
                    Some(c) => return Err(PatternError::Escape(c)),
                    None => return Err(PatternError::OpenEscape),
                },
                c => Item::Char(c),
            };
            if item != Item::Many || items.last() != Some(&Item::Many) {
                items.push(item);
            }
            if items.len() > CHARS_MAX {
                return Err(PatternError::TooLong);
            }
        }
        Ok(Self { items })
    }

    fn reversed(&self) -> Self {
        Self { items: self.items.iter().rev().copied().collect() }
    }

    /// `value` without the part at its head that the pattern matches.
    pub(super) fn without_prefix<'v>(&self, value: &'v str, reach: Reach) -> &'v str {
        let len = Automaton::new(self).reach(value.chars(), reach).unwrap_or(0);
        let at = value.char_indices().nth(len).map_or(value.len(), |(at, _)| at);
        &value[at..]
    }

    /// `value` without the part at its end that the pattern matches.
    pub(super) fn without_suffix<'v>(&self, value: &'v str, reach: Reach) -> &'v str {
        let len = Automaton::new(&self.reversed()).reach(value.chars().rev(), reach).unwrap_or(0);
        let cut = value.chars().rev().take(len).map(char::len_utf8).sum::<usize>();
        &value[..value.len() - cut]
    }

    /// `value` with the first (and longest) match replaced.
    pub(super) fn replace_first(&self, value: &str, with: &str) -> String {
        let chars: Vec<char> = value.chars().collect();
        let starts = self.starts(&chars);
        let Some(start) = starts.iter().position(|starts| *starts) else {
            return value.to_owned();
        };
        let len = self.longest_at(&chars, start);
        let mut out: String = chars[..start].iter().collect();
        out.push_str(with);
        out.extend(&chars[start + len..]);
        out
    }

    /// `value` with all matches replaced; `$0` in `with` is the match, `$$` a dollar sign, and every
    /// other `$name` and `${name}` nothing (`Regexp.ReplaceAllString` of Go). An empty match right
    /// after another match does not count.
    ///
    /// Gives up, with `None`, when the result would be longer than `bytes_max`.
    pub(super) fn replace_all(&self, value: &str, with: &str, bytes_max: usize) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let starts = self.starts(&chars);
        let mut out = String::new();
        let mut copied = 0;
        let mut from = 0;
        while let Some(start) = (from..=chars.len()).find(|at| starts[*at]) {
            let end = start + self.longest_at(&chars, start);
            out.extend(&chars[copied..start]);
            if end > copied || start == 0 {
                fill_template(with, &chars[start..end], &mut out);
            }
            if out.len() > bytes_max {
                return None;
            }
            copied = end;
            from = end.max(from + 1);
        }
        out.extend(&chars[copied..]);
        (out.len() <= bytes_max).then_some(out)
    }

    /// For each position, the end included: whether a match starts there.
    fn starts(&self, value: &[char]) -> Vec<bool> {
        let mut automaton = Automaton::new(&self.reversed());
        let mut starts = vec![false; value.len() + 1];
        automaton.begin();
        starts[value.len()] = automaton.accepts();
        for (at, c) in value.iter().enumerate().rev() {
            automaton.step(*c);
            automaton.begin();
            starts[at] = automaton.accepts();
        }
        starts
    }

    fn longest_at(&self, value: &[char], start: usize) -> usize {
        let rest = value[start..].iter().copied();
        Automaton::new(self).reach(rest, Reach::Longest).unwrap_or(0)
    }
}

/// Appends `with`, with its `$` references replaced.
fn fill_template(with: &str, matched: &[char], out: &mut String) {
    let mut rest = with;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        match reference(rest) {
            Some((name, after)) => {
                if name == "0" {
                    out.extend(matched);
                }
                rest = after;
            }
            None => out.push('$'),
        }
    }
    out.push_str(rest);
}

/// The name at the head of a template after its `$`, and what follows.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (braced, inner) = match text.strip_prefix('{') {
        Some(inner) => (true, inner),
        None => (false, text),
    };
    let end = inner.find(|c| !name::has(c)).unwrap_or(inner.len());
    let (name, after) = inner.split_at(end);
    if name.is_empty() {
        return None;
    }
    if braced { Some((name, after.strip_prefix('}')?)) } else { Some((name, after)) }
}

/// The live positions in a pattern, while a value goes by.
struct Automaton {
    /// Bit `i`: everything before item `i` has matched.
    live: Vec<u64>,
    /// The items that take any character of a line and stay.
    many: Vec<u64>,
    /// The items that take any character of a line.
    one: Vec<u64>,
    /// The items that take a character.
    exact: BTreeMap<char, Vec<u64>>,
    end: usize,
}

impl Automaton {
    fn new(pattern: &Pattern) -> Self {
        let words = pattern.items.len() / 64 + 1;
        let mut new = Self {
            live: vec![0; words],
            many: vec![0; words],
            one: vec![0; words],
            exact: BTreeMap::new(),
            end: pattern.items.len(),
        };
        for (at, item) in pattern.items.iter().enumerate() {
            let mask = match item {
                Item::Many => &mut new.many,
                Item::One => &mut new.one,
                Item::Char(c) => new.exact.entry(*c).or_insert_with(|| vec![0; words]),
            };
            mask[at / 64] |= 1 << (at % 64);
        }
        new
    }

    /// Lets a match begin here.
    fn begin(&mut self) {
        self.live[0] |= 1;
        self.pass_over_many();
    }

    /// `*` may stand for nothing. Two of them never stand side by side, so one round is enough.
    fn pass_over_many(&mut self) {
        let mut carry = 0;
        for (live, many) in self.live.iter_mut().zip(&self.many) {
            let empty = *live & many;
            *live |= (empty << 1) | carry;
            carry = empty >> 63;
        }
    }

    fn step(&mut self, c: char) {
        let exact = self.exact.get(&c);
        let mut carry = 0;
        for at in 0..self.live.len() {
            let any = if c == '\n' { 0 } else { u64::MAX };
            let take = exact.map_or(0, |mask| mask[at]) | (self.one[at] & any);
            let gone = self.live[at] & take;
            let stay = self.live[at] & self.many[at] & any;
            self.live[at] = (gone << 1) | carry | stay;
            carry = gone >> 63;
        }
        self.pass_over_many();
    }

    fn accepts(&self) -> bool {
        self.live[self.end / 64] >> (self.end % 64) & 1 == 1
    }

    fn is_dead(&self) -> bool {
        self.live.iter().all(|word| *word == 0)
    }

    /// How many characters of `value` a match from its head takes.
    fn reach(mut self, value: impl Iterator<Item = char>, reach: Reach) -> Option<usize> {
        self.begin();
        let mut found = self.accepts().then_some(0);
        for (at, c) in value.enumerate() {
            if self.is_dead() || (found.is_some() && reach == Reach::Shortest) {
                break;
            }
            self.step(c);
            if self.accepts() {
                found = Some(at + 1);
            }
        }
        found
    }
}

#[cfg(test)]
#[path = "pattern_tests.rs"]
mod tests;
