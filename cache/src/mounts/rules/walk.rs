//! The rules of a mount as a walk goes down its tree.

use super::{Action, Policy, Row, SIDE_FILES, patterns};
use crate::mounts::secrets::Secrets;
use crate::tree::TreeError;
use crate::tree::pattern::{Level, Patterns};
use proto::limit::CACHE_MOUNT_DEPTH_MAX;

/// The patterns of one mount.
#[derive(Debug, Clone)]
pub(in crate::mounts) struct PathRules {
    rules: Vec<(Action, Patterns)>,
    packages: Patterns,
    secrets: Secrets,
    start: Here,
    /// Whether paths have rules of their own: in a union only.
    is_union: bool,
}

/// A directory, and what the patterns say of it.
#[derive(Debug, Clone)]
pub(in crate::mounts) struct Here {
    rules: Vec<Level>,
    packages: Level,
    /// Its name; the last one of the target for the mount's top.
    name: Vec<u8>,
    depth: usize,
}

impl PathRules {
    /// The rules of a row for a mount that is `below` the cache's top, and has this target.
    pub fn new(row: &Row, below: &[&str], target: &[&str]) -> Self {
        let own = row.paths.iter().map(|(action, pattern)| (*action, *pattern));
        let common = SIDE_FILES.iter().map(|pattern| (Action::Skip, *pattern));
        let all = own.chain(common);
        let rules: Vec<_> = all.map(|(action, text)| (action, patterns([text]))).collect();
        let packages = patterns(row.packages.iter().copied());
        let mut start = Here {
            rules: rules.iter().map(|(_, patterns)| patterns.root()).collect(),
            packages: packages.root(),
            name: target.last().map_or(Vec::new(), |name| name.as_bytes().to_vec()),
            depth: 0,
        };
        for name in below {
            start.enter_cache(&rules, &packages, name.as_bytes());
        }
        let is_union = row.policy == Policy::Union;
        Self { rules, packages, secrets: Secrets::new(), start, is_union }
    }

    /// The same under another policy.
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { is_union: policy == Policy::Union, ..self }
    }

    /// The mount's top.
    pub fn start(&self) -> Here {
        self.start.clone()
    }

    /// A directory in `here`. Walks recurse, so that it is refused when it is too deep.
    pub fn enter(&self, here: &Here, name: &[u8]) -> Result<Here, TreeError> {
        if here.depth == CACHE_MOUNT_DEPTH_MAX {
            let why = format!(
                "a cache mount has at most {CACHE_MOUNT_DEPTH_MAX} directories inside each other"
            );
            return Err(TreeError::BadPath(String::from_utf8_lossy(name).into_owned(), why));
        }
        let mut next = here.clone();
        next.depth += 1;
        next.enter_cache(&self.rules, &self.packages, name);
        next.name = name.to_vec();
        Ok(next)
    }

    /// The rule for a name in `here` that is no directory.
    pub fn action(&self, here: &Here, name: &[u8]) -> Option<Action> {
        if !self.is_union || here.in_package() {
            return None;
        }
        let mut rules = self.rules.iter().zip(&here.rules);
        let found = rules.find(|((_, patterns), level)| patterns.file(level, name));
        found.map(|((action, _), _)| *action)
    }

    /// The rule for the directory itself.
    pub fn action_on(&self, here: &Here) -> Option<Action> {
        if !self.is_union || here.in_package() {
            return None;
        }
        let mut rules = self.rules.iter().zip(&here.rules);
        let found = rules.find(|(_, level)| level.is_match());
        found.map(|((action, _), _)| *action)
    }

    /// Whether a file of that name in `here` is one of logins.
    pub fn is_secret(&self, here: &Here, name: &[u8]) -> bool {
        !here.in_package() && self.secrets.has(&here.name, name)
    }
}

impl Here {
    fn enter_cache(&mut self, rules: &[(Action, Patterns)], packages: &Patterns, name: &[u8]) {
        for ((_, patterns), level) in rules.iter().zip(&mut self.rules) {
            *level = patterns.directory(level, name);
        }
        self.packages = packages.directory(&self.packages, name);
    }

    /// Whether it is a package, or in one.
    pub fn in_package(&self) -> bool {
        self.packages.is_match()
    }
}
