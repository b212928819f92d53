//! What a source of ADD is: a path, a URL or a git repository. COPY takes paths only.
//!
//! The forms of git references are those of BuildKit's `frontend/dockerfile/dfgitutil` and
//! `util/gitutil`.

use super::path;
use super::text::shown;
use super::value::boolean;

/// A source of ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path or pattern in the context.
    Path,
    /// A file on a web server.
    Http {
        /// The name that the file gets in a directory: the last part of the URL's path.
        file_name: String,
    },
    /// A git repository.
    Git(GitRef),
}

/// A git repository, and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitRef {
    /// The repository: what `git fetch` takes.
    pub remote: String,
    /// The branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// The folder in it; empty for all.
    pub subdir: String,
    /// The commit that must be found.
    pub checksum: Option<String>,
    /// Whether `.git` is kept, when the URL says so.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are taken along, when the URL says so.
    pub submodules: Option<bool>,
    /// Whether files get the commit's time (`mtime=commit`).
    pub mtime_of_commit: bool,
    /// Whether the commit is fetched by its name, without asking what the reference is.
    pub fetch_by_commit: bool,
}

/// Why a git URL is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("The git URL `{url}` is not valid: {why}")]
pub struct GitUrlError {
    /// The URL.
    pub url: String,
    /// What is wrong with it.
    pub why: GitUrlProblem,
}

/// What is wrong with a git URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitUrlProblem {
    /// A parameter that there is not.
    #[error("there is no parameter `{0}`")]
    Unknown(String),
    /// A parameter without a value.
    #[error("the parameter `{0}` has no value")]
    Blank(String),
    /// A parameter that is given twice.
    #[error("the parameter `{0}` is given twice")]
    Twice(String),
    /// A value that is none.
    #[error("the parameter `{0}` cannot be `{1}`")]
    Value(String, String),
    /// Two references or folders.
    #[error("it names two things: `{0}` and `{1}`")]
    Conflict(String, String),
    /// A tag and a branch.
    #[error("it names a tag and a branch")]
    TagAndBranch,
}

/// What a source is, after its variables are replaced.
pub fn classify(text: &str) -> Result<Source, GitUrlError> {
    let Some(url) = Url::split(text) else { return Ok(Source::Path) };
    let is_http = matches!(url.scheme, "http" | "https");
    let is_git = match url.scheme {
        "http" | "https" => decode(url.path).is_some_and(|path| path.ends_with(".git")),
        _ => true,
    };
    if is_git && url.is_well_formed() {
        let git = GitRef::read(&url);
        return git.map(Source::Git).map_err(|why| GitUrlError { url: shown(text), why });
    }
    if !is_http {
        return Ok(Source::Path);
    }
    let decoded = decode(url.path).filter(|_| url.is_well_formed());
    let name = decoded.as_deref().map_or(".", path::base);
    let file_name = if matches!(name, "." | "/") { "__unnamed__" } else { name };
    Ok(Source::Http { file_name: file_name.to_owned() })
}

/// The name that a downloaded file gets: the one that is wanted, or `download` where that is none or
/// has control characters (BuildKit's `pathutil.SafeFileName`).
pub fn safe_name(wanted: &str) -> String {
    let name = path::base(wanted.trim());
    let is_name = !matches!(name, "." | ".." | "/") && !name.chars().any(char::is_control);
    if is_name { name } else { "download" }.to_owned()
}

/// A URL in its parts, none of them decoded.
struct Url<'u> {
    scheme: &'u str,
    /// All before the query and the fragment.
    remote: &'u str,
    path: &'u str,
    query: &'u str,
    fragment: &'u str,
}

impl<'u> Url<'u> {
    fn split(text: &'u str) -> Option<Self> {
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
        if let Some((scheme, after)) = remote.split_once("://") {
            let scheme = ["http", "https", "ssh", "git"]
                .into_iter()
                .find(|known| known.eq_ignore_ascii_case(scheme))?;
            let path = after.find('/').map_or("", |at| &after[at..]);
            return Some(Self { scheme, remote, path, query, fragment });
        }
        // `user@host:path`, as scp takes it.
        let (user, rest) = remote.split_once('@')?;
        let (host, path) = rest.split_once(':')?;
        let all = |text: &str, more: &str| {
            let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || more.contains(c);
            !text.is_empty() && text.chars().all(fine)
        };
        let fits = all(user, "_") && all(host, ".");
        fits.then_some(Self { scheme: "ssh", remote, path, query, fragment })
    }

    /// git knows schemes in small letters only.
    fn git_remote(&self) -> String {
        match self.remote.split_once("://") {
            Some((_, after)) => format!("{}://{after}", self.scheme),
            None => self.remote.to_owned(),
        }
    }

    fn is_well_formed(&self) -> bool {
        !self.remote.chars().any(|c| c.is_ascii_control() || c == ' ')
            && decode(self.path).is_some()
            && decode(self.fragment).is_some()
    }

    /// The parameters, decoded. Those that cannot be decoded are left out, as in Go.
    fn parameters(&self) -> impl Iterator<Item = (String, String)> {
        self.query.split('&').filter(|part| !part.is_empty()).filter_map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let text = |part: &str| decode(&part.replace('+', " "));
            Some((text(key)?, text(value)?))
        })
    }
}

/// Resolves `%41`; `None` when a `%` has no two hexadecimal digits after it.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

impl GitRef {
    fn read(url: &Url<'_>) -> Result<Self, GitUrlProblem> {
        let mut git = Self { remote: url.git_remote(), ..Self::default() };
        let fragment = decode(url.fragment).unwrap_or_default();
        let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
        reference.clone_into(&mut git.reference);
        git.subdir = path::clean(&format!("/{subdir}"))[1..].to_owned();
        let (mut tag, mut branch) = (None, None);
        let mut seen = Vec::new();
        for (key, value) in url.parameters() {
            if seen.contains(&key) {
                return Err(GitUrlProblem::Twice(key));
            }
            match key.as_str() {
                "tag" => tag = Some(full_name(&key, &value, "refs/tags/")?),
                "branch" => branch = Some(full_name(&key, &value, "refs/heads/")?),
                _ => git.parameter(&key, &value)?,
            }
            seen.push(key);
        }
        if tag.is_some() && branch.is_some() {
            return Err(GitUrlProblem::TagAndBranch);
        }
        if let Some(name) = tag.or(branch) {
            set_once(&mut git.reference, &name)?;
        }
        Ok(git)
    }

    fn parameter(&mut self, key: &str, value: &str) -> Result<(), GitUrlProblem> {
        let wrong = || GitUrlProblem::Value(key.to_owned(), shown(value));
        let flag = || match value {
            "" => Ok(true),
            _ => boolean(value).ok_or_else(wrong),
        };
        match key {
            "ref" => set_once(&mut self.reference, given(key, value)?)?,
            "subdir" => set_once(&mut self.subdir, given(key, value)?)?,
            "checksum" | "commit" => self.checksum = Some(given(key, value)?.to_owned()),
            "keep-git-dir" => self.keep_git_dir = Some(flag()?),
            "submodules" => self.submodules = Some(flag()?),
            "fetch-by-commit" => self.fetch_by_commit = flag()?,
            "mtime" => match given(key, value)? {
                "checkout" => self.mtime_of_commit = false,
                "commit" => self.mtime_of_commit = true,
                _ => return Err(wrong()),
            },
            _ => return Err(GitUrlProblem::Unknown(shown(key))),
        }
        Ok(())
    }
}

fn given<'v>(key: &str, value: &'v str) -> Result<&'v str, GitUrlProblem> {
    if value.is_empty() { Err(GitUrlProblem::Blank(key.to_owned())) } else { Ok(value) }
}

fn full_name(key: &str, value: &str, prefix: &str) -> Result<String, GitUrlProblem> {
    let value = given(key, value)?;
    Ok(if value.starts_with(prefix) { value.to_owned() } else { format!("{prefix}{value}") })
}

fn set_once(place: &mut String, value: &str) -> Result<(), GitUrlProblem> {
    if !place.is_empty() && place != value {
        return Err(GitUrlProblem::Conflict(shown(place), shown(value)));
    }
    value.clone_into(place);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_http(text: &str, name: &str) {
        let file_name = name.to_owned();
        assert_eq!(classify(text), Ok(Source::Http { file_name }), "{text}");
    }

    fn git(text: &str) -> GitRef {
        match classify(text) {
            Ok(Source::Git(git)) => git,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn paths_stay_paths() {
        for text in ["", ".", "a.git", "./a@b:c", "../x", "github.com/a/b", "ftp://a/b.git", "a@b"]
        {
            assert_eq!(classify(text), Ok(Source::Path), "{text}");
        }
    }

    #[test]
    fn files_of_web_servers_have_a_name() {
        check_http("http://h/a/b.txt?x=/y#z", "b.txt");
        check_http("https://h/a%20b", "a b");
        check_http("HTTPS://h/x.gitx", "x.gitx");
        for text in ["http://h", "http://h/", "http://h//", "http://h/%zz"] {
            check_http(text, "__unnamed__");
        }
        check_http("http://h/a/", "a");
        check_http("http://h/%2e%2e", "..");
    }

    #[test]
    fn downloads_are_called_something() {
        assert_eq!(safe_name("a b"), "a b");
        assert_eq!(safe_name(" a\n"), "a");
        for wanted in ["..", ".", "", " ", "a\nb", "b\u{7f}a"] {
            assert_eq!(safe_name(wanted), "download", "{wanted:?}");
        }
    }

    #[test]
    fn git_references_are_read() {
        let found = git("https://h/a/r.git#v1:sub/../dir");
        assert_eq!(found.remote, "https://h/a/r.git");
        assert_eq!((found.reference.as_str(), found.subdir.as_str()), ("v1", "dir"));
        assert_eq!(git("HTTPS://H/A.git").remote, "https://H/A.git");
        assert_eq!(git("Ssh://git@h/a").remote, "ssh://git@h/a");
        let found = git("git@h.org:a/r#:x");
        assert_eq!(found.remote, "git@h.org:a/r");
        assert_eq!((found.reference.as_str(), found.subdir.as_str()), ("", "x"));
        let found = git("ssh://git@h/r.git?branch=b&keep-git-dir&submodules=false&commit=abc");
        assert_eq!(found.reference, "refs/heads/b");
        assert_eq!(found.keep_git_dir, Some(true));
        assert_eq!(found.submodules, Some(false));
        assert_eq!(found.checksum.as_deref(), Some("abc"));
        let found = git("git://h/r?tag=refs/tags/t&mtime=commit&fetch-by-commit=1&subdir=d");
        assert_eq!((found.reference.as_str(), found.subdir.as_str()), ("refs/tags/t", "d"));
        assert!(found.mtime_of_commit && found.fetch_by_commit);
    }

    #[test]
    fn bad_parameters_are_refused() {
        let cases = [
            ("x=1", GitUrlProblem::Unknown("x".to_owned())),
            ("ref=", GitUrlProblem::Blank("ref".to_owned())),
            ("ref=a&ref=a", GitUrlProblem::Twice("ref".to_owned())),
            ("tag=a&branch=b", GitUrlProblem::TagAndBranch),
            ("mtime=x", GitUrlProblem::Value("mtime".to_owned(), "x".to_owned())),
            ("submodules=x", GitUrlProblem::Value("submodules".to_owned(), "x".to_owned())),
        ];
        for (query, why) in cases {
            let found = classify(&format!("https://h/r.git?{query}")).unwrap_err();
            assert_eq!(found.why, why, "{query}");
        }
        let found = classify("https://h/r.git?ref=b#a").unwrap_err();
        assert_eq!(found.why, GitUrlProblem::Conflict("a".to_owned(), "b".to_owned()));
    }
}
