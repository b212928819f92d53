//! The display on a terminal, as lines: a head, and one line for each vertex and transfer.
//!
//! While the build runs the lines fit the terminal: all that is at work is shown, then the ends of
//! its logs, and what is left is for the newest of what has ended. At the end there is one line
//! for everything.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

#[cfg(test)]
mod tests;

use super::format;
use super::model::{End, Ending, Model, Node, Phase, Transfer};
use super::palette::Style;
use super::text;
use proto::id::Millis;
use proto::wire::build::VertexId;

/// Columns and lines of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: usize,
    /// Lines.
    pub height: usize,
}

impl Size {
    /// Of a terminal that does not tell.
    pub const UNKNOWN: Self = Self { width: 80, height: 24 };
}

/// What the display depends on besides the build.
#[derive(Debug, Clone)]
pub struct View {
    /// Of how many lines of its log's end a step that runs can be followed by.
    pub log_lines: usize,
    /// Who builds, at the right of the head.
    pub description: String,
}

/// A line that takes fewer columns than the terminal has, of harmless text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The text.
    pub text: String,
    /// The columns that it takes.
    pub width: usize,
    /// What it is about.
    pub style: Style,
}

/// Lines that logs leave to what has ended.
const ENDED_LINES_MIN: usize = 3;
/// A name has at least so many columns, or gives up the time beside it.
const NAME_COLUMNS_MIN: usize = 12;
/// A name has at least so many columns, or gives up the sizes beside it.
const NAME_COLUMNS_BESIDE_SIZES_MIN: usize = 20;

/// What the terminal should show. While the build runs, there are fewer lines than the terminal
/// has, as the cursor stands below them.
pub fn frame(model: &Model, now: Millis, size: Size, view: &View) -> Vec<Line> {
    let painter = Painter { model, now, width: size.width.saturating_sub(1) };
    let shown = match (model.ending(), size.height.checked_sub(2)) {
        (Some(_), _) => everything(model),
        (None, Some(lines)) => select(model, lines, view.log_lines),
        (None, None) => return Vec::new(),
    };
    let mut lines = vec![painter.head(&view.description)];
    for part in &shown.parts {
        painter.part(part, &mut lines);
    }
    if shown.more > 0 {
        lines.push(painter.line(&format!(" => and {} more at work", shown.more), Style::Normal));
    }
    lines
}

/// What of the build is shown.
#[derive(Debug, Default)]
struct Shown {
    parts: Vec<Part>,
    /// How many vertices are at work and not shown.
    more: usize,
}

/// What of a vertex is shown, besides its own line.
#[derive(Debug)]
struct Part {
    place: usize,
    id: VertexId,
    /// Transfers under way: the first so many.
    open: usize,
    /// Transfers at an end: the last so many.
    closed: usize,
    /// Lines of its log: the last so many.
    logs: usize,
}

impl Part {
    fn new(place: usize, id: VertexId) -> Self {
        Self { place, id, open: 0, closed: 0, logs: 0 }
    }
}

fn everything(model: &Model) -> Shown {
    let parts = model.begun().iter().enumerate().map(|(place, id)| {
        let closed = model.node(*id).map_or(0, |node| node.transfers.len());
        Part { closed, ..Part::new(place, *id) }
    });
    Shown { parts: parts.collect(), more: 0 }
}

fn select(model: &Model, lines: usize, log_lines: usize) -> Shown {
    let running = model.running();
    let fits = if running.len() > lines { lines.saturating_sub(1) } else { running.len() };
    let parts = running.iter().take(fits).map(|(place, id)| Part::new(*place, *id));
    let mut shown = Shown { parts: parts.collect(), more: running.len() - fits };
    if shown.more > 0 {
        if lines == 0 {
            shown.more = 0;
        }
        return shown;
    }
    let mut left = lines - fits;
    for part in &mut shown.parts {
        let Some(node) = model.node(part.id) else { continue };
        part.open = node.transfers.iter().filter(|t| t.completed.is_none()).take(left).count();
        left -= part.open;
    }
    left -= share_logs(model, &mut shown.parts, left, log_lines);
    add_ended(model, &mut shown.parts, left);
    shown.parts.sort_unstable_by_key(|part| part.place);
    shown
}

/// Gives each step that runs and has a log the same number of lines for it, so that none jumps
/// when another one writes. Says how many lines are taken.
fn share_logs(model: &Model, parts: &mut [Part], left: usize, log_lines: usize) -> usize {
    let has = |part: &Part| {
        let tail = model.node(part.id).and_then(|node| node.tail.as_ref());
        tail.map_or(0, |tail| tail.len())
    };
    let left = left.saturating_sub(ENDED_LINES_MIN);
    let logs = parts.iter().filter(|part| has(part) > 0).count();
    let each = (left / logs.max(1)).clamp(1, log_lines.max(1)).min(log_lines);
    let mut taken = 0;
    for part in parts {
        part.logs = has(part).min(each).min(left - taken);
        taken += part.logs;
    }
    taken
}

/// Fills what is left with the newest of what has ended.
fn add_ended(model: &Model, parts: &mut Vec<Part>, mut left: usize) {
    let mut at_work = parts.len();
    for (place, id) in model.begun().iter().enumerate().rev() {
        if left == 0 {
            return;
        }
        let Some(node) = model.node(*id) else { continue };
        if node.has_ended() {
            let closed = node.transfers.len().min(left - 1);
            parts.push(Part { closed, ..Part::new(place, *id) });
            left -= 1 + closed;
        } else {
            // Those at work stand first, in the order of their places.
            at_work = at_work.saturating_sub(1);
            let ended = node.transfers.iter().filter(|t| t.completed.is_some()).count();
            parts[at_work].closed = ended.min(left);
            left -= parts[at_work].closed;
        }
    }
}

struct Painter<'a> {
    model: &'a Model,
    now: Millis,
    /// Columns that can be used: the last one of the terminal is left alone, as terminals do not
    /// agree on what happens behind it.
    width: usize,
}

impl Painter<'_> {
    fn head(&self, description: &str) -> Line {
        let (ended, all) = self.model.counts();
        let spent = format::seconds(self.model.elapsed(self.now));
        let end = match self.model.ending() {
            None => "",
            Some(Ending::Finished) => " FINISHED",
            Some(Ending::Failed) => " ERROR",
            Some(Ending::Cancelled) => " CANCELED",
        };
        let left = format!("[+] Building {spent} ({ended}/{all}){end}");
        let both = left.len() + 1 + text::fit(description, self.width).1;
        let description = if both > self.width { "" } else { description };
        self.aligned(&left, description, Style::Normal)
    }

    fn part(&self, part: &Part, lines: &mut Vec<Line>) {
        let Some(node) = self.model.node(part.id) else { return };
        lines.push(self.vertex(node));
        let closed = node.transfers.iter().filter(|t| t.completed.is_some()).count();
        let first_closed = closed.saturating_sub(part.closed);
        let (mut open_seen, mut closed_seen) = (0, 0);
        for transfer in &node.transfers {
            let is_shown = if transfer.completed.is_none() {
                open_seen += 1;
                open_seen <= part.open
            } else {
                closed_seen += 1;
                closed_seen > first_closed
            };
            if is_shown {
                lines.push(self.transfer(transfer));
            }
        }
        for line in node.tail.iter().flat_map(|tail| tail.last(part.logs)) {
            // The step's own columns count for its tabs.
            let (text, _) = text::fit(&line.text, self.width);
            lines.push(self.line(&format!(" => => # {text}"), Style::Log));
        }
    }

    fn vertex(&self, node: &Node) -> Line {
        let (word, style, completed) = match &node.phase {
            Phase::Waiting | Phase::Running { .. } => ("", Style::Normal, None),
            Phase::Ended { completed, how, .. } => match how {
                End::Done => ("", Style::Done, Some(*completed)),
                End::Cached => ("CACHED ", Style::Done, Some(*completed)),
                End::Failed(_) => ("ERROR ", Style::Failed, Some(*completed)),
                End::Cancelled => ("CANCELED ", Style::Cancelled, Some(*completed)),
            },
        };
        let spent = node.started().map_or(0, |at| self.model.spent(self.now, at, completed));
        let left = format!(" => {word}{}", node.name);
        self.aligned(&left, &format::seconds(spent), style)
    }

    fn transfer(&self, transfer: &Transfer) -> Line {
        let spent = self.model.spent(self.now, transfer.started, transfer.completed);
        let time = format::seconds(spent);
        let sizes = format::moved(transfer.current, transfer.total);
        let mut left = format!(" => => {}", transfer.what);
        let beside = self.width.saturating_sub(time.len() + 1);
        if !sizes.is_empty() && beside > NAME_COLUMNS_BESIDE_SIZES_MIN + sizes.len() {
            left = text::fit(&left, beside - sizes.len() - 1).0;
            left = format!("{left} {sizes}");
        }
        let style = if transfer.completed.is_some() { Style::Done } else { Style::Normal };
        self.aligned(&left, &time, style)
    }

    /// A line with something at its right end, if there is room for that.
    fn aligned(&self, left: &str, right: &str, style: Style) -> Line {
        let (right, right_width) = text::fit(right, self.width);
        let room = self.width.saturating_sub(right_width + 1);
        if right.is_empty() || room < NAME_COLUMNS_MIN {
            return self.line(left, style);
        }
        let (left, width) = text::fit(left, room);
        let gap = " ".repeat(room - width + 1);
        Line { text: format!("{left}{gap}{right}"), width: self.width, style }
    }

    fn line(&self, text: &str, style: Style) -> Line {
        let (text, width) = text::fit(text, self.width);
        Line { text, width, style }
    }
}
