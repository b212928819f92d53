//! The files of a case, and what is left out of them.

use super::super::case::Node;
use super::super::words;
use super::Maker;

impl Maker {
    pub(super) fn context(&mut self) {
        for _ in 0..self.random.usize(2..12) {
            let path = words::path(&mut self.random);
            self.node(path);
        }
        if self.chance(25) {
            let of = self.directory();
            let packed = [None, Some('z'), Some('j'), Some('J')][self.random.usize(..4)];
            let path = self.pick(&["r.tar", "r.tgz", "r"]).to_owned();
            self.case.context.push(Node::Archive { path, of, packed });
        }
    }

    /// Adds something, with the directories above it; nothing if the place is taken.
    fn node(&mut self, path: String) {
        let above: Vec<String> =
            path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect();
        for directory in above {
            match self.case.context.iter().find(|node| node.path() == directory) {
                Some(Node::Directory { .. }) => {}
                Some(_) => return,
                None => {
                    let mode = if self.chance(70) { 0o755 } else { self.searchable() };
                    self.case.context.push(Node::Directory { path: directory, mode });
                }
            }
        }
        if self.has(&path) {
            return;
        }
        let node = match self.random.u8(..20) {
            0..=2 => Node::Directory { path, mode: self.searchable() },
            3..=5 => Node::Link { to: self.target(), path },
            // An older BuildKit leaves out what is neither file nor link.
            6 if self.full => Node::Fifo { path },
            _ => {
                let mode = words::mode(&mut self.random);
                Node::File { text: format!("{}{}", path, self.random.u8(..3)), path, mode }
            }
        };
        self.case.context.push(node);
    }

    /// The mode of a directory that its owner can use.
    fn searchable(&mut self) -> u32 {
        words::mode(&mut self.random) | 0o700
    }

    fn target(&mut self) -> String {
        match self.random.u8(..6) {
            0 => "/etc/passwd".to_owned(),
            1 => format!("../{}", words::name(&mut self.random)),
            2 => format!("/{}", words::path(&mut self.random)),
            _ => words::path(&mut self.random),
        }
    }

    fn directory(&mut self) -> String {
        let all: Vec<&Node> = self.case.context.iter().collect();
        let directories = all.iter().filter(|node| matches!(node, Node::Directory { .. }));
        let mut paths: Vec<String> = directories.map(|node| node.path().to_owned()).collect();
        if paths.is_empty() {
            self.case.context.push(Node::Directory { path: "dir".to_owned(), mode: 0o755 });
            paths.push("dir".to_owned());
        }
        paths.swap_remove(self.random.usize(..paths.len()))
    }

    /// A path of the context, most of the time.
    pub(super) fn there(&mut self) -> String {
        let count = self.case.context.len();
        if count == 0 || self.chance(3) {
            return words::path(&mut self.random);
        }
        self.case.context[self.random.usize(..count)].path().to_owned()
    }

    pub(super) fn ignore(&mut self) {
        if !self.chance(35) {
            return;
        }
        for _ in 0..self.random.usize(1..5) {
            let path = self.there();
            let line = words::excluding(&mut self.random, &path);
            self.case.ignore.push(line);
        }
    }

    fn has(&self, path: &str) -> bool {
        self.case.context.iter().any(|node| node.path() == path)
    }
}
