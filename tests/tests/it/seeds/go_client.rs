//! Document 002, the Go client: cache mounts, bind mounts, versions by argument, and the program
//! alone as output.

use super::{Site, seed};
use std::fs;
use tests::command::run;
use tests::scratch::Scratch;

fn site() -> Site {
    Site::with(&["golang-alpine"])
}

#[test]
fn modules_are_kept_in_a_cache_mount() {
    let site = site();
    let context = seed("002/client");
    // The last stage needs one that is not there; nothing that `build-client` needs does.
    let outcome = site.build_with(&[], &context, "Dockerfile.cache-mounts");
    outcome.fails(1).says("build-server");
    let flags = ["-t", "client", "--target=build-client"];
    site.build_with(&flags, &context, "Dockerfile.cache-mounts").ok();
    assert_eq!(site.prints("client", &["/bin/client"]), "Hello, client!");
    let modules = site.prints("client", &["sh", "-c", "find /go/pkg/mod -type f | wc -l"]);
    assert_eq!(modules, "0", "what is in a cache mount is in no image");

    site.build(&context, "Dockerfile.cache-mounts.meant", "server");
    assert_eq!(site.prints("server", &[]), "Hello, server!");
}

#[test]
fn an_argument_chooses_the_version() {
    let site = site();
    let context = seed("002/client");
    for (flags, version) in [(&[][..], "1.20"), (&["--build-arg=GO_VERSION=1.19"][..], "1.19")] {
        let image = format!("client:{version}");
        let flags = [flags, &["-t", &image]].concat();
        site.build_with(&flags, &context, "Dockerfile.go-version").ok();
        let chosen = site.builder.env(&image, "GOLANG_VERSION");
        assert_eq!(chosen.as_deref(), Some(version), "the image that was chosen says which it is");
        assert_eq!(site.prints(&image, &["/bin/client"]), "Hello, client!");
    }
}

#[test]
fn the_program_alone_is_the_output() {
    let site = site();
    let context = seed("002/client");
    let work = Scratch::new("work");
    let build = |dockerfile: &str| {
        let dockerfile = context.join(dockerfile);
        let flags =
            ["-f", dockerfile.to_str().expect("UTF-8"), "--output=bin", "--target=build-client"];
        run(site.builder.build_command(&flags, &context).current_dir(work.path())).ok();
    };
    // As it stands, the stage holds all of Go besides.
    build("Dockerfile.export");
    assert!(work.join("bin/bin/client").is_file());
    assert!(work.join("bin/usr/local/go").exists());
    fs::remove_dir_all(work.join("bin")).expect("removing an output");

    build("Dockerfile.export.meant");
    let names: Vec<_> = fs::read_dir(work.join("bin")).expect("an output").flatten().collect();
    assert_eq!(names.len(), 1, "only the program: {names:?}");
    let printed = run(&mut tests::command::command(work.join("bin/client"))).ok().text();
    assert_eq!(printed, "Hello, client!");
}
