//! Streams over QUIC between machines (RFC 9000), with mutual TLS 1.3.
//!
//! A process has one [`Endpoint`] (a UDP socket) for each purpose: control and bulk are apart, so
//! that a big transfer never delays a heartbeat. A [`dial::Dialer`] keeps connections to one other
//! process and opens streams on them; [`listen`] hears those who dial. Who is at the other end is
//! said by its certificate, which the caller reads: this module only sees that it is valid.
//!
//! 0-RTT is off: its first bytes can be replayed.

pub mod dial;
pub mod listen;
mod refusal;
#[cfg(test)]
mod tests;

pub(super) use refusal::refused;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use quinn_proto::{ConnectionIdGenerator, RandomConnectionIdGenerator};
use rustix::net::sockopt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The protocol that both ends must speak: TLS refuses everything else (RFC 7301).
pub const ALPN: &[u8] = b"slipway/1";

/// Bytes that the kernel holds for a socket in each direction. Bursts of a bulk transfer are lost
/// in the default of 208 KiB.
const SOCKET_BYTES: usize = 8 << 20;

/// Bytes of one stream that wait for their reader.
const STREAM_WINDOW: u32 = 16 << 20;

/// Bytes of all streams of a connection that wait for their readers.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// Bytes of a connection that were sent and not yet acknowledged.
const SEND_WINDOW: u64 = 64 << 20;

/// Streams that the other end may have open on one connection at a time.
const STREAMS_MAX: u32 = 1024;

/// Connections that are being made at one endpoint at a time; more are dropped.
const INCOMING_MAX: usize = 1024;

/// How long a silent connection lives. The keep-alives of a live one come more often.
const IDLE: Duration = Duration::from_secs(15);

/// How often a connection without traffic says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// The largest packet that is tried: what fits a jumbo frame of 9000 bytes.
const MTU_MAX: u16 = 8952;

/// The keys of this process, as they are now. Clones are the same ones: whoever renews certificates
/// replaces them here, and connections that are made later use the new ones.
#[derive(Clone)]
pub struct Keys(Arc<Mutex<quinn::ClientConfig>>);

/// TLS settings that QUIC cannot use.
#[derive(Debug, thiserror::Error)]
#[error("The TLS settings cannot be used for QUIC: they must allow TLS 1.3")]
pub struct NotForQuic(#[from] quinn::crypto::rustls::NoInitialCipherSuite);

impl Keys {
    /// Those of these TLS settings, which name the protocol ([`ALPN`]) already.
    pub fn new(tls: rustls::ClientConfig) -> Result<Self, NotForQuic> {
        Ok(Self(Arc::new(Mutex::new(client_config(tls)?))))
    }

    /// Uses these from now on.
    pub fn replace(&self, tls: rustls::ClientConfig) -> Result<(), NotForQuic> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = client_config(tls)?;
        Ok(())
    }

    fn get(&self) -> quinn::ClientConfig {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A UDP socket that QUIC is spoken on. Clones are the same one.
#[derive(Clone)]
pub struct Endpoint {
    quic: quinn::Endpoint,
    buffers: Buffers,
    /// Handshakes that are under way with those who dialled.
    half_open: Arc<AtomicUsize>,
}

/// What the kernel gave of the buffers that were asked for, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// For what comes.
    pub receive: usize,
    /// For what goes.
    pub send: usize,
}

impl Buffers {
    /// Whether bursts of a bulk transfer fit. If not, raise `net.core.rmem_max` and `wmem_max`.
    pub fn are_enough(&self) -> bool {
        self.receive.min(self.send) >= SOCKET_BYTES
    }
}

impl Endpoint {
    /// One that others can dial, at `address`. With the same `secret` after a restart it tells those
    /// who had connections that these are gone (stateless resets, RFC 9000, 10.3).
    pub fn server(
        address: SocketAddr,
        tls: rustls::ServerConfig,
        secret: &[u8; 32],
    ) -> io::Result<Self> {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        let config = EndpointConfig::new(Arc::new(key));
        Self::open(address, config, Some(server_config(tls)?))
    }

    /// One that only dials.
    pub fn client() -> io::Result<Self> {
        // Both families where the machine has both.
        let any = SocketAddr::from(([0u16; 8], 0));
        let ipv4 = SocketAddr::from(([0, 0, 0, 0], 0));
        let open = |address| Self::open(address, EndpointConfig::default(), None);
        open(any).or_else(|_| open(ipv4))
    }

    fn open(
        address: SocketAddr,
        mut config: EndpointConfig,
        server: Option<quinn::ServerConfig>,
    ) -> io::Result<Self> {
        config.cid_generator(connection_ids);
        let (socket, buffers) = socket(address)?;
        let runtime = Arc::new(TokioRuntime);
        let quic = quinn::Endpoint::new(config, server, socket, runtime)?;
        if !buffers.are_enough() {
            tracing::warn!(
                receive = buffers.receive,
                send = buffers.send,
                wanted = SOCKET_BYTES,
                "UDP buffers are small, large transfers will be slow: \
                 raise net.core.rmem_max and net.core.wmem_max"
            );
        }
        Ok(Self { quic, buffers, half_open: Arc::default() })
    }

    /// Uses these settings for connections that come from now on.
    pub fn renew(&self, tls: rustls::ServerConfig) -> io::Result<()> {
        self.quic.set_server_config(Some(server_config(tls)?));
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// What the kernel gave of the buffers.
    pub fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.quic.open_connections()
    }

    /// Ends all connections, and waits until the other ends have been told.
    pub async fn close(&self) {
        self.quic.close(VarInt::from_u32(0), b"ends");
        self.quic.wait_idle().await;
    }
}

/// Names for connections, of 64 random bits. With quinn's own (24 random bits and their hash) the name
/// that a Retry gives to a dialler is now and then the name of a connection that is open, to which all
/// that it sends is taken to belong then: nobody answers it (one of 2,000 dials beside 1,500
/// connections).
fn connection_ids() -> Box<dyn ConnectionIdGenerator> {
    Box::new(RandomConnectionIdGenerator::new(8))
}

/// A UDP socket with buffers for bulk transfers. Root may go beyond `net.core.rmem_max`; others get
/// what that allows.
pub fn socket(address: SocketAddr) -> io::Result<(UdpSocket, Buffers)> {
    let socket = UdpSocket::bind(address)?;
    if sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BYTES).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BYTES)?;
    }
    if sockopt::set_socket_send_buffer_size_force(&socket, SOCKET_BYTES).is_err() {
        sockopt::set_socket_send_buffer_size(&socket, SOCKET_BYTES)?;
    }
    // The kernel doubles what it is asked for, for its own bookkeeping (socket(7)).
    let receive = sockopt::socket_recv_buffer_size(&socket)? / 2;
    let send = sockopt::socket_send_buffer_size(&socket)? / 2;
    Ok((socket, Buffers { receive, send }))
}

/// How connections are tuned: windows, packets, limits.
pub fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config.stream_receive_window(STREAM_WINDOW.into());
    config.receive_window(CONNECTION_WINDOW.into());
    config.send_window(SEND_WINDOW);
    config.max_concurrent_bidi_streams(STREAMS_MAX.into());
    config.max_concurrent_uni_streams(VarInt::from_u32(0));
    config.max_idle_timeout(Some(IdleTimeout::try_from(IDLE).expect("a few seconds")));
    config.keep_alive_interval(Some(KEEP_ALIVE));
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(MTU_MAX);
    config.mtu_discovery_config(Some(discovery));
    Arc::new(config)
}

fn client_config(tls: rustls::ClientConfig) -> Result<quinn::ClientConfig, NotForQuic> {
    let crypto = QuicClientConfig::try_from(tls)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    Ok(config)
}

fn server_config(tls: rustls::ServerConfig) -> io::Result<quinn::ServerConfig> {
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport());
    config.max_incoming(INCOMING_MAX);
    Ok(config)
}
