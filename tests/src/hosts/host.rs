//! One host: what tests do in it and to it.

use super::command::HostCommand;
use super::cuts::Cut;
use super::lan::Lan;
use super::link::Link;
use super::machine::Machine;
use super::number::Number;
use super::root;
use crate::http::{Request, Response, Server};
use crate::scratch::{Process, make};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A host of a site. Copies are the same host. It runs from the beginning, until it is killed or
/// the site is dropped.
#[derive(Debug, Clone)]
pub struct Host(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    name: String,
    number: Number,
    /// What tells its control groups from those of other sites' hosts.
    label: String,
    /// The site's: it is gone with the site.
    lan: Weak<Lan>,
    disk: PathBuf,
    logs: PathBuf,
    services: AtomicU32,
    /// Nothing while it is off.
    machine: Mutex<Option<Arc<Machine>>>,
}

impl Host {
    /// Installs one, and boots it.
    pub(super) fn new(name: &str, number: Number, site: u32, lan: &Arc<Lan>, home: &Path) -> Self {
        let (disk, logs) = (home.join("disks").join(name), home.join("logs").join(name));
        make(&disk);
        make(&logs);
        root::install(&disk, name);
        let (name, label) = (name.to_owned(), format!("{site}-{name}"));
        let (services, machine) = (AtomicU32::new(0), Mutex::new(None));
        let lan = Arc::downgrade(lan);
        let host =
            Self(Arc::new(Parts { name, number, label, lan, disk, logs, services, machine }));
        host.boot();
        host
    }

    /// Its name, which the site's hosts know it by.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.0.number.ip()
    }

    pub(super) fn number(&self) -> Number {
        self.0.number
    }

    /// A command that will run in the host. Its environment is known, as [`crate::command::command`]
    /// makes it, and `HOME` is the host's.
    pub fn command<A: AsRef<std::ffi::OsStr>>(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> HostCommand {
        HostCommand::new(self.clone(), program.as_ref(), args)
    }

    /// Runs a function on a thread in the host: sockets that it makes are the host's, and so is the
    /// file system. It must not start threads, which the kernel refuses, nor wait long: all commands
    /// of the host are started by the same thread.
    pub fn within<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.machine().call(job)
    }

    /// Starts a web server in the host, on a port of all its addresses. It belongs to the test: it
    /// answers also while the host is frozen, and is cut off for good when the host is killed.
    pub fn serve(
        &self,
        port: u16,
        answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Server {
        let bound = self.within(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
        let listener = bound.unwrap_or_else(|e| panic!("{}: port {port}: {e}", self.name()));
        let port = listener.local_addr().expect("a bound socket").port();
        Server::on(listener, format!("{}:{port}", self.ip()), answer)
    }

    /// Where a file of the host's lies for the test, which does not see what is mounted in the host,
    /// and for which links from the root lead elsewhere.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        root::within(&self.0.disk, path.as_ref())
    }

    /// Writes a file of the host's, making the directories above it.
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        make(path.parent().expect("a path below the root"));
        fs::write(&path, content).unwrap_or_else(|e| panic!("writing {}: {e}", path.display()));
    }

    /// Reads a file of the host's.
    #[track_caller]
    pub fn read(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(path);
        fs::read(&path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()))
    }

    /// Its processes, without the first one, as this process numbers them.
    pub fn processes(&self) -> Vec<Process> {
        self.slot().as_ref().map(|machine| machine.processes()).unwrap_or_default()
    }

    /// Takes its power away: its interface is gone, then all of its processes at once, and nobody is
    /// told. What was written to files stays, also what was not synced.
    pub fn kill(&self) {
        let mut slot = self.slot();
        if let Some(machine) = slot.take() {
            self.lan().unplug(self.0.number);
            machine.end();
        }
    }

    /// Turns it on again after it was killed. Files are as they were, but `/run` is empty; no
    /// service runs.
    pub fn boot(&self) {
        let mut slot = self.slot();
        assert!(slot.is_none(), "{} runs: kill it first", self.name());
        let machine = Machine::boot(&self.0.name, &self.0.label, &self.0.disk);
        self.lan().plug(self.0.number, machine.first());
        machine.configure(self.0.number);
        *slot = Some(Arc::new(machine));
    }

    /// Stops all processes where they are, unseen by them. The kernel still answers: it takes
    /// connections and acknowledges what comes. To have a machine that hangs as a whole, cut it, too.
    pub fn freeze(&self) {
        self.machine().freeze(true);
    }

    /// Lets all processes go on.
    pub fn thaw(&self) {
        self.machine().freeze(false);
    }

    /// Cuts its network: nothing comes in or goes out from now on, and nobody is told. It stays cut
    /// when it boots.
    pub fn cut(&self) {
        self.lan().cut(Cut::Host(self.0.number));
    }

    /// Takes [`Self::cut`] back. Cuts between pairs stay.
    pub fn heal(&self) {
        self.lan().heal(Cut::Host(self.0.number));
    }

    /// Sets the properties of its link, for what is sent from now on. They stay when it boots.
    pub fn link(&self, link: Link) {
        self.lan().link(self.0.number, link);
    }

    /// How many bytes of frames came to it over the network, over all boots, counted by its wire.
    pub fn bytes_received(&self) -> u64 {
        self.lan().traffic(self.0.number).received
    }

    /// How many bytes of frames it sent, over all boots, counted by its wire, also if they were lost
    /// after that.
    pub fn bytes_sent(&self) -> u64 {
        self.lan().traffic(self.0.number).sent
    }

    /// Starts a process.
    pub(super) fn spawn(&self, command: Command) -> std::io::Result<Child> {
        self.machine().spawn(command)
    }

    /// A new file for what a service writes.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        let number = self.0.services.fetch_add(1, Ordering::Relaxed);
        self.0.logs.join(format!("{number}-{name}.log"))
    }

    #[track_caller]
    fn lan(&self) -> Arc<Lan> {
        let lan = self.0.lan.upgrade();
        lan.unwrap_or_else(|| panic!("the site of {} is gone", self.name()))
    }

    #[track_caller]
    fn machine(&self) -> Arc<Machine> {
        let machine = self.slot().clone();
        machine.unwrap_or_else(|| panic!("{} is off", self.name()))
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Machine>>> {
        // A test that failed cleans up nevertheless.
        self.0.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
