//! Writing images as OCI layouts, from archives that are there.

use crate::scratch::{make, write};
use crate::tree::sha256;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// When images that tests make were made.
const CREATED: &str = "2023-11-14T22:13:20Z";

/// A layer to put into an image.
#[derive(Debug, Clone)]
pub struct LayerFile {
    /// The archive, compressed by gzip, or by zstd if the name ends in `.zst`.
    pub path: PathBuf,
    /// The digest of the archive before it was compressed: `sha256:…`.
    pub diff_id: String,
}

impl LayerFile {
    /// Compresses bytes of an archive to a file.
    pub fn pack(archive: &Path, to: &Path) -> Self {
        let file = File::open(archive).unwrap_or_else(|e| panic!("{}: {e}", archive.display()));
        let diff_id = format!("sha256:{}", sha256(file.try_clone().expect("an open file")));
        let mut gzip = crate::command::command(crate::tool::tool("gzip"));
        let input = File::open(archive).expect("opened before");
        let output = File::create(to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
        let status = gzip.args(["-n", "-1", "-c"]).stdin(input).stdout(output).status();
        assert!(status.expect("starting gzip").success(), "compressing {}", archive.display());
        Self { path: to.to_owned(), diff_id }
    }
}

/// Writes an image into an OCI layout that holds nothing else, and returns its manifest.
/// `config` is what the image config calls so.
pub fn write_layout(directory: &Path, layers: &[LayerFile], config: &Value) -> Value {
    let blobs = directory.join("blobs/sha256");
    make(&blobs);
    write(directory, "oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    let history: Vec<_> = layers.iter().map(|_| json!({"created": CREATED})).collect();
    let ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let image = json!({
        "created": CREATED, "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": ids}, "history": history,
    });
    let descriptors: Vec<_> = layers.iter().map(|layer| add_layer(&blobs, layer)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": add(&blobs, "application/vnd.oci.image.config.v1+json", &bytes(&image)),
        "layers": descriptors,
    });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let index = json!({"schemaVersion": 2, "manifests": [add(&blobs, kind, &bytes(&manifest))]});
    write(directory, "index.json", bytes(&index));
    manifest
}

/// JSON as it is hashed.
pub fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a value can be written")
}

/// The descriptor of some bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", sha256(bytes)),
           "size": bytes.len()})
}

fn add(blobs: &Path, media_type: &str, bytes: &[u8]) -> Value {
    write(blobs, &sha256(bytes), bytes);
    descriptor(media_type, bytes)
}

fn add_layer(blobs: &Path, layer: &LayerFile) -> Value {
    let file = File::open(&layer.path).expect("a layer that was made");
    let size = file.metadata().expect("an open file").len();
    let hex = sha256(file);
    let to = blobs.join(&hex);
    if fs::hard_link(&layer.path, &to).is_err() && !to.exists() {
        fs::copy(&layer.path, &to).expect("copying a layer into a layout");
    }
    let kind = if layer.path.extension() == Some("zst".as_ref()) { "tar+zstd" } else { "tar+gzip" };
    json!({"mediaType": format!("application/vnd.oci.image.layer.v1.{kind}"),
           "digest": format!("sha256:{hex}"), "size": size})
}
