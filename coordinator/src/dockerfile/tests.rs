use super::*;
use proptest::prelude::*;
use proto::limit::DOCKERFILE_LINE_BYTES_MAX;

fn read(text: &str) -> Dockerfile {
    parse(text.as_bytes(), "Dockerfile").unwrap()
}

fn check_error(text: &[u8], line: Option<u32>, expect: &str) {
    let error = parse(text, "Dockerfile").unwrap_err();
    assert_eq!(error.at.as_ref().map(|at| at.first_line), line, "{error}");
    assert!(error.to_string().contains(expect), "{error}");
}

#[test]
fn a_file_becomes_stages() {
    let file = read(
        "# syntax=docker/dockerfile:1\n# escape=`\n\n# V is for version\nARG V=1 W\n\
         # build compiles\nFROM --platform=$BUILDPLATFORM golang:${V} AS Build\nRUN a `\n b\n\n\
         from scratch\nCOPY --from=build /x /x\n",
    );
    assert_eq!(file.syntax.as_deref(), Some("docker/dockerfile:1"));
    assert_eq!(file.escape, Escape::Backtick);
    assert_eq!(file.args[0].items[0].doc.as_deref(), Some("is for version"));
    assert_eq!(file.args[0].items[1].default, None);
    let [build, last] = file.stages.as_slice() else { panic!() };
    let name = build.name.as_ref().unwrap();
    assert_eq!((name.lower.as_str(), name.written.as_str()), ("build", "Build"));
    assert_eq!(build.base.raw(), "golang:${V}");
    assert_eq!(build.platform.as_ref().map(Word::raw), Some("$BUILDPLATFORM"));
    assert_eq!(build.doc.as_deref(), Some("compiles"));
    assert_eq!(build.keywords, ("FROM".to_owned(), Some("AS".to_owned())));
    assert_eq!(build.instructions[0].at, range("Dockerfile", 8, 9));
    assert_eq!(build.instructions[0].text, "RUN a  b");
    assert_eq!((last.name.as_ref(), last.keywords.1.as_ref()), (None, None));
    assert_eq!(file.stage_named("BUILD"), Some(0));
    assert_eq!(file.stage_named("0"), None);
}

#[test]
fn what_stands_before_an_error_is_read() {
    let of = |text: &str| super::read(text.as_bytes(), "Dockerfile");
    let found = of("FROM a AS b\nRUN x\n# about it\nMAINTAINER\nRUN y\n");
    assert_eq!(found.dockerfile.stages[0].instructions.len(), 1);
    assert_eq!(found.error.unwrap().problem, Problem::OneArgument("MAINTAINER"));
    let failed = found.failed.unwrap();
    assert_eq!((failed.keyword.as_str(), failed.at.first_line), ("MAINTAINER", 4));
    assert_eq!((failed.comments, failed.words), (vec!["about it".to_owned()], Vec::new()));
    let failed = of("FROM --platform=x a as 9B\n").failed.unwrap();
    assert_eq!(failed.words, ["a", "as", "9B"]);
    // Lines are cut into words before any is understood.
    assert_eq!(of("FROM a\nENV b\n").failed, None);
    let found = of("ARG a=1\n");
    assert_eq!((found.dockerfile.stages.len(), found.error), (0, None));
}

#[test]
fn a_wrong_check_directive_is_kept_for_who_needs_it() {
    let file = read("# check=what\nFROM a\n");
    let error = file.checks.unwrap_err();
    assert!(matches!(error.problem, Problem::Check(_)), "{error}");
    assert_eq!(error.at.map(|at| at.first_line), Some(1));
}

#[test]
fn the_last_stage_of_a_name_is_found() {
    let file = read("FROM a AS x\nFROM b AS X\nFROM c");
    assert_eq!(file.stage_named("x"), Some(1));
    assert_eq!(file.stages_by_name().into_iter().collect::<Vec<_>>(), [("x", 1)]);
}

#[test]
fn a_file_that_builds_nothing_is_refused() {
    check_error(b"", None, "is empty");
    check_error(b"# only\n\n", Some(2), "no instruction");
    check_error(b"ARG a=1", None, "no FROM");
    check_error(b"RUN a", Some(1), "before the first FROM");
    check_error(b"FROM a\nRUN\tb\nFOO c", Some(3), "`FOO`");
    check_error(b"FROM", Some(1), "FROM needs one argument");
    check_error(b"FROM a b", Some(1), "FROM needs one argument");
    check_error(b"FROM a AS b c", Some(1), "FROM needs one argument");
    check_error(b"FROM a AS 1b", Some(1), "`1b`");
    check_error("FROM a AS bé".as_bytes(), Some(1), "`bé`");
    check_error(b"FROM --nosuch=1 a", Some(1), "`--nosuch`");
    check_error(b"FROM a\nENV b=\xff", Some(2), "UTF-8");
    check_error(b"FROM a\nRUN b\0", Some(2), "NUL");
}

#[test]
fn bytes_in_comments_may_be_any() {
    let file = parse(b"# \xff\0\nFROM a\n# \xfe\nRUN b \\\n# \xff\n c", "f").unwrap();
    assert_eq!(file.stages[0].instructions[0].text, "RUN b  c");
}

#[test]
fn instructions_have_titles() {
    let file = read("FROM a\nrun make $V $W\nCOPY \"$V\" /x\nRUN <<E\n\nfirst\nsecond\nE\n");
    let lookup = |name: &str| (name == "V").then_some("1");
    let expander = Expander::new(file.escape, &lookup);
    let titles = file.stages[0].instructions.iter().map(|i| i.title(&expander));
    let expect = ["RUN make 1 $W", "COPY 1 /x", "RUN <<E (first...)"];
    assert_eq!(titles.collect::<Vec<_>>(), expect);
}

#[test]
fn what_a_file_may_be_is_bounded() {
    let big = vec![b'x'; 50 << 20];
    check_error(&big, None, "at most");
    let line = format!("FROM a\nRUN {}\n", "x".repeat(DOCKERFILE_LINE_BYTES_MAX));
    check_error(line.as_bytes(), Some(2), "too long");
    let many = "FROM a\n".to_owned() + &"RUN\n".repeat(DOCKERFILE_INSTRUCTIONS_MAX);
    check_error(many.as_bytes(), Some(DOCKERFILE_INSTRUCTIONS_MAX as u32 + 1), "more than");
    let words = format!("FROM a\nEXPOSE \\\n{}", "1 \\\n".repeat(200_000));
    check_error(words.as_bytes(), Some(2), "words");
}

#[test]
fn large_files_are_read() {
    let stages: String =
        (0..5000).map(|i| format!("FROM a AS s{i}\nCOPY --from=s{} /x /x\n", i / 2)).collect();
    assert_eq!(read(&stages).stages.len(), 5000);
    // 15 MB in one instruction, in one heredoc and in comments.
    let long = "x".repeat(60_000);
    let lines = |line: &str| format!("{line}{long}\n").repeat(250);
    let joined = format!("FROM a\nRUN {}", lines("").replace('\n', " \\\n"));
    assert_eq!(read(&joined).stages[0].instructions[0].text.len(), 4 + 250 * 60_001 - 1);
    let heredoc = format!("FROM a\nCOPY <<E /x\n{}E\n", lines(""));
    assert_eq!(read(&heredoc).stages[0].instructions[0].at.last_line, 253);
    assert_eq!(read(&format!("FROM a\n{}RUN b", lines("# "))).stages[0].instructions.len(), 1);
    let described = format!("FROM a\n{}ARG {}", "# b c\n".repeat(500_000), "a ".repeat(20_000));
    assert_eq!(read(&described).stages[0].instructions.len(), 1);
    let onbuild = format!("FROM a\n{}", "ONBUILD RUN b\n".repeat(50_000));
    assert_eq!(read(&onbuild).stages[0].instructions.len(), 50_000);
}

/// A line, and how many instructions it holds.
fn line() -> impl Strategy<Value = String> {
    let word = "[a-zA-Z0-9][a-zA-Z0-9$_./:-]{0,7}";
    prop_oneof![
        word.prop_map(|w| format!("RUN echo {w}")),
        (word, word).prop_map(|(a, b)| format!("run {a} \\\n  # comment\n\n  && {b}")),
        (word, word).prop_map(|(a, b)| format!("ENV A{a}=\"{b} x\" C='{a}'")),
        (word, word).prop_map(|(a, b)| format!("COPY ./{a} x{b} /dest/")),
        word.prop_map(|w| format!("COPY <<EOF /x{w}\n{w}\n  \"text\"\nEOF")),
        word.prop_map(|w| format!("RUN <<-'E F' sh\n\t{w}\n\tE F")),
        word.prop_map(|w| format!("CMD [\"{w}\", \"b\"]")),
        word.prop_map(|w| format!("ARG X{w}")),
        word.prop_map(|w| format!("WORKDIR /{w}")),
        word.prop_map(|w| format!("ONBUILD RUN {w}")),
    ]
}

proptest! {
    #[test]
    fn every_instruction_is_found_at_its_place(
        stages in prop::collection::vec(prop::collection::vec(line(), 0..6), 1..5),
        crlf: bool,
    ) {
        let mut text = String::new();
        let mut places = Vec::new();
        for (at, lines) in stages.iter().enumerate() {
            text.push_str(&format!("FROM base AS s{at}\n"));
            for line in lines {
                text.push_str(&format!("\n# about it\n{line}\n"));
                let last = text.matches('\n').count();
                places.push((last - line.matches('\n').count(), last));
            }
        }
        let text = if crlf { text.replace('\n', "\r\n") } else { text };
        let file = parse(text.as_bytes(), "f").unwrap();
        prop_assert_eq!(file.stages.len(), stages.len());
        let instructions = file.stages.iter().flat_map(|stage| &stage.instructions);
        let found: Vec<_> = instructions
            .map(|i| (i.at.first_line as usize, i.at.last_line as usize))
            .collect();
        prop_assert_eq!(found, places);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, text in "(?s)(FROM a\n)?([A-Z]{3,7} ?.{0,20}\n?){0,5}") {
        let _ = parse(&bytes, "f");
        let _ = directive::syntax(&bytes);
        let at = range("f", 1, 1);
        let _ = onbuild::parse_trigger(&text, &at);
        if let Err(error) = parse(text.as_bytes(), "f") {
            error.failure(text.as_bytes());
        }
        let known = build::NAMES[bytes.len() % build::NAMES.len()];
        let _ = parse(format!("FROM a\n{known} {text}").as_bytes(), "f");
    }
}
