//! What of the host's network matters to containers, read from `/proc/net` (proc_pid_net(5)).

use crate::sandbox::names::Resolver;
use crate::sandbox::read_host;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The host's network as it was at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Host {
    /// The host's own addresses, without its loopback.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether there is a way out by IPv4.
    pub out4: bool,
    /// Whether there is a way out by IPv6.
    pub out6: bool,
    /// The name servers that the host asks.
    pub servers: BTreeSet<IpAddr>,
}

impl Host {
    /// The host's network now.
    pub(crate) fn read() -> Self {
        let resolver = Resolver::parse(&read_host("/etc/resolv.conf"));
        let net = |name: &str| read_host(format!("/proc/self/net/{name}"));
        let mut addresses = addresses4(&net("fib_trie"));
        addresses.extend(addresses6(&net("if_inet6")));
        Self {
            addresses,
            out4: has_way4(&net("route")),
            out6: has_way6(&net("ipv6_route")),
            servers: resolver.servers.iter().filter_map(|text| text.parse().ok()).collect(),
        }
    }

    /// The address under which others know the host; a container can be let through to it.
    pub(crate) fn main_address() -> Option<IpAddr> {
        // Connecting such a socket sends nothing. The address is one of RFC 5737's.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    }
}

/// Addresses that are the host's own, from the table of routes: a line with the address, then one
/// with what it is.
fn addresses4(fib_trie: &str) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(last.filter(|a| !a.is_loopback()).map(IpAddr::V4));
        }
    }
    found
}

fn addresses6(if_inet6: &str) -> BTreeSet<IpAddr> {
    let address = |line: &str| u128::from_str_radix(line.split(' ').next()?, 16).ok();
    let all = if_inet6.lines().filter_map(address).map(Ipv6Addr::from);
    all.filter(|a| !a.is_loopback()).map(IpAddr::V6).collect()
}

/// `RTF_UP`, `RTF_REJECT` (`include/uapi/linux/route.h`).
const UP: u32 = 1;
const REJECT: u32 = 0x200;

fn is_usable(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & (UP | REJECT) == UP)
}

fn has_way4(route: &str) -> bool {
    route.lines().skip(1).any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        matches!(columns[..], [_, to, _, flags, _, _, _, mask, ..]
            if to == "00000000" && mask == to && is_usable(flags))
    })
}

fn has_way6(ipv6_route: &str) -> bool {
    ipv6_route.lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        matches!(columns[..], [to, bits, _, _, _, _, _, _, flags, interface]
            if bits == "00" && to.bytes().all(|b| b == b'0') && interface != "lo" && is_usable(flags))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
        \u{20}    |-- 192.0.2.0\n        /24 link UNICAST\nLocal:\n     |-- 127.0.0.1\n\
        \u{20}       /32 host LOCAL\n     |-- 192.0.2.2\n        /32 host LOCAL\n\
        \u{20}    |-- 192.0.2.255\n        /32 link BROADCAST\n";
    const ROUTE: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\n";
    const ROUTE6: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n";

    #[test]
    fn own_addresses() {
        assert_eq!(addresses4(TRIE), ["192.0.2.2".parse().unwrap()].into());
        let six = "00000000000000000000000000000001 01 80 10 80       lo\n\
            fd000000000000000000000000000002 02 40 00 80     eth0\n\nx\n";
        assert_eq!(addresses6(six), ["fd00::2".parse().unwrap()].into());
        assert!(addresses4("|-- x\n/32 host LOCAL").is_empty());
    }

    #[test]
    fn ways_out() {
        assert!(has_way4(ROUTE) && has_way6(ROUTE6));
        assert!(!has_way4(&ROUTE.replace("0003", "0203")) && !has_way4(""));
        assert!(!has_way4(&ROUTE.replace("00000000\t010200C0", "000200C0\t00000000")));
        assert!(!has_way6(&ROUTE6.replace("eth0", "lo")));
        assert!(!has_way6(&ROUTE6.replace("00000003", "00200200")));
    }
}
