use super::*;
use proptest::prelude::*;

fn check(pattern: &str, path: &str, expect: bool) {
    let glob = Glob::new(pattern.as_bytes()).unwrap();
    assert_eq!(glob.matches(path.as_bytes()), expect, "{pattern} on {path}");
}

#[test]
fn whole_paths_match() {
    for (pattern, path) in [
        ("abc", "abc"),
        ("*", "abc"),
        ("*", ""),
        ("*c", "abc"),
        ("a*", "abc"),
        ("a*/b", "abc/b"),
        ("a*b*c*d*e*/f", "axbxcxdxe/f"),
        ("a*b?c*x", "abxbbxdbxebxczzx"),
        ("ab[c]", "abc"),
        ("ab[b-d]", "abc"),
        ("ab[^e-g]", "abc"),
        ("a\\*b", "a*b"),
        ("a?b", "aéb"),
        ("a[^x]b", "aéb"),
        ("[а-я]", "ж"),
        ("a[^b]c", "a/c"),
        ("[\\-x]", "-"),
        ("[x\\]a]", "]"),
        ("***/x", "a/x"),
        ("a]", "a]"),
    ] {
        check(pattern, path, true);
    }
    for (pattern, path) in [
        ("a*", "ab/c"),
        ("*", "a/b"),
        ("a?b", "a/b"),
        ("ab[^bc]", "abc"),
        ("a??b", "aéb"),
        ("a", "ab"),
        ("", "a"),
        ("*x", "xxy"),
        ("**/x", "x"),
        ("a/*", "a"),
    ] {
        check(pattern, path, false);
    }
}

#[test]
fn bad_patterns_are_refused() {
    for bad in ["[", "[]", "[]a]", "[^]", "[a", "[a-", "[a-]", "[-a]", "[^bc", "a\\", "[\\", "[a\\"]
    {
        assert!(Glob::new(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(Glob::new(b"[\xff]").is_err());
}

#[test]
fn bytes_that_are_not_text_match() {
    let matches = |pattern: &[u8], path: &[u8]| Glob::new(pattern).unwrap().matches(path);
    assert!(matches(b"a?b", b"a\xffb") && matches(b"\xff*", b"\xff\xfe"));
    assert!(matches(b"[^a]", b"\xff") && !matches(b"?", b"\xff\xff"));
}

#[test]
fn a_walk_enters_only_what_may_match() {
    let below = |pattern: &str, dir: &str| {
        Glob::new(pattern.as_bytes()).unwrap().may_match_below(dir.as_bytes())
    };
    assert!(below("a*/b", "ax") && below("*/*/x", "a/b") && below("*/*/x", "a"));
    assert!(
        !below("a*/b", "b") && !below("*", "a") && !below("a*/b", "ax/y") && !below("*/b", "a/c")
    );
    assert!(below("a[^b]c", "anything"));
}

#[test]
fn sources_are_cut_at_their_first_wildcard() {
    let check = |source: &str, dir: &str, pattern: Option<&str>| {
        let (found_dir, found) = split(source.as_bytes());
        assert_eq!(String::from_utf8(found_dir).unwrap(), dir);
        assert_eq!(found.map(|p| String::from_utf8(p).unwrap()).as_deref(), pattern);
    };
    check("a/b*/c", "a", Some("b*/c"));
    check("/../a//./b/", "a/b", None);
    check("*", "", Some("*"));
    check("a\\*/b", "a\\*/b", None);
    check("a/[b/../x", "a/x", None);
    check("", "", None);
}

/// The obvious matcher, where no class matches a `/`.
fn naive(tokens: &[Token], path: &[u8]) -> bool {
    let Some((first, more)) = tokens.split_first() else { return path.is_empty() };
    let head = first_char(path);
    match first {
        Token::Star => {
            naive(more, path)
                || path.first().is_some_and(|b| *b != b'/') && naive(tokens, &path[1..])
        }
        Token::Byte(byte) => path.first() == Some(byte) && naive(more, &path[1..]),
        Token::Any => head.is_some_and(|(c, len)| c != '/' && naive(more, &path[len..])),
        Token::Class(class) => {
            head.is_some_and(|(c, len)| class.matches(c) && naive(more, &path[len..]))
        }
    }
}

proptest! {
    #[test]
    fn globs_agree_with_the_obvious_matcher(
        pattern in "([ab*?/]|\\[ab\\]|\\[a-c\\]){0,7}",
        path in "[abc/é]{0,8}",
    ) {
        let glob = Glob::new(pattern.as_bytes()).unwrap();
        prop_assert_eq!(glob.matches(path.as_bytes()), naive(&glob.tokens, path.as_bytes()));
    }

    #[test]
    fn what_matches_is_not_walked_past(
        pattern in "([ab*?/]|\\[ab\\]|\\[\\^a\\]){0,7}",
        path in "[ab/]{0,8}",
    ) {
        let glob = Glob::new(pattern.as_bytes()).unwrap();
        if glob.matches(path.as_bytes()) {
            for (at, _) in path.match_indices('/') {
                prop_assert!(glob.may_match_below(&path.as_bytes()[..at]));
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(pattern: Vec<u8>, path: Vec<u8>) {
        if let Ok(glob) = Glob::new(&pattern) {
            glob.matches(&path);
            glob.may_match_below(&path);
        }
        split(&pattern);
    }
}
