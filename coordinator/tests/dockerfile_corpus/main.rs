//! Every Dockerfile of the conformance corpus goes through the front end: those that build are read,
//! and give the history that BuildKit gave them; those that the front end must refuse are refused
//! with a message that says what is wrong.

mod build;
mod case;

use case::Case;
use regex::RegexBuilder;

/// Cases that must fail, and that the front end itself can tell.
const REFUSED: [&str; 48] = [
    "errors/arg-bad-name",
    "errors/copy-bad-bool",
    "errors/copy-bad-chmod",
    "errors/copy-bad-chmod-large",
    "errors/copy-json-not-strings",
    "errors/copy-one-argument",
    "errors/copy-repeated-flag",
    "errors/copy-unknown-flag",
    "errors/copy-url",
    "errors/directive-duplicate",
    "errors/empty",
    "errors/env-mixed",
    "errors/env-no-value",
    "errors/expose-bad",
    "errors/from-bad-platform",
    "errors/from-bad-stage-name",
    "errors/from-empty",
    "errors/from-too-many",
    "errors/from-unknown-flag",
    "errors/healthcheck-bad-duration",
    "errors/healthcheck-none-with-args",
    "errors/heredoc-unterminated",
    "errors/huge-line",
    "errors/label-no-value",
    "errors/maintainer-two",
    "errors/mount-bad-option",
    "errors/mount-bad-size",
    "errors/mount-bad-type",
    "errors/mount-no-target",
    "errors/mount-uid-on-bind",
    "errors/no-from",
    "errors/non-utf8",
    "errors/nul-byte",
    "errors/onbuild-from",
    "errors/onbuild-onbuild",
    "errors/only-args",
    "errors/run-bad-network",
    "errors/run-unknown-flag",
    "errors/shell-not-json",
    "errors/stopsignal-bad",
    "errors/unknown-instruction",
    "errors/user-empty",
    "errors/volume-empty",
    "errors/workdir-empty",
    "expand/bad-modifier",
    "expand/modifiers-required-unset",
    "expand/unclosed-brace",
    "mounts/expansion-in-from",
];

#[test]
fn files_that_build_are_read_and_give_the_recorded_history() {
    let mut read = 0;
    let mut compared = 0;
    for case in case::all().iter().filter(|case| case.succeeds) {
        let history = build::history(case).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        read += 1;
        if let Some(expect) = &case.history {
            assert_eq!(&history, expect, "{}", case.name);
            compared += 1;
        }
    }
    assert!(
        read >= 370 && compared >= 297,
        "{read} files were read, {compared} histories compared"
    );
}

#[test]
fn files_that_the_front_end_refuses_are_explained() {
    let cases = case::all();
    for name in REFUSED {
        let case = cases.iter().find(|case| case.name == name).unwrap();
        let message = build::history(case).expect_err(name);
        case.check_message(&message);
    }
}

#[test]
fn what_fails_for_other_reasons_is_not_refused_with_a_wrong_message() {
    for case in case::all().iter().filter(|case| !case.succeeds) {
        if let Err(message) = build::history(case) {
            case.check_message(&message);
        }
    }
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
