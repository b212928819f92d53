//! Drawing lines over those that were drawn before, as bytes for the terminal.
//!
//! Nothing is cleared before it is written anew, and a frame is one write: so nothing flickers.
//! Between frames the cursor is shown and stands below the lines: a process that is killed leaves
//! the terminal as it should be. Sequences are of ECMA-48 and of DEC's VT510 (private modes 7,
//! wrapping, and 25, the cursor).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::palette::Palette;
use super::tty::Line;
use std::fmt::Write;

/// What was drawn last.
#[derive(Debug, Default)]
pub struct Screen {
    drawn: Vec<usize>,
    width: usize,
}

impl Screen {
    /// What makes these lines replace the last ones on a terminal of so many columns.
    pub fn draw(&mut self, lines: &[Line], width: usize, palette: &Palette) -> String {
        let mut out = String::from("\x1b[?25l\x1b[?7l\r");
        let up = self.rows(width);
        if up > 0 {
            let _ = write!(out, "\x1b[{up}A");
        }
        for line in lines {
            out.push_str(&palette.paint(line.style, &line.text));
            out.push_str("\x1b[K\r\n");
        }
        out.push_str("\x1b[J\x1b[?7h\x1b[?25h");
        self.drawn = lines.iter().map(|line| line.width).collect();
        self.width = width;
        out
    }

    /// How many rows the last lines take now: a terminal that has become narrower breaks those
    /// that no longer fit.
    fn rows(&self, width: usize) -> usize {
        if width >= self.width || width == 0 {
            return self.drawn.len();
        }
        self.drawn.iter().map(|drawn| drawn.div_ceil(width).max(1)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::palette::Style;

    fn lines(texts: &[&str]) -> Vec<Line> {
        let line = |text: &&str| Line {
            text: (*text).to_owned(),
            width: text.len(),
            style: Style::Normal,
        };
        texts.iter().map(line).collect()
    }

    #[test]
    fn a_frame_replaces_the_last_one() {
        let mut screen = Screen::default();
        assert_eq!(
            screen.draw(&lines(&["one", "two"]), 80, &Palette::NONE),
            "\x1b[?25l\x1b[?7l\rone\x1b[K\r\ntwo\x1b[K\r\n\x1b[J\x1b[?7h\x1b[?25h"
        );
        assert_eq!(
            screen.draw(&lines(&["three"]), 80, &Palette::NONE),
            "\x1b[?25l\x1b[?7l\r\x1b[2Athree\x1b[K\r\n\x1b[J\x1b[?7h\x1b[?25h"
        );
    }

    #[test]
    fn a_narrower_terminal_has_broken_the_lines() {
        let mut screen = Screen::default();
        screen.draw(&lines(&[&"x".repeat(79), "short", ""]), 80, &Palette::NONE);
        assert!(screen.draw(&[], 30, &Palette::NONE).contains("\x1b[5A"));
        screen.draw(&lines(&[&"x".repeat(29)]), 30, &Palette::NONE);
        assert!(screen.draw(&[], 80, &Palette::NONE).contains("\x1b[1A"));
    }
}
