//! Reading: defaults, then the file, then variables, then flags.

use super::error::ConfigError;
use super::file::{self, Entry};
use super::keys::{KEYS, Key, REGISTRY_KEYS};
use super::rows::{Origin, Row};
use super::value::Value;
use super::{Config, Coordinator, Fallback, Farm, Log, LogFormat, Network, Node, Worker};
use crate::address::COORDINATOR_PORT;
use crate::files;
use crate::names::NodeName;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an idle farm stays.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// How long a build outlives its client.
const GRACE: Duration = Duration::from_secs(60);
/// After how long a silent worker's steps go to others.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// How long a worker that is told to end may finish what it does.
const DRAIN: Duration = Duration::from_secs(10 * 60);
/// On how many cache nodes a blob is.
const REPLICAS: u32 = 2;
/// Where workers come for blobs of other workers.
const PEER_PORT: u16 = 7471;
/// Where nodes and clients come for blobs of the cache.
const CACHE_PORT: u16 = 7472;
/// Where health and metrics are asked for.
const HTTP_PORT: u16 = 7480;

/// How much of a key may be wrong for another one to be meant: a third.
const NEAR: usize = 3;

/// The section with a part of its own for each registry.
const REGISTRY: &str = "registry";

/// A value that a flag of the command gives a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The key, as in the file: `farm.slots`.
    pub key: &'static str,
    /// The flag: `--slots`.
    pub flag: &'static str,
    /// The value as text.
    pub value: String,
}

/// The settings, and where each of them comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The settings.
    pub config: Config,
    /// For the keys that somebody gave a value.
    origins: BTreeMap<String, Origin>,
}

/// All that settings are read from.
pub(super) struct Source<'a> {
    /// Which file `text` is of.
    pub path: &'a Path,
    pub text: &'a str,
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    pub flags: &'a [Flag],
}

impl Settings {
    /// Reads `file` (which then must be there), else `$SLIPWAY_HOME/config.toml`, else
    /// `/etc/slipway/config.toml`; then the variables, then the flags.
    pub fn load(file: Option<&Path>, flags: &[Flag]) -> Result<Self, ConfigError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let (home, home_origin) = home(&variable)?;
        let named = file.map(std::path::absolute).transpose().map_err(|source| {
            ConfigError::Read { path: file.unwrap_or(Path::new("")).to_owned(), source }
        })?;
        let path = match &named {
            Some(file) => file.clone(),
            None => {
                let own = home.join("config.toml");
                if own.exists() { own } else { PathBuf::from("/etc/slipway/config.toml") }
            }
        };
        let text = match files::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound && file.is_none() => String::new(),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let source = Source { path: &path, text: &text, variable: &variable, flags };
        let defaults = Config { file: named, ..Config::new(home, &host_name()) };
        let mut settings = Self::read(defaults, &source)?;
        settings.origins.insert(HOME.to_owned(), home_origin);
        Ok(settings)
    }

    pub(super) fn read(defaults: Config, source: &Source<'_>) -> Result<Self, ConfigError> {
        let mut settings = Self { config: defaults, origins: BTreeMap::new() };
        let syntax = |detail| ConfigError::Syntax { path: source.path.to_owned(), detail };
        for entry in file::entries(source.text).map_err(syntax)? {
            settings.take(entry, source.path)?;
        }
        for key in KEYS {
            let Some(name) = key.variable else { continue };
            if let Some(text) = (source.variable)(name) {
                let origin = Origin::Variable(name.to_owned());
                settings.give(key, &Value::Word(text), origin)?;
            }
        }
        for flag in source.flags {
            let origin = Origin::Flag(flag.flag.to_owned());
            let key = KEYS.iter().find(|key| key.name == flag.key);
            let key = key.ok_or_else(|| unknown(flag.key.to_owned(), origin.clone()))?;
            settings.give(key, &Value::Word(flag.value.clone()), origin)?;
        }
        Ok(settings)
    }

    /// Takes a key of the file.
    fn take(&mut self, entry: Entry, path: &Path) -> Result<(), ConfigError> {
        let origin = Origin::File { path: path.to_owned(), line: entry.line };
        let name = entry.key();
        let parts: Vec<&str> = entry.path.iter().map(String::as_str).collect();
        match (&parts[..], &entry.value) {
            ([REGISTRY, registry, part], Some(value)) => {
                let key = REGISTRY_KEYS.iter().find(|key| key.name == *part);
                let key = key.ok_or_else(|| unknown(name.clone(), origin.clone()))?;
                let of = self.config.registries.entry((*registry).to_owned()).or_default();
                (key.set)(of, value)
                    .ok_or_else(|| wrong(name.clone(), key.expected, value, &origin))?;
                self.origins.insert(name, origin);
            }
            ([section, part], Some(value)) if *section != REGISTRY => {
                let known =
                    KEYS.iter().find(|key| key.name.split_once('.') == Some((section, part)));
                let key = known.ok_or_else(|| unknown(name, origin.clone()))?;
                self.give(key, value, origin)?;
            }
            ([section] | [section, _], Some(value)) if is_section(section) => {
                let expected = "a section with keys";
                return Err(wrong(name, expected, value, &origin));
            }
            ([section], None) if is_section(section) => {}
            ([REGISTRY, _], None) => {}
            _ => return Err(unknown(name, origin)),
        }
        Ok(())
    }

    /// Gives a key a value.
    fn give(
        &mut self,
        key: &Key<Config>,
        value: &Value,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let name = key.name.to_owned();
        match (key.set)(&mut self.config, value) {
            Some(()) => self.origins.insert(name, origin),
            None => return Err(wrong(name, key.expected, value, &origin)),
        };
        Ok(())
    }

    /// Every setting, its value, and where the value comes from.
    pub fn rows(&self) -> Vec<Row> {
        let home = self.config.home.display().to_string();
        let mut rows = vec![self.row(HOME.to_owned(), Some(home), "")];
        for key in KEYS {
            rows.push(self.row(key.name.to_owned(), (key.show)(&self.config), key.unset));
        }
        for (name, registry) in &self.config.registries {
            for key in REGISTRY_KEYS {
                let name = format!("{REGISTRY}.{name}.{}", key.name);
                rows.push(self.row(name, (key.show)(registry), key.unset));
            }
        }
        rows
    }

    fn row(&self, key: String, value: Option<String>, unset: &str) -> Row {
        let origin = self.origins.get(&key).cloned().unwrap_or(Origin::Default);
        Row { key, value: value.unwrap_or_else(|| format!("({unset})")), origin }
    }
}

/// The variable, and the row, of the state directory.
const HOME: &str = "SLIPWAY_HOME";

fn home(variable: &dyn Fn(&str) -> Option<String>) -> Result<(PathBuf, Origin), ConfigError> {
    let is_root = rustix::process::geteuid().is_root();
    match (variable(HOME), is_root, variable("HOME")) {
        (Some(home), ..) => Ok((home.into(), Origin::Variable(HOME.to_owned()))),
        (None, true, _) => Ok(("/var/lib/slipway".into(), Origin::Default)),
        (None, false, Some(home)) => {
            Ok((Path::new(&home).join(".local/share/slipway"), Origin::Default))
        }
        (None, false, None) => Err(ConfigError::NoHome),
    }
}

/// The host's name, as `uname -n` says it.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn is_section(name: &str) -> bool {
    name == REGISTRY || KEYS.iter().any(|key| key.name.split('.').next() == Some(name))
}

fn wrong(key: String, expected: &'static str, value: &Value, origin: &Origin) -> ConfigError {
    ConfigError::Value { key, origin: origin.clone(), value: value.to_string(), expected }
}

fn unknown(key: String, origin: Origin) -> ConfigError {
    let nearest = nearest(&key);
    ConfigError::Unknown { key, origin, nearest }
}

/// The known key that is nearest to one that is not known: one that is spelt nearly so, else one of
/// that name in another section.
fn nearest(key: &str) -> Option<String> {
    let mut known: Vec<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    if let Some((registry, _)) = key.rsplit_once('.').filter(|_| key.starts_with(REGISTRY)) {
        known.extend(REGISTRY_KEYS.iter().map(|key| format!("{registry}.{}", key.name)));
    }
    let distance = |other: &str| strsim::damerau_levenshtein(key, other);
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let is_near = |other: &String| distance(other) * NEAR <= key.len() || last(other) == last(key);
    known.into_iter().filter(is_near).min_by_key(|other| distance(other))
}

impl Config {
    /// What holds where nobody says anything.
    pub(super) fn new(home: PathBuf, host: &str) -> Self {
        let on = |ip: Ipv4Addr, port| SocketAddr::new(IpAddr::V4(ip), port);
        Self {
            home,
            file: None,
            slots: None,
            idle: IDLE,
            cache_budget: None,
            cache_mount_max: None,
            network: Network::Nat,
            runtime: None,
            registries: BTreeMap::new(),
            farm: Farm { default: None, fallback: Fallback::None },
            node: Node { name: NodeName::parse(host).ok(), advertise: None, coordinator: None },
            coordinator: Coordinator {
                listen: on(Ipv4Addr::UNSPECIFIED, COORDINATOR_PORT),
                grace: GRACE,
                lost_after: LOST_AFTER,
                replicas: REPLICAS,
                weights: BTreeMap::new(),
            },
            worker: Worker {
                slots: None,
                memory: None,
                listen: on(Ipv4Addr::UNSPECIFIED, PEER_PORT),
                serve_peers: true,
                drain: DRAIN,
            },
            cache_listen: on(Ipv4Addr::UNSPECIFIED, CACHE_PORT),
            http_listen: Some(on(Ipv4Addr::LOCALHOST, HTTP_PORT)),
            log: Log { format: LogFormat::Text, level: None },
        }
    }
}
