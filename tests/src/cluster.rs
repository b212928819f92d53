//! A farm of several hosts, made as people make one: `slipway farm init`, tokens, `slipway join`,
//! and each role as a process of its own.

use crate::command::Outcome;
use crate::hosts::{Host, HostCommand, Site};
use crate::service::Service;
use crate::slipway::program;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// `SLIPWAY_HOME` on all hosts.
pub const HOME: &str = "/var/lib/slipway";

/// A farm: its coordinator, and the members that have joined. Each host is one member, whose name
/// is its own.
#[derive(Debug)]
pub struct Cluster {
    /// Before the hosts that they run on.
    services: Mutex<BTreeMap<String, Service>>,
    coordinator: Host,
    site: Site,
}

impl Cluster {
    /// A new cluster, whose coordinator runs on a host of its own with these settings.
    pub fn new(settings: &str) -> Self {
        let site = Site::new();
        let coordinator = site.host("coordinator");
        coordinator.write(format!("{HOME}/config.toml"), settings);
        let cluster = Self { services: Mutex::default(), coordinator, site };
        let init = ["farm", "init", "--name", "test", "--roles", "coordinator"];
        cluster.slipway(&cluster.coordinator, &init).run().ok();
        cluster.start("coordinator", "coordinator");
        cluster.until("the coordinator answers", |c| c.operator(&["node", "ls"]).code == 0);
        cluster
    }

    /// The hosts, and what is between them.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// A command of the product on a host.
    pub fn slipway(&self, host: &Host, args: &[&str]) -> HostCommand {
        let command = host.command(program(), args).env("SLIPWAY_HOME", HOME);
        command.env("BUILDKIT_PROGRESS", "plain").env("RUST_BACKTRACE", "1")
    }

    /// Runs a command on the coordinator's host.
    pub fn operator(&self, args: &[&str]) -> Outcome {
        self.slipway(&self.coordinator, args).run()
    }

    /// A host that has joined with a role: `cache`, `worker` or `client`.
    pub fn join(&self, name: &str, role: &str) -> Host {
        self.join_with(name, &["--role", role])
    }

    /// A host that has joined with a token that was made with these flags.
    pub fn join_with(&self, name: &str, token: &[&str]) -> Host {
        let host = self.site.host(name);
        let token = self.operator(&[&["token", "create"], token].concat()).ok().text();
        let invitation = format!("{}@coordinator", token.trim());
        self.slipway(&host, &["join", &invitation, "--name", name]).run().ok();
        host
    }

    /// A host that has joined with the role of a cache node or a worker, and does its work.
    pub fn member(&self, name: &str, role: &str) -> Host {
        let host = self.join(name, role);
        self.start(name, role);
        host
    }

    /// Starts a role on a host that has joined with it, and waits until it is up: until then a
    /// command on that host would start a farm of the machine's own.
    pub fn start(&self, name: &str, role: &str) {
        let host = self.site.host(name);
        let mut service = self.slipway(&host, &[role]).serve(role);
        service.until(role, |log| log.contains(" is up. ").then_some(()));
        self.services().insert(name.to_owned(), service);
    }

    /// Ends the process of a role as an operator does, and waits until it is gone.
    pub fn stop(&self, name: &str) {
        let service = self.services().remove(name);
        service.unwrap_or_else(|| panic!("nothing runs on {name}")).stop();
    }

    /// Ends the process of a role as `kill -9` does.
    pub fn kill(&self, name: &str) {
        let service = self.services().remove(name);
        service.unwrap_or_else(|| panic!("nothing runs on {name}")).kill();
    }

    /// What the process of a role has written.
    pub fn log(&self, name: &str) -> String {
        self.services().get(name).map(Service::log).unwrap_or_default()
    }

    /// How a member is, by `slipway node ls`; nothing when it is none.
    pub fn state(&self, name: &str) -> Option<String> {
        let table = self.operator(&["node", "ls"]);
        let table = table.text();
        let row = table.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        // NAME  ROLE  STATE  ADDRESS …, and a state can be of several words.
        let words: Vec<&str> = row.split_whitespace().skip(2).collect();
        let state = words.iter().take_while(|word| !word.contains(':') && !word.contains('/'));
        Some(state.copied().collect::<Vec<_>>().join(" "))
    }

    /// Waits until a member is so.
    #[track_caller]
    pub fn until_state(&self, name: &str, state: &str) {
        self.until(&format!("{name} is {state}"), |c| {
            c.state(name).is_some_and(|is| is.starts_with(state))
        });
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            let late = Instant::now() > deadline;
            assert!(!late, "in vain waited until {what}\n{}", self.everything());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// All logs, for who looks for what went wrong.
    pub fn everything(&self) -> String {
        let logs = self.services();
        let log = |(name, service): (&String, &Service)| format!("== {name}\n{}\n", service.log());
        logs.iter().map(log).collect()
    }

    fn services(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Service>> {
        // A test that failed cleans up nevertheless.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
