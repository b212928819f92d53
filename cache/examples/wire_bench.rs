//! The store over QUIC, held against what it is made of: `cargo run --release -p cache --example
//! wire_bench [DIR]`.
//!
//! Works in a new directory under DIR (the current one if not given), which it deletes again. Both
//! ends are in this process, each with a runtime of its own, and speak over the loopback, with mutual
//! TLS, as machines do. Each line is a name, then the times of our side and of the other one, in
//! milliseconds, between tabs; none of the other side where a time stands for itself.

use bytes::Bytes;
use cache::net::blobs::Blobs;
use cache::net::quic::dial::{Dialer, Target};
use cache::net::quic::{ALPN, Endpoint, Keys, socket, transport};
use cache::net::serve::{Rights, serve};
use cache::store::memory::MemoryStore;
use cache::store::{DiskStore, Options, Store};
use proto::id::BlobId;
use proto::limit::BATCH_BYTES;
use proto::wire::{Binary, Opened};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, TokioRuntime};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

type Failure = Box<dyn std::error::Error>;

/// How often everything is measured.
const TIMES: usize = 5;

/// Bytes of the large blob.
const LARGE: usize = 1 << 30;

/// Bytes that a bare stream takes and gives at once.
const PIECE: usize = 1 << 20;

/// Small blobs, and the bytes of each.
const SMALL: usize = 100_000;
const SMALL_BYTES: usize = 1000;

/// Blobs of the store that is asked what it lacks, and how many it is asked for.
const MANY: usize = 1_000_000;
const ASKED: usize = 10_000;

/// What the other end is called by its certificate.
const NAME: &str = "cache.bench";

fn main() -> Result<(), Failure> {
    let base = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = tempfile::tempdir_in(base)?;
    let sides = Sides::new()?;
    bulk(&sides)?;
    small(&sides, &dir.path().join("small"))?;
    missing(&sides, dir.path())?;
    Ok(())
}

/// Bytes that can't be compressed.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn blob(seed: u64, len: usize) -> (BlobId, Bytes) {
    let bytes = content(seed, len);
    (BlobId::of(&bytes), bytes.into())
}

fn tell(what: &str, ours: &[Duration], theirs: &[Duration]) {
    let list = |times: &[Duration]| {
        let ms = times.iter().map(|time| format!("{:.3}", time.as_secs_f64() * 1e3));
        ms.collect::<Vec<_>>().join(" ")
    };
    println!("{what}\t{}\t{}", list(ours), list(theirs));
}

/// A node that serves, and one that asks.
struct Sides {
    server: Runtime,
    client: Runtime,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Sides {
    fn new() -> Result<Self, Failure> {
        let runtime = || Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { server: runtime()?, client: runtime()?, authority })
    }

    fn identity(
        &self,
        name: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Failure> {
        let key = KeyPair::generate()?;
        let signed = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.authority)?;
        Ok((vec![signed.der().clone()], PrivateKeyDer::try_from(key.serialize_der())?))
    }

    fn roots(&self) -> Result<Arc<rustls::RootCertStore>, Failure> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.der().clone())?;
        Ok(Arc::new(roots))
    }

    fn server_tls(&self) -> Result<rustls::ServerConfig, Failure> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider.clone());
        let (chain, key) = self.identity(NAME)?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier.build()?)
            .with_single_cert(chain, key)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        Ok(tls)
    }

    fn client_tls(&self) -> Result<rustls::ClientConfig, Failure> {
        let (chain, key) = self.identity("worker.bench")?;
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(self.roots()?)
        .with_client_auth_cert(chain, key)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        Ok(tls)
    }

    /// A store at the other end.
    fn reach(&self, store: Arc<dyn Store>) -> Result<Blobs, Failure> {
        let binary = Binary { version: "bench".into(), modified_ms: 0 };
        let endpoint = {
            let _runtime = self.server.enter();
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            Endpoint::server(any, self.server_tls()?, &[7; 32])?
        };
        let address = endpoint.address()?.to_string();
        let ready = binary.clone();
        self.server.spawn(async move {
            while let Some(known) = endpoint.accept().await {
                let Some(caller) = known.await else { continue };
                let (store, ready) = (store.clone(), ready.clone());
                tokio::spawn(async move {
                    while let Some(mut stream) = caller.accept().await {
                        let (store, ready) = (store.clone(), ready.clone());
                        tokio::spawn(async move {
                            stream.accept().await?;
                            stream.to.send(&Opened::Ready { binary: ready }).await?;
                            serve(store, stream, Rights::Worker).await
                        });
                    }
                });
            }
        });
        let _runtime = self.client.enter();
        let target = Target { address, name: NAME.to_owned(), called: "the node".to_owned() };
        let dialer = Dialer::new(&Endpoint::client()?, &Keys::new(self.client_tls()?)?, target, 1);
        Ok(Blobs::new(Arc::new(dialer), binary))
    }

    /// A bare stream of quinn's, on which the other end sends all of `bytes` again and again, for
    /// each byte that it gets.
    fn bare(&self, bytes: Bytes) -> Result<quinn::Connection, Failure> {
        // With the settings of our own endpoints: windows, buffers and packets are the same.
        let open = |server: Option<quinn::ServerConfig>| -> Result<quinn::Endpoint, Failure> {
            let (socket, _) = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            let (config, runtime) = (EndpointConfig::default(), Arc::new(TokioRuntime));
            Ok(quinn::Endpoint::new(config, server, socket, runtime)?)
        };
        let crypto = Arc::new(QuicServerConfig::try_from(self.server_tls()?)?);
        let mut config = quinn::ServerConfig::with_crypto(crypto);
        config.transport_config(transport());
        let server = {
            let _runtime = self.server.enter();
            open(Some(config))?
        };
        let address = server.local_addr()?;
        self.server.spawn(async move {
            let incoming = server.accept().await.expect("somebody dials");
            let connection = incoming.await.expect("it is the client");
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                let bytes = bytes.clone();
                tokio::spawn(async move {
                    receive.read_to_end(1).await.expect("a question");
                    for at in (0..bytes.len()).step_by(PIECE) {
                        let end = bytes.len().min(at + PIECE);
                        send.write_chunk(bytes.slice(at..end)).await.expect("the client reads");
                    }
                    send.finish().expect("it is open");
                });
            }
        });
        let crypto = Arc::new(QuicClientConfig::try_from(self.client_tls()?)?);
        let mut config = quinn::ClientConfig::new(crypto);
        config.transport_config(transport());
        self.client.block_on(async { Ok(open(None)?.connect_with(config, address, NAME)?.await?) })
    }
}

/// A large blob, from memory to memory: verified on our side, any bytes on the other.
fn bulk(sides: &Sides) -> Result<(), Failure> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let bytes = Bytes::from(content(1, LARGE));
    let mut writer = store.writer()?;
    writer.write_all(&bytes)?;
    let (id, _) = writer.finish(None)?;
    let blobs = sides.reach(store)?;
    let connection = sides.bare(bytes)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let begun = Instant::now();
        let verified = sides.client.block_on(async {
            let hasher = Mutex::new(blake3::Hasher::new());
            let take = |piece: Bytes| {
                hasher.lock().expect("nobody panics with it").update(&piece);
                std::future::ready(Ok(()))
            };
            blobs.get_large(id, 0, take).await?;
            let hasher = hasher.into_inner().expect("nobody panics with it");
            Ok::<_, Failure>(BlobId::from(hasher.finalize()) == id)
        })?;
        ours.push(begun.elapsed());
        assert!(verified, "the blob came as it is");
        let begun = Instant::now();
        let came = sides.client.block_on(async {
            let (mut send, mut receive) = connection.open_bi().await?;
            send.write_all(&[1]).await?;
            send.finish()?;
            let mut came = 0;
            while let Some(chunk) = receive.read_chunk(PIECE, true).await? {
                came += chunk.bytes.len();
            }
            Ok::<_, Failure>(came)
        })?;
        theirs.push(begun.elapsed());
        assert_eq!(came, LARGE);
    }
    tell("bulk", &ours, &theirs);
    Ok(())
}

/// Small blobs, batch by batch; each batch is durable before the next one goes.
fn small(sides: &Sides, dir: &Path) -> Result<(), Failure> {
    let batch = BATCH_BYTES / SMALL_BYTES;
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for time in 0..TIMES {
        let path = dir.join(time.to_string());
        std::fs::create_dir_all(dir)?;
        let store: Arc<dyn Store> = Arc::new(DiskStore::open(&path, Options::default())?);
        let blobs = sides.reach(store)?;
        let first = (time * SMALL) as u64;
        let all: Vec<_> = (first..).take(SMALL).map(|seed| blob(seed, SMALL_BYTES)).collect();
        let begun = Instant::now();
        sides.client.block_on(async {
            for some in all.chunks(batch) {
                blobs.put_blobs(some).await?;
                blobs.barrier().await?;
            }
            Ok::<_, Failure>(())
        })?;
        puts.push(begun.elapsed());
        let ids: Vec<BlobId> = all.iter().map(|(id, _)| *id).collect();
        let begun = Instant::now();
        let came = sides.client.block_on(async {
            let mut came = 0;
            for some in ids.chunks(batch) {
                // Verified, one by one.
                came += blobs.get_blobs(some).await?.len();
            }
            Ok::<_, Failure>(came)
        })?;
        gets.push(begun.elapsed());
        assert_eq!(came, SMALL);
    }
    tell("put", &puts, &[]);
    tell("get", &gets, &[]);
    Ok(())
}

/// What of many blobs is not there, over the wire; and the same keys asked of a RocksDB of their own,
/// in this process. Half of them are there.
fn missing(sides: &Sides, dir: &Path) -> Result<(), Failure> {
    let disk = DiskStore::open(&dir.join("many"), Options::default())?;
    let bare = rocksdb::DB::open_default(dir.join("bare"))?;
    for first in (0..MANY).step_by(1000) {
        let some: Vec<_> = (first..first + 1000).map(|seed| blob(seed as u64, 16)).collect();
        disk.put_blobs(&some)?;
        let mut batch = rocksdb::WriteBatch::default();
        // As many bytes as the store's own index has for a small blob, or more.
        some.iter().for_each(|(id, _)| batch.put(id.as_bytes(), [0; 16]));
        bare.write(batch)?;
    }
    disk.barrier()?;
    bare.flush()?;
    bare.compact_range::<&[u8], &[u8]>(None, None);
    let blobs = sides.reach(Arc::new(disk))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for time in 0..=TIMES {
        let seeds = (0..ASKED).map(|n| (time + n * (2 * MANY / ASKED)) as u64);
        let ids: Vec<BlobId> = seeds.map(|seed| blob(seed, 16).0).collect();
        let begun = Instant::now();
        let lacks = sides.client.block_on(blobs.missing(ids.clone(), Vec::new()))?.0.len();
        let here = begun.elapsed();
        let begun = Instant::now();
        let keys = ids.iter().map(BlobId::as_bytes);
        let found = bare.multi_get(keys).into_iter().filter(|got| matches!(got, Ok(Some(_))));
        let found = found.count();
        let there = begun.elapsed();
        assert_eq!((lacks, found), (ASKED / 2, ASKED / 2));
        // The first time both read their filters and indexes.
        if time > 0 {
            ours.push(here);
            theirs.push(there);
        }
    }
    tell("missing", &ours, &theirs);
    Ok(())
}
