//! What a container's way out does not lead to: the host itself, its loopback first of all, and the
//! addresses where clouds hand out a machine's credentials.
//!
//! A container's packets come out of a process of ours as connections of that process. So it is
//! that process that is fenced in, by programs at its control group's hooks: whatever packets a
//! container makes, they cannot become a connection that the process is not allowed.

use super::host::Host;
use crate::sandbox::bpf::{self, Cond, Hook, Insn, Program, R0, R1, R2, R3, R4};
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::cgroup::Cgroups;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A control group whose processes do not reach the host.
pub(super) struct Wall {
    group: Cgroup,
    /// The host that it was made for.
    pub host: Host,
    /// Addresses of the host's that are let through.
    pub named: BTreeSet<IpAddr>,
}

impl Wall {
    pub(super) fn make(
        groups: &Cgroups,
        name: &str,
        host: Host,
        named: BTreeSet<IpAddr>,
    ) -> io::Result<Self> {
        let group = groups.group(None, name)?;
        let dir = group.unified().ok_or_else(|| {
            let why =
                groups.unusable().unwrap_or("control groups of the second version are missing");
            io::Error::new(io::ErrorKind::Unsupported, why.to_owned())
        })?;
        let dir = File::open(dir)?;
        let (four, six) = (program4(&host, &named), program6(&host, &named));
        for (hook, code) in [
            (Hook::Connect4, &four),
            (Hook::Send4, &four),
            (Hook::Connect6, &six),
            (Hook::Send6, &six),
        ] {
            bpf::attach(&dir, hook, code)?;
        }
        Ok(Self { group, host, named })
    }

    /// What a process is added with that writes `0` to it.
    pub(super) fn door(&self) -> io::Result<File> {
        let dir = self.group.unified().ok_or(io::ErrorKind::NotFound)?;
        File::options().write(true).open(dir.join("cgroup.procs"))
    }

    /// Whether the address is behind the wall.
    pub(super) fn hides(&self, address: IpAddr) -> bool {
        let metadata = match address {
            IpAddr::V4(four) => four.is_link_local() || METADATA4.contains(&four),
            IpAddr::V6(six) => METADATA6 == six,
        };
        let own = self.host.addresses.contains(&address) && !self.named.contains(&address);
        metadata || own || address.is_loopback()
    }
}

/// Besides all of 169.254.0.0/16, where most clouds have theirs.
const METADATA4: [Ipv4Addr; 1] = [Ipv4Addr::new(100, 100, 100, 200)];
const METADATA6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Answers of the hooks.
const REFUSE: u32 = 0;
const ALLOW: u32 = 1;

/// The port of name servers, as the context has it.
fn dns_port() -> u32 {
    u32::from(53u16.to_be())
}

fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

/// For IPv4. The context is `struct bpf_sock_addr`: the address at 4, the port at 24, in the
/// network's order.
fn program4(host: &Host, named: &BTreeSet<IpAddr>) -> Vec<Insn> {
    let mut program = Program::new(&[bpf::load32(R2, R1, 4), bpf::load32(R3, R1, 24)]);
    let is = |address: Ipv4Addr| Cond::Is(R2, word(address.octets()));
    let below = |a: u8, b: u8, bits: [u8; 4]| Cond::Masked(R2, word(bits), word([a, b, 0, 0]));
    for server in four(&host.servers) {
        program.rule(&[is(server), Cond::Is(R3, dns_port())], ALLOW);
    }
    program.rule(&[below(127, 0, [255, 0, 0, 0])], REFUSE);
    program.rule(&[below(0, 0, [255, 0, 0, 0])], REFUSE);
    program.rule(&[below(169, 254, [255, 255, 0, 0])], REFUSE);
    let own = four(&host.addresses).filter(|a| !named.contains(&IpAddr::V4(*a)));
    for address in METADATA4.into_iter().chain(own) {
        program.rule(&[is(address)], REFUSE);
    }
    program.finish(ALLOW)
}

/// For IPv6: the address in four words from 8 on.
fn program6(host: &Host, named: &BTreeSet<IpAddr>) -> Vec<Insn> {
    let mut program = Program::new(&[
        bpf::load32(R2, R1, 8),
        bpf::load32(R3, R1, 12),
        bpf::load32(R4, R1, 16),
        bpf::load32(R0, R1, 20),
        bpf::load32(R1, R1, 24),
    ]);
    let is = |address: Ipv6Addr| {
        let bytes = address.octets();
        let at = |n: usize| word([bytes[n], bytes[n + 1], bytes[n + 2], bytes[n + 3]]);
        [Cond::Is(R2, at(0)), Cond::Is(R3, at(4)), Cond::Is(R4, at(8)), Cond::Is(R0, at(12))]
    };
    for server in six(&host.servers) {
        let [a, b, c, d] = is(server);
        program.rule(&[a, b, c, d, Cond::Is(R1, dns_port())], ALLOW);
    }
    // The loopback, nothing at all, and IPv4's in IPv6's clothes.
    for third in [[0; 4], [0, 0, 255, 255]] {
        program.rule(&[Cond::Is(R2, 0), Cond::Is(R3, 0), Cond::Is(R4, word(third))], REFUSE);
    }
    let own = six(&host.addresses).filter(|a| !named.contains(&IpAddr::V6(*a)));
    for address in [METADATA6].into_iter().chain(own) {
        program.rule(&is(address), REFUSE);
    }
    program.finish(ALLOW)
}

fn four(all: &BTreeSet<IpAddr>) -> impl Iterator<Item = Ipv4Addr> {
    all.iter().filter_map(|a| if let IpAddr::V4(four) = a { Some(*four) } else { None })
}

fn six(all: &BTreeSet<IpAddr>) -> impl Iterator<Item = Ipv6Addr> {
    all.iter().filter_map(|a| if let IpAddr::V6(six) = a { Some(*six) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(list: &[&str]) -> BTreeSet<IpAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn passes(address: &str, port: u16) -> bool {
        let host = Host {
            addresses: set(&["192.0.2.2", "192.0.2.3", "fd00::2", "fd00::3"]),
            servers: set(&["127.0.0.53", "169.254.169.254", "::1"]),
            out4: true,
            out6: true,
        };
        let named = set(&["192.0.2.3", "fd00::3"]);
        let mut context = [0u32; 7];
        context[6] = u32::from(port.to_be());
        let code = match address.parse().unwrap() {
            IpAddr::V4(four) => {
                context[1] = word(four.octets());
                program4(&host, &named)
            }
            IpAddr::V6(six) => {
                let bytes = six.octets();
                for (at, four) in bytes.chunks_exact(4).enumerate() {
                    context[2 + at] = word(four.try_into().unwrap());
                }
                program6(&host, &named)
            }
        };
        bpf::run(&code, &context) == ALLOW
    }

    #[test]
    fn the_host_is_behind_it_but_not_what_was_named() {
        for address in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "192.0.2.2", "169.254.169.254"] {
            assert!(!passes(address, 80), "{address}");
        }
        for address in ["::1", "::", "::ffff:127.0.0.1", "fd00::2", "fd00:ec2::254"] {
            assert!(!passes(address, 80), "{address}");
        }
        for address in ["192.0.2.1", "192.0.2.3", "8.8.8.8", "128.0.0.1", "fd00::1", "fd00::3"] {
            assert!(passes(address, 80), "{address}");
        }
        for address in ["127.0.0.53", "169.254.169.254", "::1"] {
            assert!(passes(address, 53) && !passes(address, 54), "{address}");
        }
        assert!(!passes("127.0.0.1", 53));
    }
}
