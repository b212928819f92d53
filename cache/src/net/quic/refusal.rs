//! Why a connection is refused, in words that say what to do.

use super::ALPN;
use proto::error::{Class, Failure};
use quinn::{ConnectionError, ReadError, StoppedError, WriteError};
use std::io;

/// The code by which a listener ends a connection of somebody whom it does not serve.
pub(super) const REFUSED: u32 = 1;

/// TLS alerts (RFC 8446, 6.2), which QUIC adds to this code (RFC 9001, 4.8).
const CRYPTO: u64 = 0x100;
const BAD_CERTIFICATE: u64 = 42;
const CERTIFICATE_EXPIRED: u64 = 45;
const CERTIFICATE_UNKNOWN: u64 = 46;
const UNKNOWN_CA: u64 = 48;
/// A signature that does not fit: the issuer has the right name and another key.
const DECRYPT_ERROR: u64 = 51;
const CERTIFICATE_REQUIRED: u64 = 116;
const NO_APPLICATION_PROTOCOL: u64 = 120;

/// Why the other end, or this one, does not want to talk, and what to do; none when a connection
/// just broke.
pub(super) fn refusal(error: &ConnectionError) -> Option<(String, String)> {
    use ConnectionError::{ApplicationClosed, ConnectionClosed, TransportError};
    let (code, reason) = match error {
        ApplicationClosed(close) if close.error_code == REFUSED.into() => {
            let why = String::from_utf8_lossy(&close.reason).into_owned();
            return Some((why, "Ask who runs the farm for another token.".to_owned()));
        }
        // What this end found wrong with the other one's certificate.
        TransportError(error) => (u64::from(error.code), error.reason.clone()),
        // What the other end found wrong with this one's.
        ConnectionClosed(close) => {
            (u64::from(close.error_code), String::from_utf8_lossy(&close.reason).into_owned())
        }
        _ => return None,
    };
    let alert = code.checked_sub(CRYPTO).filter(|alert| *alert < 0x100)?;
    let local = matches!(error, TransportError(_));
    let version = String::from_utf8_lossy(ALPN).into_owned();
    let (why, hint) = match (alert, local) {
        (NO_APPLICATION_PROTOCOL, _) => (
            format!("it speaks another version of the protocol than this one ({version})"),
            "Install the same version of Slipway on both machines.",
        ),
        (CERTIFICATE_REQUIRED, _) => (
            "it wants a certificate, and this machine has none".to_owned(),
            "Run `slipway join TOKEN@HOST` with a token of the farm.",
        ),
        (CERTIFICATE_EXPIRED, false) => (
            "this machine's certificate has expired".to_owned(),
            "Run `slipway join TOKEN@HOST` with a new token of the farm.",
        ),
        (BAD_CERTIFICATE | CERTIFICATE_UNKNOWN | UNKNOWN_CA | DECRYPT_ERROR, false) => (
            format!("it does not accept this machine's certificate ({reason})"),
            "The certificate is of another farm, or was taken back: run `slipway join TOKEN@HOST`.",
        ),
        (_, true) => (
            format!("its certificate is not valid here ({reason})"),
            "It may belong to another farm, or have another role: check the address; if it is \
             right, run `slipway join TOKEN@HOST`.",
        ),
        (_, false) => (format!("TLS failed ({reason})"), "Look into the other machine's log."),
    };
    Some((why, hint.to_owned()))
}

/// The refusal that a stream broke by, if it was one.
pub fn refused(error: &io::Error) -> Option<Failure> {
    let inner = error.get_ref()?;
    let lost = match (
        inner.downcast_ref::<ReadError>(),
        inner.downcast_ref::<WriteError>(),
        inner.downcast_ref::<StoppedError>(),
    ) {
        (Some(ReadError::ConnectionLost(lost)), ..) => lost,
        (_, Some(WriteError::ConnectionLost(lost)), _) => lost,
        (_, _, Some(StoppedError::ConnectionLost(lost))) => lost,
        _ => return None,
    };
    let (why, hint) = refusal(lost)?;
    Some(Failure::new(Class::Denied, format!("The other end refuses to talk: {why}")).hint(hint))
}
