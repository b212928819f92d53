//! Images in OCI layouts of this machine as contexts: `oci-layout://PATH[:TAG][@DIGEST]`.

use crate::error::user;
use proto::error::Failure;
use proto::id::OciDigest;
use proto::platform::Platform;
use std::path::PathBuf;
use worker::image::layout::{BLOBS, Chosen, LayoutError, Which, choose};

/// The tag that is meant when none is said.
const TAG: &str = "latest";

/// An image in a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
    which: Which,
}

impl Layout {
    /// Reads what stands behind `oci-layout://`. `flag` is the whole flag, for messages.
    pub fn parse(text: &str, flag: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| user(format!("--build-context `{flag}`: {why}"));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = OciDigest::parse(digest).map_err(|e| wrong(&e.to_string()))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (dir, tag) = match rest.rsplit_once(':') {
            Some((dir, tag)) if !tag.contains('/') => (dir, tag),
            _ => (rest, TAG),
        };
        if dir.is_empty() || tag.is_empty() {
            return Err(wrong("expected oci-layout://DIRECTORY[:TAG][@DIGEST]"));
        }
        let which = digest.map_or_else(|| Which::Tag(tag.to_owned()), Which::Digest);
        Ok(Self { dir: dir.into(), which })
    }

    /// The directory of its files.
    pub fn files(&self) -> PathBuf {
        self.dir.join(BLOBS)
    }

    /// Finds out which files make up the image. `name` is the context's, for messages.
    pub async fn choose(&self, name: &str, platform: Platform) -> Result<Chosen, Failure> {
        let own = self.clone();
        let chosen = tokio::task::spawn_blocking(move || choose(&own.dir, &own.which, &platform));
        let chosen = chosen.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
        chosen.map_err(|e: LayoutError| {
            Failure::new(e.class(), format!("--build-context {name}: {e}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<(String, Which)> {
        let layout = Layout::parse(text, text).ok()?;
        Some((layout.dir.display().to_string(), layout.which))
    }

    #[test]
    fn a_layout_has_a_tag_or_a_digest() {
        let tag = |dir: &str, tag: &str| Some((dir.to_owned(), Which::Tag(tag.to_owned())));
        assert_eq!(parse("../lay:two"), tag("../lay", "two"));
        assert_eq!(parse("/a/lay"), tag("/a/lay", "latest"));
        assert_eq!(parse("/a:b/lay"), tag("/a:b/lay", "latest"));
        let digest = format!("sha256:{}", "ab".repeat(32));
        let which = Which::Digest(OciDigest::parse(&digest).unwrap());
        assert_eq!(parse(&format!("lay@{digest}")), Some(("lay".into(), which.clone())));
        assert_eq!(parse(&format!("lay:one@{digest}")), Some(("lay".into(), which)));
        for bad in ["", ":tag", "lay:", "lay@sha256:00", "lay@"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
