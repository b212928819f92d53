//! From bytes to logical lines: line ends, the byte order mark, comments, continuations, directives
//! and the texts of heredocs.

use super::directive::{DirectiveReader, Escape, Key, Twice};
use super::error::Problem;
use super::heredoc::{Heredoc, Marker};
use super::text::trim_start;
use proto::limit::DOCKERFILE_LINE_BYTES_MAX;

/// What is wrong, and on which lines (counted from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub problem: Problem,
    pub first: u32,
    pub last: u32,
}

/// One instruction's text: its lines joined, without comments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logical {
    pub text: String,
    pub first: u32,
    pub last: u32,
    /// The comments above it, without their `#`.
    pub comments: Vec<String>,
    /// Whether an empty line stands between its lines.
    pub has_empty_line: bool,
}

/// Reads the logical lines of a file.
pub(super) struct Reader<'t> {
    rest: &'t [u8],
    /// The number of the line that was read last.
    line: u32,
    escape: Escape,
    syntax: Option<String>,
    directives: DirectiveReader,
    comments: Vec<String>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t [u8]) -> Self {
        Self {
            rest: text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text),
            line: 0,
            escape: Escape::default(),
            syntax: None,
            directives: DirectiveReader::default(),
            comments: Vec::new(),
        }
    }

    /// The escape character. It can change until the first instruction was read.
    pub(super) fn escape(&self) -> Escape {
        self.escape
    }

    /// The value of `# syntax=…`.
    pub(super) fn syntax(&self) -> Option<&str> {
        self.syntax.as_deref()
    }

    /// The number of the line that was read last.
    pub(super) fn line_number(&self) -> u32 {
        self.line
    }

    /// The next line, with its line end.
    fn next_line(&mut self) -> Result<Option<&'t [u8]>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.iter().position(|b| *b == b'\n');
        let (line, rest) = self.rest.split_at(end.map_or(self.rest.len(), |at| at + 1));
        self.rest = rest;
        self.line += 1;
        let bytes = end.unwrap_or(line.len());
        if bytes >= DOCKERFILE_LINE_BYTES_MAX {
            return Err(self.here(Problem::LongLine { bytes }));
        }
        Ok(Some(line))
    }

    fn here(&self, problem: Problem) -> Fault {
        Fault { problem, first: self.line, last: self.line }
    }

    /// The next instruction's text.
    pub(super) fn next(&mut self) -> Result<Option<Logical>, Fault> {
        while let Some(line) = self.next_line()? {
            let line = self.first_of_instruction(line)?;
            if !line.is_empty() {
                return self.join(line).map(Some);
            }
        }
        Ok(None)
    }

    /// Notes comments and directives; what is left of the line when it is neither.
    fn first_of_instruction(&mut self, line: &'t [u8]) -> Result<&'t [u8], Fault> {
        let text = trim_start(trim_line_end(line));
        let is_comment = text.first() == Some(&b'#');
        if !self.directives.is_done() && self.directive(text)? {
            return Ok(&[]);
        }
        if !is_comment {
            return Ok(text);
        }
        // One byte is cut, whatever it is: with blanks before the `#`, the `#` stays in the comment.
        match String::from_utf8_lossy(&line[1..]).trim() {
            "" => self.comments.clear(),
            comment => self.comments.push(comment.to_owned()),
        }
        Ok(&[])
    }

    fn directive(&mut self, text: &[u8]) -> Result<bool, Fault> {
        match self.directives.line(text, b"#") {
            Err(Twice(key)) => return Err(self.here(Problem::DirectiveTwice(key))),
            Ok(None) => return Ok(false),
            Ok(Some((Key::Escape, value))) => {
                self.escape = match value.as_str() {
                    "\\" => Escape::Backslash,
                    "`" => Escape::Backtick,
                    _ => return Err(self.here(Problem::EscapeDirective(value))),
                };
            }
            Ok(Some((Key::Syntax, value))) => self.syntax = Some(value),
            Ok(Some((Key::Check, _))) => {}
        }
        Ok(true)
    }

    /// Joins the lines that continue `line`.
    fn join(&mut self, line: &[u8]) -> Result<Logical, Fault> {
        let first = self.line;
        let mut text = Vec::new();
        let mut has_empty_line = false;
        let mut is_open = self.push_line(line, &mut text);
        while is_open {
            let Some(line) = self.next_line()? else { break };
            let start = trim_start(trim_line_end(line));
            match start.first() {
                Some(b'#') => {}
                None => has_empty_line = true,
                Some(_) => is_open = self.push_line(trim_line_end(line), &mut text),
            }
        }
        let last = self.line;
        let fault = |problem| Fault { problem, first, last };
        let text = String::from_utf8(text).map_err(|_| fault(Problem::NotUtf8))?;
        if text.contains('\0') {
            return Err(fault(Problem::Nul));
        }
        let comments = std::mem::take(&mut self.comments);
        Ok(Logical { text, first, last, comments, has_empty_line })
    }

    /// Appends a line without its continuation sign; whether there was one. An escape character
    /// before the last one makes it an ordinary character: `([^\\])\\[ \t]*$|^\\[ \t]*$`.
    fn push_line(&self, line: &[u8], text: &mut Vec<u8>) -> bool {
        let escape = self.escape.byte();
        let kept = line.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(0, |at| at + 1);
        if let [before @ .., last] = &line[..kept]
            && *last == escape
            && before.last() != Some(&escape)
        {
            text.extend_from_slice(before);
            return true;
        }
        text.extend_from_slice(line);
        false
    }

    /// The texts of the heredocs that the last instruction announces, which began on line `first`.
    pub(super) fn heredocs(
        &mut self,
        markers: Vec<Marker>,
        first: u32,
    ) -> Result<Vec<Heredoc>, Fault> {
        markers.into_iter().map(|marker| self.heredoc(marker, first)).collect()
    }

    fn heredoc(&mut self, marker: Marker, first: u32) -> Result<Heredoc, Fault> {
        let mut text = Vec::new();
        while let Some(line) = self.next_line()? {
            if marker.is_end(line) {
                return Ok(Heredoc { marker, text });
            }
            text.extend_from_slice(line);
        }
        let problem = Problem::OpenHeredoc(marker.name);
        Err(Fault { problem, first, last: self.line })
    }
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let kept = line.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |at| at + 1);
    &line[..kept]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each logical line as `first-last:text`, or the problem.
    fn check(text: &str, expect: &[&str]) {
        let mut reader = Reader::new(text.as_bytes());
        let mut found = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(l)) => found.push(format!("{}-{}:{}", l.first, l.last, l.text)),
                Ok(None) => break,
                Err(fault) => {
                    found.push(format!("{}-{}:{:?}", fault.first, fault.last, fault.problem));
                    break;
                }
            }
        }
        assert_eq!(found, expect, "{text:?}");
    }

    #[test]
    fn lines_are_joined() {
        check("FROM a\n\n  RUN b \\\n   c\n", &["1-1:FROM a", "3-4:RUN b    c"]);
        check("RUN a \\  \t\n b\\\n\n # c\nd", &["1-5:RUN a  bd"]);
        check("RUN a \\", &["1-1:RUN a "]);
        check("RUN a \\\\\nRUN b", &["1-1:RUN a \\\\", "2-2:RUN b"]);
        check("\\\nRUN a\r\n", &["1-2:RUN a"]);
        check("# escape=`\nRUN a `\nb\\\nRUN c", &["2-3:RUN a b\\", "4-4:RUN c"]);
    }

    #[test]
    fn comments_and_marks_are_dropped() {
        check("\u{feff}FROM a\n#b\n \u{a0}# c\nRUN d # e", &["1-1:FROM a", "4-4:RUN d # e"]);
        check("# only\n\n", &[]);
        check("", &[]);
    }

    #[test]
    fn bad_bytes_and_directives_have_a_place() {
        check("FROM a\nRUN \0", &["1-1:FROM a", "2-2:Nul"]);
        check("# escape=x\nFROM a", &["1-1:EscapeDirective(\"x\")"]);
        check("# escape=`\n# escape=`\nFROM a", &["2-2:DirectiveTwice(Escape)"]);
        let mut reader = Reader::new(b"FROM \\\n\xff\n");
        assert_eq!(reader.next().unwrap_err().problem, Problem::NotUtf8);
    }

    #[test]
    fn a_line_has_a_bound() {
        let fits = format!("R{}\n", "x".repeat(DOCKERFILE_LINE_BYTES_MAX - 2));
        assert!(Reader::new(fits.as_bytes()).next().is_ok());
        let long = format!("R{}\n", "x".repeat(DOCKERFILE_LINE_BYTES_MAX - 1));
        let fault = Reader::new(long.as_bytes()).next().unwrap_err();
        assert_eq!(fault.problem, Problem::LongLine { bytes: DOCKERFILE_LINE_BYTES_MAX });
    }

    #[test]
    fn comments_are_kept_for_the_next_instruction() {
        let text = "# syntax=x\n# a b\n\n  # c\n#\n# d\nFROM x\nRUN y";
        let mut reader = Reader::new(text.as_bytes());
        assert_eq!(reader.next().unwrap().unwrap().comments, ["d"]);
        assert_eq!(reader.next().unwrap().unwrap().comments, [""; 0]);
        let mut reader = Reader::new(b"# a b\n\n  # c\nFROM x");
        assert_eq!(reader.next().unwrap().unwrap().comments, ["a b", "# c"]);
    }
}
