//! The image store. Only the coordinator gives names and takes them away, one change after the other:
//! so all cache nodes have the same. What has bytes to move is done by a worker.

use super::errands::Person;
use super::library::no_archives;
use super::locked;
use super::workers::unexpected;
use super::{Server, now};
use crate::images::{self, Change, Known, Meant, disk_size};
use bytes::Bytes;
use cache::net::NetError;
use cache::store::{Image, Persisted};
use proto::error::{Class, Failure};
use proto::id::{BlobId, OciDigest, RootId, Scope};
use proto::limit;
use proto::platform::Platform;
use proto::reference::Reference;
use proto::wire::blob::Table;
use proto::wire::build::{ArchiveEntry, ArchiveFormat};
use proto::wire::worker::{Call, Reply};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Layers whose sizes are remembered: about 4 MB.
const SIZES_MAX: usize = 1 << 16;

/// What the image store needs beside the rows.
#[derive(Default)]
pub struct Gallery {
    /// Held by whoever changes names: what it decides by must not change meanwhile.
    turn: tokio::sync::Mutex<()>,
    sizes: Mutex<HashMap<RootId, u64>>,
}

impl Gallery {
    fn sizes(&self) -> MutexGuard<'_, HashMap<RootId, u64>> {
        locked(&self.sizes)
    }
}

/// The image store as those of a scope see it.
#[derive(Clone)]
pub struct Images {
    server: Arc<Server>,
    scope: Scope,
}

/// Keeps an image under these names, or without one. Durable then.
pub async fn keep(
    server: &Server,
    scope: &Scope,
    image: &Image,
    names: &[String],
) -> Result<(), Failure> {
    let one = |full: Option<&str>| {
        let full = full.map(str::to_owned);
        alter(server, scope, move |rows| {
            Ok((images::name(rows, image, full.as_deref(), now()), ()))
        })
    };
    match names {
        [] => one(None).await?,
        names => {
            for full in names {
                one(Some(full)).await?;
            }
        }
    }
    Ok(server.library.blobs.barrier().await?)
}

/// The rows of one scope. One of another version is one that is not there.
async fn rows(server: &Server, scope: &Scope) -> Result<Vec<Known>, NetError> {
    let prefix = Image::key(scope, "");
    let rows = server.library.blobs.rows(Table::Image, &prefix).await?;
    let known = |(key, value): (Vec<u8>, Vec<u8>)| {
        let key = Image::name_in(scope, &key)?.to_owned();
        Some(Known { key, image: Image::from_bytes(&value)? })
    };
    Ok(rows.into_iter().filter_map(known).collect())
}

/// Decides by the rows of a scope, and does it. Visible then, and durable after the store's barrier.
async fn alter<T>(
    server: &Server,
    scope: &Scope,
    decide: impl FnOnce(&[Known]) -> Result<(Change, T), Failure>,
) -> Result<T, Failure> {
    let _turn = server.gallery.turn.lock().await;
    let (change, answer) = decide(&rows(server, scope).await?)?;
    let blobs = &server.library.blobs;
    // What is set first makes that no image is without a row in between.
    for known in &change.set {
        let key = Image::key(scope, &known.key);
        blobs.put_row(Table::Image, &key, &known.image.to_bytes()).await?;
    }
    for key in &change.delete {
        blobs.delete_row(Table::Image, &Image::key(scope, key)).await?;
    }
    Ok(answer)
}

/// An image as a worker has made it.
pub fn read_image(bytes: &[u8]) -> Result<Image, Failure> {
    let broken = || Failure::new(Class::Corrupt, "A worker answered with a broken image");
    Image::from_bytes(bytes).ok_or_else(broken)
}

impl Images {
    pub(super) fn new(server: Arc<Server>, scope: Scope) -> Self {
        Self { server, scope }
    }

    /// The same for a scope below this one's.
    pub fn narrowed(&self, scope: Option<&str>) -> Result<Self, Failure> {
        let scope = super::narrow::scope(&self.scope, scope)?;
        Ok(Self { server: self.server.clone(), scope })
    }

    /// All that is seen: the scope's own, and what is trusted and not hidden by it.
    pub async fn all(&self) -> Result<Vec<Known>, Failure> {
        let own = rows(&self.server, &self.scope).await?;
        let base = self.scope.base();
        match base == self.scope {
            true => Ok(own),
            false => Ok(images::seen(own, rows(&self.server, &base).await?)),
        }
    }

    /// The image that a person means, and the name that it was asked for by; none when by its id.
    pub async fn find(&self, text: &str) -> Result<(Image, Option<String>), Failure> {
        let all = self.all().await?;
        let meant = images::find(&all, text)?;
        let name = match meant {
            Meant::Name(known) => Some(known.key.clone()),
            Meant::Id(_) => None,
        };
        Ok((meant.image().clone(), name))
    }

    /// Gives an image another name.
    pub async fn tag(&self, source: &str, target: &Reference) -> Result<(), Failure> {
        let (image, _) = self.find(source).await?;
        keep(&self.server, &self.scope, &image, &[target.to_string()]).await
    }

    /// Takes a name away, or an image with all its names; answers what to tell the person.
    pub async fn remove(&self, text: &str, force: bool) -> Result<Vec<String>, Failure> {
        let removed = alter(&self.server, &self.scope, |own| images::remove(own, text, force));
        let said = match removed.await {
            Ok(said) => said,
            Err(failure) => return Err(self.not_removed(text, failure).await),
        };
        self.server.library.blobs.barrier().await?;
        Ok(said)
    }

    /// Why something was not taken away: also what is seen may be another scope's.
    async fn not_removed(&self, text: &str, failure: Failure) -> Failure {
        let base = self.scope.base();
        let seen = match base == self.scope {
            true => return failure,
            false => rows(&self.server, &base).await.unwrap_or_default(),
        };
        if images::find(&seen, text).is_err() {
            return failure;
        }
        let message = format!("`{text}` is of the scope `{base}`, and yours is `{}`", self.scope);
        Failure::new(Class::Denied, message)
            .hint("Only who has that scope can take it away; a name of your own hides it.")
    }

    /// The config of an image, as JSON.
    pub async fn config(&self, image: &Image) -> Result<Value, Failure> {
        let bytes = self.small(image.config).await?;
        serde_json::from_slice(&bytes).map_err(|e| {
            let message = format!("The config of {} is broken: {e}", image.id.short());
            Failure::new(Class::Corrupt, message)
        })
    }

    /// A document's bytes, verified.
    async fn small(&self, id: BlobId) -> Result<Vec<u8>, Failure> {
        let bytes = Mutex::new(Vec::new());
        let take = |piece: Bytes| {
            let mut bytes = locked(&bytes);
            let fits = bytes.len() + piece.len() <= limit::MANIFEST_BYTES_MAX;
            if fits {
                bytes.extend_from_slice(&piece);
            }
            let too_long = std::io::Error::from(std::io::ErrorKind::FileTooLarge);
            std::future::ready(if fits { Ok(()) } else { Err(too_long) })
        };
        self.server.library.blobs.get_large(id, 0, take).await?;
        let bytes = bytes.into_inner().unwrap_or_else(PoisonError::into_inner);
        match BlobId::of(&bytes) == id {
            true => Ok(bytes),
            false => Err(Failure::new(Class::Corrupt, format!("Blob {id} came with other bytes"))),
        }
    }

    /// The bytes of a layer's files.
    pub async fn layer_size(&self, layer: RootId) -> Result<u64, Failure> {
        if let Some(size) = self.server.gallery.sizes().get(&layer) {
            return Ok(*size);
        }
        let size = self.server.library.algebra(no_archives, move |nodes| disk_size(nodes, &layer));
        let size = size.await.map_err(|e| e.failure(Class::Corrupt))?;
        let mut sizes = self.server.gallery.sizes();
        if sizes.len() >= SIZES_MAX {
            // Dropped all at once: what is asked for again is counted again.
            sizes.clear();
        }
        sizes.insert(layer, size);
        Ok(size)
    }

    /// The bytes of an image's files; those that it says when not all are here.
    pub async fn size(&self, image: &Image) -> u64 {
        let mut sum = 0u64;
        for layer in &image.layers {
            let Some(diff) = layer.diff else { return image.size };
            match self.layer_size(diff).await {
                Ok(size) => sum = sum.saturating_add(size),
                Err(_) => return image.size,
            }
        }
        sum
    }

    /// Brings an image from its registry; answers its digest there.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<Platform>,
        person: Person,
    ) -> Result<OciDigest, Failure> {
        let _pin = self.server.library.blobs.pin().await;
        let platform = platform.unwrap_or_else(|| self.server.platform.clone());
        let name = reference.to_string();
        let call = |build| Call::Pull { build, reference: name.clone(), platform };
        match self.server.errand(person, call).await? {
            Reply::Pulled(digest, image) => {
                keep(&self.server, &self.scope, &read_image(&image)?, &[name]).await?;
                Ok(digest)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Sends the image of this name to its registry; answers its digest there.
    pub async fn push(&self, reference: &Reference, person: Person) -> Result<OciDigest, Failure> {
        let _pin = self.server.library.blobs.pin().await;
        let reference = reference.to_string();
        let (image, Some(_)) = self.find(&reference).await? else {
            let message = format!("There is no image with the name `{reference}`");
            return Err(Failure::new(Class::User, message)
                .hint("Give it the name of its registry first: `slipway tag IMAGE NAME`."));
        };
        let image = image.to_bytes();
        match self.server.errand(person, |build| Call::Push { build, reference, image }).await? {
            Reply::Pushed(digest) => Ok(digest),
            other => Err(unexpected(&other)),
        }
    }

    /// What stands in an archive of these images. The bytes stay in the store for a while.
    pub async fn save(
        &self,
        names: &[String],
        format: ArchiveFormat,
        person: Person,
    ) -> Result<Vec<ArchiveEntry>, Failure> {
        let _pin = self.server.library.blobs.pin().await;
        let all = self.all().await?;
        let mut sets: Vec<(OciDigest, Vec<u8>, Vec<String>)> = Vec::new();
        for text in names {
            let meant = images::find(&all, text)?;
            let (image, name) = match meant {
                Meant::Name(known) => (&known.image, Some(known.key.clone())),
                Meant::Id(image) => (image, None),
            };
            match sets.iter_mut().find(|(id, ..)| *id == image.id) {
                Some((.., names)) => names.extend(name),
                None => sets.push((image.id, image.to_bytes(), name.into_iter().collect())),
            }
        }
        let images = sets.into_iter().map(|(_, image, names)| (image, names)).collect();
        match self.server.errand(person, |build| Call::Save { build, images, format }).await? {
            Reply::Saved(entries) => Ok(entries),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes the images of an archive that is in the store; answers each with its names.
    pub async fn load(
        &self,
        archive: BlobId,
        person: Person,
    ) -> Result<Vec<(OciDigest, Vec<String>)>, Failure> {
        let _pin = self.server.library.blobs.pin().await;
        let platform = self.server.platform.clone();
        match self.server.errand(person, |_| Call::Load { archive, platform }).await? {
            Reply::Loaded(loaded) => {
                let mut said = Vec::new();
                for (image, names) in loaded {
                    let image = read_image(&image)?;
                    keep(&self.server, &self.scope, &image, &names).await?;
                    said.push((image.id, names));
                }
                Ok(said)
            }
            other => Err(unexpected(&other)),
        }
    }
}
