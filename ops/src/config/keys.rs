//! All keys: one table, by which settings are read, overridden and shown.

use super::value::{Value, show_bytes, show_time, time};
use super::{Config, Fallback, LogFormat, Network, Registry, bytes};
use crate::address::{Address, Host};
use crate::context::FarmName;
use crate::names::{NodeName, Project};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// The longest time that a build outlives its client.
pub const GRACE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The times after which a silent worker may be taken for lost.
pub const LOST_AFTER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(60 * 60);

/// The longest time that a worker may finish what it does before it ends.
pub const DRAIN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// On how many cache nodes a blob may be.
pub const REPLICAS_MAX: u32 = proto::limit::REPLICAS_MAX as u32;

/// Slots of one machine.
pub const SLOTS_MAX: u32 = 4096;

/// What a project weighs at most.
const WEIGHT_MAX: u32 = 1000;

/// One key of `T`.
pub struct Key<T> {
    /// As it is in the file: `section.key`.
    pub name: &'static str,
    /// The variable that overrides it.
    pub variable: Option<&'static str>,
    /// What a value should be, as an error says it.
    pub expected: &'static str,
    /// What is taken where no value is given and there is no fixed one.
    pub unset: &'static str,
    pub(super) set: fn(&mut T, &Value) -> Option<()>,
    pub(super) show: fn(&T) -> Option<String>,
}

const LISTEN: &str = "an IP address and a port such as 0.0.0.0:7470";
const SLOTS: &str = "a number from 1 to 4096";
const SIZE: &str = "a size such as 500MB or 40GB";

/// The keys of all sections but `[registry.NAME]`, in the order in which they are shown.
pub const KEYS: &[Key<Config>] = &[
    Key {
        name: "farm.slots",
        variable: Some("SLIPWAY_SLOTS"),
        expected: SLOTS,
        unset: "the processors",
        set: |c, v| set(&mut c.slots, slots(v).map(Some)),
        show: |c| c.slots.map(|n| n.to_string()),
    },
    Key {
        name: "farm.idle",
        variable: Some("SLIPWAY_IDLE"),
        expected: "a time such as 90s or 15m",
        unset: "",
        set: |c, v| set(&mut c.idle, v.text().and_then(time)),
        show: |c| Some(show_time(c.idle)),
    },
    Key {
        name: "farm.default",
        variable: None,
        expected: "the name of a farm or an address",
        unset: "this machine's own",
        set: |c, v| set(&mut c.farm.default, v.text().and_then(farm).map(Some)),
        show: |c| c.farm.default.clone(),
    },
    Key {
        name: "farm.fallback",
        variable: Some("SLIPWAY_FARM_FALLBACK"),
        expected: "`none` or `local`",
        unset: "",
        set: |c, v| set(&mut c.farm.fallback, one_of(v, FALLBACKS)),
        show: |c| name_of(c.farm.fallback, FALLBACKS),
    },
    Key {
        name: "node.name",
        variable: Some("SLIPWAY_NODE_NAME"),
        expected: "1 to 64 of a-z A-Z 0-9 - _ .",
        unset: "none: the host's cannot be one",
        set: |c, v| set(&mut c.node.name, v.text().and_then(|t| NodeName::parse(t).ok()).map(Some)),
        show: |c| c.node.name.as_ref().map(NodeName::to_string),
    },
    Key {
        name: "node.advertise",
        variable: Some("SLIPWAY_NODE_ADVERTISE"),
        expected: "a host name or an IP address",
        unset: "found out",
        set: |c, v| {
            set(&mut c.node.advertise, v.text().and_then(|t| Host::parse(t).ok()).map(Some))
        },
        show: |c| c.node.advertise.as_ref().map(Host::to_string),
    },
    Key {
        name: "node.coordinator",
        variable: Some("SLIPWAY_NODE_COORDINATOR"),
        expected: "HOST or HOST:PORT",
        unset: "none",
        set: |c, v| set(&mut c.node.coordinator, v.text().and_then(coordinator).map(Some)),
        show: |c| c.node.coordinator.as_ref().map(Address::to_string),
    },
    Key {
        name: "coordinator.listen",
        variable: Some("SLIPWAY_COORDINATOR_LISTEN"),
        expected: LISTEN,
        unset: "",
        set: |c, v| set(&mut c.coordinator.listen, socket(v)),
        show: |c| Some(c.coordinator.listen.to_string()),
    },
    Key {
        name: "coordinator.grace",
        variable: Some("SLIPWAY_COORDINATOR_GRACE"),
        expected: "a time of at most 24h",
        unset: "",
        set: |c, v| {
            let grace = v.text().and_then(time).filter(|t| *t <= GRACE_MAX);
            set(&mut c.coordinator.grace, grace)
        },
        show: |c| Some(show_time(c.coordinator.grace)),
    },
    Key {
        name: "coordinator.lost_after",
        variable: Some("SLIPWAY_COORDINATOR_LOST_AFTER"),
        expected: "a time from 1s to 1h",
        unset: "",
        set: |c, v| {
            let after = v.text().and_then(time).filter(|t| LOST_AFTER.contains(t));
            set(&mut c.coordinator.lost_after, after)
        },
        show: |c| Some(show_time(c.coordinator.lost_after)),
    },
    Key {
        name: "coordinator.replicas",
        variable: Some("SLIPWAY_COORDINATOR_REPLICAS"),
        expected: "a number from 1 to 8",
        unset: "",
        set: |c, v| set(&mut c.coordinator.replicas, v.count().filter(|n| *n <= REPLICAS_MAX)),
        show: |c| Some(c.coordinator.replicas.to_string()),
    },
    Key {
        name: "coordinator.weights",
        variable: Some("SLIPWAY_COORDINATOR_WEIGHTS"),
        expected: "a list of PROJECT=WEIGHT, with weights from 1 to 1000",
        unset: "1 for each project",
        set: |c, v| set(&mut c.coordinator.weights, weights(v)),
        show: |c| join(c.coordinator.weights.iter().map(|(p, weight)| format!("{p}={weight}"))),
    },
    Key {
        name: "worker.slots",
        variable: Some("SLIPWAY_WORKER_SLOTS"),
        expected: SLOTS,
        unset: "the processors",
        set: |c, v| set(&mut c.worker.slots, slots(v).map(Some)),
        show: |c| c.worker.slots.map(|n| n.to_string()),
    },
    Key {
        name: "worker.memory",
        variable: Some("SLIPWAY_WORKER_MEMORY"),
        expected: SIZE,
        unset: "the machine's",
        set: |c, v| set(&mut c.worker.memory, size(v).map(Some)),
        show: |c| c.worker.memory.map(show_bytes),
    },
    Key {
        name: "worker.listen",
        variable: Some("SLIPWAY_WORKER_LISTEN"),
        expected: LISTEN,
        unset: "",
        set: |c, v| set(&mut c.worker.listen, socket(v)),
        show: |c| Some(c.worker.listen.to_string()),
    },
    Key {
        name: "worker.serve_peers",
        variable: Some("SLIPWAY_WORKER_SERVE_PEERS"),
        expected: "`true` or `false`",
        unset: "",
        set: |c, v| set(&mut c.worker.serve_peers, v.switch()),
        show: |c| Some(c.worker.serve_peers.to_string()),
    },
    Key {
        name: "worker.drain",
        variable: Some("SLIPWAY_WORKER_DRAIN"),
        expected: "a time of at most 24h",
        unset: "",
        set: |c, v| set(&mut c.worker.drain, v.text().and_then(time).filter(|t| *t <= DRAIN_MAX)),
        show: |c| Some(show_time(c.worker.drain)),
    },
    Key {
        name: "cache.budget",
        variable: Some("SLIPWAY_CACHE_BUDGET"),
        expected: SIZE,
        unset: "a fifth of the disk",
        set: |c, v| set(&mut c.cache_budget, size(v).map(Some)),
        show: |c| c.cache_budget.map(show_bytes),
    },
    Key {
        name: "cache.listen",
        variable: Some("SLIPWAY_CACHE_LISTEN"),
        expected: LISTEN,
        unset: "",
        set: |c, v| set(&mut c.cache_listen, socket(v)),
        show: |c| Some(c.cache_listen.to_string()),
    },
    Key {
        name: "http.listen",
        variable: Some("SLIPWAY_HTTP_LISTEN"),
        expected: "an IP address and a port such as 127.0.0.1:7480, or `off`",
        unset: "",
        set: |c, v| {
            let is_off = v.text() == Some("off");
            set(&mut c.http_listen, if is_off { Some(None) } else { socket(v).map(Some) })
        },
        show: |c| Some(c.http_listen.map_or("off".to_owned(), |listen| listen.to_string())),
    },
    Key {
        name: "log.format",
        variable: Some("SLIPWAY_LOG_FORMAT"),
        expected: "`text` or `json`",
        unset: "",
        set: |c, v| set(&mut c.log.format, one_of(v, LOG_FORMATS)),
        show: |c| name_of(c.log.format, LOG_FORMATS),
    },
    Key {
        name: "log.level",
        variable: Some("SLIPWAY_LOG"),
        expected: "error, warn, info, debug or trace, or a filter such as info,worker=debug",
        unset: "warn for a machine's own farm, else info",
        set: |c, v| set(&mut c.log.level, v.text().and_then(filter).map(Some)),
        show: |c| c.log.level.clone(),
    },
    Key {
        name: "run.network",
        variable: Some("SLIPWAY_NETWORK"),
        expected: "`nat` or `host`",
        unset: "",
        set: |c, v| set(&mut c.network, one_of(v, NETWORKS)),
        show: |c| name_of(c.network, NETWORKS),
    },
    Key {
        name: "run.cache_mount_max",
        variable: Some("SLIPWAY_CACHE_MOUNT_MAX"),
        expected: SIZE,
        unset: "no limit for one mount",
        set: |c, v| set(&mut c.cache_mount_max, size(v).map(Some)),
        show: |c| c.cache_mount_max.map(show_bytes),
    },
    Key {
        name: "run.runtime",
        variable: Some("SLIPWAY_OCI_RUNTIME"),
        expected: "`embedded` or the path of an OCI runtime",
        unset: "embedded",
        set: |c, v| {
            let program = v.text().filter(|text| !text.is_empty());
            set(&mut c.runtime, program.map(|p| (p != "embedded").then(|| p.into())))
        },
        show: |c| c.runtime.as_ref().map(|path| path.display().to_string()),
    },
];

/// The keys of a section `[registry.NAME]`.
pub const REGISTRY_KEYS: &[Key<Registry>] = &[
    Key {
        name: "mirrors",
        variable: None,
        expected: "a list of addresses such as [\"https://mirror.example.com\"]",
        unset: "none",
        set: |r, v| set(&mut r.mirrors, v.list().map(<[String]>::to_vec)),
        show: |r| join(r.mirrors.iter().cloned()),
    },
    Key {
        name: "http",
        variable: None,
        expected: "`true` or `false`",
        unset: "",
        set: |r, v| set(&mut r.http, v.switch()),
        show: |r| Some(r.http.to_string()),
    },
    Key {
        name: "ca",
        variable: None,
        expected: "a list of files such as [\"/etc/ssl/my-ca.pem\"]",
        unset: "none",
        set: |r, v| set(&mut r.ca, v.list().map(|list| list.iter().map(Into::into).collect())),
        show: |r| join(r.ca.iter().map(|path| path.display().to_string())),
    },
];

fn set<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

fn slots(value: &Value) -> Option<u32> {
    value.count().filter(|n| *n <= SLOTS_MAX)
}

fn weights(value: &Value) -> Option<BTreeMap<Project, u32>> {
    let weight = |text: String| {
        let (project, weight) = text.split_once('=')?;
        let weight = weight.trim().parse().ok().filter(|n| (1..=WEIGHT_MAX).contains(n))?;
        Some((Project::parse(project.trim()).ok()?, weight))
    };
    value.texts()?.into_iter().map(weight).collect()
}

fn size(value: &Value) -> Option<u64> {
    value.text().and_then(bytes).filter(|n| *n > 0)
}

fn socket(value: &Value) -> Option<SocketAddr> {
    value.text()?.parse().ok()
}

fn coordinator(text: &str) -> Option<Address> {
    Address::coordinator(text).ok()
}

/// A farm's name, `local`, or the address of a coordinator.
fn farm(text: &str) -> Option<String> {
    let is_farm = FarmName::parse(text).is_ok() || Address::coordinator(text).is_ok();
    is_farm.then(|| text.to_owned())
}

fn filter(text: &str) -> Option<String> {
    let is_filter = !text.is_empty() && EnvFilter::builder().parse(text).is_ok();
    is_filter.then(|| text.to_owned())
}

fn join(texts: impl Iterator<Item = String>) -> Option<String> {
    let texts: Vec<String> = texts.collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

const FALLBACKS: &[(&str, Fallback)] = &[("none", Fallback::None), ("local", Fallback::Local)];
const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const NETWORKS: &[(&str, Network)] = &[("nat", Network::Nat), ("host", Network::Host)];

fn one_of<T: Copy>(value: &Value, names: &[(&str, T)]) -> Option<T> {
    let text = value.text()?;
    names.iter().find(|(name, _)| *name == text).map(|(_, it)| *it)
}

fn name_of<T: PartialEq>(value: T, names: &[(&str, T)]) -> Option<String> {
    names.iter().find(|(_, it)| *it == value).map(|(name, _)| (*name).to_owned())
}
