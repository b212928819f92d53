//! What is said of a Dockerfile, for people: as buildx prints it.

use crate::progress::report;
use crate::progress::text::{lines, one_line};
use crate::table::Table;
use coordinator::dockerfile::Stage;
use coordinator::dockerfile::lint::Warning;
use coordinator::graph::survey::{Outline, Wish};
use proto::error::{Failure, SourceRange};

/// How many lines around those that are meant are shown: fewer, when several are meant.
const AROUND_ONE: usize = 4;
const AROUND_SEVERAL: usize = 2;

/// Advice, each piece with its lines.
pub fn check(warnings: &[Warning], has_failed: bool, dockerfile: &[u8]) -> String {
    let mut out = match warnings.len() {
        0 if has_failed => String::new(),
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        n => format!("Check complete, {n} warnings have been found!\n"),
    };
    for warning in warnings {
        let url = warning.rule.url().map(|url| format!(" - {url}")).unwrap_or_default();
        let message = one_line(&warning.message);
        out.push_str(&format!("\nWARNING: {}{url}\n{message}\n", warning.rule));
        out.push_str(&excerpt(&warning.at, dockerfile));
    }
    if has_failed && !warnings.is_empty() {
        // What is wrong comes after it.
        out.push('\n');
    }
    out
}

/// Why nothing can be said, or the build would fail.
pub fn failure(failure: &Failure, dockerfile: &[u8]) -> String {
    let mut out = format!("ERROR: {}\n", lines(&failure.message).join("\n"));
    if let Some(at) = &failure.at {
        out.push_str(&excerpt(at, dockerfile));
    }
    if let Some(hint) = &failure.hint {
        out.push_str(&format!("Hint: {}\n", lines(hint).join("\n")));
    }
    out
}

/// What a target takes.
pub fn outline(outline: &Outline) -> String {
    let mut out = String::new();
    let (name, description) = (outline.name.as_deref(), outline.description.as_deref());
    if name.is_some() || description.is_some() {
        let mut table = Table::new(&["TARGET:", name.unwrap_or("(default)")]).gap(1);
        if let Some(description) = description {
            table.row(&["DESCRIPTION:", description]);
        }
        out.push_str(&(table.text() + "\n"));
    }
    if !outline.args.is_empty() {
        let mut table = Table::new(&["BUILD ARG", "VALUE", "DESCRIPTION"]);
        for arg in &outline.args {
            let (value, about) = (arg.value.as_deref(), arg.description.as_deref());
            table.row(&[&arg.name, value.unwrap_or_default(), about.unwrap_or_default()]);
        }
        out.push_str(&(table.text() + "\n"));
    }
    out + &wishes("SECRET", &outline.secrets) + &wishes("SSH", &outline.ssh)
}

fn wishes(heading: &str, wishes: &[Wish]) -> String {
    if wishes.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[heading, "REQUIRED"]);
    for wish in wishes {
        table.row(&[&wish.id, if wish.is_required { "true" } else { "" }]);
    }
    table.text() + "\n"
}

/// The stages; the last one is built unless another one is asked for.
pub fn targets(stages: &[Stage]) -> String {
    let mut table = Table::new(&["TARGET", "DESCRIPTION"]).gap(1);
    for (index, stage) in stages.iter().enumerate() {
        let name = stage.lower_name();
        let name = match (name, index + 1 == stages.len()) {
            (None, true) => "(default)".to_owned(),
            (Some(name), true) => format!("{name} (default)"),
            (name, false) => name.unwrap_or_default().to_owned(),
        };
        table.row(&[&name, stage.doc.as_deref().unwrap_or_default()]);
    }
    table.text()
}

/// The lines of a place with some around them.
fn excerpt(at: &SourceRange, dockerfile: &[u8]) -> String {
    let text = String::from_utf8_lossy(dockerfile);
    let lines: Vec<&str> = text.split('\n').collect();
    let (mut first, mut last) = (at.first_line as usize, at.last_line as usize);
    if !(1..=lines.len()).contains(&first) {
        return String::new();
    }
    last = last.clamp(first, lines.len());
    let around = if first == last { AROUND_ONE } else { AROUND_SEVERAL };
    let mut added = 0;
    // One round adds a line above and one below where there are such, and counts as one itself.
    while added < around {
        if first > 1 {
            first -= 1;
            added += 1;
        }
        if last < lines.len() {
            last += 1;
            added += 1;
        }
        added += 1;
    }
    let shown: Vec<(u32, String)> =
        (first..=last).map(|number| (number as u32, lines[number - 1].to_owned())).collect();
    report::excerpt(at, &shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shows(text: &str, first_line: u32, last_line: u32, expected: &[&str]) {
        let at = SourceRange { file: "Dockerfile".into(), first_line, last_line };
        let shown = excerpt(&at, text.as_bytes());
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn lines_are_shown_with_some_around_them() {
        let frame = "-".repeat(20);
        let frame = frame.as_str();
        let text = "1\n2\n3\n4\n5\n6\n7";
        let expected = [
            "Dockerfile:4",
            frame,
            "   2 |     2",
            "   3 |     3",
            "   4 | >>> 4",
            "   5 |     5",
            "   6 |     6",
            frame,
        ];
        shows(text, 4, 4, &expected);
        let expected =
            ["Dockerfile:1", frame, "   1 | >>> 1", "   2 | >>> 2", "   3 |     3", frame];
        shows(text, 1, 2, &expected);
        shows("1\r\n\x1b[2J", 1, 1, &["Dockerfile:1", frame, "   1 | >>> 1", "   2 |", frame]);
        shows(text, 8, 8, &[]);
        shows(text, 0, 0, &[]);
    }
}
