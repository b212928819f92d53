//! What lies between the hosts: a bridge in a network namespace of the site's own, a port of it for
//! each host, rules for what it does not carry, and counters.
//!
//! Nothing is left to chance or to time: the bridge knows who is at which port and floods nothing,
//! hosts know each other's hardware addresses for good and have no IPv6 on this network. So a cut
//! is silence: no host answers for another one, and no entry of a neighbour expires.

use super::cuts::{Cut, rules};
use super::inside::Inside;
use super::link::Link;
use super::number::Number;
use super::relay::Relay;
use crate::command::{DEADLINE, Running, command};
use crate::tool::tool;
use rustix::thread::UnshareFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Add;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of frames, as the interface of a host counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Traffic {
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Add for Traffic {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { received: self.received + other.received, sent: self.sent + other.sent }
    }
}

/// The network of a site.
#[derive(Debug)]
pub(super) struct Lan {
    /// Before the thread whose namespace they are in.
    state: Mutex<State>,
    inside: Inside,
}

#[derive(Debug, Default)]
struct State {
    cuts: BTreeSet<Cut>,
    plugged: BTreeSet<Number>,
    relays: BTreeMap<Number, Relay>,
    /// What hosts sent and received by wires that are gone.
    earlier: BTreeMap<Number, Traffic>,
}

impl Lan {
    /// One without hosts. The name is the one of its thread.
    pub(super) fn new(name: &str) -> Self {
        let inside = Inside::new(name);
        inside.call(|| {
            // SAFETY: the table of open files stays shared.
            let done = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
            done.unwrap_or_else(|e| panic!("making a network namespace: {e} (tests need root)"));
            without_ipv6("default");
        });
        let this = Self { state: Mutex::default(), inside };
        this.ip("link add lan type bridge mcast_snooping 0\nlink set lan up\n");
        this
    }

    /// Gives a host its `eth0`, whose other end becomes a port of the bridge. The host is known by
    /// a process in it.
    pub(super) fn plug(&self, number: Number, pid: i32) {
        let mut state = self.state();
        let (wire, mac) = (number.wire(), number.mac());
        self.ip(&format!(
            "link add {wire} type veth peer name eth0 address {mac} netns {pid}\nlink set {wire} up\n"
        ));
        self.attach(number, state.relays.contains_key(&number));
        state.plugged.insert(number);
    }

    /// Takes the host's `eth0` away: what it sends from now on goes nowhere.
    pub(super) fn unplug(&self, number: Number) {
        let mut state = self.state();
        if state.plugged.remove(&number) {
            let wire = number.wire();
            // What it carries after it was counted would be missing in the sum.
            self.ip(&format!("link set {wire} down\n"));
            let seen = self.counters(number);
            let all = state.earlier.entry(number).or_default();
            *all = *all + seen;
            self.ip(&format!("link del {wire}\n"));
        }
    }

    /// Sets the properties of a host's link.
    pub(super) fn link(&self, number: Number, link: Link) {
        let mut state = self.state();
        let plugged = state.plugged.contains(&number);
        let is_plain = link == Link::default();
        let joint = number.joint();
        match state.relays.get(&number) {
            None if is_plain => {}
            Some(_) if is_plain => {
                if plugged {
                    self.attach(number, false);
                }
                self.ip(&format!("link del {joint}\n"));
                state.relays.remove(&number);
            }
            Some(relay) => relay.change(link),
            None => {
                let [near, far] = number.relay();
                let devices = [near.clone(), far.clone()];
                let relay = Relay::new(&self.inside, devices, link, number.seed());
                self.ip(&format!(
                    "link add {joint} type bridge mcast_snooping 0\nlink set {joint} up\n\
                     link set {far} master {joint}\nlink set {far} up\nlink set {near} up\n"
                ));
                state.relays.insert(number, relay);
                if plugged {
                    self.attach(number, true);
                }
            }
        }
    }

    /// Makes the wire a port of the bridge, or joins it with the relay, which then is the port.
    fn attach(&self, number: Number, by_relay: bool) {
        let wire = number.wire();
        let [near, _] = number.relay();
        let port = if by_relay { &near } else { &wire };
        if by_relay {
            self.ip(&format!("link set {wire} master {}\n", number.joint()));
        }
        self.ip(&format!("link set {port} master lan\n"));
        let quiet = "learning off flood off mcast_flood off bcast_flood off";
        let mac = number.mac();
        // This takes the place of what the bridge knew of the port before, if there was one.
        self.batch(
            "bridge",
            &format!("link set dev {port} {quiet}\nfdb replace {mac} dev {port} master static\n"),
        );
    }

    /// Cuts, from now on.
    pub(super) fn cut(&self, cut: Cut) {
        let mut state = self.state();
        state.cuts.insert(cut);
        self.enforce(&state.cuts);
    }

    /// Takes a cut back.
    pub(super) fn heal(&self, cut: Cut) {
        let mut state = self.state();
        state.cuts.remove(&cut);
        self.enforce(&state.cuts);
    }

    fn enforce(&self, cuts: &BTreeSet<Cut>) {
        let mut nft = command(tool("nft"));
        nft.args(["-f", "-"]);
        self.run(nft, &rules(cuts));
    }

    /// What a host has sent and received since it was first plugged in.
    pub(super) fn traffic(&self, number: Number) -> Traffic {
        let state = self.state();
        let earlier = state.earlier.get(&number).copied().unwrap_or_default();
        let now = state.plugged.contains(&number).then(|| self.counters(number));
        earlier + now.unwrap_or_default()
    }

    /// What the wire has counted (`/proc/net/dev`): what it receives, the host sent.
    fn counters(&self, number: Number) -> Traffic {
        let file = format!("/proc/self/task/{}/net/dev", self.inside.tid());
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("reading {file}: {e}"));
        let wire = number.wire();
        let columns = |line: &str| {
            let (name, rest) = line.trim().split_once(':')?;
            let number = |n| rest.split_whitespace().nth(n)?.parse().ok();
            (name == wire).then_some(())?;
            Some(Traffic { sent: number(0)?, received: number(8)? })
        };
        text.lines().find_map(columns).unwrap_or_else(|| panic!("{file} has no {wire}:\n{text}"))
    }

    /// The names of all devices of the site's namespace.
    #[cfg(test)]
    fn devices(&self) -> Vec<String> {
        let file = format!("/proc/self/task/{}/net/dev", self.inside.tid());
        let text = fs::read_to_string(&file).expect("the thread lives");
        text.lines().filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned())).collect()
    }

    fn ip(&self, lines: &str) {
        self.batch("ip", lines);
    }

    fn batch(&self, program: &str, lines: &str) {
        let mut command = command(tool(program));
        command.args(["-batch", "-"]);
        self.run(command, lines);
    }

    fn run(&self, command: Command, input: &str) {
        let spawn = |mut command: Command| self.inside.call(move || command.spawn());
        Running::start_by(command, input.as_bytes(), spawn).finish(DEADLINE).ok();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that failed cleans up nevertheless.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves interfaces of this thread's namespace without IPv6: those that are made from now on
/// (`default`), or one.
pub(super) fn without_ipv6(which: &str) {
    let file = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
    match fs::write(&file, "1") {
        // A kernel that has no IPv6.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        other => other.unwrap_or_else(|e| panic!("writing {file}: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_comes_and_goes_with_its_devices() {
        let (lan, one) = (Lan::new("lan"), Number::after(0));
        let before = lan.devices();
        lan.link(one, Link { delay_ms: 1, ..Link::default() });
        assert_eq!(lan.devices().len(), before.len() + 3);
        lan.link(one, Link { delay_ms: 2, ..Link::default() });
        assert_eq!(lan.devices().len(), before.len() + 3);
        lan.link(one, Link::default());
        assert_eq!(lan.devices(), before);
    }
}
