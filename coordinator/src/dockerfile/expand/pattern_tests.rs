use super::*;
use proptest::prelude::*;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

/// What `#`, `##`, `%` and `%%` leave of `value`.
fn check_trim(value: &str, text: &str, expect: [&str; 4]) {
    let p = pattern(text);
    let found = [
        p.without_prefix(value, Reach::Shortest),
        p.without_prefix(value, Reach::Longest),
        p.without_suffix(value, Reach::Shortest),
        p.without_suffix(value, Reach::Longest),
    ];
    assert_eq!(found, expect, "{text} on {value}");
}

/// What `/` and `//` make of `value`.
fn check_replace(value: &str, text: &str, with: &str, expect: [&str; 2]) {
    let p = pattern(text);
    let all = p.replace_all(value, with, usize::MAX).unwrap();
    assert_eq!([p.replace_first(value, with), all], expect, "{text} on {value}");
}

#[test]
fn prefixes_and_suffixes_are_cut() {
    check_trim("a.b.c", "*.", ["b.c", "c", "a.b.c", "a.b.c"]);
    check_trim("a.b.c", ".*", ["a.b.c", "a.b.c", "a.b", "a"]);
    check_trim("a.b.c", "*", ["a.b.c", "", "a.b.c", ""]);
    check_trim("a.b.c", "", ["a.b.c"; 4]);
    check_trim("a.b.c", "?", [".b.c", ".b.c", "a.b.", "a.b."]);
    check_trim("a.b.c", "x", ["a.b.c"; 4]);
    check_trim("aXbXc", "*X*", ["bXc", "", "aXb", ""]);
    check_trim("*?\\x", "\\*\\?\\\\", ["x", "x", "*?\\x", "*?\\x"]);
    check_trim("(a)[b]+", "(?)[?]", ["+", "+", "(a)[b]+", "(a)[b]+"]);
    check_trim("жжx", "ж", ["жx", "жx", "жжx", "жжx"]);
    check_trim("a\nb", "*", ["a\nb", "\nb", "a\nb", "a\n"]);
}

#[test]
fn matches_are_replaced() {
    check_replace("a-b-c", "-", "+", ["a+b-c", "a+b+c"]);
    check_replace("a-b-c", "?-", "", ["b-c", "c"]);
    check_replace("a-b-c", "a*c", "X", ["X", "X"]);
    check_replace("a-b-c", "z", "X", ["a-b-c", "a-b-c"]);
    check_replace("abab", "b*", "X", ["aX", "aX"]);
    check_replace("ab", "", "-", ["-ab", "-a-b-"]);
    check_replace("ab\ncd", "*", "-", ["-\ncd", "-\n-"]);
    check_replace("жxж", "x", "é", ["жéж", "жéж"]);
}

#[test]
fn dollars_in_the_text_of_a_global_replacement_refer_to_the_match() {
    check_replace("ab", "b", "<$0>", ["a<$0>", "a<b>"]);
    check_replace("ab", "b", "$$x", ["a$$x", "a$x"]);
    check_replace("ab", "b", "$name-${1}.", ["a$name-${1}.", "a-."]);
    check_replace("ab", "b", "$", ["a$", "a$"]);
    check_replace("ab", "b", "${x", ["a${x", "a${x"]);
}

#[test]
fn bad_patterns_are_refused() {
    assert_eq!(Pattern::parse("a\\x"), Err(PatternError::Escape('x')));
    assert_eq!(Pattern::parse("a\\"), Err(PatternError::OpenEscape));
    assert_eq!(Pattern::parse(&"a".repeat(CHARS_MAX + 1)), Err(PatternError::TooLong));
    assert!(Pattern::parse(&"*".repeat(CHARS_MAX + 1)).is_ok());
}

#[test]
fn a_replacement_cannot_grow_without_bound() {
    let p = pattern("a");
    assert_eq!(p.replace_all(&"a".repeat(1000), &"b".repeat(1000), 10_000), None);
}

#[test]
fn many_stars_on_a_long_value_are_one_pass() {
    let p = pattern(&"*a".repeat(CHARS_MAX / 2));
    let value = "a".repeat(1 << 20);
    assert_eq!(p.without_prefix(&value, Reach::Longest), "");
    assert_eq!(p.replace_first(&value, "x"), "x");
    let hopeless = "b".repeat(1 << 20);
    assert_eq!(p.replace_all(&hopeless, "x", usize::MAX).unwrap(), hopeless);
}

/// The obvious matcher: all lengths that a match at the head of `value` can have.
fn naive_lengths(items: &[Item], value: &[char], at: usize, out: &mut Vec<usize>) {
    let Some((first, rest)) = items.split_first() else {
        out.push(at);
        return;
    };
    let here = value.get(at);
    match first {
        Item::Char(c) if here == Some(c) => naive_lengths(rest, value, at + 1, out),
        Item::One if here.is_some_and(|c| *c != '\n') => naive_lengths(rest, value, at + 1, out),
        Item::Many => {
            naive_lengths(rest, value, at, out);
            if here.is_some_and(|c| *c != '\n') {
                naive_lengths(items, value, at + 1, out);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn the_automaton_agrees_with_the_obvious_matcher(
        text in "[ab*?é]{0,6}",
        value in "[abé\\n]{0,9}",
    ) {
        let p = pattern(&text);
        let chars: Vec<char> = value.chars().collect();
        let mut lengths = Vec::new();
        naive_lengths(&p.items, &chars, 0, &mut lengths);
        let mut check = |reach, expect: Option<&usize>| {
            let found = Automaton::new(&p).reach(chars.iter().copied(), reach);
            assert_eq!(found, expect.copied());
        };
        check(Reach::Shortest, lengths.iter().min());
        check(Reach::Longest, lengths.iter().max());
        for (at, starts) in p.starts(&chars).into_iter().enumerate() {
            let mut lengths = Vec::new();
            naive_lengths(&p.items, &chars[at..], 0, &mut lengths);
            prop_assert_eq!(starts, !lengths.is_empty());
        }
    }
}
