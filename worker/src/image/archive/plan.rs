//! What stands in an archive. Pure.

use crate::image::manifest::{Annotations, ImageSet, layout_index};
use crate::image::registry::{Reference, familiar, parse_reference};
use proto::error::Class;
use proto::id::OciDigest;
use proto::wire::build::{ArchiveData, ArchiveEntry, ArchiveFormat};
use serde::Serialize;
use std::collections::BTreeMap;

/// Why no archive can be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Docker's archives have no indexes.
    #[error("`docker load` takes images of one platform only; use type=oci, or name one platform")]
    SeveralPlatforms,
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] crate::image::registry::RegistryError),
}

impl PlanError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        Class::User
    }
}

/// What stands in an archive of these images under these names (full references), sorted by path.
///
/// Both forms are an OCI layout (image spec, “OCI Image Layout”) with containerd's annotations for
/// names. With images of one platform there is a `manifest.json` too, so that `docker load` of any
/// age takes it; Docker's own form must have it.
pub fn plan(
    set: &ImageSet,
    names: &[String],
    format: ArchiveFormat,
) -> Result<Vec<ArchiveEntry>, PlanError> {
    if format == ArchiveFormat::Docker && set.images.len() != 1 {
        return Err(PlanError::SeveralPlatforms);
    }
    let names: Vec<Reference> =
        names.iter().map(|n| parse_reference(n)).collect::<Result<_, _>>()?;
    let mut files: BTreeMap<String, ArchiveData> = BTreeMap::new();
    let inline = |bytes: &[u8]| ArchiveData::Inline(bytes.to_vec());
    for image in &set.images {
        for layer in &image.layers {
            let data = ArchiveData::Blob(layer.blob, layer.part.size, layer.part.digest);
            files.insert(blob_path(&layer.part.digest), data);
        }
        for document in [&image.config, &image.manifest] {
            files.insert(blob_path(&document.digest), inline(&document.bytes));
        }
    }
    if let Some(index) = &set.index {
        files.insert(blob_path(&index.digest), inline(&index.bytes));
    }
    files.insert("blobs/".into(), ArchiveData::Directory);
    files.insert("blobs/sha256/".into(), ArchiveData::Directory);
    files.insert("oci-layout".into(), inline(br#"{"imageLayoutVersion":"1.0.0"}"#));
    files.insert("index.json".into(), inline(&index_json(set, &names)));
    if let [_] = set.images[..] {
        files.insert("manifest.json".into(), inline(&manifest_json(set, &names)));
    }
    Ok(files.into_iter().map(|(path, data)| ArchiveEntry { path, data }).collect())
}

fn blob_path(digest: &OciDigest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// One entry for each name; one without a name when there are none.
fn index_json(set: &ImageSet, names: &[Reference]) -> Vec<u8> {
    let top = set.top().part();
    if names.is_empty() {
        return layout_index(vec![(top, Annotations::new())]);
    }
    let entry = |name: &Reference| {
        let short = name.tag().or(name.digest()).unwrap_or_default().to_owned();
        let notes = [
            ("io.containerd.image.name".to_owned(), name.to_string()),
            ("org.opencontainers.image.ref.name".to_owned(), short),
        ];
        (top.clone(), Annotations::from(notes))
    };
    layout_index(names.iter().map(entry).collect())
}

/// As Docker writes and reads it (moby, `image/tarexport`).
fn manifest_json(set: &ImageSet, names: &[Reference]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        config: String,
        repo_tags: Vec<String>,
        layers: Vec<String>,
    }
    let image = &set.images[0];
    let tagged = names.iter().filter(|name| name.tag().is_some());
    let entry = Entry {
        config: blob_path(&image.config.digest),
        repo_tags: tagged.map(familiar).collect(),
        layers: image.layers.iter().map(|l| blob_path(&l.part.digest)).collect(),
    };
    serde_json::to_vec(&[entry]).expect("texts and lists are JSON")
}
