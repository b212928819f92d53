//! Where a machine is reached.

use proto::id::IdError;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The port of a coordinator's control endpoint, where an address says none.
pub const COORDINATOR_PORT: u16 = 7470;

/// Characters of a host name: RFC 1035.
const HOST_MAX: usize = 253;

/// Characters of a part of a host name: RFC 1035.
const LABEL_MAX: usize = 63;

/// A host name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(String);

impl Host {
    /// Checks a text from outside. It does not look whether there is such a host.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.parse::<IpAddr>().is_ok() || is_name(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(error(text, "a host", "a host name or an IP address"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let is_long = label.is_empty() || label.len() > LABEL_MAX;
        !is_long && label.chars().all(fine) && !label.starts_with('-') && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    // `10.0.0.300` is a mistyped address, and no name: no domain is a number.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.chars().all(|c| c.is_ascii_digit());
    text.len() <= HOST_MAX && name.split('.').all(is_label) && !is_number
}

fn error(text: &str, what: &'static str, expected: &'static str) -> IdError {
    IdError { text: text.chars().take(80).collect(), what, expected }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The host.
    pub host: Host,
    /// The port, from 1 on.
    pub port: u16,
}

impl Address {
    /// Reads `HOST` or `HOST:PORT`; an IPv6 address with a port is in brackets.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, IdError> {
        let wrong = || error(text, "an address", "HOST or HOST:PORT");
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')) })
            }
            None if text.parse::<Ipv6Addr>().is_ok() => (text, None),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(Some(port))),
                None => (text, None),
            },
        };
        let port = match port {
            None => default_port,
            Some(port) => port.and_then(number).ok_or_else(wrong)?,
        };
        Ok(Self { host: Host::parse(host).map_err(|_| wrong())?, port })
    }

    /// Reads the address of a coordinator.
    pub fn coordinator(text: &str) -> Result<Self, IdError> {
        Self::parse(text, COORDINATOR_PORT)
    }
}

/// A port: digits alone, and not 0.
fn number(text: &str) -> Option<u16> {
    let is_number = text.chars().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port > 0)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.0.parse::<Ipv6Addr>() {
            Ok(_) => write!(f, "[{}]:{}", self.host, self.port),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let cases = [
            ("farm", "farm:7470"),
            ("farm.example.com:9", "farm.example.com:9"),
            ("farm.example.com.", "farm.example.com.:7470"),
            ("build_1", "build_1:7470"),
            ("10.0.0.3", "10.0.0.3:7470"),
            ("10.0.0.3:65535", "10.0.0.3:65535"),
            ("::1", "[::1]:7470"),
            ("[::1]", "[::1]:7470"),
            ("[fe80::1]:80", "[fe80::1]:80"),
        ];
        for (text, shown) in cases {
            let address = Address::coordinator(text).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(Address::coordinator(shown), Ok(address));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}.com", "a".repeat(LABEL_MAX + 1));
        let longer = format!("{}com", "a.".repeat(HOST_MAX / 2));
        let bad = [
            "",
            ":",
            ":80",
            "farm:",
            "farm:0",
            "farm:65536",
            "farm:+1",
            "farm:http",
            "a b",
            "a/b",
            "http://farm",
            "-farm",
            "farm-",
            "a..b",
            ".",
            "10.0.0.300",
            "7",
            "[::1",
            "[::1]80",
            "[::1]:",
            "[farm]:80",
            "1::2::3",
            "user@farm",
            &long,
            &longer,
        ];
        for text in bad {
            let error = Address::coordinator(text).unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{text}: {error}");
        }
    }
}
