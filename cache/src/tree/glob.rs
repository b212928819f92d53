//! Wildcards in the sources of COPY and ADD: `*`, `?`, `[a-z]` and `\`, as Go's `filepath.Match` has
//! them on Linux.
//!
//! Paths are bytes: names need not be UTF-8. `*` and `?` do not match a `/`; a class may, as in Go
//! (`a[^b]c` matches `a/c`). `**` is the same as `*` here; the `**` of `COPY --parents` is the one of
//! [`super::pattern`].

use std::ops::Range;

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a valid pattern: a `[` needs a `]` and something between them, and a `\\` a \
     character after it"
)]
pub struct BadPattern(pub String);

impl BadPattern {
    /// Whose trouble it is: the author's of the pattern.
    pub fn class(&self) -> proto::error::Class {
        proto::error::Class::User
    }
}

/// A pattern that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
    /// The tokens between stars, and whether a star stands before them.
    chunks: Vec<(bool, Range<usize>)>,
    /// Whether a class may match a `/`, so that parts of path and pattern need not correspond.
    crosses: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Any,
    Class(Class),
    Star,
}

/// `[…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    fn matches(&self, c: char) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != self.negated
    }
}

impl Glob {
    /// Reads a pattern. Clean it first (see [`split`]): it is compared with clean paths.
    pub fn new(pattern: &[u8]) -> Result<Self, BadPattern> {
        let bad = || BadPattern(String::from_utf8_lossy(pattern).into_owned());
        let tokens = tokens(pattern).ok_or_else(bad)?;
        let crosses =
            tokens.iter().any(|token| matches!(token, Token::Class(class) if class.matches('/')));
        let chunks = chunks(&tokens);
        Ok(Self { tokens, chunks, crosses })
    }

    /// Whether the whole of `path` matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        let mut rest = path;
        for (at, (star, range)) in self.chunks.iter().enumerate() {
            let is_last = at + 1 == self.chunks.len();
            let chunk = &self.tokens[range.clone()];
            if *star && chunk.is_empty() {
                // Only the last chunk can be empty: the star takes all, but no `/`.
                return !rest.contains(&b'/');
            }
            let fits =
                |rest: &[u8]| chunk_len(chunk, rest).filter(|len| !is_last || *len == rest.len());
            // The first place that fits is taken for good, as Go does.
            let skipped = if *star { rest.iter().take_while(|b| **b != b'/').count() } else { 0 };
            let found = (0..=skipped).find_map(|skip| Some(skip + fits(&rest[skip..])?));
            match found {
                Some(len) => rest = &rest[len..],
                None => return false,
            }
        }
        rest.is_empty()
    }

    /// Whether something below the directory `dir` may match. `false` is certain: a walk need not
    /// enter it.
    pub fn may_match_below(&self, dir: &[u8]) -> bool {
        if self.crosses {
            return true;
        }
        let mut parts = self.tokens.split(|token| *token == Token::Byte(b'/'));
        let fits = dir.split(|b| *b == b'/').all(|name| {
            parts.next().is_some_and(|tokens| {
                let part = Self { chunks: chunks(tokens), tokens: tokens.to_vec(), crosses: false };
                part.matches(name)
            })
        });
        fits && parts.next().is_some()
    }
}

fn chunks(tokens: &[Token]) -> Vec<(bool, Range<usize>)> {
    let mut chunks = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let stars = tokens[at..].iter().take_while(|token| **token == Token::Star).count();
        let start = at + stars;
        let len = tokens[start..].iter().take_while(|token| **token != Token::Star).count();
        chunks.push((stars > 0, start..start + len));
        at = start + len;
    }
    chunks
}

/// How many bytes at the head of `path` a chunk takes.
fn chunk_len(chunk: &[Token], path: &[u8]) -> Option<usize> {
    let mut rest = path;
    for token in chunk {
        let len = match token {
            Token::Byte(byte) => usize::from(rest.first() == Some(byte)),
            Token::Any if rest.first() == Some(&b'/') => 0,
            Token::Any => first_char(rest)?.1,
            Token::Class(class) => {
                let (c, len) = first_char(rest)?;
                if class.matches(c) { len } else { 0 }
            }
            Token::Star => 0,
        };
        if len == 0 {
            return None;
        }
        rest = &rest[len..];
    }
    Some(path.len() - rest.len())
}

/// The character at the head of `text` and its length; U+FFFD for a byte that is not UTF-8.
fn first_char(text: &[u8]) -> Option<(char, usize)> {
    let head = &text[..text.len().min(4)];
    let valid = head.utf8_chunks().next()?.valid();
    Some(valid.chars().next().map_or((char::REPLACEMENT_CHARACTER, 1), |c| (c, c.len_utf8())))
}

fn tokens(mut rest: &[u8]) -> Option<Vec<Token>> {
    let mut out = Vec::new();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        out.push(match first {
            b'*' => Token::Star,
            b'?' => Token::Any,
            b'[' => {
                let (class, after) = class(rest)?;
                rest = after;
                Token::Class(class)
            }
            b'\\' => {
                let (escaped, after) = rest.split_first()?;
                rest = after;
                Token::Byte(*escaped)
            }
            byte => Token::Byte(*byte),
        });
    }
    Some(out)
}

/// A class after its `[`, and what follows it.
fn class(mut rest: &[u8]) -> Option<(Class, &[u8])> {
    let negated = rest.first() == Some(&b'^');
    if negated {
        rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        if rest.first() == Some(&b']') && !ranges.is_empty() {
            return Some((Class { negated, ranges }, &rest[1..]));
        }
        let low = class_char(&mut rest)?;
        let mut high = low;
        if rest.first() == Some(&b'-') {
            rest = &rest[1..];
            high = class_char(&mut rest)?;
        }
        ranges.push((low, high));
    }
}

fn class_char(rest: &mut &[u8]) -> Option<char> {
    match rest.first()? {
        b'-' | b']' => return None,
        b'\\' => *rest = &rest[1..],
        _ => {}
    }
    let head = &rest[..rest.len().min(4)];
    let c = head.utf8_chunks().next()?.valid().chars().next()?;
    *rest = &rest[c.len_utf8()..];
    // A class that is not closed.
    (!rest.is_empty()).then_some(c)
}

/// Whether a path has wildcards: `*`, `?` or `[` without a `\` before it.
pub fn has_wildcards(path: &[u8]) -> bool {
    let mut bytes = path.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
    false
}

/// Cuts a source at its first part with wildcards: the directory before it, in which links are
/// followed, and the pattern for what is below. Both are clean and without a `/` at their ends;
/// there is no pattern when there are no wildcards. `\` stays in the directory as it is: only
/// patterns have escapes.
pub fn split(source: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let parts = proto::path::clamp(source);
    let at = parts.iter().position(|part| has_wildcards(part)).unwrap_or(parts.len());
    let (dir, pattern) = parts.split_at(at);
    (dir.join(&b'/'), (!pattern.is_empty()).then(|| pattern.join(&b'/')))
}

#[cfg(test)]
#[path = "glob_tests.rs"]
mod tests;
