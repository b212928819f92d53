//! What is said of a Dockerfile without building it: advice, what a target takes, the stages.

use serde_json::Value;
use std::path::Path;
use tests::command::{Outcome, run};
use tests::scratch::Scratch;
use tests::slipway::Slipway;

const ADVICE: &str = "\
FROM example.invalid/base:1 as build
ARG VERSION=1
COPY app-$VERSON \\
     /app
WORKDIR $HOME/src

FROM scratch
CMD run
";

const ADVICE_SHOWN: &str = "\
Check complete, 3 warnings have been found!

WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/
`FROM` and `as` are not written in the same case
Dockerfile:1
--------------------
   1 | >>> FROM example.invalid/base:1 as build
   2 |     ARG VERSION=1
   3 |     COPY app-$VERSON \\
--------------------

WARNING: UndefinedVar - https://docs.docker.com/go/dockerfile/rule/undefined-var/
The variable `$VERSON` is not defined (did you mean `$VERSION`?)
Dockerfile:3
--------------------
   2 |     ARG VERSION=1
   3 | >>> COPY app-$VERSON \\
   4 | >>>      /app
   5 |     WORKDIR $HOME/src
--------------------

WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/
CMD should be a JSON array, or else signals go to the shell
Dockerfile:8
--------------------
   6 |
   7 |     FROM scratch
   8 | >>> CMD run
   9 |
--------------------
";

const CLEAN: &str = "FROM example.invalid/base:1\nRUN --network=host make\n";

const TARGETS: &str = "\
ARG GO=1.22
# SUFFIX is put behind the version
ARG SUFFIX=$GO-alpine
ARG UNUSED=1

# build compiles
FROM --platform=$BUILDPLATFORM golang:$SUFFIX AS Build
# MODE is debug or release
ARG MODE=release
ARG REVISION
RUN --mount=type=secret,id=netrc,required --mount=type=ssh make

FROM scratch AS test
RUN --mount=type=secret,id=coverage report

FROM scratch
COPY --from=build /bin /bin
";

const OUTLINE_SHOWN: &str = "\
TARGET:      build
DESCRIPTION: compiles

BUILD ARG   VALUE         DESCRIPTION
GO          1.23
SUFFIX      1.23-alpine   is put behind the version
MODE        release       is debug or release
REVISION

SECRET   REQUIRED
netrc    true

SSH       REQUIRED
default

";

const TARGETS_SHOWN: &str = "\
TARGET    DESCRIPTION
build     compiles
test
(default)
";

/// A context with a Dockerfile, and a farm that must not be started.
struct Desk {
    slipway: Slipway,
    context: Scratch,
}

impl Desk {
    fn of(dockerfile: &str) -> Self {
        let desk = Self { slipway: Slipway::new(), context: Scratch::new("context") };
        desk.context.write("Dockerfile", dockerfile);
        desk
    }

    /// Runs a command in the context.
    #[track_caller]
    fn run(&self, args: &[&str]) -> Outcome {
        run(self.slipway.command(args).current_dir(self.context.path()))
    }

    #[track_caller]
    fn prints(&self, args: &[&str], code: i32, expected: &str) {
        let outcome = self.run(args).fails(code);
        assert_eq!(String::from_utf8_lossy(&outcome.stdout), expected, "{outcome}");
        assert_eq!(String::from_utf8_lossy(&outcome.stderr), "", "{outcome}");
    }

    #[track_caller]
    fn json(&self, args: &[&str], code: i32) -> Value {
        let text = self.run(args).fails(code).text();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let running = self.slipway.processes();
        if !std::thread::panicking() {
            assert!(running.is_empty(), "no farm was started for that: {running:?}");
        }
    }
}

#[test]
fn a_check_prints_what_buildx_prints() {
    let desk = Desk::of(ADVICE);
    desk.prints(&["build", "--check", "."], 1, ADVICE_SHOWN);
    desk.prints(&["build", "--call=check", "."], 1, ADVICE_SHOWN);
    desk.prints(&["lint"], 1, ADVICE_SHOWN);
    desk.prints(&["lint", "Dockerfile"], 1, ADVICE_SHOWN);
    desk.prints(&["build", "--call=check,ignorestatus=true", "."], 0, ADVICE_SHOWN);
    let file = desk.context.write("other/My.dockerfile", CLEAN);
    let clean = "Check complete, no warnings found.\n";
    desk.prints(&["lint", "-f", "other/My.dockerfile"], 0, clean);
    desk.prints(&["build", "--check", "-f", file.to_str().expect("UTF-8"), "."], 0, clean);
    let named = desk.run(&["lint", "--target=build"]).fails(1);
    named.says("2 warnings have been found").never_says("JSONArgs");
    desk.run(&["lint", "--build-context", "build=."]).fails(1).never_says("UndefinedVar");
}

#[test]
fn a_check_has_its_place_in_the_way_to_the_file() {
    let desk = Desk::of(CLEAN);
    desk.context.write("sub/Dockerfile", ADVICE);
    desk.run(&["lint", "sub"]).fails(1).says("\nsub/Dockerfile:8\n");
    desk.run(&["lint", "-f", "./sub/Dockerfile"]).fails(1).says("\n./sub/Dockerfile:8\n");
    let mut command = desk.slipway.command(&["lint", "-"]);
    let within = tests::command::DEADLINE;
    tests::command::run_with(&mut command, ADVICE.as_bytes(), within).fails(1).says("\nstdin:8\n");
}

#[test]
fn a_check_is_json_as_buildx_has_it() {
    let desk = Desk::of(ADVICE);
    let found = desk.json(&["build", "--call=check,format=json", "."], 1);
    assert_eq!(desk.json(&["lint", "--format=json"], 1), found);
    let rules: Vec<_> = found["warnings"].as_array().expect("a list").iter().collect();
    assert_eq!(rules.len(), 3);
    assert_eq!(rules[1]["ruleName"], "UndefinedVar");
    assert_eq!(rules[1]["url"], "https://docs.docker.com/go/dockerfile/rule/undefined-var/");
    assert!(rules[1]["detail"].as_str().is_some_and(|detail| detail.contains("$VERSON")));
    assert!(rules[1]["description"].is_string());
    // Each line is a range of its own.
    let ranges = rules[1]["location"]["ranges"].as_array().expect("a list").iter();
    let ranges = ranges.map(|range| (range["start"]["line"].clone(), range["end"]["line"].clone()));
    assert_eq!(ranges.collect::<Vec<_>>(), [(3.into(), 3.into()), (4.into(), 4.into())]);
    assert_eq!(found["sources"][0]["filename"], "Dockerfile");
    assert_eq!(found["sources"][0]["language"], "Dockerfile");
    assert!(found["sources"][0]["data"].as_str().is_some_and(|data| data.starts_with("RlJPTS")));
    assert_eq!(found.get("buildError"), None);
    desk.context.write("Dockerfile", CLEAN);
    assert_eq!(desk.json(&["lint", "--format=json"], 0).get("warnings"), Some(&Value::Null));
    let args = ["build", "--call=check,format=json", "--metadata-file=m.json", "."];
    let found = desk.json(&args, 0);
    let written = std::fs::read(desk.context.join("m.json")).expect("the file");
    let written: Value = serde_json::from_slice(&written).expect("JSON");
    assert_eq!(written["result.json"], found);
}

#[test]
fn what_cannot_be_built_is_an_error_of_a_check() {
    let desk = Desk::of("FROM scratch as a\nCMD [\"x\"]\nCOPY --from=7 a b\n");
    let outcome = desk.run(&["lint"]).fails(1);
    assert!(outcome.text().starts_with("Check complete, 1 warning has been found!\n"), "{outcome}");
    assert!(outcome.stdout.ends_with(b"--------------------\n\n"), "{outcome}");
    outcome.says("ERROR: There is no stage of the index 7").says("   3 | >>> COPY --from=7 a b\n");
    let found = desk.json(&["lint", "--format=json"], 1);
    assert_eq!(found["buildError"]["location"], serde_json::json!({}));
    desk.context.write("Dockerfile", "FROM scratch\nVOLUME \\\n \"\"\n");
    let found = desk.json(&["lint", "--format=json"], 1);
    let ranges = found["buildError"]["location"]["ranges"].as_array().expect("a list").iter();
    assert_eq!(ranges.map(|range| range["start"]["line"].clone()).collect::<Vec<_>>(), [2, 3]);
    desk.context.write("Dockerfile", "FROM scratch as a\nMAINTAINER\n");
    let outcome = desk.run(&["lint"]).fails(1).says("MaintainerDeprecated");
    outcome.says("FromAsCasing").says("ERROR: MAINTAINER needs exactly one argument");
    desk.context.write("Dockerfile", "FROM scratch\nCOPPY a b\n");
    let outcome = desk.run(&["lint"]).fails(1).says("ERROR: Unknown instruction `COPPY`");
    assert_eq!(outcome.text(), "", "{outcome}");
    for call in ["outline", "targets"] {
        desk.run(&["build", "--call", call, "."]).fails(1).says("Unknown instruction `COPPY`");
    }
    desk.context.write("Dockerfile", "# check=error=true\nFROM scratch\nCMD x\n");
    let outcome = desk.run(&["lint"]).fails(1).says("JSONArgsRecommended - https");
    outcome.says("ERROR: lint violation found for rules: JSONArgsRecommended");
    desk.context.write("Dockerfile", "# check=skip=all\nFROM scratch\nCMD x\n");
    desk.run(&["lint"]).ok();
    let setting = "BUILDKIT_DOCKERFILE_CHECK=skip=none";
    desk.run(&["lint", "--build-arg", setting]).fails(1).says("JSONArgsRecommended");
    for call in ["check", "outline", "targets"] {
        let call = format!("--call={call},format=json");
        let wrong = ["build", &call, "--build-arg=BUILDKIT_DOCKERFILE_CHECK=foo", "."];
        let outcome = desk.run(&wrong).fails(1).says("BUILDKIT_DOCKERFILE_CHECK: `foo`");
        assert_eq!(outcome.text(), "", "{outcome}");
    }
    desk.run(&["lint", "none"]).fails(1).says("none");
    desk.run(&["lint", "--platform=moon"]).fails(2).says("moon");
    desk.run(&["build", "--call=dance", "."]).fails(2).says("outline");
}

#[test]
fn what_the_ignore_file_leaves_out_is_known() {
    let desk = Desk::of("FROM scratch\nCOPY secret /\n");
    desk.context.write(".dockerignore", "secret\n");
    desk.run(&["lint"]).fails(1).says("CopyIgnoredFile");
    desk.run(&["lint", "--build-context", "x=.", "."]).fails(1).says("CopyIgnoredFile");
    let none = Scratch::new("none");
    std::fs::copy(desk.context.join("Dockerfile"), none.join("Dockerfile")).expect("a copy");
    desk.run(&["lint", none.path().to_str().expect("UTF-8")]).ok();
}

#[test]
fn an_outline_shows_what_a_target_takes() {
    let desk = Desk::of(TARGETS);
    let flags = ["build", "--target=build", "--build-arg=GO=1.23"];
    desk.prints(&[&flags[..], &["--call=outline", "."]].concat(), 0, OUTLINE_SHOWN);
    let found = desk.json(&[&flags[..], &["--call=outline,format=json", "."]].concat(), 0);
    assert_eq!((&found["name"], &found["description"]), (&"build".into(), &"compiles".into()));
    let args = found["args"].as_array().expect("a list");
    assert_eq!(args[1]["name"], "SUFFIX");
    assert_eq!(args[1]["value"], "1.23-alpine");
    assert_eq!(args[1]["description"], "is put behind the version");
    assert_eq!(args[1]["location"]["ranges"][0]["start"]["line"], 3);
    assert_eq!(args[3].get("value"), None);
    assert_eq!(
        (&found["secrets"][0]["name"], &found["secrets"][0]["required"]),
        (&"netrc".into(), &true.into())
    );
    assert_eq!(
        (&found["ssh"][0]["name"], found["ssh"][0].get("required")),
        (&"default".into(), None)
    );
    assert!(found["sources"][0].is_string());
    // The last stage takes what the stages take that it needs.
    desk.run(&["build", "--call=outline", "."]).ok().says("MODE").never_says("coverage");
}

#[test]
fn targets_are_listed() {
    let desk = Desk::of(TARGETS);
    desk.prints(&["build", "--call=targets", "."], 0, TARGETS_SHOWN);
    let found = desk.json(&["build", "--call=targets,format=json", "."], 0);
    let targets = found["targets"].as_array().expect("a list");
    assert_eq!(targets.len(), 3);
    assert_eq!(targets[0]["name"], "build");
    assert_eq!(targets[0]["base"], "golang:$SUFFIX");
    assert_eq!(targets[0]["platform"], "$BUILDPLATFORM");
    assert_eq!(targets[0].get("default"), None);
    assert_eq!((targets[2].get("name"), &targets[2]["default"]), (None, &true.into()));
    desk.context.write("Dockerfile", "# check=what\nFROM scratch as a\nCOPY --from=$x a b\n");
    desk.run(&["build", "--call=targets", "."]).ok().says("a (default)");
    desk.context.write("Dockerfile", "ARG a=1\n");
    let found = desk.json(&["build", "--call=targets,format=json", "."], 0);
    assert_eq!(found.get("targets"), Some(&Value::Null));
    desk.prints(&["build", "--call=targets", "."], 0, "TARGET DESCRIPTION\n");
    assert!(Path::new(&desk.slipway.home()).read_dir().map_or(0, Iterator::count) == 0);
}
