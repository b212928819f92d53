//! `--metadata-file`: what came out, under the names that buildx uses.

use proto::wire::build::{ImageResult, Summary, Traffic};
use serde_json::{Map, Value, json};

fn moved(traffic: &Traffic) -> Value {
    let Traffic { context, inputs, results, mounts, pulled, pushed, outputs } = traffic;
    json!({
        "context": context,
        "inputs": inputs,
        "results": results,
        "cacheMounts": mounts,
        "pulled": pulled,
        "pushed": pushed,
        "outputs": outputs,
    })
}

/// The file's text.
pub fn text(image: &Option<ImageResult>, summary: &Summary) -> String {
    let mut map = Map::new();
    if let Some(image) = image {
        let mut set = |key: &str, value: Value| _ = map.insert(key.to_owned(), value);
        set("containerimage.config.digest", json!(image.config.to_string()));
        if let (Some(digest), Some((media_type, size))) = (image.digest, &image.descriptor) {
            set("containerimage.digest", json!(digest.to_string()));
            let descriptor = json!({
                "mediaType": media_type,
                "digest": digest.to_string(),
                "size": size,
            });
            set("containerimage.descriptor", descriptor);
        }
        if !image.names.is_empty() {
            set("image.name", json!(image.names.join(",")));
        }
    }
    map.insert(
        "slipway.build".to_owned(),
        json!({
            "steps": summary.steps,
            "cached": summary.cached,
            "savedMillis": summary.saved_ms,
            "wallMillis": summary.wall_ms,
            "movedBytes": moved(&summary.traffic),
        }),
    );
    let mut text = serde_json::to_string_pretty(&map).expect("texts and numbers");
    text.push('\n');
    text
}
