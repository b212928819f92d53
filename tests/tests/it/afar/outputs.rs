//! What a build on a farm leaves: on the client's machine, at a registry, in an engine.

use super::{APP, FILES, farm};
use serde_json::Value;
use tests::afar::Client;
use tests::image::Image;
use tests::mirror::REGISTRY;
use tests::site::Site;
use tests::tree::{Kind, Tree};

/// An archive or a layout that the client has.
fn image(client: &Client, name: &str) -> Image {
    Image::only(&client.host.path(format!("/root/{name}")))
}

#[test]
fn archives_and_directories_come_to_the_client_as_alone() {
    let (_farm, ann) = farm(FILES);
    // The same build on one machine.
    let alone = Site::of(FILES);
    alone.write("given/a.txt", "a\n");
    let numbers: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    alone.write("given/b/c.bin", numbers);
    let expected = alone.image(&[]);

    ann.build(&["-o", "type=oci,dest=/root/oci"]).ok();
    let oci = image(&ann, "oci");
    oci.assert_same_files(&expected, "on a farm and alone");
    assert_eq!(oci.env("WHO"), Some("world"));
    let link = oci.tree.entry("made/link").clone();
    assert_eq!(link.kind, Kind::Symlink { to: "deep/er".to_owned() });
    for kind in ["docker", "oci,compression=zstd", "oci,compression=uncompressed", "oci,tar=false"]
    {
        let name = kind.replace(',', "-");
        ann.build(&["-o", &format!("type={kind},dest=/root/{name}")]).ok();
        image(&ann, &name).assert_same_files(&oci, kind);
    }
    ann.build(&["-o", "type=tar,dest=/root/files.tar"]).ok();
    let tar = std::fs::File::open(ann.host.path("/root/files.tar")).expect("a tar");
    Tree::of_archive(tar).assert_same(&oci.tree, "the tar's files and the image's");
    let out = ann.build(&["-o", "-"]).ok();
    Tree::of_archive(&out.stdout[..]).assert_same(&oci.tree, "standard output and the image");
    ann.build(&["-o", "/root/dir"]).ok();
    let owned = |tree: Tree| tree.without_owners();
    owned(Tree::of_directory(&ann.host.path("/root/dir")))
        .assert_same(&owned(oci.tree), "the directory's files and the image's");
    assert_eq!(ann.build(&["-o", "type=cacheonly"]).ok().text(), "");
}

#[test]
fn ids_and_metadata_go_where_scripts_look() {
    let (_farm, ann) = farm(FILES);
    let flags = ["-q", "-t", "app:1", "--iidfile", "/root/iid", "--metadata-file", "/root/about"];
    let quiet = ann.build(&flags).ok();
    let id = String::from_utf8(ann.host.read("/root/iid")).expect("UTF-8");
    assert_eq!(quiet.text(), id);
    assert_eq!(quiet.stderr, b"", "-q says nothing but the id\n{quiet}");
    let about: Value = serde_json::from_slice(&ann.host.read("/root/about")).expect("JSON");
    assert_eq!(about["containerimage.config.digest"], id);
    assert_eq!(about["image.name"], "docker.io/library/app:1");
    // Without a name and without an output the image is kept, and its id printed.
    assert_eq!(ann.build(&[]).ok().text(), id);
}

#[test]
fn pushes_go_from_a_worker_to_the_registry() {
    let (farm, ann) = farm(APP);
    let name = format!("{REGISTRY}/team/app:1");
    ann.build(&["-t", &name, "--push"]).ok();
    let sent = farm.requests("PUT", "/team/app/blobs/uploads/");
    assert!(sent > 0, "nothing was sent");
    ann.build(&["-o", &format!("type=registry,name={REGISTRY}/team/app:2")]).ok();
    assert_eq!(farm.requests("PUT", "/team/app/blobs/uploads/"), sent, "nothing is sent twice");
    assert_eq!(farm.requests("PUT", "/team/app/manifests/"), 2);
    // What was pushed is an image that runs, on a machine that has nothing of it.
    let bob = farm.client("bob", &["--project", "shop"]);
    assert_eq!(bob.run_here(&["run", "--rm", &name]).ok().text(), "hello");
    bob.down();
}

#[test]
fn an_image_is_loaded_into_the_engine_of_the_client() {
    let (_farm, ann) = farm(APP);
    let mut engine = ann
        .host
        .command(
            "dockerd",
            [
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--storage-driver=overlay2",
                "--data-root=/var/lib/slipway/engine",
                "--host=unix:///var/run/docker.sock",
            ],
        )
        .serve("engine");
    engine.until("The Docker engine", |log| log.contains("API listen on").then_some(()));
    ann.build(&["-t", "app:1", "--load"]).ok();
    let id = ann.run(&["images", "-q", "--no-trunc", "app:1"]).ok().text();
    assert_eq!(id, "", "loading keeps nothing on the farm");
    let inspect = ["image", "inspect", "--format", "{{.Config.Cmd}}", "app:1"];
    ann.host.command("docker", inspect).run().ok().says("cat /said");
}
