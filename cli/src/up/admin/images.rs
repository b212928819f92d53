//! The local image store: what is in it, and under which names.

use super::names::{self, Change, Known, Meant};
use super::{Talk, store_failure, with_store};
use crate::error::user;
use crate::images::familiar;
use crate::up::door::House;
use cache::store::{DiskStore, Image, Persisted, Store, Table};
use proto::error::{Class, Failure};
use proto::id::Millis;
use proto::wire::admin::{HistoryEntry, ImageRow, Reply};
use serde_json::{Value, json};
use worker::image::local::size_of;
use worker::image::manifest::time_text;
use worker::image::registry::parse_reference;

/// All rows of the table of images.
pub fn all(store: &DiskStore) -> Result<Vec<Known>, Failure> {
    let rows = store.rows(Table::Image, b"").map_err(store_failure)?;
    // A row of another version is a row that is not there.
    let known = |(key, value): (Vec<u8>, Vec<u8>)| {
        Some(Known { key: String::from_utf8(key).ok()?, image: Image::from_bytes(&value)? })
    };
    Ok(rows.into_iter().filter_map(known).collect())
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

/// Changes the table. What is set first makes that nothing is ever without a row.
fn change(store: &DiskStore, change: &Change) -> Result<(), Failure> {
    for known in &change.set {
        let value = known.image.to_bytes();
        store.put_row(Table::Image, known.key.as_bytes(), &value).map_err(store_failure)?;
    }
    for key in &change.delete {
        store.delete_row(Table::Image, key.as_bytes()).map_err(store_failure)?;
    }
    store.barrier().map_err(store_failure)
}

/// Gives an image a name; without one, it is kept by its id.
pub fn keep(store: &DiskStore, image: &Image, full: Option<&str>) -> Result<(), Failure> {
    let all = all(store)?;
    let wanted = match full {
        Some(full) => names::name(&all, image, full, crate::clock::now_ms()),
        None if all.iter().any(|known| known.image.id == image.id) => Change::default(),
        None => {
            let known = Known { key: image.id.to_string(), image: image.clone() };
            Change { set: vec![known], ..Change::default() }
        }
    };
    change(store, &wanted)
}

/// `Request::Images`.
pub async fn list(house: &House, talk: &Talk) -> Result<(), Failure> {
    let all = with_store(house, all).await?;
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
    let _turn = house.naming.lock().await;
    with_store(house, move |store| {
        let (image, _) = find(store, &source)?;
        keep(store, &image, Some(&reference.to_string()))
    })
    .await
}

/// `Request::Remove`. What can be removed is, whatever becomes of the rest.
pub async fn remove(
    house: &House,
    talk: &Talk,
    names: Vec<String>,
    force: bool,
) -> Result<(), Failure> {
    let _turn = house.naming.lock().await;
    let mut failures: Vec<Failure> = Vec::new();
    for name in names {
        let removed = with_store(house, move |store| {
            let wanted = names::remove(&all(store)?, &name, force)?;
            change(store, &wanted)?;
            Ok(wanted.said)
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
            "Size": image.size,
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
                Some(diff) => size_of(store, &[diff]).map_err(store_failure)?,
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
