//! Colours.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// What a line is about, and so which colour it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Nothing special.
    Normal,
    /// A step or transfer that is done.
    Done,
    /// A step that failed.
    Failed,
    /// A step that was stopped.
    Cancelled,
    /// A remark.
    Warning,
    /// A step's own words.
    Log,
}

/// The colour of each style, as the parameters of the `SGR` sequence (ECMA-48, 8.3.117).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Palette(Option<Colours>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Colours {
    run: String,
    error: String,
    cancel: String,
    warning: String,
}

impl Palette {
    /// No colours.
    pub const NONE: Self = Self(None);

    /// BuildKit's colours, changed by what `BUILDKIT_COLORS` says: `run=green:error=255,0,0`, with
    /// the keys `run`, `error`, `cancel` and `warning`. What it does not understand has no effect.
    pub fn new(buildkit_colors: &str) -> Self {
        let mut colours = Colours {
            run: "34".into(),
            error: "31".into(),
            cancel: "33".into(),
            warning: "33".into(),
        };
        for field in buildkit_colors.split(':') {
            let Some((key, value)) = field.split_once('=') else { continue };
            let Some(colour) = parse(value) else { continue };
            match key.to_ascii_lowercase().as_str() {
                "run" => colours.run = colour,
                "error" => colours.error = colour,
                "cancel" => colours.cancel = colour,
                "warning" => colours.warning = colour,
                _ => {}
            }
        }
        Self(Some(colours))
    }

    /// The text in the colour of the style.
    pub fn paint(&self, style: Style, text: &str) -> String {
        let sgr = self.0.as_ref().and_then(|colours| match style {
            Style::Normal => None,
            Style::Done => Some(colours.run.as_str()),
            Style::Failed => Some(colours.error.as_str()),
            Style::Cancelled => Some(colours.cancel.as_str()),
            Style::Warning => Some(colours.warning.as_str()),
            Style::Log => Some("2"),
        });
        sgr.map_or_else(|| text.to_owned(), |sgr| format!("\x1b[{sgr}m{text}\x1b[0m"))
    }
}

fn parse(value: &str) -> Option<String> {
    const NAMES: [&str; 8] =
        ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
    let value = value.to_ascii_lowercase();
    if value == "default" {
        return Some("39".into());
    }
    let (name, first) = match value.strip_prefix("light-") {
        Some(name) => (name, 90),
        None => (value.as_str(), 30),
    };
    if let Some(index) = NAMES.iter().position(|n| *n == name) {
        return Some((first + index).to_string());
    }
    let parts: Option<Vec<u8>> = value.split(',').map(|part| part.trim().parse().ok()).collect();
    match *parts? {
        [r, g, b] => Some(format!("38;2;{r};{g};{b}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_buildkit_does() {
        let palette = Palette::new("");
        assert_eq!(palette.paint(Style::Done, "x"), "\x1b[34mx\x1b[0m");
        assert_eq!(palette.paint(Style::Normal, "x"), "x");
        assert_eq!(Palette::NONE.paint(Style::Failed, "x"), "x");
    }

    #[test]
    fn by_the_environment() {
        let palette =
            Palette::new("RUN=light-green:error=1, 2,255:cancel=256,0,0:warning=nothing:x=red");
        assert_eq!(palette.paint(Style::Done, "x"), "\x1b[92mx\x1b[0m");
        assert_eq!(palette.paint(Style::Failed, "x"), "\x1b[38;2;1;2;255mx\x1b[0m");
        assert_eq!(palette.paint(Style::Cancelled, "x"), "\x1b[33mx\x1b[0m");
        assert_eq!(palette.paint(Style::Warning, "x"), "\x1b[33mx\x1b[0m");
    }
}
