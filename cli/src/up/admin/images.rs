//! The local image store: what is in it, and under which names.

use super::names::{self, Meant};
use super::{store_failure, with_store};
use crate::error::user;
use crate::images::familiar;
use crate::talk::Talk;
use crate::up::door::House;
use cache::store::{DiskStore, Image, Store, StoreError};
use proto::error::{Class, Failure};
use proto::id::{Millis, RootId};
use proto::wire::admin::{HistoryEntry, ImageRow, Reply};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use worker::image::local::disk_size;
use worker::image::manifest::time_text;
use worker::image::naming::{self, Known};
use worker::image::registry::parse_reference;

/// How large layers are, once that was asked.
#[derive(Clone, Default)]
pub struct Sizes(Arc<Mutex<HashMap<RootId, u64>>>);

impl Sizes {
    fn layer(&self, store: &DiskStore, layer: &RootId) -> Result<u64, StoreError> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(layer).copied();
        if let Some(size) = known {
            return Ok(size);
        }
        let size = disk_size(store, layer)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*layer, size);
        Ok(size)
    }

    /// The bytes of an image's files; those that it says when not all are here.
    fn of(&self, store: &DiskStore, image: &Image) -> u64 {
        let layers = image.layers.iter().map(|layer| layer.diff);
        let one = |diff: Option<RootId>| self.layer(store, &diff?).ok();
        layers.map(one).sum::<Option<u64>>().unwrap_or(image.size)
    }
}

/// All rows of the table of images.
pub fn all(store: &DiskStore) -> Result<Vec<Known>, Failure> {
    naming::all(store).map_err(store_failure)
}

/// The image that a person means, and the names that it was asked for by: one, or none by id.
pub fn find(store: &DiskStore, text: &str) -> Result<(Image, Option<String>), Failure> {
    let all = all(store)?;
    let meant = names::find(&all, text)?;
    let name = match meant {
        Meant::Name(known) => Some(known.key.clone()),
        Meant::Id(_) => None,
    };
    Ok((meant.image().clone(), name))
}

/// Keeps an image under these names, or without one. Durable then.
pub fn keep(store: &DiskStore, image: &Image, names: &[String]) -> Result<(), Failure> {
    let now = Millis(crate::clock::now_ms());
    naming::keep(store, image, names, now).map_err(store_failure)?;
    store.barrier().map_err(store_failure)
}

/// `Request::Images`.
pub async fn list(house: &House, talk: &Talk) -> Result<(), Failure> {
    let sizes = house.sizes.clone();
    let all = with_store(house, move |store| {
        let sized = |known: Known| {
            let size = sizes.of(store, &known.image);
            Known { image: Image { size, ..known.image }, ..known }
        };
        Ok(all(store)?.into_iter().map(sized).collect::<Vec<_>>())
    });
    let all = all.await?;
    for known in names::listed(&all) {
        let row = ImageRow {
            reference: known.name().map(str::to_owned),
            id: known.image.id,
            platform: known.image.platform.clone(),
            created: Millis(known.image.created_ms),
            size: known.image.size,
        };
        talk.say(Reply::Image(row)).await;
    }
    Ok(())
}

/// `Request::Tag`.
pub async fn tag(house: &House, source: String, target: String) -> Result<(), Failure> {
    let reference = parse_reference(&target).map_err(|e| user(e.to_string()))?;
    if reference.digest().is_some() {
        return Err(user(format!("`{target}` has a digest, which only a registry gives")));
    }
    with_store(house, move |store| {
        let (image, _) = find(store, &source)?;
        keep(store, &image, &[reference.to_string()])
    })
    .await
}

/// Why a name was not taken away.
enum Trouble {
    Store(StoreError),
    Other(Failure),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// `Request::Remove`. What can be removed is, whatever becomes of the rest.
pub async fn remove(
    house: &House,
    talk: &Talk,
    names: Vec<String>,
    force: bool,
) -> Result<(), Failure> {
    let mut failures: Vec<Failure> = Vec::new();
    for name in names {
        let removed = with_store(house, move |store| {
            let said = naming::alter(store, |all| {
                names::remove(all, &name, force).map_err(Trouble::Other)
            });
            let said = said.map_err(|trouble| match trouble {
                Trouble::Store(e) => store_failure(e),
                Trouble::Other(failure) => failure,
            })?;
            store.barrier().map_err(store_failure)?;
            Ok(said)
        });
        match removed.await {
            Ok(said) => {
                for line in said {
                    talk.say(Reply::Text(line)).await;
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        _ => {
            let lines: Vec<&str> = failures.iter().map(|f| f.message.as_str()).collect();
            Err(Failure::new(failures[0].class, lines.join("\n")))
        }
    }
}

/// The config of an image, as JSON.
pub fn config(store: &DiskStore, image: &Image) -> Result<Value, Failure> {
    let bytes = store.read(&image.config).map_err(store_failure)?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Failure::new(Class::Corrupt, format!("The config of {} is broken: {e}", image.id.short()))
    })
}

/// `Request::Inspect`: the form of `docker image inspect`.
pub async fn inspect(house: &House, talk: &Talk, name: String) -> Result<(), Failure> {
    let sizes = house.sizes.clone();
    let text = with_store(house, move |store| {
        let known = all(store)?;
        let image = names::find(&known, &name)?.image();
        let config = config(store, image)?;
        let rows = known.iter().filter(|known| known.image.id == image.id);
        let tags: Vec<&str> = rows.filter_map(Known::name).map(familiar).collect();
        let layers: Vec<String> = image.layers.iter().map(|l| l.diff_id.to_string()).collect();
        let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
        Ok(json!({
            "Id": image.id.to_string(),
            "RepoTags": tags,
            "RepoDigests": [],
            "Comment": text("comment"),
            "Created": config.get("created"),
            "Author": text("author"),
            "Architecture": image.platform.arch,
            "Variant": image.platform.variant,
            "Os": image.platform.os,
            "Size": sizes.of(store, image),
            "Config": config.get("config").cloned().unwrap_or_else(|| json!({})),
            "RootFS": { "Type": "layers", "Layers": layers },
            "Metadata": { "LastTagTime": time_text(Millis(image.tagged_ms)) },
        })
        .to_string())
    });
    let text = text.await?;
    talk.say(Reply::Text(text)).await;
    Ok(())
}

/// `Request::History`.
pub async fn history(house: &House, talk: &Talk, name: String) -> Result<(), Failure> {
    let sizes = house.sizes.clone();
    let entries = with_store(house, move |store| {
        let (image, _) = find(store, &name)?;
        let config = config(store, &image)?;
        let rows = config.get("history").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut layers = image.layers.iter();
        let mut entries = Vec::new();
        for row in &rows {
            let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default();
            let is_empty = row.get("empty_layer").and_then(Value::as_bool).unwrap_or(false);
            let layer = if is_empty { None } else { layers.next() };
            let size = match layer.and_then(|layer| layer.diff) {
                Some(diff) => sizes.layer(store, &diff).map_err(store_failure)?,
                None => 0,
            };
            entries.push(HistoryEntry {
                created: Some(text("created").to_owned()).filter(|t| !t.is_empty()),
                created_by: text("created_by").to_owned(),
                size,
                comment: text("comment").to_owned(),
            });
        }
        entries.reverse();
        Ok(entries)
    });
    let entries = entries.await?;
    talk.say(Reply::History(entries)).await;
    Ok(())
}
