//! The lines `# key=value` at the head of a Dockerfile, and which front end the file asks for.

use std::fmt;

/// The character that escapes others and, at the end of a line, continues it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escape {
    /// `\`.
    #[default]
    Backslash,
    /// `` ` ``, for paths of Windows.
    Backtick,
}

impl Escape {
    /// The character.
    pub fn char(self) -> char {
        match self {
            Self::Backslash => '\\',
            Self::Backtick => '`',
        }
    }

    /// The character as the byte that it is in UTF-8.
    pub fn byte(self) -> u8 {
        match self {
            Self::Backslash => b'\\',
            Self::Backtick => b'`',
        }
    }
}

/// A directive's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Which front end reads the file.
    Syntax,
    /// The escape character.
    Escape,
    /// What the checks do.
    Check,
}

impl Key {
    fn named(text: &[u8]) -> Option<Self> {
        [Self::Syntax, Self::Escape, Self::Check]
            .into_iter()
            .find(|key| key.name().as_bytes().eq_ignore_ascii_case(text))
    }

    /// The name as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Escape => "escape",
            Self::Check => "check",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads `key = value` (after the comment sign), when the key is a known one.
pub(super) fn key_value(text: &[u8]) -> Option<(Key, String)> {
    let text = super::text::trim_start(text);
    let name_len = text.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
    let (name, rest) = text.split_at(name_len);
    let value = rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii();
    if value.is_empty() {
        return None;
    }
    Some((Key::named(name)?, String::from_utf8_lossy(value).into_owned()))
}

/// A directive that stands twice in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Twice(pub Key);

/// Reads the directives line by line, until the first line that is none.
#[derive(Debug, Default)]
pub(super) struct DirectiveReader {
    seen: Vec<Key>,
    done: bool,
}

impl DirectiveReader {
    /// What directive `line` is. The first line that is none ends the directives for good: what
    /// comes after it is a comment.
    pub(super) fn line(
        &mut self,
        line: &[u8],
        sign: &[u8],
    ) -> Result<Option<(Key, String)>, Twice> {
        if self.done {
            return Ok(None);
        }
        let Some((key, value)) = line.strip_prefix(sign).and_then(key_value) else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&key) {
            return Err(Twice(key));
        }
        self.seen.push(key);
        Ok(Some((key, value)))
    }

    /// Whether no directive can come any more.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }
}

/// Which front end a file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syntax {
    /// The image that holds the front end: `docker/dockerfile:1`.
    pub image: String,
    /// The whole value: the image and what is passed on to it.
    pub command: String,
    /// The line that says so, counted from 1.
    pub line: u32,
}

/// Which front end `text` asks for: by `# syntax=…`, by `// syntax=…`, or by the key `syntax` of a
/// JSON object, after an optional `#!` line.
pub fn syntax(text: &[u8]) -> Option<Syntax> {
    let (text, skipped) = without_preamble(text);
    let found = [&b"#"[..], b"//"].into_iter().find_map(|sign| find(Key::Syntax, text, sign));
    if let Some((command, line)) = found {
        let image = command.split(' ').next().unwrap_or_default().to_owned();
        return Some(Syntax { image, command, line: line + skipped });
    }
    if text.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let object: serde_json::Value = serde_json::from_slice(text).ok()?;
    let image = object.get("syntax")?.as_str()?.to_owned();
    Some(Syntax { command: image.clone(), image, line: skipped + 1 })
}

/// The value of `# check=…`, up to its first blank.
pub(super) fn check(text: &[u8]) -> Option<(String, u32)> {
    let (text, skipped) = without_preamble(text);
    let (value, line) = find(Key::Check, text, b"#")?;
    Some((value.split(' ').next().unwrap_or_default().to_owned(), line + skipped))
}

fn without_preamble(text: &[u8]) -> (&[u8], u32) {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if !text.starts_with(b"#!") {
        return (text, 0);
    }
    match text.iter().position(|b| *b == b'\n') {
        Some(end) => (&text[end + 1..], 1),
        None => (&[], 1),
    }
}

fn find(key: Key, text: &[u8], sign: &[u8]) -> Option<(String, u32)> {
    let mut reader = DirectiveReader::default();
    for (line, number) in text.split(|b| *b == b'\n').zip(1..) {
        match reader.line(line, sign) {
            Ok(Some((found, value))) if found == key => return Some((value, number)),
            Ok(Some(_)) => {}
            Ok(None) | Err(Twice(_)) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_syntax(text: &str, expect: Option<(&str, &str, u32)>) {
        let found = syntax(text.as_bytes());
        let found = found.as_ref().map(|s| (s.image.as_str(), s.command.as_str(), s.line));
        assert_eq!(found, expect, "{text:?}");
    }

    #[test]
    fn the_front_end_is_found_in_every_form() {
        check_syntax("# syntax = a/b:1\nFROM x", Some(("a/b:1", "a/b:1", 1)));
        check_syntax("#syntax=a/b:1 with more \r\n", Some(("a/b:1", "a/b:1 with more", 1)));
        check_syntax("#!/bin/sh\n# SYNTAX=a/b\n", Some(("a/b", "a/b", 2)));
        check_syntax("\u{feff}# syntax=a/b\n", Some(("a/b", "a/b", 1)));
        check_syntax("// escape=x\n// syntax=a/b\n", Some(("a/b", "a/b", 2)));
        check_syntax("{\"syntax\": \"a/b\", \"x\": [1]}", Some(("a/b", "a/b", 1)));
        check_syntax("# a comment\n# syntax=a/b\n", None);
        check_syntax("\n# syntax=a/b\n", None);
        check_syntax("# syntax=\n", None);
        check_syntax("{\"syntax\": 1}", None);
        check_syntax("FROM x", None);
    }

    #[test]
    fn a_directive_is_read_once_and_only_at_the_head() {
        let mut reader = DirectiveReader::default();
        let mut line = |l: &str| reader.line(l.as_bytes(), b"#");
        assert_eq!(line("# Escape = `"), Ok(Some((Key::Escape, "`".to_owned()))));
        assert_eq!(line("#escape=\\"), Err(Twice(Key::Escape)));
        assert_eq!(line("# other=1"), Ok(None));
        assert_eq!(line("# syntax=x"), Ok(None));
    }

    #[test]
    fn the_check_directive_ends_at_a_blank() {
        let found = check(b"# syntax=x\n# check=skip=all;error=true and more\n");
        assert_eq!(found, Some(("skip=all;error=true".to_owned(), 2)));
    }
}
