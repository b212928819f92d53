//! A host's number in its site, and all that follows from it.

use std::net::Ipv4Addr;

/// The most hosts of a site.
pub(super) const MAX: u8 = 32;

/// A host's number in its site, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(u8);

impl Number {
    /// Where the default route leads: nobody is there.
    pub(super) const NOWHERE: Self = Self(254);

    /// The number of the host that comes after so many others.
    pub(super) fn after(others: usize) -> Self {
        assert!(others < usize::from(MAX), "a site has at most {MAX} hosts");
        Self(others as u8 + 1)
    }

    /// The numbers that hosts can have.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (1..=MAX).map(Self)
    }

    /// Its address. Each site has the same ones: their networks do not know each other.
    pub(super) fn ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.0)
    }

    /// The hardware address of its interface: locally administered, and the IP address.
    pub(super) fn mac(self) -> String {
        format!("02:00:0a:4d:00:{:02x}", self.0)
    }

    /// The site's end of the pair of devices whose other end is the host's `eth0`.
    pub(super) fn wire(self) -> String {
        format!("wire{}", self.0)
    }

    /// The relay's devices: the one at the bridge, and the one at the wire.
    pub(super) fn relay(self) -> [String; 2] {
        [format!("near{}", self.0), format!("far{}", self.0)]
    }

    /// The bridge that joins the wire and the relay.
    pub(super) fn joint(self) -> String {
        format!("joint{}", self.0)
    }

    /// A number for chance, another one for each host.
    pub(super) fn seed(self) -> u64 {
        self.0.into()
    }
}
