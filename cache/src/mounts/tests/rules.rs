//! Which rules which mount has; and the documentation, which shows the table.

use crate::mounts::{Action, Deletes, Place, Policy, Row, Rules, SECRETS, TABLE, Trim, admit};
use crate::store::StoreNodes;
use crate::store::memory::MemoryStore;

use super::model::{Tree, build, file, keep, read};

fn tool(id: &str, target: &str) -> Option<&'static str> {
    Rules::of(id, target).tool()
}

#[test]
fn mounts_are_known_by_their_targets() {
    for (target, expected) in [
        ("/root/.cache/go-build", "Go build cache"),
        ("/go/pkg/mod", "Go modules"),
        ("/go/pkg/mod/cache/download", "Go modules"),
        ("/usr/local/cargo/registry", "cargo registry and git"),
        ("/usr/local/cargo/git/db", "cargo registry and git"),
        ("/root/.cargo", "cargo registry and git"),
        ("/src/app/target", "cargo target"),
        ("/target/home/.npm", "npm"),
        ("/tmp/x/_cacache", "npm"),
        ("/usr/local/share/.cache/yarn/v6", "yarn"),
        ("/pnpm/store/", "pnpm store"),
        ("/root/.cache/pip", "pip"),
        ("/root/.cache/uv", "uv"),
        ("/root/.ccache", "ccache"),
        ("/root/.cache/sccache", "sccache"),
        ("/root/.m2/repository", "Maven"),
        ("/home/gradle/.gradle/caches", "Gradle"),
        ("/var/cache/apt", "apt archives"),
        ("/var/cache/apt/archives", "apt archives"),
        ("/var/lib/apt/lists", "apt lists"),
        ("/etc/apk/cache", "apk"),
        ("/root/.cache/bazel-disk-cache", "Bazel disk cache"),
        ("/root/.composer/cache", "composer"),
        ("/usr/local/bundle", "bundler and gem"),
        ("/root/.nuget/packages", "NuGet"),
    ] {
        assert_eq!(tool(target, target), Some(expected), "{target}");
        assert_eq!(tool(target, "/elsewhere"), Some(expected), "the id {target}");
    }
    for unknown in
        ["/", "", "/root/.cache", "/usr/local/cargo", "/cargo", "/app/registry", "/targets"]
    {
        assert_eq!(tool(unknown, unknown), None, "{unknown}");
    }
}

#[test]
fn mounts_are_known_by_their_ids() {
    for (id, expected) in [
        ("go-build", Some("Go build cache")),
        ("cargo-registry-linux/amd64", Some("cargo registry and git")),
        ("cargo-target", Some("cargo target")),
        ("team/npm", Some("npm")),
        ("pnpm", Some("pnpm store")),
        ("uv.3.12", Some("uv")),
        ("apt-lists", Some("apt lists")),
        ("apt", None),
        ("npmfoo", None),
        ("my-npm", None),
        ("builder", None),
    ] {
        assert_eq!(tool(id, "/cache"), expected, "{id}");
    }
    // Where a mount is says more than how it is called.
    assert_eq!(tool("npm", "/root/.cache/pip"), Some("pip"));
}

#[test]
fn what_is_not_known_is_one_steps() {
    let rules = Rules::of("x", "/x");
    assert_eq!((rules.policy(), rules.trim()), (Policy::LastWriter, Trim::Everything));
    let rules = rules.with_policy(Policy::Union);
    assert_eq!((rules.policy(), rules.deletes()), (Policy::Union, Deletes::Follow));
}

#[test]
fn policies_are_read() {
    for policy in Policy::ALL {
        assert_eq!(Policy::parse(policy.as_str()), Ok(policy));
        assert_eq!(policy.to_string(), policy.as_str());
    }
    for bad in ["", "Union", "lww", "union "] {
        let error = Policy::parse(bad).unwrap_err();
        assert!(error.to_string().contains("`union`"), "{error}");
        assert_eq!(error.class(), proto::error::Class::User);
    }
}

/// Which paths of a mount are left alone when they are new: `Skip` seen from outside.
fn left_out(target: &str, paths: &[&str]) -> Vec<String> {
    let store = MemoryStore::new();
    let files: Vec<_> = paths.iter().map(|path| (*path, file(1, "x"))).collect();
    let mine = build(&store, &Tree::of(&files));
    let nodes = StoreNodes(&store);
    let admitted = admit(&nodes, &Rules::of(target, target), None, &mine).unwrap();
    keep(&store, &[], admitted.made);
    let left = read(&store, &admitted.tree);
    paths.iter().filter(|path| left.get(path).is_none()).map(|path| (*path).to_owned()).collect()
}

#[test]
fn patterns_count_from_the_caches_top() {
    let paths = ["cache/lock", "cache/download/x/@v/v1.lock", "x@v1/cache/lock", "x@v1/y.lock"];
    assert_eq!(left_out("/go/pkg/mod", &paths), &paths[..2]);
    // The same cache, mounted further down.
    let paths = ["lock", "download/x/@v/v1.lock", "vcs/0a/x.lock", "vcs/0a.lock"];
    assert_eq!(left_out("/go/pkg/mod/cache", &paths), ["lock", paths[1], paths[3]]);
    let paths = [".package-cache", "registry/src/i/a-1/Cargo.lock", "registry/src/i/a-1/.npmrc"];
    assert_eq!(left_out("/root/.cargo", &paths), [".package-cache"]);
    let paths = ["src/i/a-1/.npmrc", ".npmrc"];
    assert_eq!(left_out("/usr/local/cargo/registry", &paths), [".npmrc"]);
    let paths = ["_cacache/tmp/x", "_cacache/index-v5/aa/bb", "_logs/1.log"];
    assert_eq!(left_out("/root/.npm", &paths), [paths[0], paths[2]]);
    assert_eq!(left_out("/root/.npm/_cacache", &["tmp/x", "index-v5/a"]), ["tmp/x"]);
    let paths = ["archives/lock", "archives/partial/x.deb", "archives/x.deb", "a.db-wal"];
    assert_eq!(left_out("/var/cache/apt", &paths), [paths[0], paths[1], paths[3]]);
    // One step's whole state has its locks too.
    assert_eq!(left_out("/x/target", &["debug/.cargo-lock", "x.db-wal"]), [""; 0]);
}

#[test]
fn the_table_is_consistent() {
    for row in TABLE {
        let Row { tool, places, ids, policy, deletes, paths, packages, trim, why } = row;
        assert!(!tool.is_empty() && !places.is_empty() && !ids.is_empty() && !why.is_empty());
        for Place { top, inside } in places {
            assert!(!top.is_empty() || !inside.is_empty(), "{tool}");
        }
        // Rules for paths are of unions, and a package that lost files to a deletion is broken.
        let is_union = policy == Policy::Union;
        assert_eq!(is_union, deletes == Deletes::Keep, "{tool}");
        assert!(is_union || paths.is_empty() && packages.is_empty(), "{tool}");
        assert!(is_union || trim == Trim::Everything, "{tool}");
        for id in ids {
            assert_eq!(Rules::of(id, "/cache").tool(), Some(tool), "the id {id}");
        }
        for Place { top, inside } in places {
            let target = format!("/somewhere/{top}/{inside}");
            assert_eq!(Rules::of("", &target).tool(), Some(tool), "{target}");
        }
    }
}

fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::Union => "union",
        Policy::LastWriter => "last",
        Policy::Discard => "discard",
    }
}

fn code<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let quoted: Vec<String> = texts.into_iter().map(|text| format!("`{text}`")).collect();
    quoted.join(" ")
}

/// A row as the documentation shows it.
fn shown(row: &Row) -> String {
    let place = |place: &Place| match (place.top, place.inside) {
        (top, "") => format!("`{top}`"),
        ("", inside) => format!("`{inside}`"),
        (top, inside) => format!("`{top}/{inside}`"),
    };
    let places: Vec<String> = row.places.iter().map(place).collect();
    let kinds = [
        (Action::Skip, "not kept:"),
        (Action::Lines, "by lines:"),
        (Action::Newer, "the newest:"),
        (Action::Theirs, "the head's:"),
    ];
    let of = |kind: Action| row.paths.iter().filter(move |(a, _)| *a == kind).map(|(_, p)| *p);
    let paths = kinds.into_iter().filter(|(kind, _)| of(*kind).count() > 0);
    let paths: Vec<String> =
        paths.map(|(kind, text)| format!("{text} {}", code(of(kind)))).collect();
    let packages = code(row.packages.iter().copied());
    let trim = match row.trim {
        Trim::Oldest => "the oldest",
        Trim::Everything => "everything",
    };
    let cells = [
        row.tool.to_owned(),
        places.join(" "),
        code(row.ids.iter().copied()),
        format!("`{}`", policy(row.policy)),
        paths.join("; "),
        packages,
        trim.to_owned(),
        row.why.to_owned(),
    ];
    format!("| {} |", cells.join(" | ").replace("  ", " "))
}

#[test]
fn the_documentation_shows_the_tables() {
    let text = include_str!("../../../../docs/cache-mounts.md");
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let table = |heading: &str| -> Vec<String> {
        let (_, part) = text.split_once(heading).expect("a heading of the documentation");
        let part = part.split("\n## ").next().unwrap_or_default();
        let rows = part.lines().filter(|line| line.starts_with('|'));
        rows.skip(2).map(squeeze).collect()
    };
    let expected: Vec<String> = TABLE.iter().map(|row| squeeze(&shown(row))).collect();
    assert_eq!(table("## What is known"), expected, "\n{}\n", expected.join("\n"));
    let secrets: Vec<String> =
        SECRETS.iter().map(|(name, what)| squeeze(&format!("| `{name}` | {what} |"))).collect();
    assert_eq!(table("## What does not enter"), secrets, "\n{}\n", secrets.join("\n"));
}
