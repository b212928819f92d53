//! `slipway up`: the farm of this machine, coordinator, worker and cache in one process.
//!
//! `slipway build` and the others start it on demand (`up --on-demand`) and find it by its socket.
//! Whoever holds the lock file ([`lock`]) is the farm; [`life`] says when it ends; [`parts`] is what
//! it is made of; [`door`] serves who comes, [`admin`] all that is not a build.
//!
//! Signals: `SIGTERM` and `SIGINT` end it, cancelling builds; `SIGUSR1` ends it after its builds.

pub mod admin;
pub mod door;
mod life;
pub mod lock;
mod parts;
pub mod settings;

use crate::args::Up;
use crate::error::user;
use crate::farm;
use crate::print::tell;
use cache::net::unix::Listener;
use door::House;
use life::{Life, Shared, Verdict};
use lock::Lock;
use ops::config::Config;
use parts::Parts;
use proto::error::{Class, Failure};
use proto::id::Millis;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

/// The argument that makes this program a helper of the sandbox's.
pub const HELPER: &str = "container-helper";

/// The exit code when another farm of the same state directory answers already.
pub const ALREADY_RUNNING: u8 = 75;

/// How often one looks whether another farm has ended.
const LOCK_WAIT: Duration = Duration::from_millis(20);

/// Runs the farm until it ends; answers the exit code.
pub async fn run(args: Up, config: Config) -> Result<u8, Failure> {
    if let Some(point) = std::env::var("SLIPWAY_CRASH_AT").ok().filter(|p| !p.is_empty()) {
        cache::crash::arm(point.parse().map_err(|e: cache::crash::BadPoint| user(e.to_string()))?);
    }
    worker::sandbox::check_machine()?;
    make_home(&config.home).map_err(|e| failed("Making", &config.home, &e))?;
    let Some(lock) = take_lock(&config, args.on_demand).await? else {
        // A client that was a little slower than another one is no news.
        if !args.on_demand {
            tell!("A farm runs at {} already.", config.home.display());
        }
        return Ok(ALREADY_RUNNING);
    };
    if args.on_demand {
        keep_log(&farm::log_file(&config.home));
    }
    let mut signals =
        Signals::new().map_err(|e| failed("Watching for", Path::new("signals"), &e))?;
    let plan = settings::plan(&args, &config)?;
    let idle = args.idle.or(args.on_demand.then_some(config.idle));
    let parts = Parts::start(plan).await?;
    let socket = farm::socket(&config.home);
    let listener = Listener::bind(&socket).map_err(|e| failed("Listening at", &socket, &e))?;
    if !args.on_demand {
        tell!("Slipway's farm is up, at {}. Ctrl-C ends it.", socket.display());
    }
    let life = Shared::new(Life::new(idle, Instant::now()));
    let started = Millis(crate::clock::now_ms());
    let house = Arc::new(House { parts, life, started });
    serve(&house, listener, &mut signals).await;
    end(house, &mut signals).await;
    drop(lock);
    Ok(0)
}

fn failed(action: &str, path: &Path, error: &io::Error) -> Failure {
    let message = format!("{action} {} failed: {error}", path.display());
    Failure::new(Class::Unavailable, message)
}

/// What an earlier farm said is put aside: it may have said why it ended. Without it this one's words
/// follow those.
fn keep_log(path: &Path) {
    let aside = std::fs::copy(path, path.with_extension("log.old"));
    let log = aside.and_then(|_| std::fs::File::options().write(true).open(path));
    let _ = log.and_then(|file| file.set_len(0));
}

/// The state directory: nobody else's business.
pub fn make_home(home: &Path) -> io::Result<()> {
    std::fs::create_dir_all(home)?;
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o700))
}

/// The lock; none when a farm answers that has it. One that is ending is waited for.
async fn take_lock(config: &Config, wait: bool) -> Result<Option<Lock>, Failure> {
    loop {
        let taken = Lock::take(&config.home);
        let path = config.home.join("farm.lock");
        if let Some(lock) = taken.map_err(|e| failed("Locking", &path, &e))? {
            return Ok(Some(lock));
        }
        if !wait || farm::Farm::running(config).await.is_some() {
            return Ok(None);
        }
        tokio::time::sleep(LOCK_WAIT).await;
    }
}

/// What a farm or a role is told by signals.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    finish: Signal,
    /// The terminal has gone: the farm stays.
    _hangup: Signal,
}

impl Signals {
    /// Hears them from now on.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            finish: signal(SignalKind::user_defined1())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends the farm; answers whether its work is to be finished first.
    pub async fn end(&mut self) -> bool {
        self.next().await == Asked::Finish
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.finish.recv() => Asked::Finish,
        }
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// `SIGINT`: to end.
    Interrupt,
    /// `SIGTERM`: to end, as a service is told to.
    Terminate,
    /// `SIGUSR1`: to end when the work is done.
    Finish,
}

/// Serves who comes, until the farm is to end.
async fn serve(house: &Arc<House>, listener: Listener, signals: &mut Signals) {
    let mut streams = JoinSet::new();
    let mut listener = Some(listener);
    loop {
        let until = match house.life.verdict() {
            Verdict::End => break,
            Verdict::Finish => {
                // The next farm can take the socket's place.
                listener = None;
                None
            }
            Verdict::Stay(until) => until,
        };
        let comes = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        let idle = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stream = comes => match stream {
                Ok(stream) => {
                    let house = house.clone();
                    streams.spawn(async move {
                        if let Err(e) = door::serve(house, stream).await {
                            tracing::debug!("a client's stream broke: {e}");
                        }
                    });
                }
                Err(e) => {
                    tracing::warn!("a client could not connect: {e}");
                    // Too many open files, mostly: it passes.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = streams.join_next(), if !streams.is_empty() => {}
            () = idle => {}
            () = house.life.changed() => {}
            after_works = signals.end() => house.life.end(after_works),
        }
    }
    drop(listener);
    house.parts.cancel_builds().await;
    streams.shutdown().await;
}

/// Ends the parts; a second signal does not wait for it.
async fn end(house: Arc<House>, signals: &mut Signals) {
    let Ok(house) = Arc::try_unwrap(house) else {
        return tracing::warn!("the farm ends while a client is being served");
    };
    // That it is to end when the work is done is said by each newer client that comes.
    let told = async { while signals.next().await == Asked::Finish {} };
    tokio::select! {
        () = house.parts.end() => {}
        () = told => tracing::warn!("the farm ends at once; the next start cleans up"),
    }
}
