//! Debian's docker-registry on a free port, for one test; what every test needs.

use cache::store::Store;
use cache::store::memory::MemoryStore;
use proto::platform::Platform;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use worker::image::Progress;
use worker::image::registry::{
    Anonymous, Registry, RegistryConfig, RetryConfig, Session, parse_reference,
};

/// A registry of its own.
pub struct DockerRegistry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub host: String,
    _dir: TempDir,
}

impl DockerRegistry {
    /// Starts a registry that anybody may use, by plain HTTP.
    pub fn start() -> Self {
        Self::with("", "")
    }

    /// Starts one with more lines in its configuration: under `http`, and at the top.
    pub fn with(http: &str, top: &str) -> Self {
        // Another process may take the port between our looking and the registry's listening.
        (0..5).find_map(|_| Self::try_start(http, top)).expect("docker-registry does not start")
    }

    fn try_start(http: &str, top: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let host = format!("127.0.0.1:{port}");
        let data = dir.path().join("data");
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {host}\n{http}\n{top}\n",
            data.display()
        );
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry (Debian: docker-registry) is needed");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(&host).is_ok() {
                return Some(Self { child, host, _dir: dir });
            }
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Fills it with the images of the conformance corpus.
    pub fn with_images(self) -> Self {
        let script = corpus().join("images/make.py");
        let made = Command::new("python3").arg(script).args(["--registry", &self.host]).output();
        let made = made.expect("python3 is needed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The conformance corpus.
pub fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance")
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A store of its own.
pub fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

/// Few attempts, and short waits between them.
pub fn config() -> RegistryConfig {
    let retry = RetryConfig { attempts: 3, first_wait_ms: 5, silence_s: 20 };
    RegistryConfig { retry, ..RegistryConfig::default() }
}

/// A session with nobody's logins.
pub fn session(config: RegistryConfig) -> Session {
    Registry::new(config).session(Arc::new(Anonymous))
}

pub fn reference(text: &str) -> worker::image::registry::Reference {
    parse_reference(text).unwrap()
}

pub fn amd64() -> Platform {
    Platform::from_config("linux", "amd64", "")
}

/// Nobody watches.
pub fn quiet() -> Progress {
    Arc::new(|_, _, _| {})
}

/// Runs a command; its output. Fails with all that it said.
pub fn run(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{command:?}: {}{}", said(&done.stdout), said(&done.stderr));
    said(&done.stdout)
}
