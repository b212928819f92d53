//! Images in archives and layouts, read and checked.

use crate::command::command;
use crate::scratch::Scratch;
use crate::tool::tool;
use crate::tree::{Tree, sha256};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The SHA-256 of the bytes as they lie there, in hexadecimal.
    pub sha256: String,
    /// How many bytes those are.
    pub size: u64,
    /// What the manifest says that it is; docker archives do not.
    pub media_type: Option<String>,
}

/// An image, every digest of which was found to be right.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of its config: `sha256:…`.
    pub id: String,
    /// The names that the archive gives it.
    pub names: Vec<String>,
    /// The whole config.
    pub config: Value,
    /// The manifest, in OCI layouts.
    pub manifest: Value,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// What the layers amount to.
    pub tree: Tree,
}

impl Image {
    /// The only image of an archive, or of a layout in a directory.
    #[track_caller]
    pub fn only(path: &Path) -> Self {
        let mut images = Self::all(path);
        assert_eq!(images.len(), 1, "{} should hold one image", path.display());
        images.remove(0)
    }

    /// All images of an archive (`docker save`, or an OCI layout in a tar) or of a layout in a
    /// directory.
    #[track_caller]
    pub fn all(path: &Path) -> Vec<Self> {
        let scratch = Scratch::new("image");
        let root = if path.is_dir() {
            path.to_owned()
        } else {
            let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            tar::Archive::new(file).unpack(scratch.path()).expect("an archive");
            scratch.path().to_owned()
        };
        if root.join("index.json").exists() {
            let names = docker_names(&root);
            let index = json(&root.join("index.json"));
            let found = manifests(&root, &index).into_iter();
            return found.map(|(d, m)| oci(&root, &d, m, &names)).collect();
        }
        let manifest = json(&root.join("manifest.json"));
        manifest.as_array().expect("a list of images").iter().map(|m| docker(&root, m)).collect()
    }

    /// The value of a variable of its environment.
    pub fn env(&self, name: &str) -> Option<&str> {
        let all = self.config["config"]["Env"].as_array()?;
        let mut pairs = all.iter().filter_map(|pair| pair.as_str()?.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The bytes of all layers as they are sent.
    pub fn packed_size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// Fails the test when another image does not have the same files.
    #[track_caller]
    pub fn assert_same_files(&self, other: &Self, what: &str) {
        self.tree.assert_same(&other.tree, what);
    }
}

fn json(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The image manifests that an index leads to, through indexes in it, with their descriptors; not
/// attestations.
fn manifests(root: &Path, index: &Value) -> Vec<(Value, Value)> {
    let descriptors = index["manifests"].as_array().expect("an index lists manifests");
    let images = descriptors.iter().filter(|found| found["platform"]["os"] != "unknown");
    let below = |descriptor: &Value| {
        let found = json(&blob(root, descriptor));
        if found["manifests"].is_array() {
            manifests(root, &found)
        } else {
            vec![(descriptor.clone(), found)]
        }
    };
    images.flat_map(below).collect()
}

/// The path of a blob, whose bytes are found to be what its descriptor says.
fn blob(root: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().expect("a descriptor has a digest");
    let hex = digest.strip_prefix("sha256:").expect("a SHA-256 digest");
    let path = root.join("blobs/sha256").join(hex);
    let file = File::open(&path).unwrap_or_else(|e| panic!("blob {digest}: {e}"));
    let size = file.metadata().expect("an open file").len();
    assert_eq!(Some(size), descriptor["size"].as_u64(), "the size of blob {digest}");
    assert_eq!(sha256(file), hex, "the content of blob {digest}");
    path
}

fn oci(root: &Path, descriptor: &Value, manifest: Value, names: &[String]) -> Image {
    let config_path = blob(root, &manifest["config"]);
    let layers = manifest["layers"].as_array().expect("a manifest lists layers");
    let named = descriptor["annotations"]["io.containerd.image.name"].as_str();
    let names = named.map_or_else(|| names.to_vec(), |name| vec![name.to_owned()]);
    let paths = layers
        .iter()
        .map(|layer| (blob(root, layer), layer["mediaType"].as_str().map(str::to_owned)));
    let paths: Vec<_> = paths.collect();
    image(&config_path, names, manifest, paths)
}

/// The names in the `manifest.json` that some OCI archives have for `docker load`.
fn docker_names(root: &Path) -> Vec<String> {
    let path = root.join("manifest.json");
    if !path.exists() {
        return Vec::new();
    }
    let tags = json(&path)[0]["RepoTags"].as_array().cloned().unwrap_or_default();
    tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
}

fn docker(root: &Path, manifest: &Value) -> Image {
    let strings = |key: &str| -> Vec<String> {
        let list = manifest[key].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let config = root.join(manifest["Config"].as_str().expect("the config's path"));
    let layers = strings("Layers").iter().map(|layer| (root.join(layer), None)).collect();
    image(&config, strings("RepoTags"), Value::Null, layers)
}

fn image(
    config_path: &Path,
    names: Vec<String>,
    manifest: Value,
    paths: Vec<(PathBuf, Option<String>)>,
) -> Image {
    let bytes = fs::read(config_path).expect("the config of an image");
    let config: Value = serde_json::from_slice(&bytes).expect("a config is JSON");
    let ids = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
    assert_eq!(ids.len(), paths.len(), "the config has a diff id for each layer");
    let mut tree = Tree::default();
    let mut layers = Vec::new();
    for ((path, media_type), id) in paths.into_iter().zip(ids) {
        let unpacked = sha256(unpacked(&path));
        assert_eq!(Some(format!("sha256:{unpacked}").as_str()), id.as_str(), "{}", path.display());
        tree.apply(self::unpacked(&path));
        let file = File::open(&path).expect("a layer");
        let size = file.metadata().expect("an open file").len();
        layers.push(Layer { sha256: sha256(file), size, media_type });
    }
    Image { id: format!("sha256:{}", sha256(&bytes[..])), names, config, manifest, layers, tree }
}

/// A layer's archive, whatever it is compressed with.
fn unpacked(path: &Path) -> Box<dyn Read> {
    let mut start = [0; 4];
    let read = File::open(path).expect("a layer").read(&mut start).expect("reading a layer");
    let program = match &start[..read] {
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "zstd",
        _ => return Box::new(File::open(path).expect("a layer")),
    };
    let mut program = command(tool(program));
    program.arg("-dc").stdin(File::open(path).expect("a layer")).stdout(Stdio::piped());
    Box::new(Unpacking(program.spawn().expect("starting a program to unpack a layer")))
}

/// The output of a program that unpacks; the end of the output is also the program's.
struct Unpacking(std::process::Child);

impl Read for Unpacking {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.stdout.as_mut().expect("piped").read(buffer)?;
        if read == 0 {
            assert!(self.0.wait()?.success(), "a layer cannot be unpacked");
        }
        Ok(read)
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
