//! The command of a RUN, with its heredocs put back.

use super::heredoc::{self, Heredoc, Marker};
use super::instruction::{CommandLine, Run};

/// The directory where a script of a RUN appears in the container.
pub const SCRIPT_DIR: &str = "/dev/pipes";

/// What a RUN runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// A file that must appear in the container.
    pub script: Option<Script>,
}

/// A script that stands in the Dockerfile: a read-only file `/dev/pipes/<name>` of the mode 0755.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its path in [`SCRIPT_DIR`].
    pub name: String,
    /// Its text.
    pub data: Vec<u8>,
}

impl Run {
    /// What is run, where `shell` is the value of SHELL.
    ///
    /// A heredoc that is the whole command is given to the shell; or it is a file that is run, when
    /// it begins with `#!`. Other heredocs are put back into the text, and the shell reads them.
    pub fn resolve(&self, shell: &[String]) -> Command {
        let (CommandLine::Shell(text), [first, ..]) = (&self.command, self.heredocs.as_slice())
        else {
            return Command { args: self.command.args(shell), script: None };
        };
        let with_shell = |text: String| CommandLine::Shell(text).args(shell);
        if Marker::of_word(text).is_none() {
            return Command { args: with_shell(put_back(text, &self.heredocs)), script: None };
        }
        let data = first.content();
        if !data.starts_with(b"#!") {
            let text = String::from_utf8_lossy(&data).into_owned();
            return Command { args: with_shell(text), script: None };
        }
        let name = &first.marker.name;
        // What is run is found from the directory on, and the file is made in a root of its own: a
        // name that leads out of the directory runs something else, as it does in BuildKit.
        let path = super::path::clean(&format!("{SCRIPT_DIR}/{name}"));
        let name = heredoc::file_path(name);
        Command { args: with_shell(path), script: Some(Script { name, data }) }
    }

    /// The first line of the heredoc that is the whole command, for people to see.
    pub(super) fn summary(&self) -> Option<String> {
        let (CommandLine::Shell(text), [first, ..]) = (&self.command, self.heredocs.as_slice())
        else {
            return None;
        };
        Marker::of_word(text)?;
        let text = String::from_utf8_lossy(&first.text);
        let mut lines = text.trim().lines();
        let first = lines.next().unwrap_or_default().to_owned();
        Some(if lines.next().is_some() { first + "..." } else { first })
    }
}

fn put_back(text: &str, heredocs: &[Heredoc]) -> String {
    let mut out = text.to_owned();
    for heredoc in heredocs {
        out.push('\n');
        out.push_str(&String::from_utf8_lossy(&heredoc.text));
        out.push_str(&heredoc.marker.name);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::instruction::Kind;
    use super::*;

    fn run(text: &str) -> Run {
        let file = super::super::parse(format!("FROM a\n{text}").as_bytes(), "f").unwrap();
        match file.stages[0].instructions[0].kind.clone() {
            Kind::Run(run) => *run,
            other => panic!("{other:?}"),
        }
    }

    fn check(text: &str, args: &[&str], script: Option<(&str, &str)>) {
        let command = run(text).resolve(&["sh".to_owned(), "-c".to_owned()]);
        let found = command.script.as_ref();
        let found = found.map(|s| (s.name.as_str(), std::str::from_utf8(&s.data).unwrap()));
        assert_eq!(
            (command.args.as_slice(), found),
            (args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>().as_slice(), script)
        );
    }

    #[test]
    fn commands_are_put_together() {
        check("RUN a  b", &["sh", "-c", "a  b"], None);
        check("RUN", &["sh", "-c", ""], None);
        check("RUN [\"a\", \"<<b\"]", &["a", "<<b"], None);
        check("RUN []", &[], None);
        check("RUN <<E\na\n b\nE\n", &["sh", "-c", "a\n b\n"], None);
        check("RUN <<-E\n\ta\n\tE\n", &["sh", "-c", "a\n"], None);
        check("RUN <<E cat\n\ta\nE\n", &["sh", "-c", "<<E cat\n\ta\nE"], None);
        check("RUN a <<A <<B\n1\nA\n2\nB\n", &["sh", "-c", "a <<A <<B\n1\nA\n2\nB"], None);
        let script = "#!/bin/awk\nx\n";
        check("RUN <<E\n#!/bin/awk\nx\nE\n", &["sh", "-c", "/dev/pipes/E"], Some(("E", script)));
        for name in ["/E", "./E", "E/", "a/../E"] {
            let text = format!("RUN <<{name}\n#!/bin/awk\nx\n{name}\n");
            check(&text, &["sh", "-c", "/dev/pipes/E"], Some(("E", script)));
        }
        let out = "RUN <<../E\n#!/bin/awk\nx\n../E\n";
        check(out, &["sh", "-c", "/dev/E"], Some(("E", script)));
    }

    #[test]
    fn a_heredoc_is_summed_up() {
        assert_eq!(run("RUN <<E\n\n a\r\nb\nE\n").summary().as_deref(), Some("a..."));
        assert_eq!(run("RUN <<E\na\nE\n").summary().as_deref(), Some("a"));
        assert_eq!(run("RUN cat <<E\na\nE\n").summary(), None);
    }
}
