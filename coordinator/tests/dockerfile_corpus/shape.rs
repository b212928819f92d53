//! Configs and histories in the form in which the corpus records them.

use proto::step::Target;
use serde_json::{Map, Value, json};

const KEYS: [&str; 13] = [
    "Env",
    "Cmd",
    "Entrypoint",
    "WorkingDir",
    "User",
    "ExposedPorts",
    "Labels",
    "Volumes",
    "Healthcheck",
    "StopSignal",
    "OnBuild",
    "Shell",
    "ArgsEscaped",
];

/// Platform and config; what is empty is left out.
pub fn config(target: &Target) -> Value {
    let image: Value = serde_json::from_str(&target.config).expect("JSON");
    let mut out = Map::new();
    for key in ["architecture", "os", "variant"] {
        if let Some(value) = image.get(key).filter(|value| !is_empty(value)) {
            out.insert(key.to_owned(), value.clone());
        }
    }
    for key in KEYS {
        let value = image["config"].get(key).filter(|value| !is_empty(value));
        if let Some(value) = value.filter(|value| key != "WorkingDir" || *value != "/") {
            out.insert(key.to_owned(), value.clone());
        }
    }
    Value::Object(out)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// The rows that the build adds.
pub fn history(target: &Target) -> Value {
    let row = |row: &proto::step::HistoryRow| match row.step {
        Some(_) => json!({"created_by": row.created_by}),
        None => json!({"created_by": row.created_by, "empty_layer": true}),
    };
    target.history.iter().map(row).collect()
}

/// A recorded config without the names of its image, which an archive has and a graph has not.
pub fn no_tags(config: &Value) -> Value {
    let mut config = config.clone();
    if let Some(map) = config.as_object_mut() {
        map.remove("RepoTags");
    }
    config
}
