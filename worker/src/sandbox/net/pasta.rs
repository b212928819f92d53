//! A namespace's way out: Debian's `pasta` (package `passt`, <https://passt.top>), a process that
//! takes what comes out of the namespace and makes it into connections of its own. It needs neither
//! routing nor rules on the host.
//!
//! The namespace lives as long as a `cat` in it, whose input is a pipe of ours. So when this
//! process ends, however it ends, so does the `cat`, with it `pasta`, and with that the namespace.

use super::host::Host;
use super::wall::Wall;
use crate::sandbox::SandboxError;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

/// How long it may take to begin.
const READY_WITHIN_SECONDS: i64 = 30;

/// Addresses inside, of a range that no network in use has (RFC 2544): the container's, its
/// gateway's, and where it can ask for names.
const OWN: &str = "198.18.0.2";
const GATEWAY: &str = "198.18.0.1";
const NAMES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 3);

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const HINT: &str = "Install `pasta` (Debian's and Ubuntu's package `passt`), or let RUN have the \
    host's network: `network = \"host\"` under `[run]` in the settings, or SLIPWAY_NETWORK=host";

/// The process. Dropping it ends it.
pub(super) struct Pasta {
    child: Child,
    input: Option<ChildStdin>,
}

impl Drop for Pasta {
    fn drop(&mut self) {
        self.input.take();
        let _ = self.child.kill();
        if let Err(e) = self.child.wait() {
            tracing::debug!(error = %e, "waiting for a container's way out failed");
        }
    }
}

/// Where names are asked for, when the host's servers cannot be reached from inside.
pub(super) fn forwarder(host: &Host) -> Option<IpAddr> {
    host.out4.then_some(IpAddr::V4(NAMES))
}

/// Makes a namespace with a way out.
pub(super) fn start(wall: &Wall) -> Result<(OwnedFd, Pasta), SandboxError> {
    let mut said = rustix::fs::memfd_create("pasta", MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|e| failed(&format!("making room for its words: {e}")))?;
    let spawned = spawn(wall, &said);
    let mut pasta = spawned.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => failed("`pasta`, which containers reach others by, is missing"),
        _ => failed(&format!("starting `pasta`: {e}")),
    })?;
    match pasta.namespace() {
        Ok(namespace) => Ok((namespace, pasta)),
        Err(e) => {
            drop(pasta);
            Err(failed(&format!("`pasta` does not run: {}", reason(&mut said, &e))))
        }
    }
}

fn failed(why: &str) -> SandboxError {
    SandboxError::Network { why: why.to_owned(), hint: Some(HINT.to_owned()) }
}

fn spawn(wall: &Wall, said: &File) -> io::Result<Pasta> {
    let mut command = Command::new("pasta");
    // In the foreground; no port of the host's leads in, none of the namespace's leads out, and
    // the gateway is not the host.
    command.args(["-f", "--config-net", "--no-map-gw", "--runas", "0", "-I", "eth0"]);
    command.args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
    if wall.host.out4 {
        command.args(["-a", OWN, "-n", "24", "-g", GATEWAY, "--dns-forward", &NAMES.to_string()]);
    }
    match (wall.host.out4, wall.host.out6) {
        (true, false) => drop(command.arg("-4")),
        (false, true) => drop(command.arg("-6")),
        _ => {}
    }
    command.args(["--", "cat"]).env_clear().env("PATH", PATH).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said.try_clone()?);
    command.process_group(0);
    let door = wall.door()?;
    let enter = move || Ok(rustix::io::write(&door, b"0").map(drop)?);
    // SAFETY: between fork and exec only write(2) is called. It must be behind the wall before it
    // opens its first socket.
    unsafe { command.pre_exec(enter) };
    let mut child = command.spawn()?;
    let input = child.stdin.take();
    Ok(Pasta { child, input })
}

impl Pasta {
    /// Waits until all is set up: then the `cat` answers.
    fn namespace(&mut self) -> io::Result<OwnedFd> {
        let (Some(input), Some(mut output)) = (&mut self.input, self.child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        input.write_all(b"\n")?;
        let mut fds = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)];
        let limit = Timespec { tv_sec: READY_WITHIN_SECONDS, tv_nsec: 0 };
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&limit)))?;
        if ready == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        output.read_exact(&mut [0])?;
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let inner = children.split_whitespace().next().ok_or(io::ErrorKind::NotFound)?;
        Ok(File::open(format!("/proc/{inner}/ns/net"))?.into())
    }
}

/// The last that it said, but for complaints that there is no system log.
fn reason(said: &mut File, error: &io::Error) -> String {
    let mut text = String::new();
    let read = said.rewind().and_then(|()| said.take(64 << 10).read_to_string(&mut text));
    let mut lines = text.lines().filter(|line| !line.ends_with("to syslog"));
    match (read, lines.next_back()) {
        (Ok(_), Some(line)) => line.trim().to_owned(),
        _ => error.to_string(),
    }
}
