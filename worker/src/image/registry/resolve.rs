//! From a reference to an image: digests, config and layers, for one platform.

use super::call::{Access, Target};
use super::document::{Config, Document, INDEX_DEPTH_MAX, Listed, Manifest, choose};
use super::manifest::{Fetched, named};
use super::{Endpoint, Reference, RegistryError, Session, repository_of};
use crate::image::blocking;
use crate::image::rows;
use crate::image::sha::sha256;
use bytes::Bytes;
use cache::store::{OciBlob, Store};
use proto::id::{BlobId, OciDigest};
use proto::limit;
use proto::platform::Platform;
use proto::step::PackedRef;
use std::sync::Arc;

/// Images of an index without platforms that are looked into.
const UNNAMED_MAX: usize = 16;

/// Whether a registry is asked about what is in the store already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Always: tags move, and whoever asks must be allowed to see the image.
    Ask,
    /// Not for references with a digest whose image is here. For a store with one owner.
    PinnedFromStore,
}

/// An image, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The reference that was asked for.
    pub reference: Reference,
    /// The digest of what the reference names: an index, or the manifest itself.
    pub top: OciDigest,
    /// The digest of the platform's manifest.
    pub manifest: OciDigest,
    /// Its bytes.
    pub manifest_bytes: Bytes,
    /// Its media type.
    pub media_type: String,
    /// The image id.
    pub config: OciDigest,
    /// Its bytes.
    pub config_bytes: Bytes,
    /// The platform that the config says. Not always the one that was wanted: an image without an
    /// index is for whatever it is.
    pub platform: Platform,
    /// When it was made, as the config says.
    pub created: Option<String>,
    /// The layers, lowest first.
    pub layers: Vec<LayerRef>,
}

/// A layer of an image at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRef {
    /// The packed layer.
    pub part: PackedRef,
    /// SHA-256 of the uncompressed layer.
    pub diff_id: OciDigest,
}

impl Session {
    /// Resolves a reference. Manifest and config are in the store afterwards; when they are there
    /// before, one small request is enough.
    pub async fn resolve(
        &self,
        store: &Arc<dyn Store>,
        reference: &Reference,
        platform: &Platform,
        freshness: Freshness,
    ) -> Result<Resolved, RegistryError> {
        let _pin = store.pin();
        let endpoints = self.endpoints(reference)?;
        let mut failed = None;
        for endpoint in &endpoints {
            let asked = Asked { session: self, store, reference, platform, endpoint, freshness };
            match asked.resolve().await {
                Ok(resolved) => return Ok(resolved),
                Err(e @ RegistryError::Store(_)) => return Err(e),
                Err(e) => {
                    if endpoint.mirror_of.is_some() {
                        tracing::info!("A mirror of {} has failed: {e}", reference.registry());
                    }
                    failed = Some(e);
                }
            }
        }
        Err(failed.expect("there is always the registry itself"))
    }
}

struct Asked<'a> {
    session: &'a Session,
    store: &'a Arc<dyn Store>,
    reference: &'a Reference,
    platform: &'a Platform,
    endpoint: &'a Endpoint,
    freshness: Freshness,
}

impl Asked<'_> {
    fn target(&self, what: String) -> Target<'_> {
        Target::new(self.endpoint, self.reference, Access::Pull, what)
    }

    async fn resolve(&self) -> Result<Resolved, RegistryError> {
        let what = self.reference.to_string();
        let target = self.target(what.clone());
        let top = self.top(&target).await?;
        let (top_digest, mut found) = (top.digest, top);
        let mut listed_size = None;
        for _ in 0..INDEX_DEPTH_MAX {
            if listed_size.is_some_and(|size| size != found.bytes.len() as u64) {
                let detail = format!("{} has another size than its index says", found.digest);
                return Err(target.wrong_bytes(detail));
            }
            let document = Document::read(&found.bytes, &found.media_type);
            let part = match document.map_err(|why| target.bad_manifest(why))? {
                Document::Manifest(manifest) => {
                    return self.finish(&target, top_digest, found, manifest).await;
                }
                Document::Index(listed) => self.select(&target, &listed).await?,
            };
            listed_size = Some(part.size);
            let media_type = part.media_type.clone();
            found = Fetched { media_type, ..self.document(&target, &part.digest).await? };
        }
        Err(target.bad_manifest("its index leads to indexes without end".into()))
    }

    /// What the reference names.
    async fn top(&self, target: &Target<'_>) -> Result<Fetched, RegistryError> {
        let (name, pinned) = named(self.reference)?;
        if let (Some(digest), Freshness::PinnedFromStore) = (pinned, self.freshness)
            && let Some(bytes) = self.stored(digest).await?
        {
            return Ok(Fetched { bytes, digest, media_type: String::new() });
        }
        let said = self.session.manifest_digest(target, &name).await?;
        let digest = pinned.or(said);
        if let Some(digest) = digest
            && let Some(bytes) = self.stored(digest).await?
        {
            return Ok(Fetched { bytes, digest, media_type: String::new() });
        }
        let fetched = self.session.manifest(target, &name, digest.as_ref()).await?;
        self.keep(fetched.digest, fetched.bytes.clone()).await?;
        Ok(fetched)
    }

    async fn document(
        &self,
        target: &Target<'_>,
        digest: &OciDigest,
    ) -> Result<Fetched, RegistryError> {
        if let Some(bytes) = self.stored(*digest).await? {
            return Ok(Fetched { bytes, digest: *digest, media_type: String::new() });
        }
        let fetched = self.session.manifest(target, &digest.to_string(), Some(digest)).await?;
        self.keep(fetched.digest, fetched.bytes.clone()).await?;
        Ok(fetched)
    }

    /// The entry of an index for our platform.
    async fn select(
        &self,
        target: &Target<'_>,
        listed: &[Listed],
    ) -> Result<PackedRef, RegistryError> {
        if let Some(found) = choose(listed, self.platform) {
            return Ok(found.part.clone());
        }
        // Some tools name no platforms; then the configs do.
        let unnamed = listed.iter().filter(|l| l.platform.is_none()).take(UNNAMED_MAX);
        let mut looked_at = Vec::new();
        for entry in unnamed {
            let fetched = self.document(target, &entry.part.digest).await?;
            let document = Document::read(&fetched.bytes, &entry.part.media_type);
            if let Ok(Document::Manifest(manifest)) = document {
                let config = self.config(target, &manifest).await?;
                let config = Config::read(&config).map_err(|why| target.bad_manifest(why))?;
                let platform = Some(config.platform);
                looked_at.push(Listed { part: entry.part.clone(), platform });
            }
        }
        if let Some(found) = choose(&looked_at, self.platform) {
            return Ok(found.part.clone());
        }
        let all = listed.iter().chain(&looked_at).filter_map(|l| l.platform.as_ref());
        let mut have: Vec<String> = all.map(ToString::to_string).collect();
        have.dedup();
        if have.is_empty() {
            return Err(target.bad_manifest("its index names no image".into()));
        }
        let what = self.reference.to_string();
        Err(RegistryError::NoPlatform { what, wanted: self.platform.to_string(), have })
    }

    async fn finish(
        &self,
        target: &Target<'_>,
        top: OciDigest,
        found: Fetched,
        manifest: Manifest,
    ) -> Result<Resolved, RegistryError> {
        let config_bytes = self.config(target, &manifest).await?;
        let config = Config::read(&config_bytes).map_err(|why| target.bad_manifest(why))?;
        if config.diff_ids.len() != manifest.layers.len() {
            let (ids, layers) = (config.diff_ids.len(), manifest.layers.len());
            let why = format!("its config names {ids} layers, its manifest {layers}");
            return Err(target.bad_manifest(why));
        }
        let layers = manifest.layers.into_iter().zip(config.diff_ids);
        Ok(Resolved {
            reference: self.reference.clone(),
            top,
            manifest: found.digest,
            media_type: media_type(&found),
            manifest_bytes: found.bytes,
            config: manifest.config.digest,
            config_bytes,
            platform: config.platform,
            created: config.created,
            layers: layers.map(|(part, diff_id)| LayerRef { part, diff_id }).collect(),
        })
    }

    async fn config(
        &self,
        target: &Target<'_>,
        manifest: &Manifest,
    ) -> Result<Bytes, RegistryError> {
        let PackedRef { digest, size, .. } = manifest.config;
        if let Some(bytes) = self.stored(digest).await? {
            return Ok(bytes);
        }
        let target = self.target(format!("the config of {}", target.what));
        let limit = size.min(limit::MANIFEST_BYTES_MAX as u64) as usize;
        let bytes = self.session.blob_in_memory(&target, &digest, limit).await?;
        self.keep(digest, bytes.clone()).await?;
        Ok(bytes)
    }

    /// A document that is in the store. Larger ones than may come from a registry are not.
    async fn stored(&self, digest: OciDigest) -> Result<Option<Bytes>, RegistryError> {
        let store = self.store.clone();
        let read = move || match rows::oci_blob(&*store, &digest)? {
            Some(row) if row.size <= limit::MANIFEST_BYTES_MAX as u64 => {
                let bytes = store.read(&row.blob)?;
                Ok((sha256(&bytes) == digest).then_some(bytes))
            }
            _ => Ok(None),
        };
        blocking(read).await
    }

    async fn keep(&self, digest: OciDigest, bytes: Bytes) -> Result<(), RegistryError> {
        let store = self.store.clone();
        let repository = Some(repository_of(self.reference));
        blocking(move || {
            let (blob, size) = (BlobId::of(&bytes), bytes.len() as u64);
            super::super::put_any(&*store, blob, bytes)?;
            Ok(rows::put_oci_blob(&*store, &digest, OciBlob { blob, size, repository })?)
        })
        .await
    }
}

/// The media type that a document says of itself, else what it was said to be.
fn media_type(found: &Fetched) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
    }
    let said = serde_json::from_slice::<Said>(&found.bytes).ok().and_then(|s| s.media_type);
    let known = Some(found.media_type.clone()).filter(|m| !m.is_empty());
    said.or(known).unwrap_or_else(|| super::DOCUMENTS[1].to_owned())
}
