//! What a build leaves: images, archives, files, and what scripts read of it.

use std::fs;
use tests::image::Image;
use tests::registry::Registry;
use tests::scratch::Scratch;
use tests::site::Site;
use tests::tree::{Kind, Tree, sha256};

/// Files of many kinds, made by COPY and RUN.
pub const FILES: &str = r#"
FROM conf/busybox:1 AS made
RUN mkdir -p /made/deep/er && echo text > /made/deep/er/file && ln -s deep/er /made/link \
 && ln /made/deep/er/file /made/hard && chmod 4755 /made/hard && mkfifo /made/fifo \
 && chown 1000:2000 /made/deep && chmod 1777 /made/deep && : > /made/empty

FROM scratch
COPY --from=made /made /made
COPY --chown=7:8 --chmod=0640 given /given/
ENV WHO=world
ENTRYPOINT ["/made/hard"]
"#;

/// The files of its context.
pub fn given() -> [(&'static str, Vec<u8>); 2] {
    let large = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    [("given/a.txt", b"a\n".to_vec()), ("given/b/c.bin", large)]
}

fn site() -> Site {
    let site = Site::of(FILES);
    given().into_iter().for_each(|(name, content)| drop(site.write(name, content)));
    site
}

/// An output's flag, with a path for it.
fn output(scratch: &Scratch, kind: &str, name: &str) -> String {
    format!("type={kind},dest={}", scratch.join(name).display())
}

#[test]
fn all_outputs_have_the_same_files() {
    let (site, out) = (site(), Scratch::new("out"));
    let archive = |kind: &str| {
        let name = kind.replace(',', "-");
        site.build(&["-o", &output(&out, kind, &name)]).ok();
        Image::only(&out.join(name))
    };
    let oci = archive("oci");
    assert_eq!(oci.env("WHO"), Some("world"));
    assert_eq!(oci.config["config"]["Entrypoint"][0], "/made/hard");
    let entry = |path: &str| oci.tree.entry(path).clone();
    assert_eq!((entry("made/deep").mode, entry("made/deep").uid), (0o1777, 1000));
    assert_eq!(entry("made/hard").mode, 0o4755);
    assert_eq!(entry("made/link").kind, Kind::Symlink { to: "deep/er".to_owned() });
    assert_eq!(entry("made/fifo").kind, Kind::Fifo);
    let given = entry("given/a.txt");
    assert_eq!((given.mode, given.uid, given.gid), (0o640, 7, 8));
    for kind in ["docker", "oci,compression=zstd", "oci,compression=uncompressed", "oci,tar=false"]
    {
        archive(kind).assert_same_files(&oci, kind);
    }
    site.build(&["-o", &output(&out, "tar", "files.tar")]).ok();
    let tar = fs::File::open(out.join("files.tar")).expect("a tar of the files");
    Tree::of_archive(tar).assert_same(&oci.tree, "the tar's files and the image's");
    site.build(&["-o", out.join("dir").to_str().expect("UTF-8")]).ok();
    let owned = |tree: Tree| tree.without_owners();
    owned(Tree::of_directory(&out.join("dir")))
        .assert_same(&owned(oci.tree), "the directory's files and the image's");
}

#[test]
fn a_tar_goes_to_standard_output_and_progress_does_not() {
    let site = site();
    let tar = site.build(&["-o", "-"]).ok();
    assert!(Tree::of_archive(&tar.stdout[..]).has("made/deep/er/file"));
    let same = site.build(&["-o", "type=tar,dest=-"]).ok();
    assert_eq!(sha256(&same.stdout[..]), sha256(&tar.stdout[..]));
    let docker = site.build(&["-o", "type=docker,dest=-", "-t", "app"]).ok();
    let out = Scratch::new("out");
    let image = Image::only(&out.write("image.tar", &docker.stdout));
    assert!(image.tree.has("given/b/c.bin"));
    assert!(image.names.iter().any(|name| name.ends_with("app:latest")), "{:?}", image.names);
}

#[test]
fn archives_are_the_same_bytes_from_run_to_run() {
    let (site, out) = (site(), Scratch::new("out"));
    for kind in ["oci", "docker", "oci,compression=zstd", "tar"] {
        let hash = |name: &str| {
            site.build(&["-o", &output(&out, kind, name)]).ok();
            sha256(fs::File::open(out.join(name)).expect("an archive"))
        };
        let first = hash("1");
        assert_eq!(hash("2"), first, "{kind}: the second run");
        site.slipway.stop();
        assert_eq!(hash("3"), first, "{kind}: after a new start of the farm");
    }
}

#[test]
fn several_outputs_come_of_one_build() {
    let (site, out) = (site(), Scratch::new("out"));
    let (one, two) = (output(&out, "oci", "one.tar"), output(&out, "local", "two"));
    site.build(&["-o", &one, "-o", &two, "-o", "type=image,name=three"]).ok();
    let image = Image::only(&out.join("one.tar"));
    assert!(image.tree.has("made/empty"));
    assert_eq!(fs::read_to_string(out.join("two/given/a.txt")).expect("a file"), "a\n");
    let listed = site.slipway.run(&["images", "-q", "--no-trunc", "three"]).ok();
    assert_eq!(listed.text(), image.id);
}

#[test]
fn cacheonly_leaves_nothing_but_the_cache() {
    let site = site();
    let first = site.build(&["-o", "type=cacheonly"]).ok();
    assert_eq!(first.text(), "");
    assert_eq!(site.slipway.run(&["images", "-aq"]).ok().text(), "");
    let second = site.build(&["-o", "type=cacheonly"]).ok();
    assert_eq!(second.all().matches("CACHED").count(), 2, "both COPYs\n{second}");
    second.never_says("RUN mkdir");
}

#[test]
fn ids_and_metadata_go_where_scripts_look() {
    let (site, out) = (site(), Scratch::new("out"));
    let path = |name: &str| out.join(name).to_str().expect("UTF-8").to_owned();
    let (ids, about) = (path("iid"), path("metadata.json"));
    let flags = ["-q", "-t", "app:1", "--iidfile", &ids, "--metadata-file", &about];
    let quiet = site.build(&flags).ok();
    let id = fs::read_to_string(&ids).expect("the file that --iidfile names");
    assert_eq!(quiet.text(), id);
    assert_eq!(quiet.stderr, b"", "-q says nothing but the id\n{quiet}");
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let text = fs::read(&about).expect("the file that --metadata-file names");
    let about: serde_json::Value = serde_json::from_slice(&text).expect("metadata is JSON");
    assert_eq!(about["containerimage.config.digest"], id);
    assert_eq!(about["image.name"], "docker.io/library/app:1");
    let inspected = site.slipway.run(&["inspect", "app:1"]).ok();
    let inspected: serde_json::Value = serde_json::from_slice(&inspected.stdout).expect("JSON");
    assert_eq!(inspected[0]["Id"], id);
}

#[test]
fn without_a_name_the_image_is_kept_and_its_id_printed() {
    let site = site();
    let id = site.build(&[]).ok().text();
    assert!(id.starts_with("sha256:"), "{id}");
    let all = site.slipway.run(&["images", "-a", "--no-trunc"]).ok().says(&id);
    assert!(all.text().contains("<none>"), "{all}");
    site.slipway.run(&["tag", &id, "later:1"]).ok();
    site.slipway.run(&["images", "later"]).ok().says("later");
}

#[test]
fn a_push_sends_what_the_registry_lacks() {
    let (site, there) = (site(), Registry::empty());
    let name = there.image("team/app:1");
    site.build(&["-t", &name, "--push"]).ok();
    let manifest = there.manifest("team/app:1");
    assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(2), "{manifest}");
    let sent = |registry: &Registry| registry.requests("PUT", "/blobs/uploads/");
    let first = sent(&there);
    assert_eq!(first, 3, "two layers and a config");
    site.build(&["-o", &format!("type=registry,name={}", there.image("team/app:2"))]).ok();
    assert_eq!(there.manifest("team/app:2"), manifest);
    assert_eq!(sent(&there), first, "nothing is sent twice");
    // Another repository takes what this one has.
    site.build(&["-t", &there.image("other/app:1"), "--push"]).ok();
    assert_eq!(there.manifest("other/app:1"), manifest);
    assert_eq!(sent(&there), first + 1, "only the config: layers are mounted from elsewhere");
    assert!(there.requests("POST", "mount=") > 0);
}
