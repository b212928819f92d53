//! What one step says, line by line.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::{WAIT_MAX, WAITING_BYTES_MAX};
use crate::progress::format;
use crate::progress::model::{End, Model, Node, Phase, Transfer};
use crate::progress::text::{Decoder, LineEnd, Sink};
use proto::id::Millis;
use proto::wire::build::Event;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A transfer is told of again after so many milliseconds,
const TRANSFER_AGAIN: u64 = 5_000;
/// or when one part of so many was moved.
const TRANSFER_PARTS: u64 = 20;
/// Shorter times of transfers are not told, in milliseconds.
const TRANSFER_TIME_MIN: u64 = 50;

/// A step: what waits, and what has been told.
pub struct Step {
    number: u32,
    /// How much it has said since it was left, in events, and since when.
    said: u64,
    since: Millis,
    logs: Vec<(Millis, Vec<u8>)>,
    log_bytes: usize,
    decoder: Decoder,
    /// The transfers of which there is news, by their places.
    moved: BTreeSet<usize>,
    told: BTreeMap<usize, Told>,
    end_told: bool,
}

/// What was told of a transfer.
struct Told {
    current: u64,
    at: Millis,
    done: bool,
}

impl Step {
    /// A step of which nothing is known.
    pub fn new(now: Millis) -> Self {
        Self {
            number: 0,
            said: 0,
            since: now,
            logs: Vec::new(),
            log_bytes: 0,
            decoder: Decoder::new(),
            moved: BTreeSet::new(),
            told: BTreeMap::new(),
            end_told: false,
        }
    }

    /// Takes note of an event; answers whether there is something to say.
    pub fn note(&mut self, now: Millis, node: &Node, event: &Event) -> bool {
        match event {
            Event::Vertex(_) if node.phase == Phase::Waiting => return false,
            Event::Vertex(_) if self.end_told && node.has_ended() => return false,
            Event::Vertex(_) => self.end_told = false,
            Event::Progress(progress) => self.moved.extend(node.place_of(&progress.what)),
            Event::Log { at, data, .. } => {
                self.log_bytes += data.len();
                self.logs.push((*at, data.clone()));
            }
            Event::Warning(_) => return false,
        }
        if self.said == 0 {
            self.since = now;
        }
        self.said += 1;
        true
    }

    /// Whether its end was told.
    pub fn end_told(&self) -> bool {
        self.end_told
    }

    /// For how long it has been speaking, in milliseconds.
    pub fn speaking(&self, now: Millis) -> u64 {
        if self.said == 0 { 0 } else { now.since(self.since) }
    }

    /// How much it says, in events for each millisecond.
    pub fn speed(&self, now: Millis) -> f64 {
        self.said as f64 / self.speaking(now).max(1) as f64
    }

    /// Whether it has waited for too long.
    pub fn overdue(&self, now: Millis) -> bool {
        self.speaking(now) > WAIT_MAX || self.log_bytes > WAITING_BYTES_MAX
    }

    /// Its lines begin. It takes the next number if it has none.
    pub fn enter(&mut self, numbers: &mut u32, node: &Node, out: &mut Out<'_>) {
        if self.number == 0 {
            *numbers += 1;
            self.number = *numbers;
        }
        out.line(format_args!("#{} {}", self.number, node.name));
    }

    /// Its lines are interrupted.
    pub fn leave(&mut self, out: &mut Out<'_>) {
        self.said = 0;
        out.line(format_args!("#{} ...", self.number));
    }

    /// Writes all that waits.
    pub fn write(&mut self, now: Millis, model: &Model, node: &Node, out: &mut Out<'_>) {
        let moved = std::mem::take(&mut self.moved);
        for (place, transfer) in node.transfers.iter().enumerate() {
            let told = self.told.get(&place);
            let untold_end = node.has_ended() && !told.is_some_and(|told| told.done);
            if untold_end || (moved.contains(&place) && transfer.is_news(told, now)) {
                self.transfer(now, model, place, transfer, out);
            }
        }
        self.log_bytes = 0;
        for (at, data) in std::mem::take(&mut self.logs) {
            let time = format::log_time(at.since(node.started().unwrap_or(at)));
            let prefix = format!("#{} {time}", self.number);
            self.decoder.feed(&data, &mut Lines { prefix: &prefix, out });
        }
        if node.has_ended() {
            self.end(&node.phase, out);
        }
    }

    fn transfer(
        &mut self,
        now: Millis,
        model: &Model,
        place: usize,
        transfer: &Transfer,
        out: &mut Out<'_>,
    ) {
        let &Transfer { current, total, started, completed, .. } = transfer;
        let mut line = format!("#{} {}", self.number, transfer.what);
        let spent = model.spent(now, started, completed);
        let time = if spent < TRANSFER_TIME_MIN { String::new() } else { format::seconds(spent) };
        let done = if completed.is_some() { "done" } else { "" };
        for part in [format::moved(current, total).as_str(), &time, done] {
            if !part.is_empty() {
                line.push(' ');
                line.push_str(part);
            }
        }
        out.line(format_args!("{line}"));
        self.told.insert(place, Told { current, at: now, done: completed.is_some() });
    }

    fn end(&mut self, phase: &Phase, out: &mut Out<'_>) {
        self.said = 0;
        let Phase::Ended { started, completed, how } = phase else { return };
        if std::mem::replace(&mut self.end_told, true) {
            return;
        }
        let number = self.number;
        match how {
            End::Done => {
                let spent = format::seconds(completed.since(*started));
                out.line(format_args!("#{number} DONE {spent}"));
            }
            End::Cached => out.line(format_args!("#{number} CACHED")),
            End::Cancelled => out.line(format_args!("#{number} CANCELED")),
            End::Failed(error) => out.line(format_args!("#{number} ERROR: {error}")),
        }
    }
}

impl Transfer {
    /// Whether enough has happened since it was told of last.
    fn is_news(&self, told: Option<&Told>, now: Millis) -> bool {
        let Some(told) = told else { return true };
        let moved = self.current.saturating_sub(told.current);
        let done = self.completed.is_some() && !told.done;
        let more = self.total > 0 && moved >= self.total.div_ceil(TRANSFER_PARTS);
        done || (!told.done && (more || now.since(told.at) >= TRANSFER_AGAIN))
    }
}

/// Text that grows, and whether its last line is still open.
pub struct Out<'a> {
    /// The text.
    pub text: &'a mut String,
    /// Whether the last line is the beginning of a log's line.
    pub mid_line: &'a mut bool,
}

impl Out<'_> {
    /// Adds a line of our own.
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        self.end_line();
        // A string takes everything.
        let _ = fmt::Write::write_fmt(self.text, line);
        self.text.push('\n');
    }

    /// Ends a line that is open.
    pub fn end_line(&mut self) {
        if std::mem::take(self.mid_line) {
            self.text.push('\n');
        }
    }
}

/// Writes the lines of a log.
struct Lines<'a, 'b> {
    prefix: &'a str,
    out: &'a mut Out<'b>,
}

impl Lines<'_, '_> {
    /// Sees to it that a line is open; answers whether it is new.
    fn open(&mut self) -> bool {
        let is_new = !std::mem::replace(self.out.mid_line, true);
        if is_new {
            self.out.text.push_str(self.prefix);
        }
        is_new
    }
}

impl Sink for Lines<'_, '_> {
    fn text(&mut self, c: char) {
        if self.open() {
            self.out.text.push(' ');
        }
        self.out.text.push(c);
    }

    fn end(&mut self, end: LineEnd) {
        if end == LineEnd::Return && !*self.out.mid_line {
            return;
        }
        self.open();
        self.out.end_line();
    }
}
