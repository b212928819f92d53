//! `SOURCE_DATE_EPOCH`: what two machines make of the same files is the same to the last byte.

use std::fs;
use std::os::unix::fs::MetadataExt;
use tests::cluster::HOME;
use tests::hosts::{Host, Site};
use tests::image::Image;
use tests::mirror::Mirror;
use tests::slipway::program;

const EPOCH: &str = "1700000000";

/// Files by all that makes files.
const DOCKERFILE: &str = r#"
FROM conf/busybox:1 AS made
WORKDIR /made
RUN mkdir deep && echo text > deep/file && ln -s deep link && ln deep/file hard && mkfifo fifo \
 && touch -t 202001010000 old && mkdir -p /tmp/empty

FROM conf/busybox:1
WORKDIR /new
COPY --from=made /made /made
COPY --chown=7:8 given /given/
COPY <<EOF /said
hello
EOF
RUN echo more >> /given/a.txt && chmod 700 /home && rm /etc/os-release
"#;

/// A machine that builds, whose files are of that day.
fn machine(site: &Site, registry: &Mirror, name: &str, day: &str) -> Host {
    let host = site.host(name);
    host.write(format!("{HOME}/config.toml"), registry.settings());
    host.write("/root/context/Dockerfile", DOCKERFILE);
    host.write("/root/context/given/a.txt", "a\n");
    host.write("/root/context/given/b/c.txt", "c\n");
    let script = format!("find /root/context | xargs touch -d {day}");
    host.command("sh", ["-c", &script]).run().ok();
    host
}

/// The bytes of an output.
#[track_caller]
fn built(host: &Host, flags: &[&str], output: &str) -> Vec<u8> {
    let output = format!("{output},dest=/root/out");
    let args = [&["build", "-o", &output], flags, &["/root/context"]].concat();
    host.command(program(), &args).run().ok();
    host.read("/root/out")
}

#[test]
fn two_machines_make_the_same_bytes() {
    let site = Site::new();
    let registry = Mirror::of_corpus(&site);
    let one = machine(&site, &registry, "one", "2024-01-01");
    let two = machine(&site, &registry, "two", "2025-02-02");
    let epoch = format!("SOURCE_DATE_EPOCH={EPOCH}");
    let with_epoch = ["--build-arg", &epoch];
    let both = |flags: &[&str], output| [&one, &two].map(|host| built(host, flags, output));
    for output in
        ["type=oci,rewrite-timestamp=true", "type=docker,rewrite-timestamp=true", "type=tar"]
    {
        let [of_one, of_two] = both(&with_epoch, output);
        assert!(of_one == of_two, "{output}: {} and {} bytes", of_one.len(), of_two.len());
    }
    let own = format!("type=oci,rewrite-timestamp=true,source-date-epoch={EPOCH}");
    let [of_one, of_two] = both(&[], &own);
    assert!(of_one == of_two, "an epoch of the output");
    let image = Image::only(&one.path("/root/out"));
    assert_eq!(image.config["created"], "2023-11-14T22:13:20Z");
    assert!(!image.tree.0.contains_key("etc/os-release") && image.tree.0.contains_key("made/link"));
    // Without it the times of the files are in the layers: the machines were given other ones.
    let [of_one, of_two] = both(&with_epoch, "type=oci");
    assert!(of_one != of_two, "files have times of their own");
    for host in [&one, &two] {
        host.command(program(), ["down", "--now"]).run().ok();
    }
}

#[test]
fn files_get_the_time_that_the_environment_says() {
    let site = Site::new();
    let registry = Mirror::of_corpus(&site);
    let host = machine(&site, &registry, "one", "2024-01-01");
    let args = ["build", "-o", "/root/files", "/root/context"];
    host.command(program(), args).env("SOURCE_DATE_EPOCH", EPOCH).run().ok();
    for path in ["given/a.txt", "given/b", "made/link", "made/old", "said", "bin/busybox"] {
        let about = fs::symlink_metadata(host.path(format!("/root/files/{path}")));
        assert_eq!(about.expect(path).mtime().to_string(), EPOCH, "{path}");
    }
    host.command(program(), ["down", "--now"]).run().ok();
}
