//! The commands around images.

use crate::args::image::{History, Images, Inspect, Load, Pull, Push, Remove, Save, Tag};
use crate::build::{Place, full_name, write_archive};
use crate::clock;
use crate::error::{io, user};
use crate::farm::{Farm, broke};
use crate::print::say;
use crate::table::Table;
use crate::upload::upload;
use proto::error::{Class, Failure};
use proto::platform::Platform;
pub use proto::reference::familiar;
use proto::wire::Service;
use proto::wire::admin::{HistoryEntry, ImageRow, Input, Reply, Request};
use proto::wire::build::ArchiveFormat;
use proto::wire::worker::Moved;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use worker::image::manifest::read_time;

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
        crate::print::remark(&format!("\r\x1b[K{what} {}{total}", clock::size(moved.current)));
        if moved.done {
            crate::print::remark("\n");
        }
    }
}

/// Asks with an answer for each login that is needed; answers the last text.
pub async fn transfer(farm: &Farm, request: &Request, quiet: bool) -> Result<String, Failure> {
    let mut text = String::new();
    transfer_with(farm, request, quiet, |reply| {
        if let Reply::Text(line) = reply {
            text = line;
        }
    })
    .await?;
    Ok(text)
}

/// The same; gives each answer to `take`.
pub async fn transfer_with(
    farm: &Farm,
    request: &Request,
    quiet: bool,
    mut take: impl FnMut(Reply),
) -> Result<(), Failure> {
    let mut stream = farm.open(Service::Admin).await?.stream;
    stream.to.send(&farm.asked(request.clone())).await?;
    let meter = Meter::new(quiet);
    loop {
        match stream.from.expect::<Reply>().await.map_err(broke)?.0 {
            Reply::Done => return Ok(()),
            Reply::Failed(failure) => return Err(failure),
            Reply::Moved(moved) => meter.moved(&moved),
            Reply::Ask(host) => {
                let login = crate::login::find(&host)?;
                stream.to.send(&Input::Login(login)).await?;
            }
            other => take(other),
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
    transfer_with(farm, &Request::Save { names: args.images, format }, true, |reply| {
        if let Reply::Entries(entries) = reply {
            found = Some(entries);
        }
    })
    .await?;
    let entries = found.ok_or_else(|| Failure::new(Class::Bug, "The farm sent no archive"))?;
    let place = args.output.map_or(Place::Stdout, Place::File);
    write_archive(&farm.blobs, entries, &place).await
}

/// `slipway load`.
pub async fn load(farm: &Farm, args: Load) -> Result<(), Failure> {
    let said = |line: String| {
        if !args.quiet {
            say!("{line}");
        }
    };
    match &args.input {
        Some(path) => load_file(farm, path, said).await,
        None if std::io::stdin().is_terminal() => {
            Err(user("There is no archive; use -i FILE, or a pipe"))
        }
        None => take_archive(farm, spooled(std::io::stdin()).await?, said).await,
    }
}

/// Takes the images of an archive; `said` hears of each.
pub async fn load_file(farm: &Farm, path: &Path, said: impl FnMut(String)) -> Result<(), Failure> {
    let file = File::open(path).map_err(|e| io("Opening", path, &e))?;
    let file = match file.metadata().is_ok_and(|about| about.is_file()) {
        true => file,
        false => spooled(file).await?,
    };
    take_archive(farm, file, said).await
}

async fn take_archive(
    farm: &Farm,
    file: File,
    mut said: impl FnMut(String),
) -> Result<(), Failure> {
    let archive = upload(&farm.blobs, file, "the archive").await?;
    farm.ask(&Request::Load(archive), |reply, _| {
        if let Reply::Text(line) = reply {
            said(line);
        }
    })
    .await
}

fn unread(error: std::io::Error) -> Failure {
    user(format!("Reading the archive failed: {error}"))
}

/// What can be read once as a file that can be read again.
async fn spooled(mut from: impl Read + Send + 'static) -> Result<File, Failure> {
    let spool = move || {
        let mut file = tempfile::tempfile()?;
        std::io::copy(&mut from, &mut file)?;
        Ok(file)
    };
    let spooled = tokio::task::spawn_blocking(spool).await;
    spooled.map_err(|e| user(e.to_string()))?.map_err(unread)
}

/// `slipway cache prune` asks before it does.
pub fn confirm(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(user("Nobody is there to confirm; use --force"));
    }
    crate::print::remark(&format!("{question} [y/N] "));
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
