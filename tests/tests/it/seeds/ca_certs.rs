//! Document 001, the first example: "Hello World!" in three sizes.

use super::{Site, assert_fraction, seed};
use std::fs;
use tests::scratch::Scratch;

#[test]
fn hello_world_in_three_sizes() {
    let site = Site::with(&["alpine", "golang-alpine", "ca-certs"]);
    let context = seed("001/hello");
    for (dockerfile, image) in [
        ("Dockerfile.single", "appleboy/go-app:single"),
        ("Dockerfile.multiple", "appleboy/go-app:multiple"),
        ("Dockerfile.smallest", "appleboy/go-app:smallest"),
    ] {
        site.build(&context, dockerfile, image);
        assert_eq!(site.prints(image, &[]), "Hello World!", "{dockerfile}");
    }
    // 258 MB, 6.35 MB and 1.81 MB, with the document's images.
    assert_fraction(&site, "appleboy/go-app:multiple", "appleboy/go-app:single", 10);
    let about = site.builder.size("appleboy/go-app:multiple");
    assert!(site.builder.size("appleboy/go-app:smallest") < about);
}

#[test]
fn a_program_from_outside_on_nothing_but_certificates() {
    let site = Site::with(&["golang-alpine", "ca-certs"]);
    let out = Scratch::new("out");
    let flags = ["-o", out.path().to_str().expect("UTF-8")];
    site.build_with(&flags, &seed("001/hello"), "Dockerfile.smallest").ok();
    let mut names: Vec<_> = fs::read_dir(out.path()).expect("an output").flatten().collect();
    names.sort_by_key(fs::DirEntry::file_name);
    let names: Vec<_> = names.iter().map(fs::DirEntry::file_name).collect();
    assert_eq!(names, ["app", "etc"]);

    let context = Scratch::new("context");
    fs::copy(out.join("app"), context.join("app")).expect("the program is a file");
    fs::copy(seed("001/hello/Dockerfile.add"), context.join("Dockerfile")).expect("copying");
    site.build(context.path(), "Dockerfile", "appleboy/go-app:add");
    assert_eq!(site.prints("appleboy/go-app:add", &[]), "Hello World!");
}
