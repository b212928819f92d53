//! What is said when the build has ended: the logs of what failed, remarks, the place in the
//! Dockerfile, the error and what to do about it, or a summary.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::format;
use super::model::Model;
use super::palette::{Palette, Style};
use super::text;
use proto::error::{Failure, SourceRange};
use proto::wire::build::{Summary, Traffic, Warning};
use std::fmt::Write;

const FRAME: &str = "------\n";
const EXCERPT_FRAME: &str = "--------------------\n";

/// The ends of the logs of what failed.
pub fn logs(model: &Model, palette: &Palette) -> String {
    let mut out = String::new();
    for node in model.failed() {
        let _ = writeln!(out, "{FRAME} > {}:", palette.paint(Style::Failed, &node.name));
        if let Some(tail) = &node.tail {
            if tail.left_out() > 0 {
                let _ = writeln!(out, "[{} earlier lines are left out here]", tail.left_out());
            }
            for line in tail.last(usize::MAX) {
                let time = format::log_time(line.at.since(node.started().unwrap_or(line.at)));
                let (text, _) = text::fit(&line.text, usize::MAX);
                let _ = writeln!(out, "{}", format!("{time} {text}").trim_end());
            }
        }
        out.push_str(FRAME);
    }
    out
}

/// The remarks, with their places in the Dockerfile if they are to be expanded.
pub fn warnings(warnings: &[Warning], expand: bool, palette: &Palette) -> String {
    let count = match warnings.len() {
        0 => return String::new(),
        1 => "1 warning found".to_owned(),
        n => format!("{n} warnings found"),
    };
    let advice = if expand { "" } else { " (use --debug to expand)" };
    let title = palette.paint(Style::Warning, &format!("{count}{advice}:"));
    let mut out = format!("\n {title}\n");
    for warning in warnings {
        let _ = writeln!(out, " - {}", text::one_line(&remark(warning)));
        if !expand {
            continue;
        }
        if !warning.detail.is_empty() {
            let _ = writeln!(out, "{}", text::one_line(&warning.detail));
        }
        if !warning.url.is_empty() {
            let _ = writeln!(out, "More info: {}", text::one_line(&warning.url));
        }
        if let Some(at) = &warning.at {
            out.push_str(&excerpt(at, &warning.excerpt));
        }
    }
    out
}

/// A remark on one line, as BuildKit's linter has it: `Rule: message (line 3)`.
pub fn remark(warning: &Warning) -> String {
    let rule = if warning.rule.is_empty() { String::new() } else { format!("{}: ", warning.rule) };
    let line = warning.at.as_ref().map(|at| format!(" (line {})", at.first_line));
    format!("{rule}{}{}", warning.message, line.unwrap_or_default())
}

/// The error, where it is, and what to do about it.
pub fn failure(failure: &Failure, palette: &Palette) -> String {
    let mut out = String::new();
    let mut place = String::new();
    if let Some(at) = &failure.at {
        out.push_str(&excerpt(at, &failure.excerpt));
        if failure.excerpt.is_empty() {
            place = format!("{}: ", text::one_line(&at.to_string()));
        }
    }
    let error = palette.paint(Style::Failed, "ERROR:");
    let message = text::lines(&failure.message).join("\n");
    let _ = writeln!(out, "{error} {place}{message}");
    if let Some(hint) = &failure.hint {
        let _ = writeln!(out, "Hint: {}", text::lines(hint).join("\n"));
    }
    out
}

/// Lines of the Dockerfile, those that are meant with a mark.
pub fn excerpt(at: &SourceRange, lines: &[(u32, String)]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut out = format!("{}\n{EXCERPT_FRAME}", text::one_line(&at.to_string()));
    for (number, line) in lines {
        let meant = (at.first_line..=at.last_line.max(at.first_line)).contains(number);
        let mark = if meant { ">>>" } else { "   " };
        let line = text::lines(line).join(" ");
        let _ = writeln!(out, "{}", format!("{number:4} | {mark} {line}").trim_end());
    }
    out.push_str(EXCERPT_FRAME);
    out
}

/// What the build did.
pub fn summary(summary: &Summary) -> String {
    let Summary { steps, cached, saved_ms, wall_ms, traffic } = *summary;
    let steps = if steps == 1 { "1 step".to_owned() } else { format!("{steps} steps") };
    let saved = match saved_ms {
        0 => String::new(),
        ms => format!(", {} saved", format::long(ms)),
    };
    let wall = format::long(wall_ms);
    format!("{steps}, {cached} cached{saved} ({wall} in all)\n{}", moved(&traffic))
}

/// The bytes that were moved, by kind; nothing when there were none.
fn moved(traffic: &Traffic) -> String {
    let Traffic { context, inputs, results, mounts, pulled, pushed, outputs } = *traffic;
    let kinds = [
        ("context", context),
        ("pulled", pulled),
        ("inputs", inputs),
        ("results", results),
        ("cache mounts", mounts),
        ("outputs", outputs),
        ("pushed", pushed),
    ];
    let some = kinds.iter().filter(|(_, bytes)| *bytes > 0);
    let told: Vec<String> =
        some.map(|(kind, bytes)| format!("{kind} {}", format::bytes(*bytes))).collect();
    match told.is_empty() {
        true => String::new(),
        false => format!("moved: {}\n", told.join(", ")),
    }
}
