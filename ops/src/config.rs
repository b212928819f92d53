//! The settings: one small file, and variables that override it.
//!
//! ```toml
//! [farm]
//! slots = 4             # RUNs at once; default: the processors
//! idle = "15m"          # how long a farm that was started on demand outlives its last build
//!
//! [cache]
//! budget = "40GB"       # bytes on disk; default: a fifth of the disk
//!
//! [run]
//! network = "nat"       # what RUN gets: an own network (`nat`) or the host's (`host`)
//! runtime = "embedded"  # or the path of an OCI runtime: crun, runc, runsc
//!
//! [registry."docker.io"]
//! mirrors = ["http://127.0.0.1:5000"]
//! http = false          # whether the registry itself speaks plain HTTP
//! ca = ["/etc/ssl/my-ca.pem"]
//! ```

use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("Reading the settings in {} failed: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("The settings in {} are not valid: {detail}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        detail: String,
    },
    /// A value that is none.
    #[error("The setting `{key}` cannot be `{value}`: expected {expected}")]
    Value {
        /// Which setting.
        key: String,
        /// What it is.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Nowhere to keep anything.
    #[error("There is no home directory; set SLIPWAY_HOME to a directory")]
    NoHome,
}

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where everything is kept: `SLIPWAY_HOME`.
    pub home: PathBuf,
    /// RUNs at once; `SLIPWAY_SLOTS`.
    pub slots: Option<u32>,
    /// How long a farm that was started on demand outlives its last build; `SLIPWAY_IDLE`.
    pub idle: Duration,
    /// Bytes on disk; `SLIPWAY_CACHE_BUDGET`.
    pub cache_budget: Option<u64>,
    /// What RUN gets; `SLIPWAY_NETWORK`.
    pub network: Network,
    /// The OCI runtime; none for the embedded one; `SLIPWAY_OCI_RUNTIME`.
    pub runtime: Option<PathBuf>,
    /// Registries, by name.
    pub registries: BTreeMap<String, Registry>,
}

/// What RUN gets of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// An own one, with a way out.
    Nat,
    /// The host's.
    Host,
}

/// How a registry is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Where its images are looked for first, in order.
    pub mirrors: Vec<String>,
    /// Whether it speaks plain HTTP.
    pub http: bool,
    /// Certificates of authorities that vouch for it and for its mirrors.
    pub ca: Vec<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    farm: Farm,
    cache: Cache,
    run: Run,
    registry: BTreeMap<String, Registry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Farm {
    slots: Option<u32>,
    idle: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Cache {
    budget: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Run {
    network: Option<String>,
    runtime: Option<String>,
}

/// How long an idle farm stays.
const IDLE: Duration = Duration::from_secs(15 * 60);

impl Config {
    /// Reads `$SLIPWAY_HOME/config.toml` (else `/etc/slipway/config.toml`) and the variables.
    pub fn load() -> Result<Self, ConfigError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let is_root = rustix::process::geteuid().is_root();
        let home = match (variable("SLIPWAY_HOME"), is_root, variable("HOME")) {
            (Some(home), ..) => PathBuf::from(home),
            (None, true, _) => PathBuf::from("/var/lib/slipway"),
            (None, false, Some(home)) => Path::new(&home).join(".local/share/slipway"),
            (None, false, None) => return Err(ConfigError::NoHome),
        };
        let own = home.join("config.toml");
        let path = if own.exists() { own } else { PathBuf::from("/etc/slipway/config.toml") };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        Self::read(home, &path, &text, variable)
    }

    fn read(
        home: PathBuf,
        path: &Path,
        text: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text)
            .map_err(|e| ConfigError::Syntax { path: path.to_owned(), detail: e.to_string() })?;
        let slots = match variable("SLIPWAY_SLOTS") {
            None => file.farm.slots,
            Some(text) => {
                let slots = text.parse().ok().filter(|n| *n > 0);
                Some(slots.ok_or_else(|| value("SLIPWAY_SLOTS", &text, "a number from 1 on"))?)
            }
        };
        if slots == Some(0) {
            return Err(value("farm.slots", "0", "a number from 1 on"));
        }
        let idle = match variable("SLIPWAY_IDLE").or(file.farm.idle) {
            None => IDLE,
            Some(text) => {
                time(&text).ok_or_else(|| value("farm.idle", &text, "a time such as 90s or 15m"))?
            }
        };
        let cache_budget = match variable("SLIPWAY_CACHE_BUDGET").or(file.cache.budget) {
            None => None,
            Some(text) => {
                let expected = "a size such as 500MB or 40GB";
                Some(bytes(&text).ok_or_else(|| value("cache.budget", &text, expected))?)
            }
        };
        let network = match variable("SLIPWAY_NETWORK").or(file.run.network).as_deref() {
            None | Some("nat") => Network::Nat,
            Some("host") => Network::Host,
            Some(text) => return Err(value("run.network", text, "`nat` or `host`")),
        };
        let runtime = variable("SLIPWAY_OCI_RUNTIME").or(file.run.runtime);
        let runtime = runtime.filter(|r| r != "embedded").map(PathBuf::from);
        Ok(Self { home, slots, idle, cache_budget, network, runtime, registries: file.registry })
    }
}

fn value(key: &str, value: &str, expected: &'static str) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), value: value.to_owned(), expected }
}

/// A time: a number and `s`, `m`, `h` or `d`; seconds without one.
pub fn time(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "ms" => return Some(Duration::from_millis(number)),
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

/// A size: a number and `B`, `kB`, `MB`, `GB`, `TB`, all of them powers of 1024, as Docker reads
/// them; bytes without one.
pub fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let number: f64 = number.parse().ok()?;
    let power = match unit.trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    let size = number * 1024f64.powi(power);
    (size.is_finite() && size < 9e18).then_some(size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let variable =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Config::read("/home".into(), Path::new("/etc/c.toml"), text, variable)
    }

    #[test]
    fn settings_are_read_and_overridden() {
        let text = r#"
            [farm]
            slots = 3
            [cache]
            budget = "40GB"
            [run]
            network = "host"
            [registry."docker.io"]
            mirrors = ["http://127.0.0.1:5000"]
        "#;
        let config = read(text, &[("SLIPWAY_SLOTS", "5"), ("SLIPWAY_IDLE", "90s")]).unwrap();
        assert_eq!(config.slots, Some(5));
        assert_eq!(config.idle, Duration::from_secs(90));
        assert_eq!(config.cache_budget, Some(40 << 30));
        assert_eq!(config.network, Network::Host);
        assert_eq!(config.registries["docker.io"].mirrors, ["http://127.0.0.1:5000"]);
        assert_eq!(read("", &[]).unwrap().idle, IDLE);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let error = |text: &str| read(text, &[]).unwrap_err().to_string();
        assert!(error("[farm]\nslot = 3").contains("slot"));
        assert!(error("[run]\nnetwork = \"wifi\"").contains("wifi"));
        assert!(error("[farm]\nslots = 0").contains("farm.slots"));
        assert!(error("x").contains("/etc/c.toml"));
        assert!(read("", &[("SLIPWAY_SLOTS", "many")]).is_err());
    }

    #[test]
    fn sizes_and_times() {
        assert_eq!(bytes("1.5k"), Some(1536));
        assert_eq!(bytes("2 GiB"), Some(2 << 30));
        assert_eq!(bytes("12"), Some(12));
        assert_eq!(bytes("x"), None);
        assert_eq!(time("20m"), Some(Duration::from_secs(1200)));
        assert_eq!(time("m"), None);
    }
}
