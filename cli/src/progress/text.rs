//! Text of others made harmless, and measured.
//!
//! Names, logs and messages come out of Dockerfiles and of programs that run in builds. They must
//! not move the cursor, change the title, hide what follows or reverse its order. So escape
//! sequences are removed whole, other control characters one by one, and only line ends and tabs
//! keep a meaning.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use unicode_width::UnicodeWidthChar;

/// The longest line in bytes; longer ones are broken, so that a program that never ends its line
/// takes no more memory than this.
pub const LINE_BYTES_MAX: usize = 64 << 10;

const TAB: usize = 8;

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnd {
    /// For good.
    Newline,
    /// By a carriage return alone: what follows is written over it.
    Return,
}

/// Takes what a [`Decoder`] finds.
pub trait Sink {
    /// A character that is harmless, or a tab.
    fn text(&mut self, c: char);
    /// The line has ended.
    fn end(&mut self, end: LineEnd);
}

/// Makes lines of harmless text from the bytes of a log, which come in pieces.
///
/// Bytes that are not UTF-8 become U+FFFD. An escape sequence never reaches past the end of its
/// line: one that nobody ends would hide the rest of the log.
pub struct Decoder {
    parser: Parser,
    /// A carriage return has come, and nothing since.
    returned: bool,
    line_bytes: usize,
}

/// What escape sequences say does not matter here, so the buffer for it is small.
type Parser = vte::Parser<16>;

impl Decoder {
    /// A decoder at the beginning of a line.
    pub fn new() -> Self {
        Self { parser: Parser::default(), returned: false, line_bytes: 0 }
    }

    /// Takes more bytes and gives to `sink` what they mean.
    pub fn feed(&mut self, mut bytes: &[u8], sink: &mut impl Sink) {
        while !bytes.is_empty() {
            let room = (LINE_BYTES_MAX - self.line_bytes).min(bytes.len());
            let newline = bytes[..room].iter().position(|&b| b == b'\n');
            let (line, rest) = bytes.split_at(newline.map_or(room, |at| at + 1));
            let mut filter = Filter { returned: &mut self.returned, sink };
            // The rest of a character whose first bytes came before goes byte by byte: else vte
            // 0.15 drops what follows it, if that is not UTF-8.
            let carried = line.iter().take_while(|&byte| byte & 0xc0 == 0x80).count();
            for byte in line[..carried].chunks(1) {
                self.parser.advance(&mut filter, byte);
            }
            self.parser.advance(&mut filter, &line[carried..]);
            self.line_bytes += line.len();
            if newline.is_some() || self.line_bytes == LINE_BYTES_MAX {
                *self = Self::new();
                sink.end(LineEnd::Newline);
            }
            bytes = rest;
        }
    }
}

struct Filter<'a, S> {
    returned: &'a mut bool,
    sink: &'a mut S,
}

impl<S: Sink> Filter<'_, S> {
    fn put(&mut self, c: char) {
        if std::mem::take(self.returned) {
            self.sink.end(LineEnd::Return);
        }
        self.sink.text(c);
    }
}

impl<S: Sink> vte::Perform for Filter<'_, S> {
    fn print(&mut self, c: char) {
        if harmless(c) {
            self.put(c);
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\t' => self.put('\t'),
            b'\r' => *self.returned = true,
            // Newlines are the decoder's own; a terminal would beep or move for the others.
            _ => {}
        }
    }
}

/// Whether a character stays where it is written, is as wide as it says, and leaves the order of
/// the others alone.
fn harmless(c: char) -> bool {
    !(c.is_control()
        || matches!(c,
            // Marks that change the direction of writing (Unicode Standard Annex #9).
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Line and paragraph separators, the byte order mark.
            | '\u{2028}' | '\u{2029}' | '\u{feff}'
            // Variation selectors and joiners: terminals do not agree on the width they lead to.
            | '\u{200d}' | '\u{fe00}'..='\u{fe0f}'))
}

/// A text on one line: line ends and tabs become blanks.
pub fn one_line(text: &str) -> String {
    struct Joined(String);
    impl Sink for Joined {
        fn text(&mut self, c: char) {
            self.0.push(if c == '\t' { ' ' } else { c });
        }
        fn end(&mut self, _: LineEnd) {
            self.0.push(' ');
        }
    }
    let mut joined = Joined(String::with_capacity(text.len()));
    Decoder::new().feed(text.as_bytes(), &mut joined);
    joined.0.truncate(joined.0.trim_end().len());
    joined.0
}

/// The lines of a text, with blanks for tabs.
pub fn lines(text: &str) -> Vec<String> {
    struct Split(Vec<String>);
    impl Sink for Split {
        fn text(&mut self, c: char) {
            self.0.last_mut().expect("there is always a line").push(c);
        }
        fn end(&mut self, _: LineEnd) {
            self.0.push(String::new());
        }
    }
    let mut split = Split(vec![String::new()]);
    Decoder::new().feed(text.trim_end().as_bytes(), &mut split);
    split.0.iter().map(|line| fit(line, usize::MAX).0).collect()
}

/// As much of a line as fits into `columns`, with blanks for tabs, and the columns that it takes.
pub fn fit(line: &str, columns: usize) -> (String, usize) {
    // Marks without a width could make a short line of any number of bytes.
    let chars = columns.saturating_mul(4);
    let mut out = String::with_capacity(line.len().min(chars));
    let mut taken = 0;
    for c in line.chars().take(chars) {
        let wide = match c {
            '\t' => TAB - taken % TAB,
            _ => c.width().unwrap_or(0),
        };
        if wide > columns - taken {
            break;
        }
        match c {
            '\t' => out.extend(std::iter::repeat_n(' ', wide)),
            _ => out.push(c),
        }
        taken += wide;
    }
    (out, taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Seen(String);
    impl Sink for Seen {
        fn text(&mut self, c: char) {
            self.0.push(c);
        }
        fn end(&mut self, end: LineEnd) {
            self.0.push_str(if end == LineEnd::Newline { "<nl>" } else { "<cr>" });
        }
    }

    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let (mut decoder, mut seen) = (Decoder::new(), Seen::default());
        pieces.into_iter().for_each(|piece| decoder.feed(piece, &mut seen));
        seen.0
    }

    #[test]
    fn escapes_go_and_line_ends_stay() {
        for (log, want) in [
            ("plain\ttext\n", "plain\ttext<nl>"),
            ("\x1b[31mred\x1b[0m and \x1b[1;32mgreen\n", "red and green<nl>"),
            ("\x1b]0;title\x07after\n", "after<nl>"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", "link<nl>"),
            ("\x1b[2J\x1b[10;10Hmoved\x1b[A\x08\x07\n", "moved<nl>"),
            ("\u{9b}31mC1\u{9d}0;t\u{9c}\n", "31mC10;t<nl>"),
            ("\x1b]0;never ended\nnext\n", "<nl>next<nl>"),
            ("\x1bPdevice\nnext", "<nl>next"),
            ("windows\r\nline\r\n", "windows<nl>line<nl>"),
            ("10%\r20%\r\r30%\n", "10%<cr>20%<cr>30%<nl>"),
            ("\n\n", "<nl><nl>"),
            ("a\u{202e}b\u{2028}c\u{7f}d", "abcd"),
            ("größe 日本 é", "größe 日本 é"),
        ] {
            assert_eq!(decode([log.as_bytes()]), want, "{log:?}");
        }
        assert_eq!(decode([&b"\xff\xfe ok \xe2\x82\n"[..]]), "\u{fffd}\u{fffd} ok \u{fffd}<nl>");
        assert_eq!(decode([&b"\xc3"[..], b"\xa4b\xff\n"]), "äb\u{fffd}<nl>");
        assert_eq!(decode([&b"\xe2"[..], b"\x82", b"\xac\n"]), "€<nl>");
        assert_eq!(decode([&b"\x1b"[..], b"[3", b"1mred\r", b"\n"]), "red<nl>");
    }

    #[test]
    fn a_line_without_end_is_broken() {
        let seen = decode(std::iter::repeat_n(&[b'x'; 1000][..], 200));
        assert_eq!(seen.matches("<nl>").count(), 200_000 / LINE_BYTES_MAX);
        assert_eq!(seen.matches('x').count(), 200_000);
    }

    #[test]
    fn names_have_one_line() {
        assert_eq!(one_line("RUN a &&\\\n\tb\r\n"), "RUN a &&\\  b");
        assert_eq!(one_line("RUN \x1b[31mred"), "RUN red");
        assert_eq!(lines("one\n\ttwo\n\n"), ["one", "        two"]);
    }

    #[test]
    fn columns_are_counted() {
        assert_eq!(fit("abc", 2), ("ab".into(), 2));
        assert_eq!(fit("日本語", 5), ("日本".into(), 4));
        assert_eq!(fit("a\tb", 9), ("a       b".into(), 9));
        assert_eq!(fit("a\tb", 7), ("a".into(), 1));
        assert_eq!(fit("x", 0), (String::new(), 0));
        assert!(fit(&"\u{301}".repeat(10_000), 10).0.chars().count() <= 40);
    }

    proptest! {
        #[test]
        fn nothing_harmful_passes(pieces in prop::collection::vec(bytes(), 0..8)) {
            let seen = decode(pieces.iter().map(Vec::as_slice));
            prop_assert!(seen.chars().all(|c| c == '\t' || harmless(c)));
        }

        /// What a log means does not depend on how it is cut into pieces.
        #[test]
        fn pieces_do_not_matter(all in bytes(), cuts in prop::collection::vec(0..200usize, 0..6)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(all.len())).collect();
            cuts.extend([0, all.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|w| &all[w[0]..w[1]]);
            prop_assert_eq!(decode(pieces), decode([&all[..]]));
        }
    }

    /// Bytes that look like escape sequences more often than chance would have it.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            any::<u8>(),
            prop::sample::select(&b"\x1b[]P;0mHA\x07\\\r\n\t\x9b\xe2\x82\xac"[..])
        ];
        prop::collection::vec(byte, 0..200)
    }
}
