use super::*;
use proptest::prelude::*;

const ENV: [(&str, &str); 6] = [
    ("A", "one"),
    ("B", "two words"),
    ("E", ""),
    ("P", "/usr/lib/a.tar.gz"),
    ("Q", "it's \"q\" \\ $A"),
    ("ключ", "знак"),
];

fn lookup(name: &str) -> Option<&'static str> {
    ENV.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn expander() -> Expander<'static> {
    Expander::new(Escape::Backslash, &lookup)
}

fn check(text: &str, expect: &str) {
    assert_eq!(expander().word(&Word::new(text)).as_deref(), Ok(expect), "{text}");
}

fn check_error(text: &str, expect: &str) {
    let error = expander().word(&Word::new(text)).unwrap_err().to_string();
    assert!(error.contains(expect) && error.starts_with("Cannot expand `"), "{text}: {error}");
}

#[test]
fn variables_are_replaced() {
    check("$A-${A}x", "one-onex");
    check("$Ax$none.", ".");
    check("$ключ", "знак");
    check("$B$E|", "two words|");
    check("$Q", "it's \"q\" \\ $A");
    check("$ $. a$", "$ $. a$");
    check("$1a${2}$@$*$$", "a");
    check("\u{feff}$A", "one");
    check("< <<$A <x", "< <<one <x");
}

#[test]
fn quotes_and_escapes_are_resolved() {
    check("'$A' \"$A\" a'b'c", "$A one abc");
    check("\\$A \\\\ \\a \"\\a \\$A \\\\ \\\"\"", "$A \\ a \\a $A \\ \"");
    check("'\\'", "\\");
    check("\"'\" '\"'", "' \"");
    check("a\\", "a");
    let mut backtick = Expander::new(Escape::Backtick, &lookup);
    assert_eq!(backtick.word(&Word::new("C:\\x `$A `` \"`$\"")).unwrap(), "C:\\x $A ` $");
}

#[test]
fn defaults_and_alternatives_are_chosen() {
    check("${A:-x}${E:-x}${Z:-x}", "onexx");
    check("${A-x}${E-x}${Z-x}", "onex");
    check("${A:+x}${E:+x}${Z:+x}", "x");
    check("${A+x}${E+x}${Z+x}", "xx");
    check("${Z:-${Y:-$A}}-${Z:-a b}", "one-a b");
    check("${Z:-\"}\"}${Z:-\\}}", "}}");
    check("${A:?x}${E?x}", "one");
    check("${Z:-}", "");
}

#[test]
fn parts_are_cut_and_replaced() {
    check("${P#*/} ${P##*/}", "usr/lib/a.tar.gz a.tar.gz");
    check("${P%.*} ${P%%.*}", "/usr/lib/a.tar /usr/lib/a");
    check("${P/lib/x} ${P//\\//-}", "/usr/x/a.tar.gz -usr-lib-a.tar.gz");
    check("${P//a?/'<$0>'} ${P//a?/<$0>}", "/usr/lib/<a.>t<ar>.gz /usr/lib/<>t<>.gz");
    check("${P#/$Z'usr'}", "/lib/a.tar.gz");
    check("${Z#x}${Z/x/y}${Z//x/y}", "");
    check("${A##}${A#}", "oneone");
}

#[test]
fn mistakes_are_explained() {
    check_error("'a", "the quote ' is not closed");
    check_error("\"a", "the quote \" is not closed");
    for open in ["${", "${A", "${A:-x", "${A:", "${A#x", "${A/x/y"] {
        check_error(open, "a `}` is missing after `${`");
    }
    check_error("${A/x}", "two slashes");
    for nameless in ["${}", "${:-x}", "${{A}}"] {
        check_error(nameless, "bad substitution");
    }
    check_error("${A=x}", "`=`");
    check_error("${A:xyz}", "`:x`");
    check_error("${A:#x}", "`:#`");
    check_error("${.}", "`.`");
    check_error("${Z?}", "the variable `Z` is not set, but must be");
    check_error("${Z:?tell me}", "the variable `Z` is not set: tell me");
    check_error("${E:?$A}", "the variable `E` is empty: one");
    check_error("${A#\\x}", "the pattern `\\x` is not valid");
}

#[test]
fn what_a_text_costs_is_bounded() {
    let nested = |depth| "${Z:-".repeat(depth) + &"}".repeat(depth);
    check(&nested(NESTING_MAX), "");
    check_error(&nested(NESTING_MAX + 1), "inside each other");
    check_error(&"${Z:-".repeat(1_000_000), "inside each other");
    let long = "x".repeat(GROWTH_BYTES_MAX / 2);
    let lookup = |name: &str| (name == "L").then_some(long.as_str());
    let mut expander = Expander::new(Escape::Backslash, &lookup);
    assert!(expander.word(&Word::new("$L$L")).is_ok());
    let error = expander.word(&Word::new("$L$L$L")).unwrap_err();
    assert_eq!(error.why, ExpandProblem::TooLong);
    let error = expander.word(&Word::new("${L//x/yyyyyyyy}")).unwrap_err();
    assert_eq!(error.why, ExpandProblem::TooLong);
}

#[test]
fn names_are_remembered() {
    let mut expander = expander();
    expander.word(&Word::new("$A ${Z:-$B} ${Y+$X}")).unwrap();
    expander.words(&Word::new("$W")).unwrap();
    let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(names(expander.used()), "A B");
    assert_eq!(names(expander.missing()), "X Y Z");
}

#[test]
fn words_are_split_after_expansion() {
    let check = |text: &str, expect: &[&str]| {
        assert_eq!(expander().words(&Word::new(text)).unwrap(), expect, "{text}");
    };
    check("80", &["80"]);
    check("$B \"$B\" a'b c'", &["two", "words", "two words", "ab c"]);
    check("x${B}y", &["xtwo", "wordsy"]);
    check("$E$Z \"\"", &[]);
    check("a\\ b", &["a b"]);
    // The word that was begun is lost at a modifier, as in BuildKit.
    check("80${Z:-81}", &["81"]);
}

#[test]
fn heredocs_keep_their_quotes() {
    let check = |text: &[u8], expect: &[u8]| {
        assert_eq!(expander().heredoc(text).unwrap(), expect);
    };
    check(b"\"$A\" '$A' \\$A \\n\\\\", b"\"one\" 'one' $A n\\");
    check(b"a\xff$A", "a\u{fffd}one".as_bytes());
}

#[test]
fn titles_stay_readable() {
    let title = |text, of| expander().title(text, of);
    assert_eq!(title("RUN echo \"$A\" $Z ${Z:-x}", Title::Command), "RUN echo \"one\" $Z ${Z:-x}");
    assert_eq!(title("COPY \"$A\" $Z/x", Title::Other), "COPY one /x");
    assert_eq!(title("RUN echo '", Title::Command), "RUN echo '");
}

/// A text, and what it should become.
#[derive(Debug, Clone)]
enum Piece {
    Plain(String),
    Escaped(char),
    Single(String),
    Double(Vec<Piece>),
    Name(usize, bool),
    /// `:-`, `-`, `:+` or `+`.
    Choice(usize, &'static str, Vec<Piece>),
}

const NAMES: [&str; 4] = ["A", "B", "E", "Z"];

fn render(pieces: &[Piece], out: &mut String) {
    for piece in pieces {
        match piece {
            Piece::Plain(text) => out.push_str(text),
            Piece::Escaped(c) => out.extend(['\\', *c]),
            Piece::Single(text) => out.push_str(&format!("'{text}'")),
            Piece::Double(inner) => {
                out.push('"');
                render(inner, out);
                out.push('"');
            }
            Piece::Name(at, true) => out.push_str(&format!("${{{}}}", NAMES[*at])),
            Piece::Name(at, false) => out.push_str(&format!("${}.", NAMES[*at])),
            Piece::Choice(at, sign, inner) => {
                out.push_str(&format!("${{{}{sign}", NAMES[*at]));
                render(inner, out);
                out.push('}');
            }
        }
    }
}

fn naive(pieces: &[Piece], out: &mut String) {
    for piece in pieces {
        match piece {
            Piece::Plain(text) | Piece::Single(text) => out.push_str(text),
            Piece::Escaped(c) => out.push(*c),
            Piece::Double(inner) => naive(inner, out),
            Piece::Name(at, braced) => {
                out.push_str(lookup(NAMES[*at]).unwrap_or_default());
                out.push_str(if *braced { "" } else { "." });
            }
            Piece::Choice(at, sign, inner) => {
                let value = lookup(NAMES[*at]).filter(|v| !sign.starts_with(':') || !v.is_empty());
                match (value, sign.ends_with('-')) {
                    (Some(value), true) => out.push_str(value),
                    (None, true) | (Some(_), false) => naive(inner, out),
                    (None, false) => {}
                }
            }
        }
    }
}

fn piece() -> impl Strategy<Value = Piece> {
    let simple = prop_oneof![
        "[a-zé /:.]{0,4}".prop_map(Piece::Plain),
        prop::sample::select(vec!['$', '\\', '"', '\'', '}', 'x', ' ']).prop_map(Piece::Escaped),
        "[a-z$\"}\\\\ ]{0,4}".prop_map(Piece::Single),
        (0..NAMES.len(), any::<bool>()).prop_map(|(at, braced)| Piece::Name(at, braced)),
    ];
    let in_quotes = prop_oneof![
        "[a-zé '/:.]{0,4}".prop_map(Piece::Plain),
        prop::sample::select(vec!['$', '\\', '"']).prop_map(Piece::Escaped),
        (0..NAMES.len(), any::<bool>()).prop_map(|(at, braced)| Piece::Name(at, braced)),
    ];
    let quoted = prop::collection::vec(in_quotes, 0..4).prop_map(Piece::Double);
    prop_oneof![3 => simple, 1 => quoted].prop_recursive(4, 24, 4, |inner| {
        let signs = prop::sample::select(vec![":-", "-", ":+", "+"]);
        (0..NAMES.len(), signs, prop::collection::vec(inner, 0..4))
            .prop_map(|(at, sign, inner)| Piece::Choice(at, sign, inner))
    })
}

proptest! {
    #[test]
    fn texts_become_what_they_were_made_of(pieces in prop::collection::vec(piece(), 0..6)) {
        let (mut text, mut expect) = (String::new(), String::new());
        render(&pieces, &mut text);
        naive(&pieces, &mut expect);
        prop_assert_eq!(expander().word(&Word::new(&text)), Ok(expect), "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[$A-Z{}:+?#%/'\"\\\\<a *é\u{feff}-]{0,40}", other: String) {
        for text in [text, other] {
            let mut expander = expander();
            let word = Word::new(text);
            let _ = expander.word(&word);
            let _ = expander.words(&word);
            let _ = expander.heredoc(word.raw().as_bytes());
            expander.title(word.raw(), Title::Command);
            raw_words(word.raw());
            let _ = name_words(word.raw());
        }
    }
}
