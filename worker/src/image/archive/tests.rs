use super::*;
use crate::image::local::{How, export};
use crate::image::manifest::{self, Annotations, HistoryRow, ImageSet};
use crate::image::pack::{Packer, gzip};
use crate::image::sha::sha256;
use crate::image::unpack::{Reading, unpack};
use bytes::Bytes;
use cache::store::memory::MemoryStore;
use cache::store::{Image, ImageLayer, Store};
use proto::id::{BlobId, Millis, OciDigest};
use proto::platform::Platform;
use proto::tree::Mtime;
use proto::wire::build::{ArchiveData, ArchiveEntry, ArchiveFormat, MediaTypes};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// A store with an image of one layer: `/hello`, and a large file.
fn sample(arch: &str) -> (Arc<MemoryStore>, Image) {
    let store = Arc::new(MemoryStore::new());
    let file = |path: &str, content: &[u8]| {
        let head = crate::image::tape::Head {
            path: path.into(),
            kind: crate::image::tape::Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Mtime::default(),
            link: Vec::new(),
            size: content.len() as u64,
            device: (0, 0),
            xattrs: Vec::new(),
        };
        let fill = crate::image::tape::padding(head.size);
        [crate::image::tape::encode(&head), content.to_vec(), vec![0; fill]].concat()
    };
    let large: Vec<u8> = (0..700_000u32).map(|i| (i.wrapping_mul(i) >> 5) as u8).collect();
    let tar = [file("hello", arch.as_bytes()), file("large", &large), vec![0; 1024]].concat();
    let reading = Reading::Layer { diff_id: None, lower: None };
    let diff = unpack(&*store, "x", &tar[..], reading).unwrap().root;
    let diff_id = Packer::new(store.clone(), 1).diff_id(&diff).unwrap();
    let base = format!(r#"{{"os":"linux","architecture":"{arch}","config":{{"Cmd":["sh"]}}}}"#);
    let rows = [HistoryRow { created_by: Some("COPY".into()), ..HistoryRow::default() }];
    let created = Some("1970-01-01T00:00:05Z");
    let config =
        manifest::config(MediaTypes::Oci, base.as_bytes(), created, &rows, &[diff_id]).unwrap();
    let blob = BlobId::of(&config.bytes);
    store.put_blobs(&[(blob, config.bytes.clone())]).unwrap();
    let image = Image {
        id: config.digest,
        platform: Platform::from_config("linux", arch, ""),
        config: blob,
        layers: vec![ImageLayer { diff_id, diff: Some(diff), original: None }],
        tagged_ms: 7,
        created_ms: 5000,
        size: 700_000 + arch.len() as u64,
        references: Vec::new(),
        archive: None,
    };
    (store, image)
}

fn how(media: MediaTypes) -> How {
    How { compression: gzip(6).unwrap(), force: false, media }
}

fn set(store: &Arc<MemoryStore>, image: &Image, media: MediaTypes) -> ImageSet {
    let packer = Packer::new(store.clone(), 2);
    let none = Annotations::new();
    ImageSet::single(export(&**store, &packer, image, how(media), &none).unwrap())
}

fn opener(store: &Arc<MemoryStore>) -> impl FnMut(&BlobId) -> io::Result<Box<dyn Read + Send>> {
    let store = store.clone();
    move |blob| store.open(blob, 0).map_err(io::Error::other)
}

fn tar(store: &Arc<MemoryStore>, plan: &[ArchiveEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    write_tar(plan, &mut opener(store), &mut out, Path::new("out.tar")).unwrap();
    out
}

fn load_tar(store: &MemoryStore, bytes: Vec<u8>) -> Result<Vec<Loaded>, LoadError> {
    let source = Source::Tar(Box::new(io::Cursor::new(bytes)));
    load(store, source, &Platform::from_config("linux", "amd64", ""), Millis(9))
}

#[test]
fn an_image_survives_its_archive() {
    let (store, image) = sample("amd64");
    let names = ["docker.io/library/app:1".to_owned(), "quay.io/a/app:2".to_owned()];
    for (format, media) in
        [(ArchiveFormat::Oci, MediaTypes::Oci), (ArchiveFormat::Docker, MediaTypes::Docker)]
    {
        let plan = plan(&set(&store, &image, media), &names, format).unwrap();
        let paths: Vec<&str> = plan.iter().map(|e| e.path.as_str()).collect();
        assert!(paths.is_sorted() && paths.len() == 8, "{paths:?}");
        let bytes = tar(&store, &plan);
        assert_eq!(bytes, tar(&store, &plan));
        let other = MemoryStore::new();
        let loaded = load_tar(&other, bytes).unwrap();
        assert_eq!((loaded.len(), &loaded[0].names[..]), (1, &names[..]));
        let back = &loaded[0].image;
        assert_eq!(
            (back.id, back.size, back.created_ms, back.tagged_ms),
            (image.id, image.size, 5000, 9)
        );
        assert_eq!(back.layers[0].diff_id, image.layers[0].diff_id);
        // Going out again, it is what it was.
        let packer = Packer::new(Arc::new(MemoryStore::new()), 1);
        let again = export(&other, &packer, back, how(media), &Annotations::new()).unwrap();
        assert_eq!(again.manifest, set(&store, &image, media).images[0].manifest);
    }
}

#[test]
fn a_directory_is_a_layout_too() {
    let (store, image) = sample("amd64");
    let plan = plan(&set(&store, &image, MediaTypes::Oci), &[], ArchiveFormat::Oci).unwrap();
    let dir = tempfile::tempdir().unwrap();
    write_dir(&plan, &mut opener(&store), dir.path()).unwrap();
    write_dir(&plan, &mut opener(&store), dir.path()).unwrap();
    let source = Source::Dir(dir.path().to_owned());
    let loaded = load(&MemoryStore::new(), source, &image.platform, Millis(9)).unwrap();
    assert_eq!((loaded[0].image.id, loaded[0].names.len()), (image.id, 0));
    // Nothing outside of it is ever read.
    let secret = tempfile::tempdir().unwrap();
    std::fs::rename(dir.path().join("index.json"), secret.path().join("index.json")).unwrap();
    std::os::unix::fs::symlink(secret.path().join("index.json"), dir.path().join("index.json"))
        .unwrap();
    std::fs::remove_file(dir.path().join("manifest.json")).unwrap();
    let source = Source::Dir(dir.path().to_owned());
    let error = load(&MemoryStore::new(), source, &image.platform, Millis(9)).unwrap_err();
    assert!(matches!(error, LoadError::NoImage), "{error}");
    let source = Source::Dir("/nonexistent".into());
    let error = load(&MemoryStore::new(), source, &image.platform, Millis(9)).unwrap_err();
    assert!(error.to_string().starts_with("Reading /nonexistent: No such file"));
}

#[test]
fn several_platforms() {
    let (store, amd) = sample("amd64");
    let (other, arm) = sample("arm64");
    let images = [set(&store, &amd, MediaTypes::Oci), set(&other, &arm, MediaTypes::Oci)];
    let images = images.map(|s| s.images[0].clone()).to_vec();
    let set = ImageSet::indexed(images, MediaTypes::Oci, &Annotations::new()).unwrap();
    let error = plan(&set, &[], ArchiveFormat::Docker).unwrap_err();
    assert!(error.to_string().contains("type=oci"));
    let plan = plan(&set, &["docker.io/library/x:1".into()], ArchiveFormat::Oci).unwrap();
    assert!(plan.iter().all(|e| e.path != "manifest.json"));
    let mut open = |blob: &BlobId| {
        let content = store.open(blob, 0).or_else(|_| other.open(blob, 0));
        content.map_err(io::Error::other)
    };
    let mut bytes = Vec::new();
    write_tar(&plan, &mut open, &mut bytes, Path::new("x")).unwrap();
    let loaded = load_tar(&MemoryStore::new(), bytes.clone()).unwrap();
    assert_eq!((loaded.len(), loaded[0].image.id), (1, amd.id));
    let source = Source::Tar(Box::new(io::Cursor::new(bytes)));
    let riscv = Platform::from_config("linux", "riscv64", "");
    let error = load(&MemoryStore::new(), source, &riscv, Millis(9)).unwrap_err();
    assert!(error.to_string().contains("no image for linux/riscv64"), "{error}");
}

/// What `docker save` of old wrote: plain layers, one a link to another.
#[test]
fn old_docker_archives() {
    let (store, image) = sample("amd64");
    let packer = Packer::new(store.clone(), 1);
    let diff = image.layers[0].diff.unwrap();
    let layer = packer.layer(&diff, cache::store::Compression::None).unwrap();
    let layer = store.read(&layer.packed.blob).unwrap();
    let ids = [image.layers[0].diff_id; 2];
    let base = br#"{"os":"linux","architecture":"amd64"}"#;
    let config = manifest::config(MediaTypes::Docker, base, None, &[], &ids).unwrap();
    let name = format!("{}.json", config.digest.hex());
    let manifest = format!(
        r#"[{{"Config":"{name}","RepoTags":["app:1"],"Layers":["a/layer.tar","b/layer.tar"]}}]"#
    );
    let archive = |config: &[u8], layer: &[u8]| {
        let mut out = tar::Builder::new(Vec::new());
        let mut put = |path: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            out.append_data(&mut header, path, bytes).unwrap();
        };
        put(&name, config);
        put("a/layer.tar", layer);
        put("manifest.json", manifest.as_bytes());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        out.append_link(&mut header, "b/layer.tar", "../a/layer.tar").unwrap();
        out.into_inner().unwrap()
    };
    let other = MemoryStore::new();
    let loaded = load_tar(&other, archive(&config.bytes, &layer)).unwrap();
    assert_eq!(loaded[0].names, ["docker.io/library/app:1"]);
    assert_eq!((loaded[0].image.id, loaded[0].image.layers.len()), (config.digest, 2));
    // Its layers are compressed when they go out, and stay the same inside.
    let other = Arc::new(other);
    let out = set(&other, &loaded[0].image, MediaTypes::Oci);
    assert!(out.images[0].layers.iter().all(|l| l.part.media_type.ends_with("+gzip")));
    assert_eq!(out.images[0].config.digest, config.digest);
    let damaged = Bytes::from(config.bytes.replace_first(b"linux", b"minix"));
    let error = load_tar(&MemoryStore::new(), archive(&damaged, &layer)).unwrap_err();
    assert!(matches!(error, LoadError::WrongBytes { .. }), "{error}");
    let mut wrong = layer.to_vec();
    wrong[600] ^= 1;
    let error = load_tar(&MemoryStore::new(), archive(&config.bytes, &wrong)).unwrap_err();
    assert!(error.to_string().contains("The layer `a/layer.tar`"), "{error}");
}

trait ReplaceFirst {
    fn replace_first(&self, from: &[u8], to: &[u8]) -> Vec<u8>;
}

impl ReplaceFirst for Bytes {
    fn replace_first(&self, from: &[u8], to: &[u8]) -> Vec<u8> {
        let at = self.windows(from.len()).position(|w| w == from).unwrap();
        [&self[..at], to, &self[at + from.len()..]].concat()
    }
}

#[test]
fn what_is_no_archive_is_said() {
    let say = |bytes: &[u8]| load_tar(&MemoryStore::new(), bytes.to_vec()).unwrap_err().to_string();
    assert!(say(b"hello").contains("in the middle of a header"));
    assert!(say(&[b'x'; 1024]).contains("no tar header"));
    assert!(say(&[0; 1024]).contains("holds no image"));
    let plan = |files: &[(&str, &str)]| -> Vec<ArchiveEntry> {
        let entry = |(path, text): &(&str, &str)| ArchiveEntry {
            path: path.to_string(),
            data: ArchiveData::Inline(text.as_bytes().to_vec()),
        };
        files.iter().map(entry).collect()
    };
    let store = Arc::new(MemoryStore::new());
    let say = |files: &[(&str, &str)]| say(&tar(&store, &plan(files)));
    let digest = sha256(b"x");
    let index = format!(r#"{{"manifests":[{{"digest":"{digest}"}}]}}"#);
    assert!(
        say(&[("index.json", &index)]).contains(&format!("has no `blobs/sha256/{}`", digest.hex()))
    );
    let path = format!("blobs/sha256/{}", digest.hex());
    assert!(say(&[("index.json", &index), (&path, "y")]).contains("is damaged"));
    assert!(say(&[("index.json", &index), (&path, "x")]).contains("manifest is broken"));
    assert!(say(&[("index.json", "{")]).contains("`index.json`"));
    assert!(say(&[("manifest.json", r#"[{"Config":"c"}]"#)]).contains("no `c`"));
    assert!(say(&[("../x", "")]).contains("holds `..`"));
}

#[test]
fn a_blob_that_is_not_what_the_plan_says_is_an_error() {
    let (store, blob) = (Arc::new(MemoryStore::new()), BlobId::of(b"abc"));
    store.put_blobs(&[(blob, "abc".into())]).unwrap();
    let try_tar = |size, digest: OciDigest| {
        let data = ArchiveData::Blob(blob, size, digest);
        let plan = [ArchiveEntry { path: "f".into(), data }];
        write_tar(&plan, &mut opener(&store), &mut io::sink(), Path::new("x"))
    };
    try_tar(3, sha256(b"abc")).unwrap();
    for (size, digest) in [(2, sha256(b"ab")), (4, sha256(b"abc")), (3, sha256(b"abd"))] {
        assert!(matches!(try_tar(size, digest), Err(WriteError::WrongBytes { .. })));
    }
    let gone = ArchiveData::Blob(BlobId::of(b"gone"), 1, sha256(b"gone"));
    let plan = [ArchiveEntry { path: "f".into(), data: gone }];
    let dir = tempfile::tempdir().unwrap();
    let error = write_dir(&plan, &mut opener(&store), dir.path()).unwrap_err();
    assert!(matches!(error, WriteError::Read { .. }));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing half-written is left");
    let out = [ArchiveEntry { path: "../f".into(), data: ArchiveData::Directory }];
    assert!(matches!(write_dir(&out, &mut opener(&store), dir.path()), Err(WriteError::Path(_))));
}
