//! Debian's docker-registry on a free port of the loopback.

use crate::command::{command, run};
use crate::scratch::Scratch;
use crate::service::Service;
use crate::standin;
use crate::tool::tool;
use std::path::{Path, PathBuf};

/// Who may use a guarded registry.
pub const USER: &str = "ann";
/// With which password.
pub const PASSWORD: &str = "open sesame";
/// The same, as htpasswd(1) has it.
const PASSWORD_BCRYPT: &str = "$2b$05$S5kI3nhCwpl5VfG/euhgDOOI478vmumX8ovVVVjapDbwzHv3AK/lq";

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

    /// An empty one that wants a login ([`USER`], [`PASSWORD`]) and speaks TLS, with a certificate
    /// that only the authority in the returned file vouches for.
    pub fn guarded() -> (Self, PathBuf) {
        let scratch = Scratch::new("registry");
        let storage = scratch.directory("storage");
        let authority = certificates(&scratch);
        let users = scratch.write("htpasswd", format!("{USER}:{PASSWORD_BCRYPT}\n"));
        let more = format!(
            "  tls: {{certificate: {:?}, key: {:?}}}\n\
             auth: {{htpasswd: {{realm: tests, path: {users:?}}}}}\n",
            scratch.join("server.pem"),
            scratch.join("server.key"),
        );
        (Self::start_with(scratch, &storage, false, &more), authority)
    }

    /// One that has these stand-ins, made first if need be; it takes nothing else.
    pub fn of(names: &[&str]) -> Self {
        Self::serving(&standin::storage(names))
    }

    /// One that serves the files of another one, and takes nothing.
    pub(crate) fn serving(storage: &Path) -> Self {
        Self::start(Scratch::new("registry"), storage, true)
    }

    /// One over the files of another one.
    pub(crate) fn over(storage: &Path) -> Self {
        Self::start(Scratch::new("registry"), storage, false)
    }

    fn start(scratch: Scratch, storage: &Path, read_only: bool) -> Self {
        Self::start_with(scratch, storage, read_only, "")
    }

    fn start_with(scratch: Scratch, storage: &Path, read_only: bool, more: &str) -> Self {
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {storage:?}}}, delete: {{enabled: true}}, \
             maintenance: {{readonly: {{enabled: {read_only}}}}}}}\n\
             http:\n  addr: '127.0.0.1:0'\n{more}",
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

/// Makes an authority, and a server's certificate of it for the loopback; answers the authority's.
fn certificates(scratch: &Scratch) -> PathBuf {
    let openssl = |args: &[&str]| {
        let mut program = command(tool("openssl"));
        run(program.current_dir(scratch.path()).env("HOME", scratch.path()).args(args)).ok();
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let authority = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Authority of the tests"];
    openssl(&[&["req", "-x509"], &key[..], &authority, &["-days", "2"]].concat());
    let server = ["-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1"];
    openssl(&[&["req"], &key[..], &server].concat());
    scratch.write("names", "subjectAltName = IP:127.0.0.1\n");
    let by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
    let what = ["-in", "server.csr", "-out", "server.pem", "-extfile", "names"];
    openssl(&[&["x509", "-req"], &by[..], &what].concat());
    scratch.join("ca.pem")
}
