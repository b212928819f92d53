//! Clients whose certificates say less than others', and farms that are away.

use super::{APP, farm};
use serde_json::Value;
use std::net::Ipv4Addr;
use tests::http::Response;

/// Builds a step that asks a server, and says how often it was asked so far.
const COUNTED: &str =
    "FROM conf/busybox:1\nARG WHAT\nRUN wget -q -O- http://counter:8080/$WHAT > /got\n";

#[test]
fn a_pull_request_reads_what_is_trusted_and_writes_its_own() {
    let (farm, ann) = farm(COUNTED);
    let server = farm.site().host("counter").serve(8080, |_| Response::new(200, "ok\n"));
    let host = |what: &str| {
        let address: Ipv4Addr = farm.site().host("counter").ip();
        vec![
            "--add-host".to_owned(),
            format!("counter:{address}"),
            "--build-arg".to_owned(),
            format!("WHAT={what}"),
        ]
    };
    let build = |client: &tests::afar::Client, what: &str, more: &[&str]| {
        let flags = host(what);
        let flags: Vec<&str> =
            flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        client.build(&flags)
    };
    let request = farm.client("pr", &["--project", "web", "--scope", "branch/pr"]);
    request.write("Dockerfile", COUNTED);
    // It takes what is trusted.
    build(&ann, "trusted", &["-t", "web:dev"]).ok();
    build(&request, "trusted", &[]).ok().says("CACHED");
    assert_eq!(server.count("/trusted"), 1);
    // Nobody but itself takes what it made.
    build(&request, "own", &["-t", "web:dev"]).ok();
    build(&request, "own", &[]).ok();
    assert_eq!(server.count("/own"), 1);
    build(&ann, "own", &["-o", "type=cacheonly"]).ok();
    assert_eq!(server.count("/own"), 2);
    // Its names hide the trusted ones from itself alone.
    let id = |client: &tests::afar::Client, flags: &[&str]| {
        let outcome = client.run(&[&["inspect"], flags, &["web:dev"]].concat()).ok();
        let about: Value = serde_json::from_slice(&outcome.stdout).expect("JSON");
        about[0]["Id"].as_str().expect("an id").to_owned()
    };
    let (trusted, own) = (id(&ann, &[]), id(&request, &[]));
    assert_ne!(trusted, own);
    assert_eq!(id(&ann, &["--scope", "branch/pr"]), own, "who is trusted may look");
    request.run(&["rmi", "web:dev"]).ok();
    assert_eq!(id(&request, &[]), trusted, "what is not hidden any more is seen");
    request.run(&["rmi", "web:dev"]).fails(1).says("of the scope `web:trusted`");
    assert_eq!(id(&ann, &[]), trusted);
}

#[test]
fn a_request_narrows_its_scope_and_lowers_its_priority_but_never_the_other_way() {
    let (farm, ann) = farm(COUNTED);
    let server = farm.site().host("counter").serve(8080, |_| Response::new(200, "ok\n"));
    let address = format!("counter:{}", farm.site().host("counter").ip());
    let flags = ["--add-host", &address, "--build-arg", "WHAT=fix"];
    let build = |client: &tests::afar::Client, more: &[&str]| {
        client.write("Dockerfile", COUNTED);
        client.build(&[&flags[..], more].concat())
    };
    // What is made in a narrower scope is not made for all.
    build(&ann, &["--scope", "dev/ann", "--priority", "0"]).ok();
    build(&ann, &["--scope", "dev/ann"]).ok();
    assert_eq!(server.count("/fix"), 1);
    build(&ann, &[]).ok();
    assert_eq!(server.count("/fix"), 2);
    // Now it is there for everybody.
    let request = farm.client("pr", &["--project", "web", "--scope", "branch/pr"]);
    build(&request, &["--scope", "branch/pr/17"]).ok().says("CACHED");
    assert_eq!(server.count("/fix"), 2);
    for scope in ["trusted", "branch/other", "dev/ann", "shop:trusted"] {
        build(&request, &["--scope", scope]).fails(1).says("may not work in the scope");
        request.run(&["images", "--scope", scope]).fails(1).says("may not work in the scope");
    }
    build(&request, &["--scope", "main"]).fails(1).says("branch/NAME");
    build(&request, &["--priority", "9"]).fails(2).says("--priority");
}

#[test]
fn a_farm_that_is_away_is_a_clear_error_or_a_local_build() {
    let (farm, ann) = farm(APP);
    ann.build(&["-t", "app"]).ok();
    farm.stop("coordinator");
    ann.build(&["-t", "app"])
        .fails(1)
        .says("cannot reach the coordinator")
        .says("--fallback local");
    ann.run(&["images"]).fails(1).says("cannot reach the coordinator");
    let built = ann.build(&["-t", "app", "--fallback", "local"]).ok();
    built.says("WARNING: Cannot reach the coordinator").says("on this machine");
    assert_eq!(ann.run_here(&["run", "--rm", "app"]).ok().text(), "hello");
    ann.down();
}
