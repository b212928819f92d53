//! What the corpus' images say of themselves: `tests/conformance/images/make.py`.

use proto::id::OciDigest;
use proto::platform::Platform;
use proto::step::{ImageOp, ImageOrigin};
use proto::wire::worker::ResolvedImage;
use serde_json::{Value, json};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The image of that name for a platform; those for one platform only are given for every one, as
/// registries do.
pub fn find(reference: &str, platform: &Platform) -> Option<ResolvedImage> {
    let name = reference.strip_prefix("127.0.0.1:5000/")?;
    let name = name.split('@').next()?;
    let (own, config) = describe(name, platform)?;
    let config = json!({
        "architecture": own.arch,
        "os": own.os,
        "variant": own.variant,
        "created": "2020-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:00"]},
        "history": [{"created_by": "conf: busybox rootfs"}],
    });
    let digest = blake3::hash(format!("{name} {own}").as_bytes());
    Some(ResolvedImage {
        op: ImageOp {
            reference: reference.to_owned(),
            manifest: OciDigest::from_bytes(*digest.as_bytes()),
            origin: ImageOrigin::Registry,
        },
        platform: own,
        config: config.to_string(),
        layers: Vec::new(),
    })
}

/// The platform that the image is for, and its config.
fn describe(name: &str, platform: &Platform) -> Option<(Platform, Value)> {
    let amd64 = Platform::parse("linux/amd64").ok()?;
    let plain = json!({"Env": [PATH], "Cmd": ["sh"]});
    let with = |key: &str, value: Value| {
        let mut config = plain.clone();
        config[key] = value;
        config
    };
    let config = match name {
        "conf/onbuild:1" => with("OnBuild", on_build()),
        "conf/onbuild-from:1" => with("OnBuild", json!(["COPY --from=assets /asset /got/asset"])),
        "conf/config:1" => full(),
        "conf/multi:1" => {
            let known = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
            known.contains(&platform.to_string().as_str()).then_some(())?;
            let mut own = platform.clone();
            if own.arch == "arm64" {
                own.variant = "v8".to_owned();
            }
            return Some((own, with("Labels", json!({"marker": platform.arch}))));
        }
        "conf/busybox" | "conf/busybox:1" | "conf/busybox:2" | "conf/docker:1" | "conf/links:1"
        | "conf/layers:1" | "conf/zstd:1" | "conf/plain:1" | "conf/nohistory:1"
        | "conf/overhistory:1" => plain,
        _ => return None,
    };
    Some((amd64, config))
}

fn on_build() -> Value {
    json!([
        "ENV FROM_ONBUILD=yes",
        "WORKDIR /onbuild",
        "COPY onbuild.txt copied.txt",
        "RUN echo \"$FROM_ONBUILD in $(pwd)\" > ran.txt",
        "LABEL trigger=fired"
    ])
}

fn full() -> Value {
    json!({
        "User": "app",
        "WorkingDir": "/srv/app",
        "Env": [PATH, "APP_HOME=/srv/app", "MODE=base", "EMPTY="],
        "Entrypoint": ["/entry", "--flag"],
        "Cmd": ["serve", "all"],
        "Volumes": {"/data": {}},
        "ExposedPorts": {"8080/tcp": {}, "9090/udp": {}},
        "Labels": {"base.label": "from base", "vendor": "conf"},
        "StopSignal": "SIGQUIT",
        "Shell": ["/bin/sh", "-e", "-c"],
        "Healthcheck": {
            "Test": ["CMD", "/health", "-q"],
            "Interval": 15_000_000_000_i64,
            "Timeout": 2_000_000_000_i64,
            "Retries": 4
        }
    })
}
