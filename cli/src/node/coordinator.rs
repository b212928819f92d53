//! `slipway coordinator`: decides for a farm.

use super::admin::{self, Asks};
use super::certificates::{self, Office};
use super::ledger;
use super::listen::{Guest, Host, listen};
use super::party::Party;
use super::uplink::cluster;
use crate::talk::converse;
use crate::up::door::handshake;
use cache::cluster::Cluster;
use cache::net::unix::Listener;
use cache::net::{NetError, Stream};
use coordinator::core::place::PRIORITY_MAX;
use coordinator::server::{Caller, Coordinator, Membership, Settings, Who};
use ops::config::Config;
use ops::identity::tls::ClientAuth;
use ops::identity::{Role, Subject};
use proto::error::{Class, Failure};
use proto::id::{CacheId, Millis, Scope, WorkerId};
use proto::platform::Platform;
use proto::wire::Service;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// A farm's coordinator, with what its guests are served with.
pub struct Desk {
    coordinator: Coordinator,
    membership: Membership,
    office: Office,
    started: Millis,
    party: Party,
}

/// Starts it; its tasks are added to `tasks`.
pub async fn start(
    party: &Party,
    config: &Config,
    tasks: &mut JoinSet<()>,
) -> Result<Arc<Desk>, Failure> {
    let settings = &config.coordinator;
    let replicas = u8::try_from(settings.replicas).unwrap_or(proto::limit::REPLICAS_MAX);
    let ledger = ledger::open(config, party).await?;
    let membership = Membership::new(replicas, settings.lost_after, ledger.clone());
    let store = cluster(party, membership.maps());
    tasks.spawn(ledger::watch(ledger.clone()));
    let office = Office::open(config, party, ledger.clone())?;
    let coordinator = Coordinator::start(Settings {
        store: store.clone(),
        ledger: Some(ledger),
        grace: settings.grace,
        lost_after: settings.lost_after,
        platform: Platform::host(),
        durations: config.home.join("durations"),
        weights: settings.weights.iter().map(|(p, weight)| (p.to_string(), *weight)).collect(),
    });
    tasks.spawn(watch_stale(store, membership.clone()));
    // Who is about to join has no certificate.
    let endpoint = party.listen(settings.listen, ClientAuth::Optional)?;
    tracing::info!(address = %settings.listen, "the coordinator listens");
    let started = Millis(crate::clock::now_ms());
    let party = party.clone();
    let desk = Arc::new(Desk { coordinator, membership, office, started, party });
    tasks.spawn(listen(endpoint, desk.clone()));
    let socket = crate::farm::socket(&config.home);
    let listener = Listener::bind(&socket)
        .map_err(|e| Failure::new(Class::Unavailable, format!("{}: {e}", socket.display())))?;
    tasks.spawn(serve_owner(listener, desk.clone()));
    Ok(desk)
}

/// Serves the user whose coordinator this is, on this machine.
async fn serve_owner(listener: Listener, desk: Arc<Desk>) {
    let mut streams = JoinSet::new();
    loop {
        while streams.try_join_next().is_some() {}
        match listener.accept().await {
            Ok(stream) => {
                let desk = desk.clone();
                streams.spawn(async move {
                    if let Err(e) = desk.owner(stream).await {
                        tracing::debug!("the owner's stream broke: {e}");
                    }
                });
            }
            Err(e) => {
                tracing::warn!("the owner could not connect: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Nodes that missed a write do not serve before they have caught up.
async fn watch_stale(store: Arc<Cluster>, membership: Membership) {
    loop {
        for id in store.stale().await {
            membership.stale(&id);
        }
    }
}

/// Who builds, by the certificate.
fn who(subject: &Subject) -> Option<Who> {
    let grant = subject.grant()?;
    Some(Who {
        name: subject.name().to_string(),
        scope: grant.scope.in_project(grant.project.as_str()),
        priority: grant.priority_max.min(PRIORITY_MAX),
    })
}

fn not_for(guest: &Guest, service: Service) -> Failure {
    let who = guest.subject.as_ref().map_or("nobody".to_owned(), |subject| subject.uri());
    let message = format!("`{who}` may not use {service:?} here: its certificate has another role");
    Failure::new(Class::Denied, message)
        .hint("Join with a token for the role that is needed (`slipway token create --role …`).")
}

impl Host for Desk {
    fn admits(&self, guest: &Guest, service: Service) -> Result<(), Failure> {
        if let Some(subject) = &guest.subject
            && subject.has(Role::Worker)
            && matches!(service, Service::Worker | Service::Cluster)
            && WorkerId::parse(subject.name().as_str())
                .is_ok_and(|worker| self.coordinator.is_removed(&worker))
        {
            return Err(certificates::removed(subject));
        }
        let is = |role: Role| guest.subject.as_ref().is_some_and(|subject| subject.has(role));
        let fits = match service {
            Service::Certificates => true,
            Service::Cluster => guest.known().map(|_| true)?,
            Service::Worker => guest.known()?.has(Role::Worker),
            Service::Build | Service::Admin => {
                guest.known()?;
                is(Role::Client)
            }
            Service::Blobs => false,
        };
        if fits { Ok(()) } else { Err(not_for(guest, service)) }
    }

    async fn serve(
        self: Arc<Self>,
        guest: Guest,
        service: Service,
        stream: Stream,
    ) -> Result<(), NetError> {
        match service {
            Service::Build => match guest.subject.as_ref().and_then(who) {
                Some(who) => self.coordinator.serve_build(stream, who).await,
                None => Ok(()),
            },
            Service::Worker => {
                let name = guest.subject.as_ref().map(|subject| subject.name().as_str());
                let worker = name.and_then(|name| WorkerId::parse(name).ok());
                let from = guest.address.ip();
                let caller = worker.map(|worker| Caller { worker, from });
                self.coordinator.serve_worker(stream, caller).await
            }
            Service::Cluster => {
                let cache = guest.subject.as_ref().filter(|subject| subject.has(Role::Cache));
                let cache = cache.and_then(|s| CacheId::parse(s.name().as_str()).ok());
                let writes = guest.subject.is_some_and(|subject| subject.has(Role::Worker));
                self.membership.serve(stream, cache, guest.address.ip(), writes).await
            }
            Service::Certificates => self.office.serve(guest.subject.as_ref(), stream).await,
            Service::Admin => {
                let Some(who) = guest.subject.as_ref().and_then(who) else { return Ok(()) };
                let grant = guest.subject.as_ref().and_then(|subject| subject.grant());
                let may_operate = grant.is_some_and(|grant| grant.admin);
                self.admin(Asks { may_operate, scope: who.scope }, stream).await
            }
            Service::Blobs => Ok(()),
        }
    }
}

impl Desk {
    /// What decides.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// The cache nodes.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// What gives out certificates.
    pub fn office(&self) -> &Office {
        &self.office
    }

    /// Who it is for others.
    pub fn party(&self) -> &Party {
        &self.party
    }

    /// When it began.
    pub fn started(&self) -> Millis {
        self.started
    }

    async fn admin(&self, asks: Asks, stream: Stream) -> Result<(), NetError> {
        converse(stream, async |request, talk| admin::answer(self, asks, request, talk).await).await
    }

    /// Serves a stream of the machine's own user.
    async fn owner(&self, mut stream: Stream) -> Result<(), NetError> {
        let open = stream.accept().await?;
        let welcome = match open.service {
            Service::Admin => Ok(()),
            _ => Err(Failure::new(Class::User, "This machine runs a farm's coordinator").hint(
                "Builds go to a farm that was joined: slipway token create --role client, then \
                 slipway join TOKEN@HOST, then slipway build --farm NAME",
            )),
        };
        match handshake(&mut stream, &open, welcome).await? {
            true => {
                let owner = Asks { may_operate: true, scope: Scope::trusted() };
                self.admin(owner, stream).await
            }
            false => Ok(()),
        }
    }
}
