//! What ADD takes from web servers and git repositories.

use super::{Answer, Found, FoundFile, LowerProblem, Wanted};
use crate::dockerfile::instruction::AddFiles;
use crate::dockerfile::source::GitRef;
use proto::id::OciDigest;

/// What ADD has and COPY has not.
pub(super) struct AddOnly<'a> {
    pub checksum: Option<&'a str>,
    pub keep_git_dir: Option<bool>,
    pub unpack: Option<bool>,
}

impl<'a> AddOnly<'a> {
    pub fn of(add: &'a AddFiles<String>) -> Self {
        Self {
            checksum: add.checksum.as_deref(),
            keep_git_dir: add.keep_git_dir,
            unpack: add.unpack,
        }
    }
}

/// What is at a URL, with the digest that it must have, if one is given.
pub(super) fn file<'f>(
    found: &'f Found,
    url: &str,
    only: &AddOnly<'_>,
) -> Result<Answer<(&'f FoundFile, Option<OciDigest>), Wanted>, LowerProblem> {
    let not_a_digest = |e| LowerProblem::Checksum(format!("of a URL is `sha256:…`: {e}"));
    let checksum = only.checksum.map(OciDigest::parse).transpose().map_err(not_a_digest)?;
    let Some(found) = found.files.get(url) else {
        return Ok(Answer::Wanted(Wanted::File { url: url.to_owned() }));
    };
    if let Some(expected) = checksum.filter(|c| *c != found.digest) {
        let why = format!("says {expected}, but {url} has {}", found.digest);
        return Err(LowerProblem::Checksum(why));
    }
    Ok(Answer::Known((found, checksum)))
}

/// The commit that a git reference stands for.
pub(super) fn commit<'f>(
    found: &'f Found,
    git: &GitRef,
    only: &AddOnly<'_>,
) -> Result<Answer<&'f str, Wanted>, LowerProblem> {
    if only.keep_git_dir.zip(git.keep_git_dir).is_some_and(|(a, b)| a != b) {
        return Err(LowerProblem::Inconsistent("keep-git-dir"));
    }
    let checksum = only.checksum.or(git.checksum.as_deref());
    if only.checksum.zip(git.checksum.as_deref()).is_some_and(|(a, b)| a != b) {
        return Err(LowerProblem::Inconsistent("checksum"));
    }
    let key = (git.remote.clone(), git.reference.clone());
    let Some(commit) = found.commits.get(&key) else {
        let (remote, reference) = key;
        return Ok(Answer::Wanted(Wanted::Commit { remote, reference }));
    };
    if let Some(checksum) = checksum.filter(|c| !commit.starts_with(*c)) {
        let why = format!("says {checksum}, but the commit is {commit}");
        return Err(LowerProblem::Checksum(why));
    }
    Ok(Answer::Known(commit))
}
