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
mod end;
pub mod join;
mod ledger;
mod listen;
pub mod members;
mod office;
pub mod party;
pub mod uplink;
mod watch;
mod worker;

use crate::args::farm::Roles;
use crate::error::user;
use crate::print::tell;
use crate::up::lock::Lock;
use crate::up::{Signals, make_home};
use certificates::keep_renewed;
use coordinator::Desk;
use end::Service;
use ops::config::{Config, LogFormat};
use ops::identity::Role;
use ops::telemetry::{self, Process};
use party::Party;
use proto::error::{Class, Failure};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use watch::{Part, Watch};
use worker::Hired;

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
    let running = start(&roles, &config, &mut tasks).await?;
    watch::start(Watch::new(running.parts), &config, &mut tasks).await;
    let names: Vec<&str> = roles.iter().map(Role::as_str).collect();
    match config.log.format {
        LogFormat::Text => tell!("Slipway's {} is up. Ctrl-C ends it.", names.join(", ")),
        // Each line is an object.
        LogFormat::Json => tracing::info!(roles = names.join(","), "Slipway is up"),
    }
    let service = Service;
    service.ready(&names.join(", "));
    let asked = signals.next().await;
    service.stopping();
    if let Some(hired) = &running.worker {
        end::finish(&hired.worker, asked, config.worker.drain, &mut signals, &service).await;
    }
    let ending = async {
        if let Some(hired) = &running.worker {
            hired.worker.stop().await;
        }
        for party in &running.parties {
            party.close().await;
        }
    };
    tokio::select! {
        ended = tokio::time::timeout(END_WAIT, ending) => if ended.is_err() {
            tracing::warn!("what is under way does not end; the next start cleans up");
        },
        _ = signals.next() => tracing::warn!("ending at once; the next start cleans up"),
    }
    tasks.shutdown().await;
    if let Some(desk) = &running.desk
        && tokio::time::timeout(END_WAIT, desk.office().close()).await.is_err()
    {
        tracing::warn!("the log of decisions does not end; the next start takes it up as it is");
    }
    Ok(0)
}

/// What runs.
struct Running {
    parties: Vec<Party>,
    parts: Vec<Part>,
    worker: Option<Hired>,
    desk: Option<Arc<Desk>>,
}

async fn start(
    roles: &Roles,
    config: &Config,
    tasks: &mut JoinSet<()>,
) -> Result<Running, Failure> {
    let mut running = Running { parties: Vec::new(), parts: Vec::new(), worker: None, desk: None };
    for role in roles.iter() {
        let dir = identity_dir(&config.home, role);
        let party = Party::open(dir.clone())?;
        if !party.subject().has(role) {
            let message = format!("The identity in {} is not one of a {role}", dir.display());
            return Err(user(message));
        }
        running.parties.push(party.clone());
        let is_local = roles.has(Role::Coordinator);
        if is_local && role == Role::Cache && config.node.advertise.is_none() {
            tracing::warn!(
                "only this machine reaches its cache node: for a farm of several machines set \
                 `advertise` in the section [node] of the settings (SLIPWAY_NODE_ADVERTISE) to the \
                 name or address that others reach it at"
            );
        }
        let uplink = match is_local {
            true => format!("127.0.0.1:{}", config.coordinator.listen.port()),
            false => join::coordinator_of(config, &dir)?,
        };
        let uplink = party.control(&uplink, Role::Coordinator);
        let part = match role {
            Role::Coordinator => {
                let desk = coordinator::start(&party, config, tasks).await?;
                running.desk = Some(desk.clone());
                Part::Coordinator(desk)
            }
            Role::Cache => Part::Cache(cache::start(&party, config, uplink.clone(), tasks).await?),
            Role::Worker => {
                let hired = worker::start(&party, config, uplink.clone(), tasks).await?;
                running.worker = Some(hired.clone());
                Part::Worker(hired)
            }
            Role::Client => return Err(user("A client is no process of a farm")),
        };
        running.parts.push(part);
        tasks.spawn(keep_renewed(party, uplink));
    }
    Ok(running)
}
