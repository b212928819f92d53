//! The settings: one small file, variables that override it, flags that override both.
//!
//! The file is `$SLIPWAY_HOME/config.toml`, else `/etc/slipway/config.toml`, or the one that
//! `--config` names. Everything in it is optional, and no machine needs all of it: `[farm]` is for
//! who builds, `[coordinator]`, `[worker]` and `[cache]` for machines with that role.
//!
//! ```toml
//! [farm]
//! slots = 4               # RUNs at once on this machine's own farm; default: the processors
//! idle = "15m"            # how long a farm that was started on demand outlives its last build
//! default = "ci"          # the farm that builds go to, where nothing else is said: one that was
//!                         # joined, or an address; default: this machine's own
//! fallback = "none"       # when that farm cannot be reached: fail, or build on this machine's own
//!                         # (`local`)
//!
//! [node]
//! name = "box-1"          # in the cluster; default: the host's name
//! advertise = "10.0.0.3"  # the host or address that others reach it at; default: found out
//! coordinator = "farm"    # the cluster's coordinator: HOST or HOST:PORT; the port is 7470 else
//!
//! [coordinator]
//! listen = "0.0.0.0:7470" # where clients and nodes come
//! grace = "60s"           # how long a build outlives its client
//! lost_after = "10s"      # after how long a silent worker's steps go to others
//! replicas = 2            # on how many cache nodes a blob is
//! weights = ["web=3"]     # what projects weigh when several want more than there is; default: 1
//!
//! [worker]
//! slots = 4               # RUNs at once; default: the processors
//! memory = "16GB"         # bytes for all RUNs together; default: the machine's
//! listen = "0.0.0.0:7471" # where other workers come for blobs
//! serve_peers = true      # whether they may
//! drain = "10m"           # how long it may finish what it does when it is told to end
//!
//! [cache]
//! budget = "40GB"         # bytes on disk; default: a fifth of the disk
//! listen = "0.0.0.0:7472" # where nodes and clients come for blobs
//!
//! [http]
//! listen = "127.0.0.1:7480" # health and metrics; `off` for none
//!
//! [log]
//! format = "text"         # or `json`: one object a line
//! level = "info"          # error, warn, info, debug or trace, or a filter (`info,worker=debug`);
//!                         # default: warn for a machine's own farm, else info
//!
//! [run]
//! network = "nat"         # what RUN gets: an own network (`nat`) or the host's (`host`)
//! cache_mount_max = "20GB" # what one cache mount may hold; default: no limit
//! runtime = "embedded"    # or the path of an OCI runtime: crun, runc, runsc
//!
//! [registry."docker.io"]
//! mirrors = ["http://127.0.0.1:5000"]
//! http = false            # whether the registry itself speaks plain HTTP
//! ca = ["/etc/ssl/my-ca.pem"]
//! ```
//!
//! `slipway config show` prints every setting, its value, and where the value comes from. Which
//! variable overrides which key is in [`keys`].

mod error;
mod file;
pub mod keys;
mod rows;
mod settings;
mod value;

#[cfg(test)]
mod tests;

pub use error::ConfigError;
pub use rows::{Origin, Row, as_json, as_table};
pub use settings::{Flag, Settings};
pub use value::{bytes, time};

use crate::address::{Address, Host};
use crate::names::{NodeName, Project};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where everything is kept: `SLIPWAY_HOME`.
    pub home: PathBuf,
    /// The settings file that was named (`--config`): absolute, for programs that are started.
    pub file: Option<PathBuf>,
    /// RUNs at once on this machine's own farm.
    pub slots: Option<u32>,
    /// How long a farm that was started on demand outlives its last build.
    pub idle: Duration,
    /// Bytes on disk.
    pub cache_budget: Option<u64>,
    /// Bytes that one cache mount may hold.
    pub cache_mount_max: Option<u64>,
    /// What RUN gets.
    pub network: Network,
    /// The OCI runtime; none for the embedded one.
    pub runtime: Option<PathBuf>,
    /// Registries, by name.
    pub registries: BTreeMap<String, Registry>,
    /// Which farm builds go to.
    pub farm: Farm,
    /// This machine in its cluster.
    pub node: Node,
    /// As a coordinator.
    pub coordinator: Coordinator,
    /// As a worker.
    pub worker: Worker,
    /// As a cache node: where nodes and clients come for blobs.
    pub cache_listen: SocketAddr,
    /// Where health and metrics are asked for; none for nowhere.
    pub http_listen: Option<SocketAddr>,
    /// What is written to the log.
    pub log: Log,
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registry {
    /// Where its images are looked for first, in order.
    pub mirrors: Vec<String>,
    /// Whether it speaks plain HTTP.
    pub http: bool,
    /// Certificates of authorities that vouch for it and for its mirrors.
    pub ca: Vec<PathBuf>,
}

/// Which farm builds go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farm {
    /// The farm where nothing else is said: a name or an address.
    pub default: Option<String>,
    /// What to do when a farm cannot be reached.
    pub fallback: Fallback,
}

/// What to do when a farm cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The build fails.
    None,
    /// The build goes to this machine's own farm.
    Local,
}

/// A machine in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name; the host's where none is given. None when the host's cannot be one.
    pub name: Option<NodeName>,
    /// Where others reach it; none for what the machine finds out.
    pub advertise: Option<Host>,
    /// The cluster's coordinator.
    pub coordinator: Option<Address>,
}

/// A coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coordinator {
    /// Where clients and nodes come.
    pub listen: SocketAddr,
    /// How long a build outlives its client.
    pub grace: Duration,
    /// After how long a silent worker's steps go to others.
    pub lost_after: Duration,
    /// On how many cache nodes a blob is.
    pub replicas: u32,
    /// What projects weigh beside each other; 1 for those that are not named.
    pub weights: BTreeMap<Project, u32>,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// RUNs at once; none for as many as there are processors.
    pub slots: Option<u32>,
    /// Bytes for all RUNs together; none for the machine's memory.
    pub memory: Option<u64>,
    /// Where other workers come for blobs.
    pub listen: SocketAddr,
    /// Whether they may.
    pub serve_peers: bool,
    /// How long it may finish what it does when it is told to end.
    pub drain: Duration,
}

/// What is written to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How.
    pub format: LogFormat,
    /// What: a level or a filter; none for the process's own default.
    pub level: Option<String>,
}

/// How a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads the file and the variables. Who has flags takes [`Settings::load`].
    pub fn load() -> Result<Self, ConfigError> {
        Ok(Settings::load(None, &[])?.config)
    }

    /// The name of this node, which a cluster's member must have.
    pub fn node_name(&self) -> Result<NodeName, ConfigError> {
        let missing = || ConfigError::NoName { host: settings::host_name() };
        self.node.name.clone().ok_or_else(missing)
    }
}
