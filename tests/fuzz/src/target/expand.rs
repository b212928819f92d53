//! Variables in words.

use super::Target;
use coordinator::dockerfile::expand::{GROWTH_BYTES_MAX, Title};
use coordinator::dockerfile::{Escape, Expander, Word};

pub struct Expand;

const SEEDS: [&str; 8] = [
    "$A ${B} ${C:-d} ${C-d} ${A:+e} ${A+e}",
    "${A#x*} ${A##*y} ${A%z?} ${A%%*} ${A/b/c} ${A//\\*/$B}",
    "\"$A 'b' \\\" \\$\" '$A' \\$A a\\ b `c",
    "${A:?message} ${C?} ${A:-${B:-${C:-deep}}}",
    "$@ $* $# $? $- $$ $! $0 ${0} ${10}",
    "${} ${:} ${A:} ${A:^} ${A/b} $ $",
    "${A//a/${A//a/${A//a/$A$A}}}",
    "\u{e4}$\u{e4} ${A#\u{e4}?}",
];

const WORDS: &[&[u8]] = &[
    b"$",
    b"${",
    b"}",
    b":-",
    b":+",
    b":?",
    b"##",
    b"%%",
    b"//",
    b"*",
    b"?",
    b"\\",
    b"`",
    b"\"",
    b"'",
    b"$A",
    b"${BIG}",
    b"${BIG//x/",
    b" ",
    b"\xc3\xa4",
    b"$$",
];

/// What names stand for.
fn value(name: &str) -> Option<&'static str> {
    const BIG: &str = match std::str::from_utf8(&[b'x'; 5000]) {
        Ok(text) => text,
        Err(_) => unreachable!(),
    };
    match name {
        "A" => Some("xaybz*"),
        "B" => Some(""),
        "BIG" => Some(BIG),
        _ => None,
    }
}

impl Target for Expand {
    fn name(&self) -> &'static str {
        "expand"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        SEEDS.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    fn words(&self) -> &'static [&'static [u8]] {
        WORDS
    }

    fn run(&self, input: &[u8]) -> bool {
        let text = String::from_utf8_lossy(input).into_owned();
        let mut accepted = false;
        for escape in [Escape::Backslash, Escape::Backtick] {
            let mut expander = Expander::new(escape, &value);
            let word = Word::new(text.clone());
            if let Ok(found) = expander.word(&word) {
                accepted = true;
                assert!(found.len() <= text.len() + GROWTH_BYTES_MAX, "{} bytes", found.len());
                let has_none = !text.contains(['$', '"', '\'', '\\', '`']);
                assert!(!has_none || found == text, "text without variables stays as it is");
            }
            let _ = expander.words(&word);
            let _ = expander.heredoc(input);
            for title in [Title::Command, Title::Other] {
                let found = expander.title(&text, title);
                assert!(found.len() <= text.len() + GROWTH_BYTES_MAX);
            }
            let names = expander.used().iter().all(|name| value(name).is_some());
            assert!(names && expander.missing().iter().all(|name| value(name).is_none()));
        }
        accepted
    }
}
