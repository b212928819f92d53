//! `slipway explain`: which steps of a build ran, and why.

use crate::secrets::containing;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tests::site::Site;
use tests::tree::sha256;

const DOCKERFILE: &str = "
FROM conf/busybox:1 AS builder
ARG VERSION=1
ENV MODE=fast
COPY src /src
RUN cat /src/main.c /src/lib/a.c > /program
FROM conf/busybox:1
COPY --from=builder /program /program
RUN --mount=type=bind,source=notes,target=/notes cat /notes > /read
";

fn site() -> Site {
    let site = Site::of(DOCKERFILE);
    site.write("src/main.c", "int main;\n");
    site.write("src/lib/a.c", "int a;\n");
    site.write("notes", "one\n");
    site.build(&[]).ok();
    site
}

/// What is said of the step of the last build whose name contains `step`.
#[track_caller]
fn result(site: &Site, step: &str) -> String {
    let outcome = site.slipway.run(&["explain"]).ok();
    let text = outcome.text();
    let line = text.lines().find(|line| line.contains(step));
    let line = line.unwrap_or_else(|| panic!("`{step}` should be among the steps\n{outcome}"));
    let words: Vec<&str> = line.splitn(2, "   ").collect();
    words[1].trim_start().to_owned()
}

#[track_caller]
fn says(site: &Site, step: &str, expected: &str) {
    assert_eq!(result(site, step), expected, "{step}");
}

#[test]
fn what_is_found_and_what_is_new_is_said() {
    let site = site();
    says(&site, "COPY src /src", "miss: nothing like it was built before");
    site.build(&[]).ok();
    says(&site, "COPY --from=builder", "hit");
    says(&site, "RUN --mount", "hit");
    says(&site, "RUN cat /src", "not needed");
    site.build(&["--no-cache"]).ok();
    says(&site, "COPY src /src", "miss: it was to take no earlier result (--no-cache)");
    let builds = site.slipway.run(&["builds", "-q"]).ok().text();
    let first = builds.lines().last().expect("the first build");
    site.slipway.run(&["explain", first]).ok().says("nothing like it");
    site.slipway.run(&["explain", "zzz"]).fails(1).says("There is no build `zzz`");
}

#[test]
fn a_file_is_named_with_what_became_of_it() {
    let site = site();
    site.write("src/lib/a.c", "int other;\n");
    site.build(&[]).ok();
    let content = "miss: the file src/lib/a.c of the context has other content";
    says(&site, "COPY src /src", content);
    says(&site, "RUN cat /src", "miss: its input `[builder 2/3] COPY src /src` is another one");
    let program = "miss: the file program of `[builder 3/3] RUN cat /src/main.c /src/lib/a.c > \
                   /program` has other content";
    says(&site, "COPY --from=builder", program);
    let path = site.context.join("src/main.c");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    site.build(&[]).ok();
    let mode = "miss: the file src/main.c of the context has the mode 0600, and had 0644";
    says(&site, "COPY src /src", mode);
    site.write("src/new.c", "int new;\n");
    site.build(&[]).ok();
    says(&site, "COPY src /src", "miss: the file src/new.c of the context is new");
    fs::remove_file(site.context.join("src/lib/a.c")).expect("removing a file");
    site.write("src/lib/b.c", "");
    site.dockerfile(&DOCKERFILE.replace(" /src/lib/a.c", ""));
    site.build(&[]).ok();
    says(&site, "COPY src /src", "miss: the file src/lib/a.c of the context is gone");
    site.write("notes", "two\n");
    site.build(&[]).ok();
    says(&site, "RUN --mount", "miss: the file notes of the context has other content");
    says(&site, "COPY --from=builder", "hit");
}

#[test]
fn what_the_dockerfile_says_is_named() {
    let site = site();
    site.build(&["--build-arg", "VERSION=2"]).ok();
    says(&site, "RUN cat /src", "miss: the ARG VERSION has another value");
    says(&site, "COPY src /src", "hit");
    site.dockerfile(&DOCKERFILE.replace("MODE=fast", "MODE=slow"));
    site.build(&[]).ok();
    says(&site, "RUN cat /src", "miss: the ENV MODE has another value");
    site.dockerfile(&DOCKERFILE.replace("> /program", "> /program; true"));
    site.build(&[]).ok();
    says(&site, "RUN cat /src", "miss: its command has another text");
    let found = site.slipway.run(&["explain", "--format", "json"]).ok().text();
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let steps = found["steps"].as_array().expect("a list");
    let is_it = |step: &&Value| step["step"].as_str().is_some_and(|n| n.contains("RUN cat /src"));
    let run = steps.iter().find(is_it).expect("the step");
    assert_eq!((&run["result"], &run["reason"]), (&"miss".into(), &"command".into()));
    assert_eq!(run["detail"], "its command has another text");
    assert!(found["build"].is_string());
}

#[test]
fn another_base_is_named_with_its_digests() {
    let site = Site::of("FROM conf/busybox:1\nRUN echo 1 > /one\n");
    site.build(&["-t", "mine"]).ok();
    site.write("Next", "FROM mine\nRUN cat /one\n");
    let file = site.context.join("Next");
    let file = file.to_str().expect("UTF-8");
    site.build(&["-f", file]).ok();
    site.dockerfile("FROM conf/busybox:1\nRUN echo 2 > /one\n");
    site.build(&["-t", "mine"]).ok();
    site.build(&["-f", file]).ok();
    let why = result(&site, "RUN cat /one");
    let expected = "miss: the base image docker.io/library/mine:latest has the digest sha256:";
    assert!(why.starts_with(expected) && why.contains(", and had sha256:"), "{why}");
}

#[test]
fn no_value_is_kept_in_clear() {
    // Not compressible, so that they can be found wherever they lie.
    let random = |of: &str| sha256(format!("{of} {}", std::process::id()).as_bytes());
    let (name, values) = (format!("W{}", random("name")), ["one", "two"].map(random));
    let site = Site::of(&format!("FROM conf/busybox:1\nARG {name}\nRUN true\n"));
    // The history of an image has the values of its ARGs, as everywhere: none is made.
    for value in &values {
        site.build(&["-o", "type=cacheonly", "--build-arg", &format!("{name}={value}")]).ok();
    }
    let said = site.slipway.run(&["explain", "--format=json"]).ok();
    let said = said.says(&format!("the ARG {name} has another value"));
    site.slipway.stop();
    for value in &values {
        assert!(!said.all().contains(value.as_str()), "{said}");
        assert_eq!(containing(site.slipway.home(), value.as_bytes()), [""; 0]);
    }
    let found = containing(site.slipway.home(), name.as_bytes());
    assert!(!found.is_empty(), "the name is kept, and the search finds what is there");
}

#[test]
fn it_is_known_after_a_new_start_of_the_farm() {
    let site = site();
    site.write("src/main.c", "int changed;\n");
    site.build(&[]).ok();
    site.slipway.stop();
    says(&site, "COPY src /src", "miss: the file src/main.c of the context has other content");
}
