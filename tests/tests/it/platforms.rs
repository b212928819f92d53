//! Images for several platforms.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use tests::command::command;
use tests::emulator::{Emulator, busybox_for_arm64};
use tests::image::Image;
use tests::scratch::Scratch;
use tests::site::Site;
use tests::tool::tool;
use tests::tree::{Kind, sha256};

/// One stage runs programs of the target, the other ones of the machine that builds.
const DOCKERFILE: &str = r#"
FROM --platform=$BUILDPLATFORM conf/busybox:1 AS cross
ARG BUILDPLATFORM TARGETPLATFORM TARGETARCH
RUN uname -m > /machine && echo "$BUILDPLATFORM for $TARGETPLATFORM" > /said

FROM scratch
ARG TARGETARCH
COPY busybox-$TARGETARCH /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox uname -m > /machine"]
COPY --from=cross /machine /cross/machine
COPY --from=cross /said /cross/said
"#;

/// The digest of a file of an image.
#[track_caller]
fn digest_of<'i>(image: &'i Image, path: &str) -> &'i str {
    match &image.tree.entry(path).kind {
        Kind::File { sha256, .. } => sha256,
        other => panic!("{path} is {other:?}"),
    }
}

#[test]
fn programs_of_other_platforms_run_by_an_emulator() {
    let _emulator = Emulator::for_arm64();
    let (site, out) = (Site::of(DOCKERFILE), Scratch::new("out"));
    let native = fs::read(tool("busybox")).expect("busybox is installed");
    let programs = ["amd64", "arm64"].map(|arch| site.write(&format!("busybox-{arch}"), &native));
    busybox_for_arm64(&programs[1]);
    for program in &programs {
        fs::set_permissions(program, PermissionsExt::from_mode(0o755)).expect("a file of the test");
    }
    let archive = out.join("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let both = ["--platform", "linux/amd64,linux/arm64", "-o", &output];
    site.build(&both).ok();
    let images = Image::all(&archive);
    let expected = [("amd64", "x86_64"), ("arm64", "aarch64")];
    assert_eq!(images.len(), expected.len());
    for (image, (arch, machine)) in images.iter().zip(expected) {
        assert_eq!(image.config["architecture"], arch);
        assert_eq!(digest_of(image, "machine"), sha256(format!("{machine}\n").as_bytes()));
        assert_eq!(digest_of(image, "cross/machine"), sha256("x86_64\n".as_bytes()));
        let said = format!("linux/amd64 for linux/{arch}\n");
        assert_eq!(digest_of(image, "cross/said"), sha256(said.as_bytes()));
    }
    // What the index says is what others choose by.
    let raw = format!("oci-archive:{}", archive.display());
    let mut copy = command(tool("skopeo"));
    copy.args(["--override-arch", "arm64", "inspect", "--config", &raw]);
    let config = tests::command::run(&mut copy).ok();
    assert!(String::from_utf8_lossy(&config.stdout).contains("arm64"), "{config}");
    // Nothing runs twice: the times of the layers are those of the first build.
    let first = fs::read(&archive).expect("an archive");
    site.build(&both).ok();
    assert!(first == fs::read(&archive).expect("an archive"));
}

#[test]
fn without_an_emulator_the_message_says_what_to_do() {
    let site =
        Site::of("FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"true\"]\n");
    site.write("busybox", "a program of another processor");
    let failed = site.build(&["--platform", "linux/ppc64"]).fails(1);
    failed.says("linux/ppc64").says("qemu-user-static").says("Dockerfile:3");
}
