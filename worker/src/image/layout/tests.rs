use super::files::{describe, take};
use super::*;
use crate::image::Progress;
use crate::image::sha::sha256;
use cache::store::Store;
use cache::store::memory::MemoryStore;
use proto::id::{BlobId, RootId};
use proto::path::FileName;
use proto::platform::Platform;
use proto::tree::{Dir, Entry, Meta, Mtime, Node, Presence, Root};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// A layout that is being written.
struct Writing {
    dir: TempDir,
}

impl Writing {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(BLOBS)).unwrap();
        Self { dir }
    }

    fn path(&self, digest: &OciDigest) -> PathBuf {
        self.dir.path().join(path_of(digest))
    }

    fn put(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        std::fs::write(self.path(&digest), bytes).unwrap();
        let digest = digest.to_string();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// An image with one layer, whose bytes are those of the text.
    fn image(&self, layer: &str, arch: &str) -> Value {
        let id = sha256(format!("unpacked {layer}").as_bytes()).to_string();
        let config = json!({"os": "linux", "architecture": arch, "config": {"Env": ["A=1"]},
                            "rootfs": {"type": "layers", "diff_ids": [id]}});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": self.put("application/vnd.oci.image.config.v1+json", &bytes(&config)),
            "layers": [self.put("application/vnd.oci.image.layer.v1.tar", layer.as_bytes())],
        });
        self.put(MANIFEST, &bytes(&manifest))
    }

    fn index(&self, manifests: &[&Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        std::fs::write(self.dir.path().join("index.json"), bytes(&index)).unwrap();
    }

    fn choose(&self, which: &Which) -> Result<Chosen, LayoutError> {
        choose(self.dir.path(), which, &Platform::parse("linux/arm64").unwrap())
    }

    fn error(&self, which: &Which) -> String {
        self.choose(which).unwrap_err().to_string()
    }

    /// The files as a client sends them.
    fn send(&self, store: &MemoryStore, files: &[OciDigest]) -> RootId {
        let meta = Meta::root_owned(0o644, Mtime::default());
        let entries = files.iter().map(|digest| {
            let bytes = std::fs::read(self.path(digest)).unwrap();
            let (blob, size) = (BlobId::of(&bytes), bytes.len() as u64);
            store.put_blobs(&[(blob, bytes.into())]).unwrap();
            let name = FileName::new(digest.hex().as_bytes()).unwrap();
            Entry { name, meta: meta.clone(), node: Node::File { blob, size, link: None } }
        });
        let dir = Dir::new(entries.collect()).seal();
        let (root, bytes) =
            Root { meta: meta.clone(), dir: dir.dir, presence: Presence::Merge }.seal();
        store.put_nodes(&[dir.bytes, bytes]).unwrap();
        root
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn tagged(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    descriptor
}

fn digest(descriptor: &Value) -> OciDigest {
    OciDigest::parse(descriptor["digest"].as_str().unwrap()).unwrap()
}

fn tag(tag: &str) -> Which {
    Which::Tag(tag.to_owned())
}

#[test]
fn an_image_is_chosen_by_tag_digest_and_platform() {
    let layout = Writing::new();
    let [one, mut amd, mut arm] =
        [("one", "amd64"), ("amd", "amd64"), ("arm", "arm64")].map(|(l, a)| layout.image(l, a));
    amd["platform"] = json!({"os": "linux", "architecture": "amd64"});
    arm["platform"] = json!({"os": "linux", "architecture": "arm64"});
    let both = layout.put(INDEX, &bytes(&json!({"schemaVersion": 2, "manifests": [amd, arm]})));
    layout.index(&[&tagged(one.clone(), "one"), &tagged(both.clone(), "two")]);
    let chosen = layout.choose(&tag("one")).unwrap();
    assert_eq!((chosen.manifest, chosen.files.len()), (digest(&one), 3));
    assert_eq!(chosen.files[2], sha256(b"one"));
    assert_eq!(layout.choose(&tag("two")).unwrap().manifest, digest(&arm));
    for which in [&both, &arm] {
        let which = Which::Digest(digest(which));
        assert_eq!(layout.choose(&which).unwrap().manifest, digest(&arm));
    }
    assert!(layout.error(&tag("latest")).contains("there are `one`, `two`"));
    // The only one needs no tag.
    layout.index(&[&one]);
    assert_eq!(layout.choose(&tag("latest")).unwrap().manifest, digest(&one));
}

#[test]
fn a_broken_layout_says_what_is_wrong() {
    let layout = Writing::new();
    assert!(layout.error(&tag("x")).contains("no `index.json`"));
    let image = layout.image("layer", "arm64");
    layout.index(&[&image]);
    let chosen = layout.choose(&tag("x")).unwrap();
    let [manifest, config, layer] = [0, 1, 2].map(|at| chosen.files[at]);
    for (file, content, expected) in [
        (layer, Some("short"), "expected 5 bytes, got"),
        (layer, None, "has no `blobs/sha256/"),
        (config, Some("{}"), "is damaged: expected sha256:"),
        (config, None, "has no `blobs/sha256/"),
        (manifest, Some("{}"), "is damaged: expected sha256:"),
        (manifest, None, "has no `blobs/sha256/"),
    ] {
        let (path, was) = (layout.path(&file), std::fs::read(layout.path(&file)).unwrap());
        match content {
            Some("short") => std::fs::write(&path, "more than that").unwrap(),
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let error = layout.error(&tag("x"));
        assert!(error.contains(expected), "{error}");
        std::fs::write(&path, was).unwrap();
    }
    let real = layout.dir.path().join("real");
    std::fs::rename(layout.path(&layer), &real).unwrap();
    std::os::unix::fs::symlink(&real, layout.path(&layer)).unwrap();
    assert!(layout.error(&tag("x")).contains("symbolic link"));
    let text = layout.put(MANIFEST, b"no JSON");
    layout.index(&[&text]);
    assert!(layout.error(&tag("x")).contains("manifest is broken"));
    std::fs::write(layout.dir.path().join("index.json"), "[").unwrap();
    assert!(layout.error(&tag("x")).contains("`index.json` of the layout cannot be used"));
    let none = choose(&layout.dir.path().join("none"), &tag("x"), &Platform::parse("a/b").unwrap());
    assert!(none.unwrap_err().to_string().contains("none"));
}

#[test]
fn what_is_sent_is_described_and_believed_by_its_digest_only() {
    let (layout, store) = (Writing::new(), MemoryStore::new());
    let image = layout.image("layer", "arm64");
    layout.index(&[&image]);
    let chosen = layout.choose(&tag("x")).unwrap();
    let layer = chosen.files[2];
    let files = layout.send(&store, &chosen.files);
    let described = describe(&store, files, &chosen.manifest).unwrap();
    assert_eq!(described.platform.to_string(), "linux/arm64");
    assert!(std::str::from_utf8(&described.config).unwrap().contains("A=1"));
    assert_eq!(described.layers.len(), 1);
    assert_eq!(described.layers[0].part.digest, layer);
    assert_eq!(described.layers[0].diff_id, sha256(b"unpacked layer"));
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let progress: Progress = Arc::new(move |digest, at, size| {
        heard.lock().unwrap().push((*digest, at, size));
    });
    let take =
        |store: &MemoryStore, files, digest: &OciDigest| take(store, files, digest, &progress);
    let row = take(&store, files, &layer).unwrap();
    assert_eq!(*told.lock().unwrap(), [(layer, 0, row.size), (layer, row.size, row.size)]);
    assert_eq!((row.blob, row.size, row.repository), (BlobId::of(b"layer"), 5, None));
    // A client may say what it likes.
    let store = MemoryStore::new();
    for file in [layer, chosen.manifest] {
        std::fs::write(layout.path(&file), "other").unwrap();
    }
    let files = layout.send(&store, &chosen.files);
    let error = take(&store, files, &layer).unwrap_err();
    assert!(matches!(error, LayoutError::Damaged { .. }), "{error}");
    assert_eq!(crate::image::rows::oci_blob(&store, &layer).unwrap(), None);
    assert!(matches!(describe(&store, files, &chosen.manifest), Err(LayoutError::Damaged { .. })));
    let files = layout.send(&store, &chosen.files[..1]);
    assert!(matches!(take(&store, files, &layer), Err(LayoutError::Missing(_))));
}
