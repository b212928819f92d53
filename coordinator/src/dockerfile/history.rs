//! The texts of an image's history (`created_by`), as BuildKit writes them.
//!
//! They go into the image config, and so into the image's id: not a blank may differ.

use super::expand::Lookup;
use super::instruction::{AddFiles, CopyFiles, Healthcheck, Pairs, Transfer};
use super::value::duration_text;
use std::time::Duration;

/// RUN: the arguments as they are run, with the shell, after the ARGs that the stage has declared so
/// far (its own name and value each, in order; those of the stages that it is built on come first).
/// An ARG shows the value that the environment has for it.
pub fn run(args: &[String], declared: &[(String, Option<String>)], env: Lookup<'_>) -> String {
    let mut shown: Vec<(&str, &str)> = Vec::new();
    for (name, value) in declared {
        let value = env(name).or(value.as_deref()).unwrap_or_default();
        match shown.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => shown.push((name, value)),
        }
    }
    let mut out = "RUN".to_owned();
    if !shown.is_empty() {
        out.push_str(&format!(" |{}", shown.len()));
    }
    for (name, value) in shown {
        out.push_str(&format!(" {name}={value}"));
    }
    format!("{out} {} # buildkit", args.join(" "))
}

/// COPY.
pub fn copy(copy: &CopyFiles<String>) -> String {
    transfer(if copy.parents { "COPY --parents" } else { "COPY" }, &copy.files)
}

/// ADD.
pub fn add(add: &AddFiles<String>) -> String {
    transfer("ADD", &add.files)
}

fn transfer(name: &str, files: &Transfer<String>) -> String {
    let mut out = name.to_owned();
    for (flag, value) in [("chown", &files.chown), ("chmod", &files.chmod)] {
        if let Some(value) = value {
            out.push_str(&format!(" --{flag}={value}"));
        }
    }
    for source in &files.sources {
        out.push_str(&format!(" {source}"));
    }
    for file in &files.inline {
        out.push_str(&format!(" <<{}", file.name));
    }
    format!("{out} {} # buildkit", files.dest)
}

/// ENV.
pub fn env(pairs: &Pairs<String>) -> String {
    named_pairs("ENV", pairs)
}

/// LABEL.
pub fn label(pairs: &Pairs<String>) -> String {
    named_pairs("LABEL", pairs)
}

fn named_pairs(name: &str, pairs: &Pairs<String>) -> String {
    let mut out = name.to_owned();
    for pair in &pairs.0 {
        out.push_str(&format!(" {}={}", pair.key, pair.value));
    }
    out
}

/// ARG: each name with the value that it has from here on, if any.
pub fn arg(items: &[(String, Option<String>)]) -> String {
    let mut out = "ARG".to_owned();
    for (name, value) in items {
        out.push(' ');
        out.push_str(name);
        if let Some(value) = value {
            out.push('=');
            out.push_str(value);
        }
    }
    out
}

/// CMD: the arguments with the shell.
pub fn cmd(args: &[String]) -> String {
    format!("CMD {}", quoted_list(args))
}

/// ENTRYPOINT: the arguments with the shell.
pub fn entrypoint(args: &[String]) -> String {
    format!("ENTRYPOINT {}", quoted_list(args))
}

/// EXPOSE: the entries of the image config, in the order of the instruction.
pub fn expose(entries: &[String]) -> String {
    format!("EXPOSE {}", plain_list(entries))
}

/// HEALTHCHECK.
pub fn healthcheck(check: &Healthcheck) -> String {
    let none = (Duration::ZERO, Duration::ZERO, Duration::ZERO, Duration::ZERO, 0);
    let (interval, timeout, start_period, start_interval, retries) = match check {
        Healthcheck::None => none,
        Healthcheck::Cmd { interval, timeout, start_period, start_interval, retries, .. } => {
            (*interval, *timeout, *start_period, *start_interval, *retries)
        }
    };
    format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        plain_list(&check.test()),
        duration_text(interval),
        duration_text(timeout),
        duration_text(start_period),
        duration_text(start_interval),
        retries,
    )
}

/// MAINTAINER.
pub fn maintainer(name: &str) -> String {
    format!("MAINTAINER {name}")
}

/// SHELL.
pub fn shell(args: &[String]) -> String {
    format!("SHELL {}", plain_list(args))
}

/// STOPSIGNAL.
pub fn stop_signal(signal: &str) -> String {
    format!("STOPSIGNAL {signal}")
}

/// USER.
pub fn user(user: &str) -> String {
    format!("USER {user}")
}

/// VOLUME.
pub fn volume(paths: &[String]) -> String {
    format!("VOLUME {}", plain_list(paths))
}

/// WORKDIR: the directory that it leads to ([`super::path::workdir`]).
pub fn workdir(path: &str) -> String {
    format!("WORKDIR {path}")
}

/// Go's `%v` of a list of strings.
fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// Go's `%q` of a list of strings.
fn quoted_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    plain_list(&words)
}

/// Go's `strconv.Quote`.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if is_printable(c) => out.push(c),
            c if (c as u32) < 0x80 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push('"');
    out
}

/// Whether a character is shown as it is: letters, marks, numbers, punctuation, symbols and the
/// blank. The standard library knows, but tells only in what it escapes.
fn is_printable(c: char) -> bool {
    // Behind another character, so that a mark is not escaped for want of a letter before it.
    matches!(c, '\'') || ['a', c].iter().collect::<String>().escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn quotes_are_go_s() {
        let cases = [
            ("a b'c", "\"a b'c\""),
            ("\"\\", "\"\\\"\\\\\""),
            ("\t\n\x07\x1b\x7f\0", "\"\\t\\n\\a\\x1b\\x7f\\x00\""),
            ("é日\u{301}\u{a0}\u{200b}\u{e000}", "\"é日\u{301}\\u00a0\\u200b\\ue000\""),
            ("😀\u{e0001}", "\"😀\\U000e0001\""),
        ];
        for (text, expect) in cases {
            assert_eq!(quoted(text), expect);
        }
        assert_eq!(cmd(&texts(&["a", "b c"])), "CMD [\"a\" \"b c\"]");
        assert_eq!(entrypoint(&[]), "ENTRYPOINT []");
    }

    #[test]
    fn a_run_shows_its_args() {
        let declared = [
            ("A".to_owned(), Some("1".to_owned())),
            ("B".to_owned(), None),
            ("A".to_owned(), Some("2".to_owned())),
        ];
        let env = |name: &str| (name == "B").then_some("env");
        let found = run(&texts(&["sh", "-c", "x"]), &declared, &env);
        assert_eq!(found, "RUN |2 A=2 B=env sh -c x # buildkit");
        assert_eq!(run(&[], &[], &env), "RUN  # buildkit");
    }

    #[test]
    fn an_arg_without_a_value_is_its_name() {
        let items = [("A".to_owned(), None), ("B".to_owned(), Some(String::new()))];
        assert_eq!(arg(&items), "ARG A B=");
    }
}
