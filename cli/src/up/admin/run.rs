//! `slipway run`: a container of an image.

use super::blocking;
use crate::error::user;
use crate::talk::Talk;
use crate::up::door::House;
use bytes::Bytes;
use cache::store::Image;
use proto::error::{Class, Failure};
use proto::id::{RootId, Scope};
use proto::step::{NetworkMode, RunOp, SecurityMode};
use proto::wire::admin::{Input, Reply, Run};
use proto::wire::build::Stream;
use rustix::pipe::PipeFlags;
use rustix::process::Signal;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};
use worker::rootfs::Stack;
use worker::sandbox::{Canceller, Exited, Inputs, Io, Limits, Order, Sandbox, SandboxError};

/// The PATH of images that set none. Docker's.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Exit codes of `docker run` for containers that never ran.
const NOT_MADE: i32 = 125;
const NOT_RUNNABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// `Request::Run`.
pub async fn run(house: &House, talk: &mut Talk, run: Run) -> Result<(), Failure> {
    let images = house.parts.coordinator.images(Scope::trusted());
    let images = images.narrowed(talk.scope.as_deref())?;
    let (image, _) = images.find(&run.image).await?;
    let config = images.config(&image).await?;
    let stack = house.parts.worker.stack_of(&layers(&image)?).await?;
    let mut op = order(&run, &config, &hostname(house))?;
    op.network = house.parts.worker.network(op.network);
    let code = container(house, talk, &run, op, stack).await?;
    talk.say(Reply::Exited(code)).await;
    Ok(())
}

fn layers(image: &Image) -> Result<Vec<RootId>, Failure> {
    let gone = || {
        let message = format!("Not all layers of the image {} are here", image.id.short());
        Failure::new(Class::Unavailable, message).hint("Pull or build the image again.")
    };
    image.layers.iter().map(|layer| layer.diff.ok_or_else(gone)).collect()
}

/// A name for the container, as Docker gives one.
fn hostname(house: &House) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let text = format!("{} {} {number}", std::process::id(), house.started.0);
    blake3::hash(text.as_bytes()).to_hex()[..12].to_owned()
}

/// A list of texts of an image's config.
fn texts(config: &Value, key: &str) -> Vec<String> {
    let list = config.get(key).and_then(Value::as_array);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    list.into_iter().flatten().filter_map(text).collect()
}

/// What is run: what the image says, and the person overrides. Pure.
fn order(run: &Run, config: &Value, hostname: &str) -> Result<RunOp, Failure> {
    let config = config.get("config").unwrap_or(&Value::Null);
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut args = match &run.entrypoint {
        Some(entrypoint) => entrypoint.clone(),
        None => texts(config, "Entrypoint"),
    };
    // With another entrypoint the image's arguments make no sense.
    args.extend(match (run.args.is_empty(), &run.entrypoint) {
        (true, None) => texts(config, "Cmd"),
        _ => run.args.clone(),
    });
    if args.is_empty() {
        return Err(user("The image says no command, and none was given")
            .hint("Name one: slipway run IMAGE COMMAND."));
    }
    let mut env: Vec<(String, String)> =
        vec![("PATH".into(), PATH.into()), ("HOSTNAME".into(), hostname.into())];
    let own = texts(config, "Env").into_iter().map(|line| match line.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (line, String::new()),
    });
    for (name, value) in own.chain(run.env.iter().cloned()) {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => env.push((name, value)),
        }
    }
    let cwd = match &run.workdir {
        Some(dir) if !dir.starts_with('/') => {
            return Err(user(format!("--workdir `{dir}`: expected an absolute path")));
        }
        Some(dir) => dir.clone(),
        None => Some(text("WorkingDir")).filter(|dir| !dir.is_empty()).unwrap_or("/".into()),
    };
    let network = match run.network.as_str() {
        "none" => NetworkMode::None,
        "host" => NetworkMode::Host,
        "" | "default" => NetworkMode::Default,
        other => return Err(user(format!("There is no network `{other}`"))),
    };
    Ok(RunOp {
        args,
        env,
        cwd,
        user: run.user.clone().unwrap_or_else(|| text("User")),
        network,
        security: SecurityMode::Sandbox,
        mounts: Vec::new(),
        hostname: hostname.to_owned(),
        extra_hosts: Vec::new(),
        ulimits: Vec::new(),
        shm_bytes: 0,
        cgroup_parent: String::new(),
        devices: Vec::new(),
        proxy_env: Vec::new(),
    })
}

/// Has the container killed when the person has gone.
struct KillOnDrop(Canceller);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Our ends of the container's input and output.
struct Pipes {
    stdin: Option<File>,
    stdout: File,
    stderr: File,
}

fn pipes(interactive: bool) -> std::io::Result<(Pipes, [OwnedFd; 3])> {
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (stdin, their_stdin) = match interactive {
        true => {
            let (read, write) = pipe()?;
            (Some(File::from(write)), read)
        }
        false => (None, OwnedFd::from(File::open("/dev/null")?)),
    };
    let ((stdout, their_stdout), (stderr, their_stderr)) = (pipe()?, pipe()?);
    let ours = Pipes { stdin, stdout: stdout.into(), stderr: stderr.into() };
    Ok((ours, [their_stdin, their_stdout, their_stderr]))
}

/// How a container is reached while it runs.
struct Handle {
    canceller: Canceller,
    process: Option<OwnedFd>,
}

/// Runs it; answers its exit code. What it changed is thrown away.
async fn container(
    house: &House,
    talk: &mut Talk,
    run: &Run,
    op: RunOp,
    stack: Stack,
) -> Result<i32, Failure> {
    let failed = |e: std::io::Error| {
        Failure::new(Class::Busy, format!("Making pipes for the container failed: {e}"))
    };
    let (pipes, theirs) = pipes(run.interactive).map_err(failed)?;
    let sandbox = house.parts.worker.sandbox().clone();
    let memory_bytes = Some(run.memory_bytes).filter(|bytes| *bytes > 0);
    let (started, handle) = oneshot::channel();
    let work = move || start(&sandbox, &op, &stack, memory_bytes, theirs, started);
    let mut running = Box::pin(blocking(work));
    let outputs = [
        read(pipes.stdout, Stream::Stdout, talk.out.clone()),
        read(pipes.stderr, Stream::Stderr, talk.out.clone()),
    ];
    let handle = tokio::select! {
        handle = handle => handle,
        early = &mut running => return early.map(|exited| exited.outcome().exit_code()),
    };
    let Ok(Handle { canceller, process }) = handle else {
        return running.await.map(|exited| exited.outcome().exit_code());
    };
    let _kill = KillOnDrop(canceller);
    let (_, none) = mpsc::channel(1);
    let inputs = std::mem::replace(&mut talk.inputs, none);
    let forwarding = tokio::spawn(forward(inputs, process, pipes.stdin));
    let exited = running.await;
    forwarding.abort();
    // All that it wrote comes before its exit code.
    for output in outputs {
        let _ = output.await;
    }
    exited.map(|exited| exited.outcome().exit_code())
}

fn start(
    sandbox: &Sandbox,
    op: &RunOp,
    stack: &Stack,
    memory_bytes: Option<u64>,
    files: [OwnedFd; 3],
    started: oneshot::Sender<Handle>,
) -> Result<Exited, Failure> {
    let limits = Limits { memory_bytes, ..Limits::default() };
    let order = Order { op, root: stack, inputs: Inputs::default(), limits, timeout: None };
    let prepared = sandbox.prepare(order).map_err(|e| not_run(&e))?;
    let mut running = prepared.start(Io::Files(files)).map_err(|e| not_run(&e))?;
    let process = running.process().and_then(|fd| fd.try_clone_to_owned().ok());
    let _ = started.send(Handle { canceller: running.canceller(), process });
    running.wait().map_err(|e| not_run(&e))
}

/// A container that did not run, with the exit code that Docker gives for it.
fn not_run(error: &SandboxError) -> Failure {
    let mut failure = error.failure();
    failure.exit_code = Some(match error {
        SandboxError::NoProgram { why, .. } if why.contains("ermission") => NOT_RUNNABLE,
        SandboxError::NoProgram { why, .. } if why.contains("format") => NOT_RUNNABLE,
        SandboxError::NoProgram { .. } => NOT_FOUND,
        _ => NOT_MADE,
    });
    failure
}

/// Sends on what the container writes, until nobody in it can write any more.
fn read(
    mut from: File,
    stream: Stream,
    out: mpsc::Sender<(Reply, Bytes)>,
) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let piece = Bytes::copy_from_slice(&buffer[..count]);
            if out.blocking_send((Reply::Output(stream), piece)).is_err() {
                return;
            }
        }
    })
}

/// Hands on what the person sends: input and signals.
async fn forward(
    mut inputs: mpsc::Receiver<(Input, Bytes)>,
    process: Option<OwnedFd>,
    stdin: Option<File>,
) {
    // A container that does not read must not keep signals from it.
    let (pieces, mut queue) = mpsc::unbounded_channel::<Bytes>();
    let mut pieces = Some(pieces);
    tokio::task::spawn_blocking(move || {
        let Some(mut stdin) = stdin else { return };
        while let Some(piece) = queue.blocking_recv() {
            if stdin.write_all(&piece).is_err() {
                return;
            }
        }
    });
    while let Some((input, payload)) = inputs.recv().await {
        match input {
            Input::Data => pieces.iter().for_each(|pieces| drop(pieces.send(payload.clone()))),
            Input::End => pieces = None,
            Input::Signal(number) => {
                let signal = Signal::from_named_raw(number);
                if let (Some(process), Some(signal)) = (&process, signal) {
                    let _ = rustix::process::pidfd_send_signal(process, signal);
                }
            }
            Input::Login(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(change: impl FnOnce(&mut Run)) -> Run {
        let mut run = Run {
            image: "app".into(),
            args: Vec::new(),
            entrypoint: None,
            env: Vec::new(),
            user: None,
            workdir: None,
            network: "default".into(),
            memory_bytes: 0,
            interactive: false,
        };
        change(&mut run);
        run
    }

    fn config() -> Value {
        json!({"config": {
            "Entrypoint": ["/bin/app"], "Cmd": ["serve"], "Env": ["A=1", "PATH=/bin"],
            "WorkingDir": "/srv", "User": "app",
        }})
    }

    fn made(change: impl FnOnce(&mut Run)) -> RunOp {
        order(&asked(change), &config(), "host").unwrap()
    }

    #[test]
    fn the_image_says_what_is_run_unless_the_person_does() {
        assert_eq!(made(|_| {}).args, ["/bin/app", "serve"]);
        assert_eq!(made(|r| r.args = vec!["x".into()]).args, ["/bin/app", "x"]);
        assert_eq!(made(|r| r.entrypoint = Some(vec!["sh".into()])).args, ["sh"]);
        let none = made(|r| (r.entrypoint, r.args) = (Some(vec![]), vec!["ls".into()]));
        assert_eq!(none.args, ["ls"]);
        let op = made(|r| r.env = vec![("A".into(), "2".into()), ("B".into(), "3".into())]);
        let env: Vec<String> = op.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(env, ["PATH=/bin", "HOSTNAME=host", "A=2", "B=3"]);
        assert_eq!((op.cwd.as_str(), op.user.as_str()), ("/srv", "app"));
        let op = made(|r| (r.workdir, r.user) = (Some("/x".into()), Some("0".into())));
        assert_eq!((op.cwd.as_str(), op.user.as_str()), ("/x", "0"));
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let empty = json!({});
        assert!(order(&asked(|_| {}), &empty, "h").unwrap_err().message.contains("no command"));
        let relative = asked(|r| r.workdir = Some("x".into()));
        assert!(order(&relative, &config(), "h").is_err());
        assert!(order(&asked(|r| r.network = "x".into()), &config(), "h").is_err());
    }
}
