//! A case's Dockerfile lowered, with the corpus' images in the place of a registry.

use super::case::Case;
use super::image;
use coordinator::dockerfile::{Dockerfile, ParseError, parse};
use coordinator::graph::{Found, FoundFile, Inputs, Lowered, Wanted, layout_reference, lower};
use proto::id::{OciDigest, RootId, TreeId};
use proto::platform::Platform;
use proto::step::Graph;
use proto::wire::build::{BuildRequest, NamedContext, Output};

/// What one build of the case comes to, or the first error as people read it.
pub fn graph(case: &Case) -> Result<Graph, String> {
    let shown = |error: ParseError| error.failure(&case.text).to_string();
    let dockerfile = parse(&case.text, "Dockerfile").map_err(shown)?;
    let request = request(case)?;
    let mut found = Found::default();
    loop {
        let inputs = Inputs {
            dockerfile: &dockerfile,
            request: &request,
            build_platform: &platform("linux/amd64")?,
            found: &found,
        };
        let lowered = lower(inputs, &mut Vec::new());
        match lowered.map_err(|e| e.failure(&case.text).to_string())? {
            Lowered::Draft(draft) => {
                let root = RootId(TreeId::from_bytes([7; 32]));
                let roots = draft.locals.keys().map(|name| (name.clone(), root));
                let roots = roots.collect();
                return Ok(draft.finish(&roots));
            }
            Lowered::Needs(needs) => {
                for need in needs {
                    look_up(case, &dockerfile, need.what, &mut found)?;
                }
            }
        }
    }
}

fn look_up(
    case: &Case,
    dockerfile: &Dockerfile,
    what: Wanted,
    found: &mut Found,
) -> Result<(), String> {
    match what {
        Wanted::Image { reference, platform } => {
            let image = image::find(&reference, &platform);
            let image = image.ok_or_else(|| format!("{reference} for {platform}: not found"))?;
            found.images.insert((reference, platform), image);
        }
        Wanted::Layout { context, platform } => {
            // The corpus has one layout, made of this image.
            let image = image::find("127.0.0.1:5000/conf/busybox:2", &platform);
            let image = image.ok_or_else(|| format!("{context} for {platform}: not found"))?;
            found.images.insert((layout_reference(&context), platform), image);
        }
        Wanted::File { url } => {
            // What the Dockerfile expects, where it says so: the server's files are not looked at.
            let text = String::from_utf8_lossy(&case.text).into_owned();
            let digest = text.split("--checksum=").nth(1).and_then(|rest| {
                OciDigest::parse(rest.split_whitespace().next().unwrap_or_default()).ok()
            });
            let digest = digest.unwrap_or(OciDigest::from_bytes([1; 32]));
            found.files.insert(url, FoundFile { digest, name: None, modified: None });
        }
        Wanted::Commit { remote, reference } => {
            let of_checksum = &dockerfile.stages[0].instructions;
            let is_checked = of_checksum.iter().any(|i| i.text.contains("--checksum"));
            let commit = match is_checked || reference.len() == 40 {
                true => super::case::COMMIT.1.to_owned(),
                false => "2".repeat(40),
            };
            found.commits.insert((remote, reference), commit);
        }
        Wanted::Time(of) => {
            found.times.insert(of, None);
        }
    }
    Ok(())
}

fn platform(text: &str) -> Result<Platform, String> {
    Platform::parse(text).map_err(|e| e.to_string())
}

fn flag<'c>(case: &'c Case, name: &str) -> impl Iterator<Item = &'c str> {
    case.flags.iter().filter_map(move |flag| flag.strip_prefix(name))
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

/// When everything was made that the corpus fetches.
const FETCHED: i64 = 1_700_000_000;

/// The case's flags, as the command line reads them.
fn request(case: &Case) -> Result<BuildRequest, String> {
    let mut build_args = Vec::new();
    for arg in flag(case, "--build-arg=") {
        let of_environment = case.environment.iter().find(|(name, _)| name == arg);
        match (arg.contains('='), of_environment) {
            (true, _) => build_args.push(pair(arg)),
            (false, Some(found)) => build_args.push(found.clone()),
            (false, None) => {}
        }
    }
    let asked = flag(case, "--platform=").flat_map(|list| list.split(','));
    let named: Vec<(String, String)> = flag(case, "--build-context=").map(pair).collect();
    let fetched = named.iter().filter(|(_, value)| value.starts_with("http"));
    let fetched = fetched.map(|(name, _)| name.as_str()).chain(case.fetched.then_some("context"));
    let times = fetched.map(|name| (name.to_owned(), FETCHED)).collect();
    let contexts = named.into_iter().map(|(name, value)| {
        let context = match value.split_once("://") {
            Some(("docker-image", image)) => NamedContext::Image(image.to_owned()),
            Some(("oci-layout", _)) => NamedContext::Layout,
            _ => NamedContext::Local,
        };
        (name, context)
    });
    Ok(BuildRequest {
        dockerfile_name: "Dockerfile".into(),
        target: flag(case, "--target=").next().map(str::to_owned),
        platforms: asked.map(platform).collect::<Result<_, _>>()?,
        build_args,
        labels: flag(case, "--label=").map(pair).collect(),
        contexts: contexts.collect(),
        context_times: times,
        has_context: true,
        outputs: vec![Output::CacheOnly],
        ..BuildRequest::default()
    })
}
