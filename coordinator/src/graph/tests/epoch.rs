//! `SOURCE_DATE_EPOCH` that names a stage.

use super::*;
use proto::wire::worker::Dated;

const COMMIT: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

/// Lowers; answers the time of the target, and what was looked up for it. The file `dated` says when
/// it was changed, the archive `a.tar` has newer files in it, and all else has no time.
fn epoch_of(text: &str, request: &BuildRequest) -> Result<(Option<i64>, Vec<Wanted>), LowerError> {
    let dockerfile = parse(text.as_bytes(), "Dockerfile").expect("a Dockerfile");
    let platform = Platform::parse("linux/amd64").expect("a platform");
    let (mut found, mut asked) = (Found::default(), Vec::new());
    loop {
        let inputs =
            Inputs { dockerfile: &dockerfile, request, build_platform: &platform, found: &found };
        let needs = match lower(inputs, &mut Vec::new())? {
            Lowered::Draft(draft) => return Ok((draft.graph.targets[0].epoch, asked)),
            Lowered::Needs(needs) => needs,
        };
        for need in needs {
            assert!(need.at.is_some(), "{need:?} has no place");
            asked.push(need.what.clone());
            match need.what {
                Wanted::File { url } => {
                    let digest = OciDigest::from_bytes(*blake3::hash(url.as_bytes()).as_bytes());
                    let modified = url.ends_with("dated").then_some(7);
                    found.files.insert(url, FoundFile { digest, name: None, modified });
                }
                Wanted::Commit { remote, reference } => {
                    found.commits.insert((remote, reference), COMMIT.to_owned());
                }
                Wanted::Time(of) => {
                    let time = match &of {
                        Dated::Archive { url, .. } => url.ends_with("a.tar").then_some(8),
                        Dated::Commit { .. } => Some(9),
                    };
                    found.times.insert(of, time);
                }
                other => panic!("{other:?} is not needed"),
            }
        }
    }
}

#[track_caller]
fn check_epoch(stage: &str, expected: Option<i64>) {
    let text = format!("ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\n{stage}FROM scratch\n");
    assert_eq!(epoch_of(&text, &request()).expect("a time").0, expected, "{text}");
}

#[track_caller]
fn check_refused(stage: &str, with: &str, line: u32) {
    let text = format!("ARG SOURCE_DATE_EPOCH=src\n{stage}FROM scratch\n");
    let error = epoch_of(&text, &request()).expect_err("a stage without a time");
    assert!(error.to_string().contains(with), "{error}");
    assert_eq!(error.at.as_ref().map(|at| at.first_line), Some(line), "{error}");
}

#[test]
fn a_stage_has_the_time_of_what_it_fetches() {
    check_epoch("ADD https://h/dated /\n", Some(7));
    check_epoch("ADD https://h/a.tar /\n", Some(8));
    check_epoch("ADD https://h/file /\n", None);
    check_epoch("ADD https://h/r.git#main:sub /\n", Some(9));
    check_epoch("ARG NAME=dated\nADD https://h/$NAME /\n", Some(7));
}

#[test]
fn only_what_a_time_needs_is_looked_up() {
    let text = "FROM scratch AS Src\nADD https://h/r.git /\nFROM scratch\nARG SOURCE_DATE_EPOCH\n\
                ENV E=$SOURCE_DATE_EPOCH\n";
    let mut request = request();
    request.build_args.push(("SOURCE_DATE_EPOCH".to_owned(), "SRC".to_owned()));
    let (epoch, asked) = epoch_of(text, &request).expect("a time");
    assert_eq!(epoch, Some(9));
    let remote = "https://h/r.git".to_owned();
    let commit = Wanted::Commit { remote: remote.clone(), reference: String::new() };
    let time = Wanted::Time(Dated::Commit { remote, commit: COMMIT.to_owned() });
    assert_eq!(asked, [commit, time]);
    // A context of that name comes first.
    request.contexts.push(("SRC".to_owned(), NamedContext::Local));
    request.context_times.push(("SRC".to_owned(), 5));
    assert_eq!(epoch_of(text, &request).expect("a time"), (Some(5), Vec::new()));
}

#[test]
fn what_a_stage_with_a_time_sees_of_args() {
    let text = "ARG SOURCE_DATE_EPOCH=src\nARG HOST=h\nFROM scratch AS src\n\
                ARG NAME=file\nARG HOST\nADD http://$HOST/$NAME$SOURCE_DATE_EPOCH /\nFROM scratch\n";
    let mut request = request();
    let asked = |request: &BuildRequest| match &epoch_of(text, request).expect("a time").1[0] {
        Wanted::File { url } => url.clone(),
        other => panic!("{other:?} is no file"),
    };
    assert_eq!(asked(&request), "http://h/file");
    request.build_args.push(("NAME".to_owned(), "dated".to_owned()));
    assert_eq!(asked(&request), "http://h/dated");
}

#[test]
fn stages_that_do_more_than_fetch_one_thing_have_no_time() {
    let of = |text: &str| format!("FROM scratch AS src\n{text}");
    check_refused("FROM a AS src\nADD https://h/f /\n", "it begins with `FROM a`", 2);
    check_refused(&of(""), "it has no ADD", 2);
    check_refused(&of("ADD https://h/f /\nENV A=1\n"), "it has the instruction ENV", 4);
    check_refused(&of("ADD https://h/f /\nADD https://h/g /\n"), "it has a second ADD", 4);
    check_refused(&of("ADD https://h/f https://h/g /\n"), "does not have one source", 3);
    check_refused(&of("ADD <<A /\na\nA\n"), "does not have one source", 3);
    check_refused(&of("ADD file /\n"), "`file`, which is no URL", 3);
    check_refused(&of("ADD https://h/r.git?x=1 /\n"), "no parameter `x`", 3);
    let wrong = format!("ADD --checksum=sha256:{} https://h/f /\n", "1".repeat(64));
    check_refused(&of(&wrong), "--checksum says sha256:1111", 3);
    check_refused(&of("ADD --checksum=beef https://h/r.git /\n"), "the commit is c0ffee", 3);
}

#[test]
fn whoever_only_looks_needs_no_time() {
    let text = "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD https://h/f /\nFROM scratch\n";
    let dockerfile = parse(text.as_bytes(), "Dockerfile").expect("a Dockerfile");
    let (request, found) = (request(), Found::default());
    let build_platform = &Platform::parse("linux/amd64").expect("a platform");
    let inputs =
        Inputs { dockerfile: &dockerfile, request: &request, build_platform, found: &found };
    assert_eq!(crate::graph::survey::check(inputs).error, None);
}
