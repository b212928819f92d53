//! `slipway run`.

use crate::args::image::Run;
use crate::build::{Place, full_name, write_archive};
use crate::error::user;
use crate::farm::{Farm, broke};
use crate::images::{familiar, load_file, transfer, transfer_with};
use crate::print::tell;
use bytes::Bytes;
use cache::net::{NetError, Sender};
use ops::config::Config;
use proto::error::{Class, Failure};
use proto::wire::Service;
use proto::wire::admin::{self, Input, Reply, Request};
use proto::wire::build::{ArchiveFormat, Stream};
use std::io::{Read, Write};
use tokio::sync::mpsc;

/// Runs a container; answers its exit code. Containers run on this machine: an image of a farm is
/// fetched first.
pub async fn run(farm: Farm, mut args: Run, config: &Config) -> Result<u8, Failure> {
    if !farm.is_remote() {
        return run_here(&farm, args).await;
    }
    let here = Farm::connect(config).await.map_err(|mut failure| {
        failure.message = format!("Containers run on this machine: {}", failure.message);
        match failure.hint {
            Some(_) => failure,
            None => failure.hint("Docker can run the image: slipway save IMAGE | docker load"),
        }
    })?;
    let name = args.image_and_args.first().cloned().unwrap_or_default();
    if let Some(id) = fetch(&farm, &here, &name).await? {
        args.image_and_args[0] = id;
    }
    run_here(&here, args).await
}

/// Brings an image of a farm into this machine's own store, if it is not there; answers its id. None
/// when the farm has no such image: its registry may have it.
async fn fetch(farm: &Farm, here: &Farm, name: &str) -> Result<Option<String>, Failure> {
    let id = match image_id(farm, name).await {
        Ok(id) => id,
        Err(failure) if failure.class == Class::User => return Ok(None),
        Err(failure) => return Err(failure),
    };
    if image_id(here, &id).await.is_ok() {
        return Ok(Some(id));
    }
    tell!("The image {} is the farm's; fetching it.", familiar(name));
    let mut found = None;
    // By its id: it gets none of its names here.
    let request = Request::Save { names: vec![id.clone()], format: ArchiveFormat::Oci };
    transfer_with(farm, &request, true, |reply| {
        if let Reply::Entries(entries) = reply {
            found = Some(entries);
        }
    })
    .await?;
    let entries = found.ok_or_else(|| Failure::new(Class::Bug, "The farm sent no archive"))?;
    let file = tempfile::NamedTempFile::new();
    let file = file.map_err(|e| user(format!("Making a file for the image failed: {e}")))?;
    write_archive(&farm.blobs, entries, &Place::File(file.path().to_owned())).await?;
    load_file(here, file.path(), |_| {}).await?;
    Ok(Some(id))
}

async fn image_id(farm: &Farm, name: &str) -> Result<String, Failure> {
    let mut id = None;
    farm.ask(&Request::Inspect(name.to_owned()), |reply, _| {
        if let Reply::Text(text) = reply {
            let about = serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default();
            id = about["Id"].as_str().map(str::to_owned);
        }
    })
    .await?;
    id.ok_or_else(|| Failure::new(Class::Bug, "The farm says nothing about the image"))
}

async fn run_here(farm: &Farm, args: Run) -> Result<u8, Failure> {
    if args.tty {
        tell!("WARNING: -t has no effect: containers have no terminal of their own");
    }
    let env = args.env.iter().filter_map(|e| match e.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => std::env::var(e).ok().map(|value| (e.clone(), value)),
    });
    let mut words = args.image_and_args.into_iter();
    let image = words.next().unwrap_or_default();
    bring(farm, &image).await?;
    let request = admin::Run {
        image,
        args: words.collect(),
        entrypoint: args.entrypoint.map(|e| if e.is_empty() { vec![] } else { vec![e] }),
        env: env.collect(),
        user: args.user,
        workdir: args.workdir,
        network: args.network,
        memory_bytes: args.memory.unwrap_or(0),
        interactive: args.interactive,
    };
    let mut stream = farm.open(Service::Admin).await?.stream;
    stream.to.send(&farm.asked(Request::Run(Box::new(request)))).await?;
    let (input, queue) = mpsc::channel(8);
    tokio::spawn(write(stream.to, queue));
    if args.interactive {
        let input = input.clone();
        std::thread::spawn(move || read_stdin(&input));
    }
    let impatient = signals(input);
    tokio::pin!(impatient);
    loop {
        let (reply, payload) = tokio::select! {
            reply = stream.from.expect::<Reply>() => reply.map_err(broke)?,
            () = &mut impatient => return Ok(CANCELLED),
        };
        match reply {
            Reply::Output(Stream::Stdout) => show(&mut std::io::stdout(), &payload),
            Reply::Output(Stream::Stderr) => show(&mut std::io::stderr(), &payload),
            Reply::Exited(code) => return Ok(u8::try_from(code).unwrap_or(255)),
            Reply::Failed(failure) => {
                let code = failure.exit_code.and_then(|code| u8::try_from(code).ok());
                let Some(code) = code else { return Err(failure) };
                crate::error::show(&failure);
                return Ok(code);
            }
            other => {
                return Err(Failure::new(Class::Bug, format!("The farm answered {other:?}")));
            }
        }
    }
}

/// Pulls an image that is not here. What may be the beginning of an id is none that a registry has.
async fn bring(farm: &Farm, image: &str) -> Result<(), Failure> {
    let found = farm.ask(&Request::Inspect(image.to_owned()), |_, _| {}).await;
    let may_be_id = image.bytes().all(|b| b.is_ascii_hexdigit()) || image.starts_with("sha256:");
    match found {
        Err(failure) if failure.class == Class::User && !may_be_id => {
            let reference = full_name(image)?;
            tell!("The image {} is not here; pulling it.", familiar(&reference));
            let request = Request::Pull { reference, platform: None };
            transfer(farm, &request, false).await.map(drop)
        }
        found => found,
    }
}

/// A reader that has gone (`| head`) is no reason to stop the container.
fn show(out: &mut dyn Write, bytes: &[u8]) {
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

async fn write(mut to: Sender, mut queue: mpsc::Receiver<(Input, Bytes)>) -> Result<(), NetError> {
    while let Some((input, payload)) = queue.recv().await {
        to.send_with(&input, &[payload]).await?;
    }
    Ok(())
}

fn read_stdin(input: &mpsc::Sender<(Input, Bytes)>) {
    let mut stdin = std::io::stdin().lock();
    loop {
        let mut piece = vec![0; 64 << 10];
        match stdin.read(&mut piece) {
            Ok(0) | Err(_) => {
                let _ = input.blocking_send((Input::End, Bytes::new()));
                return;
            }
            Ok(n) => {
                piece.truncate(n);
                if input.blocking_send((Input::Data, piece.into())).is_err() {
                    return;
                }
            }
        }
    }
}

/// The exit code of what Ctrl-C ended.
const CANCELLED: u8 = 130;

/// So many of them, and the container is no longer asked. Docker's.
const IMPATIENCE: u32 = 3;

/// Signals go to the container; it decides what becomes of it. The third one ends this process, and
/// with its stream the container.
async fn signals(input: mpsc::Sender<(Input, Bytes)>) {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [Ok(mut int), Ok(mut term), Ok(mut hup)] = kinds.map(signal) else {
        return std::future::pending().await;
    };
    for _ in 0..IMPATIENCE {
        let number = tokio::select! {
            _ = int.recv() => SignalKind::interrupt(),
            _ = term.recv() => SignalKind::terminate(),
            _ = hup.recv() => SignalKind::hangup(),
        };
        let signal = Input::Signal(number.as_raw_value());
        let _ = input.send((signal, Bytes::new())).await;
    }
}
