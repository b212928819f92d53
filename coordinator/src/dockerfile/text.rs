//! Small questions about text that Go answers otherwise than Rust's standard library.

/// `text` without blanks at its head; blanks are those of Unicode. The bytes need not be UTF-8.
pub(super) fn trim_start(text: &[u8]) -> &[u8] {
    let Some(chunk) = text.utf8_chunks().next() else { return text };
    let valid = chunk.valid();
    &text[valid.len() - valid.trim_start().len()..]
}

/// The blanks that separate the words of an instruction: `[\t\v\f\r ]`.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// `text` up to its first run of blanks, and what comes after that run, if there is one.
pub(super) fn split_once_blank(text: &str) -> (&str, Option<&str>) {
    match text.find(is_blank) {
        Some(at) => (&text[..at], Some(text[at..].trim_start_matches(is_blank))),
        None => (text, None),
    }
}

/// A name as people may see it: not longer than a line, and without control characters.
pub(super) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    let mut out: String = text
        .chars()
        .take(CHARS_MAX)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_are_those_of_unicode() {
        assert_eq!(trim_start(b" \t\x0b\xc2\xa0\xe3\x80\x80x "), b"x ");
        assert_eq!(trim_start(b"  \xff"), b"\xff");
        assert_eq!(trim_start(b"  "), b"");
        assert_eq!(trim_start(b""), b"");
    }

    #[test]
    fn a_text_is_split_at_its_first_blanks() {
        assert_eq!(split_once_blank("a \t b c"), ("a", Some("b c")));
        assert_eq!(split_once_blank("a\u{a0}b"), ("a\u{a0}b", None));
        assert_eq!(split_once_blank(" a"), ("", Some("a")));
    }

    #[test]
    fn long_and_odd_text_is_shown_short_and_plain() {
        assert_eq!(shown("a\x1b[1mb\n"), "a\u{fffd}[1mb\u{fffd}");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), 121);
    }
}
