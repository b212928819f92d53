//! The Dockerfiles that people wrote down in five documents (`tests/seeds`), each built as it
//! stands there, and what the document says of it.
//!
//! The images are stand-ins made of Debian's packages (`tests/standins`), under the documents'
//! names, in a registry that is a mirror of docker.io and quay.io. What a RUN would fetch from
//! elsewhere they carry with them: `apk add`, `apt-get install`, `go get`, `npm install` and
//! `pip install` find it there, and need no network.
//!
//! Some Dockerfiles cannot work as they were written or printed: a comment behind an instruction,
//! a stage that is not there, a listing whose lines were lost. Those must fail, and say why;
//! `NAME.meant` beside each is what its author meant.

mod blog;
mod ca_certs;
mod counter;
mod example;
mod external;
mod flask;
mod go_client;
mod parallel;
mod web_server;

use std::path::{Path, PathBuf};
use tests::builder::Builder;
use tests::command::Outcome;
use tests::registry::Registry;

/// A builder, and the registry that it takes images from.
struct Site {
    builder: Builder,
    registry: Registry,
}

impl Site {
    /// With these stand-ins.
    fn with(standins: &[&str]) -> Self {
        let registry = Registry::of(standins);
        Self { builder: Builder::under_test(&registry), registry }
    }

    /// Builds a Dockerfile of a document into an image.
    #[track_caller]
    fn build(&self, context: &Path, dockerfile: &str, image: &str) -> Outcome {
        self.build_with(&["-t", image], context, dockerfile).ok()
    }

    /// Builds a Dockerfile of a document with these flags.
    #[track_caller]
    fn build_with(&self, flags: &[&str], context: &Path, dockerfile: &str) -> Outcome {
        let dockerfile = context.join(dockerfile);
        let file = ["-f", dockerfile.to_str().expect("UTF-8")];
        self.builder.build(&[&file, flags].concat(), context)
    }

    /// What a container of an image prints.
    #[track_caller]
    fn prints(&self, image: &str, args: &[&str]) -> String {
        self.builder.run_image(&[], image, args).ok().text()
    }

    /// What a web server prints to someone who asks; both in one container, that has nothing but a
    /// loopback. The image has busybox, and the server listens on `port`.
    #[track_caller]
    fn serves(&self, image: &str, server: &str, port: u16) -> String {
        let script = format!(
            "{{ {server} & }} > /dev/null 2>&1
             for i in $(seq 300); do
                 wget -q -O - http://127.0.0.1:{port}/ 2> /dev/null && exit
                 sleep 0.1
             done
             exit 1",
        );
        let entry = ["--entrypoint", "/bin/busybox"];
        self.builder.run_image(&entry, image, &["sh", "-c", &script]).ok().text()
    }
}

/// Where the files of a document lie.
fn seed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(path)
}

/// The small image is at most so many percent of the large one.
#[track_caller]
fn assert_fraction(site: &Site, small: &str, large: &str, percent: u64) {
    let sizes = (site.builder.size(small), site.builder.size(large));
    assert!(
        sizes.0 * 100 <= sizes.1 * percent,
        "{small} has {} bytes, {large} has {}: more than {percent} %",
        sizes.0,
        sizes.1,
    );
}
