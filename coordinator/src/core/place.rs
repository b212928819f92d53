//! Which work goes where: pure.

use super::event::WorkId;
use proto::id::WorkerId;
use proto::platform::Platform;

/// Pulls and downloads that one worker does at once, beside its RUNs.
pub const FETCHES_MAX: u32 = 6;

/// Work that can be given to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The work.
    pub work: WorkId,
    /// Whether it takes a slot (a RUN) or only a connection (a pull, a download).
    pub slot: bool,
    /// The platform that it needs.
    pub platform: Platform,
    /// The priority of the most important build that wants it.
    pub priority: u8,
    /// How much work stands between it and the end of the longest path, itself included.
    pub path: u64,
    /// Who made its root's newest layer: going on there moves nothing.
    pub near: Option<WorkerId>,
}

/// A worker that can take work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Who.
    pub worker: WorkerId,
    /// What it runs.
    pub platforms: Vec<Platform>,
    /// Slots that are free.
    pub slots: u32,
    /// Fetches that it can begin.
    pub fetches: u32,
}

/// Gives work to workers, as long as there are free ones: the most important build first, then the
/// longest path, then the oldest; each to where its root was made, else to the emptiest.
pub fn assign(mut candidates: Vec<Candidate>, mut places: Vec<Place>) -> Vec<(WorkId, WorkerId)> {
    candidates.sort_by(|a, b| {
        b.priority.cmp(&a.priority).then(b.path.cmp(&a.path)).then(a.work.cmp(&b.work))
    });
    let mut out = Vec::new();
    for candidate in candidates {
        let free = |p: &Place| if candidate.slot { p.slots } else { p.fetches };
        // Files are files, whatever platform they are for: only programs need the right one.
        let fits = |p: &Place| !candidate.slot || p.platforms.contains(&candidate.platform);
        let able = |p: &Place| free(p) > 0 && fits(p);
        let best = places
            .iter_mut()
            .filter(|p| able(p))
            .max_by_key(|p| (Some(&p.worker) == candidate.near.as_ref(), free(p)));
        let Some(place) = best else { continue };
        match candidate.slot {
            true => place.slots -= 1,
            false => place.fetches -= 1,
        }
        out.push((candidate.work, place.worker.clone()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform() -> Platform {
        Platform::parse("linux/amd64").expect("a platform")
    }

    fn candidate(work: u64, path: u64) -> Candidate {
        let (slot, priority, near) = (true, 0, None);
        Candidate { work: WorkId(work), slot, platform: platform(), priority, path, near }
    }

    fn place(name: &str, slots: u32) -> Place {
        let worker = WorkerId::parse(name).expect("a worker id");
        Place { worker, platforms: vec![platform()], slots, fetches: 1 }
    }

    #[test]
    fn the_longest_path_goes_first() {
        let got = assign(vec![candidate(1, 1), candidate(2, 5)], vec![place("a", 1)]);
        assert_eq!(got.iter().map(|(w, _)| w.0).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn work_stays_where_its_root_is() {
        let mut near = candidate(1, 1);
        near.near = Some(WorkerId::parse("b").expect("a worker id"));
        let got = assign(vec![near], vec![place("a", 4), place("b", 1)]);
        assert_eq!(got[0].1.as_str(), "b");
    }

    #[test]
    fn fetches_take_no_slot_and_platforms_count() {
        let mut fetch = candidate(1, 1);
        fetch.slot = false;
        let mut foreign = candidate(2, 9);
        foreign.platform = Platform::parse("linux/arm64").expect("a platform");
        let got = assign(vec![fetch, foreign], vec![place("a", 0)]);
        assert_eq!(got.iter().map(|(w, _)| w.0).collect::<Vec<_>>(), [1]);
    }
}
