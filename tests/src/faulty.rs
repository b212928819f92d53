//! A registry that misbehaves: it serves one image of an OCI layout, and does one thing wrong.

use crate::http::{Request, Response, Server};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is wrong with it.
#[derive(Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// The bytes of layers are not what their digest says; their number is.
    WrongLayer,
    /// The bytes of the config are not what its digest says.
    WrongConfig,
    /// The manifest is not the one whose digest was asked for.
    WrongManifest,
    /// It wants a name and a password, and takes none.
    Unauthorised,
    /// It does not have the image.
    Absent,
    /// The first requests for a layer break in the middle.
    Breaks(AtomicUsize),
    /// The first requests are answered with 503.
    Busy(AtomicUsize),
    /// It answers with things that are no JSON.
    Nonsense,
}

/// The registry.
pub struct FaultyRegistry {
    server: Server,
    /// The digest of the image's manifest: `sha256:…`.
    pub digest: String,
}

impl FaultyRegistry {
    /// Serves the only image of a layout under any name.
    pub fn serve(layout: &Path, fault: Fault) -> Self {
        let image = Contents::read(layout);
        let digest = image.digest.clone();
        let server = Server::start(move |request| image.answer(request, &fault));
        Self { server, digest }
    }

    /// The name of the image, here.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.server.address())
    }

    /// What it was asked.
    pub fn server(&self) -> &Server {
        &self.server
    }
}

/// The blobs of a layout, and what they are.
struct Contents {
    blobs: BTreeMap<String, Vec<u8>>,
    digest: String,
    config: String,
    media_type: String,
}

impl Contents {
    fn read(layout: &Path) -> Self {
        let index: Value =
            serde_json::from_slice(&fs::read(layout.join("index.json")).expect("a layout"))
                .expect("an index is JSON");
        let text = |value: &Value| value.as_str().expect("a descriptor").to_owned();
        let digest = text(&index["manifests"][0]["digest"]);
        let media_type = text(&index["manifests"][0]["mediaType"]);
        let entries = fs::read_dir(layout.join("blobs/sha256")).expect("a layout").flatten();
        let blobs: BTreeMap<_, _> = entries
            .map(|entry| {
                let name = format!("sha256:{}", entry.file_name().to_string_lossy());
                (name, fs::read(entry.path()).expect("a blob"))
            })
            .collect();
        let manifest: Value = serde_json::from_slice(&blobs[&digest]).expect("a manifest is JSON");
        Self { config: text(&manifest["config"]["digest"]), blobs, digest, media_type }
    }

    fn answer(&self, request: &Request, fault: &Fault) -> Response {
        match fault {
            Fault::Unauthorised => {
                return error(401, "UNAUTHORIZED", "authentication required")
                    .with("WWW-Authenticate", "Basic realm=\"registry of the tests\"");
            }
            Fault::Busy(left) if take(left) => return error(503, "UNAVAILABLE", "try again"),
            Fault::Nonsense => return Response::new(200, "<html>no registry</html>"),
            _ => {}
        }
        if request.path.trim_end_matches('/') == "/v2" {
            return Response::new(200, "{}");
        }
        let Some((_, reference)) = request.path.rsplit_once('/') else { return absent() };
        if request.path.contains("/manifests/") {
            self.manifest(reference, fault)
        } else {
            self.blob(request, reference, fault)
        }
    }

    fn manifest(&self, reference: &str, fault: &Fault) -> Response {
        let wrong = reference.starts_with("sha256:") && reference != self.digest;
        if matches!(fault, Fault::Absent) || wrong {
            return absent();
        }
        let mut body = self.blobs[&self.digest].clone();
        let by_digest = reference == self.digest;
        if matches!(fault, Fault::WrongManifest) && by_digest {
            // Still JSON, and still of the same length.
            let at = body.iter().rposition(|byte| *byte == b'2').expect("a digit");
            body[at] = b'3';
        }
        Response::new(200, body)
            .with("Content-Type", &self.media_type)
            .with("Docker-Content-Digest", &self.digest)
    }

    fn blob(&self, request: &Request, digest: &str, fault: &Fault) -> Response {
        let Some(blob) = self.blobs.get(digest) else { return absent() };
        let mut body = blob.clone();
        let is_config = digest == self.config;
        match fault {
            Fault::WrongLayer if !is_config => *body.last_mut().expect("not empty") ^= 1,
            Fault::WrongConfig if is_config => *body.last_mut().expect("not empty") = b' ',
            _ => {}
        }
        let start = request.header("range").and_then(range_start).unwrap_or(0).min(body.len());
        let whole = body.len();
        let status = if start > 0 { 206 } else { 200 };
        let mut response = Response::new(status, body.split_off(start));
        if start > 0 {
            let range = format!("bytes {start}-{}/{whole}", whole - 1);
            response = response.with("Content-Range", range);
        }
        if let (Fault::Breaks(left), false) = (fault, is_config)
            && request.method == "GET"
            && take(left)
        {
            response.cut_after = Some(response.body.len() / 2);
        }
        response.with("Accept-Ranges", "bytes").with("Content-Type", "application/octet-stream")
    }
}

/// Counts down; whether there was something left.
fn take(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

/// The first byte of `bytes=N-`.
fn range_start(header: &str) -> Option<usize> {
    header.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
}

fn absent() -> Response {
    error(404, "MANIFEST_UNKNOWN", "manifest unknown")
}

fn error(status: u16, code: &str, message: &str) -> Response {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
    Response::new(status, body).with("Content-Type", "application/json")
}
