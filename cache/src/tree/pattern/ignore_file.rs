//! `.dockerignore`: lines to patterns, as moby/patternmatcher's `ignorefile` reads them.

use super::{PatternError, Patterns};

/// Bytes of one line. BuildKit's own bound (Go's `bufio.MaxScanTokenSize`).
const LINE_BYTES_MAX: usize = 64 << 10;

/// What is wrong with an ignore file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A line that is too long.
    #[error("Line {0} is longer than {LINE_BYTES_MAX} bytes")]
    LongLine(usize),
    /// A line that is no pattern.
    #[error("Line {line}: {why}")]
    Pattern {
        /// Its number, counted from 1.
        line: usize,
        /// What is wrong.
        why: PatternError,
    },
}

impl IgnoreError {
    /// Whose trouble it is: the author's of the file.
    pub fn class(&self) -> proto::error::Class {
        proto::error::Class::User
    }
}

/// Reads a `.dockerignore` file. Lines that begin with `#` are comments; a `/` at the beginning of a
/// pattern is dropped; blanks around it, and between a `!` and the rest, are dropped.
pub fn read(text: &[u8]) -> Result<Patterns, IgnoreError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut patterns = Patterns { list: Vec::new(), has_exceptions: false, words: 0, ranges: 0 };
    for (content, line) in text.split(|b| *b == b'\n').zip(1..) {
        if content.len() >= LINE_BYTES_MAX {
            return Err(IgnoreError::LongLine(line));
        }
        if content.starts_with(b"#") {
            continue;
        }
        let pattern = trim(content);
        if pattern.is_empty() {
            continue;
        }
        let pattern = match pattern.strip_prefix(b"!") {
            Some(rest) => [b"!", rooted(trim(rest)).as_slice()].concat(),
            None => rooted(pattern),
        };
        // Cleaned once more, as all patterns are: `!` is part of the first name then.
        patterns.push(clean(&pattern)).map_err(|why| IgnoreError::Pattern { line, why })?;
    }
    Ok(patterns)
}

/// The pattern counted from the context's root.
fn rooted(pattern: &[u8]) -> Vec<u8> {
    if pattern.is_empty() {
        return Vec::new();
    }
    let clean = clean(pattern);
    match clean.strip_prefix(b"/") {
        Some(rest) if !rest.is_empty() => rest.to_vec(),
        _ => clean,
    }
}

/// Without blanks (Unicode's) at both ends.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let mut text = text;
    while let Some(chunk) = text.utf8_chunks().next() {
        let valid = chunk.valid();
        let blanks = valid.len() - valid.trim_start().len();
        text = &text[blanks..];
        if blanks == 0 || !chunk.invalid().is_empty() {
            break;
        }
    }
    let valid_end = text
        .utf8_chunks()
        .last()
        .map_or("", |chunk| if chunk.invalid().is_empty() { chunk.valid() } else { "" });
    &text[..text.len() - (valid_end.len() - valid_end.trim_end().len())]
}

/// The shortest path of the same meaning, `.` when nothing is left (Go's `filepath.Clean`).
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            b".." if rooted => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}
