//! Variables in the words of a Dockerfile: `$name`, `${name}` and its modifiers, quotes, escapes.
//!
//! The grammar is the one of BuildKit's `frontend/dockerfile/shell/lex.go`, which is not quite a
//! shell's: quotes do not stop a word, `\` escapes any character outside of double quotes, there is
//! no `${name:=text}`, and patterns know `*` and `?` only.

mod lexer;
mod name;
mod pattern;

use super::directive::Escape;
use super::text::shown;
pub use pattern::PatternError;
use std::collections::BTreeSet;

/// Variables inside variables: `${a:-${b:-…}}`.
pub const NESTING_MAX: usize = 100;

/// By how many bytes the values of variables may make one word longer.
pub const GROWTH_BYTES_MAX: usize = 1 << 20;

/// Text of a Dockerfile whose variables are not yet replaced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(String);

impl Word {
    /// Text as it stands in the Dockerfile.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as it stands in the Dockerfile.
    pub fn raw(&self) -> &str {
        &self.0
    }
}

/// Why a text cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Cannot expand `{text}`: {why}")]
pub struct ExpandError {
    /// The text, or its beginning.
    pub text: String,
    /// What is wrong.
    pub why: ExpandProblem,
}

impl ExpandError {
    /// Whose trouble it is: always the author's of the Dockerfile.
    pub fn class(&self) -> proto::error::Class {
        proto::error::Class::User
    }
}

/// What is wrong in a text with variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandProblem {
    /// A quote without its end.
    #[error("the quote {0} is not closed")]
    OpenQuote(char),
    /// `${` without its end.
    #[error("a `}}` is missing after `${{`")]
    OpenBrace,
    /// `${name/pattern` without the second slash.
    #[error("`${{name/pattern/text}}` needs two slashes")]
    NoReplacement,
    /// `${}`, `${:…}` or `${{…}}`.
    #[error("bad substitution: a name is missing after `${{`")]
    NoName,
    /// A modifier that there is not.
    #[error("the modifier `{0}` of the substitution is not supported")]
    Modifier(String),
    /// `${name:?message}` where the name has no value.
    #[error("the variable `{name}` {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the Dockerfile says about it, or that it must be set.
        message: String,
    },
    /// A pattern that is none.
    #[error("the pattern `{text}` is not valid: {why}")]
    Pattern {
        /// The pattern.
        text: String,
        /// What is wrong with it.
        why: PatternError,
    },
    /// [`NESTING_MAX`].
    #[error("more than {NESTING_MAX} substitutions stand inside each other")]
    TooDeep,
    /// [`GROWTH_BYTES_MAX`].
    #[error("its variables would make it longer by more than {GROWTH_BYTES_MAX} bytes")]
    TooLong,
}

impl ExpandProblem {
    /// Whether it is wrong whatever values the variables have.
    pub fn is_of_grammar(&self) -> bool {
        match self {
            Self::OpenQuote(_)
            | Self::OpenBrace
            | Self::NoReplacement
            | Self::NoName
            | Self::Modifier(_)
            | Self::TooDeep => true,
            Self::Required { .. } | Self::Pattern { .. } | Self::TooLong => false,
        }
    }
}

/// What a name stands for, if anything.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<&'a str>;

/// Replaces variables by their values, and remembers which names were asked for.
///
/// All words of one instruction go through one `Expander`, whose `lookup` answers with what was set
/// *before* the instruction: `ENV a=1 b=$a` gives `b` the older value of `a`.
pub struct Expander<'a> {
    escape: Escape,
    lookup: Lookup<'a>,
    used: BTreeSet<String>,
    missing: BTreeSet<String>,
}

impl<'a> Expander<'a> {
    /// An expander with the Dockerfile's escape character, and the values of names.
    pub fn new(escape: Escape, lookup: Lookup<'a>) -> Self {
        Self { escape, lookup, used: BTreeSet::new(), missing: BTreeSet::new() }
    }

    /// The names that were asked for and have a value.
    pub fn used(&self) -> &BTreeSet<String> {
        &self.used
    }

    /// The names that were asked for and have none. They were taken for empty; the check
    /// `UndefinedVar` reports them.
    pub fn missing(&self) -> &BTreeSet<String> {
        &self.missing
    }

    /// One word to one text.
    pub fn word(&mut self, word: &Word) -> Result<String, ExpandError> {
        let mode = Mode { escape: self.escape, ..Mode::default() };
        Ok(self.run(word.raw(), mode)?.text)
    }

    /// One word to any number of words, split at blanks after its variables are replaced (EXPOSE).
    /// Names without a value are not remembered.
    pub fn words(&mut self, word: &Word) -> Result<Vec<String>, ExpandError> {
        let mode = Mode { escape: self.escape, ..Mode::default() };
        let found = lexer::run(word.raw(), mode, self.lookup, &mut |_, _| {});
        Ok(found.map_err(|why| fault(word.raw(), why))?.words)
    }

    /// The text of a COPY or ADD heredoc: quotes are kept, and `\` is the escape character whatever
    /// the Dockerfile's is. Bytes that are not UTF-8 become U+FFFD.
    pub fn heredoc(&mut self, text: &[u8]) -> Result<Vec<u8>, ExpandError> {
        let mode = Mode { quotes: Quotes::Plain, ..Mode::default() };
        let text = String::from_utf8_lossy(text);
        Ok(self.run(&text, mode)?.text.into_bytes())
    }

    /// An instruction's text for people to see. A text that cannot be expanded is kept whole.
    pub fn title(&self, text: &str, of: Title) -> String {
        let mode = Mode { escape: self.escape, ..Mode::default() };
        let mode = match of {
            Title::Command => Mode { quotes: Quotes::Kept, unset: Unset::Kept, ..mode },
            Title::Other => mode,
        };
        match lexer::run(text, mode, self.lookup, &mut |_, _| {}) {
            Ok(found) => found.text,
            Err(_) => text.to_owned(),
        }
    }

    fn run(&mut self, text: &str, mode: Mode) -> Result<Expanded, ExpandError> {
        let (used, missing) = (&mut self.used, &mut self.missing);
        let mut note = |name: &str, set: bool| {
            let names = if set { &mut *used } else { &mut *missing };
            if !names.contains(name) {
                names.insert(name.to_owned());
            }
        };
        lexer::run(text, mode, self.lookup, &mut note).map_err(|why| fault(text, why))
    }
}

/// What a title is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Title {
    /// A RUN: quotes are kept, and so are names that the builder does not know.
    Command,
    /// Another instruction.
    Other,
}

fn fault(text: &str, why: ExpandProblem) -> ExpandError {
    ExpandError { text: shown(text), why }
}

/// What is left of quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Quotes {
    /// Nothing: they delimit.
    #[default]
    Dropped,
    /// They delimit, and stay in the text.
    Kept,
    /// They are characters like any others.
    Plain,
}

/// What is left of escape characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Escapes {
    #[default]
    Dropped,
    Kept,
}

/// What becomes of a name without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Unset {
    /// Nothing.
    #[default]
    Empty,
    /// The text that names it.
    Kept,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mode {
    escape: Escape,
    quotes: Quotes,
    escapes: Escapes,
    unset: Unset,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Expanded {
    text: String,
    words: Vec<String>,
}

fn nothing(_: &str) -> Option<&'static str> {
    None
}

/// The words of a line, with quotes and escapes kept, for the search of heredoc markers. Nothing,
/// when the line cannot be read so.
pub(super) fn raw_words(line: &str) -> Vec<String> {
    let mode = Mode {
        quotes: Quotes::Kept,
        escapes: Escapes::Kept,
        unset: Unset::Kept,
        ..Mode::default()
    };
    let found = lexer::run(line, mode, &nothing, &mut |_, _| {});
    found.map(|found| found.words).unwrap_or_default()
}

/// The words of a heredoc's name: without its quotes, and with them.
pub(super) fn name_words(name: &str) -> Result<(Vec<String>, Vec<String>), ExpandError> {
    let words = |quotes| {
        let mode = Mode { quotes, unset: Unset::Kept, ..Mode::default() };
        let found = lexer::run(name, mode, &nothing, &mut |_, _| {});
        found.map(|found| found.words).map_err(|why| fault(name, why))
    };
    Ok((words(Quotes::Dropped)?, words(Quotes::Kept)?))
}

#[cfg(test)]
mod tests;
