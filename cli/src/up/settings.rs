//! From flags and settings to what the parts are opened with.

use super::HELPER;
use crate::args::Up;
use crate::error::user;
use cache::store::{DiskStore, Options};
use ops::config::{Config, Network};
use proto::error::{Class, Failure};
use proto::id::WorkerId;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use worker::agent::Settings;
use worker::image::registry::{ProxyConfig, RegistryConfig};
use worker::sandbox::{HelperProgram, Runtime};

/// Files that a step's process may have open unless it asks for more. Docker's engine leaves its
/// own service's limit; 1024 is what programs of all ages bear.
const OPEN_FILES: u64 = 1024;

/// What the parts of the farm are opened with.
pub struct Plan {
    /// Where the store is.
    pub store_dir: PathBuf,
    /// How it is opened.
    pub store: Options,
    /// Where is written down how long steps took.
    pub durations: PathBuf,
    /// How the worker is.
    pub worker: Settings,
}

/// Reads what flags, settings and machine say.
pub fn plan(args: &Up, config: &Config) -> Result<Plan, Failure> {
    let budget = disk_budget(config)?;
    // Two thirds for the store, one for layers as directories, whose files are mostly links to
    // files of the store.
    let id = WorkerId::parse("local").expect("letters");
    let slots = args.slots.or(config.slots);
    let worker = worker_settings(id, slots, args.oci_runtime.as_ref(), budget / 3, true, config)?;
    let store = store_options(budget / 3 * 2);
    let durations = config.home.join("durations");
    Ok(Plan { store_dir: config.home.join("store"), store, durations, worker })
}

/// Bytes of disk that everything together may take.
pub fn disk_budget(config: &Config) -> Result<u64, Failure> {
    match config.cache_budget {
        Some(budget) => Ok(budget),
        None => Ok(disk_bytes(&config.home)? / 5),
    }
}

fn store_options(budget: u64) -> Options {
    Options::default().budget(budget).collect_automatically().hooks(cache::crash::hooks())
}

/// Opens a store, or makes it.
pub async fn open_store(dir: PathBuf, budget: u64) -> Result<Arc<DiskStore>, Failure> {
    let open = move || DiskStore::open(&dir, store_options(budget));
    let opened = tokio::task::spawn_blocking(open).await;
    let opened = opened.map_err(|e| Failure::new(Class::Bug, e.to_string()))?;
    opened.map(Arc::new).map_err(|e| Failure::new(Class::Unavailable, e.to_string()))
}

/// How a worker is. `rootfs_budget` is for layers as directories; `alone` says that nobody else can
/// do its work.
pub fn worker_settings(
    id: WorkerId,
    slots: Option<u32>,
    runtime: Option<&PathBuf>,
    rootfs_budget: u64,
    alone: bool,
    config: &Config,
) -> Result<Settings, Failure> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = slots.unwrap_or(processors as u32).max(1);
    let runtime = match runtime.or(config.runtime.as_ref()) {
        None => Runtime::Embedded,
        Some(program) => Runtime::Program(find(program)?),
    };
    Ok(Settings {
        id,
        address: String::new(),
        dir: config.home.join("worker"),
        slots,
        processors,
        // Also when the file was replaced meanwhile, it is this program.
        helper: HelperProgram { path: "/proc/self/exe".into(), args: vec![HELPER.to_owned()] },
        runtime,
        registry: registries(config),
        rootfs_budget,
        open_files: OPEN_FILES,
        host_network: config.network == Network::Host,
        platforms: worker::sandbox::platforms(),
        cache_mount_cap: config.cache_mount_max,
        is_alone: alone,
    })
}

/// Bytes of the disk that a directory is on.
fn disk_bytes(dir: &Path) -> Result<u64, Failure> {
    let stat = rustix::fs::statvfs(dir).map_err(|e| {
        let message = format!("Looking at the disk of {} failed: {e}", dir.display());
        Failure::new(Class::Unavailable, message)
    })?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// A program as a path: the helper that starts it has no PATH.
fn find(program: &Path) -> Result<PathBuf, Failure> {
    let missing = || {
        user(format!("The OCI runtime `{}` is not there", program.display()))
            .hint("Install it (Debian: crun, runc), or leave the setting out for the embedded one.")
    };
    let candidates: Vec<PathBuf> = match program.components().count() {
        1 => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|dir| dir.join(program)).collect()
        }
        _ => vec![program.to_owned()],
    };
    let found = candidates.into_iter().find(|path| path.is_file()).ok_or_else(missing)?;
    std::fs::canonicalize(found).map_err(|_| missing())
}

/// How registries are reached.
pub fn registries(config: &Config) -> RegistryConfig {
    let all = || config.registries.iter();
    RegistryConfig {
        mirrors: all()
            .filter(|(_, r)| !r.mirrors.is_empty())
            .map(|(name, r)| (name.clone(), r.mirrors.clone()))
            .collect(),
        plain_http: all().filter(|(_, r)| r.http).map(|(name, _)| name.clone()).collect(),
        ca: all()
            .filter(|(_, r)| !r.ca.is_empty())
            .map(|(name, r)| (name.clone(), r.ca.clone()))
            .collect(),
        certs_dirs: vec!["/etc/docker/certs.d".into()],
        proxy: ProxyConfig::from_variables(|name| std::env::var(name).ok()),
        ..RegistryConfig::default()
    }
}
