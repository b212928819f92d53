//! EXPOSE.

use super::super::text::shown;
use std::net::IpAddr;

/// What is wrong with a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("EXPOSE: the port `{port}` is not valid: {why}")]
pub struct PortError {
    /// As it is written.
    pub port: String,
    /// What is wrong.
    pub why: &'static str,
}

/// One word of EXPOSE: a port or a range of them, with a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    first: u16,
    last: u16,
    protocol: String,
}

/// A word of EXPOSE, cut into its parts, of which only the protocol was looked at.
pub struct Parts<'t> {
    text: &'t str,
    address: &'t str,
    host_port: &'t str,
    ports: &'t str,
    protocol: &'t str,
}

impl<'t> Parts<'t> {
    /// Cuts `[[address:]host-port:]port[-port][/protocol]`.
    pub fn cut(text: &'t str) -> Result<Self, PortError> {
        let fault = |why| PortError { port: shown(text), why };
        let mut parts = text.rsplitn(3, ':');
        let container = parts.next().unwrap_or_default();
        let host_port = parts.next().unwrap_or_default();
        let address = parts.next().unwrap_or_default();
        let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
        if ports.is_empty() {
            return Err(fault("there is no port"));
        }
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        if !["tcp", "udp", "sctp"].iter().any(|known| known.eq_ignore_ascii_case(protocol)) {
            return Err(fault("the protocol must be tcp, udp or sctp"));
        }
        Ok(Self { text, address, host_port, ports, protocol })
    }

    /// As it is written.
    pub fn written(&self) -> &str {
        self.text
    }

    /// Whether the protocol is written in small letters.
    pub fn is_lower_case(&self) -> bool {
        !self.protocol.bytes().any(|b| b.is_ascii_uppercase())
    }

    /// Whether an address or a port of the host is given too, which has no meaning here.
    pub fn has_host(&self) -> bool {
        !self.address.is_empty() || !self.host_port.is_empty()
    }

    /// What the parts say.
    pub fn port(&self) -> Result<Port, PortError> {
        let Self { text, address, host_port, ports, protocol } = *self;
        let fault = |why| PortError { port: shown(text), why };
        if !address.is_empty() && !is_address(address) {
            return Err(fault("the address before it is none"));
        }
        let range = "expected a number of 0 to 65535, or a range of two such numbers";
        let (first, last) = port_range(ports).ok_or_else(|| fault(range))?;
        if !host_port.is_empty() {
            let host = port_range(host_port)
                .ok_or_else(|| fault("the host's port before it is no port"))?;
            if host.1 - host.0 != last - first && first != last {
                return Err(fault("the range of the host's ports has another length"));
            }
        }
        Ok(Port { first, last, protocol: protocol.to_owned() })
    }
}

impl Port {
    /// The entries for the image config: `80/tcp`.
    pub fn entries(&self) -> impl Iterator<Item = String> {
        let protocol = self.protocol.to_ascii_lowercase();
        (self.first..=self.last).map(move |port| format!("{port}/{protocol}"))
    }
}

fn is_address(text: &str) -> bool {
    let inner = text.strip_prefix('[').map(|inner| inner.strip_suffix(']'));
    inner.unwrap_or(Some(text)).is_some_and(|text| text.parse::<IpAddr>().is_ok())
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port_number(first)?, port_number(last)?);
    (first <= last).then_some((first, last))
}

fn port_number(text: &str) -> Option<u16> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<&str>) {
        let found = Parts::cut(text).and_then(|parts| parts.port()).ok();
        let found = found.map(|port| port.entries().collect::<Vec<_>>().join(" "));
        assert_eq!(found.as_deref(), expect, "{text}");
    }

    #[test]
    fn ports_are_read() {
        check("80", Some("80/tcp"));
        check("80/UDP", Some("80/udp"));
        check("80/", Some("80/tcp"));
        check("0", Some("0/tcp"));
        check("9000-9002/sctp", Some("9000/sctp 9001/sctp 9002/sctp"));
        check("7-7", Some("7/tcp"));
        check("8080:80", Some("80/tcp"));
        check("127.0.0.1:8080:80", Some("80/tcp"));
        check("[::1]:8080:80", Some("80/tcp"));
        check("::1::80", Some("80/tcp"));
        check("8000-8010:80", Some("80/tcp"));
        check("8000-8001:80-81", Some("80/tcp 81/tcp"));
        for bad in [
            "",
            "eighty",
            "/tcp",
            "80/http",
            "65536",
            "-1",
            "2-1",
            "1-",
            "-",
            "80-81-82",
            "x:80",
            "8000-8002:80-81",
            "1.2.3:80:80",
            "[::1:80:80",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn what_the_checks_ask_is_known() {
        let port = |text| Parts::cut(text).unwrap();
        assert!(port("80").is_lower_case() && !port("80/Tcp").is_lower_case());
        assert!(port("1:2").has_host() && !port("2").has_host());
        // Also of what is wrong otherwise.
        assert!(port("foo:80").has_host() && port("foo:80").port().is_err());
    }
}
