//! A farm whose processes are all on this machine, each with a home of its own, joined by QUIC over
//! the loopback: for what needs many builds and no faults of the network.

use crate::registry::Registry;
use crate::scratch::Scratch;
use crate::service::Service;
use crate::slipway::Slipway;
use std::net::{Ipv4Addr, UdpSocket};

/// A coordinator with a cache node in one process, and workers in others.
#[derive(Debug)]
pub struct Roles {
    /// Whoever builds there, without saying so: `SLIPWAY_FARM` does.
    pub client: Slipway,
    /// Before their homes; the workers first.
    services: Vec<Service>,
    homes: Vec<Slipway>,
    logs: Scratch,
}

/// A port of the loopback that nobody uses at the moment.
fn port() -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.local_addr().expect("a bound socket").port()
}

/// A home with these settings, where images of docker.io come from the registry.
fn home(registry: &Registry, settings: &str) -> Slipway {
    let home = Slipway::new();
    let mirrors = ["docker.io", "quay.io"]
        .map(|name| format!("[registry.{name:?}]\nmirrors = [{:?}]\n", registry.url()));
    home.settings(&format!("{settings}\n[http]\nlisten = \"off\"\n{}", mirrors.concat()));
    home
}

impl Roles {
    /// A farm with so many workers, all of which are there.
    pub fn new(registry: &Registry, workers: usize) -> Self {
        let (own, cache) = (port(), port());
        let head = home(
            registry,
            &format!(
                "[coordinator]\nlisten = \"127.0.0.1:{own}\"\nreplicas = 1\n\
                 [cache]\nlisten = \"127.0.0.1:{cache}\"\n[node]\nname = \"head\"\n"
            ),
        );
        head.run(&["farm", "init", "--name", "test", "--roles", "coordinator,cache"]).ok();
        let client = home(registry, "").env("SLIPWAY_FARM", "test");
        let logs = Scratch::new("roles");
        let mut farm = Self { client, services: Vec::new(), homes: vec![head], logs };
        farm.serve(&["coordinator", "--with", "cache"]);
        let at = format!("127.0.0.1:{own}");
        let token = |farm: &Self, role: &str| {
            let create = ["token", "create", "--role", role];
            format!("{}@{at}", farm.homes[0].run(&create).ok().text())
        };
        for number in 1..=workers {
            let name = format!("worker-{number}");
            let worker = home(registry, &format!("[worker]\nlisten = \"127.0.0.1:{}\"\n", port()));
            worker.run(&["join", &token(&farm, "worker"), "--name", &name]).ok();
            farm.homes.push(worker);
            farm.serve(&["worker"]);
        }
        farm.client.run(&["join", &token(&farm, "client"), "--name", "client"]).ok();
        farm
    }

    /// Starts a process in the home that came last.
    fn serve(&mut self, role: &[&str]) {
        let home = self.homes.last().expect("there is one");
        let log = self.logs.join(format!("{}.log", self.services.len()));
        let mut service = Service::start(&mut home.command(role), &log);
        service.until(role[0], |log| log.contains("is up").then_some(()));
        self.services.push(service);
    }

    /// Runs a command of whoever looks after the farm.
    #[track_caller]
    pub fn operate(&self, args: &[&str]) -> crate::command::Outcome {
        self.homes[0].run(args)
    }

    /// Ends all processes, the last one first.
    pub fn stop(&mut self) {
        while let Some(mut service) = self.services.pop() {
            service.stop();
        }
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        self.stop();
    }
}
