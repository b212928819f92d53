//! Heredocs: `<<EOF` in an instruction, and the lines that follow it.

use super::expand::{self, ExpandError};

/// `<<NAME`, as one word of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The line that ends the text, and for COPY and ADD the name of the file.
    pub name: String,
    /// Whether variables in the text are replaced (COPY and ADD only): no part of the name is quoted.
    pub expand: bool,
    /// Whether tabs at the beginnings of lines are dropped (`<<-`).
    pub chomp: bool,
}

impl Marker {
    /// Reads a word. `None` when it is no heredoc; an error when it is one whose name cannot be read.
    pub fn parse(word: &str) -> Result<Option<Self>, ExpandError> {
        // `^(\d*)<<(-?)\s*([^<]*)$`
        let Some(rest) = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")
        else {
            return Ok(None);
        };
        let (chomp, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.trim_ascii_start();
        if rest.is_empty() || rest.contains('<') {
            return Ok(None);
        }
        let (plain, quoted) = expand::name_words(rest)?;
        let ([name], [quoted]) = (plain.as_slice(), quoted.as_slice()) else {
            return Ok(None);
        };
        let quotes = |text: &str| text.chars().filter(|c| matches!(c, '\'' | '"')).count();
        let expand = quotes(name) == quotes(quoted);
        Ok(Some(Self { name: name.clone(), expand, chomp }))
    }

    /// As [`Marker::parse`], where a name that cannot be read makes the word an ordinary one.
    pub(super) fn of_word(word: &str) -> Option<Self> {
        Self::parse(word).ok().flatten()
    }

    /// Whether `line`, with its line end, ends the text.
    pub(super) fn is_end(&self, line: &[u8]) -> bool {
        let kept = line.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |at| at + 1);
        let mut line = &line[..kept];
        while self.chomp && line.first() == Some(&b'\t') {
            line = &line[1..];
        }
        line == self.name.as_bytes()
    }
}

/// A heredoc and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// How it was announced.
    pub marker: Marker,
    /// Its lines as they stand in the Dockerfile.
    pub text: Vec<u8>,
}

impl Heredoc {
    /// The text, without the tabs that `<<-` drops.
    pub fn content(&self) -> Vec<u8> {
        if !self.marker.chomp {
            return self.text.clone();
        }
        let mut out = Vec::with_capacity(self.text.len());
        for line in self.text.split_inclusive(|b| *b == b'\n') {
            let tabs = line.iter().take_while(|b| **b == b'\t').count();
            out.extend_from_slice(&line[tabs..]);
        }
        out
    }
}

/// The path that a heredoc's name stands for in the empty root that its file is made in: without `.`
/// and empty parts, `..` leads no further than to the root. Only one part can be made a file: no
/// directory is there.
pub fn file_path(name: &str) -> String {
    let parts = proto::path::clamp(name.as_bytes());
    String::from_utf8_lossy(&parts.join(&b'/')).into_owned()
}

/// The heredocs that an instruction's text announces, in order.
pub(super) fn markers(line: &str) -> Result<Vec<Marker>, ExpandError> {
    if !line.contains("<<") {
        return Ok(Vec::new());
    }
    let words = expand::raw_words(line);
    words.iter().filter_map(|word| Marker::parse(word).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, expect: Option<(&str, bool, bool)>) {
        let found = Marker::parse(word).unwrap();
        let found = found.as_ref().map(|m| (m.name.as_str(), m.expand, m.chomp));
        assert_eq!(found, expect, "{word}");
    }

    #[test]
    fn markers_are_told_from_other_words() {
        check("<<EOF", Some(("EOF", true, false)));
        check("3<<EOF", Some(("EOF", true, false)));
        check("<<-EOF", Some(("EOF", true, true)));
        check("<< EOF", Some(("EOF", true, false)));
        check("<<'EOF'", Some(("EOF", false, false)));
        check("<<-\"E O\"", Some(("E O", false, true)));
        check("<<EO'F'", Some(("EOF", false, false)));
        check("<<EO\\'F", Some(("EO'F", true, false)));
        check("<<$EOF", Some(("$EOF", true, false)));
        for word in ["", "<", "<<", "<<-", "x<<EOF", "<<<EOF", "<<A<B", "<<EOF sh", "1<2"] {
            check(word, None);
        }
        assert!(Marker::parse("<<'EOF").is_err());
    }

    #[test]
    fn names_are_paths_in_an_empty_root() {
        for name in ["a", "/a", "./a", "a/", "../a", "b/../a", "a/."] {
            assert_eq!(file_path(name), "a", "{name}");
        }
        assert_eq!(file_path("/a//b"), "a/b");
        for name in ["/", ".", "..", "a/.."] {
            assert_eq!(file_path(name), "", "{name}");
        }
    }

    #[test]
    fn the_markers_of_a_line_are_found_in_order() {
        let names = |line| {
            let found: Vec<Marker> = markers(line).unwrap();
            found.into_iter().map(|m| m.name).collect::<Vec<_>>().join(",")
        };
        assert_eq!(names("COPY <<a.txt 2<<-'b c' /x/"), "a.txt,b c");
        assert_eq!(names("RUN cat <<  EOF > x"), "EOF");
        assert_eq!(names("RUN echo \"<<EOF\" $((1<<2)) a<<b"), "");
        assert_eq!(names("RUN echo $((x << 1))"), "1))");
        assert_eq!(names("RUN <<EOF 'open"), "");
    }

    #[test]
    fn tabs_are_dropped_where_asked_for() {
        let marker = Marker::parse("<<-E").unwrap().unwrap();
        assert!(marker.is_end(b"\t\tE\r\n") && marker.is_end(b"E") && !marker.is_end(b" E\n"));
        let text = b"\t\ta\n \tb\n\n\t".to_vec();
        assert_eq!(Heredoc { marker, text }.content(), b"a\n \tb\n\n");
    }
}
