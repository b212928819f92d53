//! The decisions of a collection, without IO.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use proto::id::Millis;
use std::cmp::Reverse;

/// What may be kept: a record or a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its key in the index.
    pub key: Vec<u8>,
    /// Which goes last.
    pub rank: Rank,
    /// When it was used last.
    pub used: Millis,
}

/// Kinds of candidates, those to be kept first before the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Used since the oldest pin was taken: kept in any case.
    Pinned,
    /// Heads of cache mounts: hard to make again.
    CacheMount,
    /// Everything else.
    Other,
    /// Generations of cache mounts before the heads: no step begins with them.
    Earlier,
}

/// Sorts: what is to be kept first comes first.
pub(super) fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by(|a, b| {
        let rank = |c: &Candidate| (c.rank, Reverse(c.used));
        rank(a).cmp(&rank(b)).then_with(|| a.key.cmp(&b.key))
    });
}

/// Whether a candidate is too old to be kept.
pub(super) fn is_old(candidate: &Candidate, now: Millis, unused_for: Option<u64>) -> bool {
    candidate.rank != Rank::Pinned && unused_for.is_some_and(|ms| now.since(candidate.used) > ms)
}

/// How full a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fill {
    pub id: u32,
    /// Bytes of the file.
    pub len: u64,
    /// Bytes of it that are blobs.
    pub live: u64,
}

impl Fill {
    fn dead(&self) -> u64 {
        self.len.saturating_sub(self.live)
    }
}

/// Which segments to write anew, the ones with the least to move first: those that are more than
/// half dead; and while the store is still `over` its budget, those with the largest dead share,
/// unless that is under a sixteenth.
pub(super) fn victims(mut segments: Vec<Fill>, over: u64) -> Vec<Fill> {
    segments.sort_by_key(|s| (Reverse(s.dead().saturating_mul(1024) / s.len.max(1)), s.id));
    let mut freed = 0;
    let mut victims: Vec<Fill> = Vec::new();
    for segment in segments {
        let mostly_dead = segment.live * 2 < segment.len || segment.len == 0;
        let worth_it = freed < over && segment.dead() * 16 >= segment.len;
        if mostly_dead || worth_it {
            freed += segment.dead();
            victims.push(segment);
        }
    }
    victims.sort_by_key(|s| (s.live, s.id));
    victims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, rank: Rank, used: u64) -> Candidate {
        Candidate { key: name.into(), rank, used: Millis(used) }
    }

    #[test]
    fn what_is_pinned_comes_first_then_mounts_then_the_newest() {
        let mut all = vec![
            candidate("old", Rank::Other, 1),
            candidate("new", Rank::Other, 9),
            candidate("mount", Rank::CacheMount, 0),
            candidate("pinned", Rank::Pinned, 0),
        ];
        sort(&mut all);
        let names: Vec<_> = all.iter().map(|c| String::from_utf8_lossy(&c.key)).collect();
        assert_eq!(names, ["pinned", "mount", "new", "old"]);
    }

    #[test]
    fn old_is_by_last_use_and_never_what_is_pinned() {
        let now = Millis(1000);
        assert!(is_old(&candidate("a", Rank::Other, 800), now, Some(100)));
        assert!(!is_old(&candidate("a", Rank::Other, 900), now, Some(100)));
        assert!(!is_old(&candidate("a", Rank::Other, 0), now, None));
        assert!(!is_old(&candidate("a", Rank::Pinned, 0), now, Some(100)));
    }

    #[test]
    fn segments_that_are_mostly_dead_are_written_anew() {
        let fill = |id, live| Fill { id, len: 100, live };
        let all = vec![fill(0, 100), fill(1, 49), fill(2, 50), fill(3, 0), fill(4, 97)];
        let ids = |over| victims(all.clone(), over).iter().map(|s| s.id).collect::<Vec<_>>();
        assert_eq!(ids(0), [3, 1]);
        assert_eq!(ids(151), [3, 1]);
        assert_eq!(ids(152), [3, 1, 2]);
        assert_eq!(ids(u64::MAX), [3, 1, 2]);
    }
}
