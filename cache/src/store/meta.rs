//! The small tables beside blobs, trees and records.

use super::persist::Persisted;
use crate::mounts::Generation;
use proto::id::{BlobId, OciDigest, RootId, Scope, TreeId};
use proto::platform::Platform;
use rkyv::{Archive, Deserialize, Serialize};

/// A small table. Keys and values are bytes; this says what they are, and so what each row keeps
/// alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// The image store. Key: [`Image::key`], of a full reference (`docker.io/library/app:latest`)
    /// or the image id of an image without a name. Value: [`Image`]. A root: never collected. Keeps
    /// its config and its trees, and its layers as they came where [`Table::OciBlob`] has them.
    Image,
    /// Blobs by the digest that registries know them by. Key: [`OciDigest`] bytes. Value:
    /// [`OciBlob`]. Collected by last use.
    OciBlob,
    /// Layers made of diff trees. Key: [`LayerBlob::key`]. Value: [`LayerBlob`]. Keeps the packed
    /// layer, not the tree. Collected by last use.
    Layer,
    /// Pieces of packed layers, by what they hold. Key: [`PackedBlock::key`]. Value:
    /// [`PackedBlock`]. Keeps the packed layer that it lies in. Collected by last use.
    Block,
    /// Diff trees that layers of registries unpacked to. Key: [`OciDigest`] bytes of the diff id
    /// (the uncompressed layer). Value: [`RootId`] bytes. Collected by last use.
    Unpacked,
    /// Generations of cache mounts. Key: as [`mount_row`] makes it. Value: [`RootId`] bytes, and
    /// behind them what is known of the generation. Collected by last use, after everything else.
    CacheMount,
    /// What is known of past builds. Key: time and build id. Value: as the coordinator writes it.
    /// Keeps nothing alive.
    Build,
    /// What the steps of a past build were made from, so that later ones can be compared with them.
    /// Key: a scope's hash, time and build id. Value: as the coordinator writes it. Keeps nothing
    /// alive. Collected by last use.
    Trace,
}

impl Table {
    /// All tables.
    pub const ALL: [Table; 8] = [
        Table::Image,
        Table::OciBlob,
        Table::Layer,
        Table::Block,
        Table::Unpacked,
        Table::CacheMount,
        Table::Build,
        Table::Trace,
    ];
}

/// What a row names. All of it but `layers` has to be here before the row is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// Blobs, each with its size where the row says it.
    pub blobs: Vec<(BlobId, Option<u64>)>,
    /// Trees.
    pub trees: Vec<TreeId>,
    /// Keys of [`Table::OciBlob`] whose blobs the row keeps, where they are here.
    pub layers: Vec<OciDigest>,
}

impl Table {
    /// What the row with this key and value names; or, why the two are no row of this table.
    pub fn names(self, key: &[u8], value: &[u8]) -> Result<Names, &'static str> {
        match self {
            Table::Image => {
                let image = Image::from_bytes(value).ok_or("its value is no image")?;
                let original = |l: &ImageLayer| l.original.as_ref().map(|(_, digest, _)| *digest);
                Ok(Names {
                    blobs: vec![(image.config, None)],
                    trees: {
                        let diffs = image.layers.iter().filter_map(|layer| layer.diff);
                        diffs.chain(image.archive).map(|root| root.0).collect()
                    },
                    layers: image.layers.iter().filter_map(original).collect(),
                })
            }
            Table::OciBlob => {
                hash32(key).ok_or("its key is no SHA-256 digest")?;
                let blob = OciBlob::from_bytes(value).ok_or("its value is no blob's place")?;
                Ok(Names { blobs: vec![(blob.blob, Some(blob.size))], ..Names::default() })
            }
            Table::Layer => {
                if key.len() != 34 {
                    return Err("its key is no tree and compression");
                }
                let layer = LayerBlob::from_bytes(value).ok_or("its value is no layer")?;
                let packed = layer.packed.map(|p| (p.blob, Some(p.size)));
                Ok(Names { blobs: packed.into_iter().collect(), ..Names::default() })
            }
            Table::Block => {
                if key.len() != 34 {
                    return Err("its key is no block and compression");
                }
                let block =
                    PackedBlock::from_bytes(value).ok_or("its value is no block's place")?;
                Ok(Names { blobs: vec![(block.layer, Some(block.size))], ..Names::default() })
            }
            Table::Unpacked => {
                hash32(key).ok_or("its key is no SHA-256 digest")?;
                root_value(value)
            }
            Table::CacheMount => root_value(value.get(..32).unwrap_or(value)),
            Table::Build | Table::Trace => Ok(Names::default()),
        }
    }

    /// The byte that stands for the table on disk.
    pub(super) const fn tag(self) -> u8 {
        match self {
            Table::Image => 0,
            Table::OciBlob => 1,
            Table::Layer => 2,
            Table::Unpacked => 3,
            Table::CacheMount => 4,
            Table::Build => 5,
            Table::Block => 6,
            Table::Trace => 7,
        }
    }
}

fn hash32(bytes: &[u8]) -> Option<[u8; 32]> {
    bytes.try_into().ok()
}

fn root_value(value: &[u8]) -> Result<Names, &'static str> {
    let tree = TreeId::from_bytes(hash32(value).ok_or("its value is no root's id")?);
    Ok(Names { trees: vec![tree], ..Names::default() })
}

/// What the keys of a mount's rows begin with.
pub fn mount_prefix(scope: &Scope, id: &str) -> Vec<u8> {
    [scope.as_str().as_bytes(), b"\0", id.as_bytes(), b"\0"].concat()
}

/// The row of [`Table::CacheMount`] for a generation.
pub fn mount_row(scope: &Scope, id: &str, generation: &Generation) -> Row {
    let mut key = mount_prefix(scope, id);
    key.extend_from_slice(&generation.number.to_be_bytes());
    let mut value = generation.tree.0.as_bytes().to_vec();
    value.extend_from_slice(&generation.to_bytes());
    (key, value)
}

/// The mount that a row's key is of, and the number of its generation. A key that says no number is
/// the mount's own.
pub(super) fn mount_number(key: &[u8]) -> (&[u8], u64) {
    match key.split_last_chunk::<8>() {
        Some((name, number)) if name.ends_with(b"\0") => (name, u64::from_be_bytes(*number)),
        _ => (key, 0),
    }
}

/// Reads what [`mount_row`] made.
pub fn mount_of(key: &[u8], value: &[u8]) -> Option<(Scope, String, Generation)> {
    let generation = Generation::from_bytes(value.get(32..)?)?;
    let (name, number) = key.split_last_chunk::<8>()?;
    let (scope, id) = std::str::from_utf8(name.strip_suffix(b"\0")?).ok()?.split_once('\0')?;
    let same = u64::from_be_bytes(*number) == generation.number;
    same.then_some((Scope::parse(scope).ok()?, id.to_owned(), generation))
}

/// A row: key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// A blob that has a SHA-256 name too.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct OciBlob {
    /// Its name here.
    pub blob: BlobId,
    /// Its size in bytes.
    pub size: u64,
    /// The repository that it was pulled from or pushed to last (`registry/name`), from which
    /// registries can mount it.
    pub repository: Option<String>,
}

/// How a layer is packed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip at this level, 1 to 9.
    Gzip(u8),
    /// zstd at this level, 1 to 19.
    Zstd(u8),
}

impl Compression {
    /// The bytes that name it in keys.
    pub fn bytes(self) -> [u8; 2] {
        match self {
            Self::None => [0, 0],
            Self::Gzip(level) => [1, level],
            Self::Zstd(level) => [2, level],
        }
    }
}

/// A layer made of a diff tree.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LayerBlob {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: OciDigest,
    /// SHA-256 and place of the packed layer. None while only the diff id was needed.
    pub packed: Option<PackedLayer>,
}

/// A packed layer in the store.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PackedLayer {
    /// SHA-256 of the packed bytes.
    pub digest: OciDigest,
    /// The packed bytes.
    pub blob: BlobId,
    /// How many.
    pub size: u64,
}

impl LayerBlob {
    /// The key of the layer that `diff` makes with this compression.
    pub fn key(diff: &RootId, compression: Compression) -> Vec<u8> {
        [&diff.0.as_bytes()[..], &compression.bytes()].concat()
    }
}

/// A piece of a layer's tar, packed: a gzip member or a zstd frame, where it lies in a packed layer.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PackedBlock {
    /// The packed layer.
    pub layer: BlobId,
    /// Its size in bytes.
    pub size: u64,
    /// Where in it the packed piece begins.
    pub at: u64,
    /// BLAKE3 of the packed piece.
    pub hash: BlobId,
    /// Bytes of the packed piece.
    pub len: u32,
}

impl PackedBlock {
    /// The key of a piece with this hash, which was packed so.
    pub fn key(plain: &BlobId, compression: Compression) -> Vec<u8> {
        [&plain.as_bytes()[..], &compression.bytes()].concat()
    }
}

/// An image of the image store.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Image {
    /// SHA-256 of the config: the image id.
    pub id: OciDigest,
    /// The platform.
    pub platform: Platform,
    /// The config's bytes, as a blob.
    pub config: BlobId,
    /// The layers, lowest first.
    pub layers: Vec<ImageLayer>,
    /// When it got this name: milliseconds since 1970.
    pub tagged_ms: u64,
    /// When it was made, by its config: milliseconds since 1970.
    pub created_ms: u64,
    /// Bytes of all files of all layers.
    pub size: u64,
    /// The full references by which its packed layers were pulled: where they can be had again.
    pub references: Vec<String>,
    /// Its packed layers that no registry is known to have: a directory with a file for each, named
    /// by the hexadecimal SHA-256.
    pub archive: Option<RootId>,
}

impl Image {
    /// The key of an image's row: who sees it, and its name or id.
    pub fn key(scope: &Scope, name: &str) -> Vec<u8> {
        [scope.as_str(), " ", name].concat().into_bytes()
    }

    /// The name or id of a row of this scope.
    pub fn name_in<'k>(scope: &Scope, key: &'k [u8]) -> Option<&'k str> {
        let key = std::str::from_utf8(key).ok()?;
        key.strip_prefix(scope.as_str())?.strip_prefix(' ')
    }
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ImageLayer {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: OciDigest,
    /// Its files as a diff tree; absent when the layer was never unpacked here.
    pub diff: Option<RootId>,
    /// The packed form that a registry has, when the layer came from one: media type, digest and
    /// size. It is used again as it is.
    pub original: Option<(String, OciDigest, u64)>,
}
