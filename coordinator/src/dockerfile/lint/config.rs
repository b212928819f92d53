//! What `# check=…` and the build argument `BUILDKIT_DOCKERFILE_CHECK` say.

use super::super::directive::{Key, key_value};
use super::super::text::shown;
use super::super::value::boolean;
use super::{Rule, WARNINGS_MAX, Warning};
use proto::error::SourceRange;
use std::collections::BTreeSet;

/// What is wrong with the settings of checks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A part that is no setting.
    #[error("`{0}` is no setting; there are skip=…, experimental=… and error=true")]
    Setting(String),
    /// A value of `error`.
    #[error("`error={0}` is neither true nor false")]
    NotBool(String),
}

/// Some checks. Names that there are not are no error.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    All,
    These(BTreeSet<String>),
}

impl Default for Choice {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Choice {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self::All,
            names => Self::These(names.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    fn has(&self, rule: Rule) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(rule.name()),
        }
    }

    fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::These(mine), Self::These(theirs)) => mine.extend(theirs),
            (mine @ Self::These(_), Self::All) => *mine = Self::All,
            (Self::All, _) => {}
        }
    }
}

/// Which checks are made, and whether they are errors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    skip: Choice,
    experimental: Choice,
    is_error: bool,
}

impl Config {
    /// Reads `skip=A,B;experimental=all;error=true`.
    pub fn parse(text: &str) -> Result<Self, CheckError> {
        let mut config = Self::default();
        if text.trim().is_empty() {
            return Ok(config);
        }
        for part in text.trim().splitn(3, ';') {
            let setting = || CheckError::Setting(shown(part));
            let (name, value) = part.split_once('=').ok_or_else(setting)?;
            match name.trim() {
                "skip" => config.skip = Choice::parse(value),
                "experimental" => config.experimental = Choice::parse(value),
                "error" => {
                    let value = value.trim();
                    let not_bool = || CheckError::NotBool(shown(value));
                    config.is_error = boolean(value).ok_or_else(not_bool)?;
                }
                _ => return Err(setting()),
            }
        }
        Ok(config)
    }

    /// With what the comments above an instruction say: `# check=skip=A`. What cannot be read there
    /// has no effect.
    pub fn with_comments(&self, comments: &[String]) -> Self {
        let mut config = self.clone();
        let setting = comments.iter().find_map(|comment| {
            key_value(comment.as_bytes()).filter(|(key, _)| *key == Key::Check)
        });
        let Some((_, value)) = setting else { return config };
        let value = value.split(' ').next().unwrap_or_default();
        if let Ok(more) = Self::parse(value) {
            config.skip.add(more.skip);
            config.experimental.add(more.experimental);
        }
        config
    }

    /// Whether a check is made.
    pub fn makes(&self, rule: Rule) -> bool {
        if rule.is_experimental() { self.experimental.has(rule) } else { !self.skip.has(rule) }
    }

    /// Notes a piece of advice, when its check is made.
    pub(super) fn warn(
        &self,
        out: &mut Vec<Warning>,
        rule: Rule,
        at: &SourceRange,
        message: impl FnOnce() -> String,
    ) {
        if out.len() < WARNINGS_MAX && self.makes(rule) {
            out.push(Warning { rule, message: message(), at: at.clone() });
        }
    }

    /// Why a build fails whose Dockerfile says that advice is an error (`error=true`).
    pub fn violation(&self, warnings: &[Warning]) -> Option<Violation> {
        let first = warnings.first().filter(|_| self.is_error)?;
        let rules: BTreeSet<&str> = warnings.iter().map(|warning| warning.rule.name()).collect();
        let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
        Some(Violation { rules, first: first.clone() })
    }
}

/// Advice where the Dockerfile allows none. The words are BuildKit's: scripts look for them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("lint violation found for rules: {rules}")]
pub struct Violation {
    /// The names of the rules, in order.
    pub rules: String,
    /// What was found first.
    pub first: Warning,
}

impl Violation {
    /// What was found first, in words.
    pub fn hint(&self) -> String {
        format!("{}: {}", self.first.rule, self.first.message)
    }
}
