//! The way to the farm of this machine: finds it, starts it when none runs, replaces an older one.

use crate::node::certificates::keep_renewed;
use crate::node::party::Party;
use crate::node::uplink::{cluster, follow, watch_on};
use crate::print::tell;
use crate::up::ALREADY_RUNNING;
use crate::up::lock::holder;
use cache::cluster::Cluster;
use cache::net::unix::Dialer;
use cache::net::{Dial, NetError, Opening, Stream};
use ops::config::Config;
use ops::context::{Farm as Joined, Farms, Target, Wishes, resolve};
use ops::identity::Role;
use proto::error::{Class, Failure};
use proto::wire::admin::{Asked, Reply, Request};
use proto::wire::cluster::{FromMember, Map};
use proto::wire::{Binary, Service};
use rustix::process::{Pid, Signal};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a new farm may take to take over from one that is ending.
const STILL_THERE: Duration = Duration::from_millis(50);

/// The argument by which a farm is started on demand.
const ON_DEMAND: [&str; 2] = ["up", "--on-demand"];

/// How long a farm may take to start. Cleaning up after a crash takes some of it.
const START_WAIT: Duration = Duration::from_secs(60);

/// How long a client that ends goes on to say so. The word is sent at once; that nobody answers to it is
/// not waited for.
const LEAVE_WAIT: Duration = Duration::from_millis(5);

/// What to do about a farm that does not answer.
const AWAY: &str = "See whether its coordinator runs and can be reached from here (UDP). To build on \
                    this machine: --farm local, or `slipway context use local`; to do so whenever \
                    the farm cannot be reached: slipway build --fallback local.";

/// Where the farm listens.
pub fn socket(home: &Path) -> PathBuf {
    home.join("farm.sock")
}

/// Where a farm that was started on demand writes what it has to say.
pub fn log_file(home: &Path) -> PathBuf {
    home.join("farm.log")
}

/// This binary.
pub fn binary() -> Binary {
    let modified = std::env::current_exe().and_then(std::fs::metadata).and_then(|m| m.modified());
    let since = modified.ok().and_then(|m| m.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Binary { version: env!("CARGO_PKG_VERSION").to_owned(), modified_ms: since.as_millis() as u64 }
}

/// A farm that answers.
#[derive(Clone)]
pub struct Farm {
    dial: Arc<dyn Dial>,
    /// Who this machine is there, when it is a farm of other machines.
    member: Option<Member>,
    /// Whose images are meant; none for the own scope.
    scope: Option<String>,
    /// As long as it is open, the farm does not end for want of work.
    held: Arc<Mutex<Option<Opening>>>,
    /// Its blobs and trees.
    pub blobs: Arc<Cluster>,
}

/// This machine as a member of a farm.
#[derive(Clone)]
struct Member {
    party: Party,
    /// What goes on as long as it is one: it follows the map of the cache nodes, and renews its
    /// certificate.
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Farm {
    fn at(home: &Path) -> Self {
        let dial: Arc<dyn Dial> = Arc::new(Dialer::new(&socket(home)));
        let blobs = Cluster::of_one(dial.clone(), binary());
        Self { blobs, dial, member: None, scope: None, held: Arc::default() }
    }

    /// The farm that is meant: by `wish` (`--farm`), by `SLIPWAY_FARM`, the one in use, the one of
    /// the settings, or else this machine's own.
    pub async fn find(wish: Option<&str>, config: &Config) -> Result<Self, Failure> {
        match Self::meant(wish, config)? {
            None => Self::connect(config).await,
            Some(joined) => Self::remote(&joined).await.map_err(|failure| match failure.class {
                Class::Unavailable => failure.hint(AWAY),
                _ => failure,
            }),
        }
    }

    /// The same; this machine's own, with a warning, when the one that is meant cannot be reached.
    pub async fn find_or_local(wish: Option<&str>, config: &Config) -> Result<Self, Failure> {
        let Some(joined) = Self::meant(wish, config)? else { return Self::connect(config).await };
        match Self::remote(&joined).await {
            Err(failure) if failure.class == Class::Unavailable => {
                tell!("WARNING: {failure}. Building on this machine instead");
                Self::connect(config).await
            }
            found => found,
        }
    }

    /// The farm that was joined and is meant; none for this machine's own.
    fn meant(wish: Option<&str>, config: &Config) -> Result<Option<Joined>, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(Class::User, e.to_string());
        let farms = Farms::of(&config.home);
        let variable = std::env::var("SLIPWAY_FARM").ok();
        let current = farms.current().map_err(|e| failed(&e))?;
        let wishes = Wishes {
            flag: wish,
            variable: variable.as_deref(),
            current: current.as_ref(),
            setting: config.farm.default.as_deref(),
        };
        let known = farms.names().map_err(|e| failed(&e))?;
        let (target, _) = resolve(&wishes, &known).map_err(|e| failed(&e))?;
        match target {
            Target::Local => Ok(None),
            Target::Farm(name) => farms.show(&name).map(Some).map_err(|e| failed(&e)),
            Target::Address(address) => {
                let all = farms.list().map_err(|e| failed(&e))?;
                let at = |farm: &Joined| farm.about.coordinator == address;
                let found = all.into_iter().filter_map(|(_, farm)| farm.ok()).find(at);
                found.map(Some).ok_or_else(|| {
                    let message = format!("No farm at {address} was joined");
                    Failure::new(Class::User, message)
                        .hint("Run `slipway join TOKEN@HOST` with a token of the farm.")
                })
            }
        }
    }

    /// A farm that was joined.
    async fn remote(joined: &Joined) -> Result<Self, Failure> {
        let party = Party::open(joined.dir.clone())?;
        let address = joined.about.coordinator.to_string();
        let dial = party.control(&address, Role::Coordinator);
        let opening = dial.dial().await?.open(binary(), Service::Cluster).await?;
        let Stream { mut to, mut from } = opening.stream;
        to.send(&FromMember::Watch).await?;
        let (map, _) = from.expect::<Map>().await?;
        let (maps, watched) = watch::channel(Arc::new(map));
        let lost = dial.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // As long as the stream lives; then as often as it takes.
            let _ = follow(from, &maps).await;
            watch_on(lost, &maps).await;
            drop(to);
        });
        let blobs = cluster(&party, watched);
        tasks.spawn(keep_renewed(party.clone(), dial.clone()));
        let member = Some(Member { party, tasks: Arc::new(Mutex::new(tasks)) });
        Ok(Self { dial, blobs, member, scope: None, held: Arc::default() })
    }

    /// The farm of this machine, or the coordinator that runs on it.
    pub async fn here(config: &Config) -> Result<Self, Failure> {
        let farm = Self::at(&config.home);
        match farm.open(Service::Admin).await {
            Ok(_) => Ok(farm),
            Err(_) => Self::find(None, config).await,
        }
    }

    /// Whether it is a farm of other machines.
    pub fn is_remote(&self) -> bool {
        self.member.is_some()
    }

    /// Tells other machines that nothing comes any more, so that they need not wait whether something
    /// does.
    pub async fn leave(&self) {
        let Some(Member { party, tasks }) = &self.member else { return };
        // Nobody is to miss what is ended here.
        let mut tasks = std::mem::take(&mut *tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        // Who is not told within this time finds out by itself.
        let _ = tokio::time::timeout(LEAVE_WAIT, party.close()).await;
    }

    fn hold(&self, opening: Opening) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(opening);
    }

    /// Opens a stream for a service.
    pub async fn open(&self, service: Service) -> Result<Opening, NetError> {
        self.dial.dial().await?.open(binary(), service).await
    }

    /// The farm of this machine; started when none runs.
    pub async fn connect(config: &Config) -> Result<Self, Failure> {
        let farm = Self::at(&config.home);
        // A process that is a farm's own is its operator's to replace.
        let is_members = config.home.join("identity").exists();
        match farm.open(Service::Admin).await {
            Ok(opening) if is_members || opening.binary.modified_ms >= binary().modified_ms => {
                farm.hold(opening);
                return Ok(farm);
            }
            Err(NetError::Refused(failure)) if is_members => return Err(failure),
            Ok(_) => replace(&farm, config).await?,
            // It ends at this moment, or none is there.
            Err(NetError::Unreachable { .. } | NetError::Broken(_) | NetError::Closed) => {}
            // An older or newer one that speaks another language is replaced all the same.
            Err(NetError::Refused(failure)) if failure.class != Class::User => {
                return Err(failure);
            }
            Err(NetError::Refused(_)) => replace(&farm, config).await?,
            Err(other) => return Err(other.into()),
        }
        let opening = start(&farm, config).await?;
        farm.hold(opening);
        Ok(farm)
    }

    /// The farm of this machine, if one runs.
    pub async fn running(config: &Config) -> Option<Self> {
        let farm = Self::at(&config.home);
        farm.open(Service::Admin).await.ok().map(|_| farm)
    }

    /// The same for a scope below the own one.
    pub fn in_scope(self, scope: &Option<String>) -> Self {
        Self { scope: scope.clone(), ..self }
    }

    /// A request as it is sent.
    pub fn asked(&self, request: Request) -> Asked {
        Asked { scope: self.scope.clone(), request }
    }

    /// Asks for one thing, and gives each answer to `take`.
    pub async fn ask(
        &self,
        request: &Request,
        take: impl FnMut(Reply, bytes::Bytes),
    ) -> Result<(), Failure> {
        self.ask_on(self.open(Service::Admin).await?, request, take).await
    }

    /// The same on a stream that is open.
    async fn ask_on(
        &self,
        opening: Opening,
        request: &Request,
        mut take: impl FnMut(Reply, bytes::Bytes),
    ) -> Result<(), Failure> {
        let mut stream = opening.stream;
        stream.to.send(&self.asked(request.clone())).await?;
        loop {
            match stream.from.expect::<Reply>().await.map_err(broke)? {
                (Reply::Done, _) => return Ok(()),
                (Reply::Failed(failure), _) => return Err(failure),
                (reply, payload) => take(reply, payload),
            }
        }
    }
}

/// Why a stream broke, as whoever waits for the farm's answer is told.
pub fn broke(error: NetError) -> Failure {
    match error {
        NetError::Closed | NetError::Broken(_) => {
            Failure::new(Class::Unavailable, "The farm ended in the middle of the work").hint(
                "Run the command again: a new farm takes up what was done. What this one said \
                       is in farm.log in $SLIPWAY_HOME; in farm.log.old, once the new one runs.",
            )
        }
        other => other.into(),
    }
}

/// Lets an older farm finish its builds and end. Other clients may do so at the same time, and may have
/// started a newer one by the time that this one looks.
async fn replace(farm: &Farm, config: &Config) -> Result<(), Failure> {
    let Some(old) = holder(&config.home) else { return Ok(()) };
    let is_old = |binary: &Binary| binary.modified_ms < self::binary().modified_ms;
    let mut builds = 0;
    if let Ok(opening) = farm.open(Service::Admin).await {
        if !is_old(&opening.binary) {
            return Ok(());
        }
        let status = farm.ask_on(opening, &Request::Status, |reply, _| {
            if let Reply::Status { builds: n, .. } = reply {
                builds = n;
            }
        });
        let _ = status.await;
    }
    if builds > 0 {
        tell!("A farm of another version runs; waiting for its {builds} build(s) to finish.");
    }
    while holder(&config.home) == Some(old) {
        // It takes no new builds from now on, and closes the stream when it has ended.
        let told = match farm.open(Service::Admin).await {
            Ok(opening) if !is_old(&opening.binary) => return Ok(()),
            Ok(opening) => {
                farm.ask_on(opening, &Request::Shutdown { after_builds: true }, |_, _| {}).await
            }
            Err(e) => Err(e.into()),
        };
        match told {
            Ok(()) => {}
            // It ends, or does not listen yet.
            Err(e) if e.class == Class::Unavailable => {}
            // It does not understand; every farm understands the signal.
            Err(e) => {
                match holder(&config.home).filter(|pid| *pid == old).and_then(Pid::from_raw) {
                    Some(pid) => match rustix::process::kill_process(pid, Signal::USR1) {
                        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                        Err(_) => return Err(e),
                    },
                    None => return Ok(()),
                }
            }
        }
        tokio::time::sleep(STILL_THERE).await;
    }
    Ok(())
}

async fn start(farm: &Farm, config: &Config) -> Result<Opening, Failure> {
    worker::sandbox::check_machine()?;
    let mut child = spawn(config)?;
    let began = Instant::now();
    let mut wait = Duration::from_millis(2);
    loop {
        if let Ok(opening) = farm.open(Service::Admin).await {
            return Ok(opening);
        }
        match child.try_wait() {
            // Another client was faster: its farm is the one, unless it has ended already.
            Ok(Some(status))
                if status.code() == Some(i32::from(ALREADY_RUNNING))
                    && holder(&config.home).is_none() =>
            {
                child = spawn(config)?;
            }
            Ok(Some(status)) => {
                let message = format!("The farm could not start ({status})");
                return Err(Failure::new(Class::Unavailable, with_log(message, config)));
            }
            _ => {}
        }
        let is_ending = holder(&config.home).is_some_and(|pid| pid != child.id() as i32);
        if began.elapsed() > START_WAIT && !is_ending {
            let message = format!("The farm does not answer after {} s", START_WAIT.as_secs());
            return Err(Failure::new(Class::Unavailable, with_log(message, config)));
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_millis(100));
    }
}

fn with_log(message: String, config: &Config) -> String {
    let path = log_file(&config.home);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(5)..].join("\n  ");
    format!("{message}. The end of {}:\n  {tail}", path.display())
}

fn spawn(config: &Config) -> Result<Child, Failure> {
    let failed = |e: io::Error| {
        let home = config.home.display();
        Failure::new(Class::Unavailable, format!("Starting the farm at {home} failed: {e}"))
    };
    std::fs::create_dir_all(&config.home).map_err(failed)?;
    let log = std::fs::File::options().append(true).create(true).open(log_file(&config.home));
    let log = log.map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    let exe = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(exe);
    command.args(ON_DEMAND).stdin(Stdio::null()).stdout(log).stderr(errors);
    if let Some(file) = &config.file {
        command.arg("--config").arg(file);
    }
    command.env("SLIPWAY_HOME", &config.home).current_dir("/");
    use std::os::unix::process::CommandExt;
    // In a session of its own: Ctrl-C in this terminal is for the client.
    command.process_group(0);
    command.spawn().map_err(failed)
}
