//! Paths as they stand in instructions: always with `/`, joined and cleaned as Go's `path` does.
//!
//! These are texts that go into keys, histories and image configs. Nothing on a disk is ever
//! resolved by them.

/// The shortest path of the same meaning, `.` when nothing is left (Go's `path.Clean`).
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.as_str()) {
        (true, _) => format!("/{joined}"),
        (false, "") => ".".to_owned(),
        (false, _) => joined,
    }
}

/// The last part of a path: `.` of an empty one, `/` of the root (Go's `path.Base`).
pub fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/" } else { trimmed.rsplit('/').next().unwrap_or(trimmed) }
}

/// Where WORKDIR `path` leads from the directory `current` (empty: the root). An absolute path is
/// taken as it is written, a relative one is joined and cleaned.
pub fn workdir(current: &str, path: &str) -> String {
    let current = if current.is_empty() { "/" } else { current };
    let current =
        if current.starts_with('/') { current.to_owned() } else { clean(&format!("/{current}")) };
    match path {
        "" => current,
        path if path.starts_with('/') => path.to_owned(),
        path => clean(&format!("{current}/{path}")),
    }
}

/// Where COPY and ADD put things: absolute and cleaned; a slash (or `/.`) at the end, which asks for a
/// directory, is kept.
pub fn destination(current: &str, path: &str) -> String {
    let path = if path.is_empty() || path == "." { "./" } else { path };
    let mut out = clean(&workdir(current, path));
    if path.ends_with('/') && !out.ends_with('/') {
        out.push('/');
    } else if path.ends_with("/.") {
        if out != "/" {
            out.push('/');
        }
        out.push('.');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        let cases = [
            ("", "."),
            ("/", "/"),
            ("a//b/./c/", "a/b/c"),
            ("/a/../../b", "/b"),
            ("../a/..", ".."),
            ("../../a", "../../a"),
            ("a/..", "."),
        ];
        for (path, expect) in cases {
            assert_eq!(clean(path), expect, "{path}");
        }
        let cases = [("", "."), ("/", "/"), ("a/b/", "b"), ("b", "b"), ("/a", "a")];
        for (path, expect) in cases {
            assert_eq!(base(path), expect, "{path}");
        }
    }

    #[test]
    fn directories_are_joined() {
        let cases = [
            ("", "a", "/a"),
            ("/w", "../d", "/d"),
            ("/w", "/etc/", "/etc/"),
            ("/w/", "", "/w/"),
            ("w", "x", "/w/x"),
        ];
        for (current, path, expect) in cases {
            assert_eq!(workdir(current, path), expect, "{current} {path}");
        }
    }

    #[test]
    fn destinations_keep_their_slash() {
        let cases = [
            ("/w", ".", "/w/"),
            ("/w", "", "/w/"),
            ("/", ".", "/"),
            ("/w", "a/", "/w/a/"),
            ("/w", "a/.", "/w/a/."),
            ("/w", "a", "/w/a"),
            ("/w", "../../../up", "/up"),
            ("/w", "/x/../y/", "/y/"),
            ("/w", "/x/..", "/"),
            ("/w", "/x/../.", "/."),
            ("/w", "/x//y", "/x/y"),
        ];
        for (current, path, expect) in cases {
            assert_eq!(destination(current, path), expect, "{current} {path}");
        }
    }
}
