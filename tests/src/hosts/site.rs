//! One test's network, with its hosts.

use super::cuts::Cut;
use super::host::Host;
use super::lan::Lan;
use super::number::Number;
use super::root;
use crate::scratch::Scratch;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A network of hosts. When it is dropped, all of its hosts end, and what they wrote is removed.
#[derive(Debug)]
pub struct Site {
    number: u32,
    /// Before the directory that they are in.
    hosts: Mutex<Vec<Host>>,
    lan: Arc<Lan>,
    scratch: Scratch,
}

impl Site {
    /// One without hosts.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let scratch = Scratch::new("site");
        let name = scratch.path().file_name().expect("a directory below another").to_string_lossy();
        let lan = Arc::new(Lan::new(&name));
        Self { number, hosts: Mutex::default(), lan, scratch }
    }

    /// The host of that name. One that is not there yet is installed and booted. Names are those of
    /// RFC 1123: small letters, digits, and `-` between them.
    pub fn host(&self, name: &str) -> Host {
        let mut hosts = self.hosts();
        if let Some(host) = hosts.iter().find(|host| host.name() == name) {
            return host.clone();
        }
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_name = (1..=63).contains(&name.len()) && name.chars().all(is_allowed);
        assert!(is_name && name.trim_matches('-') == name, "`{name}` is no name for a host");
        let number = Number::after(hosts.len());
        let host = Host::new(name, number, self.number, &self.lan, self.scratch.path());
        hosts.push(host.clone());
        let names: String =
            hosts.iter().map(|host| format!("{} {}\n", host.ip(), host.name())).collect();
        for host in hosts.iter() {
            root::write(&host.path("/etc/hosts"), &format!("127.0.0.1 localhost\n{names}"));
        }
        host
    }

    /// Where all of it is on this machine's disk.
    pub fn home(&self) -> &Path {
        self.scratch.path()
    }

    /// Cuts the network between two hosts: nothing comes from one to the other from now on, and
    /// nobody is told.
    pub fn cut(&self, one: &Host, other: &Host) {
        self.lan.cut(Cut::between(one.number(), other.number()));
    }

    /// Takes [`Self::cut`] back. Cuts of hosts stay.
    pub fn heal(&self, one: &Host, other: &Host) {
        self.lan.heal(Cut::between(one.number(), other.number()));
    }

    fn hosts(&self) -> MutexGuard<'_, Vec<Host>> {
        // A test that failed cleans up nevertheless.
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for host in self.hosts().iter() {
            let ended = catch_unwind(AssertUnwindSafe(|| host.kill()));
            // The first failure is the one that counts.
            assert!(ended.is_ok() || std::thread::panicking(), "{} does not end", host.name());
        }
    }
}
