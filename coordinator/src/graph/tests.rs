//! Lowering by example: what a Dockerfile becomes.

use super::keys::{Joined, keys, local_inputs};
use super::*;
use crate::dockerfile::parse;
use proto::id::{ContentDigest, OciDigest};
use proto::step::{ImageOp, ImageOrigin, MountKind};
use proto::wire::build::{Entitlement, NamedContext, NoCache, Output};

mod advice;
mod epoch;
mod survey;

fn request() -> BuildRequest {
    BuildRequest {
        dockerfile_name: "Dockerfile".into(),
        has_context: true,
        outputs: vec![Output::CacheOnly],
        ..BuildRequest::default()
    }
}

/// An image for each reference: its config says so, and has a trigger when the name says so.
fn image(reference: &str, platform: &Platform) -> ResolvedImage {
    let hash = blake3::hash(format!("{reference} {platform}").as_bytes());
    let trigger = match reference.contains("onbuild") {
        true => r#","OnBuild":["RUN triggered","COPY --from=tool /t /t"]"#,
        false => "",
    };
    let config = format!(
        r#"{{"os":"linux","architecture":"{}","config":{{"Env":["PATH=/bin","BASE=1"],
           "User":"app","WorkingDir":"/base","Cmd":["sh"]{trigger}}},
           "rootfs":{{"type":"layers","diff_ids":["sha256:x"]}},
           "history":[{{"created_by":"base"}}]}}"#,
        platform.arch
    );
    ResolvedImage {
        op: ImageOp {
            reference: reference.to_owned(),
            manifest: OciDigest::from_bytes(*hash.as_bytes()),
            origin: ImageOrigin::Registry,
        },
        platform: platform.clone(),
        config,
        layers: Vec::new(),
    }
}

/// Lowers, looking up all images that are needed.
fn lower_all(text: &str, request: &BuildRequest) -> Result<(Draft, Vec<String>), LowerError> {
    lower_with(text, request, &mut Vec::new())
}

/// As [`lower_all`], with the advice that came of it.
fn lower_with(
    text: &str,
    request: &BuildRequest,
    advice: &mut Vec<Warning>,
) -> Result<(Draft, Vec<String>), LowerError> {
    let dockerfile = parse(text.as_bytes(), "Dockerfile").expect("a Dockerfile");
    let platform = Platform::parse("linux/amd64").expect("a platform");
    let mut found = Found::default();
    let mut asked = Vec::new();
    loop {
        let inputs =
            Inputs { dockerfile: &dockerfile, request, build_platform: &platform, found: &found };
        match lower(inputs, advice)? {
            Lowered::Draft(draft) => return Ok((draft, asked)),
            Lowered::Needs(needs) => {
                for need in needs {
                    let (reference, platform) = match need.what {
                        Wanted::Image { reference, platform } => (reference, platform),
                        Wanted::Layout { context, platform } => {
                            (layout_reference(&context), platform)
                        }
                        other => panic!("an image, not {other:?}"),
                    };
                    asked.push(reference.clone());
                    let image = image(&reference, &platform);
                    found.images.insert((reference, platform), image);
                }
            }
        }
    }
}

fn graph_of(text: &str, request: &BuildRequest) -> Graph {
    let (draft, _) = lower_all(text, request).expect("a Dockerfile that can be lowered");
    let root = RootId(TreeId::from_bytes([9; 32]));
    let roots = draft.locals.keys().map(|name| (name.clone(), root)).collect();
    draft.finish(&roots)
}

/// The steps that people see, each with the numbers of its inputs.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    check_with(text, &request(), expected);
}

#[track_caller]
fn check_with(text: &str, request: &BuildRequest, expected: &[&str]) {
    let graph = graph_of(text, request);
    let seen = graph.steps.iter().filter(|s| !s.name.is_empty());
    let name = |s: &Step| s.name.split('@').next().unwrap_or_default().to_owned();
    assert_eq!(seen.map(name).collect::<Vec<_>>(), expected);
}

#[track_caller]
fn check_error(text: &str, request: &BuildRequest, with: &str, line: Option<u32>) {
    let error = lower_all(text, request).expect_err("a Dockerfile that cannot be lowered");
    assert!(error.to_string().contains(with), "{error}");
    assert_eq!(error.at.map(|at| at.first_line), line, "{}", error.problem);
}

#[test]
fn only_what_the_target_needs_is_looked_up_and_run() {
    let text = "\
        FROM unused AS never\nRUN exit 1\n\
        FROM a AS one\nRUN one\n\
        FROM b AS two\nCOPY --from=one /x /x\nRUN two\n\
        FROM c\nRUN three\n";
    let mut request = request();
    request.target = Some("TWO".into());
    let expected = [
        "[one 1/2] FROM docker.io/library/a:latest",
        "[one 2/2] RUN one",
        "[two 1/3] FROM docker.io/library/b:latest",
        "[two 2/3] COPY --from=one /x /x",
        "[two 3/3] RUN two",
    ];
    check_with(text, &request, &expected);
    let (_, asked) = lower_all(text, &request).unwrap();
    assert_eq!(asked, ["docker.io/library/a:latest", "docker.io/library/b:latest"]);
}

#[test]
fn a_single_stage_has_no_name() {
    check(
        "FROM a AS only\nWORKDIR sub\nRUN echo $BASE \"$NOT\"\n",
        &[
            "[1/3] FROM docker.io/library/a:latest",
            "[2/3] WORKDIR sub",
            "[3/3] RUN echo 1 \"$NOT\"",
        ],
    );
    check("FROM scratch\nLABEL a=b\n", &[]);
}

#[test]
fn stages_are_found_as_buildkit_finds_them() {
    // Numbers count stages; names do not mind their case; what is no stage is an image.
    check(
        "FROM a AS Base\nFROM b\nCOPY --from=0 /x /x\nCOPY --from=BASE /y /y\nCOPY --from=c /z /z\n",
        &[
            "FROM docker.io/library/c:latest",
            "[base 1/1] FROM docker.io/library/a:latest",
            "[stage-1 1/4] FROM docker.io/library/b:latest",
            "[stage-1 2/4] COPY --from=0 /x /x",
            "[stage-1 3/4] COPY --from=BASE /y /y",
            "[stage-1 4/4] COPY --from=c /z /z",
        ],
    );
    let none = request();
    check_error("FROM a\nCOPY --from=7 /x /x\n", &none, "index 7", Some(2));
    check_error("FROM a AS x\nCOPY --from=x /x /x\n", &none, "itself", Some(2));
    check_error(
        "FROM a AS x\nCOPY --from=y /x /x\nFROM a AS y\nCOPY --from=x / /\n",
        &none,
        "circle",
        Some(4),
    );
    let mut first = request();
    first.target = Some("x".into());
    let later = "FROM a AS x\nCOPY --from=y /x /x\nFROM a AS y\n";
    check_error(later, &first, "must be defined before", Some(2));
    first.target = Some("z".into());
    check_error(later, &first, "`z` was not found", None);
}

#[test]
fn triggers_come_first_and_once() {
    let text = "FROM tool AS tool\nRUN t\nFROM onbuild AS one\nRUN own\nFROM one\nRUN last\n";
    check(
        text,
        &[
            "[tool 1/2] FROM docker.io/library/tool:latest",
            "[tool 2/2] RUN t",
            "[one 1/4] FROM docker.io/library/onbuild:latest",
            "[one 2/4] ONBUILD RUN triggered",
            "[one 3/4] ONBUILD COPY --from=tool /t /t",
            "[one 4/4] RUN own",
            "[stage-2 1/1] RUN last",
        ],
    );
    let own = "FROM a AS one\nONBUILD RUN b\nFROM one\n";
    let graph = graph_of(own, &request());
    let config: config::ImageConfig = serde_json::from_str(&graph.targets[0].config).unwrap();
    assert_eq!(config.config.on_build, None);
    assert!(graph.steps.iter().any(|s| s.name == "[stage-1 1/1] ONBUILD RUN b"));
}

#[test]
fn the_environment_is_what_was_set_before() {
    let text = "ARG G=global\nFROM a\nARG G\nARG L=${G}-$BASE\nENV E=$L\nRUN x\nARG E=arg\nRUN y\n";
    let graph = graph_of(text, &request());
    let env = |name: &str| {
        let step = graph.steps.iter().find(|s| s.name.ends_with(name)).expect("a step");
        let Op::Run(run) = &step.op else { panic!("a RUN") };
        run.env.clone()
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let before = [
        pair("PATH", "/bin"),
        pair("BASE", "1"),
        pair("G", "global"),
        pair("L", "global-1"),
        pair("E", "global-1"),
    ];
    assert_eq!(env("RUN x"), before);
    // A later ARG counts for RUN, but not for the image.
    assert_eq!(env("RUN y")[4], pair("E", "arg"));
    let config: config::ImageConfig = serde_json::from_str(&graph.targets[0].config).unwrap();
    assert_eq!(config.config.env.unwrap(), ["PATH=/bin", "BASE=1", "E=global-1"]);
    let rows: Vec<_> = graph.targets[0].history.iter().map(|r| r.created_by.as_str()).collect();
    assert_eq!(
        rows,
        [
            "ARG G=global",
            "ARG L=global-1",
            "ENV E=global-1",
            "RUN |2 G=global L=global-1 /bin/sh -c x # buildkit",
            "ARG E=arg",
            "RUN |3 G=global L=global-1 E=arg /bin/sh -c y # buildkit",
        ]
    );
}

#[test]
fn an_arg_over_an_env_ends_with_its_stage() {
    let text = "FROM a AS s\nENV B=env\nARG B=arg\nARG C=c\nRUN one\nFROM s\nRUN two\nARG B=again\nRUN three\n";
    let graph = graph_of(text, &request());
    let runs = graph.steps.iter().filter_map(|step| match &step.op {
        Op::Run(run) => Some(&run.env),
        _ => None,
    });
    let value = |env: &Vec<(String, String)>| {
        let of = |name| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap();
        format!("{} {}", of("B"), of("C"))
    };
    assert_eq!(runs.map(value).collect::<Vec<_>>(), ["arg c", "env c", "again c"]);
}

#[test]
fn paths_count_from_the_working_directory() {
    let graph = graph_of("FROM a\nWORKDIR w\nCOPY f d/\nUSER root\nRUN x\n", &request());
    let copy = graph.steps.iter().find_map(|s| match &s.op {
        Op::Copy(copy) => Some(copy.clone()),
        _ => None,
    });
    assert_eq!(copy.unwrap().dest, "/base/w/d/");
    let Some(Op::Run(run)) = graph.steps.last().map(|s| s.op.clone()) else { panic!("a RUN") };
    assert_eq!((run.cwd.as_str(), run.user.as_str()), ("/base/w", "root"));
    let mkdir = graph.steps.iter().find_map(|s| match &s.op {
        Op::Mkdir(mkdir) => Some(mkdir.clone()),
        _ => None,
    });
    assert_eq!(mkdir.unwrap().owner, "app");
}

#[test]
fn mounts_become_inputs() {
    let text = "FROM a AS t\nFROM b\nRUN --mount=type=bind,source=src,target=s \
        --mount=type=cache,target=/c --mount=from=t,target=/t,source=bin \
        --mount=type=secret,id=k --mount=type=tmpfs,target=/m,size=1m make\n";
    let (draft, _) = lower_all(text, &request()).unwrap();
    assert_eq!(draft.locals["context"].patterns(), ["src"]);
    let graph = graph_of(text, &request());
    let step = graph.steps.last().unwrap();
    let Op::Run(run) = &step.op else { panic!("a RUN") };
    let targets: Vec<_> = run.mounts.iter().map(|m| (m.target.as_str(), m.input)).collect();
    let expected = [
        ("/base/s", Some(1)),
        ("/c", None),
        ("/t", Some(2)),
        ("/run/secrets/k", None),
        ("/m", None),
    ];
    assert_eq!(targets, expected);
    assert!(matches!(&run.mounts[4].kind, MountKind::Tmpfs(t) if t.size == 1 << 20));
    assert_eq!(step.inputs.len(), 3);
}

#[test]
fn secrets_are_not_shown() {
    check(
        "FROM a\nARG TOKEN=x\nRUN --mount=type=secret,id=t,env=TOKEN use $TOKEN $BASE\n",
        &[
            "[1/2] FROM docker.io/library/a:latest",
            "[2/2] RUN --mount=type=secret,id=t,env=TOKEN use **** 1",
        ],
    );
}

#[test]
fn of_named_directories_only_what_is_used_is_looked_at() {
    let mut request = request();
    request.contexts = vec![("lib".into(), NamedContext::Local)];
    let text = "FROM a\nCOPY --from=lib /x/y /x\nRUN --mount=from=lib,source=z,target=/z y\n";
    let (draft, _) = lower_all(text, &request).unwrap();
    assert_eq!(draft.locals["lib"].patterns(), ["x/y", "z"]);
    // What is a root counts in full.
    let (draft, _) = lower_all("FROM lib\n", &request).unwrap();
    assert!(draft.locals["lib"].all);
}

#[test]
fn the_time_of_everything_is_a_number() {
    let epoch = |text: &str| graph_of(text, &request()).targets[0].epoch;
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=17\nFROM a\n"), Some(17));
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=\nFROM a\n"), None);
    check_error("ARG SOURCE_DATE_EPOCH=b\nFROM a\n", &request(), "number of seconds", None);
}

#[test]
fn the_time_of_everything_is_a_contexts() {
    let mut request = request();
    request.contexts.push(("lib".to_owned(), NamedContext::Local));
    request.contexts.push(("plain".to_owned(), NamedContext::Local));
    request.context_times = vec![("context".to_owned(), 5), ("lib".to_owned(), 7)];
    let epoch = |value: &str, request: &BuildRequest| {
        let text = format!(
            "ARG SOURCE_DATE_EPOCH={value}\nFROM a\nARG SOURCE_DATE_EPOCH\nENV E=$SOURCE_DATE_EPOCH\n"
        );
        let target = graph_of(&text, request).targets[0].clone();
        assert!(!target.config.contains(value), "{}", target.config);
        target.epoch
    };
    assert_eq!(epoch("context", &request), Some(5));
    assert_eq!(epoch("lib", &request), Some(7));
    assert_eq!(epoch("plain", &request), None, "directories have no time");
    request.build_args.push(("SOURCE_DATE_EPOCH".to_owned(), "lib".to_owned()));
    assert_eq!(epoch("context", &request), Some(7));
}

#[test]
fn rights_have_to_be_given() {
    let mut request = request();
    check_error("FROM a\nRUN --network=host x\n", &request, "network.host", Some(2));
    check_error("FROM a\nRUN --security=insecure x\n", &request, "security.insecure", Some(2));
    request.allow = vec![Entitlement::NetworkHost, Entitlement::SecurityInsecure];
    check_with(
        "FROM a\nRUN --network=host --security=insecure x\n",
        &request,
        &[
            "[1/2] FROM docker.io/library/a:latest",
            "[2/2] RUN --network=host --security=insecure x",
        ],
    );
}

#[test]
fn other_front_ends_are_refused() {
    let none = request();
    for other in ["example.com/other:1", "example.com/docker/dockerfile:1", "dockerfile", ":1"] {
        check_error(&format!("# syntax={other}\nFROM a\n"), &none, other, None);
    }
    for own in [
        "docker/dockerfile:1.7",
        "docker/dockerfile-upstream:master",
        "docker.io/docker/dockerfile:1 of their own",
        "index.docker.io/docker/dockerfile",
        "registry-1.docker.io/docker/dockerfile:1-labs",
        "dockerfile.v0",
    ] {
        let text = format!("# syntax={own}\nFROM a\n");
        check(&text, &["[1/1] FROM docker.io/library/a:latest"]);
    }
    let digest = format!("# syntax=docker/dockerfile:1@sha256:{}\nFROM a\n", "0".repeat(64));
    check(&digest, &["[1/1] FROM docker.io/library/a:latest"]);
}

#[test]
fn contexts_take_the_place_of_stages_and_images() {
    let mut request = request();
    request.contexts = vec![
        ("base".into(), NamedContext::Local),
        ("docker.io/library/alpine:latest".into(), NamedContext::Image("busybox:1".into())),
    ];
    let text = "FROM a AS base\nRUN never\nFROM alpine\nCOPY --from=base f /f\n";
    check_with(
        text,
        &request,
        &["[stage-1 1/2] FROM docker.io/library/busybox:1", "[stage-1 2/2] COPY --from=base f /f"],
    );
}

#[test]
fn layouts_are_bases_stages_and_sources() {
    let mut request = request();
    request.contexts = vec![("lay".into(), NamedContext::Layout)];
    let text = "FROM a AS lay\nRUN never\nFROM lay\nFROM b\nCOPY --from=lay /f /f\n";
    let steps = ["[lay 1/1] FROM oci-layout://lay", "[stage-2 2/2] COPY --from=lay /f /f"];
    let (_, asked) = lower_all(text, &request).unwrap();
    assert_eq!(asked, ["docker.io/library/b:latest", "oci-layout://lay"]);
    let graph = graph_of(text, &request);
    for step in steps {
        assert!(graph.steps.iter().any(|s| s.name.starts_with(step)), "{step}: {graph:?}");
    }
    let base = graph_of("FROM lay\nRUN $BASE\n", &request).targets.remove(0);
    assert!(base.config.contains("BASE=1"), "{}", base.config);
    assert_eq!(base.base.unwrap().reference, "oci-layout://lay");
}

#[test]
fn the_first_ssh_agent_is_in_the_environment() {
    let variable = |text: &str| {
        let graph = graph_of(text, &request());
        let run = graph.steps.iter().find_map(|step| match &step.op {
            Op::Run(run) => Some(run.env.clone()),
            _ => None,
        });
        run.unwrap().into_iter().find(|(name, _)| name == "SSH_AUTH_SOCK").map(|(_, value)| value)
    };
    let two = "RUN --mount=type=ssh,id=z --mount=type=ssh,target=/a x\n";
    let first = Some("/run/buildkit/ssh_agent.0".to_owned());
    assert_eq!(variable(&format!("FROM a\n{two}")), first);
    let own = variable(&format!("FROM a\nENV SSH_AUTH_SOCK=/own\n{two}"));
    assert_eq!(own.as_deref(), Some("/own"));
    assert_eq!(variable("FROM a\nRUN x\n"), None);
}

#[test]
fn several_platforms_share_what_they_can() {
    let mut request = request();
    let parse = |t: &str| Platform::parse(t).unwrap();
    request.platforms = vec![parse("linux/amd64"), parse("linux/arm64")];
    let text = "FROM --platform=$BUILDPLATFORM a AS tool\nRUN tool $TARGETARCH\nFROM b\nCOPY --from=tool /x /x\n";
    let graph = graph_of(text, &request);
    assert_eq!(graph.targets.len(), 2);
    let names: Vec<_> =
        graph.steps.iter().filter(|s| s.op.is_run()).map(|s| s.name.as_str()).collect();
    let expected = [
        "[linux/amd64 tool 2/2] RUN tool $TARGETARCH",
        "[linux/arm64 tool 2/2] RUN tool $TARGETARCH",
    ];
    assert_eq!(names, expected);
    let images = graph.steps.iter().filter(|s| matches!(s.op, Op::Image(_))).count();
    assert_eq!(images, 3, "the tool's image is the same for both");
}

#[test]
fn links_do_not_look_at_the_base() {
    let graph = graph_of("FROM a\nCOPY --link f /f\n", &request());
    let copy = graph.steps.iter().find(|s| matches!(s.op, Op::Copy(_))).unwrap();
    assert!(matches!(graph.steps[copy.inputs[0].index()].op, Op::Scratch));
    let last = &graph.steps[graph.targets[0].step.index()];
    assert!(matches!(last.op, Op::Merge));
    assert_eq!(graph.targets[0].history[0].step, Some(graph.targets[0].step));
}

/// Whether the sources of the last COPY are checked, and the lines of the remarks.
fn checked(text: &str) -> (Vec<bool>, Vec<u32>) {
    let mut request = request();
    request.contexts = vec![("dir".into(), NamedContext::Local)];
    let (draft, _) = lower_all(text, &request).unwrap();
    let copies = draft.graph.steps.iter().rev().find_map(|step| match &step.op {
        Op::Copy(copy) => Some(copy.sources.iter().map(|source| source.checked).collect()),
        _ => None,
    });
    (copies.unwrap(), draft.remarks.iter().map(|remark| remark.at.first_line).collect())
}

#[test]
fn what_a_copy_is_put_upon_is_not_checked() {
    let unchecked =
        |text: &str, line| assert_eq!(checked(text), (vec![false], vec![line]), "{text}");
    unchecked("FROM a\nCOPY --from=a --parents x /y/\n", 2);
    unchecked("FROM a AS s\nRUN r\nFROM s\nENV a=b\nCOPY --from=s --parents x /y/\n", 5);
    unchecked(
        "FROM a AS s\nRUN r\nCOPY f /\nFROM a\nRUN r\nCOPY f /\nCOPY --from=s --parents x /y/\n",
        7,
    );
    unchecked("FROM scratch AS s\nFROM a\nCOPY --from=s --parents x /y/\n", 3);
    unchecked("FROM scratch AS s\nFROM a\nCOPY --link --from=s --parents x /y/\n", 3);
    unchecked("FROM dir AS s\nFROM s\nCOPY --from=s --parents x /y/\n", 3);
    let text = "FROM a\nCOPY --from=a x* <<e /y/\ne\n";
    assert_eq!(checked(text), (vec![false, true], vec![]), "nothing to tell without --parents");

    let checks = |text: &str| assert_eq!(checked(text), (vec![true], vec![]), "{text}");
    checks("FROM a\nCOPY --parents x /y/\n");
    checks("FROM a\nCOPY --from=b --parents x /y/\n");
    checks("FROM a\nCOPY --link --from=a --parents x /y/\n");
    checks("FROM a AS s\nRUN r\nFROM a\nRUN q\nCOPY --from=s --parents x /y/\n");
    checks("FROM a\nRUN r\nCOPY --from=a --parents x /y/\n");
    checks("FROM dir\nCOPY --from=dir --parents x /y/\n");
    checks("FROM --platform=linux/arm64 a AS s\nFROM a\nCOPY --from=s --parents x /y/\n");
}

#[test]
fn letters_in_flags_are_told_once_for_all_platforms() {
    let mut request = request();
    request.platforms = ["linux/amd64", "linux/arm64"].map(|p| Platform::parse(p).unwrap()).into();
    let text = "FROM a AS s\nONBUILD COPY --exclude=é . /\nFROM s\nCOPY --chown=1 é /\n";
    let (draft, _) = lower_all(text, &request).unwrap();
    let lines: Vec<_> = draft.remarks.iter().map(|remark| remark.at.first_line).collect();
    assert_eq!(lines, [2, 3], "where it is written, and where it comes into effect");
    let warning = draft.remarks[0].told(text.as_bytes());
    assert!(warning.rule.is_empty() && warning.message.ends_with("`--exclude=Ã©`"), "{warning:?}");
    assert_eq!(warning.excerpt, [(2, "ONBUILD COPY --exclude=é . /".to_owned())]);
}

#[test]
fn what_nobody_needs_is_named_rightly_all_the_same() {
    let wrong = |text: &str, with, line| check_error(text, &request(), with, Some(line));
    let reference = "not a valid image reference";
    wrong("FROM BAD//Name\nFROM a\n", reference, 1);
    wrong("FROM a:b:c AS x\nFROM a\n", reference, 1);
    wrong("FROM a AS Upper\nFROM Upper AS u\nFROM a\n", reference, 2);
    wrong("FROM a AS x\nCOPY --from=x- /y /z\nFROM a\n", reference, 2);
    wrong("FROM a AS x\nRUN --mount=from=Foo,target=/x y\nFROM a\n", reference, 2);
    for name in ["x-", "x.", "x_", "x..y", "x___y", "x.-y"] {
        wrong(&format!("FROM a AS {name}\nFROM a\n"), "The stage cannot be named", 1);
    }
    check(
        "FROM a AS x--y\nFROM b AS x__y\nFROM c AS x_y-z.1\nFROM d\n",
        &["[stage-3 1/1] FROM docker.io/library/d:latest"],
    );
    check("FROM a AS context\nFROM d\n", &["[stage-1 1/1] FROM docker.io/library/d:latest"]);
}

#[test]
fn triggers_are_read_in_full_when_they_come_into_effect() {
    check("FROM a AS b\nONBUILD ENV =x\n", &["[1/1] FROM docker.io/library/a:latest"]);
    let text = "FROM a AS b\nONBUILD ENV =x\nFROM b\n";
    assert!(lower_all(text, &request()).is_err());
}

#[test]
fn keys_follow_what_is_selected_and_what_is_made_anew() {
    let text = "FROM a\nRUN one\nCOPY f /f\nRUN two\n";
    let graph = graph_of(text, &request());
    let digest = |n: u8| ContentDigest::from_bytes([n; 32]);
    let selections = |n| local_inputs(&graph).into_iter().map(|place| (place, digest(n))).collect();
    let base = keys(&graph, &selections(1), "n", Joined::WithOthers);
    let other = keys(&graph, &selections(2), "n", Joined::WithOthers);
    let at = |name: &str| graph.steps.iter().position(|s| s.name.ends_with(name)).unwrap();
    assert_eq!(base[at("RUN one")], other[at("RUN one")]);
    assert_ne!(base[at("COPY f /f")].work, other[at("COPY f /f")].work);
    assert_ne!(base[at("RUN two")].work, other[at("RUN two")].work);

    let mut request = request();
    request.no_cache = NoCache::All;
    let fresh = graph_of(text, &request);
    let of = |graph, nonce, joined| keys(graph, &selections(1), nonce, joined);
    let (one, two) = (of(&fresh, "n", Joined::WithOthers), of(&fresh, "m", Joined::WithOthers));
    let run = at("RUN two");
    assert_ne!(one[run].work, two[run].work, "each build makes its own");
    assert_eq!(one[run].alias, base[run].alias, "what comes out is found by later builds");
    assert!(!one[run].trusted && base[run].trusted);

    let (one, two) = (of(&graph, "n", Joined::Alone), of(&graph, "m", Joined::Alone));
    assert_ne!(one[run].work, two[run].work, "nobody joins it");
    assert_eq!((one[run].alias, one[run].trusted), (base[run].alias, true));
}

#[test]
fn what_steps_take_is_bounded() {
    let variables: String = (0..5000).map(|n| format!("ENV NAME_{n}=value\n")).collect();
    let text = format!("FROM a\n{variables}{}", "RUN x\n".repeat(5000));
    let error = lower_all(&text, &request()).expect_err("25 million variables");
    assert!(matches!(error.problem, LowerProblem::TooManyBytes(_)), "{error}");
    assert!(error.at.is_some());
}

#[test]
fn stages_that_start_from_one_stage_do_not_see_each_other() {
    let text = "FROM a AS base\nENV X=base\nFROM base AS one\nENV X=one\nRUN one\n\
        FROM base AS two\nRUN two\nCOPY --from=one /x /x\n";
    let graph = graph_of(text, &request());
    let env = |name: &str| {
        let step = graph.steps.iter().find(|s| s.name.ends_with(name)).expect("a step");
        let Op::Run(run) = &step.op else { panic!("a RUN") };
        run.env.last().cloned().expect("a variable")
    };
    assert_eq!(env("RUN one"), ("X".to_owned(), "one".to_owned()));
    assert_eq!(env("RUN two"), ("X".to_owned(), "base".to_owned()));
}

#[test]
fn five_thousand_stages() {
    let mut text = String::from("FROM scratch AS s0\n");
    for n in 1..5000 {
        text.push_str(&format!("FROM s{} AS s{n}\nCOPY f /f{n}\n", n - 1));
    }
    let graph = graph_of(&text, &request());
    assert_eq!(graph.steps.len(), 2 + 4999);
    let selections =
        local_inputs(&graph).into_iter().map(|p| (p, ContentDigest::from_bytes([0; 32]))).collect();
    let keys = keys(&graph, &selections, "n", Joined::WithOthers);
    let different: std::collections::BTreeSet<_> = keys.iter().map(|k| k.work).collect();
    assert_eq!(different.len(), keys.len());
}
