//! The image store: what is in it, and under which names.

use crate::error::user;
use crate::images::familiar;
use crate::talk::Talk;
use coordinator::images::{Known, listed};
use coordinator::server::Images;
use proto::error::{Class, Failure};
use proto::id::Millis;
use proto::reference::Reference;
use proto::wire::admin::{HistoryEntry, ImageRow, Reply, Request};
use serde_json::{Value, json};
use worker::image::manifest::time_text;

/// Answers a request about images; gives back one that is about something else.
pub async fn answer(
    images: Images,
    request: Request,
    talk: &mut Talk,
) -> Result<Option<Request>, Failure> {
    let images = images.narrowed(talk.scope.as_deref())?;
    let done = match request {
        Request::Images => list(&images, talk).await,
        Request::Inspect(name) => inspect(&images, talk, &name).await,
        Request::History(name) => history(&images, talk, &name).await,
        Request::Tag { source, target } => tag(&images, &source, &target).await,
        Request::Remove { names, force } => remove(&images, talk, names, force).await,
        Request::Pull { reference, platform } => {
            super::transfer::pull(&images, talk, &reference, platform).await
        }
        Request::Push { reference } => super::transfer::push(&images, talk, &reference).await,
        Request::Save { names, format } => {
            super::transfer::save(&images, talk, &names, format).await
        }
        Request::Load(archive) => super::transfer::load(&images, talk, archive).await,
        other => return Ok(Some(other)),
    };
    done.map(|()| None)
}

/// A name in full.
pub fn reference(text: &str) -> Result<Reference, Failure> {
    let wrong = |e: proto::reference::ReferenceError| {
        let text: String = text.chars().take(200).collect();
        user(format!("`{text}` is not a valid image name: {e}"))
    };
    Reference::parse(text).map_err(wrong)
}

async fn list(images: &Images, talk: &Talk) -> Result<(), Failure> {
    let all = images.all().await?;
    for known in listed(&all) {
        let row = ImageRow {
            reference: known.name().map(str::to_owned),
            id: known.image.id,
            platform: known.image.platform.clone(),
            created: Millis(known.image.created_ms),
            size: images.size(&known.image).await,
        };
        talk.say(Reply::Image(row)).await;
    }
    Ok(())
}

async fn tag(images: &Images, source: &str, target: &str) -> Result<(), Failure> {
    let reference = reference(target)?;
    if reference.digest.is_some() {
        return Err(user(format!("`{target}` has a digest, which only a registry gives")));
    }
    images.tag(source, &reference).await
}

/// What can be removed is, whatever becomes of the rest.
async fn remove(
    images: &Images,
    talk: &Talk,
    names: Vec<String>,
    force: bool,
) -> Result<(), Failure> {
    let mut failures: Vec<Failure> = Vec::new();
    for name in names {
        match images.remove(&name, force).await {
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

/// The form of `docker image inspect`.
async fn inspect(images: &Images, talk: &Talk, name: &str) -> Result<(), Failure> {
    let known = images.all().await?;
    let (image, _) = images.find(name).await?;
    let config = images.config(&image).await?;
    let rows = known.iter().filter(|known| known.image.id == image.id);
    let tags: Vec<&str> = rows.filter_map(Known::name).map(familiar).collect();
    let layers: Vec<String> = image.layers.iter().map(|l| l.diff_id.to_string()).collect();
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    let about = json!({
        "Id": image.id.to_string(),
        "RepoTags": tags,
        "RepoDigests": [],
        "Comment": text("comment"),
        "Created": config.get("created"),
        "Author": text("author"),
        "Architecture": image.platform.arch,
        "Variant": image.platform.variant,
        "Os": image.platform.os,
        "Size": images.size(&image).await,
        "Config": config.get("config").cloned().unwrap_or_else(|| json!({})),
        "RootFS": { "Type": "layers", "Layers": layers },
        "Metadata": { "LastTagTime": time_text(Millis(image.tagged_ms)) },
    });
    talk.say(Reply::Text(about.to_string())).await;
    Ok(())
}

async fn history(images: &Images, talk: &Talk, name: &str) -> Result<(), Failure> {
    let (image, _) = images.find(name).await?;
    let config = images.config(&image).await?;
    let broken = |what: &str| {
        let message = format!("The image {} has {what}", image.id.short());
        Failure::new(Class::Corrupt, message)
    };
    let rows = match config.get("history") {
        None | Some(Value::Null) => &Vec::new(),
        Some(rows) => rows.as_array().ok_or_else(|| broken("a history that is no list"))?,
    };
    let mut layers = image.layers.iter();
    let mut entries = Vec::new();
    for row in rows {
        let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default();
        let is_empty = row.get("empty_layer").and_then(Value::as_bool).unwrap_or(false);
        let layer = if is_empty { None } else { layers.next() };
        let size = match layer.and_then(|layer| layer.diff) {
            Some(diff) => images.layer_size(diff).await?,
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
    talk.say(Reply::History(entries)).await;
    Ok(())
}
