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
pub(super) fn cut(line: &str, escape: Escape) -> Parts<'_> {
    let (keyword, args) = split_once_blank(line.trim());
    let mut rest = args.unwrap_or_default();
    let mut flags = Vec::new();
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            break;
        }
        let (flag, after) = first_flag(rest, escape);
        rest = after;
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    Parts { keyword, flags, args: rest.trim() }
}

/// The word at the head of `text`, and what follows it.
fn first_flag(text: &str, escape: Escape) -> (String, &str) {
    let mut flag = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (flag, &text[at..]),
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ if c == escape.char() => flag.extend(chars.next().map(|(_, c)| c)),
            _ => flag.push(c),
        }
    }
    (flag, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_cut(line: &str, expect: (&str, &[&str], &str)) {
        let parts = cut(line, Escape::Backslash);
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
        check_cut("RUN --ä=ö x", ("RUN", &["--ä=ö"], "x"));
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
