//! OCI layouts as contexts: `--build-context NAME=oci-layout://…`.

use std::fs;
use std::path::{Path, PathBuf};
use tests::corpus;
use tests::image::Image;
use tests::roles::Roles;
use tests::scratch::Scratch;
use tests::site::Site;
use tests::slipway::Slipway;

/// What lies in the layout, under two tags.
const BASE: &str = "
FROM conf/busybox:1
ENV GREETING=hello
WORKDIR /data
RUN echo $GREETING > said
";

/// What is built upon it, in all the ways that there are.
const APP: &str = "
FROM base AS one
RUN test \"$GREETING\" = hello && cat said > /by-from
COPY --from=base /data/said /by-copy
RUN --mount=from=base,source=/data,target=/m cat /m/said > /by-mount
FROM one
RUN cat /by-from /by-copy /by-mount > /all
";

/// A layout, written by a farm that nobody uses any more.
struct Layout {
    home: Scratch,
    image: Image,
}

impl Layout {
    fn new() -> Self {
        let home = Scratch::new("layout");
        let site = Site::of(BASE);
        let output =
            format!("type=oci,tar=false,name=base:one,dest={}", home.join("lay").display());
        site.build(&["-o", &output]).ok();
        let image = Image::only(&home.join("lay"));
        Self { home, image }
    }

    fn path(&self) -> PathBuf {
        self.home.join("lay")
    }

    fn flag(&self, rest: &str) -> String {
        format!("--build-context=base=oci-layout://{}{rest}", self.path().display())
    }

    /// A file of the layout.
    fn blob(&self, digest: &str) -> PathBuf {
        self.path().join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    /// The image was built upon the one of the layout.
    #[track_caller]
    fn assert_below(&self, app: &Image) {
        assert_eq!(app.env("GREETING"), Some("hello"));
        assert_eq!(app.config["config"]["WorkingDir"], "/data");
        let all = app.tree.entry("all");
        assert!(
            format!("{all:?}").contains(&tests::tree::sha256(&b"hello\nhello\nhello\n"[..])),
            "{all:?}"
        );
        let below = self.image.layers.len();
        assert_eq!(app.layers[..below], self.image.layers[..], "its layers as they were packed");
        let history = |image: &Image| image.config["history"].as_array().expect("a list").clone();
        let (own, whole) = (history(&self.image), history(app));
        assert_eq!(whole[..own.len()], own[..]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the tests is UTF-8")
}

fn context() -> Scratch {
    let context = Scratch::new("context");
    context.write("Dockerfile", APP);
    context
}

#[test]
fn a_layout_is_built_upon_without_a_registry() {
    let layout = Layout::new();
    let (slipway, context, out) = (Slipway::new(), context(), Scratch::new("out"));
    let archive = out.join("app.tar");
    let to = format!("type=oci,dest={}", text(&archive));
    for rest in [":one", "", &format!("@{}", digest(&layout))] {
        slipway.build(&[&layout.flag(rest), "-o", &to], context.path()).ok();
        layout.assert_below(&Image::only(&archive));
    }
    let again = slipway.build(&[&layout.flag(":one"), "-t", "app"], context.path()).ok();
    assert!(again.all().contains("CACHED"), "{again}");
    // What is kept needs the layout no more.
    fs::remove_dir_all(layout.path()).expect("the layout");
    slipway.run(&["save", "-o", text(&archive), "app"]).ok();
    layout.assert_below(&Image::only(&archive));
    slipway.assert_store_intact();
}

/// The digest of the layout's only manifest.
fn digest(layout: &Layout) -> String {
    let index = fs::read(layout.path().join("index.json")).expect("an index");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    index["manifests"][0]["digest"].as_str().expect("a digest").to_owned()
}

#[test]
fn a_layout_is_sent_to_a_farm() {
    let (layout, registry) = (Layout::new(), corpus::registry());
    let mut farm = Roles::new(&registry, 2);
    let (context, out) = (context(), Scratch::new("out"));
    let archive = out.join("app.tar");
    let to = format!("type=oci,dest={}", text(&archive));
    let flags = [&layout.flag(":one"), "-o", &to];
    farm.client.build(&flags, context.path()).ok().says("OCI load from client");
    layout.assert_below(&Image::only(&archive));
    farm.operate(&["cache", "verify"]).ok();
    farm.stop();
}

#[test]
fn a_layout_that_cannot_be_used_says_why() {
    let layout = Layout::new();
    let (slipway, context) = (Slipway::new(), context());
    let fails = |rest: &str| slipway.build(&[&layout.flag(rest)], context.path()).fails(1);
    fails(&format!("@sha256:{}", "0".repeat(64))).says("has no `blobs/sha256/000").says("base");
    let top = layout.blob(&layout.image.layers[0].sha256);
    let mut bytes = fs::read(&top).expect("a layer");
    *bytes.last_mut().expect("a layer is not empty") ^= 1;
    fs::write(&top, &bytes).expect("writing");
    fails(":one").says("is damaged");
    fs::remove_file(&top).expect("a layer");
    fails(":one").says("has no `blobs/sha256/");
    fs::remove_file(layout.path().join("index.json")).expect("an index");
    fails(":one").says("no `index.json`");
    fails("/nowhere").says("nowhere");
    slipway.build(&[&layout.flag("@latest")], context.path()).fails(1).says("oci-layout://");
}
