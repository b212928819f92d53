//! Images of the local store: from what was pulled, and to what is pushed or written to a file.

use super::manifest::{
    Annotations, Assembled, Document, ManifestError, PackedPart, assemble, layer_media, read_time,
};
use super::pack::{PackError, Packer};
use super::registry::Resolved;
use super::rows;
use cache::store::{Compression, Image, ImageLayer, Store, StoreError};
use proto::error::Class;
use proto::id::{BlobId, Millis, OciDigest, RootId};
use proto::step::PackedRef;
use proto::tree::AnyNode;
use proto::wire::build::MediaTypes;

/// Why an image of the local store could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A layer is not here as it was packed, and cannot be made again with the same bytes.
    #[error("The layer {0} of the image is gone from the store; pull or build the image again")]
    LayerGone(OciDigest),
    /// A layer could not be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The manifest could not be made.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LocalError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::LayerGone(_) => Class::Unavailable,
            Self::Pack(e) => e.class(),
            Self::Manifest(e) => e.class(),
            Self::Store(e) => e.class(),
        }
    }
}

/// The bytes of all files of these layers, those of hard links several times: quickly known, and an
/// upper bound of what they take on a disk.
pub fn size_of(store: &dyn Store, layers: &[RootId]) -> Result<u64, StoreError> {
    layers.iter().try_fold(0u64, |sum, layer| match &*store.node(&layer.0)? {
        AnyNode::Root(root) => Ok(sum.saturating_add(root.dir.summary.bytes)),
        AnyNode::Dir(_) => Ok(sum),
    })
}

/// A pulled image as the table `Image` keeps it. `layers` are its diff trees, lowest first.
pub fn pulled(
    store: &dyn Store,
    image: &Resolved,
    layers: &[RootId],
    now: Millis,
) -> Result<Image, StoreError> {
    let parts = image.layers.iter().zip(layers).map(|(layer, root)| ImageLayer {
        diff_id: layer.diff_id,
        diff: Some(*root),
        original: Some((layer.part.media_type.clone(), layer.part.digest, layer.part.size)),
    });
    let created = image.created.as_deref().and_then(read_time).unwrap_or(Millis(0));
    Ok(Image {
        id: image.config,
        platform: image.platform.clone(),
        config: BlobId::of(&image.config_bytes),
        layers: parts.collect(),
        tagged_ms: now.0,
        created_ms: created.0,
        size: size_of(store, layers)?,
        references: vec![image.reference.to_string()],
        archive: None,
    })
}

/// How an image's layers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct How {
    /// The compression of layers that are made here.
    pub compression: Compression,
    /// Whether layers that came packed from a registry are made anew, too.
    pub force: bool,
    /// The media types.
    pub media: MediaTypes,
}

/// An image of the local store, with its layers packed: those that came from a registry as they
/// came, if their bytes are still here. Blocks.
pub fn export(
    store: &dyn Store,
    packer: &Packer,
    image: &Image,
    how: How,
    annotations: &Annotations,
) -> Result<Assembled, LocalError> {
    let config = Document::new(store.read(&image.config)?, String::new());
    let layers = image.layers.iter().map(|layer| packed(store, packer, layer, how));
    let layers: Vec<PackedPart> = layers.collect::<Result<_, _>>()?;
    Ok(assemble(how.media, image.platform.clone(), config, layers, annotations)?)
}

/// What `docker save` and [`load`](super::archive::load) have layers as. Registries have none such:
/// whoever pushes compresses.
pub(crate) const DOCKER_PLAIN: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// One layer, packed. Its uncompressed bytes are always those that the config names.
pub fn packed(
    store: &dyn Store,
    packer: &Packer,
    layer: &ImageLayer,
    how: How,
) -> Result<PackedPart, LocalError> {
    let diff_id = layer.diff_id;
    let made_here = layer_media(how.media, how.compression).to_owned();
    let original = match &layer.original {
        Some((media_type, digest, size)) => {
            rows::oci_blob(store, digest)?.map(|row| (media_type, *digest, *size, row.blob))
        }
        None => None,
    };
    let (media_type, made) = match original {
        Some((media_type, digest, size, blob)) if !how.force && media_type != DOCKER_PLAIN => {
            let part = PackedRef { media_type: media_type.clone(), digest, size };
            return Ok(PackedPart { part, blob, diff_id });
        }
        Some((.., blob)) => (made_here, packer.repack(&blob, how.compression)?),
        None => {
            let diff = layer.diff.ok_or(LocalError::LayerGone(diff_id))?;
            (made_here, packer.layer(&diff, how.compression)?)
        }
    };
    if made.diff_id != diff_id {
        return Err(LocalError::LayerGone(diff_id));
    }
    let part = PackedRef { media_type, digest: made.packed.digest, size: made.packed.size };
    Ok(PackedPart { part, blob: made.packed.blob, diff_id })
}
