//! Names of files that hold logins. They do not enter a generation, which other people's builds
//! read.

use crate::tree::glob::Glob;

/// Patterns of names, some with the name of the directory above (which may be the mount's own), and
/// what such a file is. Only regular files are compared with them, and none in packages: what a
/// package brings is no secret of ours, and a package without one of its files is a broken one. So
/// `token.go` and all in a directory `credentials` stay.
pub const SECRETS: [(&str, &str); 36] = [
    (".npmrc", "npm's and pnpm's settings, with tokens"),
    (".yarnrc.yml", "yarn's settings, with tokens"),
    (".netrc", "logins for hosts"),
    ("_netrc", "logins for hosts"),
    (".git-credentials", "git's logins"),
    (".pypirc", "logins for Python's registries"),
    ("pip.conf", "pip's settings, with addresses that hold passwords"),
    (".docker/config.json", "Docker's logins"),
    ("auth.json", "composer's and containers' logins"),
    (".bundle/config", "bundler's settings, with tokens"),
    (".m2/settings.xml", "Maven's settings, with passwords"),
    (".m2/settings-security.xml", "Maven's master password"),
    (".gradle/gradle.properties", "Gradle's settings, with passwords"),
    ("NuGet.Config", "NuGet's settings, with passwords"),
    ("nuget.config", "NuGet's settings, with passwords"),
    ("id_rsa", "a key of ssh"),
    ("id_dsa", "a key of ssh"),
    ("id_ecdsa", "a key of ssh"),
    ("id_ed25519", "a key of ssh"),
    ("credentials", "logins of cargo, gem, aws"),
    (".credentials", "logins"),
    (r"*[\-_.]credentials", "logins"),
    ("credentials.toml", "cargo's logins"),
    ("credentials.json", "logins"),
    ("credentials.xml", "logins"),
    ("credentials.yml", "logins"),
    ("credentials.yaml", "logins"),
    ("credentials.ini", "logins"),
    ("credentials.db", "gcloud's logins"),
    (r"*[\-_.]credentials.json", "logins of Google's tools"),
    ("token", "a token, such as Hugging Face's"),
    ("token.txt", "a token"),
    ("token.json", "a token"),
    (r"*[\-_.]token", "a token"),
    (r"*[\-_.]token.txt", "a token"),
    (r"*[\-_.]token.json", "a token"),
];

/// The table, ready for use.
#[derive(Debug, Clone)]
pub(super) struct Secrets(Vec<(Option<&'static str>, Glob)>);

impl Secrets {
    pub fn new() -> Self {
        let read = |(pattern, _): &(&'static str, &str)| {
            let (above, name) = match pattern.split_once('/') {
                Some((above, name)) => (Some(above), name),
                None => (None, *pattern),
            };
            (above, Glob::new(name.as_bytes()).expect("a pattern of the table"))
        };
        Self(SECRETS.iter().map(read).collect())
    }

    /// Whether a file of that name holds logins, in a directory of this name.
    pub fn has(&self, above: &[u8], name: &[u8]) -> bool {
        let is_above = |dir: &Option<&str>| dir.is_none_or(|dir| dir.as_bytes() == above);
        self.0.iter().any(|(dir, pattern)| is_above(dir) && pattern.matches(name))
    }
}
