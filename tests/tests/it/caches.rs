//! Caches outside of a farm: `--cache-to` and `--cache-from`.

use crate::cache::until;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::command::Outcome;
use tests::registry::{PASSWORD, Registry, USER};
use tests::scratch::Scratch;
use tests::site::Site;
use tests::slipway::Slipway;

/// Steps whose results nobody makes twice: with moments in them, and with what a tar cannot say.
const STEPS: &str = r#"
FROM conf/busybox:1 AS tool
RUN mkdir /tool && date +%s%N > /tool/stamp && ln /tool/stamp /tool/hard && mkfifo /tool/fifo
FROM conf/busybox:1
RUN mkdir /app && cat /proc/sys/kernel/random/uuid > /app/one && ln /app/one /app/hard
COPY --from=tool /tool /tool
COPY src /src
WORKDIR /work
ARG LATE
RUN cat /src/a && echo "$LATE" > late && cat /proc/sys/kernel/random/uuid > /when
"#;

fn site() -> Site {
    let site = Site::of(STEPS);
    site.write("src/a", "a\n");
    site
}

/// Another machine, which knows nothing yet.
fn machine(site: &Site) -> Slipway {
    Slipway::with_mirror(&site.registry)
}

/// How many steps were found.
fn cached(outcome: &Outcome) -> usize {
    outcome.all().lines().filter(|line| line.ends_with(" CACHED")).count()
}

/// How many blobs were read from a registry, and written to it.
fn moved(registry: &Registry) -> (usize, usize) {
    (registry.requests("GET", "/blobs/"), registry.requests("PUT", "/blobs/uploads/"))
}

/// The id of the image that is built with these flags.
fn id(slipway: &Slipway, site: &Site, flags: &[&str]) -> String {
    slipway.build(&[&["-q"], flags].concat(), site.context.path()).ok().text()
}

#[test]
fn a_registry_carries_results_from_machine_to_machine() {
    let (site, registry) = (site(), Registry::empty());
    let name = registry.image("team/cache:main");
    let to = format!("type=registry,ref={name},mode=max");
    let from = format!("type=registry,ref={name}");
    let first = id(&site.slipway, &site, &["--cache-to", &to]);

    // Nothing runs, and nothing is fetched but what says so.
    let second = machine(&site);
    let before = (moved(&registry), moved(&site.registry));
    let quiet = ["-o", "type=cacheonly", "--cache-from", &from];
    let outcome = second.build(&quiet, site.context.path()).ok();
    assert_eq!(cached(&outcome), 5, "the steps of the image: {}", outcome.all());
    let after = (moved(&registry), moved(&site.registry));
    assert_eq!(after.0, (before.0.0 + 1, before.0.1), "the config alone");
    assert!(after.1.0 <= before.1.0 + 1, "of the base image at most the config");

    // The image is the same.
    assert_eq!(id(&second, &site, &["--cache-from", &from]), first);

    // A late step needs the files of its own stage: four layers, each in two blobs.
    let third = machine(&site);
    let before = moved(&registry).0;
    let late = ["-o", "type=cacheonly", "--cache-from", &name, "--build-arg", "LATE=1"];
    let outcome = third.build(&late, site.context.path()).ok();
    assert_eq!(cached(&outcome), 4, "{}", outcome.all());
    assert_eq!(moved(&registry).0, before + 1 + 8, "not the layer of the other stage");

    // What came is kept: without the cache nothing but the last step runs.
    let outcome = third.build(&["-o", "type=cacheonly"], site.context.path()).ok();
    assert_eq!(cached(&outcome), 5, "with the base image: {}", outcome.all());
    third.assert_store_intact();
    second.assert_store_intact();
}

#[test]
fn what_the_registry_has_is_not_sent_again() {
    let (site, registry) = (site(), Registry::empty());
    let to = format!("type=registry,ref={},mode=max", registry.image("team/cache"));
    let build = |slipway: &Slipway, more: &[&str]| {
        let flags = [&["-o", "type=cacheonly", "--cache-to", &to], more].concat();
        slipway.build(&flags, site.context.path()).ok();
    };
    build(&site.slipway, &[]);
    let manifest = registry.manifest("team/cache");
    let layers = manifest["layers"].as_array().expect("a list").len();
    assert_eq!(layers, 2 * 6, "the layers of both stages");
    let (_, sent) = moved(&registry);
    build(&site.slipway, &[]);
    assert_eq!(moved(&registry).1, sent, "a second time");
    assert_eq!(registry.manifest("team/cache"), manifest);

    // A machine that has none of it gives all of it on, and fetches nothing for that.
    let other = machine(&site);
    let from = registry.image("team/cache");
    let got = moved(&registry).0;
    build(&other, &["--cache-from", &from]);
    assert_eq!(moved(&registry), (got + 1, sent), "from the cache to itself");
    assert_eq!(registry.manifest("team/cache"), manifest);
    let elsewhere = format!("type=registry,ref={},mode=max", registry.image("team/copy"));
    let flags = ["-o", "type=cacheonly", "--cache-from", &from, "--cache-to", &elsewhere];
    other.build(&flags, site.context.path()).ok();
    assert_eq!(moved(&registry), (got + 2, sent + 1), "layers of another repository are mounted");
    assert_eq!(registry.manifest("team/copy"), manifest);
    // And to another registry by way of this machine.
    let away = Registry::empty();
    let elsewhere = format!("type=registry,ref={},mode=max", away.image("team/cache"));
    let flags = ["-o", "type=cacheonly", "--cache-from", &from, "--cache-to", &elsewhere];
    other.build(&flags, site.context.path()).ok();
    assert_eq!(away.manifest("team/cache"), manifest);
}

#[test]
fn the_smaller_mode_has_the_steps_of_the_image() {
    let (site, registry) = (site(), Registry::empty());
    let name = registry.image("team/cache:min");
    let first = id(&site.slipway, &site, &["--cache-to", &name]);
    let layers = registry.manifest("team/cache:min")["layers"].as_array().expect("a list").len();
    assert_eq!(layers, 2 * 5);
    let second = machine(&site);
    assert_eq!(id(&second, &site, &["--cache-from", &name]), first, "the image needs no more");
    let third = machine(&site);
    let flags = ["--target", "tool", "-o", "type=cacheonly", "--cache-from", &name];
    let outcome = third.build(&flags, site.context.path()).ok();
    assert_eq!(cached(&outcome), 0, "{}", outcome.all());
}

/// No layer has the bytes; who takes the cache has them all the same.
#[test]
fn a_step_whose_change_no_layer_has_runs_again() {
    let (site, registry) = (
        Site::of(
            "FROM conf/busybox:1\n\
             RUN echo old > /f\n\
             RUN touch -r /f /t && echo new > /f && touch -r /t /f && rm /t\n\
             ARG LATE\n\
             RUN echo it is $(cat /f) $LATE\n",
        ),
        Registry::empty(),
    );
    let name = registry.image("team/cache:main");
    site.build(&["--cache-to", &format!("type=registry,ref={name},mode=max")]).ok();
    let late = ["--cache-from", &name, "--build-arg", "LATE=now"];
    let outcome = machine(&site).build(&late, site.context.path()).ok().says("it is new now");
    assert_eq!(cached(&outcome), 1, "{}", outcome.all());
}

/// A path as flags have it.
fn local(key: &str, path: &Path) -> String {
    format!("type=local,{key}={}", path.display())
}

#[test]
fn a_directory_carries_results_too() {
    let (site, scratch) = (site(), Scratch::new("caches"));
    let (one, two) = (scratch.join("one"), scratch.join("two"));
    let to = |path: &Path| format!("{},mode=max", local("dest", path));
    let first = id(&site.slipway, &site, &["--cache-to", &to(&one)]);
    let blobs = |path: &Path| {
        let entries = fs::read_dir(path.join("blobs/sha256")).expect("a directory");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    // The copy of a stage's layer has the same files as that.
    assert_eq!(blobs(&one).len(), 2 * 6 - 1 + 2);

    // From one to the other, as jobs with a fresh machine do.
    let second = machine(&site);
    let from = local("src", &one);
    let flags = ["-o", "type=cacheonly", "--cache-from", &from, "--cache-to", &to(&two)];
    let outcome = second.build(&flags, site.context.path()).ok();
    assert_eq!(cached(&outcome), 5, "{}", outcome.all());
    assert_eq!(blobs(&one), blobs(&two));
    let third = machine(&site);
    let from = local("src", &two);
    assert_eq!(id(&third, &site, &["--cache-from", &from]), first);
    // What is sent of a cache is counted: its documents at least, and layers that are needed.
    let metadata = scratch.join("metadata.json");
    let output = local("dest", &scratch.join("files"));
    let told = metadata.display().to_string();
    let flags = ["-o", &output, "--cache-from", &from, "--metadata-file", &told];
    machine(&site).build(&flags, site.context.path()).ok();
    let sent = json(&metadata)["slipway.build"]["movedBytes"]["context"].as_u64();
    let manifest = &json(&two.join("index.json"))["manifests"][0];
    let config = &json(&blob(&two, &manifest["digest"]))["config"];
    let least: u64 = [manifest, config].map(|p| p["size"].as_u64().expect("a size")).iter().sum();
    assert!(sent.is_some_and(|sent| sent > least), "{sent:?} of at least {least}");
    // And from a directory to a registry.
    let registry = Registry::empty();
    let to = format!("type=registry,ref={},mode=max", registry.image("a/b"));
    let fourth = machine(&site);
    let flags = ["-o", "type=cacheonly", "--cache-from", &from, "--cache-to", &to];
    fourth.build(&flags, site.context.path()).ok();
    assert_eq!(id(&machine(&site), &site, &["--cache-from", &registry.image("a/b")]), first);
}

#[test]
fn other_types_are_refused_or_left_out() {
    let site = site();
    for (kind, says) in [
        ("type=inline", "type=registry"),
        ("type=gha", "actions/cache"),
        ("type=s3,bucket=x", "type=registry"),
        ("type=azblob", "type=registry"),
        ("type=local", "dest=DIRECTORY"),
        ("type=registry,ref=a,mode=most", "min or max"),
    ] {
        let outcome = site.build(&["--cache-to", kind]).fails(2).says("--cache-to").says(says);
        outcome.never_says("load build definition");
    }
    let (registry, nothing) = (Registry::empty(), Scratch::new("nothing"));
    let missing = registry.image("team/none");
    let directory = local("src", &nothing.join("none"));
    for (cache, says) in [
        ("type=gha", "actions/cache"),
        (missing.as_str(), "was not found"),
        (directory.as_str(), "index.json"),
    ] {
        let outcome = site.build(&["-o", "type=cacheonly", "--cache-from", cache]).ok();
        outcome.says("is not used").says(says);
    }
    let image = site.registry.image("conf/busybox:1");
    let outcome = site.build(&["-o", "type=cacheonly", "--cache-from", &image]).ok();
    outcome.says("is not used").says("not a cache");
    let buildkits = nothing.directory("buildkit");
    let index =
        r#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:DIGEST","size":1}]}"#;
    let manifest = r#"{"schemaVersion":2,"manifests":[{"mediaType":
        "application/vnd.buildkit.cacheconfig.v0","digest":"sha256:0","size":1}]}"#;
    let digest = tests::tree::sha256(manifest.as_bytes());
    nothing.write(&format!("buildkit/blobs/sha256/{digest}"), manifest);
    nothing.write("buildkit/index.json", index.replace("DIGEST", &digest));
    let flags = ["-o", "type=cacheonly", "--cache-from", &local("src", &buildkits)];
    site.build(&flags).ok().says("is not used").says("BuildKit");
}

#[test]
fn a_dockerfile_that_is_none_waits_for_no_cache() {
    // It takes connections, and never says anything.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let cache = format!("{}/team/cache", silent.local_addr().expect("its address"));
    let site = Site::of("FROM conf/busybox:1\nNONSENSE\n");
    let outcome = site.build(&["-o", "type=cacheonly", "--cache-from", &cache]).fails(1);
    let outcome = outcome.says("NONSENSE");
    assert!(outcome.took < Duration::from_secs(30), "{outcome}");
}

#[test]
fn a_client_that_is_killed_keeps_no_layer_from_others() {
    let site = Site::of(
        "FROM conf/busybox:1\nRUN head -c 64000000 /dev/urandom > /large\nARG LATE\n\
         RUN wc -c < /large && echo $LATE\n",
    );
    let scratch = Scratch::new("caches");
    let path = scratch.join("cache");
    let to = format!("{},mode=max", local("dest", &path));
    site.build(&["-o", "type=cacheonly", "--cache-to", &to]).ok();
    let (second, from) = (machine(&site), local("src", &path));
    let context = site.context.path().to_str().expect("UTF-8");
    let flags = ["build", "--build-arg", "LATE=1", "-o", "type=cacheonly", "--cache-from", &from];
    let flags = [&flags[..], &[context]].concat();
    let first = second.start(&flags);
    until("a layer is asked for", || first.so_far().contains("importing cache layer"));
    // It cannot answer any more, and says no word about it.
    first.signal(Signal::STOP);
    first.signal(Signal::KILL);
    second.run(&flags).ok().says("64000000");
    drop(first);
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON")
}

/// A blob of a cache in a directory.
fn blob(cache: &Path, digest: &Value) -> PathBuf {
    let name = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:"));
    cache.join("blobs/sha256").join(name.expect("a digest"))
}

#[test]
fn a_lost_layer_that_comes_out_the_same_again_is_taken() {
    let (context, scratch) = (Scratch::new("context"), Scratch::new("caches"));
    context.write("a", "a");
    context.write("Dockerfile", "FROM scratch\nCOPY a /a\n");
    let path = scratch.join("cache");
    let to = format!("{},mode=max", local("dest", &path));
    Slipway::new().build(&["-o", "type=cacheonly", "--cache-to", &to], context.path()).ok();
    let manifest = blob(&path, &json(&path.join("index.json"))["manifests"][0]["digest"]);
    for layer in json(&manifest)["layers"].as_array().expect("a list") {
        fs::remove_file(blob(&path, &layer["digest"])).expect("removing");
    }
    let (second, from) = (Slipway::new(), local("src", &path));
    let outcome = second.build(&["-t", "app", "--cache-from", &from], context.path()).ok();
    outcome.says("cannot be had").says("runs again");
}

#[test]
fn a_damaged_layer_is_written_again_under_its_name() {
    let (context, scratch) = (Scratch::new("context"), Scratch::new("caches"));
    context.write("a", "a");
    context.write("Dockerfile", "FROM scratch\nCOPY a /a\n");
    let path = scratch.join("cache");
    let (to, from) = (format!("{},mode=max", local("dest", &path)), local("src", &path));
    Slipway::new().build(&["-o", "type=cacheonly", "--cache-to", &to], context.path()).ok();
    let manifest = blob(&path, &json(&path.join("index.json"))["manifests"][0]["digest"]);
    for layer in json(&manifest)["layers"].as_array().expect("a list") {
        damage(&blob(&path, &layer["digest"]));
    }
    let both = ["-t", "app", "--cache-from", &from, "--cache-to", &to];
    Slipway::new().build(&both, context.path()).ok().says("runs again");
    for entry in fs::read_dir(path.join("blobs/sha256")).expect("a directory") {
        let file = entry.expect("an entry").path();
        let digest = tests::tree::sha256(fs::File::open(&file).expect("a file"));
        assert!(file.ends_with(&digest), "{} is {digest}", file.display());
    }
    Slipway::new().build(&both, context.path()).ok().never_says("WARNING").never_says("again");
}

/// Other bytes in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(path, bytes).expect("writing");
}

#[test]
fn a_damaged_cache_costs_the_steps_that_it_has_lost() {
    let (site, scratch) = (site(), Scratch::new("caches"));
    let path = scratch.join("cache");
    let to = format!("{},mode=max", local("dest", &path));
    site.build(&["-o", "type=cacheonly", "--cache-to", &to]).ok();
    let blob = |digest: &Value| blob(&path, digest);
    let manifest = blob(&json(&path.join("index.json"))["manifests"][0]["digest"]);
    let read = json(&manifest);
    // All layers, one by one in their files or their trees.
    let layers = read["layers"].as_array().expect("a list");
    for (at, pair) in layers.chunks(2).enumerate() {
        let file = blob(&pair[at % 2]["digest"]);
        // Two layers may have the same files.
        match (file.exists(), at % 3) {
            (false, _) => {}
            (true, 0) => fs::remove_file(&file).expect("removing"),
            (true, _) => damage(&file),
        }
    }
    let from = local("src", &path);
    let second = machine(&site);
    let flags = ["-t", "app", "--cache-from", &from];
    let outcome = second.build(&flags, site.context.path()).ok();
    outcome.says("cannot be had").says("runs again");
    let shown = second.run(&["run", "--rm", "app", "cat", "/src/a", "/work/late"]).ok().text();
    assert_eq!(shown, "a");
    second.assert_store_intact();
    // Without its config it is nothing.
    damage(&blob(&read["config"]["digest"]));
    let third = machine(&site);
    let outcome = third.build(&flags, site.context.path()).ok().says("is not used");
    assert_eq!(cached(&outcome), 0);
    fs::write(&manifest, "{").expect("writing");
    third.build(&flags, site.context.path()).ok().says("is not used");
}

#[test]
fn a_login_is_asked_of_the_client() {
    let (guarded, authority) = Registry::guarded();
    let site = site();
    let mirrors = format!("[registry.\"docker.io\"]\nmirrors = [{:?}]\n", site.registry.url());
    let own = format!("[registry.{:?}]\nca = [{authority:?}]\n", guarded.address());
    site.slipway.settings(&(mirrors + &own));
    let name = guarded.image("private/cache");
    let to = format!("type=registry,ref={name}");
    site.build(&["-o", "type=cacheonly", "--cache-to", &to]).fails(1).says(guarded.address());
    let may_fail = format!("{to},ignore-error=true");
    site.build(&["-o", "type=cacheonly", "--cache-to", &may_fail]).ok().says("is not written");
    let helper = format!(
        "#!/bin/sh\nread host\necho '{{\"Username\": \"{USER}\", \"Secret\": \"{PASSWORD}\"}}'\n"
    );
    let program =
        tests::scratch::write(&site.slipway.user_home(), "bin/docker-credential-tests", helper);
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a new file");
    let path = program.parent().expect("below bin").display().to_string();
    let config = format!(r#"{{"credHelpers": {{"{}": "tests"}}}}"#, guarded.address());
    tests::scratch::write(&site.slipway.user_home(), ".docker/config.json", config);
    let mut slipway = site.slipway.command(&["build", "-o", "type=cacheonly", "--cache-to", &to]);
    slipway.env("PATH", format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin"));
    tests::command::run(slipway.arg(site.context.path())).ok();
}
