//! Every Dockerfile of the conformance corpus goes through the front end and becomes a graph: those
//! that build give the image config and the history that BuildKit gave them; those that must be
//! refused before anything runs are refused with a message that says what is wrong.

mod build;
mod case;
mod image;
mod shape;

use case::Case;
use proto::step::Target;
use regex::RegexBuilder;
use serde_json::Value;

/// Cases that fail, but not by the Dockerfile alone: by what is in the context, at a server or in a
/// container, or by the command line.
const LATER: [&str; 59] = [
    "add/git-bad-ref",
    "add/git-bad-subdir",
    "add/url-404",
    "add/url-checksum-bad",
    "add/url-no-name",
    "contexts/named-missing-dir",
    "copy/chown-name-in-scratch",
    "copy/dest-nested-symlink-vs-dir",
    "copy/dest-symlink-in-source-vs-dir",
    "copy/dest-symlink-loop",
    "copy/dir-over-file",
    "copy/file-over-dir-nested",
    "copy/from-missing",
    "copy/link-name-lookup",
    "copy/parents-missing",
    "copy/parents-through-symlink",
    "copy/several-sources-no-slash",
    "copy/source-symlink-dangling",
    "copy/symlink-loop-source",
    "errors/context-missing",
    "errors/copy-missing",
    "errors/copy-missing-in-dir",
    "errors/flag-unknown",
    "errors/mount-bind-write",
    "errors/onbuild-trigger-fails",
    "errors/output-bad-type",
    "errors/run-command-not-found",
    "errors/run-exec-not-executable",
    "errors/run-fails",
    "errors/run-fails-output-shown",
    "errors/run-killed-by-signal",
    "errors/run-no-shell",
    "errors/second-stage-only-fails",
    "errors/secret-flag-bad",
    "found/archive-below-file",
    "found/archive-below-lost-link",
    "found/archive-below-own-link",
    "found/archive-link-to-itself",
    "found/archive-unknown-kind",
    "found/cache-source-missing",
    "found/heredoc-in-directory",
    "found/parents-excluded",
    "found/parents-link-pivot",
    "found/parents-of-nothing",
    "found/part-with-lost-link",
    "found/pattern-not-closed",
    "found/run-heredoc-outside",
    "found/split-same-file",
    "found/tmpfs-read-only",
    "ignore/bad-pattern",
    "ignore/copy-excluded-file",
    "ignore/exclamation-only",
    "mounts/bind-source-missing",
    "mounts/secret-required",
    "mounts/secret-source-missing",
    "mounts/ssh-required-missing",
    "parse/copy-escaped-blank",
    "run/user-unknown-name",
    "run/workdir-on-file",
];

#[test]
fn files_that_build_give_the_recorded_image() {
    let (mut read, mut configs, mut histories) = (0, 0, 0);
    let mut wrong = Vec::new();
    for case in case::all().iter().filter(|case| case.succeeds) {
        let graph = match build::graph(case) {
            Ok(graph) => graph,
            Err(e) => {
                wrong.push(format!("{}: {e}", case.name));
                continue;
            }
        };
        read += 1;
        for expected in &case.expected {
            let is = |t: &&Target| {
                expected.platform.as_ref().is_none_or(|p| t.platform.to_string() == *p)
            };
            let target = graph.targets.iter().find(is).expect("a target of that platform");
            if let Some(config) = &expected.config {
                configs += 1;
                compare(&mut wrong, &case.name, &shape::config(target), &shape::no_tags(config));
            }
            // Rows for layers that no row speaks of are not the graph's, but the exporter's.
            let is_completed = case.name.starts_with("found/history-of-");
            if let Some(history) = expected.history.as_ref().filter(|_| !is_completed) {
                histories += 1;
                compare(&mut wrong, &case.name, &shape::history(target), history);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        read >= 370 && configs >= 300 && histories >= 300,
        "{read} files were read, {configs} configs and {histories} histories compared"
    );
}

fn compare(wrong: &mut Vec<String>, name: &str, found: &Value, expected: &Value) {
    if found != expected {
        wrong.push(format!("{name}:\n  found    {found}\n  expected {expected}"));
    }
}

#[test]
fn what_must_fail_is_explained() {
    let mut later = Vec::new();
    for case in case::all().iter().filter(|case| !case.succeeds) {
        match build::graph(case) {
            Err(message) => case.check_message(&message),
            Ok(_) => later.push(case.name.clone()),
        }
    }
    assert_eq!(later, LATER);
}

#[test]
fn ignore_files_are_read() {
    let mut read = 0;
    for case in case::all() {
        for file in &case.ignore_files {
            let found = cache::tree::pattern::read_ignore_file(file);
            match case.name.as_str() {
                "ignore/bad-pattern" | "ignore/exclamation-only" => {
                    case.check_message(&found.unwrap_err().to_string());
                }
                name => assert!(found.is_ok(), "{name}: {found:?}"),
            }
            read += 1;
        }
    }
    assert!(read >= 20, "{read} ignore files were read");
}

impl Case {
    fn check_message(&self, message: &str) {
        for about in &self.error_about {
            let about = RegexBuilder::new(about).case_insensitive(true).build().unwrap();
            assert!(about.is_match(message), "{}: {message}", self.name);
        }
    }
}
