//! Ignore files, patterns of COPY, and symbolic modes.

use super::Target;
use cache::tree::glob::{self, Glob};
use cache::tree::pattern::{Level, Patterns, read_ignore_file};

pub struct Ignore;

const SEEDS: [&str; 6] = [
    "# comment\n*.log\n!keep.log\n\n/a/b/\n**/x\n",
    "a/**/b\n?c\n[a-z]d\n[^0-9]e\n\\*f\n!g/**\n",
    "*\n!src\nsrc/**/*.o\n!src/a.o\n",
    "\u{feff}..\n./a/../b\n//c\n \t d \r\n",
    "**/**/**/**/a*b*c*d*e*\n",
    "[a\n[]\n\\\n!\n[z-a]\n",
];

const WORDS: &[&[u8]] = &[
    b"*",
    b"**",
    b"**/",
    b"/**",
    b"?",
    b"[",
    b"]",
    b"[^",
    b"-",
    b"!",
    b"\n!",
    b"\\",
    b"/",
    b"..",
    b"./",
    b"\n",
    b"\r\n",
    b"#",
    b"a",
    b"\\d",
    b"\xff",
    b"[a-z]",
    b"\xef\xbb\xbf",
];

const PATHS: [&[u8]; 8] =
    [b"a", b"a/b", b"src/a.o", b"src/x/y/z.o", b"keep.log", b".a", b"\xff\xfe/c", b"aaaaaaaaaaaab"];

impl Target for Ignore {
    fn name(&self) -> &'static str {
        "ignore"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        SEEDS.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    fn words(&self) -> &'static [&'static [u8]] {
        WORDS
    }

    fn run(&self, input: &[u8]) -> bool {
        if let Ok(glob) = Glob::new(input) {
            for path in PATHS {
                let (matches, below) = (glob.matches(path), glob.may_match_below(path));
                let _ = (matches, below);
            }
        }
        let (base, pattern) = glob::split(input);
        assert!(base.len() + pattern.map_or(0, |p| p.len()) <= 2 * input.len() + 2);
        match read_ignore_file(input) {
            Err(e) => {
                assert!(!e.to_string().is_empty());
                false
            }
            Ok(patterns) => {
                PATHS.iter().for_each(|path| walked(&patterns, path));
                true
            }
        }
    }
}

/// A walk comes to the same answer as the question about the whole path.
fn walked(patterns: &Patterns, path: &[u8]) {
    let mut level = patterns.root();
    let names: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    let (last, dirs) = names.split_last().expect("a path has a name");
    let above: Vec<Level> = dirs
        .iter()
        .map(|name| {
            level = patterns.directory(&level, name);
            level.clone()
        })
        .collect();
    let matches = patterns.file(&level, last);
    assert_eq!(matches, patterns.matches(path), "{}", path.escape_ascii());
    if matches != level.is_match() {
        // Whatever is decided anew below a directory must have been foreseen there.
        let foreseen = |level: &Level| match level.is_match() {
            true => patterns.may_except_below(level),
            false => patterns.may_match_below(level),
        };
        assert!(above.iter().all(|level| level.is_match() == matches || foreseen(level)));
    }
}
