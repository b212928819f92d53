//! Which part of a context a build looks at.
//!
//! A COPY names paths and patterns; symlinks on the way lead to other paths, which count too (as
//! BuildKit's `FollowPaths` does, `fsutil/followlinks.go`).

use crate::tree::glob::{self, Glob};
use proto::limit;
use rustix::fs::{CWD, Mode, OFlags};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The part of a context that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    All,
    /// These paths, with all that is below them; and the directories that lead to them.
    Paths(BTreeSet<Vec<u8>>),
}

impl Wanted {
    /// Finds out which paths the patterns stand for in the directory `base`. What is not there is
    /// left out: whoever copies it will say so. No patterns: all of it.
    pub fn resolve(base: &Path, patterns: &[String]) -> Self {
        let clean: Vec<Vec<u8>> = patterns.iter().map(|p| clean(p.as_bytes())).collect();
        if clean.is_empty() || clean.iter().any(Vec::is_empty) {
            return Self::All;
        }
        let mut resolver =
            Resolver { base, found: BTreeSet::new(), seen: BTreeSet::new(), depth: 0 };
        for pattern in clean {
            let parts: Vec<Vec<u8>> = pattern.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
            resolver.add(Vec::new(), &parts);
        }
        match resolver.found.contains(&Vec::new()) {
            true => Self::All,
            false => Self::Paths(resolver.found),
        }
    }

    /// What to do with a path (relative, without a slash at the end).
    pub fn part(&self, path: &[u8]) -> Part {
        let Self::Paths(paths) = self else { return Part::Whole };
        let above = (0..=path.len())
            .filter(|at| *at == path.len() || path[*at] == b'/')
            .any(|at| paths.contains(&path[..at]));
        if above {
            return Part::Whole;
        }
        let prefix = [path, b"/"].concat();
        let below = paths.range(prefix.clone()..).next();
        if below.is_some_and(|p| p.starts_with(&prefix)) { Part::Way } else { Part::Nothing }
    }
}

/// Whether a path is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// With all below it.
    Whole,
    /// Only because it leads to something.
    Way,
    /// No.
    Nothing,
}

fn clean(path: &[u8]) -> Vec<u8> {
    proto::path::clamp(path).join(&b'/')
}

struct Resolver<'a> {
    base: &'a Path,
    found: BTreeSet<Vec<u8>>,
    /// Links that were followed, with what was looked for behind them.
    seen: BTreeSet<(Vec<u8>, Vec<Vec<u8>>)>,
    /// Links that lead to where it is now.
    depth: usize,
}

impl Resolver<'_> {
    fn on_disk(&self, path: &[u8]) -> PathBuf {
        self.base.join(OsStr::from_bytes(path))
    }

    /// Follows `rest` from the directory `at` (a path without symlinks).
    fn add(&mut self, at: Vec<u8>, rest: &[Vec<u8>]) {
        let Some((part, rest)) = rest.split_first() else {
            self.found.insert(at);
            return;
        };
        if part.windows(2).any(|w| w == b"**") {
            // Any depth (`COPY --parents`): whoever copies it takes what fits. Without `--parents` it
            // is as good as `*`, and the links that it stands for are followed.
            self.found.insert(at.clone());
        }
        match Glob::new(part) {
            Ok(pattern) if glob::has_wildcards(part) => {
                for name in self.names(&at).into_iter().filter(|name| pattern.matches(name)) {
                    self.step(&at, &name, rest);
                }
            }
            _ => self.step(&at, part, rest),
        }
    }

    fn step(&mut self, at: &[u8], name: &[u8], rest: &[Vec<u8>]) {
        let path = if at.is_empty() { name.to_vec() } else { [at, b"/", name].concat() };
        let on_disk = self.on_disk(&path);
        let Ok(target) = std::fs::read_link(&on_disk) else {
            self.add(path, rest);
            return;
        };
        // The link itself is needed, and what it leads to, inside the context.
        self.found.insert(path.clone());
        let news = self.seen.insert((path, rest.to_vec()));
        if !news || self.depth == limit::SYMLINKS_FOLLOWED_MAX {
            return;
        }
        let target = target.as_os_str().as_bytes();
        let whole =
            if target.starts_with(b"/") { target.to_vec() } else { [at, b"/", target].concat() };
        let mut parts: Vec<Vec<u8>> =
            proto::path::clamp(&whole).into_iter().map(<[u8]>::to_vec).collect();
        parts.extend_from_slice(rest);
        self.depth += 1;
        self.add(Vec::new(), &parts);
        self.depth -= 1;
    }

    fn names(&self, dir: &[u8]) -> Vec<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(CWD, self.on_disk(dir), flags, Mode::empty()) else {
            return Vec::new();
        };
        let Ok(entries) = rustix::fs::Dir::read_from(&fd) else { return Vec::new() };
        let name = |entry: rustix::fs::DirEntry| {
            let name = entry.file_name().to_bytes().to_vec();
            let dots = matches!(name.as_slice(), b"." | b"..");
            (!dots).then_some(name)
        };
        let mut names: Vec<_> = entries.filter_map(Result::ok).filter_map(name).collect();
        names.sort();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn resolve(base: &Path, patterns: &[&str]) -> Vec<String> {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        match Wanted::resolve(base, &patterns) {
            Wanted::All => vec!["(all)".to_owned()],
            Wanted::Paths(p) => p.into_iter().map(|p| String::from_utf8(p).unwrap()).collect(),
        }
    }

    #[test]
    fn links_and_patterns_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        std::fs::create_dir_all(base.join("real/sub")).unwrap();
        std::fs::write(base.join("real/a.txt"), "").unwrap();
        std::fs::write(base.join("real/b.md"), "").unwrap();
        symlink("real", base.join("link")).unwrap();
        symlink("/real/a.txt", base.join("abs")).unwrap();
        symlink("../../../real", base.join("real/sub/out")).unwrap();
        symlink("loop", base.join("loop")).unwrap();
        std::fs::create_dir_all(base.join("lib/x")).unwrap();
        symlink("../../real/a.txt", base.join("lib/x/a")).unwrap();

        assert_eq!(resolve(base, &["real/*.txt"]), ["real/a.txt"]);
        assert_eq!(resolve(base, &["link/a.txt"]), ["link", "real/a.txt"]);
        assert_eq!(resolve(base, &["abs"]), ["abs", "real/a.txt"]);
        assert_eq!(resolve(base, &["real/sub/out/b*"]), ["real/b.md", "real/sub/out"]);
        assert_eq!(resolve(base, &["nothing"]), ["nothing"]);
        assert_eq!(resolve(base, &["a", "."]), ["(all)"]);
        assert_eq!(resolve(base, &["../../x"]), ["x"]);
        assert_eq!(resolve(base, &["loop"]), ["loop"]);
        assert_eq!(resolve(base, &["real/**/*.md"]), ["real"]);
        assert_eq!(resolve(base, &["lib/x/**"]), ["lib/x", "lib/x/a", "real/a.txt"]);
        assert_eq!(resolve(base, &["lib/x/**.so"]), ["lib/x"]);
        assert_eq!(resolve(base, &["**/*.md"]), ["(all)"]);
    }

    #[test]
    fn parts_of_paths() {
        let wanted = Wanted::Paths([b"a/b".to_vec(), b"c".to_vec()].into());
        assert_eq!(wanted.part(b"a"), Part::Way);
        assert_eq!(wanted.part(b"a/b"), Part::Whole);
        assert_eq!(wanted.part(b"a/b/x"), Part::Whole);
        assert_eq!(wanted.part(b"a/bc"), Part::Nothing);
        assert_eq!(wanted.part(b"c"), Part::Whole);
        assert_eq!(wanted.part(b"cc"), Part::Nothing);
    }
}
