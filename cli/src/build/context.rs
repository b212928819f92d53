//! Where the files come from: the Dockerfile, the context, named contexts, secrets, ssh agents.

use super::ended::{self, unless_ended};
use super::ignore::{self, Ignore};
use super::layout::Layout;
use super::packed::Packed;
use super::remote::{self, Fetched, What};
use super::secret::{self, SecretSource};
use super::ssh::{self, Agents};
use crate::args::build::{Build, Source};
use crate::error::{io, user};
use crate::print::tell;
use ops::config::Config;
use proto::error::Failure;
use proto::limit;
use proto::reference::Reference;
use proto::wire::build::NamedContext;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// How the main context is called where contexts have names.
pub const MAIN: &str = "context";

/// What a build is made from, on this machine.
pub struct Context {
    /// The Dockerfile's text.
    pub dockerfile: Vec<u8>,
    /// Its name for messages.
    pub dockerfile_name: String,
    /// The same as the person would name it: with the way to it.
    pub dockerfile_path: String,
    /// The context; none when there is only a Dockerfile.
    pub files: Option<Files>,
    /// What the ignore file leaves out.
    pub ignore: Ignore,
    /// When contexts were made, in seconds since 1970, by their names, as far as it is known:
    /// [`MAIN`] for the main one.
    pub times: Vec<(String, i64)>,
    /// `--build-context`.
    pub named: Vec<(String, Named)>,
    /// `--secret`.
    pub secrets: Vec<(String, SecretSource)>,
    /// `--ssh`.
    pub agents: Agents,
    /// Holds what came from elsewhere, for as long as the build goes on.
    _unpacked: Vec<TempDir>,
}

/// What the flags say of the Dockerfile and the context.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    /// The context.
    pub context: &'a str,
    /// The Dockerfile, and what it is given.
    pub source: &'a Source,
    /// Whether nothing is said about what is fetched.
    pub is_quiet: bool,
}

impl<'a> Origin<'a> {
    /// Those of a build.
    pub fn of(args: &'a Build) -> Self {
        Self { context: &args.context, source: &args.source, is_quiet: args.quiet }
    }
}

/// The files of the main context.
pub enum Files {
    /// A directory of this machine.
    Directory(PathBuf),
    /// An archive that was unpacked.
    Archive(Packed),
}

/// What a named context is.
pub enum Named {
    /// A directory of this machine, and whether its ignore file counts.
    Directory(PathBuf, bool),
    /// An image.
    Image(String),
    /// An image in a layout of this machine.
    Layout(Layout),
}

/// Whether the flags that name files and directories are such flags at all.
pub fn check(args: &Build) -> Result<(), Failure> {
    args.secret.iter().try_for_each(|s| secret::parse(s).map(drop))?;
    args.ssh.iter().try_for_each(|s| ssh::parse(s).map(drop))
}

/// Reads the files that the flags name, and fetches what lies elsewhere.
pub async fn read(args: &Build, config: &Config) -> Result<Context, Failure> {
    let origin = Origin::of(args);
    let mut unpacked = Vec::new();
    let (mut named, mut times) = (Vec::new(), Vec::new());
    for text in named_last(&args.source)? {
        let (name, what, time) = find_named(text, origin, config, &mut unpacked).await?;
        times.extend(time.filter(|_| name != MAIN).map(|time| (name.clone(), time)));
        named.push((name, what));
    }
    let secrets = args.secret.iter().map(|s| secret::parse(s)).collect::<Result<Vec<_>, _>>()?;
    let agents = args.ssh.iter().map(|s| ssh::parse(s)).collect::<Result<_, _>>()?;
    let agents = Agents::find(agents)?;
    let mut context = read_main(origin, config).await?;
    context._unpacked.append(&mut unpacked);
    context.times.append(&mut times);
    Ok(Context { named, secrets, agents, ..context })
}

/// Reads the Dockerfile and the main context alone.
pub async fn read_main(origin: Origin<'_>, config: &Config) -> Result<Context, Failure> {
    let Found { files, alone, time, is_fetched, unpacked } = find_main(origin, config).await?;
    let file = origin.source.file.as_deref();
    let (dockerfile, name, place) = match alone {
        Some(text) => (text, "Dockerfile".to_owned(), None),
        None if file == Some("-") => (dockerfile_on_stdin().await?, "Dockerfile".to_owned(), None),
        None => dockerfile(file, files.as_ref(), is_fetched)?,
    };
    let shown = match (&place, file) {
        (None, _) => "stdin".to_owned(),
        (Some(_), Some(file)) => file.to_owned(),
        (Some(_), None) if is_fetched => name.clone(),
        (Some(place), None) => place.strip_prefix(".").unwrap_or(place).display().to_string(),
    };
    // As with BuildKit, nothing is left out of what is fetched, nor of an archive.
    let ignore = match &files {
        Some(Files::Directory(directory)) if !is_fetched => {
            ignore::read(directory, place.as_deref())?
        }
        _ => Ignore::default(),
    };
    Ok(Context {
        dockerfile,
        dockerfile_name: name,
        dockerfile_path: shown,
        files,
        ignore,
        times: time.map(|time| (MAIN.to_owned(), time)).into_iter().collect(),
        named: Vec::new(),
        secrets: Vec::new(),
        agents: Agents::find(Vec::new())?,
        _unpacked: unpacked,
    })
}

/// What the main context was found to be.
#[derive(Default)]
struct Found {
    files: Option<Files>,
    /// The Dockerfile, where there is no other file.
    alone: Option<Vec<u8>>,
    time: Option<i64>,
    /// Whether somebody else made it: names count from its root, and no link in it leads out.
    is_fetched: bool,
    unpacked: Vec<TempDir>,
}

impl Found {
    fn archive(packed: Packed, time: Option<i64>) -> Self {
        let time = time.or(packed.newest);
        Self { files: Some(Files::Archive(packed)), time, is_fetched: true, ..Self::default() }
    }

    fn alone(text: Vec<u8>, time: Option<i64>) -> Self {
        Self { alone: Some(text), time, ..Self::default() }
    }
}

async fn find_main(origin: Origin<'_>, config: &Config) -> Result<Found, Failure> {
    if origin.context == "-" {
        if origin.source.file.as_deref() == Some("-") {
            return Err(user("Standard input cannot be both the context and the Dockerfile"));
        }
        return Ok(match stdin().await? {
            Stdin::Dockerfile(text) => Found::alone(text, None),
            Stdin::Archive(packed) => Found::archive(packed, None),
        });
    }
    if remote::is_remote(origin.context) {
        let Fetched { what, time } = fetch(origin.context, origin, config).await?;
        let file = match what {
            What::File(file) => file,
            What::Files(path, dir) => {
                let (files, unpacked) = (Some(Files::Directory(path)), vec![dir]);
                return Ok(Found { files, time, is_fetched: true, unpacked, ..Found::default() });
            }
        };
        return Ok(match remote::open(origin.context, file).await? {
            remote::Main::Dockerfile(text) => Found::alone(text, time),
            remote::Main::Archive(packed) => Found::archive(packed, time),
        });
    }
    let directory = PathBuf::from(origin.context);
    match std::fs::metadata(&directory) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(user(format!("The context {} is no directory", directory.display()))),
        Err(e) => return Err(io("Opening the context", &directory, &e)),
    }
    Ok(Found { files: Some(Files::Directory(directory)), ..Found::default() })
}

async fn fetch(text: &str, origin: Origin<'_>, config: &Config) -> Result<Fetched, Failure> {
    if !origin.is_quiet {
        tell!("Fetching the context {}", remote::without_login(text, text));
    }
    let keeps = origin.source.build_arg.iter().rev().find_map(|arg| {
        arg.strip_prefix("BUILDKIT_CONTEXT_KEEP_GIT_DIR=")
            .map(|value| matches!(value, "1" | "true"))
    });
    unless_ended(remote::fetch(text, keeps.unwrap_or(false), config)).await
}

/// A `--build-context`, fetched where it lies elsewhere.
async fn find_named(
    text: &str,
    origin: Origin<'_>,
    config: &Config,
    unpacked: &mut Vec<TempDir>,
) -> Result<(String, Named, Option<i64>), Failure> {
    match named(text)? {
        (name, Place::Image(image)) => Ok((name, Named::Image(image), None)),
        (name, Place::Layout(layout)) => Ok((name, Named::Layout(layout), None)),
        (name, Place::Directory(path)) => Ok((name, Named::Directory(path, true), None)),
        (name, Place::Remote(url)) => {
            let Fetched { what, time } = fetch(&url, origin, config).await?;
            let (files, dir, time) = match what {
                What::Files(files, dir) => (files, dir, time),
                What::File(file) => remote::alone(&url, file, time).await?,
            };
            unpacked.push(dir);
            Ok((name, Named::Directory(files, false), time))
        }
    }
}

pub(super) fn read_bounded(from: &mut dyn Read, max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(std::io::Error::other(format!("it is larger than {max} bytes")));
    }
    Ok(bytes)
}

/// The Dockerfile's text, its name, and its path when it has one.
fn dockerfile(
    file: Option<&str>,
    files: Option<&Files>,
    is_fetched: bool,
) -> Result<(Vec<u8>, String, Option<PathBuf>), Failure> {
    let base = match files {
        Some(Files::Directory(directory)) => directory.as_path(),
        _ => Path::new("."),
    };
    let archive = match files {
        Some(Files::Archive(packed)) => Some(packed),
        _ => None,
    };
    let is_there = |path: &Path| match archive {
        Some(packed) => packed.open(&path.to_string_lossy()).is_ok(),
        None => path.symlink_metadata().is_ok(),
    };
    let path = match file {
        Some(file) if archive.is_some() => PathBuf::from(file),
        // The name counts from the root of what was fetched.
        Some(file) if is_fetched => base.join(file),
        Some(file) => PathBuf::from(file),
        None => {
            let base = if archive.is_some() { Path::new("") } else { base };
            let (usual, small) = (base.join("Dockerfile"), base.join("dockerfile"));
            if !is_there(&usual) && is_there(&small) { small } else { usual }
        }
    };
    let name = path.file_name().map_or("Dockerfile".into(), |n| n.to_string_lossy()).into_owned();
    let opened = match archive {
        Some(packed) => packed.open(&path.to_string_lossy()),
        None if path.is_dir() => Err(std::io::ErrorKind::IsADirectory.into()),
        None if is_fetched => open_inside(base, &path).map(boxed),
        None => File::open(&path).map(boxed),
    };
    let mut opened = opened.map_err(|e| {
        if e.kind() == std::io::ErrorKind::IsADirectory {
            return user(format!("The Dockerfile {} is a directory", path.display()));
        }
        let failure = io("Opening the Dockerfile", &path, &e);
        match file {
            None => failure.hint("Name it with `-f` when it is elsewhere."),
            Some(_) => failure,
        }
    })?;
    let text = read_bounded(&mut opened, limit::DOCKERFILE_BYTES_MAX)
        .map_err(|e| io("Reading the Dockerfile", &path, &e))?;
    Ok((text, name, Some(path)))
}

fn boxed(file: File) -> Box<dyn Read + Send> {
    Box::new(file)
}

/// Opens a file of a fetched context: somebody else made it, and no link in it leads out.
fn open_inside(base: &Path, path: &Path) -> std::io::Result<File> {
    let inside = path.strip_prefix(base).unwrap_or(path);
    let real = worker::agent::git::inside(base, &inside.to_string_lossy())?;
    if !std::fs::symlink_metadata(&real)?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    File::open(real)
}

/// Where a named context lies.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Directory(PathBuf),
    Image(String),
    Layout(Layout),
    Remote(String),
}

/// What `--build-context` names, for who looks at no file of it.
pub fn names(source: &Source) -> Result<Vec<(String, NamedContext)>, Failure> {
    let name = |text: &String| {
        named(text).map(|(name, place)| match place {
            Place::Image(image) => (name, NamedContext::Image(image)),
            Place::Layout(_) => (name, NamedContext::Layout),
            Place::Directory(_) | Place::Remote(_) => (name, NamedContext::Local),
        })
    };
    named_last(source)?.into_iter().map(name).collect()
}

/// The `--build-context` that count: of several with one name the last.
fn named_last(source: &Source) -> Result<Vec<&String>, Failure> {
    let mut last: Vec<(String, &String)> = Vec::new();
    for text in source.build_context.iter().filter(|text| !text.is_empty()) {
        let (name, _) = name_and_value(text)?;
        last.retain(|(known, _)| *known != name);
        last.push((name, text));
    }
    Ok(last.into_iter().map(|(_, text)| text).collect())
}

/// `name=value`. The name is one that an image can have, because FROM looks for it as for an image;
/// it is made as short as people write it.
fn name_and_value(text: &str) -> Result<(String, &str), Failure> {
    let Some((name, value)) = text.split_once('=').filter(|(n, v)| !n.is_empty() && !v.is_empty())
    else {
        return Err(user(format!("--build-context `{text}`: expected NAME=VALUE")));
    };
    let full = Reference::parse(name).map_err(|e| {
        user(format!("--build-context `{text}`: `{name}` is not a valid name of a context: {e}"))
    })?;
    let full = full.to_string();
    let short = full.strip_prefix("docker.io/").unwrap_or(&full);
    let short = short.strip_prefix("library/").filter(|n| !n.contains('/')).unwrap_or(short);
    Ok((short.strip_suffix(":latest").unwrap_or(short).to_owned(), value))
}

/// `name=value`, and where that is.
fn named(text: &str) -> Result<(String, Place), Failure> {
    let (name, value) = name_and_value(text)?;
    if let Some(image) = value.strip_prefix("docker-image://") {
        return Ok((name, Place::Image(image.to_owned())));
    }
    if let Some(layout) = value.strip_prefix("oci-layout://") {
        return Ok((name, Place::Layout(Layout::parse(layout, text)?)));
    }
    if remote::is_remote(value) {
        return Ok((name, Place::Remote(value.to_owned())));
    }
    if value.contains("://") {
        return Err(user(format!(
            "--build-context `{text}`: expected a directory, docker-image://IMAGE, oci-layout://DIRECTORY, \
             or the URL of a git repository or an archive"
        )));
    }
    let path = PathBuf::from(value);
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => Ok((name, Place::Directory(path))),
        Ok(_) => Err(user(format!("--build-context `{text}`: {value} is no directory"))),
        Err(e) => Err(io("Opening the context", &path, &e)),
    }
}

enum Stdin {
    Dockerfile(Vec<u8>),
    Archive(Packed),
}

/// Bytes that tell an archive from a Dockerfile: a tar's mark stands at 257.
const HEAD_BYTES: usize = 512;

async fn stdin() -> Result<Stdin, Failure> {
    let failed = |e: std::io::Error| user(format!("Reading standard input failed: {e}"));
    let input = ended::stdin().map_err(failed)?;
    ended::blocking(input, move |mut input| {
        let mut head = Vec::new();
        (&mut input).take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(failed)?;
        if !worker::image::unpack::begins_archive(&head) {
            let rest = limit::DOCKERFILE_BYTES_MAX - head.len();
            head.extend(read_bounded(&mut input, rest).map_err(failed)?);
            return Ok(Stdin::Dockerfile(head));
        }
        let whole = std::io::Cursor::new(head).chain(input);
        Packed::read(whole, "The archive on standard input").map(Stdin::Archive)
    })
    .await
}

async fn dockerfile_on_stdin() -> Result<Vec<u8>, Failure> {
    let failed = |e| user(format!("Reading the Dockerfile from standard input failed: {e}"));
    ended::blocking(ended::stdin().map_err(failed)?, move |mut input| {
        read_bounded(&mut input, limit::DOCKERFILE_BYTES_MAX).map_err(failed)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_named() {
        assert!(
            matches!(named("a=docker-image://alpine").unwrap(), (n, Place::Image(_)) if n == "a")
        );
        assert!(matches!(named("b=/tmp").unwrap().1, Place::Directory(_)));
        assert!(matches!(named("b=oci-layout://lay:1").unwrap().1, Place::Layout(_)));
        assert!(matches!(named("b=https://x/y.git").unwrap().1, Place::Remote(_)));
        for bad in ["a", "=x", "a=", "a=/no/such/dir", "a=oci-layout://x:", "a=other://x", "A=/tmp"]
        {
            assert!(named(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_contexts_with_one_name_the_last_one_counts() {
        let given = ["a=/tmp", "", "b/c:latest=/tmp", "docker.io/library/a:latest=/"];
        let source = Source {
            file: None,
            target: None,
            build_arg: Vec::new(),
            build_context: given.map(str::to_owned).to_vec(),
            platform: Vec::new(),
        };
        let named = named_last(&source).unwrap().into_iter().map(|text| named(text).unwrap());
        let expected = [("b/c", "/tmp"), ("a", "/")]
            .map(|(name, path)| (name.to_owned(), Place::Directory(path.into())));
        assert_eq!(named.collect::<Vec<_>>(), expected);
    }
}
