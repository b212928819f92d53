//! The table. `docs/cache-mounts.md` shows it to users; a test compares the two.

use super::{Place, Row};
use crate::mounts::policy::{Action, Deletes, Trim};
use proto::mount::Policy;

const fn at(top: &'static str) -> Place {
    Place { top, inside: "" }
}

const fn part(top: &'static str, inside: &'static str) -> Place {
    Place { top, inside }
}

/// Files that a database keeps beside its own while it is open. Those of one step beside the
/// database of another would tear it, so no union keeps them.
pub(super) const SIDE_FILES: [&str; 6] = [
    "**/*.db-journal",
    "**/*.db-wal",
    "**/*.db-shm",
    "**/*.sqlite*-journal",
    "**/*.sqlite*-wal",
    "**/*.sqlite*-shm",
];

/// What no row knows.
pub(super) const UNKNOWN: Row = Row {
    tool: "",
    places: &[],
    ids: &[],
    policy: Policy::LastWriter,
    deletes: Deletes::Follow,
    paths: &[],
    packages: &[],
    trim: Trim::Everything,
    why: "files of a cache that is not known may need each other: \
          one step's whole state is safe, a mixture may not be",
};

/// One row a tool.
pub const TABLE: [Row; 20] = [
    GO_BUILD,
    GO_MODULES,
    CARGO,
    CARGO_TARGET,
    NPM,
    YARN,
    PNPM,
    PIP,
    UV,
    CCACHE,
    SCCACHE,
    MAVEN,
    GRADLE,
    APT_ARCHIVES,
    APT_LISTS,
    APK,
    BAZEL,
    COMPOSER,
    GEM,
    NUGET,
];

/// A cache of files that stand for themselves: what most rows differ little from.
const ADDITIVE: Row =
    Row { policy: Policy::Union, deletes: Deletes::Keep, trim: Trim::Oldest, ..UNKNOWN };

const GO_BUILD: Row = Row {
    tool: "Go build cache",
    places: &[at("go-build"), at("gocache")],
    ids: &["go-build", "gocache", "go-cache"],
    paths: &[(Action::Newer, "trim.txt"), (Action::Newer, "testexpire.txt")],
    why: "files are named by the hash of what they were made of, \
          and are checked when they are read",
    ..ADDITIVE
};

const GO_MODULES: Row = Row {
    tool: "Go modules",
    places: &[at("pkg/mod"), at("gomodcache")],
    ids: &["go-mod", "gomod", "gomodcache", "go-modules", "go-pkg-mod"],
    paths: &[
        (Action::Skip, "cache/lock"),
        (Action::Skip, "cache/download/**/*.lock"),
        (Action::Skip, "cache/vcs/*.lock"),
        (Action::Lines, "cache/download/**/@v/list"),
    ],
    packages: &["**/*@*", "!cache/**", "cache/vcs/*"],
    why: "a version of a module never changes; lists of versions get the lines of both",
    ..ADDITIVE
};

const CARGO: Row = Row {
    tool: "cargo registry and git",
    places: &[at(".cargo"), part("cargo", "registry"), part("cargo", "git")],
    ids: &["cargo-registry", "cargo-git", "cargo-home"],
    paths: &[
        (Action::Skip, ".package-cache*"),
        (Action::Skip, "registry/index/*/.cargo-index-lock"),
        (Action::Skip, ".global-cache-journal"),
        (Action::Newer, ".global-cache"),
    ],
    packages: &["registry/src/*/*", "registry/index/*/.git", "git/db/*", "git/checkouts/*/*"],
    why: "a version of a crate never changes, repositories only gain objects, \
          and the index is read anew when it is old",
    ..ADDITIVE
};

const CARGO_TARGET: Row = Row {
    tool: "cargo target",
    places: &[at("target")],
    ids: &["cargo-target"],
    why: "cargo compares times of files with each other, which of two steps say nothing",
    ..UNKNOWN
};

const NPM: Row = Row {
    tool: "npm",
    places: &[at(".npm"), part("", "_cacache")],
    ids: &["npm"],
    paths: &[
        (Action::Skip, "_cacache/tmp/**"),
        (Action::Skip, "_locks/**"),
        (Action::Skip, "_logs/**"),
        (Action::Lines, "_cacache/index-v5/**"),
    ],
    packages: &["_npx/*"],
    trim: Trim::Everything,
    why: "content is named by its hash, and the index only grows by lines; \
          npm fails on a line whose content is gone",
    ..ADDITIVE
};

const YARN: Row = Row {
    tool: "yarn",
    places: &[at(".cache/yarn"), at(".yarn/berry"), at(".yarn/cache"), at(".yarn-cache")],
    ids: &["yarn"],
    paths: &[(Action::Skip, "v*/.tmp/**")],
    packages: &["v*/npm-*"],
    why: "names of archives and packages hold their hashes",
    ..ADDITIVE
};

const PNPM: Row = Row {
    tool: "pnpm store",
    places: &[at("pnpm/store"), at(".pnpm-store"), at("pnpm-store")],
    ids: &["pnpm"],
    paths: &[(Action::Skip, "v*/tmp/**")],
    why: "content is named by its hash, and is checked before it is used",
    ..ADDITIVE
};

const PIP: Row = Row {
    tool: "pip",
    places: &[at(".cache/pip")],
    ids: &["pip"],
    why: "answers of registries are asked for again when they are old, \
          and downloads are checked by their hashes",
    ..ADDITIVE
};

const UV: Row = Row {
    tool: "uv",
    places: &[at(".cache/uv")],
    ids: &["uv"],
    paths: &[
        (Action::Skip, ".lock"),
        (Action::Skip, "git-v*/locks/**"),
        (Action::Skip, "builds-v*/**"),
        (Action::Skip, ".tmp*"),
    ],
    packages: &[
        "archive-v*/*",
        "environments-v*/*",
        "git-v*/db/*",
        "git-v*/checkouts/*/*",
        "sdists-v*/**/src",
    ],
    why: "the cache is append-only by its own promise: what was unpacked once stays as it is",
    ..ADDITIVE
};

const CCACHE: Row = Row {
    tool: "ccache",
    places: &[at(".ccache"), at("ccache")],
    ids: &["ccache"],
    paths: &[
        (Action::Skip, "**/*.lock"),
        (Action::Skip, "tmp/**"),
        (Action::Skip, "**/tmp.*"),
        (Action::Newer, "**/stats"),
    ],
    why: "results are named by the hash of what they were made of; counters are only counters",
    ..ADDITIVE
};

const SCCACHE: Row = Row {
    tool: "sccache",
    places: &[at("sccache")],
    ids: &["sccache"],
    why: "results are named by the hash of what they were made of",
    ..ADDITIVE
};

const MAVEN: Row = Row {
    tool: "Maven",
    places: &[at(".m2")],
    ids: &["maven", "m2", "mvn"],
    paths: &[
        (Action::Skip, "repository/.locks/**"),
        (Action::Skip, "repository/**/*.lock"),
        (Action::Skip, "repository/**/*.part"),
        (Action::Lines, "repository/**/_remote.repositories"),
        (Action::Theirs, "repository/**/maven-metadata*"),
        (Action::Theirs, "repository/**/resolver-status.properties"),
    ],
    packages: &["wrapper/dists/*/*"],
    why: "a version of an artifact never changes; lists of versions, their hashes and the times of \
          asking for them belong together, so all come from the head",
    ..ADDITIVE
};

const GRADLE: Row = Row {
    tool: "Gradle",
    places: &[at(".gradle")],
    ids: &["gradle"],
    why: "journals and binary indexes describe the other files, and those of two steps contradict",
    ..UNKNOWN
};

const APT_ARCHIVES: Row = Row {
    tool: "apt archives",
    places: &[at("var/cache/apt")],
    ids: &["apt-cache", "apt-archives"],
    paths: &[(Action::Skip, "archives/lock"), (Action::Skip, "archives/partial/*")],
    why: "a version of a package never changes; apt makes its own index anew when it does not fit",
    ..ADDITIVE
};

const APT_LISTS: Row = Row {
    tool: "apt lists",
    places: &[at("var/lib/apt")],
    ids: &["apt-lists", "apt-lib"],
    why: "a signed `InRelease` names the hashes of the other lists, \
          and beside one of another step apt takes old lists for new ones",
    ..UNKNOWN
};

const APK: Row = Row {
    tool: "apk",
    places: &[at("var/cache/apk"), at("etc/apk/cache")],
    ids: &["apk"],
    why: "names of packages hold their hashes; an index stands for itself and is signed",
    ..ADDITIVE
};

const BAZEL: Row = Row {
    tool: "Bazel disk cache",
    places: &[at("bazel-disk-cache"), at("bazel/disk_cache"), at("bazel/disk-cache")],
    ids: &["bazel-disk-cache", "bazel-disk", "bazel-cache"],
    paths: &[(Action::Skip, "tmp/**"), (Action::Skip, "gc/**")],
    why: "results are named by the hash of what they were made of, content by its own",
    ..ADDITIVE
};

const COMPOSER: Row = Row {
    tool: "composer",
    places: &[at(".composer/cache"), at(".cache/composer")],
    ids: &["composer"],
    packages: &["vcs/*"],
    why: "archives are named by commits; lists are asked for again when they are old",
    ..ADDITIVE
};

const GEM: Row = Row {
    tool: "bundler and gem",
    places: &[at("usr/local/bundle"), at("vendor/bundle"), at(".bundle"), at(".gem")],
    ids: &["bundler", "bundle", "gem", "gems"],
    packages: &["**/gems/*", "**/extensions/*/*/*"],
    trim: Trim::Everything,
    why: "a version of a gem never changes; \
          with a gem gone its specification would still say that it is installed",
    ..ADDITIVE
};

const NUGET: Row = Row {
    tool: "NuGet",
    places: &[at(".nuget"), at("NuGet/v3-cache"), at("NuGet/http-cache")],
    ids: &["nuget"],
    packages: &["packages/*/*"],
    why: "a version of a package never changes; \
          answers of registries are asked for again when they are old",
    ..ADDITIVE
};
