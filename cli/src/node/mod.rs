//! The roles of a cluster as processes: `slipway coordinator`, `slipway worker`, `slipway cache`,
//! any of them together in one.
//!
//! [`party`] is who a role is for others; [`listen`] serves who comes, [`uplink`] keeps the way to
//! the coordinator. Each role has an identity of its own:
//!
//! ```text
//! $SLIPWAY_HOME/authority/            on the coordinator: what signs certificates
//! $SLIPWAY_HOME/log/                  on the coordinator: the log of decisions
//! $SLIPWAY_HOME/identity/ROLE/        the identity, and where the coordinator is
//! $SLIPWAY_HOME/cache/                a cache node's store
//! $SLIPWAY_HOME/worker-store/         a worker's store
//! $SLIPWAY_HOME/worker/               its layers and containers
//! ```

mod admin;
mod cache;
pub mod certificates;
mod coordinator;
mod disks;
pub mod join;
mod ledger;
mod listen;
pub mod party;
pub mod uplink;
mod worker;

use crate::args::farm::Roles;
use crate::error::user;
use crate::up::lock::Lock;
use crate::up::{Signals, make_home};
use certificates::keep_renewed;
use ops::config::Config;
use ops::identity::Role;
use ops::telemetry::{self, Process};
use party::Party;
use proto::error::{Class, Failure};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinSet;

/// How long what is under way may take to end.
const END_WAIT: Duration = Duration::from_secs(10);

/// Where a role's identity is kept.
pub fn identity_dir(home: &Path, role: Role) -> PathBuf {
    home.join("identity").join(role.as_str())
}

/// Runs roles until a signal ends them; answers the exit code.
pub async fn run(roles: Roles, config: Config) -> Result<u8, Failure> {
    telemetry::init(&config.log, Process::Role);
    let home = &config.home;
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        Failure::new(Class::Unavailable, format!("{what} {} failed: {e}", home.display()))
    };
    make_home(home).map_err(|e| failed("Making", &e))?;
    let lock = Lock::take(home).map_err(|e| failed("Locking", &e))?;
    let Some(_lock) = lock else {
        let message = format!("Another process of Slipway uses {}", home.display());
        return Err(user(message).hint(
            "End it (`slipway down`), or give this one a directory of its own by SLIPWAY_HOME. Roles \
             of one machine can share a process: slipway coordinator --with cache,worker",
        ));
    };
    let mut signals = Signals::new().map_err(|e| failed("Watching for signals in", &e))?;
    let mut tasks = JoinSet::new();
    let parties = start(&roles, &config, &mut tasks).await?;
    let names: Vec<&str> = roles.iter().map(Role::as_str).collect();
    eprintln!("Slipway's {} is up. Ctrl-C ends it.", names.join(", "));
    let draining = signals.end().await;
    tracing::info!(draining, "ending");
    let ending = async {
        if let Some(worker) = &parties.worker {
            worker.stop().await;
        }
        for party in &parties.all {
            party.close().await;
        }
    };
    tokio::select! {
        ended = tokio::time::timeout(END_WAIT, ending) => if ended.is_err() {
            tracing::warn!("what is under way does not end; the next start cleans up");
        },
        _ = signals.end() => tracing::warn!("ending at once; the next start cleans up"),
    }
    tasks.shutdown().await;
    Ok(0)
}

/// What runs.
struct Running {
    all: Vec<Party>,
    worker: Option<::worker::agent::Worker>,
}

async fn start(
    roles: &Roles,
    config: &Config,
    tasks: &mut JoinSet<()>,
) -> Result<Running, Failure> {
    let mut running = Running { all: Vec::new(), worker: None };
    for role in roles.iter() {
        let dir = identity_dir(&config.home, role);
        let party = Party::open(dir.clone())?;
        if !party.subject().has(role) {
            let message = format!("The identity in {} is not one of a {role}", dir.display());
            return Err(user(message));
        }
        running.all.push(party.clone());
        let uplink = match roles.has(Role::Coordinator) {
            true => format!("127.0.0.1:{}", config.coordinator.listen.port()),
            false => join::coordinator_of(config, &dir)?,
        };
        let uplink = party.control(&uplink, Role::Coordinator);
        match role {
            Role::Coordinator => drop(coordinator::start(&party, config, tasks).await?),
            Role::Cache => drop(cache::start(&party, config, uplink.clone(), tasks).await?),
            Role::Worker => {
                let worker = worker::start(&party, config, uplink.clone(), tasks).await?;
                running.worker = Some(worker);
            }
            Role::Client => return Err(user("A client is no process of a farm")),
        }
        tasks.spawn(keep_renewed(party, uplink));
    }
    Ok(running)
}
