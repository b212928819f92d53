//! A private Docker engine: Debian's docker.io, whose BuildKit is also the peer of the benchmarks.

use crate::command::{Outcome, command, run};
use crate::registry::Registry;
use crate::scratch::Scratch;
use crate::service::Service;
use crate::tool::tool;
use std::path::Path;
use std::process::Command;

/// An engine that runs.
#[derive(Debug)]
pub struct Engine {
    /// Before the directory, so that it ends first.
    service: Service,
    scratch: Scratch,
}

impl Engine {
    /// Starts one without networks; images of docker.io come from a registry, if one is given.
    pub fn start(mirror: Option<&Registry>) -> Self {
        let scratch = Scratch::new("engine");
        let mut program = command(tool("dockerd"));
        program.arg("--data-root").arg(scratch.directory("data"));
        program.arg("--exec-root").arg(scratch.directory("exec"));
        program.arg("--pidfile").arg(scratch.join("pid"));
        program.arg("--host").arg(format!("unix://{}", scratch.join("sock").display()));
        program.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        program.arg("--config-file").arg(scratch.write("daemon.json", "{}"));
        program.arg("--storage-driver=overlay2");
        if let Some(mirror) = mirror {
            program.arg("--registry-mirror").arg(mirror.url());
        }
        let service = Service::enclose(&mut program, &scratch.join("log"));
        let mut engine = Self { service, scratch };
        engine.await_ready();
        engine
    }

    fn await_ready(&mut self) {
        let mut version = self.command(&["version"]);
        self.service.until("The Docker engine", |log| {
            (log.contains("API listen on") && run(&mut version).code == 0).then_some(())
        });
    }

    /// The socket's address, as `DOCKER_HOST` has it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.scratch.join("sock").display())
    }

    /// Where it keeps everything.
    pub fn home(&self) -> &Path {
        self.scratch.path()
    }

    /// The number of its process.
    pub fn pid(&self) -> i32 {
        self.service.pid()
    }

    /// A command of Docker's own client.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut docker = command(tool("docker"));
        docker.env("DOCKER_HOST", self.host()).env("DOCKER_BUILDKIT", "1");
        docker.env("HOME", self.scratch.path()).env("BUILDKIT_PROGRESS", "plain");
        docker.args(args);
        docker
    }

    /// Runs a command of Docker's own client.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> Outcome {
        run(&mut self.command(args))
    }
}
