//! Global ARGs, and what `--build-arg` says.

use super::env::Env;
use super::{Answer, Inputs, LowerError, LowerProblem, Need, epoch};
use crate::dockerfile::{Escape, Expander};
use proto::platform::Platform;
use std::collections::{BTreeMap, BTreeSet};

/// `--build-arg`, and the ARGs before the first FROM.
pub(super) struct Args {
    /// `--build-arg`: of two with one name the later counts.
    pub given: BTreeMap<String, String>,
    /// The global ARGs, those of the builder's own first, in order.
    pub global: Env,
    /// Those that stand in the file, in order: without values of the builder's own, and before a
    /// name of a time becomes one.
    pub written: Vec<Written>,
    /// Proxy settings among `--build-arg`.
    pub proxies: Vec<(String, String)>,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Option<i64>,
    /// What has to be looked up before `epoch` is known.
    pub wanted: Option<Need>,
    pub escape: Escape,
}

/// What a global ARG is where it stands.
#[derive(Clone, Default)]
pub(super) struct Written {
    pub value: Option<String>,
    /// The names that its value has been made of.
    pub uses: BTreeSet<String>,
}

pub(super) const EPOCH: &str = "SOURCE_DATE_EPOCH";

const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

impl Args {
    /// What this build is given.
    pub fn new(inputs: &Inputs<'_>, target: &Platform) -> Result<Self, LowerError> {
        Self::with(inputs, target, inputs.request.build_args.iter().cloned().collect())
    }

    /// As if no `--build-arg` were given: what the Dockerfile itself says.
    pub fn defaults(inputs: &Inputs<'_>, target: &Platform) -> Result<Self, LowerError> {
        Self::with(inputs, target, BTreeMap::new())
    }

    fn with(
        inputs: &Inputs<'_>,
        target: &Platform,
        given: BTreeMap<String, String>,
    ) -> Result<Self, LowerError> {
        let escape = inputs.dockerfile.escape;
        let mut args = Self {
            global: own(inputs, target, &given),
            written: Vec::new(),
            proxies: proxies(&given),
            epoch: None,
            wanted: None,
            given,
            escape,
        };
        for arg in &inputs.dockerfile.args {
            for item in &arg.items {
                let written = match (args.given.get(&item.name), &item.default) {
                    (Some(given), _) => {
                        Written { value: Some(given.clone()), ..Written::default() }
                    }
                    (None, Some(word)) => {
                        let lookup = |name: &str| args.get(name);
                        let mut expander = Expander::new(escape, &lookup);
                        let value = expander.word(word);
                        let value = value.map_err(|e| LowerProblem::from(e).at(&arg.at))?;
                        Written { value: Some(value), uses: expander.used().clone() }
                    }
                    (None, None) => Written::default(),
                };
                if let Some(value) = &written.value {
                    args.global.set(&item.name, value);
                }
                args.written.push(written);
            }
        }
        args.resolve_epoch(inputs)?;
        Ok(args)
    }

    /// `SOURCE_DATE_EPOCH`: a number, or the name of what has that time. What instructions see of it
    /// is the number; without one the variable is not set.
    fn resolve_epoch(&mut self, inputs: &Inputs<'_>) -> Result<(), LowerError> {
        let value = self.given.get(EPOCH).map(String::as_str).or_else(|| self.get(EPOCH));
        let Some(value) = value else { return Ok(()) };
        let time = match value.parse() {
            Ok(seconds) => Answer::Known(Some(seconds)),
            Err(_) if value.is_empty() => Answer::Known(None),
            Err(_) => epoch::time_of(value, self, inputs)?,
        };
        (self.epoch, self.wanted) = match time {
            Answer::Known(time) => (time, None),
            Answer::Wanted(need) => (None, Some(need)),
        };
        match self.epoch.map(|seconds| seconds.to_string()) {
            Some(text) => {
                self.given.entry(EPOCH.to_owned()).and_modify(|given| given.clone_from(&text));
                if self.global.get(EPOCH).is_some() {
                    self.global.set(EPOCH, &text);
                }
            }
            None => {
                self.given.remove(EPOCH);
                self.global.remove(EPOCH);
            }
        }
        Ok(())
    }

    /// The names of all global ARGs, also of those without a value.
    pub fn names(&self, inputs: &Inputs<'_>) -> BTreeSet<String> {
        let written = inputs.dockerfile.args.iter().flat_map(|arg| &arg.items);
        let written = written.map(|item| item.name.clone());
        self.global.list().iter().map(|(name, _)| name.clone()).chain(written).collect()
    }

    /// A global ARG.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.global.get(name)
    }

    /// A setting of the builder that `--build-arg` gives, if it is not empty.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
}

/// The ARGs that need no declaration before FROM.
fn own(inputs: &Inputs<'_>, target: &Platform, given: &BTreeMap<String, String>) -> Env {
    let build = inputs.build_platform;
    let last = inputs.dockerfile.stages.last().and_then(|s| s.name.as_ref());
    let stage = match (&inputs.request.target, last) {
        (Some(target), _) if !target.is_empty() => target.clone(),
        (_, Some(name)) => name.lower.clone(),
        _ => "default".to_owned(),
    };
    let values = [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", String::new()),
        ("BUILDARCH", build.arch.clone()),
        ("BUILDVARIANT", build.variant.clone()),
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", String::new()),
        ("TARGETARCH", target.arch.clone()),
        ("TARGETVARIANT", target.variant.clone()),
        ("TARGETSTAGE", stage),
    ];
    let mut env = Env::default();
    for (name, own) in &values {
        env.set(name, given.get(*name).unwrap_or(own));
    }
    env
}

/// Proxy settings, in both spellings, as programs look for them.
fn proxies(given: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for name in PROXIES {
        let same = |(key, _): &(&String, &String)| key.eq_ignore_ascii_case(name);
        if let Some((_, value)) = given.iter().rfind(same) {
            out.push((name.to_owned(), value.clone()));
            out.push((name.to_lowercase(), value.clone()));
        }
    }
    out
}
