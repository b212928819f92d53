//! An instruction's name, its leading `--flags`, and the rest.

use super::directive::Escape;
use super::suggest;
use super::text::{shown, split_once_blank};

/// What is wrong with a flag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// A flag that the instruction does not have.
    #[error("unknown flag `{flag}`")]
    Unknown {
        /// As it is written, with its dashes.
        flag: String,
        /// The one that is meant, without dashes.
        near: Option<&'static str>,
    },
    /// A flag given twice that can be given once.
    #[error("the flag `--{0}` is given twice")]
    Twice(&'static str),
    /// `--flag` or `--flag=` without a value.
    #[error("the flag `--{0}` needs a value")]
    NoValue(&'static str),
    /// Neither `true` nor `false`.
    #[error("the flag `--{flag}` is a boolean (true or false), not `{value}`")]
    NotBool {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
    },
    /// A byte of a letter beyond ASCII is a blank in Latin-1, and the letter goes on behind it.
    #[error(
        "a flag ends inside of a letter beyond ASCII, behind `{flag}`: BuildKit reads flags byte by \
         byte, so only ASCII is safe in them"
    )]
    Letter {
        /// As far as it was read.
        flag: String,
    },
}

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// `--flag`, `--flag=true`, `--flag=false`.
    Bool,
    /// One value.
    Text,
    /// A value each time that it is given.
    List,
}

/// The flags of one instruction.
#[derive(Debug, Default)]
pub(super) struct Flags {
    found: Vec<(&'static str, String)>,
}

impl Flags {
    /// Checks the flags that were given against those that the instruction has.
    pub(super) fn parse(
        given: &[String],
        known: &[(&'static str, Takes)],
    ) -> Result<Self, FlagError> {
        let mut found: Vec<(&'static str, String)> = Vec::new();
        for flag in given {
            let (written, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag.as_str(), None),
            };
            let name = written.strip_prefix("--").unwrap_or(written);
            let Some((name, takes)) = known.iter().find(|(known, _)| *known == name) else {
                let near = suggest::nearest(name, known.iter().map(|(known, _)| *known));
                return Err(FlagError::Unknown { flag: shown(written), near });
            };
            if *takes != Takes::List && found.iter().any(|(found, _)| found == name) {
                return Err(FlagError::Twice(name));
            }
            found.push((name, checked(name, *takes, value)?));
        }
        Ok(Self { found })
    }

    /// The value of a flag that takes text; an empty one is none.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.list(name).next().filter(|value| !value.is_empty())
    }

    /// The value of a boolean flag, when it is given.
    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        self.list(name).next().map(|value| value == "true")
    }

    /// All values of a flag.
    pub(super) fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        self.found.iter().filter(move |(found, _)| *found == name).map(|(_, value)| value.as_str())
    }
}

fn checked(name: &'static str, takes: Takes, value: Option<&str>) -> Result<String, FlagError> {
    let value = match (takes, value) {
        (Takes::Bool, None) => "true",
        (Takes::Bool, Some("")) | (Takes::Text | Takes::List, None) => {
            return Err(FlagError::NoValue(name));
        }
        (Takes::Bool, Some(value)) if value.eq_ignore_ascii_case("true") => "true",
        (Takes::Bool, Some(value)) if value.eq_ignore_ascii_case("false") => "false",
        (Takes::Bool, Some(value)) => {
            return Err(FlagError::NotBool { flag: name, value: shown(value) });
        }
        (Takes::Text | Takes::List, Some(value)) => value,
    };
    Ok(value.to_owned())
}

/// An instruction cut into its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts<'l> {
    pub keyword: &'l str,
    pub flags: Vec<String>,
    pub args: &'l str,
}

/// Cuts a logical line. Flags are the words at the head of the arguments that begin with `--`, up
/// to the first that does not, or to a `--` alone; quotes and escapes in them are resolved.
///
/// As in BuildKit (`extractBuilderFlags`) they are read byte by byte: of a letter beyond ASCII each
/// byte is taken for the letter of Latin-1 with that number, `é` for `Ã©`, and the second byte of `à`
/// for a blank.
pub(super) fn cut(line: &str, escape: Escape) -> Result<Parts<'_>, FlagError> {
    let (keyword, args) = split_once_blank(line.trim());
    let args = args.unwrap_or_default();
    let mut rest = args.as_bytes();
    let mut flags: Vec<String> = Vec::new();
    loop {
        let blanks = rest.iter().take_while(|b| is_latin_blank(**b)).count();
        rest = &rest[blanks..];
        if !rest.starts_with(b"--") {
            break;
        }
        let (flag, after) = first_flag(rest, escape);
        rest = after;
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    let inside = || FlagError::Letter { flag: shown(flags.last().map_or("--", String::as_str)) };
    let args = args.get(args.len() - rest.len()..).ok_or_else(inside)?.trim();
    Ok(Parts { keyword, flags, args })
}

/// The first flag of an instruction's text that is not read as it is written: as it is read, for
/// people.
pub(crate) fn first_garbled(text: &str, escape: Escape) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let mut parts = cut(text, escape).ok()?;
    if parts.keyword.eq_ignore_ascii_case("ONBUILD") {
        parts = cut(parts.args, escape).ok()?;
    }
    parts.flags.iter().find(|flag| !flag.is_ascii()).map(|flag| shown(flag))
}

fn is_latin_blank(byte: u8) -> bool {
    char::from(byte).is_whitespace()
}

/// The word at the head of `text`, and what follows it.
fn first_flag(text: &[u8], escape: Escape) -> (String, &[u8]) {
    let mut flag = String::new();
    let mut quote = None;
    let mut bytes = text.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        let c = char::from(*byte);
        match quote {
            None if is_latin_blank(*byte) => return (flag, &text[at..]),
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ if c == escape.char() => flag.extend(bytes.next().map(|(_, b)| char::from(*b))),
            _ => flag.push(c),
        }
    }
    (flag, b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_cut(line: &str, expect: (&str, &[&str], &str)) {
        let parts = cut(line, Escape::Backslash).unwrap();
        let flags: Vec<&str> = parts.flags.iter().map(String::as_str).collect();
        assert_eq!((parts.keyword, flags.as_slice(), parts.args), expect, "{line}");
    }

    #[test]
    fn flags_are_cut_off() {
        check_cut("RUN", ("RUN", &[], ""));
        check_cut("  run\t a b ", ("run", &[], "a b"));
        check_cut("COPY --a=b --c d --e", ("COPY", &["--a=b", "--c"], "d --e"));
        check_cut("COPY --a -- --b c", ("COPY", &["--a"], "--b c"));
        check_cut("COPY --a --", ("COPY", &["--a"], ""));
        check_cut("RUN - -x", ("RUN", &[], "- -x"));
        check_cut("RUN --a=\"b c\"d 'e'", ("RUN", &["--a=b cd"], "'e'"));
        check_cut("RUN --a='b\\'c' d", ("RUN", &["--a=b'c"], "d"));
        check_cut("RUN --a=b\\ c d", ("RUN", &["--a=b c"], "d"));
        check_cut("RUN --a\\", ("RUN", &["--a"], ""));
    }

    #[test]
    fn flags_are_read_byte_by_byte() {
        check_cut("COPY --exclude=é é x", ("COPY", &["--exclude=Ã©"], "é x"));
        check_cut("COPY --exclude=à . x", ("COPY", &["--exclude=Ã"], ". x"));
        check_cut("COPY --exclude='à' . x", ("COPY", &["--exclude=Ã\u{a0}"], ". x"));
        check_cut("COPY --exclude=\\é . x", ("COPY", &["--exclude=Ã©"], ". x"));
        check_cut("COPY --exclude=x\u{a0}. x", ("COPY", &["--exclude=xÂ"], ". x"));
        check_cut("COPY --exclude=x\u{2003}. x", ("COPY", &["--exclude=xâ\u{80}\u{83}."], "x"));
        check_cut("COPY --a \u{2003}--b c", ("COPY", &["--a"], "--b c"));
        let letter = FlagError::Letter { flag: shown("--a=ð\u{9f}") };
        assert_eq!(cut("COPY --a=\u{1f801} b c", Escape::Backslash), Err(letter));
    }

    #[test]
    fn who_writes_letters_into_flags_is_told() {
        let first = |text| first_garbled(text, Escape::Backslash);
        assert_eq!(first("COPY --a=b --c=é d e"), Some("--c=Ã©".to_owned()));
        assert_eq!(first("ONBUILD COPY --c=é d e"), Some("--c=Ã©".to_owned()));
        assert_eq!(first("COPY --c=d é e"), None);
        assert_eq!(first("COPY --c=d e f"), None);
    }

    const KNOWN: [(&str, Takes); 3] =
        [("link", Takes::Bool), ("chown", Takes::Text), ("exclude", Takes::List)];

    fn check_flags(given: &[&str], expect: Result<(Option<bool>, Option<&str>, usize), FlagError>) {
        let given: Vec<String> = given.iter().map(|flag| (*flag).to_owned()).collect();
        let found = Flags::parse(&given, &KNOWN);
        let found = found
            .as_ref()
            .map(|f| (f.bool("link"), f.text("chown"), f.list("exclude").count()))
            .map_err(Clone::clone);
        assert_eq!(found, expect, "{given:?}");
    }

    #[test]
    fn flags_are_checked() {
        check_flags(&[], Ok((None, None, 0)));
        check_flags(
            &["--link", "--chown=a=b", "--exclude=x", "--exclude="],
            Ok((Some(true), Some("a=b"), 2)),
        );
        check_flags(&["--link=FALSE", "--chown="], Ok((Some(false), None, 0)));
        check_flags(&["--link="], Err(FlagError::NoValue("link")));
        check_flags(&["--chown"], Err(FlagError::NoValue("chown")));
        check_flags(&["--link", "--link"], Err(FlagError::Twice("link")));
        let value = "maybe".to_owned();
        check_flags(&["--link=maybe"], Err(FlagError::NotBool { flag: "link", value }));
        let flag = "--chwon".to_owned();
        check_flags(&["--chwon=1"], Err(FlagError::Unknown { flag, near: Some("chown") }));
    }
}
