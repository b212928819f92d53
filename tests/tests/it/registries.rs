//! Registries that want a login, that only an own authority vouches for, that are mirrors, and that
//! misbehave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use tests::command::{Outcome, command, run};
use tests::corpus;
use tests::faulty::{Fault, FaultyRegistry};
use tests::registry::{PASSWORD, Registry, USER};
use tests::scratch::Scratch;
use tests::site::Site;
use tests::slipway::Slipway;
use tests::tool::tool;

/// `ann:open sesame` in base64.
const LOGIN: &str = "YW5uOm9wZW4gc2VzYW1l";

fn trusting(site: &Site, registry: &Registry, authority: &Path) {
    let mirrors = format!("[registry.\"docker.io\"]\nmirrors = [{:?}]\n", site.registry.url());
    let own = format!("[registry.{:?}]\nca = [{authority:?}]\n", registry.address());
    site.slipway.settings(&(mirrors + &own));
}

fn docker_config(site: &Site, text: &str) {
    let home = site.slipway.user_home();
    tests::scratch::write(&home, ".docker/config.json", text);
}

#[test]
fn a_login_and_an_own_authority_are_used() {
    let (guarded, authority) = Registry::guarded();
    let name = guarded.image("private/app:1");
    let site = Site::of("FROM conf/busybox:1\nRUN echo private > /what\n");
    site.build(&["-t", &name, "--push"]).fails(1).says(guarded.address());
    site.slipway.stop();
    trusting(&site, &guarded, &authority);
    site.build(&["-t", &name, "--push"]).fails(1).says(guarded.address()).says("login");
    let auths =
        |login: &str| format!(r#"{{"auths": {{"{}": {{"auth": "{login}"}}}}}}"#, guarded.address());
    docker_config(&site, &auths("YW5uOndyb25n"));
    site.build(&["-t", &name, "--push"]).fails(1).says(guarded.address()).never_says("wrong\"");
    docker_config(&site, &auths(LOGIN));
    site.build(&["-t", &name, "--push"]).ok();

    let mut other = Site::of(&format!("FROM {name}\nRUN cat /what\n"));
    trusting(&other, &guarded, &authority);
    other.build(&[]).fails(1).says("Dockerfile:1").says(guarded.address());
    credential_helper(&mut other, &guarded);
    other.build(&[]).ok().says("private");
    other.slipway.run(&["pull", &name]).ok();
    other.slipway.assert_store_intact();
}

/// Sets up a program that knows the login, as `docker-credential-pass` and others do.
fn credential_helper(site: &mut Site, registry: &Registry) {
    let home = site.slipway.user_home();
    let program = tests::scratch::write(
        &home,
        "bin/docker-credential-tests",
        format!(
            "#!/bin/sh\nread host\necho '{{\"Username\": \"{USER}\", \"Secret\": \"{PASSWORD}\"}}'\n"
        ),
    );
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a new file");
    let path = program.parent().expect("below bin").display();
    site.slipway.set_env("PATH", &format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin"));
    let text = format!(r#"{{"credHelpers": {{"{}": "tests"}}}}"#, registry.address());
    docker_config(site, &text);
}

/// An image of the corpus, as a layout that a registry can be made of.
fn layout(scratch: &Scratch) -> std::path::PathBuf {
    let registry = corpus::registry();
    let to = scratch.join("layout");
    let mut skopeo = command(tool("skopeo"));
    skopeo.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
    skopeo.arg(format!("docker://{}", registry.image("conf/busybox:1")));
    run(skopeo.arg(format!("oci:{}", to.display())).env("HOME", scratch.path())).ok();
    to
}

fn build_from(slipway: &Slipway, image: &str) -> Outcome {
    let context = Scratch::new("context");
    context.write("Dockerfile", format!("# An image\nFROM {image}\nRUN echo it works\n"));
    slipway.build(&[], context.path())
}

#[test]
fn wrong_bytes_are_never_taken() {
    let scratch = Scratch::new("faulty");
    let layout = layout(&scratch);
    for (fault, says) in [
        (Fault::WrongLayer, "sha256:"),
        (Fault::WrongConfig, "sha256:"),
        (Fault::WrongManifest, "sha256:"),
        (Fault::Unauthorised, "without a login"),
        (Fault::Absent, "was not found"),
        (Fault::Nonsense, "manifest is broken"),
    ] {
        let slipway = Slipway::new();
        let by_digest = matches!(fault, Fault::WrongManifest);
        let what = format!("{fault:?}");
        let registry = FaultyRegistry::serve(&layout, fault);
        let image = match by_digest {
            true => registry.image(&format!("app@{}", registry.digest)),
            false => registry.image("app:1"),
        };
        let outcome = build_from(&slipway, &image).fails(1).says("Dockerfile:2").says(says);
        outcome.says(registry.server().address());
        slipway.run(&["pull", &image]).fails(1).says(says);
        assert_eq!(slipway.run(&["images", "-aq"]).ok().text(), "", "{what}");
        slipway.assert_store_intact();
    }
}

#[test]
fn what_breaks_off_is_taken_up_again() {
    let scratch = Scratch::new("faulty");
    let layout = layout(&scratch);
    for fault in [Fault::Breaks(AtomicUsize::new(2)), Fault::Busy(AtomicUsize::new(2))] {
        let breaks = matches!(fault, Fault::Breaks(_));
        let registry = FaultyRegistry::serve(&layout, fault);
        let slipway = Slipway::new();
        build_from(&slipway, &registry.image("app:1")).ok().says("it works");
        let resumed = registry.server().requests().iter().any(|r| r.header("range").is_some());
        assert_eq!(resumed, breaks, "the rest is asked for, not all of it");
        slipway.assert_store_intact();
    }
}

#[test]
fn a_registry_that_cannot_be_reached_is_named() {
    let address = tests::http::Server::counting().address().to_owned();
    let slipway = Slipway::new();
    build_from(&slipway, &format!("{address}/app:1")).fails(1).says(&address).says("Dockerfile:2");
    slipway.assert_store_intact();
}

#[test]
fn mirrors_are_asked_first_and_their_failure_is_survived() {
    let scratch = Scratch::new("faulty");
    let gone = tests::http::Server::counting().url("");
    let absent = FaultyRegistry::serve(&layout(&scratch), Fault::Absent);
    let good = corpus::registry();
    let slipway = Slipway::new();
    slipway.mirror(&[&gone, &absent.server().url(""), &good.url()]);
    build_from(&slipway, "conf/busybox:1").ok().says("it works");
    assert!(absent.server().count("/manifests/") > 0, "in order");
    assert!(good.requests("GET", "/blobs/") > 0);
}
