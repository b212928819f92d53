//! From flags to a request.

use super::annotation;
use super::context::{Context, Named};
use super::output::{self, Target};
use super::outside::{self, Directories};
use crate::args::build::{Build, Source};
use crate::error::user;
use proto::error::Failure;
use proto::platform::Platform;
use proto::reference::Reference;
use proto::wire::build::{BuildRequest, NamedContext, NoCache, Resources};

/// Everything that the flags say.
pub struct Asked {
    /// What goes to the farm.
    pub request: BuildRequest,
    /// Where each output goes on this machine, in order.
    pub targets: Vec<Target>,
    /// The caches on this machine.
    pub directories: Directories,
}

/// Reads the flags.
pub fn read(args: &Build, context: &Context) -> Result<Asked, Failure> {
    let tags = args.tag.iter().map(|t| full_name(t)).collect::<Result<Vec<_>, _>>()?;
    let (outputs, targets) = output::read(args, &tags)?;
    let caches = outside::read(args)?;
    let no_cache = match (args.no_cache.unwrap_or(false), args.no_cache_filter.as_slice()) {
        (true, []) => NoCache::All,
        (true, _) => {
            return Err(user("--no-cache and --no-cache-filter cannot both be given"));
        }
        (false, []) => NoCache::No,
        (false, stages) => NoCache::Stages(stages.to_vec()),
    };
    let contexts = context.named.iter().map(|(name, named)| {
        let what = match named {
            Named::Directory(..) => NamedContext::Local,
            Named::Image(image) => NamedContext::Image(image.clone()),
            Named::Layout(_) => NamedContext::Layout,
        };
        (name.clone(), what)
    });
    let source = of_source(&args.source, context, contexts.collect())?;
    let annotations = annotation::read(&args.annotation, &outputs, &source.platforms)?;
    let request = BuildRequest {
        labels: pairs("--label", &args.label)?,
        no_cache,
        pull: args.pull.unwrap_or(false),
        network: args.network,
        allow: args.allow.clone(),
        add_hosts: args.add_host.iter().map(|h| host(h)).collect::<Result<_, _>>()?,
        ulimits: args.ulimit.iter().map(|u| ulimit(u)).collect::<Result<_, _>>()?,
        shm_bytes: args.shm_size.unwrap_or(0),
        cgroup_parent: args.cgroup_parent.clone().unwrap_or_default(),
        resources: resources(args)?,
        outputs,
        annotations,
        cache_from: caches.from,
        cache_to: caches.to,
        description: description(args, &tags),
        scope: args.scope.clone(),
        priority: args.priority,
        ..source
    };
    Ok(Asked { request, targets, directories: caches.directories })
}

/// A request that says what is built, and nothing else.
pub fn of_source(
    source: &Source,
    context: &Context,
    contexts: Vec<(String, NamedContext)>,
) -> Result<BuildRequest, Failure> {
    let platforms = source.platform.iter().map(|p| platform(p)).collect::<Result<_, _>>()?;
    Ok(BuildRequest {
        dockerfile: context.dockerfile.clone(),
        dockerfile_name: context.dockerfile_name.clone(),
        target: source.target.clone(),
        platforms,
        build_args: build_args(&source.build_arg, |name| std::env::var(name).ok())?,
        contexts,
        ignore: context.ignore.lines.clone(),
        has_context: context.files.is_some(),
        context_times: context.times.clone(),
        ..BuildRequest::default()
    })
}

/// `os/arch[/variant]`, or `local` for this machine's.
fn platform(text: &str) -> Result<Platform, Failure> {
    match text.eq_ignore_ascii_case("local") {
        true => Ok(Platform::host()),
        false => Platform::parse(text).map_err(|e| user(format!("--platform: {e}"))),
    }
}

/// What `slipway builds` shows.
fn description(args: &Build, tags: &[String]) -> String {
    let mut text = match tags {
        [] => super::remote::without_login(&args.context, &args.context),
        tags => tags.join(", "),
    };
    if let Some(target) = &args.source.target {
        text.push_str(&format!(" ({target})"));
    }
    text
}

/// An image's name in full.
pub fn full_name(name: &str) -> Result<String, Failure> {
    match Reference::parse(name) {
        Ok(reference) => Ok(reference.to_string()),
        Err(e) => Err(user(format!("`{name}` is not a valid image name: {e}"))),
    }
}

/// The variable by which builds are told how late it is (reproducible-builds.org).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// `--build-arg`: without a value it is taken from the environment, where it is set. What the
/// environment says of [`EPOCH`] counts without the flag.
fn build_args(
    given: &[String],
    env: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, Failure> {
    let mut out = Vec::new();
    for arg in given {
        match arg.split_once('=') {
            _ if arg.is_empty() || arg.starts_with('=') => {
                return Err(user(format!("--build-arg `{arg}` has no name")));
            }
            Some((name, value)) => out.push((name.to_owned(), value.to_owned())),
            None => {
                if let Some(value) = env(arg) {
                    out.push((arg.clone(), value));
                }
            }
        }
    }
    if let Some(value) = env(EPOCH).filter(|value| !value.is_empty())
        && out.iter().all(|(name, _)| name != EPOCH)
    {
        out.push((EPOCH.to_owned(), value));
    }
    Ok(out)
}

fn pairs(flag: &str, given: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match name.is_empty() {
            true => Err(user(format!("{flag} `{text}` has no name"))),
            false => Ok((name.to_owned(), value.to_owned())),
        }
    };
    given.iter().map(pair).collect()
}

/// `name:address` or `name=address`.
fn host(text: &str) -> Result<(String, String), Failure> {
    let split = text.find('=').or_else(|| text.find(':'));
    let (name, address) = split.map_or((text, ""), |at| (&text[..at], &text[at + 1..]));
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    let fine = bare == "host-gateway" || bare.parse::<std::net::IpAddr>().is_ok();
    if name.is_empty() || !fine {
        return Err(user(format!("--add-host `{text}`: expected NAME:ADDRESS")));
    }
    Ok((name.to_owned(), bare.to_owned()))
}

/// The limits that `setrlimit` knows.
const LIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`.
fn ulimit(text: &str) -> Result<(String, i64, i64), Failure> {
    let wrong = || user(format!("--ulimit `{text}`: expected NAME=SOFT[:HARD]"));
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    if !LIMITS.contains(&name) {
        let known = LIMITS.join(", ");
        return Err(user(format!("--ulimit: there is no limit `{name}`; there are {known}")));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().ok().filter(|n| *n >= -1).ok_or_else(wrong);
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(user(format!("--ulimit `{text}`: the soft limit is above the hard one")));
    }
    Ok((name.to_owned(), soft, hard))
}

fn resources(args: &Build) -> Result<Resources, Failure> {
    let memory_swap_bytes = match args.memory_swap.as_deref() {
        None => 0,
        Some("-1") => -1,
        Some(text) => match ops::config::bytes(text) {
            Some(bytes) => bytes as i64,
            None => return Err(user(format!("--memory-swap `{text}`: expected a size or -1"))),
        },
    };
    let memory_bytes = args.memory.unwrap_or(0);
    if memory_swap_bytes > 0 && (memory_bytes == 0 || (memory_swap_bytes as u64) < memory_bytes) {
        let why =
            "--memory-swap is memory and swap together: it needs --memory, and at least as much";
        return Err(user(why));
    }
    Ok(Resources {
        memory_bytes,
        memory_swap_bytes,
        cpu_shares: args.cpu_shares.unwrap_or(0),
        cpu_period: args.cpu_period.unwrap_or(0),
        cpu_quota: args.cpu_quota.unwrap_or(0),
        cpuset_cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: args.cpuset_mems.clone().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_flags() {
        assert_eq!(host("db:10.0.0.1").unwrap(), ("db".into(), "10.0.0.1".into()));
        assert_eq!(host("six:::1").unwrap(), ("six".into(), "::1".into()));
        assert_eq!(host("g=host-gateway").unwrap().1, "host-gateway");
        assert!(host("db").is_err() && host(":1.1.1.1").is_err() && host("a:b").is_err());
        assert_eq!(ulimit("nofile=1:2").unwrap(), ("nofile".into(), 1, 2));
        assert_eq!(ulimit("core=-1").unwrap(), ("core".into(), -1, -1));
        for bad in ["nofile", "nofile=x", "nofile=3:2", "no=1", "nofile=-2"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
        assert_eq!(full_name("app").unwrap(), "docker.io/library/app:latest");
        assert!(full_name("A B").is_err());
        assert!(pairs("--label", &["=x".to_owned()]).is_err());
    }

    #[test]
    fn build_arguments_come_from_the_environment() {
        let env = |name: &str| match name {
            "A" => Some("1".to_owned()),
            EPOCH => Some("17".to_owned()),
            _ => None,
        };
        let read = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(|&arg| arg.to_owned()).collect();
            let all = build_args(&given, env).unwrap().into_iter();
            all.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(read(&["A", "B", "C=2=3"]), "A=1 C=2=3 SOURCE_DATE_EPOCH=17");
        assert_eq!(read(&["SOURCE_DATE_EPOCH=5"]), "SOURCE_DATE_EPOCH=5");
        assert_eq!(read(&["SOURCE_DATE_EPOCH="]), "SOURCE_DATE_EPOCH=");
        for bad in ["", "=", "=1"] {
            assert!(build_args(&[bad.to_owned()], env).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_platform_can_be_the_machines_own() {
        assert_eq!(platform("Local").unwrap(), Platform::host());
        assert_eq!(platform("linux/arm64").unwrap().to_string(), "linux/arm64");
        assert!(platform("").is_err());
    }
}
