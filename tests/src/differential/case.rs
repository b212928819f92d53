//! A Dockerfile with its context, as parts that can be left out one by one.

use crate::scratch::{make, write};
use std::fmt::Write as _;
use std::path::Path;

/// Where the corpus' runner has the registry's address filled in.
pub const REGISTRY: &str = "{{REGISTRY}}";

/// An instruction of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Its words, with one space between them; the first is its keyword.
    pub words: Vec<String>,
    /// The lines after its first: what its here-documents say, with their ends.
    pub body: Vec<String>,
}

impl Instruction {
    /// One on a single line.
    pub fn line(keyword: &str, words: impl IntoIterator<Item = String>) -> Self {
        let words = std::iter::once(keyword.to_owned()).chain(words).collect();
        Self { words, body: Vec::new() }
    }
}

/// Something in a context, made by a command of a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory {
        /// Its path.
        path: String,
        /// Its mode, in octal.
        mode: u32,
    },
    /// A file.
    File {
        /// Its path.
        path: String,
        /// Its mode, in octal.
        mode: u32,
        /// What it says.
        text: String,
    },
    /// A symbolic link.
    Link {
        /// Its path.
        path: String,
        /// What it points to.
        to: String,
    },
    /// A named pipe.
    Fifo {
        /// Its path.
        path: String,
    },
    /// An archive of a directory of the context as far as it was made by then.
    Archive {
        /// Its path.
        path: String,
        /// The directory.
        of: String,
        /// The flag of `tar` that says how it is packed, if it is.
        packed: Option<char>,
    },
}

impl Node {
    /// Where it is, below the context's root.
    pub fn path(&self) -> &str {
        match self {
            Self::Directory { path, .. }
            | Self::File { path, .. }
            | Self::Link { path, .. }
            | Self::Fifo { path }
            | Self::Archive { path, .. } => path,
        }
    }

    fn command(&self) -> String {
        let path = quoted(self.path());
        match self {
            Self::Directory { mode, .. } => format!("mkdir -p {path}; chmod {mode:o} {path}"),
            Self::File { mode, text, .. } => {
                format!("printf %s {} > {path}; chmod {mode:o} {path}", quoted(text))
            }
            Self::Link { to, .. } => format!("ln -s {} {path}", quoted(to)),
            Self::Fifo { .. } => format!("mkfifo {path}"),
            Self::Archive { of, packed, .. } => {
                let packed = packed.map(String::from).unwrap_or_default();
                let plain = "--sort=name --mtime=@1700000000 --owner=3 --group=4 --numeric-owner";
                format!("tar -c{packed}f {path} {plain} -C {} .", quoted(of))
            }
        }
    }
}

/// A word as the shell reads it as it stands.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A Dockerfile, its context and how it is built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Case {
    /// The Dockerfile.
    pub dockerfile: Vec<Instruction>,
    /// The context: directories come before what is in them.
    pub context: Vec<Node>,
    /// The lines of `.dockerignore`; without any there is none.
    pub ignore: Vec<String>,
    /// The flags of the build.
    pub flags: Vec<String>,
    /// Patterns of paths in the image that are not compared.
    pub not_compared: Vec<String>,
    /// Keys of the image's config that are not compared.
    pub not_configured: Vec<String>,
    /// Whether what each layer lists is compared, too.
    pub by_layer: bool,
}

impl Case {
    /// The text of the Dockerfile.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for instruction in &self.dockerfile {
            text.push_str(&instruction.words.join(" "));
            text.push('\n');
            for line in &instruction.body {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    /// The script that makes the context.
    fn setup(&self) -> String {
        let mut script = String::new();
        for node in &self.context {
            writeln!(script, "{}", node.command()).expect("text grows");
        }
        if !self.ignore.is_empty() {
            let lines = quoted(&(self.ignore.join("\n") + "\n"));
            writeln!(script, "printf %s {lines} > .dockerignore").expect("text grows");
        }
        script
    }

    /// Writes it as a case of the conformance corpus.
    pub fn write(&self, directory: &Path, description: &str) {
        make(directory);
        write(directory, "Dockerfile", self.text());
        let setup = self.setup();
        if !setup.is_empty() {
            write(directory, "setup.sh", setup);
        }
        // Strings of JSON are strings of TOML.
        let description = serde_json::Value::from(description);
        let list = |of: &Vec<String>| serde_json::Value::from(of.clone());
        let (flags, paths) = (list(&self.flags), list(&self.not_compared));
        let keys = list(&self.not_configured);
        let mut about = format!("description = {description}\nexpect = \"any\"\nflags = {flags}\n");
        writeln!(about, "ignore = {paths}\nignore_config = {keys}").expect("text grows");
        if self.by_layer {
            about.push_str("compare = [\"tree\", \"config\", \"history\", \"layers\"]\n");
        }
        write(directory, "case.toml", about);
    }
}
