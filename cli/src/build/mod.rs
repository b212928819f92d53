//! `slipway build`.

mod annotation;
mod archive;
pub mod attach;
pub mod call;
mod context;
mod ended;
mod engine;
mod fields;
mod files;
mod ignore;
mod layout;
mod line;
mod metadata;
mod output;
mod outside;
mod packed;
mod remote;
mod request;
mod secret;
mod ssh;

pub use archive::write as write_archive;
pub use files::{write_directory, write_tar};
pub use output::{Place, Split};
pub use request::full_name;

use crate::args::build::Build;
use crate::error::{WRONG_USAGE, exit_code, io, show, user};
use crate::farm::{Farm, broke};
use crate::print::{say, tell};
use crate::progress::{Display, Mode, Settings, StartError};
use cache::tree::pattern::Patterns;
use cache::{meter, scan};
use context::{Context, Files, MAIN, Named};
use ended::{told, unless_ended};
use line::{Heard, Line, Shown, reattach};
use ops::config::{Config, Fallback};
use output::Target;
use outside::Directories;
use packed::Packed;
use proto::error::{Class, Failure};
use proto::id::{BlobId, OciDigest, RootId};
use proto::platform::Platform;
use proto::secret::SecretBytes;
use proto::wire::build::{
    Answer, Ask, BuildRequest, BuildResult, Event, ImageResult, OutputResult, ToClient,
    ToCoordinator, VertexId, Warning,
};
use proto::wire::worker::Moved;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Builds; answers the exit code.
pub async fn run(args: Build, farm: Option<&str>, config: &Config) -> Result<u8, Failure> {
    if let Some(say) = args.say() {
        return call::instead(&args, say, config).await;
    }
    let mode = match args.quiet {
        true => Mode::Quiet,
        false => args.progress,
    };
    let mut look = Settings::from_env(|name| std::env::var(name).ok());
    look.description = "slipway".to_owned();
    if let Err(failure) = context::check(&args) {
        show(&failure);
        // What is well said, and not there, is no wrong usage.
        return Ok(if failure.class == Class::User { WRONG_USAGE } else { exit_code(&failure) });
    }
    let context = Arc::new(context::read(&args, config).await?);
    let asked = match request::read(&args, &context) {
        Ok(asked) => asked,
        Err(failure) => {
            show(&failure);
            return Ok(WRONG_USAGE);
        }
    };
    unused(&args);
    let farm = match args.fallback.unwrap_or(config.farm.fallback) {
        Fallback::None => unless_ended(Farm::find(farm, config)).await?,
        Fallback::Local => unless_ended(Farm::find_or_local(farm, config)).await?,
    };
    let display = Arc::new(Display::start(mode, &look).map_err(bad_display)?);
    let client = Client {
        farm: farm.clone(),
        context,
        stats: config.home.join("client/stat"),
        display: display.clone(),
        directories: Arc::new(asked.directories),
        sent: Arc::default(),
    };
    let result = client.finish(asked.request, &asked.targets).await;
    farm.leave().await;
    display.finish(&result);
    match result {
        Ok(result) => {
            report(&args, &result)?;
            Ok(0)
        }
        Err(failure) => Ok(exit_code(&failure)),
    }
}

fn bad_display(error: StartError) -> Failure {
    Failure::new(error.class(), error.to_string())
}

/// Says which flags have no effect.
fn unused(args: &Build) {
    let given = [
        ("--provenance", args.provenance.as_ref().is_some_and(|v| wanted(v.as_deref()))),
        ("--sbom", args.sbom.as_ref().is_some_and(|v| wanted(v.as_deref()))),
    ];
    for (flag, _) in given.iter().filter(|(_, given)| *given) {
        tell!("WARNING: {flag} has no effect");
    }
}

fn wanted(value: Option<&str>) -> bool {
    !matches!(value, Some("false" | "0"))
}

/// The client's side of a build: sends the request, answers what is asked, shows what happens.
struct Client {
    farm: Farm,
    context: Arc<Context>,
    stats: PathBuf,
    display: Arc<Display>,
    /// The caches on this machine.
    directories: Arc<Directories>,
    /// Bytes of contexts and caches that were sent.
    sent: Arc<AtomicU64>,
}

impl Client {
    /// Builds, and writes what comes out.
    async fn finish(
        &self,
        request: BuildRequest,
        targets: &[Target],
    ) -> Result<BuildResult, Failure> {
        let mut result = self.build(ToCoordinator::Submit(Box::new(request))).await?;
        let write = async {
            write_outputs(&self.farm, &result, targets).await?;
            let warn = |message| self.warn(message);
            self.directories.write(&self.farm.blobs, &result.caches, warn).await
        };
        let (written, moved) = meter::count(write).await;
        let traffic = &mut result.summary.traffic;
        traffic.context = self.sent.load(Ordering::Relaxed);
        traffic.outputs = moved.inputs;
        written.map(|()| result)
    }

    async fn build(&self, first: ToCoordinator) -> Result<BuildResult, Failure> {
        let (answers, queue) = mpsc::channel::<ToCoordinator>(16);
        let interrupted = interrupt(answers.clone());
        tokio::pin!(interrupted);
        let mut patience = false;
        let mut line = unless_ended(Line::open(&self.farm, &first, queue)).await?;
        let (mut heard, mut shown) = (None, Shown::default());
        loop {
            let message = tokio::select! {
                message = line.from.expect::<ToClient>() => message,
                impatient = &mut interrupted, if !patience => {
                    patience = true;
                    if impatient {
                        return Err(Failure::new(Class::Cancelled, "The build was cancelled"));
                    }
                    continue;
                }
            };
            match message {
                Ok((ToClient::Accepted(build, life), _)) => {
                    let seen = match &heard {
                        Some(Heard { life: before, seen, .. }) if *before == life => *seen,
                        _ => 0,
                    };
                    heard = Some(Heard { build, life, seen });
                }
                Ok((ToClient::Event(number, place, event), _)) => {
                    if let Some(heard) = &mut heard {
                        heard.seen = heard.seen.max(number);
                    }
                    if let Some(news) = shown.news(place, event) {
                        self.display.event(news);
                    }
                }
                Ok((ToClient::Ask(number, ask), _)) => self.answer(number, ask, answers.clone()),
                Ok((ToClient::Finished(result), _)) => return *result,
                Err(e) => {
                    let queue = line.close().await;
                    let Some(heard) = heard.as_ref().filter(|_| self.farm.is_remote()) else {
                        return Err(broke(e));
                    };
                    line = tokio::select! {
                        line = reattach(&self.farm, heard, queue) => line?,
                        _ = &mut interrupted, if !patience => {
                            let message = format!("The build {} was left alone", heard.build);
                            return Err(Failure::new(Class::Cancelled, message));
                        }
                    };
                }
            }
        }
    }

    fn answer(&self, number: u64, ask: Ask, answers: mpsc::Sender<ToCoordinator>) {
        let own = Self {
            farm: self.farm.clone(),
            context: self.context.clone(),
            stats: self.stats.clone(),
            display: self.display.clone(),
            directories: self.directories.clone(),
            sent: self.sent.clone(),
        };
        tokio::spawn(async move {
            let answer = own.look_up(ask).await.unwrap_or_else(Answer::Failed);
            let _ = answers.send(ToCoordinator::Answer(number, answer)).await;
        });
    }

    async fn look_up(&self, ask: Ask) -> Result<Answer, Failure> {
        match ask {
            Ask::Scan { context, paths, vertex } => self.scan(&context, &paths, vertex).await,
            Ask::Layout { context, platform, vertex } => {
                self.layout(&context, platform, vertex).await
            }
            Ask::Secret(id) => {
                let found = self.context.secrets.iter().rfind(|(known, _)| *known == id);
                let secret = found.map(|(_, source)| source.read()).transpose()?;
                Ok(Answer::Secret(secret.map(SecretBytes::from)))
            }
            Ask::Login(host) => {
                let ask = tokio::task::spawn_blocking(move || crate::login::find(&host));
                let login = ask.await.unwrap_or_else(|e| Err(user(e.to_string())))?;
                Ok(Answer::Login(login))
            }
            Ask::SshAgent(id) => Ok(Answer::SshAgent(self.context.agents.has(&id))),
            Ask::Ssh { id, request } => {
                let said = self.context.agents.answer(&id, request.as_bytes()).await?;
                Ok(Answer::Ssh(said.into()))
            }
            Ask::Cache(number) => self.put(self.directories.index(&self.farm.blobs, number)).await,
            Ask::CacheBlobs(number, digests) => {
                self.put(self.directories.blobs(&self.farm.blobs, number, &digests)).await
            }
        }
    }

    /// Puts blobs of a cache, and counts what was sent.
    async fn put(
        &self,
        work: impl Future<Output = Result<Vec<BlobId>, Failure>>,
    ) -> Result<Answer, Failure> {
        let (blobs, moved) = meter::count(work).await;
        self.sent.fetch_add(moved.results, Ordering::Relaxed);
        blobs.map(Answer::Blobs)
    }

    async fn layout(
        &self,
        name: &str,
        platform: Platform,
        vertex: VertexId,
    ) -> Result<Answer, Failure> {
        let named = self.context.named.iter().find(|(known, _)| known == name);
        let Some((_, Named::Layout(layout))) = named else {
            return Err(user(format!("There is no layout `{name}`")));
        };
        let chosen = layout.choose(name, platform).await?;
        let files: Vec<String> = chosen.files.iter().map(OciDigest::hex).collect();
        let root = self.send(&layout.files(), &files, None, vertex).await?;
        Ok(Answer::Layout(root, chosen.manifest))
    }

    async fn scan(
        &self,
        name: &str,
        paths: &[String],
        vertex: VertexId,
    ) -> Result<Answer, Failure> {
        let (directory, ignore) = match (name, &self.context.files) {
            // A `--build-context` of this name stands for nothing.
            (MAIN, Some(Files::Directory(path))) => (path.clone(), self.context.ignore.patterns()?),
            (MAIN, Some(Files::Archive(packed))) => {
                return self.send_archive(packed, vertex).await;
            }
            (MAIN, None) => return Err(user(format!("There is no context `{name}`"))),
            _ => self.named(name)?,
        };
        Ok(Answer::Scanned(self.send(&directory, paths, ignore, vertex).await?))
    }

    /// The directory of a named context, and what its ignore file leaves out.
    fn named(&self, name: &str) -> Result<(PathBuf, Option<Arc<Patterns>>), Failure> {
        match self.context.named.iter().find(|(known, _)| known == name) {
            Some((_, Named::Directory(path, true))) => {
                Ok((path.clone(), ignore::read(path, None)?.patterns()?))
            }
            Some((_, Named::Directory(path, false))) => Ok((path.clone(), None)),
            _ => Err(user(format!("There is no context `{name}`"))),
        }
    }

    /// Sends what the farm has not of an archive.
    async fn send_archive(&self, packed: &Packed, vertex: VertexId) -> Result<Answer, Failure> {
        let sent = Arc::new(AtomicU64::new(0));
        let teller = self.tell(vertex, sent.clone());
        let root = packed.send(&self.farm.blobs, &sent).await;
        teller.abort();
        let root = root.map_err(|e| not_scanned(&e))?;
        self.count(vertex, sent.load(Ordering::Relaxed));
        Ok(Answer::Scanned(root))
    }

    /// Scans a directory, and sends what of it the farm has not.
    async fn send(
        &self,
        directory: &Path,
        paths: &[String],
        ignore: Option<Arc<Patterns>>,
        vertex: VertexId,
    ) -> Result<RootId, Failure> {
        let sent = Arc::new(AtomicU64::new(0));
        let teller = self.tell(vertex, sent.clone());
        let stats = Some(self.stats.as_path());
        let (blobs, top) = (&self.farm.blobs, scan::Top::Context);
        let scanned = scan::send(blobs, directory, top, paths, ignore, stats, sent.clone()).await;
        teller.abort();
        let scanned = scanned.map_err(|e| not_scanned(&e))?;
        self.count(vertex, scanned.sent);
        Ok(scanned.root)
    }

    /// Counts bytes that were sent, and tells that these were all.
    fn count(&self, vertex: VertexId, sent: u64) {
        self.moved(vertex, sent, true);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }

    /// Shows now and then how much was sent.
    fn tell(&self, vertex: VertexId, sent: Arc<AtomicU64>) -> tokio::task::JoinHandle<()> {
        let display = self.display.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                moved(&display, vertex, sent.load(Ordering::Relaxed), false);
            }
        })
    }

    fn warn(&self, message: String) {
        let (rule, detail, url) = Default::default();
        let warning = Warning { rule, message, detail, url, at: None, excerpt: Vec::new() };
        self.display.event(Event::Warning(warning));
    }

    fn moved(&self, vertex: VertexId, bytes: u64, done: bool) {
        moved(&self.display, vertex, bytes, done);
    }
}

fn not_scanned(error: &scan::ScanError) -> Failure {
    let failure = Failure::new(error.class(), format!("The context: {error}"));
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn moved(display: &Display, vertex: VertexId, current: u64, done: bool) {
    let Moved { what, total, .. } =
        Moved { what: "transferring context".to_owned(), current, total: 0, done };
    let at = proto::id::Millis(crate::clock::now_ms());
    display.event(Event::Progress(proto::wire::build::Progress {
        vertex,
        what,
        current,
        total,
        started: at,
        completed: done.then_some(at),
    }));
}

/// Ctrl-C cancels the build, and waits for it to be cleaned up; a second one does not wait.
async fn interrupt(answers: mpsc::Sender<ToCoordinator>) -> bool {
    told(1).await;
    let _ = answers.send(ToCoordinator::Cancel).await;
    told(2).await;
    true
}

/// Writes what belongs on this machine.
async fn write_outputs(
    farm: &Farm,
    result: &BuildResult,
    targets: &[Target],
) -> Result<(), Failure> {
    for (output, target) in result.outputs.iter().zip(targets) {
        match (output, target) {
            (OutputResult::Archive(_, entries), Target::Archive(place)) => {
                archive::write(&farm.blobs, entries.clone(), place).await?;
            }
            (OutputResult::Archive(_, entries), Target::Layout(dir)) => {
                archive::write_layout(&farm.blobs, entries.clone(), dir).await?;
            }
            (OutputResult::Files(made), Target::Directory(dir, split)) => {
                files::write_directory(&farm.blobs, &made.roots, dir, *split).await?;
            }
            (OutputResult::Files(made), Target::Tar(place)) => {
                files::write_tar(&farm.blobs, &made.roots, place).await?;
            }
            (OutputResult::Image(_) | OutputResult::CacheOnly, Target::Farm) => {}
            (output, target) => {
                let message = format!("The farm made {output:?} for {target:?}");
                return Err(Failure::new(
                    Class::Bug,
                    message.chars().take(300).collect::<String>(),
                ));
            }
        }
    }
    Ok(())
}

/// Says what came out, where scripts look for it.
fn report(args: &Build, result: &BuildResult) -> Result<(), Failure> {
    let image = |output: &OutputResult| match output {
        OutputResult::Image(image) | OutputResult::Archive(image, _) => Some(image.clone()),
        OutputResult::Files(_) | OutputResult::CacheOnly => None,
    };
    let image: Option<ImageResult> = result.outputs.iter().find_map(image);
    if let (Some(image), Some(path)) = (&image, &args.iidfile) {
        write_file(path, image.config.to_string().as_bytes())?;
    }
    if let Some(path) = &args.metadata_file {
        write_file(path, metadata::text(&image, &result.summary).as_bytes())?;
    }
    let in_farm = result.outputs.iter().any(|o| matches!(o, OutputResult::Image(_)));
    if let (Some(image), true) = (&image, in_farm)
        && (args.quiet || image.names.is_empty())
    {
        say!("{}", image.config);
    }
    Ok(())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut file = archive::WholeFile::create(path)?;
    std::io::Write::write_all(&mut file, bytes).map_err(|e| io("Writing", path, &e))?;
    file.finish()
}
