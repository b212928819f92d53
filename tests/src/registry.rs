//! Debian's docker-registry on a free port of the loopback.

use crate::command::{command, run};
use crate::scratch::Scratch;
use crate::service::Service;
use crate::standin;
use crate::tool::tool;
use std::path::Path;

/// A registry that runs.
#[derive(Debug)]
pub struct Registry {
    service: Service,
    address: String,
    _scratch: Scratch,
}

impl Registry {
    /// An empty one.
    pub fn empty() -> Self {
        let scratch = Scratch::new("registry");
        let storage = scratch.directory("storage");
        Self::start(scratch, &storage, false)
    }

    /// One that has these stand-ins, made first if need be; it takes nothing else.
    pub fn of(names: &[&str]) -> Self {
        let storage = standin::storage(names);
        Self::start(Scratch::new("registry"), &storage, true)
    }

    /// One over the files of another one.
    pub(crate) fn over(storage: &Path) -> Self {
        Self::start(Scratch::new("registry"), storage, false)
    }

    fn start(scratch: Scratch, storage: &Path, read_only: bool) -> Self {
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {storage:?}}}, delete: {{enabled: true}}, \
             maintenance: {{readonly: {{enabled: {read_only}}}}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n",
        );
        let config = scratch.write("config.yml", config);
        let mut program = command(tool("docker-registry"));
        program.arg("serve").arg(config);
        let mut service = Service::start(&mut program, &scratch.join("log"));
        let address = service.until("The registry", |log| {
            let (_, rest) = log.split_once("listening on ")?;
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':')?;
            Some(rest[..end].to_owned())
        });
        Self { service, address, _scratch: scratch }
    }

    /// Host and port, as image names have them.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The URL, as settings have it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The name of an image in this registry.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// How many requests there were of this method whose path contains `part`.
    pub fn requests(&self, method: &str, part: &str) -> usize {
        let start = format!("\"{method} /");
        let is_one = |line: &&str| {
            let Some((_, rest)) = line.split_once(&start) else { return false };
            rest.split(' ').next().is_some_and(|path| path.contains(part))
        };
        self.service.log().lines().filter(is_one).count()
    }

    /// The manifest of an image, as JSON. Panics when there is none.
    pub fn manifest(&self, name: &str) -> serde_json::Value {
        let mut skopeo = command(tool("skopeo"));
        skopeo.args(["inspect", "--raw", "--tls-verify=false"]);
        let outcome = run(skopeo.arg(format!("docker://{}", self.image(name)))).ok();
        serde_json::from_slice(&outcome.stdout).expect("a manifest is JSON")
    }
}
