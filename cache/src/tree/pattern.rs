//! Which paths are left out: `.dockerignore`, and `--exclude` of COPY and ADD (also the include
//! patterns of `COPY --parents`).
//!
//! The rules are those of moby/patternmatcher v0.6.1, whose patterns are translated to Go's regular
//! expressions there; this module runs the same language as sets of positions, all patterns at once,
//! so that a walk pays for each name only once, and can tell which directories hold nothing that it
//! looks for.
//!
//! - The last pattern that matches decides; one that begins with `!` is an exception.
//! - What matches a directory matches all that is in it.
//! - `*` is any text without `/`, `?` any character but `/`, `**` any text, `**/` also none,
//!   `[a-z]` a class, and `\` takes away a character's meaning.
//!
//! As there, `\d`, `\s`, `\w` and their capital forms are classes, `\b` is the beginning or the end of
//! a word (so that `bin\build` matches nothing) and `\B` any other place, `\A` and `\z` are the path's
//! beginning and end, `\Q` quotes up to `\E`, `\x41` and `\101` are characters by their numbers, and `\pL`
//! and `\PL` are those that are in a category of Unicode and those that are not.
//! Other letters after a `\` are refused, as they are there: `bin\obj`.

mod automaton;
mod compile;
mod ignore_file;
mod table;

use automaton::{Automaton, Item, STATES_MAX, Scratch};
pub use ignore_file::{IgnoreError, read as read_ignore_file};

/// Patterns of one list.
pub const PATTERNS_MAX: usize = 100_000;

/// What is wrong with a list of patterns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// An exception from nothing.
    #[error("The pattern `!` excepts nothing; write what comes back: `!name`")]
    Exception,
    /// A pattern that cannot be read.
    #[error("The pattern `{text}` is not valid: {why}")]
    Syntax {
        /// The pattern.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A pattern whose regular expression Go cannot read. BuildKit notices when it first compares
    /// the pattern with a path.
    #[error("The pattern `{text}` is not valid: {why}")]
    Expression {
        /// The pattern.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// [`PATTERNS_MAX`].
    #[error("There are more than {PATTERNS_MAX} patterns")]
    TooMany,
    /// [`RANGES_MAX`].
    #[error(
        "The classes of the patterns have more than {RANGES_MAX} ranges of characters together"
    )]
    TooManyRanges,
}

impl PatternError {
    /// Whose trouble it is: the author's of the patterns.
    pub fn class(&self) -> proto::error::Class {
        proto::error::Class::User
    }

    fn syntax(text: &[u8], why: &'static str) -> Self {
        Self::Syntax { text: shown(text), why }
    }

    fn expression(text: &[u8], why: &'static str) -> Self {
        Self::Expression { text: shown(text), why }
    }
}

/// A pattern as messages have it.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(200).collect()
}

/// Ranges of characters that the patterns of one list name: some classes have hundreds of them.
pub const RANGES_MAX: usize = 4 << 20;

/// A list of patterns.
#[derive(Debug, Clone)]
pub struct Patterns {
    list: Vec<Pattern>,
    has_exceptions: bool,
    words: usize,
    ranges: usize,
}

#[derive(Debug, Clone)]
struct Pattern {
    text: Vec<u8>,
    is_exception: bool,
    automaton: Automaton,
    /// Where its positions are in [`Level::live`].
    offset: usize,
}

impl Pattern {
    fn live<'l>(&self, level: &'l Level) -> &'l [u64] {
        &level.live[self.offset..self.offset + self.automaton.words()]
    }
}

/// A directory, and how far each pattern has come in its path: what a walk hands down.
#[derive(Debug, Clone)]
pub struct Level {
    /// For each pattern, the positions that are alive before the names in the directory.
    live: Vec<u64>,
    /// For each pattern, whether it matches the directory or one that it is in.
    matched: Vec<bool>,
    is_match: bool,
}

impl Level {
    /// Whether the directory itself is matched (left out, for a list of what to leave out).
    pub fn is_match(&self) -> bool {
        self.is_match
    }
}

impl Patterns {
    /// Reads patterns: blanks around them are dropped, and they are cleaned (`a//b/` is `a/b`). An
    /// empty one is skipped.
    pub fn new<P: AsRef<[u8]>>(
        patterns: impl IntoIterator<Item = P>,
    ) -> Result<Self, PatternError> {
        let mut new = Self { list: Vec::new(), has_exceptions: false, words: 0, ranges: 0 };
        for pattern in patterns {
            let text = ignore_file::trim(pattern.as_ref());
            if !text.is_empty() {
                new.push(ignore_file::clean(text))?;
            }
        }
        Ok(new)
    }

    fn push(&mut self, mut text: Vec<u8>) -> Result<(), PatternError> {
        let is_exception = text.first() == Some(&b'!');
        if is_exception {
            text.remove(0);
            self.has_exceptions = true;
            if text.is_empty() {
                return Err(PatternError::Exception);
            }
        }
        if super::glob::Glob::new(&text).is_err() {
            let why =
                "a `[` needs a `]` and something between them, and a `\\` a character after it";
            return Err(PatternError::syntax(&text, why));
        }
        if self.list.len() == PATTERNS_MAX {
            return Err(PatternError::TooMany);
        }
        let items = compile::compile(&text).map_err(|why| PatternError::expression(&text, why))?;
        if items.len() >= STATES_MAX {
            return Err(PatternError::syntax(&text, "it is longer than any path"));
        }
        self.ranges += items.iter().map(Item::ranges).sum::<usize>();
        if self.ranges > RANGES_MAX {
            return Err(PatternError::TooManyRanges);
        }
        let automaton = Automaton::new(items);
        let offset = self.words;
        self.words += automaton.words();
        self.list.push(Pattern { text, is_exception, automaton, offset });
        Ok(())
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether there are exceptions (`!`).
    pub fn has_exceptions(&self) -> bool {
        self.has_exceptions
    }

    /// The patterns that are no exceptions, as they are matched.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.list.iter().filter(|p| !p.is_exception).map(|p| p.text.as_slice())
    }

    /// The directory that all paths count from. It matches nothing.
    pub fn root(&self) -> Level {
        let mut live = vec![0; self.words];
        for pattern in &self.list {
            let words = pattern.offset..pattern.offset + pattern.automaton.words();
            pattern.automaton.start(&mut live[words]);
        }
        Level { live, matched: vec![false; self.list.len()], is_match: false }
    }

    /// Whether `name` in the directory `parent` is matched, when it is no directory.
    pub fn file(&self, parent: &Level, name: &[u8]) -> bool {
        let mut scratch = Scratch::default();
        let mut is_match = false;
        for (pattern, above) in self.list.iter().zip(&parent.matched) {
            let found = *above
                || pattern.is_exception == is_match
                    && pattern.automaton.may_end(name)
                    && pattern.automaton.accepts(pattern.live(parent), name, &mut scratch);
            if found {
                is_match = !pattern.is_exception;
            }
        }
        is_match
    }

    /// The directory `name` in the directory `parent`.
    ///
    /// As in BuildKit, a pattern that could not have changed the result so far is not tried, and so
    /// not remembered for what is below either.
    pub fn directory(&self, parent: &Level, name: &[u8]) -> Level {
        let mut scratch = Scratch::default();
        let mut live = vec![0; self.words];
        let mut matched = Vec::with_capacity(self.list.len());
        let mut is_match = false;
        for (pattern, above) in self.list.iter().zip(&parent.matched) {
            let words = pattern.offset..pattern.offset + pattern.automaton.words();
            let fits = !*above
                && pattern.automaton.enter(
                    pattern.live(parent),
                    name,
                    &mut live[words],
                    &mut scratch,
                );
            let found = *above || pattern.is_exception == is_match && fits;
            if found {
                is_match = !pattern.is_exception;
            }
            matched.push(found);
        }
        Level { live, matched, is_match }
    }

    /// Whether something below a directory that is matched may be excepted. `false` is certain: a
    /// walk need not enter it.
    pub fn may_except_below(&self, level: &Level) -> bool {
        self.may_decide_below(level, true)
    }

    /// Whether something below a directory that is not matched may be matched. `false` is certain.
    pub fn may_match_below(&self, level: &Level) -> bool {
        self.may_decide_below(level, false)
    }

    fn may_decide_below(&self, level: &Level, exceptions: bool) -> bool {
        let mut of_kind = self.list.iter().filter(|pattern| pattern.is_exception == exceptions);
        of_kind.any(|pattern| pattern.live(level).iter().any(|word| *word != 0))
    }

    /// Whether a path is matched, as a walk finds it that goes down from the root.
    pub fn matches(&self, path: &[u8]) -> bool {
        let (dirs, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (Some(&path[..at]), &path[at + 1..]),
            None => (None, path),
        };
        let mut level = self.root();
        for dir in dirs.into_iter().flat_map(|dirs| dirs.split(|b| *b == b'/')) {
            level = self.directory(&level, dir);
        }
        self.file(&level, name)
    }

    /// Whether a path is matched, where every pattern is compared with the path and with all
    /// directories that it is in. Other than [`Patterns::matches`] only for lists in which a pattern
    /// stands again after an exception from it. BuildKit's checks ask so.
    pub fn matches_path_or_parent(&self, path: &[u8]) -> bool {
        let mut is_match = false;
        for pattern in &self.list {
            if pattern.is_exception == is_match && pattern.automaton.accepts_any_parent(path) {
                is_match = !pattern.is_exception;
            }
        }
        is_match
    }
}

#[cfg(test)]
mod tests;
