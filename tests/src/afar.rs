//! A farm of several hosts with a registry beside it, as its clients see it.

use crate::cluster::{Cluster, HOME};
use crate::command::{Outcome, Running};
use crate::hosts::{Host, HostCommand, Site};
use crate::mirror::Mirror;
use crate::slipway::program;

/// A coordinator, cache nodes, workers and a registry, each on a host of its own.
#[derive(Debug)]
pub struct Afar {
    /// Before the hosts of the farm's site, on one of which it runs.
    registry: Mirror,
    farm: Cluster,
}

/// Somebody who builds on a farm, at a host of his own.
#[derive(Debug, Clone)]
pub struct Client {
    /// The host.
    pub host: Host,
}

impl Afar {
    /// A farm of `workers` workers and `caches` cache nodes, all of which are there.
    pub fn new(workers: usize, caches: usize) -> Self {
        let farm = Cluster::new("");
        let this = Self { registry: Mirror::of_corpus(farm.site()), farm };
        for (role, count) in [("cache", caches), ("worker", workers)] {
            (1..=count).for_each(|number| this.add(role, &format!("{role}-{number}")));
        }
        this
    }

    /// The hosts, and what is between them.
    pub fn site(&self) -> &Site {
        self.farm.site()
    }

    /// Another node of this role, on a new host.
    pub fn add(&self, role: &str, name: &str) {
        self.settle(name);
        self.farm.member(name, role);
        self.farm.until_state(name, "serving");
    }

    /// Runs a command on the coordinator's host.
    #[track_caller]
    pub fn operate(&self, args: &[&str]) -> Outcome {
        self.farm.operator(args)
    }

    /// Somebody new, who joins with a token that was made with these flags.
    pub fn client(&self, name: &str, token: &[&str]) -> Client {
        self.settle(name);
        Client { host: self.farm.join_with(name, &[&["--role", "client"], token].concat()) }
    }

    /// How many requests of this method the registry got whose path contains `part`.
    pub fn requests(&self, method: &str, part: &str) -> usize {
        self.registry.requests(method, part)
    }

    /// Writes the settings of a host that is to join.
    fn settle(&self, name: &str) {
        let host = self.site().host(name);
        host.write(format!("{HOME}/config.toml"), self.registry.settings());
    }

    /// Ends what runs on a host.
    pub fn stop(&self, name: &str) {
        self.farm.stop(name);
    }
}

impl Client {
    fn command(&self, args: &[&str]) -> HostCommand {
        let command = self.host.command(program(), args);
        command.env("BUILDKIT_PROGRESS", "plain").env("RUST_BACKTRACE", "1")
    }

    /// Runs a command of the product for the farm.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Outcome {
        self.start(args).finish(crate::command::DEADLINE)
    }

    /// Starts one.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Running {
        self.command(args).env("SLIPWAY_FARM", "test").start()
    }

    /// The same with something on its standard input.
    #[track_caller]
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Outcome {
        self.command(args).env("SLIPWAY_FARM", "test").run_with(input)
    }

    /// Runs a command of the product without a word about a farm.
    #[track_caller]
    pub fn run_here(&self, args: &[&str]) -> Outcome {
        self.command(args).run()
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
