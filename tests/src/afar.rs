//! A farm of several hosts with a registry beside it, as its clients see it.

use crate::command::{Outcome, Running};
use crate::corpus;
use crate::hosts::{Host, Site};
use crate::service::Service;
use crate::slipway::program;
use std::time::{Duration, Instant};

/// How long a farm may take to be complete.
const COMPLETE_WITHIN: Duration = Duration::from_secs(60);

/// Where the registry listens.
const REGISTRY_PORT: u16 = 5000;

/// What the registry of a farm is called by all of its hosts.
pub const REGISTRY: &str = "registry:5000";

/// A coordinator, cache nodes, workers and a registry, each on a host of its own.
#[derive(Debug)]
pub struct Afar {
    /// The network. Before what runs on it: it ends with the power of its hosts.
    pub site: Site,
    services: Vec<(String, Service)>,
}

/// Somebody who builds on a farm, at a host of his own.
#[derive(Debug, Clone)]
pub struct Client {
    /// The host.
    pub host: Host,
}

/// A command of the product in a host.
fn slipway(host: &Host, args: &[&str]) -> crate::hosts::HostCommand {
    host.command(program(), args).env("BUILDKIT_PROGRESS", "plain").env("RUST_BACKTRACE", "1")
}

/// Where the images of docker.io are, and that the registry speaks plain HTTP.
fn settings(host: &Host) {
    let text = format!(
        "[registry.\"docker.io\"]\nmirrors = [\"http://{REGISTRY}\"]\n\
         [registry.{REGISTRY:?}]\nhttp = true\n"
    );
    host.write("/var/lib/slipway/config.toml", text);
}

impl Afar {
    /// A farm of `workers` workers and `caches` cache nodes, all of which are there.
    pub fn new(workers: usize, caches: usize) -> Self {
        let mut farm = Self { site: Site::new(), services: Vec::new() };
        farm.start_registry();
        let coordinator = farm.coordinator();
        slipway(&coordinator, &["farm", "init", "--name", "build", "--roles", "coordinator"])
            .run()
            .ok();
        farm.serve(&coordinator, "coordinator");
        for (role, count) in [("cache", caches), ("worker", workers)] {
            for number in 1..=count {
                farm.add(role, &format!("{role}-{number}"));
            }
        }
        farm.await_complete(workers, caches);
        farm
    }

    /// Another node of this role, on a new host.
    pub fn add(&mut self, role: &str, name: &str) {
        let host = self.site.host(name);
        settings(&host);
        self.join(&host, &["--role", role], &[]);
        self.serve(&host, role);
    }

    fn start_registry(&mut self) {
        let host = self.site.host("registry");
        corpus::copy_storage(&host.path("/var/lib/registry"));
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: /var/lib/registry}}}}\n\
             http: {{addr: '0.0.0.0:{REGISTRY_PORT}'}}\n"
        );
        host.write("/root/registry.yml", config);
        let mut service =
            host.command("docker-registry", ["serve", "/root/registry.yml"]).serve("registry");
        service.until("The registry", |log| log.contains("listening on").then_some(()));
        self.services.push(("registry".to_owned(), service));
    }

    fn serve(&mut self, host: &Host, role: &str) {
        let mut service = slipway(host, &[role]).serve(role);
        service.until(host.name(), |log| log.contains("is up").then_some(()));
        self.services.push((host.name().to_owned(), service));
    }

    fn await_complete(&self, workers: usize, caches: usize) {
        let deadline = Instant::now() + COMPLETE_WITHIN;
        loop {
            let nodes = slipway(&self.coordinator(), &["node", "ls"]).run().ok().text();
            let are = |role: &str, state: &str| {
                let row = |line: &&str| line.contains(role) && line.contains(state);
                nodes.lines().filter(row).count()
            };
            if are("cache", "serving") == caches && are("worker", "serving") == workers {
                return;
            }
            assert!(Instant::now() < deadline, "the farm is not complete\n{nodes}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The host of the coordinator.
    pub fn coordinator(&self) -> Host {
        self.site.host("coordinator")
    }

    /// Runs a command on the coordinator's host.
    #[track_caller]
    pub fn operate(&self, args: &[&str]) -> Outcome {
        slipway(&self.coordinator(), args).run()
    }

    /// Joins a host to the farm with a new token.
    fn join(&self, host: &Host, token: &[&str], flags: &[&str]) {
        let token = self.operate(&[&["token", "create"], token].concat()).ok().text();
        let invitation = format!("{token}@coordinator");
        slipway(host, &[&["join", &invitation], flags].concat()).run().ok();
    }

    /// Somebody new, who joins with a token that was made with these flags.
    pub fn client(&self, name: &str, token: &[&str]) -> Client {
        let host = self.site.host(name);
        settings(&host);
        self.join(&host, &[&["--role", "client"], token].concat(), &["--name", name]);
        Client { host }
    }

    /// How many requests of this method the registry got whose path contains `part`.
    pub fn requests(&self, method: &str, part: &str) -> usize {
        let (_, registry) = &self.services[0];
        let start = format!("\"{method} /");
        let is_one = |line: &&str| {
            let Some((_, rest)) = line.split_once(&start) else { return false };
            rest.split(' ').next().is_some_and(|path| path.contains(part))
        };
        registry.log().lines().filter(is_one).count()
    }

    /// Ends what runs on a host.
    pub fn stop(&mut self, name: &str) {
        for (_, service) in self.services.iter_mut().filter(|(known, _)| known == name) {
            service.stop();
        }
    }
}

impl Client {
    /// Runs a command of the product for the farm.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Outcome {
        self.start(args).finish(crate::command::DEADLINE)
    }

    /// Starts one.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Running {
        slipway(&self.host, args).env("SLIPWAY_FARM", "build").start()
    }

    /// The same with something on its standard input.
    #[track_caller]
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Outcome {
        slipway(&self.host, args).env("SLIPWAY_FARM", "build").run_with(input)
    }

    /// Runs a command of the product without a word about a farm.
    #[track_caller]
    pub fn run_here(&self, args: &[&str]) -> Outcome {
        slipway(&self.host, args).run()
    }

    /// Writes a file of the context.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        self.host.write(format!("/root/context/{name}"), content);
    }

    /// Builds the context on the farm.
    #[track_caller]
    pub fn build(&self, flags: &[&str]) -> Outcome {
        self.run(&[&["build"], flags, &["/root/context"]].concat())
    }

    /// Ends this machine's own farm, if one runs.
    pub fn down(&self) {
        self.run_here(&["down", "--now"]).ok();
    }
}
