//! What comes out is read and run by other people's tools: Docker, skopeo, buildah.

use std::process::Command;
use tests::command::{command, run};
use tests::engine::Engine;
use tests::image::Image;
use tests::scratch::Scratch;
use tests::site::Site;
use tests::tool::tool;

const HELLO: &str = r#"
FROM conf/busybox:1 AS build
RUN echo "hello from $(id -u)" > /message
FROM conf/busybox:1
COPY --from=build /message /message
ENV GREETING=yes
USER app
CMD ["sh", "-c", "cat /message; echo $GREETING; id -un"]
"#;
const SAID: &str = "hello from 0\nyes\napp";

#[test]
fn docker_loads_and_runs_it() {
    let (site, engine, out) = (Site::of(HELLO), Engine::start(None), Scratch::new("out"));
    let runs = |name: &str| {
        let said = engine.docker(&["run", "--rm", "--network=none", name]).ok();
        assert_eq!(said.text(), SAID);
        engine.docker(&["rmi", "-f", name]).ok();
    };
    // Straight into the engine.
    let slipway = site.slipway.command(&["build", "-t", "direct", "--load"]);
    let mut slipway = into(slipway, &engine);
    run(slipway.arg(site.context.path())).ok();
    let id = site.image_id(&[]);
    let there = engine.docker(&["image", "inspect", "-f", "{{.Id}}", "direct"]).ok().text();
    assert_eq!(there, id, "the engine has the image under the same id");
    runs("direct");
    // By archives of both kinds, and `save`.
    for (kind, name) in [("docker", "first"), ("oci", "second")] {
        let file = out.join(name);
        let output = format!("type={kind},dest={}", file.display());
        site.build(&["-o", &output, "-t", name]).ok();
        engine.docker(&["load", "-i", file.to_str().expect("UTF-8")]).ok().says(name);
        runs(name);
    }
    site.build(&["-t", "saved"]).ok();
    let file = out.join("saved");
    let file = file.to_str().expect("UTF-8");
    site.slipway.run(&["save", "-o", file, "saved"]).ok();
    engine.docker(&["load", "-i", file]).ok();
    runs("saved");
}

fn into(mut slipway: Command, engine: &Engine) -> Command {
    slipway.env("DOCKER_HOST", engine.host());
    slipway
}

#[test]
fn slipway_loads_and_runs_what_docker_saves() {
    let (site, engine, out) = (Site::of(HELLO), Engine::start(None), Scratch::new("out"));
    let file = out.join("image.tar");
    let file = file.to_str().expect("UTF-8");
    site.build(&["-t", "app", "-o", &format!("type=docker,dest={file}")]).ok();
    engine.docker(&["load", "-i", file]).ok();
    engine.docker(&["tag", "app", "again:2"]).ok();
    engine.docker(&["save", "-o", file, "again:2"]).ok();
    site.slipway.run(&["load", "-i", file]).ok().says("again:2");
    assert_eq!(site.run("again:2", &[]).ok().text(), SAID);
}

#[test]
fn skopeo_and_buildah_read_and_run_it() {
    let (site, out) = (Site::of(HELLO), Scratch::new("out"));
    let home = out.directory("home");
    for (kind, transport) in [("oci", "oci-archive"), ("docker", "docker-archive")] {
        let file = out.join(kind);
        site.build(&["-t", "app", "-o", &format!("type={kind},dest={}", file.display())]).ok();
        let source = format!("{transport}:{}", file.display());
        let copy = out.join(format!("{kind}-copy"));
        let mut skopeo = command(tool("skopeo"));
        skopeo.args(["--insecure-policy", "copy", "--quiet", &source]);
        run(skopeo.arg(format!("oci:{}", copy.display())).env("HOME", &home)).ok();
        Image::only(&copy).assert_same_files(&Image::only(&file), "skopeo's copy and the image");
        assert_eq!(run_by_buildah(&out, &source), SAID, "{source}");
    }
}

/// What an image's command says in a container of buildah's.
fn run_by_buildah(out: &Scratch, source: &str) -> String {
    let buildah = |args: &[&str]| {
        let mut buildah = command(tool("buildah"));
        buildah.env("HOME", out.path()).env("BUILDAH_ISOLATION", "chroot");
        buildah.env("TMPDIR", out.directory("tmp"));
        buildah.arg("--root").arg(out.join("root")).arg("--runroot").arg(out.join("runroot"));
        run(buildah.args(["--storage-driver", "vfs"]).args(args)).ok().text()
    };
    let policy = out.write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
    let policy = policy.to_str().expect("UTF-8");
    let container = buildah(&["from", "--signature-policy", policy, source]);
    let script = "cat /message; echo $GREETING; id -un";
    let said = buildah(&["run", &container, "sh", "-c", script]);
    buildah(&["rm", &container]);
    said
}
