//! Names in archives. Pure.

use proto::limit;
use proto::path::{FileName, NameError};

/// What is wrong with a name in an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// It holds a NUL byte.
    #[error("it holds a NUL byte")]
    Nul,
    /// It leads upwards.
    #[error("it holds `..`")]
    Upwards,
    /// It is deeper than any path can be.
    #[error("it leads through more than {max} directories", max = limit::TREE_DEPTH_MAX)]
    Deep,
    /// It holds something that is no file name.
    #[error(transparent)]
    Component(#[from] NameError),
}

/// The components of a name in an archive, below the archive's own root.
///
/// A name that begins with a slash means the same as one without (buildpacks and others write
/// such), and empty components and `.` count for nothing; all container engines read them so. `..`
/// is refused, even where it would stay inside.
pub fn components(path: &[u8]) -> Result<Vec<FileName>, BadName> {
    if path.contains(&0) {
        return Err(BadName::Nul);
    }
    let mut names = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(BadName::Upwards),
            _ if names.len() >= limit::TREE_DEPTH_MAX => return Err(BadName::Deep),
            _ => names.push(FileName::new(part)?),
        }
    }
    Ok(names)
}

/// The components of a name in an archive that is unpacked into a directory (ADD), where a name that
/// leads upwards is cut off at that directory: so does BuildKit, by the text alone.
pub fn clamped(path: &[u8]) -> Result<Vec<FileName>, BadName> {
    if path.contains(&0) {
        return Err(BadName::Nul);
    }
    let parts = proto::path::clamp(path);
    if parts.len() > limit::TREE_DEPTH_MAX {
        return Err(BadName::Deep);
    }
    parts.into_iter().map(|part| Ok(FileName::new(part)?)).collect()
}

/// What a file name means in a layer.
#[derive(Debug, PartialEq, Eq)]
pub enum Mark<'a> {
    /// Nothing but itself.
    None,
    /// Nothing of this name is left of the layers below.
    Whiteout(&'a [u8]),
    /// Nothing in this directory is left of the layers below.
    Opaque,
    /// Left behind by the AUFS driver; means nothing.
    Ignored,
}

/// Reads the marks of the OCI image spec, “Layer Filesystem Changeset”.
pub fn mark(name: &FileName) -> Mark<'_> {
    match name.as_bytes().strip_prefix(b".wh.") {
        None => Mark::None,
        Some(b".wh..opq") => Mark::Opaque,
        Some(rest) if rest.starts_with(b".wh.") => Mark::Ignored,
        Some(rest) => Mark::Whiteout(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let read = |path: &[u8]| {
            let names = components(path)?;
            Ok(names.iter().map(|n| n.to_string()).collect::<Vec<_>>().join("|"))
        };
        assert_eq!(read(b"./usr//bin/./sh"), Ok("usr|bin|sh".into()));
        assert_eq!(read(b"/etc/"), Ok("etc".into()));
        assert_eq!(read(b"./"), Ok(String::new()));
        assert_eq!(read(b"../etc"), Err(BadName::Upwards));
        assert_eq!(read(b"a/../b"), Err(BadName::Upwards));
        assert_eq!(read(b"a\0b"), Err(BadName::Nul));
        assert_eq!(read(&b"d/".repeat(3000)), Err(BadName::Deep));
        assert!(matches!(read(&[b'x'; 300]), Err(BadName::Component(_))));
    }

    #[test]
    fn names_that_lead_upwards_are_cut_off() {
        let read = |path: &[u8]| {
            let names = clamped(path)?;
            Ok(names.iter().map(|n| n.to_string()).collect::<Vec<_>>().join("|"))
        };
        assert_eq!(read(b"../a"), Ok("a".into()));
        assert_eq!(read(b"x/../../c/./d"), Ok("c|d".into()));
        assert_eq!(read(b".."), Ok(String::new()));
        assert_eq!(read(b"a\0b"), Err(BadName::Nul));
        assert_eq!(read(&b"d/".repeat(3000)), Err(BadName::Deep));
    }

    #[test]
    fn marks_are_read() {
        let name = |n: &str| FileName::new(n.as_bytes()).unwrap();
        assert_eq!(mark(&name("a")), Mark::None);
        assert_eq!(mark(&name(".wh.a")), Mark::Whiteout(b"a"));
        assert_eq!(mark(&name(".wh..hidden")), Mark::Whiteout(b".hidden"));
        assert_eq!(mark(&name(".wh..wh..opq")), Mark::Opaque);
        assert_eq!(mark(&name(".wh..wh.plnk")), Mark::Ignored);
    }
}
