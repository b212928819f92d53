//! Image configs: what an image says of itself.
//!
//! The fields are those of the OCI image config (image-spec, `config.md`) and of Docker's
//! additions to it (`Healthcheck`, `OnBuild`, `Shell`, `ArgsEscaped`).

use proto::platform::Platform;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The PATH of images that set none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image config.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The processor.
    #[serde(default)]
    pub architecture: String,
    /// The processor's variant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// The operating system.
    #[serde(default)]
    pub os: String,
    /// The operating system's version.
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Features of the operating system that are needed.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// MAINTAINER.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What containers of the image begin with.
    #[serde(default)]
    pub config: RunConfig,
    /// The layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How the layers came about.
    #[serde(default, skip_serializing_if = "nothing")]
    pub history: Option<Vec<History>>,
}

fn nothing<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

/// What containers of an image begin with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// USER.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// EXPOSE.
    #[serde(skip_serializing_if = "no_set")]
    pub exposed_ports: Option<BTreeMap<String, Empty>>,
    /// ENV: `name=value`.
    #[serde(skip_serializing_if = "nothing")]
    pub env: Option<Vec<String>>,
    /// ENTRYPOINT.
    #[serde(skip_serializing_if = "nothing")]
    pub entrypoint: Option<Vec<String>>,
    /// CMD.
    #[serde(skip_serializing_if = "nothing")]
    pub cmd: Option<Vec<String>>,
    /// VOLUME.
    #[serde(skip_serializing_if = "no_set")]
    pub volumes: Option<BTreeMap<String, Empty>>,
    /// WORKDIR.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// LABEL.
    #[serde(skip_serializing_if = "no_map")]
    pub labels: Option<BTreeMap<String, String>>,
    /// STOPSIGNAL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Set by CMD, as BuildKit does.
    #[serde(skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// HEALTHCHECK.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// ONBUILD.
    #[serde(skip_serializing_if = "nothing")]
    pub on_build: Option<Vec<String>>,
    /// SHELL.
    #[serde(skip_serializing_if = "nothing")]
    pub shell: Option<Vec<String>>,
}

fn no_set(map: &Option<BTreeMap<String, Empty>>) -> bool {
    map.as_ref().is_none_or(BTreeMap::is_empty)
}

fn no_map(map: &Option<BTreeMap<String, String>>) -> bool {
    map.as_ref().is_none_or(BTreeMap::is_empty)
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// `{}`: what stands behind each port and volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// HEALTHCHECK. Times in nanoseconds; zero: inherited.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// `NONE`, `CMD …` or `CMD-SHELL …`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// How long one may take.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// How long failures do not count after the start.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks in that time.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make a container unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The digests of the layers' uncompressed tars, lowest first.
    #[serde(default)]
    pub diff_ids: Option<Vec<String>>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: None }
    }
}

/// One row of an image's history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// When: RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A remark.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether it has no layer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// The config of an image with nothing in it.
    pub fn empty(platform: &Platform) -> Self {
        let config = RunConfig {
            env: Some(vec![format!("PATH={DEFAULT_PATH}")]),
            working_dir: "/".to_owned(),
            ..RunConfig::default()
        };
        Self {
            architecture: platform.arch.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            config,
            ..Self::default()
        }
    }

    /// The platform that the config names.
    pub fn platform(&self) -> Platform {
        Platform::from_config(&self.os, &self.architecture, &self.variant)
    }
}

/// Name and value of `name=value`; without `=` the value is empty.
pub fn split_env(entry: &str) -> (&str, &str) {
    entry.split_once('=').unwrap_or((entry, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_reads_what_it_wrote() {
        let text = r#"{"architecture":"arm64","variant":"v8","os":"linux","author":"a",
            "created":"2023-11-14T22:13:20Z","unknown":1,
            "config":{"Env":["A=1"],"Cmd":["sh"],"ExposedPorts":{"80/tcp":{}},"Labels":null,
            "Healthcheck":{"Test":["NONE"],"Interval":15000000000}},
            "rootfs":{"type":"layers","diff_ids":["sha256:aa"]},
            "history":[{"created_by":"x","empty_layer":true}]}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.platform().to_string(), "linux/arm64");
        assert_eq!(config.config.healthcheck.as_ref().unwrap().interval, 15_000_000_000);
        let again = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ImageConfig>(&again).unwrap(), config);
        assert!(!again.contains("Labels") && !again.contains("created\":"), "{again}");
    }
}
