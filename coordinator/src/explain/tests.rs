//! Two builds are compared: what differs is named.

use super::trace::TraceError;
use super::*;
use crate::core::plan::{Imports, Owner, Plan};
use crate::dockerfile::parse;
use crate::graph::keys::{self, Joined, Selections, local_inputs};
use crate::graph::{Found, FoundFile, Inputs, Lowered, Wanted, lower};
use proptest::prelude::*;
use proto::id::{BuildId, ContentDigest, Millis, OciDigest, RootId, Scope, TreeId};
use proto::platform::Platform;
use proto::step::{ImageOp, ImageOrigin};
use proto::wire::build::{BuildRequest, NoCache, Output, Resources};
use proto::wire::worker::ResolvedImage;

/// What a build is given.
#[derive(Debug, Clone)]
struct Given {
    dockerfile: String,
    args: Vec<(String, String)>,
    /// Stands for the files of the context.
    files: u8,
    /// Stands for the content of images, URLs and repositories.
    outside: u8,
    no_cache: bool,
    verdict: Verdict,
    roots: u8,
}

fn given(dockerfile: &str) -> Given {
    Given {
        dockerfile: dockerfile.to_owned(),
        args: Vec::new(),
        files: 1,
        outside: 1,
        no_cache: false,
        verdict: Verdict::Made,
        roots: 1,
    }
}

fn request(given: &Given) -> BuildRequest {
    BuildRequest {
        dockerfile_name: "Dockerfile".into(),
        build_args: given.args.clone(),
        no_cache: if given.no_cache { NoCache::All } else { NoCache::No },
        has_context: true,
        outputs: vec![Output::CacheOnly],
        ..BuildRequest::default()
    }
}

fn find(found: &mut Found, wanted: Wanted, outside: u8) {
    match wanted {
        Wanted::Image { reference, platform } => {
            let hash = blake3::hash(format!("{reference} {outside}").as_bytes());
            let op = ImageOp {
                reference: reference.clone(),
                manifest: OciDigest::from_bytes(*hash.as_bytes()),
                origin: ImageOrigin::Registry,
            };
            let config = r#"{"os":"linux","architecture":"amd64","config":{}}"#.to_owned();
            let image =
                ResolvedImage { op, platform: platform.clone(), config, layers: Vec::new() };
            found.images.insert((reference, platform), image);
        }
        Wanted::File { url } => {
            let digest = OciDigest::from_bytes([outside; 32]);
            found.files.insert(url, FoundFile { digest, name: None, modified: None });
        }
        Wanted::Commit { remote, reference } => {
            found.commits.insert((remote, reference), format!("{outside:040}"));
        }
        Wanted::Time(_) => unreachable!("no Dockerfile here asks for a time"),
        Wanted::Layout { .. } => unreachable!("no Dockerfile here has a layout"),
    }
}

/// What is kept of a build.
fn build(given: &Given, number: u64) -> Trace {
    let dockerfile = parse(given.dockerfile.as_bytes(), "Dockerfile").expect("a Dockerfile");
    let (request, platform) = (request(given), Platform::parse("linux/amd64").unwrap());
    let mut found = Found::default();
    let draft = loop {
        let (request, build_platform) = (&request, &platform);
        let inputs = Inputs { dockerfile: &dockerfile, request, build_platform, found: &found };
        match lower(inputs, &mut Vec::new()).expect("a Dockerfile that can be lowered") {
            Lowered::Draft(draft) => break draft,
            Lowered::Needs(needs) => {
                needs.into_iter().for_each(|need| find(&mut found, need.what, given.outside));
            }
        }
    };
    let root = RootId(TreeId::from_bytes([given.files; 32]));
    let roots = draft.locals.keys().map(|name| (name.clone(), root)).collect();
    let graph = draft.finish(&roots);
    let digest = ContentDigest::from_bytes([given.files; 32]);
    let selections: Selections = local_inputs(&graph).into_iter().map(|at| (at, digest)).collect();
    let plan = Plan {
        keys: keys::keys(&graph, &selections, &number.to_string(), Joined::WithOthers),
        graph,
        scope: Scope::trusted(),
        owner: Owner::only(),
        roots: false,
        priority: 0,
        resources: Resources::default(),
        imports: Imports::None,
    };
    let around = Around {
        dockerfile: Some(&dockerfile),
        selections: Some(&selections),
        verdict: &|_| given.verdict,
        roots: &|_| Some(vec![RootId(TreeId::from_bytes([given.roots; 32]))]),
    };
    trace(BuildId::parse("abcdefgh").unwrap(), Millis(number), &plan, &around)
}

/// Why the step whose name contains `step` ran in the second of two builds.
fn why(before: &Given, now: &Given, step: &str) -> Difference {
    let (before, now) = (build(before, 1), build(now, 2));
    let earlier = rank(vec![before], &now);
    let step = now.steps.iter().position(|s| s.name.contains(step)).expect("a step of that name");
    let at = At { trace: &now, step };
    compare(counterpart(&earlier, at), at, None)
}

#[track_caller]
fn says(before: &Given, now: &Given, step: &str, reason: &str, sentence: &str) {
    let difference = why(before, now, step);
    assert_eq!((difference.reason(), difference.to_string().as_str()), (reason, sentence));
}

const FILE: &str = "\
FROM a AS base
RUN first
FROM base AS build
ARG VERSION=1
ENV MODE=fast
WORKDIR /src
COPY . .
RUN make
FROM c
COPY --from=build /out /out
";

#[test]
fn the_command_comes_first() {
    let (one, two) = (given(FILE), given(&FILE.replace("RUN make", "RUN make all")));
    says(&one, &two, "RUN make", "command", "its command has another text");
    let two = given(&FILE.replace("COPY . .\nRUN make", "RUN make\nCOPY . ."));
    says(&one, &two, "COPY . .", "step", "its input `[build 2/3] RUN make` is another one");
    let two = given(&FILE.replace("RUN make", "COPY more ."));
    says(&one, &two, "COPY more", "instruction", "another instruction stood in its place");
}

#[test]
fn variables_are_named_with_what_sets_them() {
    let one = given(FILE);
    let mut two = one.clone();
    two.args = vec![("VERSION".into(), "2".into())];
    says(&one, &two, "RUN make", "arg", "the ARG VERSION has another value");
    let two = given(&FILE.replace("MODE=fast", "MODE=slow"));
    says(&one, &two, "RUN make", "env", "the ENV MODE has another value");
    let two = given(&FILE.replace("ENV MODE=fast", "ENV MODE=fast A=1"));
    says(&one, &two, "RUN make", "env", "the ENV A is new");
    says(&two, &one, "RUN make", "env", "the ENV A is gone");
    let kept = build(&two, 1);
    let variable = kept.variables.iter().find(|variable| variable.name == "MODE").unwrap();
    assert_eq!(variable.value, *blake3::hash(b"fast").as_bytes());
    let bytes = kept.to_bytes(usize::MAX).unwrap();
    assert!(!bytes.windows(4).any(|window| window == b"fast"), "no value is kept");
}

#[test]
fn inputs_are_named() {
    let one = given(FILE);
    let mut two = one.clone();
    two.files = 2;
    let Difference::Files(trees) = why(&one, &two, "COPY . .") else { panic!("files") };
    assert_eq!((trees.of.as_str(), trees.place), ("the context", 1));
    let root = |byte| RootId(TreeId::from_bytes([byte; 32]));
    assert_eq!(trees.roots, Some((root(1), root(2))));
    says(&one, &two, "RUN make", "step", "its input `[build 2/3] COPY . .` is another one");
    let name = "its input `[build 3/3] RUN make` is another one";
    says(&one, &two, "COPY --from=build", "files", name);
    says(
        &one,
        &two,
        "WORKDIR",
        "gone",
        "nothing differs, but its earlier result is not kept any more",
    );
}

#[test]
fn images_and_other_sources_are_named() {
    let text = "FROM a\nRUN x\nADD https://h/f https://h/r.git#main /d/\nCOPY <<t /t\nhi\nt\n";
    let one = given(text);
    let mut two = one.clone();
    two.outside = 2;
    let Difference::Image { is_base: true, before: None, now, digests } = why(&one, &two, "RUN x")
    else {
        panic!("an image")
    };
    assert_eq!(now, "docker.io/library/a:latest");
    assert!(digests.0 != digests.1 && digests.0.starts_with("sha256:"));
    assert_eq!(why(&one, &two, "FROM ").reason(), "base");
    let other = given(&text.replace("FROM a", "FROM b"));
    let sentence = why(&one, &other, "RUN x").to_string();
    assert!(sentence.contains("b:latest") && sentence.contains("was docker.io/library/a:latest"));
    let text = text.replace("FROM a\nRUN x", "FROM scratch");
    let (one, mut two) = (given(&text), given(&text));
    two.outside = 2;
    says(&one, &two, "ADD", "download", "https://h/f has other bytes");
    let two = given(&text.replace("hi", "ho"));
    says(&one, &two, "COPY", "heredoc", "the heredoc t has another text");
    let text = text.replace("https://h/f ", "");
    let (one, mut two) = (given(&text), given(&text));
    two.outside = 2;
    assert_eq!(why(&one, &two, "ADD").reason(), "commit");
}

#[test]
fn options_and_mounts_are_named() {
    let one = given("FROM a\nRUN x\nCOPY a /b\n");
    let two = given("FROM a\nUSER u\nRUN x\nCOPY a /b\n");
    says(&one, &two, "RUN x", "text", "it runs as another user");
    let two = given("FROM a\nRUN --mount=type=secret,id=s x\nCOPY --chmod=700 a /b\n");
    says(&one, &two, "RUN", "text", "it has other mounts");
    says(&one, &two, "COPY", "text", "its --chmod is another one");
}

#[test]
fn what_does_not_differ_is_said_too() {
    let one = given("FROM a\nRUN x\n");
    let mut two = one.clone();
    two.no_cache = true;
    says(&one, &two, "RUN x", "no-cache", "it was to take no earlier result (--no-cache)");
    let mut two = one.clone();
    two.roots = 2;
    let difference = why(&one, &two, "RUN x");
    assert!(matches!(&difference, Difference::Anew(name) if name.contains("FROM")), "{difference}");
    let mut broken = one.clone();
    broken.verdict = Verdict::Broken;
    says(&broken, &one, "RUN x", "broken", "it came to no good end before");
    says(&given("FROM z\nRUN y\n"), &one, "RUN x", "new", "nothing like it was built before");
}

#[test]
fn the_nearest_build_is_the_one_with_most_in_common_and_the_latest_of_those() {
    let now = build(&given(FILE), 9);
    let other = build(&given("FROM a AS base\nRUN first\n"), 8);
    let (first, second) = (build(&given(FILE), 1), build(&given(FILE), 2));
    let far = build(&given("FROM z\n"), 7);
    let ranked = rank(vec![other, first, far, second], &now);
    assert_eq!(ranked.iter().map(|t| t.started.0).collect::<Vec<_>>(), [2, 1, 8]);
}

#[test]
fn a_step_is_compared_with_the_one_that_differs_least() {
    let slow = given(&FILE.replace("MODE=fast", "MODE=slow"));
    let (first, mut second) = (build(&given(FILE), 1), given(FILE));
    second.args = vec![("VERSION".into(), "2".into())];
    let now = build(&slow, 3);
    let earlier = rank(vec![first, build(&second, 2)], &now);
    let step = now.steps.iter().position(|step| step.name.contains("RUN make")).unwrap();
    let at = At { trace: &now, step };
    let difference = compare(counterpart(&earlier, at), at, None);
    assert_eq!(difference.to_string(), "the ENV MODE has another value");
}

#[test]
fn a_trace_is_read_as_it_was_written_or_not_at_all() {
    let kept = build(&given(FILE), 1);
    let bytes = kept.to_bytes(usize::MAX).unwrap();
    assert_eq!(Trace::from_bytes(&bytes), Ok(kept.clone()));
    let short = Trace::from_bytes(&kept.to_bytes(bytes.len() / 2).unwrap()).unwrap();
    assert!(short.steps.len() < kept.steps.len() && !short.steps.is_empty());
    assert_eq!(short.steps, kept.steps[..short.steps.len()]);
    let least = Trace::from_bytes(&kept.to_bytes(0).unwrap()).unwrap();
    assert!(least.steps.is_empty() && least.variables.is_empty());
    assert_eq!(Trace::from_bytes(&[]), Err(TraceError::Version));
    assert!(Trace::from_bytes(&bytes[..bytes.len() / 2]).is_err());
    let mut wrong = kept;
    wrong.steps[0].variables = vec![7_000];
    assert!(Trace::from_bytes(&wrong.to_bytes(usize::MAX).unwrap()).is_err());
}

fn lines() -> impl Strategy<Value = Vec<&'static str>> {
    let line = prop::sample::select(vec![
        "RUN make",
        "RUN test",
        "COPY . /src",
        "COPY a b /d/",
        "WORKDIR /w",
        "ENV A=1",
        "ENV A=2",
        "ARG B=1",
        "USER u",
        "COPY --from=other /x /x",
        "RUN --mount=type=bind,from=other,target=/o make",
        "COPY --link c /c",
    ]);
    prop::collection::vec(line, 0..8)
}

fn builds() -> impl Strategy<Value = Given> {
    (lines(), lines(), 1u8..3, 1u8..3).prop_map(|(other, own, files, outside)| {
        let other: Vec<_> = other.into_iter().filter(|line| !line.contains("other")).collect();
        let text = format!("FROM o AS other\n{}\nFROM a\n{}\n", other.join("\n"), own.join("\n"));
        Given { files, outside, ..given(&text) }
    })
}

proptest! {
    #[test]
    fn a_difference_is_found_just_when_definitions_differ(before in builds(), now in builds()) {
        let (before, now) = (build(&before, 1), build(&now, 2));
        let earlier = rank(vec![before], &now);
        for step in 0..now.steps.len() {
            let at = At { trace: &now, step };
            if now.steps[step].name.is_empty() {
                continue;
            }
            let other = counterpart(&earlier, at);
            let difference = compare(other, at, None);
            prop_assert!(!difference.to_string().is_empty());
            match other {
                None => prop_assert_eq!(difference, Difference::New),
                Some(other) => {
                    let is_same = other.sketch().key == now.steps[step].key;
                    prop_assert_eq!(difference == Difference::Gone, is_same, "{}", difference);
                }
            }
        }
    }

    #[test]
    fn nothing_differs_from_itself(given in builds()) {
        let (before, now) = (build(&given, 1), build(&given, 2));
        let earlier = rank(vec![before], &now);
        for step in 0..now.steps.len() {
            let at = At { trace: &now, step };
            if let Some(other) = counterpart(&earlier, at) {
                prop_assert_eq!(&other.sketch().name, &at.sketch().name);
                prop_assert_eq!(compare(Some(other), at, None), Difference::Gone);
            }
        }
    }

    #[test]
    fn no_bytes_are_too_bad_to_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Trace::from_bytes(&bytes);
        let _ = Trace::from_bytes(&[&[1], &bytes[..]].concat());
    }
}
