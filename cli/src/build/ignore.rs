//! The ignore file of a context: `<Dockerfile>.dockerignore` beside the Dockerfile, else the context's
//! own `.dockerignore`.

use crate::error::{io, user};
use crate::tell;
use cache::tree::pattern::{IgnoreError, PatternError, Patterns, read_ignore_file};
use proto::error::Failure;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// The context's own ignore file.
const NAME: &str = ".dockerignore";

/// What an ignore file says.
#[derive(Debug)]
pub struct Ignore {
    patterns: Result<Option<Arc<Patterns>>, Failure>,
    /// Its lines.
    pub lines: Vec<String>,
}

impl Default for Ignore {
    fn default() -> Self {
        Self { patterns: Ok(None), lines: Vec::new() }
    }
}

impl Ignore {
    /// What is left out. A pattern that can be compared with nothing is an error only here: it harms
    /// no build that looks at no file of the context.
    pub fn patterns(&self) -> Result<Option<Arc<Patterns>>, Failure> {
        self.patterns.clone()
    }
}

/// Reads the ignore file of a context, and of a Dockerfile if it lies on this machine.
pub fn read(directory: &Path, dockerfile: Option<&Path>) -> Result<Ignore, Failure> {
    let of_dockerfile = dockerfile.map(|path| {
        let mut name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.push_str(NAME);
        let beside = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
        (beside, name)
    });
    for (dir, name) in of_dockerfile.into_iter().chain([(directory, NAME.to_owned())]) {
        let path = dir.join(&name);
        let text = find(dir, &name).map_err(|e| io("Reading the ignore file", &path, &e))?;
        let Some(text) = text else {
            if path.symlink_metadata().is_ok() {
                let path = path.display();
                tell!(
                    "WARNING: {path} leaves nothing out: it is no file, or a link that leads out"
                );
            }
            continue;
        };
        let wrong = |e: IgnoreError| user(format!("The ignore file {}: {e}", path.display()));
        let patterns = match read_ignore_file(&text) {
            Ok(patterns) => Ok((!patterns.is_empty()).then(|| Arc::new(patterns))),
            Err(e @ IgnoreError::Pattern { why: PatternError::Expression { .. }, .. }) => {
                Err(wrong(e))
            }
            Err(e) => return Err(wrong(e)),
        };
        let lines = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
        return Ok(Ignore { patterns, lines });
    }
    Ok(Ignore::default())
}

/// The text of an ignore file. As BuildKit's daemon, which gets the directory and nothing else, this
/// follows links inside of the directory, absolute ones from its root; what is then not there or is
/// no file is no ignore file.
fn find(dir: &Path, name: &str) -> std::io::Result<Option<Vec<u8>>> {
    let found = match worker::agent::git::inside(dir, name) {
        Ok(found) => found,
        Err(e) if is_nothing(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    match std::fs::symlink_metadata(&found) {
        Ok(meta) if meta.is_file() => std::fs::read(&found).map(Some),
        Ok(_) => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_nothing(error: &std::io::Error) -> bool {
    let kinds = [ErrorKind::NotFound, ErrorKind::NotADirectory];
    kinds.contains(&error.kind())
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn lines(directory: &Path, dockerfile: Option<&Path>) -> Vec<String> {
        read(directory, dockerfile).unwrap().lines
    }

    #[test]
    fn the_file_of_the_dockerfile_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let (base, dockerfile) = (dir.path(), dir.path().join("My"));
        assert!(lines(base, Some(&dockerfile)).is_empty());
        std::fs::write(base.join(".dockerignore"), "a").unwrap();
        assert_eq!(lines(base, Some(&dockerfile)), ["a"]);
        std::fs::create_dir(base.join("My.dockerignore")).unwrap();
        assert_eq!(lines(base, Some(&dockerfile)), ["a"], "a directory is no ignore file");
        std::fs::remove_dir(base.join("My.dockerignore")).unwrap();
        std::fs::write(base.join("My.dockerignore"), "b\nc").unwrap();
        assert_eq!(lines(base, Some(&dockerfile)), ["b", "c"]);
        assert_eq!(lines(base, None), ["a"]);
    }

    #[test]
    fn links_are_followed_inside_of_the_directory() {
        let outer = tempfile::tempdir().unwrap();
        let base = outer.path().join("context");
        std::fs::create_dir_all(base.join("sub")).unwrap();
        std::fs::write(outer.path().join("outside"), "out").unwrap();
        std::fs::write(base.join("sub/real"), "in").unwrap();
        let link = base.join(".dockerignore");
        let outside = outer.path().join("outside").to_string_lossy().into_owned();
        for (target, expect) in [
            ("../outside", None),
            (outside.as_str(), None),
            ("sub", None),
            (".dockerignore", None),
            ("sub/real/x", None),
            ("sub/real", Some("in")),
            ("/sub/real", Some("in")),
            ("../../sub/real", Some("in")),
        ] {
            symlink(target, &link).unwrap();
            assert_eq!(lines(&base, None).first().map(String::as_str), expect, "{target}");
            std::fs::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn a_bad_pattern_is_told_when_files_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".dockerignore"), "bin\\obj").unwrap();
        let ignore = read(dir.path(), None).unwrap();
        let why = ignore.patterns().unwrap_err().message;
        assert!(why.contains("Line 1") && why.contains("bin\\obj"), "{why}");
        std::fs::write(dir.path().join(".dockerignore"), "[").unwrap();
        assert!(read(dir.path(), None).is_err());
    }
}
