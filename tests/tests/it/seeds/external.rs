//! Documents 002, 003 and 004: files from images that are no stages.

use super::{Site, seed};
use tests::scratch::Scratch;

#[test]
fn a_file_of_another_image() {
    let site = Site::with(&["alpine", "nginx"]);
    let context = Scratch::new("context");
    for (document, file, to) in [
        ("002/copy-from-image", "Dockerfile.meant", "/nginx.conf"),
        ("004/external", "Dockerfile", "/nginx.conf"),
    ] {
        let dockerfile = seed(document).join(file);
        let flags = ["-f", dockerfile.to_str().expect("UTF-8"), "-t", "external"];
        site.builder.build(&flags, context.path()).ok();
        let text = site.prints("external", &["cat", to]);
        assert!(text.contains("worker_connections"), "{document}: {text}");
    }
}

#[test]
fn an_instruction_without_a_stage() {
    let site = Site::with(&["alpine"]);
    let context = Scratch::new("context");
    for path in ["002/copy-from-image/Dockerfile", "004/external/Dockerfile.printed"] {
        let dockerfile = seed(path);
        let flags = ["-f", dockerfile.to_str().expect("UTF-8")];
        let outcome = site.builder.build(&flags, context.path());
        outcome.fails(1).says("build stage");
    }
}

#[test]
fn a_program_of_an_image_in_another_registry() {
    let site = Site::with(&["base", "etcd"]);
    site.builder.provide(&site.registry, "quay.io/coreos/etcd:v3.3.9", "coreos/etcd:v3.3.9");
    site.build(&seed("003/etcd"), "Dockerfile", "etcd");
    let version = site.prints("etcd", &["/usr/local/bin/etcd", "--version"]);
    assert!(version.contains("etcd Version: 3."), "{version}");
}
