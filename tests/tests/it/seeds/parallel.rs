//! Document 001, the second example: in lower case, with two stages on one that is built first.

use super::{Site, seed};

/// The name that a program prints, and from when to when it was made.
fn parse(line: &str) -> (String, u64, u64) {
    let words: Vec<_> = line.split(' ').collect();
    let second = |text: &str| text.parse().expect("a time in seconds");
    (words[0].to_owned(), second(words[1]), second(words[2]))
}

#[test]
fn independent_stages_are_built_at_the_same_time() {
    let site = Site::with(&["alpine", "debian"]);
    let context = seed("001/parallel");
    site.build(&context, "Dockerfile", "parallel");
    let (foo, began1, ended1) = parse(&site.prints("parallel", &["/bin1"]));
    let (bar, began2, ended2) = parse(&site.prints("parallel", &["/bin2"]));
    assert_eq!((foo.as_str(), bar.as_str()), ("foo", "bar"));
    // Each `make` waits three seconds in its middle: one after the other never overlaps, at the
    // same time always does.
    assert!(began1 < ended2 && began2 < ended1, "{began1}-{ended1} and {began2}-{ended2}");
    let about = site.builder.inspect("parallel");
    assert_eq!(about["Config"]["Cmd"], serde_json::json!(["/bin/sh", "-c", "..."]));
}
