use super::*;
use proptest::prelude::*;

fn patterns(list: &[&str]) -> Patterns {
    Patterns::new(list).unwrap()
}

/// The paths of `paths` that are matched.
fn check(list: &[&str], paths: &[&str], expect: &[&str]) {
    let patterns = patterns(list);
    let found: Vec<&str> =
        paths.iter().copied().filter(|path| patterns.matches(path.as_bytes())).collect();
    assert_eq!(found, expect, "{list:?}");
}

const TREE: [&str; 9] =
    ["a.txt", "b.log", "d", "d/a.txt", "d/b.log", "d/e/a.txt", "d/e/b.log", "dd/x", ".hidden"];

#[test]
fn one_pattern_matches() {
    check(&["b.log"], &TREE, &["b.log"]);
    check(&["*.log"], &TREE, &["b.log"]);
    check(&["**/*.log"], &TREE, &["b.log", "d/b.log", "d/e/b.log"]);
    check(&["**/b.log"], &TREE, &["b.log", "d/b.log", "d/e/b.log"]);
    check(&["d"], &TREE, &["d", "d/a.txt", "d/b.log", "d/e/a.txt", "d/e/b.log"]);
    check(&["d/**"], &TREE, &["d/a.txt", "d/b.log", "d/e/a.txt", "d/e/b.log"]);
    check(&["d**"], &TREE, &["d", "d/a.txt", "d/b.log", "d/e/a.txt", "d/e/b.log", "dd/x"]);
    check(&["d/*/a.txt"], &TREE, &["d/e/a.txt"]);
    check(&["d/**/a.txt"], &TREE, &["d/a.txt", "d/e/a.txt"]);
    check(&["?.txt"], &TREE, &["a.txt"]);
    check(&["[a-c].*"], &TREE, &["a.txt", "b.log"]);
    check(&["[^a]*"], &["a", "b", "cd"], &["b", "cd"]);
    check(&["*"], &TREE, &TREE);
    check(&["**"], &TREE, &TREE);
    check(&["."], &TREE, &[]);
    check(&["./d//e/../e/"], &TREE, &["d/e/a.txt", "d/e/b.log"]);
    check(&["  b.log\t", "", " "], &TREE, &["b.log"]);
    check(&["/b.log"], &TREE, &[]);
    check(&["a+b(c){d}|$^"], &["a+b(c){d}|$^", "aab"], &["a+b(c){d}|$^"]);
}

#[test]
fn the_last_match_decides() {
    check(
        &["*", "!a.txt", "!d/e"],
        &TREE,
        &["b.log", "d", "d/a.txt", "d/b.log", "dd/x", ".hidden"],
    );
    check(&["d", "!d/a.txt", "!d/e/a.txt"], &TREE, &["d", "d/b.log", "d/e/b.log"]);
    check(&["!a.txt", "*.txt"], &TREE, &["a.txt"]);
    check(&["**", "!**/*.txt"], &TREE, &["b.log", "d", "d/b.log", "d/e/b.log", "dd/x", ".hidden"]);
    check(&["d", "!d", "d/e"], &TREE, &["d/e/a.txt", "d/e/b.log"]);
}

#[test]
fn a_repeated_pattern_after_an_exception_differs_between_the_two_questions() {
    // A walk does not try the second `d` at `d`, since the first has matched.
    let patterns = patterns(&["d", "!d/a", "d"]);
    assert!(!patterns.matches(b"d/a"));
    assert!(patterns.matches_path_or_parent(b"d/a"));
}

#[test]
fn odd_patterns_mean_what_their_regular_expression_means() {
    check(&["**x"], &["x", "ax", "a/x", "a/bx", "xa"], &["x", "ax", "a/x", "a/bx"]);
    check(&["a**x"], &["ax", "a/x", "abx", "ab/x"], &["ax", "a/x", "ab/x"]);
    check(&["[*]"], &["*", "^]", "]", "[[]"], &["^]", "]", "[[]"]);
    check(&["a\\*b"], &["a*b", "axb", "a\\*b"], &["a*b"]);
    check(&["\\d\\D"], &["1a", "11", "a1", "d"], &["1a"]);
    check(&["[[:upper:]x][^[:digit:]]"], &["Aa", "xb", "A1", "aa"], &["Aa", "xb"]);
    check(&["[\\w]"], &["a", "-", "é", "_"], &["a", "_"]);
    check(&["?^a"], &["x^a", "a", "^a"], &[]);
    check(&["a\\b"], &["a\\b", "ab", "b"], &[]);
    check(&["a\\b"], &["a"], &["a"]);
    check(&["a\\b*"], &["a", "ab", "a.b", "a/b"], &["a", "a.b", "a/b"]);
    check(&["**/\\bb"], &["b", "a/b", "a/ab", "a b"], &["b", "a/b"]);
    check(&["*\\bobj"], &["bin\\obj", "obj", "binobj"], &["bin\\obj", "obj"]);
    check(&["a\\Bb", "bin/\\b*"], &["ab", "a", "bin/x", "bin/.x"], &["ab", "bin/x"]);
    check(&["\\Aab", "x*\\z"], &["ab", "a/ab", "xy"], &["ab", "xy"]);
    check(&["\\x41", "[\\x42]", "\\103"], &["A", "B", "C", "D"], &["A", "B", "C"]);
    check(
        &["\\pL\\PL[\\pN-z]"],
        &["aé1", "é1²", "é_z", "é_-", "é_-", "_é1"],
        &["é1²", "é_z", "é_-", "é_-"],
    );
    check(&["x\\pc"], &["x\u{378}", "x\t", "x "], &["x\u{378}", "x\t"]);
    check(&["\\Qa?"], &["a[^", "a[^/]", "ab"], &["a[^/]"]);
    check(&["**/*x"], &["a\nb/x", "a/bx", "a\nx"], &["a/bx", "a\nx"]);
    check(&["**/c"], &["a\nb/c", "c"], &["a\nb/c", "c"]);
}

#[test]
fn names_need_not_be_text() {
    let matches = |pattern: &[u8], path: &[u8]| Patterns::new([pattern]).unwrap().matches(path);
    assert!(matches(b"a\xff", b"a\xff") && !matches(b"a\xff", b"a\xfe"));
    assert!(matches(b"a?", b"a\xff") && !matches(b"a?", b"a\xff\xff"));
    assert!(matches(b"?\xff", b"a\xfe") && matches(b"*", b"\xff/\xfe"));
    assert!(matches("*é".as_bytes(), "aé".as_bytes()) && !matches("?".as_bytes(), b"\xc3\xc3"));
}

#[test]
fn bad_patterns_are_refused() {
    assert_eq!(Patterns::new(["!"]).unwrap_err(), PatternError::Exception);
    for bad in ["[", "[]", "a\\", "[a-"] {
        assert!(matches!(Patterns::new([bad]), Err(PatternError::Syntax { .. })), "{bad}");
    }
    for bad in [
        "\\o",
        "\\p",
        "\\pX",
        "\\p{Greek}",
        "[a-\\pL]",
        "\\x4",
        "\\1",
        "\\é",
        "\\E",
        "[\\b]",
        "[z-a]",
        "[[:nope:]]",
        "[[:]",
    ] {
        assert!(matches!(Patterns::new([bad]), Err(PatternError::Expression { .. })), "{bad}");
    }
    assert!(Patterns::new(["x".repeat(5000)]).is_err());
    // Each names hundreds of ranges with a few bytes.
    let many = "[a\\pL]".repeat(2000);
    let patterns = std::iter::repeat_n(many, 10);
    assert_eq!(Patterns::new(patterns).unwrap_err(), PatternError::TooManyRanges);
    check(&[&format!("[{}]x", "\\PL\\pN".repeat(2000))], &["1x", "ax", ".x"], &["1x", ".x"]);
}

#[test]
fn a_walk_skips_what_cannot_come_back() {
    let check = |list: &[&str], dir: &str, expect: bool| {
        let patterns = patterns(list);
        let mut level = patterns.root();
        for name in dir.split('/') {
            level = patterns.directory(&level, name.as_bytes());
        }
        assert!(level.is_match(), "{list:?} {dir}");
        assert_eq!(patterns.may_except_below(&level), expect, "{list:?} {dir}");
    };
    check(&["node_modules"], "node_modules", false);
    check(&["*", "!a.txt"], "d", false);
    check(&["*", "!d/e"], "d", true);
    check(&["*", "!d/e"], "dd", false);
    check(&["*", "!d/e"], "d/f", false);
    check(&["*", "!**/x"], "d/f", true);
    check(&["*", "!d*/x"], "dd", true);
    check(&["*", "!d*/x"], "dd/y", false);
    let patterns = patterns(&["a/*/c", "!z"]);
    let a = patterns.directory(&patterns.root(), b"a");
    assert!(!a.is_match() && patterns.may_match_below(&a));
    let b = patterns.directory(&patterns.root(), b"b");
    assert!(!patterns.may_match_below(&b) && !patterns.may_except_below(&b));
}

#[test]
fn ignore_files_are_read() {
    let texts = |file: &str| {
        let patterns = read_ignore_file(file.as_bytes()).unwrap();
        let one = |p: &Pattern| {
            format!("{}{}", if p.is_exception { "!" } else { "" }, String::from_utf8_lossy(&p.text))
        };
        patterns.list.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(texts("\u{feff}a\r\n# c\n #d\n\n  /b/ \n! /c/../d\n.\n/"), "a #d b !d . /");
    assert_eq!(texts("/../x\n!./y\na//b"), "x !y a/b");
    assert_eq!(texts(""), "");
    let error = read_ignore_file(b"a\n!\n").unwrap_err();
    assert_eq!(error, IgnoreError::Pattern { line: 2, why: PatternError::Exception });
    assert!(
        read_ignore_file(b"[\n").unwrap_err().to_string().starts_with("Line 1: The pattern `[`")
    );
    let long = [b"a\n".as_slice(), &[b'x'; 70_000]].concat();
    assert_eq!(read_ignore_file(&long).unwrap_err(), IgnoreError::LongLine(2));
}

/// One pattern on one path, written down as directly as it can be.
fn naive_match(pattern: &str, path: &str, is_first: bool) -> bool {
    let Some(first) = pattern.chars().next() else { return path.is_empty() };
    let more = &pattern[1..];
    let after = |path: &str| path.chars().next().map(|c| (c, path[1..].to_owned()));
    match first {
        '*' if more.starts_with('*') => {
            let all = &more[1..];
            let rest = all.strip_prefix('/').unwrap_or(all);
            if rest.is_empty() {
                return true;
            }
            if is_first && !all.contains(['*', '?', '[']) && !all.starts_with('/') {
                return path.ends_with(all);
            }
            let below =
                path.match_indices('/').any(|(at, _)| naive_match(rest, &path[at + 1..], false));
            naive_match(rest, path, false) || below
        }
        '*' => {
            naive_match(more, path, false)
                || after(path)
                    .is_some_and(|(c, rest)| c != '/' && naive_match(pattern, &rest, false))
        }
        '?' => after(path).is_some_and(|(c, rest)| c != '/' && naive_match(more, &rest, false)),
        '[' => after(path).is_some_and(|(c, rest)| {
            "ab".contains(c) && naive_match(pattern.split_once(']').unwrap().1, &rest, false)
        }),
        literal => {
            after(path).is_some_and(|(c, rest)| c == literal && naive_match(more, &rest, false))
        }
    }
}

/// A list on one path, as a walk goes down to it.
fn naive_walk(list: &[(bool, String)], path: &str) -> bool {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let mut flags = vec![false; list.len()];
    let mut is_match = false;
    for end in ends {
        is_match = false;
        for ((exception, pattern), flag) in list.iter().zip(&mut flags) {
            if !*flag && *exception == is_match {
                *flag = naive_match(pattern, &path[..end], true);
            }
            if *flag {
                is_match = !exception;
            }
        }
    }
    is_match
}

fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab]{1,2}",
        1 => Just("*".to_owned()),
        1 => Just("**".to_owned()),
        1 => "[ab]\\*",
        1 => "\\*[ab]",
        1 => "[ab?]{1,2}",
        1 => "\\[ab\\][ab]?",
        1 => "\\*\\*[ab]",
        1 => "[ab]\\*\\*",
    ]
}

fn pattern() -> impl Strategy<Value = (bool, String)> {
    (any::<bool>(), prop::collection::vec(part(), 1..4).prop_map(|parts| parts.join("/")))
}

proptest! {
    #[test]
    fn lists_agree_with_the_obvious_matcher(
        list in prop::collection::vec(pattern(), 1..6),
        path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let text = list.iter().map(|(e, p)| format!("{}{p}", if *e { "!" } else { "" }));
        let patterns = Patterns::new(text.collect::<Vec<_>>()).unwrap();
        prop_assert_eq!(patterns.matches(path.as_bytes()), naive_walk(&list, &path));
        let mut is_match = false;
        for (exception, pattern) in &list {
            let mut ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            if *exception == is_match && ends.any(|end| naive_match(pattern, &path[..end], true)) {
                is_match = !exception;
            }
        }
        prop_assert_eq!(patterns.matches_path_or_parent(path.as_bytes()), is_match);
    }

    #[test]
    fn nothing_below_a_skipped_directory_comes_back(
        list in prop::collection::vec(pattern(), 1..6),
        path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let text = list.iter().map(|(e, p)| format!("{}{p}", if *e { "!" } else { "" }));
        let patterns = Patterns::new(text.collect::<Vec<_>>()).unwrap();
        let is_match = patterns.matches(path.as_bytes());
        let mut level = patterns.root();
        for name in path.split('/').take(path.matches('/').count()) {
            level = patterns.directory(&level, name.as_bytes());
            let may_change = match level.is_match() {
                true => patterns.may_except_below(&level),
                false => patterns.may_match_below(&level),
            };
            if !may_change {
                prop_assert_eq!(is_match, level.is_match());
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(file: Vec<u8>, path: Vec<u8>) {
        if let Ok(patterns) = read_ignore_file(&file) {
            patterns.matches(&path);
            patterns.matches_path_or_parent(&path);
        }
    }
}
