//! Texts that only grow, united by lines.

use proto::limit::PACKED_BLOB_BYTES_MAX;
use std::collections::BTreeSet;

/// Bytes of a text that is united, and of the union: what fits in a packed blob. Beyond it the
/// newer text is kept whole.
pub const LINES_BYTES_MAX: usize = PACKED_BLOB_BYTES_MAX;

/// The text that has the lines of both: those of `base` as they are there, then the others, sorted.
/// `None` when it would be larger than [`LINES_BYTES_MAX`].
///
/// Sorted, because then it does not matter which of several writers came first. No line is lost:
/// lines that a side took away are there again.
pub(super) fn union(base: &[u8], a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let known: BTreeSet<&[u8]> = lines(base).collect();
    let new: BTreeSet<&[u8]> = lines(a).chain(lines(b)).filter(|l| !known.contains(l)).collect();
    let all: Vec<&[u8]> = lines(base).chain(new).collect();
    let mut text = all.join(&b'\n');
    // npm begins lines with a line feed, others end them with one.
    if a.ends_with(b"\n") || b.ends_with(b"\n") {
        text.push(b'\n');
    }
    (text.len() <= LINES_BYTES_MAX).then_some(text)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = text.strip_suffix(b"\n").unwrap_or(text);
    whole.split(|b| *b == b'\n').filter(move |_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unite(base: &str, a: &str, b: &str) -> String {
        let text = union(base.as_bytes(), a.as_bytes(), b.as_bytes()).expect("a small text");
        String::from_utf8(text).expect("the lines of texts")
    }

    #[test]
    fn lines_of_both_are_kept() {
        assert_eq!(unite("x\na\n", "x\na\nq\n", "x\na\nc\n"), "x\na\nc\nq\n");
        // As npm writes its index: a line feed before each line, none at the end.
        assert_eq!(unite("\nx", "\nx\na", "\nx\nb"), "\nx\na\nb");
        assert_eq!(unite("", "\nb", "\na"), "\na\nb");
        assert_eq!(unite("", "", "a\n"), "a\n");
        assert_eq!(unite("", "\n", "a"), "\na\n");
        // What one side took away is there again, and so is what comes twice.
        assert_eq!(unite("a\nb\na\n", "a\n", "a\nb\na\n"), "a\nb\na\n");
    }

    #[test]
    fn a_union_that_is_too_large_is_none() {
        let long = |c: char| c.to_string().repeat(LINES_BYTES_MAX / 2);
        assert!(union(b"", long('a').as_bytes(), long('b').as_bytes()).is_none());
        assert!(union(b"", long('a').as_bytes(), long('a').as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn the_order_does_not_matter(
            base in "([a-c]\n){0,3}",
            more in prop::collection::vec("([a-f]\n){0,4}", 3),
        ) {
            let [a, b, c] = [0, 1, 2].map(|i| format!("{base}{}", more[i]));
            prop_assert_eq!(unite(&base, &a, &b), unite(&base, &b, &a));
            let left = unite(&base, &unite(&base, &a, &b), &c);
            prop_assert_eq!(&left, &unite(&base, &a, &unite(&base, &b, &c)));
            prop_assert_eq!(&unite(&base, &left, &a), &left);
            for line in [&a, &b, &c].into_iter().flat_map(|text| text.lines()) {
                prop_assert!(left.lines().any(|l| l == line));
            }
        }
    }
}
