//! The end of a step's log.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::text::{Decoder, LineEnd, Sink};
use proto::id::Millis;
use std::collections::VecDeque;

/// How much of a log's end is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Lines.
    pub lines: usize,
    /// Bytes of text.
    pub bytes: usize,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When its first character was written.
    pub at: Millis,
    /// Harmless text; tabs are still tabs.
    pub text: String,
}

/// The last lines of a log. A line that ended with a carriage return is shown until something is
/// written over it, as a terminal would.
pub struct Tail {
    decoder: Decoder,
    kept: Kept,
}

struct Kept {
    limits: Limits,
    lines: VecDeque<Line>,
    bytes: usize,
    left_out: u64,
    open: Option<Line>,
    /// The next character begins the open line anew.
    overwrite: bool,
    /// When the bytes that are being read were written.
    now: Millis,
}

impl Tail {
    /// The tail of an empty log.
    pub fn new(limits: Limits) -> Self {
        let kept = Kept {
            limits,
            lines: VecDeque::new(),
            bytes: 0,
            left_out: 0,
            open: None,
            overwrite: false,
            now: Millis(0),
        };
        Self { decoder: Decoder::new(), kept }
    }

    /// Adds what was written at a time.
    pub fn write(&mut self, at: Millis, data: &[u8]) {
        self.kept.now = at;
        self.decoder.feed(data, &mut self.kept);
    }

    /// How many lines are kept.
    pub fn len(&self) -> usize {
        self.kept.lines.len() + usize::from(self.kept.open.is_some())
    }

    /// The last `n` lines, or as many as are kept.
    pub fn last(&self, n: usize) -> impl Iterator<Item = &Line> {
        let skipped = self.len().saturating_sub(n);
        self.kept.lines.iter().chain(&self.kept.open).skip(skipped)
    }

    /// How many lines before those that are kept were left out.
    pub fn left_out(&self) -> u64 {
        self.kept.left_out
    }
}

impl Kept {
    fn open(&mut self) -> &mut Line {
        let at = self.now;
        self.open.get_or_insert_with(|| Line { at, text: String::new() })
    }
}

impl Sink for Kept {
    fn text(&mut self, c: char) {
        if std::mem::take(&mut self.overwrite) {
            self.open = None;
        }
        self.open().text.push(c);
    }

    fn end(&mut self, end: LineEnd) {
        self.open();
        self.overwrite = end == LineEnd::Return;
        if self.overwrite {
            return;
        }
        if let Some(line) = self.open.take() {
            self.bytes += line.text.len();
            self.lines.push_back(line);
        }
        while self.lines.len() > self.limits.lines || self.bytes > self.limits.bytes {
            let Some(first) = self.lines.pop_front() else { break };
            self.bytes -= first.text.len();
            self.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(lines: usize, bytes: usize, log: &[&str]) -> Tail {
        let mut tail = Tail::new(Limits { lines, bytes });
        for (n, data) in (1..).zip(log) {
            tail.write(Millis(n), data.as_bytes());
        }
        tail
    }

    fn texts(tail: &Tail, n: usize) -> Vec<(u64, &str)> {
        tail.last(n).map(|line| (line.at.0, &*line.text)).collect()
    }

    #[test]
    fn keeps_the_last_lines() {
        let kept = tail(3, 100, &["a\nb", "b\n\nc\n", "d\ne"]);
        assert_eq!(texts(&kept, 9), [(2, ""), (2, "c"), (3, "d"), (3, "e")]);
        assert_eq!(texts(&kept, 2), [(3, "d"), (3, "e")]);
        assert_eq!((kept.len(), kept.left_out()), (4, 2));
    }

    #[test]
    fn a_line_has_the_time_of_its_beginning() {
        assert_eq!(texts(&tail(3, 100, &["a", "b", "c\n"]), 9), [(1, "abc")]);
    }

    #[test]
    fn keeps_no_more_than_so_many_bytes() {
        let kept = tail(100, 10, &["12345\n", "67890\n", "abc\n"]);
        assert_eq!(texts(&kept, 9), [(2, "67890"), (3, "abc")]);
        assert_eq!(kept.left_out(), 1);
        assert_eq!(tail(100, 2, &["12345\n"]).len(), 0);
    }

    #[test]
    fn a_carriage_return_lets_the_line_stand_until_it_is_overwritten() {
        assert_eq!(texts(&tail(9, 99, &["10%\r", "20%\r"]), 9), [(2, "20%")]);
        assert_eq!(texts(&tail(9, 99, &["10%\r", "20%\r", "\n"]), 9), [(2, "20%")]);
        assert_eq!(
            texts(&tail(9, 99, &["10%\r", "done\n", "next"]), 9),
            [(2, "done"), (3, "next")]
        );
    }
}
