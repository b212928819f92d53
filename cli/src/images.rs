//! The commands around images.

use crate::args::image::{History, Images, Inspect, Load, Pull, Push, Remove, Save, Tag};
use crate::build::{Place, full_name, write_archive};
use crate::clock;
use crate::error::{io, user};
use crate::farm::{Farm, broke};
use crate::print::say;
use crate::table::Table;
use bytes::Bytes;
use proto::error::{Class, Failure};
use proto::platform::Platform;
use proto::wire::Service;
use proto::wire::admin::{HistoryEntry, ImageRow, Input, Reply, Request};
use proto::wire::build::ArchiveFormat;
use proto::wire::worker::Moved;
use std::io::{IsTerminal, Read, Write};
use worker::image::manifest::read_time;

/// A name as people know it: without what is understood.
pub fn familiar(reference: &str) -> &str {
    let name = reference.strip_prefix("docker.io/").unwrap_or(reference);
    name.strip_prefix("library/").unwrap_or(name)
}

/// Repository and tag of a name.
fn split(reference: &str) -> (&str, &str) {
    let name = familiar(reference);
    if let Some((name, _)) = name.split_once('@') {
        return (name, "<none>");
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "<none>"),
    }
}

/// `slipway images`.
pub async fn list(farm: &Farm, args: &Images) -> Result<(), Failure> {
    let mut rows: Vec<ImageRow> = Vec::new();
    farm.ask(&Request::Images, |reply, _| {
        if let Reply::Image(row) = reply {
            rows.push(row);
        }
    })
    .await?;
    let wanted = |row: &ImageRow| match (&args.name, &row.reference) {
        (None, _) => true,
        (Some(name), Some(reference)) => {
            let (repository, _) = split(reference);
            repository == familiar(name) || full_name(name).is_ok_and(|n| n == *reference)
        }
        (Some(_), None) => false,
    };
    rows.retain(wanted);
    rows.sort_by(|a, b| b.created.cmp(&a.created).then(a.reference.cmp(&b.reference)));
    let id = |row: &ImageRow| match args.no_trunc {
        true => row.id.to_string(),
        false => row.id.short(),
    };
    if args.quiet {
        let mut ids: Vec<String> = rows.iter().map(id).collect();
        ids.dedup();
        ids.iter().for_each(|id| say!("{id}"));
        return Ok(());
    }
    let now = clock::now_ms();
    let mut table = Table::new(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    for row in &rows {
        let reference = row.reference.as_deref().unwrap_or("<none>");
        let (repository, tag) = split(reference);
        if args.format == "json" {
            let line = serde_json::json!({
                "Repository": repository, "Tag": tag, "ID": row.id.to_string(),
                "Platform": row.platform.to_string(), "Created": row.created.0, "Size": row.size,
            });
            say!("{line}");
            continue;
        }
        let created = clock::ago(row.created.0, now);
        table.row(&[repository, tag, &id(row), &created, &clock::size(row.size)]);
    }
    if args.format != "json" {
        table.print();
    }
    Ok(())
}

/// Prints the texts that a request is answered with.
async fn print(farm: &Farm, request: &Request) -> Result<(), Failure> {
    farm.ask(request, |reply, _| {
        if let Reply::Text(text) = reply {
            say!("{text}");
        }
    })
    .await
}

/// `slipway rmi`.
pub async fn remove(farm: &Farm, args: Remove) -> Result<(), Failure> {
    print(farm, &Request::Remove { names: args.images, force: args.force }).await
}

/// `slipway tag`.
pub async fn tag(farm: &Farm, args: Tag) -> Result<(), Failure> {
    let target = full_name(&args.target)?;
    print(farm, &Request::Tag { source: args.source, target }).await
}

/// `slipway inspect`.
pub async fn inspect(farm: &Farm, args: Inspect) -> Result<(), Failure> {
    let mut all = Vec::new();
    for name in args.images {
        farm.ask(&Request::Inspect(name), |reply, _| {
            if let Reply::Text(text) = reply {
                all.push(serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default());
            }
        })
        .await?;
    }
    let text = serde_json::to_string_pretty(&all).expect("JSON that was read");
    say!("{text}");
    Ok(())
}

/// `slipway history`.
pub async fn history(farm: &Farm, args: History) -> Result<(), Failure> {
    let mut rows: Vec<HistoryEntry> = Vec::new();
    farm.ask(&Request::History(args.image), |reply, _| {
        if let Reply::History(entries) = reply {
            rows = entries;
        }
    })
    .await?;
    let now = clock::now_ms();
    let mut table = Table::new(&["CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for row in rows {
        let by = match args.no_trunc || row.created_by.chars().count() <= 60 {
            true => row.created_by,
            false => row.created_by.chars().take(59).collect::<String>() + "…",
        };
        let at = row.created.as_deref().and_then(read_time);
        let created = at.map_or("N/A".to_owned(), |at| clock::ago(at.0, now));
        table.row(&[&created, &by, &clock::size(row.size), &row.comment]);
    }
    table.print();
    Ok(())
}

/// Shows bytes that are moved, on a terminal.
struct Meter {
    shown: bool,
}

impl Meter {
    fn new(quiet: bool) -> Self {
        Self { shown: !quiet && std::io::stderr().is_terminal() }
    }

    fn moved(&self, moved: &Moved) {
        if !self.shown {
            return;
        }
        let what: String = moved.what.chars().take(19).collect();
        let total = if moved.total > 0 {
            format!(" / {}", clock::size(moved.total))
        } else {
            String::new()
        };
        eprint!("\r\x1b[K{what} {}{total}", clock::size(moved.current));
        if moved.done {
            eprintln!();
        }
    }
}

/// Asks with an answer for each login that is needed.
pub async fn transfer(farm: &Farm, request: &Request, quiet: bool) -> Result<String, Failure> {
    let mut stream = farm.open(Service::Admin).await?.stream;
    stream.to.send(request).await?;
    let (meter, mut text) = (Meter::new(quiet), String::new());
    loop {
        match stream.from.expect::<Reply>().await.map_err(broke)?.0 {
            Reply::Done => return Ok(text),
            Reply::Failed(failure) => return Err(failure),
            Reply::Moved(moved) => meter.moved(&moved),
            Reply::Text(line) => text = line,
            Reply::Ask(host) => {
                let login = crate::login::find(&host)?;
                stream.to.send(&Input::Login(login)).await?;
            }
            other => {
                let message = format!("The farm answered {other:?}");
                return Err(Failure::new(Class::Bug, message));
            }
        }
    }
}

/// `slipway pull`.
pub async fn pull(farm: &Farm, args: Pull) -> Result<(), Failure> {
    let reference = full_name(&args.image)?;
    let platform = match &args.platform {
        None => None,
        Some(text) => Some(Platform::parse(text).map_err(|e| user(format!("--platform: {e}")))?),
    };
    let request = Request::Pull { reference: reference.clone(), platform };
    let digest = transfer(farm, &request, args.quiet).await?;
    if !args.quiet {
        say!("Digest: {digest}");
    }
    say!("{reference}");
    Ok(())
}

/// `slipway push`.
pub async fn push(farm: &Farm, args: Push) -> Result<(), Failure> {
    let reference = full_name(&args.image)?;
    let request = Request::Push { reference: reference.clone() };
    let digest = transfer(farm, &request, args.quiet).await?;
    match args.quiet {
        true => say!("{digest}"),
        false => say!("{reference}: digest: {digest}"),
    }
    Ok(())
}

/// `slipway save`.
pub async fn save(farm: &Farm, args: Save) -> Result<(), Failure> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(user("An archive is not written to a terminal; use -o FILE, or a pipe"));
    }
    let format = match args.format.as_str() {
        "oci" => ArchiveFormat::Oci,
        _ => ArchiveFormat::Docker,
    };
    let mut found = None;
    farm.ask(&Request::Save { names: args.images, format }, |reply, _| {
        if let Reply::Entries(entries) = reply {
            found = Some(entries);
        }
    })
    .await?;
    let entries = found.ok_or_else(|| Failure::new(Class::Bug, "The farm sent no archive"))?;
    let place = args.output.map_or(Place::Stdout, Place::File);
    write_archive(&farm.blobs, entries, &place).await
}

/// Bytes of an archive that are sent at a time.
const PIECE_BYTES: usize = 1 << 20;

/// `slipway load`.
pub async fn load(farm: &Farm, args: Load) -> Result<(), Failure> {
    let mut input: Box<dyn Read + Send> = match &args.input {
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|e| io("Opening", path, &e))?;
            Box::new(file)
        }
        None if std::io::stdin().is_terminal() => {
            return Err(user("There is no archive; use -i FILE, or a pipe"));
        }
        None => Box::new(std::io::stdin()),
    };
    let mut stream = farm.open(Service::Admin).await?.stream;
    stream.to.send(&Request::Load).await?;
    let mut to = stream.to;
    let sending = tokio::spawn(async move {
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                let result = (&mut input).take(PIECE_BYTES as u64).read_to_end(&mut piece);
                (input, result.map(|_| piece))
            });
            let (returned, piece) = read.await.map_err(|e| user(e.to_string()))?;
            input = returned;
            let piece = piece.map_err(|e| user(format!("Reading the archive failed: {e}")))?;
            if piece.is_empty() {
                to.send(&Input::End).await?;
                return Ok::<_, Failure>(to);
            }
            to.send_with(&Input::Data, &[Bytes::from(piece)]).await?;
        }
    });
    let result = loop {
        match stream.from.expect::<Reply>().await {
            Ok((Reply::Done, _)) => break Ok(()),
            Ok((Reply::Failed(failure), _)) => break Err(failure),
            Ok((Reply::Text(line), _)) if !args.quiet => say!("{line}"),
            Ok(_) => {}
            Err(e) => break Err(broke(e)),
        }
    };
    match (result, sending.is_finished()) {
        (Err(failure), false) => {
            sending.abort();
            Err(failure)
        }
        (result, _) => match sending.await {
            Ok(Err(failure)) => Err(failure),
            _ => result,
        },
    }
}

/// `slipway cache prune` asks before it does.
pub fn confirm(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(user("Nobody is there to confirm; use --force"));
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| user(e.to_string()))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_people() {
        assert_eq!(split("docker.io/library/app:latest"), ("app", "latest"));
        assert_eq!(split("127.0.0.1:5000/a/b:1"), ("127.0.0.1:5000/a/b", "1"));
        assert_eq!(split("docker.io/me/app@sha256:00"), ("me/app", "<none>"));
        assert_eq!(split("<none>"), ("<none>", "<none>"));
    }
}
