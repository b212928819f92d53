//! One pass over a text: quotes, escapes and variables, to a text and to words.

use super::name;
use super::pattern::{Pattern, Reach};
use super::{
    Escapes, ExpandProblem, Expanded, GROWTH_BYTES_MAX, Lookup, Mode, NESTING_MAX, Quotes, Unset,
};

type Result<T> = std::result::Result<T, ExpandProblem>;

/// Expands `text`; `note` hears of each name that is asked for, and whether it has a value.
pub(super) fn run(
    text: &str,
    mode: Mode,
    lookup: Lookup<'_>,
    note: &mut dyn FnMut(&str, bool),
) -> Result<Expanded> {
    let mut lexer = Lexer {
        // Go's scanner drops a byte order mark at its start.
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        mode,
        lookup,
        note,
        word: String::new(),
        growth: 0,
        depth: 0,
    };
    lexer.until(None, mode.escapes)
}

struct Lexer<'t, 'e> {
    rest: &'t str,
    mode: Mode,
    lookup: Lookup<'e>,
    note: &'t mut dyn FnMut(&str, bool),
    /// The word that is being read. Nested texts share it, so that `80${x:-81}` loses its `80` as a
    /// *word*: so does BuildKit's EXPOSE.
    word: String,
    growth: usize,
    depth: usize,
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    inside: bool,
}

impl Words {
    /// A character as it stands: a blank ends a word.
    fn push(&mut self, word: &mut String, c: char) {
        if !c.is_whitespace() {
            self.push_literal(word, c);
        } else if self.inside && !word.is_empty() {
            self.done.push(std::mem::take(word));
            self.inside = false;
        }
    }

    /// A character that was quoted or escaped.
    fn push_literal(&mut self, word: &mut String, c: char) {
        word.push(c);
        self.inside = true;
    }

    fn finish(mut self, word: &mut String) -> Vec<String> {
        if !word.is_empty() {
            self.done.push(std::mem::take(word));
        }
        self.done
    }
}

impl Lexer<'_, '_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        c
    }

    /// Reads up to `stop`, which is taken, or to the end.
    fn until(&mut self, stop: Option<char>, escapes: Escapes) -> Result<Expanded> {
        let mut text = String::new();
        let mut words = Words::default();
        self.word.clear();
        let outer = std::mem::replace(&mut self.mode.escapes, escapes);
        loop {
            let Some(c) = self.peek() else {
                if stop.is_some() {
                    return Err(ExpandProblem::OpenBrace);
                }
                break;
            };
            if stop == Some(c) {
                self.next();
                break;
            }
            self.one(c, &mut text, &mut words)?;
        }
        self.mode.escapes = outer;
        Ok(Expanded { text, words: words.finish(&mut self.word) })
    }

    /// Reads what begins with `c`.
    fn one(&mut self, c: char, text: &mut String, words: &mut Words) -> Result<()> {
        let quoted = self.mode.quotes != Quotes::Plain;
        match c {
            '$' => {
                let value = self.dollar()?;
                value.chars().for_each(|c| words.push(&mut self.word, c));
                text.push_str(&value);
            }
            '<' => {
                let part = self.heredoc_sign();
                self.word.push_str(&part);
                words.inside = true;
                text.push_str(&part);
            }
            '\'' | '"' if quoted => {
                let part = if c == '"' { self.double_quote()? } else { self.single_quote()? };
                self.word.push_str(&part);
                words.inside = true;
                text.push_str(&part);
            }
            _ => self.plain(text, words),
        }
        Ok(())
    }

    fn plain(&mut self, text: &mut String, words: &mut Words) {
        let Some(c) = self.next() else { return };
        if c != self.mode.escape.char() {
            words.push(&mut self.word, c);
            text.push(c);
            return;
        }
        if self.mode.escapes == Escapes::Kept {
            words.push_literal(&mut self.word, c);
            text.push(c);
        }
        // An escape character at the very end is dropped.
        if let Some(c) = self.next() {
            words.push_literal(&mut self.word, c);
            text.push(c);
        }
    }

    fn single_quote(&mut self) -> Result<String> {
        let inner = &self.rest[1..];
        let end = inner.find('\'').ok_or(ExpandProblem::OpenQuote('\''))?;
        self.rest = &inner[end + 1..];
        Ok(match self.mode.quotes {
            Quotes::Kept => format!("'{}'", &inner[..end]),
            _ => inner[..end].to_owned(),
        })
    }

    fn double_quote(&mut self) -> Result<String> {
        let kept = self.mode.quotes == Quotes::Kept;
        let escape = self.mode.escape.char();
        let mut text = String::new();
        self.next();
        if kept {
            text.push('"');
        }
        loop {
            match self.peek().ok_or(ExpandProblem::OpenQuote('"'))? {
                '"' => {
                    self.next();
                    if kept {
                        text.push('"');
                    }
                    return Ok(text);
                }
                '$' => text.push_str(&self.dollar()?),
                c if c == escape => {
                    self.next();
                    if self.mode.escapes == Escapes::Kept {
                        text.push(c);
                    }
                    match self.peek() {
                        Some(escaped) if escaped == '"' || escaped == '$' || escaped == escape => {
                            self.next();
                            text.push(escaped);
                        }
                        Some(_) => text.push(c),
                        None => {}
                    }
                }
                c => {
                    self.next();
                    text.push(c);
                }
            }
        }
    }

    /// `<<` and the blanks after it belong to the word that follows.
    fn heredoc_sign(&mut self) -> String {
        self.next();
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.next();
        let trimmed = self.rest.trim_start_matches(['\t', '\r', ' ']);
        let blanks = &self.rest[..self.rest.len() - trimmed.len()];
        self.rest = trimmed;
        format!("<<{blanks}")
    }

    fn dollar(&mut self) -> Result<String> {
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return match self.value(&name)? {
                Some(value) => Ok(value),
                None if self.mode.unset == Unset::Kept => Ok(format!("${name}")),
                None => Ok(String::new()),
            };
        }
        self.next();
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(ExpandProblem::TooDeep);
        }
        let value = self.braced()?;
        self.depth -= 1;
        Ok(value)
    }

    /// What follows `${`.
    fn braced(&mut self) -> Result<String> {
        match self.peek() {
            None => return Err(ExpandProblem::OpenBrace),
            Some('{' | '}' | ':') => return Err(ExpandProblem::NoName),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(ExpandProblem::OpenBrace),
            Some('}') => match self.value(&name)? {
                Some(value) => Ok(value),
                None if self.mode.unset == Unset::Kept => Ok(format!("${{{name}}}")),
                None => Ok(String::new()),
            },
            Some('/') => self.replacement(&name),
            Some(':') => match self.next() {
                Some(sign) => self.modified(&name, true, sign),
                None => Err(ExpandProblem::OpenBrace),
            },
            Some(sign @ ('+' | '-' | '?' | '#' | '%')) => self.modified(&name, false, sign),
            Some(sign) => Err(ExpandProblem::Modifier(sign.to_string())),
        }
    }

    /// What follows `${name` and the sign of its modifier. `colon`: a name whose value is empty
    /// counts as one without a value.
    fn modified(&mut self, name: &str, colon: bool, sign: char) -> Result<String> {
        let shown = if colon { format!(":{sign}") } else { sign.to_string() };
        let is_pattern = matches!(sign, '#' | '%');
        if colon && is_pattern {
            return Err(ExpandProblem::Modifier(shown));
        }
        let escapes = if is_pattern { Escapes::Kept } else { Escapes::Dropped };
        let word = self.until(Some('}'), escapes)?.text;
        let value = self.value(name)?;
        if value.is_none() && self.mode.unset == Unset::Kept {
            return Ok(format!("${{{name}{shown}{word}}}"));
        }
        let present = value.clone().filter(|value| !(colon && value.is_empty()));
        match sign {
            '-' => Ok(present.unwrap_or(word)),
            '+' => Ok(if present.is_some() { word } else { String::new() }),
            '?' => present.ok_or_else(|| required(name, value.is_some(), word)),
            '#' | '%' => trimmed(&value.unwrap_or_default(), &word, sign),
            _ => Err(ExpandProblem::Modifier(shown)),
        }
    }

    /// What follows `${name/`.
    fn replacement(&mut self, name: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let text = match self.until(Some('/'), Escapes::Kept) {
            Err(ExpandProblem::OpenBrace) => return Err(ExpandProblem::NoReplacement),
            found => found?.text,
        };
        let with = self.until(Some('}'), Escapes::Kept)?.text;
        let Some(value) = self.value(name)? else {
            return Ok(match self.mode.unset {
                Unset::Kept => format!("${{{name}/{text}/{with}}}"),
                Unset::Empty => replaced("", &text, &with, all)?,
            });
        };
        let out = replaced(&value, &text, &with, all)?;
        self.grow(out.len().saturating_sub(value.len()))?;
        Ok(out)
    }

    /// A name, a number or a special parameter; empty when there is none.
    fn name(&mut self) -> String {
        let len = match self.peek() {
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => name::len(self.rest),
        };
        let (name, rest) = self.rest.split_at(len);
        self.rest = rest;
        name.to_owned()
    }

    fn value(&mut self, name: &str) -> Result<Option<String>> {
        let value = (self.lookup)(name);
        (self.note)(name, value.is_some());
        self.grow(value.map_or(0, str::len))?;
        Ok(value.map(str::to_owned))
    }

    fn grow(&mut self, bytes: usize) -> Result<()> {
        self.growth += bytes;
        if self.growth > GROWTH_BYTES_MAX { Err(ExpandProblem::TooLong) } else { Ok(()) }
    }
}

fn required(name: &str, is_set: bool, message: String) -> ExpandProblem {
    let state = if is_set { "is empty" } else { "is not set" };
    let message = match message.as_str() {
        "" => format!("{state}, but must be"),
        message => format!("{state}: {message}"),
    };
    ExpandProblem::Required { name: name.to_owned(), message }
}

fn parse(text: &str) -> Result<Pattern> {
    Pattern::parse(text).map_err(|why| ExpandProblem::Pattern { text: super::shown(text), why })
}

fn trimmed(value: &str, word: &str, sign: char) -> Result<String> {
    let (reach, text) = match word.strip_prefix(sign) {
        Some(text) => (Reach::Longest, text),
        None => (Reach::Shortest, word),
    };
    let pattern = parse(text)?;
    Ok(match sign {
        '%' => pattern.without_suffix(value, reach),
        _ => pattern.without_prefix(value, reach),
    }
    .to_owned())
}

fn replaced(value: &str, text: &str, with: &str, all: bool) -> Result<String> {
    let pattern = parse(text)?;
    if all {
        let bytes_max = value.len() + GROWTH_BYTES_MAX;
        pattern.replace_all(value, with, bytes_max).ok_or(ExpandProblem::TooLong)
    } else {
        Ok(pattern.replace_first(value, with))
    }
}
