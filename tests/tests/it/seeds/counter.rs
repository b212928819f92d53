//! Documents 002 and 004: a program that counts the links of a page; two Dockerfiles and a script
//! between them, then one Dockerfile.

use super::{Site, assert_fraction, seed};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tests::scratch::Scratch;

const PROGRAM: &str = "/go/src/github.com/alexellis/href-counter/app";

/// Lets the program of an image count the links of a page that busybox serves.
#[track_caller]
fn assert_counts(site: &Site, image: &str) {
    let script = "mkdir /page && cd /page
        echo '<a href=\"/1\">1</a> <a href=\"2\">2</a> <a href=\"http://3/\">3</a>' > index.html
        httpd -p 127.0.0.1:8080 -h /page && cd /root && url=http://127.0.0.1:8080/ ./app";
    let counted = site.prints(image, &["sh", "-euc", script]);
    assert_eq!(counted, r#"{"internal":2,"external":1}"#, "{image}");
}

#[test]
fn one_dockerfile_with_two_stages() {
    let site = Site::with(&["golang", "alpine"]);
    let context = seed("004/href-counter");
    let image = "alexellis2/href-counter:latest";
    site.build(&context, "Dockerfile", image);
    assert_counts(&site, image);
    site.build(&context, "Dockerfile.named", "named");
    assert_counts(&site, "named");

    site.build_with(&["--target", "builder", "-t", "target"], &context, "Dockerfile.named").ok();
    assert_eq!(site.builder.env("target", "GOLANG_VERSION").as_deref(), Some("1.7.3"));
    assert_eq!(site.prints("target", &["ls", PROGRAM]), PROGRAM);
    assert_fraction(&site, image, "target", 10);
}

#[test]
fn a_target_needs_only_its_own_images() {
    // There is no alpine, which the stage after the target is made of.
    let site = Site::with(&["golang"]);
    let context = seed("004/href-counter");
    site.build_with(&["--target", "builder", "-t", "target"], &context, "Dockerfile.named").ok();
    assert_eq!(site.registry.requests("GET", "library/alpine"), 0);
    assert_eq!(site.registry.requests("HEAD", "library/alpine"), 0);
}

#[test]
fn the_builder_pattern_before_there_were_stages() {
    let site = Site::with(&["golang", "alpine"]);
    let context = seed("004/href-counter");
    site.build(&context, "Dockerfile.build", "alexellis2/href-counter:build");
    let program = site.builder.run_image(&[], "alexellis2/href-counter:build", &["cat", PROGRAM]);
    let second = Scratch::new("context");
    let app = second.write("app", program.ok().stdout);
    fs::set_permissions(app, fs::Permissions::from_mode(0o755)).expect("a file just written");
    fs::copy(context.join("Dockerfile.app"), second.join("Dockerfile")).expect("copying");
    let flags = ["--no-cache", "-t", "alexellis2/href-counter:latest"];
    site.build_with(&flags, second.path(), "Dockerfile").ok();
    assert_counts(&site, "alexellis2/href-counter:latest");
}

#[test]
fn a_stage_by_its_name() {
    let site = Site::with(&["golang", "alpine"]);
    let dockerfile = seed("002/Dockerfile.named-stage");
    let flags = ["-f", dockerfile.to_str().expect("UTF-8"), "-t", "named-stage"];
    site.builder.build(&flags, &seed("004/href-counter")).ok();
    assert_counts(&site, "named-stage");
}

#[test]
fn listings_whose_lines_were_lost() {
    let site = Site::with(&["alpine"]);
    let context = seed("004/href-counter");
    for name in ["Dockerfile", "Dockerfile.build", "Dockerfile.app", "Dockerfile.named"] {
        let outcome = site.build_with(&[], &context, &format!("{name}.printed"));
        outcome.fails(1).says("FROM").says("argument");
    }
}
