//! The arguments of an instruction as words: quoted, separated by blanks, `name=value`, or JSON.

use super::directive::Escape;
use super::error::Problem;
use super::expand::Word;
use super::instruction::Pair;
use super::text::{is_blank, shown, split_once_blank};
use proto::limit::DOCKERFILE_WORDS_MAX;
use std::borrow::Cow;

/// Cuts at blanks, except in quotes and after an escape character. Quotes and escape characters stay
/// in the words: they are resolved when variables are replaced.
pub(super) fn quoted(
    name: &'static str,
    text: &str,
    escape: Escape,
) -> Result<Vec<String>, Problem> {
    let escape = escape.char();
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    push(name, &mut words, std::mem::take(&mut word))?;
                }
                continue;
            }
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
        // Nothing is escaped in single quotes, and nothing at the very end.
        if c == escape && quote != Some('\'') {
            let Some(escaped) = chars.next() else { break };
            word.push(c);
            word.push(escaped);
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        push(name, &mut words, word)?;
    }
    Ok(words)
}

fn push(name: &'static str, words: &mut Vec<String>, word: String) -> Result<(), Problem> {
    if words.len() == DOCKERFILE_WORDS_MAX {
        return Err(Problem::TooManyWords(name));
    }
    words.push(word);
    Ok(())
}

/// Cuts at blanks, and nothing else.
pub(super) fn separated(name: &'static str, text: &str) -> Result<Vec<String>, Problem> {
    let mut words = Vec::new();
    for word in text.split(is_blank).filter(|word| !word.is_empty()) {
        push(name, &mut words, word.to_owned())?;
    }
    Ok(words)
}

/// The strings of a JSON array. `None` when the text is no JSON array: then it is of another form.
pub(super) fn json(name: &'static str, text: &str) -> Result<Option<Vec<String>>, Problem> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let whole = whole_escapes(text);
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(&whole) else {
        return Ok(None);
    };
    let mut words = Vec::new();
    for value in values {
        let serde_json::Value::String(word) = value else {
            return Err(Problem::NotStrings(name));
        };
        if word.contains('\0') {
            return Err(Problem::Nul);
        }
        push(name, &mut words, word)?;
    }
    Ok(Some(words))
}

/// The text with `\ufffd` in place of each half of a surrogate pair that has no other half: what Go's
/// decoder makes of it, while others refuse it.
fn whole_escapes(text: &str) -> Cow<'_, str> {
    if !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(())?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    while let Some(found) = text[at..].find('\\') {
        out.push_str(&text[at..at + found]);
        at += found;
        let taken = match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                out.push_str("\\ufffd");
                at += 6;
                continue;
            }
            // The character behind a backslash is no backslash of its own.
            _ => 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&text[at..at + taken]);
        at += taken;
    }
    out.push_str(&text[at..]);
    Cow::Owned(out)
}

/// The pairs of ENV and LABEL: `name=value …`, or `name value`, where the value is all of the rest.
pub(super) fn pairs(name: &'static str, text: &str, escape: Escape) -> Result<Vec<Pair>, Problem> {
    let words = quoted(name, text, escape)?;
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let (key, Some(value)) = split_once_blank(text) else {
            return Err(Problem::NoValue(name));
        };
        if key.is_empty() {
            return Err(Problem::BlankName(name));
        }
        let (key, value) = (Word::new(key), Word::new(value));
        return Ok(vec![Pair { key, value, is_legacy: true }]);
    }
    let pair = |word: &String| {
        let Some((key, value)) = word.split_once('=') else {
            return Err(Problem::NoEquals { instruction: name, word: shown(word) });
        };
        if key.is_empty() {
            return Err(Problem::BlankName(name));
        }
        Ok(Pair { key: Word::new(key), value: Word::new(value), is_legacy: false })
    };
    words.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_quoted(text: &str, expect: &[&str]) {
        assert_eq!(quoted("ENV", text, Escape::Backslash).unwrap(), expect, "{text}");
    }

    #[test]
    fn quotes_hold_words_together() {
        check_quoted("a  b\u{a0}c", &["a", "b", "c"]);
        check_quoted("a='b c' d", &["a='b c'", "d"]);
        check_quoted("a=\"b 'c\" d\\ e", &["a=\"b 'c\"", "d\\ e"]);
        check_quoted("\"\" ''", &["\"\"", "''"]);
        check_quoted("a=\"b\\\" c\" d", &["a=\"b\\\" c\"", "d"]);
        check_quoted("a='b\\' c", &["a='b\\'", "c"]);
        check_quoted("\"open a", &["\"open a"]);
        check_quoted("a b\\", &["a", "b"]);
        check_quoted("\\' a", &["\\'", "a"]);
        check_quoted("", &[]);
        let found = quoted("ENV", "a`\" b\\ c", Escape::Backtick).unwrap();
        assert_eq!(found, ["a`\"", "b\\", "c"]);
    }

    #[test]
    fn json_arrays_are_told_from_other_text() {
        let check = |text: &str, expect: Option<&[&str]>| {
            let expect = expect.map(|e| e.iter().map(|w| (*w).to_owned()).collect());
            assert_eq!(json("CMD", text), Ok(expect), "{text}");
        };
        check(" [ \"a\", \"b\\u00e9\\n\" ] ", Some(&["a", "bé\n"]));
        check("[]", Some(&[]));
        check("['a']", None);
        check("[\"a\"] b", None);
        check("[ -f x ]", None);
        check("\"a\"", None);
        check("[\"a", None);
        for bad in ["[1]", "[\"a\", null]", "[[\"a\"]]", "[{}]"] {
            assert_eq!(json("CMD", bad), Err(Problem::NotStrings("CMD")), "{bad}");
        }
        assert_eq!(json("CMD", "[\"\\u0000\"]"), Err(Problem::Nul));
        let halves: [(&str, &[&str]); 6] = [
            (r#"["\ud83d\ude00"]"#, &["😀"]),
            (r#"["\ud83d"]"#, &["\u{fffd}"]),
            (r#"["a\ude00b\ud83d\u0041"]"#, &["a\u{fffd}b\u{fffd}A"]),
            (r#"["\ud83d\ud83d\ude00"]"#, &["\u{fffd}😀"]),
            (r#"["\\ud83d", "é\n\u00e9"]"#, &["\\ud83d", "é\né"]),
            (r#"["\\\ud83d"]"#, &["\\\u{fffd}"]),
        ];
        for (text, words) in halves {
            check(text, Some(words));
        }
        check(r#"["\ud8"]"#, None);
    }

    #[test]
    fn pairs_have_two_forms() {
        let check = |text: &str, expect: &[(&str, &str, bool)]| {
            let found = pairs("ENV", text, Escape::Backslash).unwrap();
            let found: Vec<(&str, &str, bool)> =
                found.iter().map(|p| (p.key.raw(), p.value.raw(), p.is_legacy)).collect();
            assert_eq!(found, expect, "{text}");
        };
        check("a=1 b=\"x y\" c=", &[("a", "1", false), ("b", "\"x y\"", false), ("c", "", false)]);
        check("a  b=c  d", &[("a", "b=c  d", true)]);
        check("a=b=c", &[("a", "b=c", false)]);
        check("", &[]);
        let problem = |text| pairs("ENV", text, Escape::Backslash).unwrap_err();
        assert_eq!(problem("a"), Problem::NoValue("ENV"));
        assert_eq!(problem("=a"), Problem::BlankName("ENV"));
        let word = "b".to_owned();
        assert_eq!(problem("a=1 b"), Problem::NoEquals { instruction: "ENV", word });
    }

    #[test]
    fn words_have_a_bound() {
        let text = "a=b ".repeat(DOCKERFILE_WORDS_MAX + 1);
        let problem = Problem::TooManyWords("ENV");
        assert_eq!(pairs("ENV", &text, Escape::Backslash).unwrap_err(), problem);
        assert_eq!(separated("ENV", &text).unwrap_err(), problem);
        assert!(separated("ENV", text.strip_suffix("a=b ").unwrap()).is_ok());
    }
}
