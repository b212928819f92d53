//! Tokens for certificates, and old certificates for new ones.

use super::party::Party;
use super::uplink::waits;
use crate::error::user;
use crate::farm::binary;
use cache::net::{Dial, NetError, Stream};
use coordinator::core::facts::Fact;
use coordinator::server::{Ledger, Order, order_fact};
use ops::config::Config;
use ops::identity::{
    Applicant, Authority, CERTIFICATE_LIFE, Fingerprint, Identity, RANDOM_BYTES, Right, Role,
    Subject, Token, TokenId, TokenRecord,
};
use ops::names::NodeName;
use proto::error::{Class, Failure};
use proto::id::{Millis, WorkerId};
use proto::limit;
use proto::wire::Service;
use proto::wire::cluster::{Reply, Request};
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether a certificate is to be renewed, at most.
const LOOK: Duration = Duration::from_secs(3600);

/// Gives out certificates.
pub struct Office {
    authority: Authority,
    life: Duration,
    ledger: Ledger,
    /// Held by who uses a token: each use counts once.
    counter: tokio::sync::Mutex<()>,
}

/// Under what a token is kept in the log.
fn key(id: &TokenId) -> Vec<u8> {
    format!("{TOKENS}{id}").into_bytes()
}

/// How the names of all tokens begin in the log.
const TOKENS: &str = "token/";

/// How long one can see of a token that it has expired.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

fn read(bytes: &[u8]) -> Option<TokenRecord> {
    let mut aligned = AlignedVec::<16>::new();
    aligned.extend_from_slice(bytes);
    rkyv::from_bytes::<TokenRecord, RkyvError>(&aligned).ok()
}

/// The worker that somebody is, if so.
fn worker(subject: &Subject) -> Option<WorkerId> {
    let is_worker = subject.has(Role::Worker);
    is_worker.then(|| WorkerId::parse(subject.name().as_str()).ok()).flatten()
}

impl Office {
    /// The office of the machine on which the authority is kept.
    pub fn open(config: &Config, party: &Party, ledger: Ledger) -> Result<Self, Failure> {
        let dir = config.home.join("authority");
        let authority = Authority::load(&dir).map_err(|e| user(e.to_string()))?;
        if authority.cluster() != party.subject().cluster() {
            let message = format!("The authority in {} is another cluster's", dir.display());
            return Err(user(message));
        }
        Ok(Self { authority, life: CERTIFICATE_LIFE, ledger, counter: Default::default() })
    }

    /// Ends the log: nothing is decided or given out any more, and its files are closed.
    pub async fn close(&self) {
        self.ledger.log().shutdown().await;
    }

    /// Makes a token.
    pub async fn create(
        &self,
        right: Right,
        life: Duration,
        uses: Option<u32>,
    ) -> Result<Token, Failure> {
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random)
            .map_err(|e| Failure::new(Class::Unavailable, e.to_string()))?;
        let expires = Millis(crate::clock::now_ms().saturating_add(life.as_millis() as u64));
        let (token, record) =
            Token::mint(right, self.authority.fingerprint(), random, expires, uses);
        self.keep(&record).await?;
        self.forget_old().await?;
        Ok(token)
    }

    async fn keep(&self, record: &TokenRecord) -> Result<(), Failure> {
        let value = rkyv::to_bytes::<RkyvError>(record);
        let value = value.map_err(|e| Failure::new(Class::Bug, e.to_string()))?.to_vec();
        self.ledger.note(&[Fact::Kept { key: key(&record.id), value: Some(value) }]).await
    }

    fn kept(&self, id: &TokenId) -> Option<TokenRecord> {
        let bytes = self.ledger.read(|facts| facts.kept.get(&key(id)).cloned())?;
        read(&bytes)
    }

    /// All tokens that are known, those that expire first at the beginning.
    pub fn tokens(&self) -> Vec<TokenRecord> {
        let prefix = TOKENS.as_bytes();
        let mut all: Vec<TokenRecord> = self.ledger.read(|facts| {
            let kept = facts.kept.range(prefix.to_vec()..);
            let kept = kept.take_while(|(key, _)| key.starts_with(prefix));
            kept.filter_map(|(_, value)| read(value)).collect()
        });
        all.sort_by_key(|record| (record.expires, record.id));
        all
    }

    /// Takes a token back. Who has become a member by it stays one.
    pub async fn revoke(&self, id: TokenId) -> Result<(), Failure> {
        let _counts = self.counter.lock().await;
        let unknown = || user(format!("There is no token `{id}` any more"));
        let record = TokenRecord { revoked: true, ..self.kept(&id).ok_or_else(unknown)? };
        self.keep(&record).await?;
        tracing::info!(token = %id, "a token was revoked");
        Ok(())
    }

    /// Tokens that have expired long ago are not kept for ever.
    async fn forget_old(&self) -> Result<(), Failure> {
        let now = Millis(crate::clock::now_ms());
        let is_old = |record: &TokenRecord| now.since(record.expires) > KEPT_FOR.as_millis() as u64;
        let old = self.tokens().into_iter().filter(is_old);
        let facts: Vec<Fact> =
            old.map(|record| Fact::Kept { key: key(&record.id), value: None }).collect();
        self.ledger.note(&facts).await
    }

    /// Answers one request of `who`.
    pub async fn serve(&self, who: Option<&Subject>, mut stream: Stream) -> Result<(), NetError> {
        let (request, _) = stream.from.expect::<Request>().await?;
        let reply = match self.answer(who, request).await {
            Ok(reply) => reply,
            Err(failure) => {
                tracing::warn!("a certificate was refused: {failure}");
                Reply::Refused(failure)
            }
        };
        stream.to.send(&reply).await?;
        stream.to.close().await
    }

    async fn answer(&self, who: Option<&Subject>, request: Request) -> Result<Reply, Failure> {
        let denied = |message: String| Failure::new(Class::Denied, message);
        let (subject, csr) = match request {
            Request::Renew { csr } => {
                let subject =
                    who.ok_or_else(|| denied("Only members renew certificates".into()))?;
                if worker(subject).is_some_and(|w| self.ledger.order(&w) == Some(Order::Removed)) {
                    return Err(removed(subject));
                }
                (subject.clone(), csr)
            }
            Request::Join { token, name, csr } => {
                let token = Token::parse(&token).map_err(|e| denied(e.to_string()))?;
                let name = NodeName::parse(&name).map_err(|e| user(e.to_string()))?;
                let _counts = self.counter.lock().await;
                let unknown = || {
                    denied("The token is not known here".to_owned())
                        .hint("Make a new one: `slipway token create --role …` on the coordinator.")
                };
                let mut record = self.kept(&token.id()).ok_or_else(unknown)?;
                let now = Millis(crate::clock::now_ms());
                record.admits(&token, now).map_err(|e| denied(e.to_string()))?;
                let subject = record.subject(self.authority.cluster().clone(), name);
                let subject = subject.map_err(|e| user(e.to_string()))?;
                record.spend();
                self.keep(&record).await?;
                // One that was removed is a member again.
                if let Some(worker) = worker(&subject)
                    && self.ledger.order(&worker) == Some(Order::Removed)
                {
                    self.ledger.note(&[order_fact(&worker, None)]).await?;
                }
                (subject, csr)
            }
        };
        if csr.len() > limit::CSR_BYTES_MAX {
            return Err(denied("The request for a certificate is too long".to_owned()));
        }
        let now = Millis(crate::clock::now_ms());
        let certificate = self.authority.sign(&csr, &subject, self.life, now);
        let certificate = certificate.map_err(|e| denied(e.to_string()))?;
        tracing::info!(subject = %subject.uri(), "gave out a certificate");
        let expires = Millis(now.0 + self.life.as_millis() as u64);
        Ok(Reply::Certificate {
            certificate: certificate.to_vec(),
            authority: self.authority.certificate().to_vec(),
            expires,
        })
    }
}

/// What a worker is told that was removed from the farm.
pub fn removed(subject: &Subject) -> Failure {
    let message = format!("The worker `{}` was removed from the farm", subject.name());
    Failure::new(Class::Denied, message).hint(
        "To have it back, join again with a new token: slipway token create --role worker, then \
         slipway join TOKEN@HOST on it.",
    )
}

/// Asks for a certificate at the other end of `dial`.
async fn ask(dial: &dyn Dial, applicant: Applicant, request: Request) -> Result<Identity, Failure> {
    let mut stream = dial.dial().await?.open(binary(), Service::Certificates).await?.stream;
    stream.to.send(&request).await?;
    match stream.from.expect::<Reply>().await?.0 {
        Reply::Refused(failure) => Err(failure),
        Reply::Certificate { certificate, authority, .. } => {
            let der = CertificateDer::from;
            let accepted = applicant.accept(der(certificate), der(authority));
            accepted.map_err(|e| Failure::new(Class::Denied, e.to_string()))
        }
    }
}

fn applicant() -> Result<(Applicant, Vec<u8>), Failure> {
    let broken = |e: ops::identity::AcceptError| Failure::new(Class::Bug, e.to_string());
    let applicant = Applicant::new().map_err(broken)?;
    let csr = applicant.csr().map_err(broken)?;
    Ok((applicant, csr))
}

/// A member by an authority that is at hand.
pub fn admit(authority: &Authority, subject: &Subject, now: Millis) -> Result<Identity, Failure> {
    let (applicant, csr) = applicant()?;
    let signed = authority.sign(&csr, subject, CERTIFICATE_LIFE, now);
    let signed = signed.map_err(|e| Failure::new(Class::Bug, e.to_string()))?;
    let identity = applicant.accept(signed, authority.certificate().clone());
    identity.map_err(|e| Failure::new(Class::Bug, e.to_string()))
}

/// Becomes a member with a token. The authority that comes with the certificate must be the one
/// that the token names.
pub async fn join(dial: &dyn Dial, token: &Token, name: &NodeName) -> Result<Identity, Failure> {
    let (applicant, csr) = applicant()?;
    let request = Request::Join { token: token.expose(), name: name.to_string(), csr };
    let identity = ask(dial, applicant, request).await?;
    if Fingerprint::of(identity.authority()) != token.fingerprint() {
        let message = "The coordinator's authority is not the one that the token is of";
        return Err(Failure::new(Class::Denied, message));
    }
    Ok(identity)
}

/// Renews the certificate of a member, for as long as the process lives.
pub async fn keep_renewed(party: Party, dial: Arc<dyn Dial>) {
    let mut pause = waits();
    loop {
        let now = Millis(crate::clock::now_ms());
        let identity = party.identity();
        if !identity.needs_renewal(now) {
            let left = identity.expires().since(now);
            // A third of its life is left when it is due: a fifth of that is soon enough.
            let wait = Duration::from_millis(left / 15).clamp(Duration::from_millis(200), LOOK);
            tokio::time::sleep(wait).await;
            continue;
        }
        let renewed = async {
            let (applicant, csr) = applicant()?;
            let identity = ask(&*dial, applicant, Request::Renew { csr }).await?;
            party.renew(identity)
        };
        match renewed.await {
            Ok(()) => {
                pause = waits();
                tracing::info!("the certificate was renewed");
            }
            Err(e) => {
                tracing::warn!("the certificate could not be renewed: {e}; trying again");
                tokio::time::sleep(pause.next().unwrap_or(LOOK)).await;
            }
        }
    }
}
