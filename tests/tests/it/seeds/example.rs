//! Document 000, the first example: a file that passes through three stages.

use super::{Site, seed};

#[test]
fn three_stages_write_one_file() {
    let site = Site::with(&["alpine"]);
    let context = seed("000/example");
    site.build(&context, "Dockerfile.meant", "example");
    assert_eq!(site.prints("example", &[]), "Builder\nTester");
}

#[test]
fn a_comment_behind_an_instruction_is_none() {
    let site = Site::with(&["alpine"]);
    let outcome = site.build_with(&["-t", "example"], &seed("000/example"), "Dockerfile");
    outcome.fails(1).says("FROM").says("argument").says("Dockerfile:1");
}
