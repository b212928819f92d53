//! The coordinator's log on its disk.

use super::party::Party;
use crate::error::user;
use coordinator::core::facts::Facts;
use coordinator::raft::{
    Beginning, ClusterId, Identity, Limits, Log, NodeId, OpenError, RaftLog, RocksStore, Shared,
    Stopped, Transport, node,
};
use coordinator::server::Ledger;
use ops::config::Config;
use proto::error::{Class, Failure};
use proto::id::Millis;
use rustls::pki_types::CertificateDer;
use std::path::PathBuf;
use std::sync::Arc;

/// The only voter.
const ME: NodeId = NodeId::new(1).expect("it is not 0");

/// The exit code of a process whose log can take nothing more: what it decides would be lost.
const LOG_FAILED: i32 = 70;

fn dir(config: &Config) -> PathBuf {
    config.home.join("log")
}

/// A cluster's log is known by the cluster's authority, of which there is no second one.
fn identity(authority: &CertificateDer<'_>) -> Identity {
    let hash = blake3::hash(authority);
    let (cluster, _) = hash.as_bytes().split_first_chunk().expect("16 of 32 bytes");
    Identity { cluster: ClusterId(*cluster), node: ME }
}

/// Makes the log of a new cluster.
pub fn create(config: &Config, authority: &CertificateDer<'_>) -> Result<(), Failure> {
    let now = Millis(crate::clock::now_ms());
    let made =
        RocksStore::create(&dir(config), identity(authority), now, &Beginning::Voters(vec![ME]));
    made.map_err(|e| user(e.to_string()))
}

/// Opens the log, and applies what is in it.
pub async fn open(config: &Config, party: &Party) -> Result<Ledger, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(Class::Unavailable, e.to_string());
    let (dir, identity) = (dir(config), identity(party.identity().authority()));
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|e| failed(&e))?;
    let options =
        node::Options { node: ME, seed: u64::from_le_bytes(seed), limits: Limits::default() };
    let facts = Shared::new(Facts::default());
    let shared = facts.clone();
    let open = move || {
        let store = RocksStore::open(&dir, identity).map_err(|e| not_open(&e))?;
        RaftLog::start(options, store, shared, Box::new(Alone)).map_err(|e| failed(&e))
    };
    let log = tokio::task::spawn_blocking(open).await.map_err(|e| failed(&e))??;
    // What was acknowledged in an earlier life is applied before anything is decided.
    let mut leader = log.watch_leader();
    let leads = leader.wait_for(|leadership| leadership.role == coordinator::raft::Role::Leader);
    leads.await.map_err(|e| failed(&e))?;
    log.read_barrier().await.map_err(|e| failed(&e))?;
    Ok(Ledger::new(Arc::new(log), facts))
}

fn not_open(error: &OpenError) -> Failure {
    let failure = Failure::new(error.class(), error.to_string());
    match error {
        OpenError::Missing { .. } => failure.hint(
            "A cluster has one coordinator: the machine on which `slipway farm init` made it. To move \
             it, stop it and copy its whole SLIPWAY_HOME to the new machine.",
        ),
        _ => failure,
    }
}

/// Ends the process when the log has failed: it would promise what it cannot keep.
pub async fn watch(ledger: Ledger) {
    let mut stopped = ledger.log().watch_stopped();
    let failed = stopped.wait_for(|stopped| matches!(stopped, Some(Stopped::Failed(_)))).await;
    if let Ok(failed) = failed
        && let Some(Stopped::Failed(why)) = &*failed
    {
        tracing::error!("the log of decisions has failed, and the coordinator ends: {why}");
        std::process::exit(LOG_FAILED);
    }
}

/// The way to other voters where there are none.
struct Alone;

impl Transport for Alone {
    fn send(&self, to: NodeId, _: Vec<u8>) {
        tracing::warn!(%to, "a message for a voter that is not there");
    }

    fn send_snapshot(&self, to: NodeId, _: Vec<u8>) {
        tracing::warn!(%to, "a snapshot for a voter that is not there");
    }
}
