//! What the bridge does not carry, as rules of nft(8). Pure: the lan gives them to the kernel.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::number::Number;
use std::collections::BTreeSet;

/// A part of the network that is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cut {
    /// All from and to a host.
    Host(Number),
    /// All between two hosts.
    Pair(Number, Number),
}

impl Cut {
    /// The cut between two hosts, the same in whichever order they are named.
    pub(super) fn between(one: Number, other: Number) -> Self {
        Self::Pair(one.min(other), one.max(other))
    }
}

/// All rules, as one transaction of nft(8) that takes the place of those before.
pub(super) fn rules(cuts: &BTreeSet<Cut>) -> String {
    let drop = |cut: &Cut| match cut {
        Cut::Host(host) => {
            let mac = host.mac();
            format!("ether saddr {mac} drop\nether daddr {mac} drop\n")
        }
        Cut::Pair(one, other) => {
            let (one, other) = (one.mac(), other.mac());
            format!(
                "ether saddr {one} ether daddr {other} drop\n\
                 ether saddr {other} ether daddr {one} drop\n"
            )
        }
    };
    let drops: String = cuts.iter().map(drop).collect();
    format!(
        "table bridge cuts\ndelete table bridge cuts\n\
         table bridge cuts {{\nchain forward {{\ntype filter hook forward priority 0\n{drops}}}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_the_same_in_either_order() {
        let (one, two) = (Number::after(0), Number::after(1));
        assert_eq!(Cut::between(one, two), Cut::between(two, one));
    }

    #[test]
    fn rules_replace_those_before() {
        let (one, two) = (Number::after(0), Number::after(1));
        let text = rules(&BTreeSet::from([Cut::Host(one), Cut::between(two, one)]));
        assert!(text.starts_with("table bridge cuts\ndelete table bridge cuts\n"));
        assert_eq!(text.matches(" drop\n").count(), 4);
        assert_eq!(rules(&BTreeSet::new()).matches(" drop\n").count(), 0);
    }
}
