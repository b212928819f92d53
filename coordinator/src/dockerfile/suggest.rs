//! "Did you mean …?"

/// How many letters may differ. BuildKit's own bound.
const DISTANCE_MAX: usize = 2;

/// Longer names are not compared.
const CHARS_MAX: usize = 64;

/// The candidate that is nearest to `name`, when one is near. The first one of several wins; `None`
/// as well when `name` itself is a candidate.
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let name: Vec<char> = name.chars().take(CHARS_MAX + 1).collect();
    if name.len() > CHARS_MAX {
        return None;
    }
    let mut best = None;
    let mut bound = DISTANCE_MAX + 1;
    for candidate in candidates {
        match distance(&name, candidate) {
            0 => return None,
            found if found < bound => {
                bound = found;
                best = Some(candidate);
            }
            _ => {}
        }
    }
    best
}

/// How many letters must be put in, left out or changed (Levenshtein); a large number when the
/// lengths alone differ by too much.
fn distance(name: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.chars().take(CHARS_MAX + 1).collect();
    if candidate.len() > CHARS_MAX || name.len().abs_diff(candidate.len()) > DISTANCE_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=candidate.len()).collect();
    for (i, a) in name.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in candidate.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[candidate.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, candidates: &[&str], expect: Option<&str>) {
        assert_eq!(nearest(name, candidates.iter().copied()), expect, "{name}");
    }

    #[test]
    fn near_names_are_found() {
        check("chwon", &["from", "chown", "chmod"], Some("chown"));
        check("taget", &["source", "target"], Some("target"));
        check("kitten", &["sitting"], None);
        check("from", &["from", "form"], None);
        check("x", &[], None);
        check(&"x".repeat(1000), &["x"], None);
        check("ab", &["abc", "ab1"], Some("abc"));
    }
}
