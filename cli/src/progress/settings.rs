//! What the person and the environment say about the display.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::palette::Palette;
use super::session::{Form, Look};
use super::text;
use super::tty::View;
use proto::error::Class;
use std::str::FromStr;

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// What `BUILDKIT_PROGRESS` says, or `Tty` on a terminal, or `Plain`.
    #[default]
    Auto,
    /// Lines that are drawn again and again. Needs a terminal.
    Tty,
    /// Text that only grows.
    Plain,
    /// JSON for programs, as BuildKit's.
    RawJson,
    /// Nothing until the build has failed.
    Quiet,
}

/// What the display cannot be.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No mode has this name.
    #[error("{0:?} is no progress display: use auto, tty, plain, rawjson or quiet")]
    Mode(String),
    /// The same, from the environment.
    #[error(
        "BUILDKIT_PROGRESS is {0:?}, which is no progress display: use auto, tty, plain, rawjson or quiet"
    )]
    Environment(String),
    /// `tty` without a terminal.
    #[error("--progress=tty needs a terminal at standard error, which is none: use plain or auto")]
    NoTerminal,
    /// The system gives no thread.
    #[error("no thread could be started for the progress display: {0}")]
    Thread(#[source] std::io::Error),
}

impl StartError {
    /// Whose trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Mode(_) | Self::Environment(_) | Self::NoTerminal => Class::User,
            Self::Thread(_) => Class::Busy,
        }
    }
}

impl FromStr for Mode {
    type Err = StartError;

    fn from_str(name: &str) -> Result<Self, StartError> {
        Ok(match name {
            "" | "auto" => Self::Auto,
            "tty" => Self::Tty,
            "plain" => Self::Plain,
            "rawjson" => Self::RawJson,
            "quiet" | "none" => Self::Quiet,
            _ => return Err(StartError::Mode(name.to_owned())),
        })
    }
}

/// What the display depends on besides its mode.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `BUILDKIT_PROGRESS`.
    pub progress: Option<String>,
    /// `NO_COLOR`, when it says so.
    pub no_color: bool,
    /// `BUILDKIT_COLORS`.
    pub colors: Option<String>,
    /// `BUILDKIT_TTY_LOG_LINES`: lines of the log's end under each step that runs; 0 for none.
    pub log_lines: Option<usize>,
    /// Whether the terminal is known to have no cursor that can be moved (`TERM=dumb`).
    pub dumb: bool,
    /// Whether remarks come with their places in the Dockerfile (`--debug`).
    pub expand_warnings: bool,
    /// Who builds, at the right of the head; empty for nothing.
    pub description: String,
}

/// As BuildKit.
const LOG_LINES: usize = 6;

impl Settings {
    /// What the environment says; `var` looks a variable up.
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> Self {
        let var = |name| var(name).filter(|value| !value.is_empty());
        Self {
            progress: var("BUILDKIT_PROGRESS"),
            // https://no-color.org: any value but the empty one.
            no_color: var("NO_COLOR").is_some(),
            colors: var("BUILDKIT_COLORS"),
            log_lines: var("BUILDKIT_TTY_LOG_LINES").and_then(|lines| lines.parse().ok()),
            dumb: var("TERM").is_some_and(|term| term == "dumb"),
            ..Self::default()
        }
    }

    /// What the display looks like.
    pub fn look(&self, mode: Mode, is_terminal: bool) -> Result<Look, StartError> {
        let mode = match (mode, &self.progress) {
            (Mode::Auto, Some(name)) => {
                name.parse().map_err(|_| StartError::Environment(name.clone()))?
            }
            (mode, _) => mode,
        };
        let view = View {
            log_lines: self.log_lines.unwrap_or(LOG_LINES),
            description: text::one_line(&self.description),
        };
        let form = match mode {
            Mode::Tty if !is_terminal => return Err(StartError::NoTerminal),
            Mode::Tty => Form::Tty(view),
            Mode::Auto if is_terminal && !self.dumb => Form::Tty(view),
            Mode::Auto | Mode::Plain => Form::Plain,
            Mode::RawJson => Form::RawJson,
            Mode::Quiet => Form::Quiet,
        };
        let coloured = is_terminal && !self.no_color && !self.dumb;
        let palette = match form {
            Form::Tty(_) | Form::Quiet if coloured => {
                Palette::new(self.colors.as_deref().unwrap_or_default())
            }
            _ => Palette::NONE,
        };
        Ok(Look { form, palette, expand_warnings: self.expand_warnings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(env: &[(&str, &str)], mode: &str, is_terminal: bool) -> Result<String, String> {
        let value = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let look = mode
            .parse()
            .and_then(|mode| Settings::from_env(value).look(mode, is_terminal))
            .map_err(|error| error.to_string())?;
        let form = match look.form {
            Form::Tty(view) => format!("tty {}", view.log_lines),
            form => format!("{form:?}").to_lowercase(),
        };
        Ok(if look.palette == Palette::NONE { form } else { form + " coloured" })
    }

    #[test]
    fn modes() {
        for (env, mode, is_terminal, want) in [
            (&[][..], "auto", true, "tty 6 coloured"),
            (&[], "auto", false, "plain"),
            (&[], "", false, "plain"),
            (&[], "plain", true, "plain"),
            (&[], "rawjson", true, "rawjson"),
            (&[], "none", true, "quiet coloured"),
            (&[], "quiet", false, "quiet"),
            (&[("NO_COLOR", "1")], "tty", true, "tty 6"),
            (&[("NO_COLOR", "")], "tty", true, "tty 6 coloured"),
            (&[("TERM", "dumb")], "auto", true, "plain"),
            (&[("BUILDKIT_TTY_LOG_LINES", "12")], "tty", true, "tty 12 coloured"),
            (&[("BUILDKIT_TTY_LOG_LINES", "many")], "tty", true, "tty 6 coloured"),
            (&[("BUILDKIT_PROGRESS", "rawjson")], "auto", true, "rawjson"),
            (&[("BUILDKIT_PROGRESS", "rawjson")], "plain", true, "plain"),
        ] {
            assert_eq!(look(env, mode, is_terminal).as_deref(), Ok(want), "{env:?} {mode}");
        }
    }

    #[test]
    fn what_cannot_be_says_what_can() {
        let error = look(&[], "fancy", true).unwrap_err();
        assert_eq!(
            error,
            "\"fancy\" is no progress display: use auto, tty, plain, rawjson or quiet"
        );
        let error = look(&[("BUILDKIT_PROGRESS", "fancy")], "auto", true).unwrap_err();
        assert!(error.starts_with("BUILDKIT_PROGRESS is \"fancy\""), "{error}");
        for env in [&[][..], &[("BUILDKIT_PROGRESS", "tty")]] {
            let mode = if env.is_empty() { "tty" } else { "auto" };
            assert!(look(env, mode, false).unwrap_err().contains("needs a terminal"));
        }
    }
}
