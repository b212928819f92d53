//! A registry on a host of a farm's site, which the farm takes for docker.io.

use crate::corpus;
use crate::hosts::Site;
use crate::service::Service;
use crate::standin;
use std::path::Path;

/// Where it listens.
const PORT: u16 = 5000;

/// What it is called by all hosts of its site.
pub const REGISTRY: &str = "registry:5000";

/// A registry that runs. It has to end before its site does.
#[derive(Debug)]
pub struct Mirror {
    service: Service,
}

impl Mirror {
    /// One that has the base images of the corpus, and takes others.
    pub fn of_corpus(site: &Site) -> Self {
        let storage = Path::new("/var/lib/registry");
        corpus::copy_storage(&site.host("registry").path(storage));
        Self::start(site, storage, false)
    }

    /// One that has these stand-ins, made first if need be, and takes nothing: its files are those
    /// that all hosts share.
    pub fn of_standins(site: &Site, names: &[&str]) -> Self {
        // Before the host boots: it sees what is there by then.
        let storage = standin::storage(names);
        Self::start(site, &storage, true)
    }

    fn start(site: &Site, storage: &Path, read_only: bool) -> Self {
        let host = site.host("registry");
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {storage:?}}}, \
             maintenance: {{readonly: {{enabled: {read_only}}}}}}}\n\
             http: {{addr: '0.0.0.0:{PORT}'}}\n"
        );
        host.write("/root/registry.yml", config);
        let mut service =
            host.command("docker-registry", ["serve", "/root/registry.yml"]).serve("registry");
        service.until("The registry", |log| log.contains("listening on").then_some(()));
        Self { service }
    }

    /// Settings of the hosts that use it: where the images of docker.io are, and that it speaks
    /// plain HTTP.
    pub fn settings(&self) -> String {
        format!(
            "[registry.\"docker.io\"]\nmirrors = [\"http://{REGISTRY}\"]\n\
             [registry.{REGISTRY:?}]\nhttp = true\n"
        )
    }

    /// How many requests of this method there were whose path contains `part`.
    pub fn requests(&self, method: &str, part: &str) -> usize {
        let start = format!("\"{method} /");
        let is_one = |line: &&str| {
            let Some((_, rest)) = line.split_once(&start) else { return false };
            rest.split(' ').next().is_some_and(|path| path.contains(part))
        };
        self.service.log().lines().filter(is_one).count()
    }
}
