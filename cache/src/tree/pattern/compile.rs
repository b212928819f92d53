//! From a pattern's text to items, by way of the regular expression that moby/patternmatcher makes
//! of it: some patterns mean what that expression happens to mean (`[*]` is not a star).

use super::automaton::{Item, Ranges, Set, Symbol, symbols};
use regex_syntax::hir::{self, ClassUnicode, ClassUnicodeRange, Hir, HirKind};
use std::sync::LazyLock;

/// What is wrong with a pattern.
type Why = &'static str;

const SLASH: Symbol = b'/' as Symbol;

/// How a pattern is compared. Other than [`Kind::Regex`], they compare bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It has nothing special.
    Exact,
    /// Only `**` at its end is special.
    Prefix,
    /// Only `**` at its beginning is special.
    Suffix,
    Regex,
}

/// Compiles a clean pattern without its `!`.
pub(super) fn compile(text: &[u8]) -> Result<Vec<Item>, Why> {
    let (kind, regex) = translate(text);
    let literal = |text: &[u8]| symbols(text).map(|s| Item::Char(Set::One(s))).collect::<Vec<_>>();
    Ok(match kind {
        Kind::Exact => literal(text),
        Kind::Prefix => {
            let mut items = literal(&text[..text.len() - 2]);
            items.push(Item::Many(Set::Any));
            items
        }
        Kind::Suffix => {
            let (first, rest) = match text[2..].strip_prefix(b"/") {
                Some(rest) => (Item::Dirs(Set::Any), rest),
                None => (Item::Many(Set::Any), &text[2..]),
            };
            [vec![first], literal(rest)].concat()
        }
        Kind::Regex => parse(&regex)?,
    })
}

/// The kind of a pattern, and its regular expression without `^` and `$`.
fn translate(text: &[u8]) -> (Kind, Vec<char>) {
    let mut kind = Kind::Exact;
    let mut regex = Vec::new();
    // Bytes that are not UTF-8 become U+FFFD in an expression, which matches any such byte.
    let text: Vec<char> =
        symbols(text).map(|s| char::from_u32(s).unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    let mut chars = text.iter().copied().peekable();
    let mut is_first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    regex.extend("(.*/)?".chars());
                    kind = Kind::Regex;
                } else if kind == Kind::Exact {
                    kind = Kind::Prefix;
                } else {
                    regex.extend(".*".chars());
                    kind = Kind::Regex;
                }
                if is_first {
                    kind = Kind::Suffix;
                }
            }
            '*' => {
                regex.extend("[^/]*".chars());
                kind = Kind::Regex;
            }
            '?' => {
                regex.extend("[^/]".chars());
                kind = Kind::Regex;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => regex.extend(['\\', c]),
            '\\' => {
                regex.push('\\');
                if let Some(escaped) = chars.next() {
                    regex.push(escaped);
                    kind = Kind::Regex;
                }
            }
            '[' | ']' => {
                regex.push(c);
                kind = Kind::Regex;
            }
            c => regex.push(c),
        }
        is_first = false;
    }
    (kind, regex)
}

/// Reads the regular expressions that [`translate`] can make.
fn parse(regex: &[char]) -> Result<Vec<Item>, Why> {
    let mut items = Vec::new();
    let mut rest = regex;
    while let Some((first, after)) = rest.split_first() {
        let set;
        (set, rest) = match first {
            // Outside of classes, these come from `translate` only: `(.*/)?` and `.*`.
            '(' => {
                items.push(Item::Dirs(Set::NotNewline));
                rest = after.get("(.*/)?".len() - 1..).unwrap_or_default();
                continue;
            }
            '.' => (Set::NotNewline, after),
            '^' => {
                items.push(Item::Start);
                rest = after;
                continue;
            }
            '[' => {
                let (negated, ranges, after) = class(after)?;
                let is_not_slash = negated && *ranges == [(SLASH, SLASH)];
                let set = if is_not_slash { Set::NotSlash } else { Set::Class { negated, ranges } };
                (set, after)
            }
            '\\' => match place(after, &mut items) {
                Some(after) => {
                    rest = after;
                    continue;
                }
                None => escape(after)?,
            },
            &c => (literal(c), after),
        };
        match rest.split_first() {
            Some(('*', after)) => {
                items.push(Item::Many(set));
                rest = after;
            }
            _ => items.push(Item::Char(set)),
        }
    }
    Ok(items)
}

fn literal(c: char) -> Set {
    if c == char::REPLACEMENT_CHARACTER { Set::NotText } else { Set::One(c.into()) }
}

const BAD_ESCAPE: Why = "a `\\` can stand before `*`, `?`, `[`, `]`, `\\` and other signs, but not \
                         before this character; write `/` between directories";

/// What follows a `\` outside of a class, when it is no character: a place, or quoted text. Answers
/// what follows it.
fn place<'r>(rest: &'r [char], items: &mut Vec<Item>) -> Option<&'r [char]> {
    let (first, after) = rest.split_first()?;
    match first {
        'A' => items.push(Item::Start),
        'z' => items.push(Item::End),
        'b' | 'B' => {
            let wanted = *first == 'b';
            items.extend([Item::EdgeAfterWord(wanted), Item::EdgeAfterOther(wanted)]);
        }
        'Q' => {
            let end = after.windows(2).position(|two| two == ['\\', 'E']);
            let quoted = &after[..end.unwrap_or(after.len())];
            items.extend(quoted.iter().map(|c| Item::Char(literal(*c))));
            return Some(end.map_or(&[], |end| &after[end + 2..]));
        }
        _ => return None,
    }
    Some(after)
}

/// What follows a `\` outside of a class.
fn escape(rest: &[char]) -> Result<(Set, &[char]), Why> {
    if let Some((negated, ranges, after)) = escaped_class(rest)? {
        return Ok((Set::Class { negated, ranges }, after));
    }
    let (c, after) = escaped(rest)?;
    Ok((literal(c), after))
}

/// The character that is written behind a `\`, and what follows it.
fn escaped(rest: &[char]) -> Result<(char, &[char]), Why> {
    let (first, after) = rest.split_first().ok_or(BAD_ESCAPE)?;
    let c = match first {
        'a' => '\x07',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        'x' => return number(after, 16, 2..=2),
        '0' => return number(rest, 8, 1..=3),
        // One digit alone would be a reference to a group.
        '1'..='7' => return number(rest, 8, 2..=3),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => *c,
        _ => return Err(BAD_ESCAPE),
    };
    Ok((c, after))
}

/// The character of a number of so many digits.
fn number(
    rest: &[char],
    radix: u32,
    digits: std::ops::RangeInclusive<usize>,
) -> Result<(char, &[char]), Why> {
    let most = &rest[..rest.len().min(*digits.end())];
    let found = most.iter().map_while(|c| c.to_digit(radix));
    let (count, value) = found.fold((0, 0), |(count, value), d| (count + 1, value * radix + d));
    match char::from_u32(value).filter(|_| digits.contains(&count)) {
        Some(c) => Ok((c, &rest[count..])),
        None => Err(BAD_ESCAPE),
    }
}

fn ranges(chars: &[(char, char)]) -> Ranges {
    chars.iter().map(|(low, high)| (u32::from(*low), u32::from(*high))).collect()
}

/// Whether a class is negated, its ranges, and what follows it.
type Class<'r> = (bool, Ranges, &'r [char]);

/// The class that is written behind a `\`. `None` when it is no class.
fn escaped_class(rest: &[char]) -> Result<Option<Class<'_>>, Why> {
    match rest {
        [sign @ ('p' | 'P'), after @ ..] => {
            let (letter, after) = after.split_first().ok_or(BAD_CATEGORY)?;
            Ok(Some((*sign == 'P', category(*letter)?, after)))
        }
        [c, after @ ..] => Ok(perl_class(*c).map(|(negated, ranges)| (negated, ranges, after))),
        [] => Ok(None),
    }
}

const BAD_CATEGORY: Why = "behind `\\p` stands one of the letters of Unicode's general categories: C, L, \
                           M, N, P, S or Z";

/// The general categories of Unicode (UAX 44, 5.7.1) that have one letter.
static CATEGORIES: LazyLock<Vec<(char, Ranges)>> = LazyLock::new(|| {
    let of = |letter: char| {
        let parsed = regex_syntax::parse(&format!("\\p{letter}")).map(Hir::into_kind);
        let Ok(HirKind::Class(hir::Class::Unicode(class))) = parsed else {
            return (letter, [].into());
        };
        (letter, flat(&class))
    };
    "CLMNPSZ".chars().map(of).collect()
});

fn category(letter: char) -> Result<Ranges, Why> {
    let letter = letter.to_ascii_uppercase();
    let found = CATEGORIES.iter().find(|(name, _)| *name == letter);
    found.map(|(_, ranges)| ranges.clone()).ok_or(BAD_CATEGORY)
}

fn perl_class(c: char) -> Option<(bool, Ranges)> {
    let found = match c.to_ascii_lowercase() {
        'd' => ranges(&[('0', '9')]),
        's' => ranges(&[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')]),
        'w' => ranges(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        _ => return None,
    };
    Some((c.is_ascii_uppercase(), found))
}

fn flat(class: &ClassUnicode) -> Ranges {
    class.iter().map(|range| (range.start().into(), range.end().into())).collect()
}

fn unicode(ranges: &Ranges) -> ClassUnicode {
    let chars = ranges.iter().filter_map(|(low, high)| {
        Some(ClassUnicodeRange::new(char::from_u32(*low)?, char::from_u32(*high)?))
    });
    ClassUnicode::new(chars)
}

const OPEN_CLASS: Why = "a `[` has no `]`";

/// A class behind its `[`.
fn class(mut rest: &[char]) -> Result<Class<'_>, Why> {
    let negated = rest.first() == Some(&'^');
    if negated {
        rest = &rest[1..];
    }
    let mut found = Vec::new();
    // Classes in it, each once: some have hundreds of ranges.
    let mut parts: Vec<(bool, Ranges)> = Vec::new();
    let mut is_first = true;
    loop {
        match rest {
            [] => return Err(OPEN_CLASS),
            [']', after @ ..] if !is_first => {
                let mut all = ClassUnicode::new(found);
                for (negated, part) in &parts {
                    let mut part = unicode(part);
                    if *negated {
                        part.negate();
                    }
                    all.union(&part);
                }
                return Ok((negated, flat(&all), after));
            }
            _ if let Some((negated, part, after)) = class_in_class(rest)? => {
                let part = (negated, part);
                if !parts.contains(&part) {
                    parts.push(part);
                }
                rest = after;
            }
            _ => {
                let (low, high);
                (low, rest) = class_char(rest)?;
                (high, rest) = match rest {
                    ['-', next, ..] if *next != ']' => class_char(&rest[1..])?,
                    _ => (low, rest),
                };
                if high < low {
                    return Err("a range of a class goes backwards");
                }
                found.push(ClassUnicodeRange::new(low, high));
            }
        }
        is_first = false;
    }
}

/// A class that is part of another one. `None` when a character comes.
fn class_in_class(rest: &[char]) -> Result<Option<Class<'_>>, Why> {
    match rest {
        ['[', ':', ..] => named_class(rest),
        ['\\', escaped @ ..] => escaped_class(escaped),
        _ => Ok(None),
    }
}

fn class_char(rest: &[char]) -> Result<(char, &[char]), Why> {
    match rest {
        ['\\', after @ ..] => escaped(after),
        [c, after @ ..] => Ok((*c, after)),
        [] => Err(OPEN_CLASS),
    }
}

/// `[:name:]` inside of a class. `None` when it is not of this form.
fn named_class(rest: &[char]) -> Result<Option<Class<'_>>, Why> {
    let Some(end) = rest[1..].windows(2).position(|pair| pair == [':', ']']) else {
        return Ok(None);
    };
    let name: String = rest.get(2..end + 1).unwrap_or_default().iter().collect();
    let (negated, name) = match name.strip_prefix('^') {
        Some(name) => (true, name),
        None => (false, name.as_str()),
    };
    let part = ranges(match name {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7f')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return Err("there is no class of this name"),
    });
    Ok(Some((negated, part, &rest[end + 3..])))
}
