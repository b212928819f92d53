//! What stands in an archive. Pure.

use crate::image::layout::path_of;
use crate::image::manifest::{Annotations, Document, ImageSet, layout_index};
use crate::image::registry::{Reference, familiar, parse_reference};
use proto::error::Class;
use proto::id::OciDigest;
use proto::step::PackedRef;
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
    plan_all(&[(set.clone(), names.to_vec())], format)
}

/// As [`plan`], for several images in one archive, each with its names.
pub fn plan_all(
    sets: &[(ImageSet, Vec<String>)],
    format: ArchiveFormat,
) -> Result<Vec<ArchiveEntry>, PlanError> {
    let all_single = sets.iter().all(|(set, _)| set.images.len() == 1);
    if format == ArchiveFormat::Docker && !all_single {
        return Err(PlanError::SeveralPlatforms);
    }
    let mut files: BTreeMap<String, ArchiveData> = BTreeMap::new();
    let (mut index, mut docker) = (Vec::new(), Vec::new());
    for (set, names) in sets {
        let names: Vec<Reference> =
            names.iter().map(|n| parse_reference(n)).collect::<Result<_, _>>()?;
        add_blobs(set, &mut files);
        index.extend(index_entries(set, &names));
        docker.push(docker_entry(set, &names));
    }
    if all_single {
        let entries = serde_json::to_vec(&docker).expect("texts and lists are JSON");
        files.insert("manifest.json".into(), inline(&entries));
    }
    Ok(layout(files, index))
}

/// What stands in the layout of something that is no image: its manifest, and the blobs that it
/// names.
pub fn artifact(
    manifest: &Document,
    blobs: impl IntoIterator<Item = (OciDigest, ArchiveData)>,
) -> Vec<ArchiveEntry> {
    let blobs = blobs.into_iter().map(|(digest, data)| (path_of(&digest), data));
    let mut files: BTreeMap<String, ArchiveData> = blobs.collect();
    files.insert(path_of(&manifest.digest), inline(&manifest.bytes));
    layout(files, vec![(manifest.part(), Annotations::new())])
}

/// An OCI layout of these files.
fn layout(
    mut files: BTreeMap<String, ArchiveData>,
    index: Vec<(PackedRef, Annotations)>,
) -> Vec<ArchiveEntry> {
    files.insert("blobs/".into(), ArchiveData::Directory);
    files.insert("blobs/sha256/".into(), ArchiveData::Directory);
    files.insert("oci-layout".into(), inline(br#"{"imageLayoutVersion":"1.0.0"}"#));
    files.insert("index.json".into(), inline(&layout_index(index)));
    files.into_iter().map(|(path, data)| ArchiveEntry { path, data }).collect()
}

fn inline(bytes: &[u8]) -> ArchiveData {
    ArchiveData::Inline(bytes.to_vec())
}

fn add_blobs(set: &ImageSet, files: &mut BTreeMap<String, ArchiveData>) {
    for image in &set.images {
        for layer in &image.layers {
            let data = ArchiveData::Blob(layer.blob, layer.part.size, layer.part.digest);
            files.insert(path_of(&layer.part.digest), data);
        }
        for document in [&image.config, &image.manifest] {
            files.insert(path_of(&document.digest), inline(&document.bytes));
        }
    }
    if let Some(index) = &set.index {
        files.insert(path_of(&index.digest), inline(&index.bytes));
    }
}

/// One entry for each name; one without a name when there are none.
fn index_entries(set: &ImageSet, names: &[Reference]) -> Vec<(PackedRef, Annotations)> {
    let top = set.top().part();
    if names.is_empty() {
        return vec![(top, Annotations::new())];
    }
    let entry = |name: &Reference| {
        let short = name.tag().or(name.digest()).unwrap_or_default().to_owned();
        let notes = [
            ("io.containerd.image.name".to_owned(), name.to_string()),
            ("org.opencontainers.image.ref.name".to_owned(), short),
        ];
        (top.clone(), Annotations::from(notes))
    };
    names.iter().map(entry).collect()
}

/// An entry of `manifest.json`, as Docker writes and reads it (moby, `image/tarexport`).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

fn docker_entry(set: &ImageSet, names: &[Reference]) -> DockerEntry {
    let image = &set.images[0];
    let tagged = names.iter().filter(|name| name.tag().is_some());
    DockerEntry {
        config: path_of(&image.config.digest),
        repo_tags: tagged.map(familiar).collect(),
        layers: image.layers.iter().map(|l| path_of(&l.part.digest)).collect(),
    }
}
