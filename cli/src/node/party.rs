//! A member of a cluster, as its connections need it: who it is, what it dials and listens with.

use cache::net::Dial;
use cache::net::quic::dial::{Dialer, Target};
use cache::net::quic::{ALPN, Endpoint, Keys};
use futures::future::join_all;
use ops::identity::tls::{ClientAuth, TlsError, client_config, server_config};
use ops::identity::{Identity, Role, Subject};
use proto::error::{Class, Failure};
use proto::id::Millis;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections to one other process for blobs: each is served by one task at each end.
const BULK_CONNECTIONS: usize = 2;

/// A member of a cluster. Clones are the same one.
#[derive(Clone)]
pub struct Party(Arc<Inner>);

struct Inner {
    /// Where the identity is kept.
    dir: PathBuf,
    identity: Mutex<Arc<Identity>>,
    keys: Keys,
    /// Big transfers have a socket of their own, so that they never delay what is small.
    control: Endpoint,
    bulk: Endpoint,
    listening: Mutex<Vec<(Endpoint, ClientAuth)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tls_failure(error: TlsError) -> Failure {
    Failure::new(Class::Denied, error.to_string())
}

fn socket_failure(error: &io::Error) -> Failure {
    Failure::new(Class::Unavailable, format!("Opening a UDP socket failed: {error}"))
}

/// What a role is called in messages.
pub fn called(role: Role) -> &'static str {
    match role {
        Role::Coordinator => "the coordinator",
        Role::Worker => "the worker",
        Role::Cache => "the cache node",
        Role::Client => "the client",
    }
}

impl Party {
    /// Whoever has the identity that is kept in `dir`.
    pub fn open(dir: PathBuf) -> Result<Self, Failure> {
        let identity =
            Identity::load(&dir).map_err(|e| Failure::new(Class::User, e.to_string()))?;
        let now = Millis(crate::clock::now_ms());
        if identity.expires() <= now {
            let message = format!("The certificate in {} has expired", dir.display());
            return Err(Failure::new(Class::Denied, message)
                .hint("Run `slipway join TOKEN@HOST` with a new token of the farm."));
        }
        let tls = client_config(Some(&identity), identity.authority(), &[ALPN]);
        let keys = Keys::new(tls.map_err(tls_failure)?);
        let keys = keys.map_err(|e| Failure::new(Class::Bug, e.to_string()))?;
        let endpoint = || Endpoint::client().map_err(|e| socket_failure(&e));
        Ok(Self(Arc::new(Inner {
            dir,
            identity: Mutex::new(Arc::new(identity)),
            keys,
            control: endpoint()?,
            bulk: endpoint()?,
            listening: Mutex::default(),
        })))
    }

    /// Who it is.
    pub fn identity(&self) -> Arc<Identity> {
        locked(&self.0.identity).clone()
    }

    /// Who it is, by its certificate.
    pub fn subject(&self) -> Subject {
        self.identity().subject().clone()
    }

    /// Hears those who dial `address`.
    pub fn listen(&self, address: SocketAddr, clients: ClientAuth) -> Result<Endpoint, Failure> {
        let identity = self.identity();
        let tls = server_config(&identity, identity.authority(), &[ALPN], clients);
        let secret = self.secret()?;
        let endpoint =
            Endpoint::server(address, tls.map_err(tls_failure)?, &secret).map_err(|e| {
                let message = format!("Listening at {address} (UDP) failed: {e}");
                Failure::new(Class::Unavailable, message)
                    .hint("Set another address in the settings (`slipway config show` shows them).")
            })?;
        locked(&self.0.listening).push((endpoint.clone(), clients));
        Ok(endpoint)
    }

    /// What tells those who had connections to an earlier life of this process that these are gone.
    fn secret(&self) -> Result<[u8; 32], Failure> {
        let path = self.0.dir.join("reset.key");
        let failed = |action: &str, e: &dyn std::fmt::Display| {
            let message = format!("{action} {} failed: {e}", path.display());
            Failure::new(Class::Unavailable, message)
        };
        if let Ok(bytes) = std::fs::read(&path)
            && let Ok(secret) = bytes.try_into()
        {
            return Ok(secret);
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|e| failed("Making", &e))?;
        let mut file = std::fs::File::options();
        let file = file.write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(&secret));
        written.map_err(|e| failed("Writing", &e))?;
        Ok(secret)
    }

    /// Dials for small messages.
    pub fn control(&self, address: &str, role: Role) -> Arc<dyn Dial> {
        Arc::new(Dialer::new(&self.0.control, &self.0.keys, target(address, role), 1))
    }

    /// Dials for blobs.
    pub fn bulk(&self, address: &str, role: Role) -> Arc<dyn Dial> {
        let target = target(address, role);
        Arc::new(Dialer::new(&self.0.bulk, &self.0.keys, target, BULK_CONNECTIONS))
    }

    /// Is somebody with a newer certificate from now on.
    pub fn renew(&self, identity: Identity) -> Result<(), Failure> {
        let bug = |e: &dyn std::fmt::Display| Failure::new(Class::Bug, e.to_string());
        identity.save(&self.0.dir).map_err(|e| Failure::new(Class::User, e.to_string()))?;
        let tls = client_config(Some(&identity), identity.authority(), &[ALPN]);
        self.0.keys.replace(tls.map_err(tls_failure)?).map_err(|e| bug(&e))?;
        for (endpoint, clients) in &*locked(&self.0.listening) {
            let tls = server_config(&identity, identity.authority(), &[ALPN], *clients);
            endpoint.renew(tls.map_err(tls_failure)?).map_err(|e| bug(&e))?;
        }
        *locked(&self.0.identity) = Arc::new(identity);
        Ok(())
    }

    /// Ends all connections; the other ends are told.
    pub async fn close(&self) {
        let listening: Vec<Endpoint> =
            locked(&self.0.listening).iter().map(|(endpoint, _)| endpoint.clone()).collect();
        let own = [&self.0.control, &self.0.bulk];
        join_all(listening.iter().chain(own).map(Endpoint::close)).await;
    }
}

fn target(address: &str, role: Role) -> Target {
    Target {
        address: address.to_owned(),
        name: role.dns_name().to_owned(),
        called: called(role).to_owned(),
    }
}
