//! Checks of what a stage's instructions say once their variables are replaced.

use super::super::instruction::{CommandLine, Instruction, Pairs};
use super::super::text::shown;
use super::super::value::PortParts;
use super::{Config, Rule, Warning};
use proto::error::SourceRange;

/// An instruction that is looked at, and where advice about it goes.
pub struct Spot<'a> {
    config: Config,
    instruction: &'a Instruction,
    out: &'a mut Vec<Warning>,
}

impl<'a> Spot<'a> {
    /// An instruction under the file's settings, and those in the comments above it.
    pub fn new(config: &Config, instruction: &'a Instruction, out: &'a mut Vec<Warning>) -> Self {
        Self { config: config.with_comments(&instruction.comments), instruction, out }
    }

    fn warn(&mut self, rule: Rule, message: impl FnOnce() -> String) {
        self.config.warn(self.out, rule, &self.instruction.at, message);
    }

    fn key(&mut self, name: &str, key: &str) {
        if sounds_secret(key) {
            self.warn(Rule::SecretsUsedInArgOrEnv, || {
                format!(
                    "{name} `{}` sounds like a secret, which would stay readable in the image; use \
                     RUN --mount=type=secret",
                    shown(key)
                )
            });
        }
    }

    fn pairs(&mut self, pairs: &Pairs<String>) {
        for pair in &pairs.0 {
            if pair.is_legacy {
                let keyword = self.instruction.keyword.clone();
                self.warn(Rule::LegacyKeyValueFormat, || {
                    format!("`{keyword} name value` should be written `{keyword} name=value`")
                });
            }
        }
    }

    /// ENV.
    pub fn env(&mut self, pairs: &Pairs<String>) {
        self.pairs(pairs);
        for pair in &pairs.0 {
            self.key("ENV", &pair.key);
        }
    }

    /// LABEL.
    pub fn label(&mut self, pairs: &Pairs<String>) {
        self.pairs(pairs);
    }

    /// One name of ARG.
    pub fn arg(&mut self, name: &str) {
        self.key("ARG", name);
    }

    /// One word of EXPOSE.
    pub fn expose(&mut self, port: &PortParts<'_>) {
        let written = shown(port.written());
        if !port.is_lower_case() {
            self.warn(Rule::ExposeProtoCasing, || {
                format!("The protocol of `{written}` should be in small letters")
            });
        }
        if port.has_host() {
            self.warn(Rule::ExposeInvalidFormat, || {
                format!("`{written}` names an address or port of the host, without effect")
            });
        }
    }
}

/// What earlier instructions of a stage mean for later ones.
#[derive(Debug, Clone, Default)]
pub struct StageChecks {
    has_workdir: bool,
    cmd: Option<SourceRange>,
    entrypoint: Option<SourceRange>,
    healthcheck: Option<SourceRange>,
}

impl StageChecks {
    /// A stage that is built on another one of the file.
    pub fn on(base: &Self) -> Self {
        Self { has_workdir: base.has_workdir, ..Self::default() }
    }

    /// WORKDIR with its variables replaced.
    pub fn workdir(&mut self, spot: &mut Spot<'_>, path: &str) {
        if !self.has_workdir && !path.starts_with('/') {
            spot.warn(Rule::WorkdirRelativePath, || {
                format!("Where `{}` is depends on the base image", shown(path))
            });
        }
        self.has_workdir = true;
    }

    /// CMD. `has_shell`: the image or an instruction before has set a shell.
    pub fn cmd(&mut self, spot: &mut Spot<'_>, command: &CommandLine, has_shell: bool) {
        used_once(spot, &mut self.cmd, "CMD");
        prefers_json(spot, command, has_shell, "CMD");
    }

    /// ENTRYPOINT. `has_shell`: the image or an instruction before has set a shell.
    pub fn entrypoint(&mut self, spot: &mut Spot<'_>, command: &CommandLine, has_shell: bool) {
        used_once(spot, &mut self.entrypoint, "ENTRYPOINT");
        prefers_json(spot, command, has_shell, "ENTRYPOINT");
    }

    /// HEALTHCHECK.
    pub fn healthcheck(&mut self, spot: &mut Spot<'_>) {
        used_once(spot, &mut self.healthcheck, "HEALTHCHECK");
    }
}

/// The place that is shown is the one before: that one has no effect.
fn used_once(spot: &mut Spot<'_>, before: &mut Option<SourceRange>, name: &str) {
    let now = spot.instruction.at.clone();
    if let Some(at) = before.replace(now) {
        spot.config.warn(spot.out, Rule::MultipleInstructionsDisallowed, &at, || {
            format!("Another {name} comes later in the stage, and only the last one counts")
        });
    }
}

fn prefers_json(spot: &mut Spot<'_>, command: &CommandLine, has_shell: bool, name: &str) {
    if matches!(command, CommandLine::Shell(_)) && !has_shell {
        spot.warn(Rule::JsonArgsRecommended, || {
            format!("{name} should be a JSON array, or else signals go to the shell")
        });
    }
}

/// Whether one of the words of a name, between `_`, is one that secrets are named by, and none says
/// that it is something else: a file's name, a version, a public key.
fn sounds_secret(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| name.split('_').any(|word| words.contains(&word));
    has(&SECRET) && !has(&HARMLESS)
}
