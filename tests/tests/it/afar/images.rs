//! The image store of a farm, by the commands around images.

use super::{APP, farm};
use serde_json::Value;
use tests::afar::{Afar, Client};
use tests::command::Outcome;
use tests::image::Image;
use tests::mirror::REGISTRY;

fn json(outcome: &Outcome) -> Value {
    serde_json::from_slice(&outcome.stdout).unwrap_or_else(|e| panic!("{e}\n{outcome}"))
}

#[test]
fn images_are_named_looked_at_and_removed() {
    let (farm, ann) = farm(APP);
    ann.build(&["-t", "app:1", "-t", "app:2"]).ok();
    let id = ann.run(&["images", "-q", "--no-trunc", "app:1"]).ok().text();
    assert!(id.starts_with("sha256:"), "{id}");
    let about = json(&ann.run(&["inspect", "app:1"]).ok());
    assert_eq!(
        (&about[0]["Id"], &about[0]["Config"]["Cmd"][0]),
        (&id.clone().into(), &"cat".into())
    );
    assert!(about[0]["Size"].as_u64().is_some_and(|size| size > 100_000), "{about}");
    ann.run(&["history", "--no-trunc", "app:1"]).ok().says("echo $GREETING > /said");
    ann.run(&["tag", "app:1", "stable"]).ok();
    // A colleague of the same project sees the same, another project nothing of it.
    let bob = farm.client("bob", &["--project", "web"]);
    assert_eq!(bob.run(&["images", "-q", "--no-trunc", "stable"]).ok().text(), id);
    let eve = farm.client("eve", &["--project", "shop"]);
    assert_eq!(eve.run(&["images", "-q"]).ok().text(), "");
    eve.run(&["inspect", "app:1"]).fails(1).says("app:1");
    eve.run(&["rmi", "app:1"]).fails(1).says("app:1");
    let build = bob.run(&["builds", "-q"]).ok().text();
    assert_eq!(build.lines().count(), 1, "{build}");
    bob.run(&["logs", &build]).ok().says("RUN echo hello");
    bob.run(&["explain", &build]).ok().says("miss: nothing like it was built before");
    assert_eq!(eve.run(&["builds", "-q"]).ok().text(), "");
    for command in ["logs", "explain", "cancel"] {
        eve.run(&[command, &build]).fails(1).says("There is no build");
    }
    // Who builds upon a name of the farm's gets the farm's image.
    ann.write(
        "Dockerfile",
        "FROM stable\nRUN test \"$(cat /said)\" = hello && echo more > /more\n",
    );
    ann.build(&["-t", "more"]).ok();
    let eves = eve.host.clone();
    eves.write("/root/context/Dockerfile", "FROM stable\nRUN true\n");
    eve.build(&["-t", "more"]).fails(1).says("stable");
    ann.run(&["rmi", "app:1", "stable"]).ok().says("Untagged: app:1");
    bob.run(&["inspect", "stable"]).fails(1).says("stable");
    assert_eq!(json(&bob.run(&["inspect", "app:2"]).ok())[0]["Id"], id);
    ann.run(&["rmi", "app:2", "more"]).ok().says("Deleted: sha256:");
    assert_eq!(bob.run(&["images", "-q"]).ok().text(), "");
}

#[test]
fn images_go_to_and_from_registries_and_archives() {
    let (farm, ann) = farm(APP);
    ann.run(&["pull", "conf/busybox:1"]).ok().says("Digest: sha256:");
    let base = json(&ann.run(&["inspect", "conf/busybox:1"]).ok())[0]["Id"].clone();
    ann.build(&["-t", "app"]).ok();
    let id = json(&ann.run(&["inspect", "app"]).ok())[0]["Id"].clone();
    for (source, name) in [("app", "team/app:1"), ("conf/busybox:1", "team/base:1")] {
        let name = format!("{REGISTRY}/{name}");
        ann.run(&["tag", source, &name]).ok();
        ann.run(&["push", &name]).ok().says("digest: sha256:");
        ann.run(&["rmi", &name]).ok();
    }
    ann.run(&["push", "no-such-image"]).fails(1).says("no-such-image");
    // Another project, which has nothing of it, gets the same images.
    let bob = farm.client("bob", &["--project", "shop"]);
    for (name, id) in [("team/app:1", &id), ("team/base:1", &base)] {
        let name = format!("{REGISTRY}/{name}");
        bob.run(&["pull", &name]).ok();
        assert_eq!(json(&bob.run(&["inspect", &name]).ok())[0]["Id"], *id);
    }
    for format in ["docker", "oci"] {
        let file = format!("/root/{format}.tar");
        ann.run(&["save", "--format", format, "-o", &file, "app", "conf/busybox:1"]).ok();
        ann.run(&["rmi", "app", "conf/busybox:1"]).ok();
        ann.run(&["load", "-i", &file]).ok().says("app").says("conf/busybox:1");
        assert_eq!(json(&ann.run(&["inspect", "app"]).ok())[0]["Id"], id, "{format}");
        assert_eq!(json(&ann.run(&["inspect", "conf/busybox:1"]).ok())[0]["Id"], base, "{format}");
    }
    let piped = ann.run(&["save", "app"]).ok();
    eprintln!("{} bytes", piped.stdout.len());
    let carl = farm.client("carl", &["--project", "other"]);
    carl.run_with(&["load"], &piped.stdout).ok().says("Loaded image: app:latest");
    carl.run(&["save", "-o", "/root/again.tar", "app"]).ok();
    assert_eq!(Image::only(&carl.host.path("/root/again.tar")).id, id);
    // What came by an archive alone can be pushed.
    let copy = format!("{REGISTRY}/carl/app:1");
    carl.run(&["tag", "app", &copy]).ok();
    carl.run(&["push", &copy]).ok();
    carl.run_with(&["load"], b"this is no archive").fails(1);
    carl.run_with(&["load"], &piped.stdout[..piped.stdout.len() / 2]).fails(1);
}

#[test]
fn another_worker_pushes_and_saves_what_one_had_packed() {
    let farm = Afar::new(1, 1);
    let ann = farm.client("ann", &[]);
    ann.write("Dockerfile", APP);
    ann.build(&["-t", "app"]).ok();
    ann.run(&["save", "-o", "/root/app.tar", "app"]).ok();
    let expected = Image::only(&ann.host.path("/root/app.tar"));
    let fetched = |farm: &Afar| farm.requests("GET", "/conf/busybox/blobs/");
    let send = |client: &Client| {
        let name = format!("{REGISTRY}/{}/app:1", client.host.name());
        client.run(&["tag", "app", &name]).ok();
        client.run(&["push", &name]).ok();
        client.run(&["save", "-o", "/root/again.tar", "app"]).ok();
        let saved = Image::only(&client.host.path("/root/again.tar"));
        assert_eq!(saved.id, expected.id);
        saved.assert_same_files(&expected, "saved again");
    };
    // Packed layers of the base come from its registry once more.
    farm.add("worker", "worker-2");
    farm.stop("worker-1");
    let before = fetched(&farm);
    send(&ann);
    assert!(fetched(&farm) > before, "the other worker had no layer of the base");
    // Those of an archive that was loaded are in the farm.
    let bob = farm.client("bob", &["--project", "shop"]);
    bob.run_with(&["load"], &ann.host.read("/root/app.tar")).ok();
    farm.add("worker", "worker-3");
    farm.stop("worker-2");
    let before = fetched(&farm);
    send(&bob);
    assert_eq!(fetched(&farm), before, "nobody asks the registry");
}

#[test]
fn an_image_of_the_farm_runs_on_the_clients_machine() {
    let (_farm, ann) = farm(APP);
    ann.build(&["-t", "app"]).ok();
    assert_eq!(ann.run(&["run", "--rm", "app"]).ok().says("fetching").text(), "hello");
    let again = ann.run(&["run", "--rm", "app", "echo", "again"]).ok().never_says("fetching");
    assert_eq!(again.text(), "again");
    // This machine's own names are its own.
    assert_eq!(ann.run_here(&["images", "-q", "app"]).ok().text(), "");
    // What the farm does not have comes from its registry.
    assert_eq!(ann.run(&["run", "--rm", "conf/busybox:1", "echo", "base"]).ok().text(), "base");
    ann.down();
}

#[test]
fn the_cache_of_all_nodes_is_looked_after_by_operators() {
    let (farm, ann) = farm(APP);
    ann.build(&["-t", "app"]).ok();
    let total = |text: &str| text.lines().any(|line| line.starts_with("total"));
    let held = ann.run(&["cache", "du"]).ok().says("trees and records").text();
    assert!(total(&held), "{held}");
    for command in [&["cache", "prune", "--force"][..], &["cache", "verify"]] {
        ann.run(command).fails(1).says("Only who looks after the farm");
    }
    let admin = farm.client("admin", &["--admin"]);
    admin.run(&["cache", "verify"]).ok().says("Nothing is damaged");
    admin.run(&["cache", "prune", "--all", "--force"]).ok().says("Reclaimed");
    // An image that has a name stays, and what it needs with it.
    ann.run(&["save", "-o", "/root/app.tar", "app"]).ok();
    assert!(Image::only(&ann.host.path("/root/app.tar")).tree.has("said"));
    farm.operate(&["cache", "du"]).ok().says("trees and records");
}
