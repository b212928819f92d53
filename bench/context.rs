//! The context of 20,000 files and 235 MB: text that compresses as sources do.

use std::fs;
use std::path::{Path, PathBuf};
use tests::scratch::Scratch;

const DIRECTORIES: usize = 200;
const FILES: usize = 100;
/// Bytes of a file: between half and one and a half of this.
const SIZE: u64 = 11_750;

/// Words of the texts.
const WORDS: [&str; 32] = [
    "fn", "let", "match", "return", "struct", "impl", "const", "while", "error", "value", "index",
    "buffer", "length", "offset", "reader", "writer", "state", "result", "option", "parse",
    "token", "stream", "(", ")", "{", "}", ";", "=>", "self.", "::new", "\n    ", "\n",
];

/// The generator of Knuth's MMIX: the same files in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn text(&mut self) -> String {
        let size = (SIZE / 2 + self.next() % SIZE) as usize;
        let mut text = String::with_capacity(size + 32);
        while text.len() < size {
            let draw = self.next();
            if draw.is_multiple_of(4) {
                text += &format!("{draw:x}");
            } else {
                text += WORDS[(draw >> 2) as usize % WORDS.len()];
                text.push(' ');
            }
        }
        text
    }
}

/// The context, with Dockerfiles beside it: nothing in it but the files.
pub struct Context {
    scratch: Scratch,
    changes: u32,
}

impl Context {
    /// Writes it.
    pub fn new() -> Self {
        let scratch = Scratch::new("bench-context");
        let mut random = Random(20_000);
        for directory in 0..DIRECTORIES {
            let path = scratch.directory(&format!("files/d{directory:03}"));
            for file in 0..FILES {
                fs::write(path.join(format!("f{file:03}.rs")), random.text()).expect("writing");
            }
        }
        scratch.write("Dockerfile", "FROM scratch\nCOPY . /files/\n");
        Self { scratch, changes: 0 }
    }

    /// Its directory.
    pub fn path(&self) -> PathBuf {
        self.scratch.join("files")
    }

    /// The Dockerfile that copies everything.
    pub fn dockerfile(&self) -> String {
        self.write_dockerfile("Dockerfile", "FROM scratch\nCOPY . /files/\n")
    }

    /// Writes another Dockerfile beside the context, and returns its path.
    pub fn write_dockerfile(&self, name: &str, text: &str) -> String {
        path(&self.scratch.write(name, text))
    }

    /// Changes one file.
    pub fn change(&mut self) {
        self.changes += 1;
        let text = format!("changed {} times\n", self.changes);
        fs::write(self.path().join("d100/f050.rs"), text).expect("writing");
    }
}

/// A path as a flag has it.
pub fn path(path: &Path) -> String {
    path.to_str().expect("a path of the benchmark is UTF-8").to_owned()
}
